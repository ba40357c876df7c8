"""The ACDC release (Bernard et al., IEEE TMI 37(11), 2018) as an nnU-Net raw folder."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ccdcseg.datasets.cases import Case
from ccdcseg.datasets.release import Notes, Release, free_folder, patient_folders, write_dataset, write_pair
from ccdcseg.datasets.volumes import read_image, read_mask
from ccdcseg.errors import UserError
from ccdcseg.processes import Progress

LABELS = {"RV": 1, "Myo": 2, "LV": 3}
"""Value of each foreground class of an ACDC mask."""

SYNTHETIC_KEY = "Synthetic"
"""A line of ``Info.cfg`` that ACDC's own files lack: it marks a phantom, and what is made of it says so."""

_PHASES = ("ED", "ES")
_PATIENT_FOLDER = re.compile(r"patient\d{3}")
_RESTORE = "Restore it from the official release."


_ACDC = Release(
    name="ACDC",
    description="Short-axis cine MRI of the Automated Cardiac Diagnosis Challenge, two frames a patient",
    reference="O. Bernard, A. Lalande, C. Zotti, F. Cervenansky, et al. Deep Learning Techniques for "
    "Automatic MRI Cardiac Multi-structures Segmentation and Diagnosis: Is the Problem Solved? IEEE "
    "Transactions on Medical Imaging 37(11), 2514-2525, 2018. doi:10.1109/TMI.2018.2837502",
    licence="CC BY-NC-SA 4.0; whoever uses the data cites the reference",
    labels=LABELS,
)
_PHANTOM = replace(
    _ACDC,
    name="Phantom",
    description="Synthetic cardiac phantom in the layout of ACDC. No scan of a real person.",
    reference="ccdcseg.phantom",
    licence="CC0 1.0",
    synthetic=True,
)


@dataclass(frozen=True)
class _Scan:
    case: Case
    image: Path
    mask: Path
    synthetic: bool


def prepare_acdc(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    progress: Progress | None = None,
    workers: int = 1,
) -> Path:
    """Turn a raw ACDC release into an nnU-Net raw folder with a table of cases.

    Voxels are kept as they are. Headers are written anew, since the axes of ACDC's affines have length 1
    whatever the spacing: ITK warns about that at every reading, and viewers that trust the affine show 1 mm.

    Args:
        source: the folder with ``patientNNN`` folders, or its parent with ``training``, ``testing`` or both.
        raw_root, dataset_id, progress, workers: see `ccdcseg.datasets.own.prepare_own`.

    Returns:
        The new folder, ``Dataset{ID}_ACDC``; ``Dataset{ID}_Phantom`` where the release is our synthetic one.

    Raises:
        UserError: no patient is found, one lacks ``Info.cfg``, a key in it or a frame, a scan or mask is
            unusable (see `ccdcseg.datasets.volumes`), or the id is taken. Nothing is left.
    """
    scans = [scan for folder in _patient_folders(source) for scan in _patient_scans(folder)]
    release = _PHANTOM if any(scan.synthetic for scan in scans) else _ACDC
    target = free_folder(raw_root, dataset_id, release.name)
    return write_dataset(release, scans, _convert, target, workers, progress)


def _patient_folders(source: Path) -> list[Path]:
    found = patient_folders((source, source / "training", source / "testing"), _PATIENT_FOLDER, ["Info.cfg"])
    if not found:
        raise UserError(
            f"{source} holds no patient folder.",
            "Give the folder with patient001, or its parent with training.",
        )
    return found


def _patient_scans(folder: Path) -> Iterator[_Scan]:
    path = folder / "Info.cfg"
    info = _read_info(path)
    frames = {phase: _frame(path, phase, info[phase]) for phase in _PHASES}
    if frames["ED"] == frames["ES"]:
        raise UserError(f"{path} names the same frame, {frames['ED']}, as ED and ES.", _RESTORE)
    for phase, frame in frames.items():
        name = f"{folder.name}_frame{frame:02d}"
        image, mask = folder / f"{name}.nii.gz", folder / f"{name}_gt.nii.gz"
        for path in (image, mask):
            if not path.is_file():
                raise UserError(f"{folder.name} lacks a file of its {phase} frame: {path}.", _RESTORE)
        yield _Scan(Case(name, folder.name, info["Group"], phase), image, mask, SYNTHETIC_KEY in info)


def _read_info(path: Path) -> dict[str, str]:
    try:
        lines = [line.partition(":") for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.", _RESTORE) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).", _RESTORE) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text file.", _RESTORE) from error
    info = {key.strip(): value.strip() for key, _, value in lines}
    missing = [key for key in (*_PHASES, "Group") if not info.get(key)]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}.", _RESTORE)
    return info


def _frame(path: Path, phase: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,4}", text):
        raise UserError(
            f"{path} gives the {phase} frame as {text[:20]!r}, which is no frame number.", _RESTORE
        )
    return int(text)


def _convert(folder: Path, scan: _Scan) -> Notes:
    return write_pair(folder, scan.case.case, [read_image(scan.image)], read_mask(scan.mask, LABELS))
