"""The ACDC release (Bernard et al., IEEE TMI 37(11), 2018) as an nnU-Net raw folder."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ccdcseg.datasets.cases import Case, dataset_names, id_in_name, write_cases
from ccdcseg.datasets.volumes import check_not_empty, check_pair, read_image, read_mask, write_volume
from ccdcseg.errors import UserError
from ccdcseg.files import DISK_FULL, new_folder, write_json

LABELS = {"RV": 1, "Myo": 2, "LV": 3}
"""Value of each foreground class of an ACDC mask."""

SYNTHETIC_KEY = "Synthetic"
"""A line of ``Info.cfg`` that ACDC's own files lack: it marks a phantom, and what is made of it says so."""

_PHASES = ("ED", "ES")
_PATIENT_FOLDER = re.compile(r"patient\d{3}")
_RESTORE = "Restore it from the official release."


@dataclass(frozen=True)
class _Release:
    name: str
    description: str
    reference: str
    licence: str
    synthetic: bool = False


_ACDC = _Release(
    name="ACDC",
    description="Short-axis cine MRI of the Automated Cardiac Diagnosis Challenge, two frames a patient",
    reference="O. Bernard, A. Lalande, C. Zotti, F. Cervenansky, et al. Deep Learning Techniques for "
    "Automatic MRI Cardiac Multi-structures Segmentation and Diagnosis: Is the Problem Solved? IEEE "
    "Transactions on Medical Imaging 37(11), 2514-2525, 2018. doi:10.1109/TMI.2018.2837502",
    licence="CC BY-NC-SA 4.0; whoever uses the data cites the reference",
)
_PHANTOM = _Release(
    name="Phantom",
    description="Synthetic cardiac phantom in the layout of ACDC. No scan of a real person.",
    reference="ccdcseg.datasets.phantom",
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
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
) -> Path:
    """Turn a raw ACDC release into an nnU-Net raw folder with a table of cases.

    Voxels are kept as they are. Headers are written anew, since the axes of ACDC's affines have length 1
    whatever the spacing: ITK warns about that at every reading, and viewers that trust the affine show 1 mm.

    Args:
        source: the folder with ``patientNNN`` folders, or its parent with ``training``, ``testing`` or both.
        raw_root: nnU-Net's ``nnUNet_raw``.
        dataset_id: nnU-Net's number for the data set, 1 to 999.
        progress: called with the number of scans done and of all scans.
        workers: threads.

    Returns:
        The new folder, ``Dataset{ID}_ACDC``; ``Dataset{ID}_Phantom`` where the release is our synthetic one.

    Raises:
        UserError: no patient is found, one lacks ``Info.cfg``, a key in it or a frame, a scan or mask is
            unusable (see `ccdcseg.datasets.volumes`), the id is taken, or the disk is full. Nothing is left.
    """
    scans = [scan for folder in _patient_folders(source) for scan in _patient_scans(folder)]
    release = _PHANTOM if any(scan.synthetic for scan in scans) else _ACDC
    _check_free(raw_root, dataset_id)
    target = raw_root / f"Dataset{dataset_id:03d}_{release.name}"
    with refusing_full_disk(raw_root), new_folder(target) as folder:
        _convert_all(scans, folder, progress, workers)
        write_json(folder / "dataset.json", _description(release, len(scans)))
        write_cases(folder, [scan.case for scan in scans])
    return target


@contextmanager
def refusing_full_disk(folder: Path) -> Iterator[None]:
    """Turn the operating system's word for a full disk into one of ours.

    Raises:
        UserError: the disk, or the user's share of it, is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise UserError(
            f"The disk of {folder} is full.", "Free some space, or choose a folder on another disk."
        ) from error


def _patient_folders(source: Path) -> list[Path]:
    found: dict[str, Path] = {}
    for place in (source, source / "training", source / "testing"):
        for entry in place.iterdir() if place.is_dir() else ():
            if entry.is_dir() and _PATIENT_FOLDER.fullmatch(entry.name):
                if entry.name in found:
                    raise UserError(
                        f"{entry} and {found[entry.name]} are the same patient.", "Remove one of them."
                    )
                found[entry.name] = entry
    if not found:
        raise UserError(
            f"{source} holds no patient folder.",
            "Give the folder with patient001, or its parent with training.",
        )
    return [found[name] for name in sorted(found)]


def _patient_scans(folder: Path) -> Iterator[_Scan]:
    info = _read_info(folder / "Info.cfg")
    for phase in _PHASES:
        name = f"{folder.name}_frame{_frame(folder / 'Info.cfg', phase, info[phase]):02d}"
        image, mask = folder / f"{name}.nii.gz", folder / f"{name}_gt.nii.gz"
        for path in (image, mask):
            if not path.is_file():
                raise UserError(f"{folder.name} lacks a file of its {phase} frame: {path}.", _RESTORE)
        yield _Scan(Case(name, folder.name, info["Group"], phase), image, mask, SYNTHETIC_KEY in info)


def _read_info(path: Path) -> dict[str, str]:
    try:
        lines = [line.partition(":") for line in path.read_text().splitlines()]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.", _RESTORE) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text file.", _RESTORE) from error
    info = {key.strip(): value.strip() for key, _, value in lines}
    missing = [key for key in (*_PHASES, "Group") if not info.get(key)]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}.", _RESTORE)
    if info["ED"] == info["ES"]:
        raise UserError(f"{path} names the same frame, {info['ED']}, as ED and ES.", _RESTORE)
    return info


def _frame(path: Path, phase: str, text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{path} gives the {phase} frame as {text!r}, which is no frame number.", _RESTORE)
    return int(text)


def _check_free(raw_root: Path, number: int) -> None:
    if not 1 <= number <= 999:
        raise UserError(f"The data set id {number} is out of range.", "Choose one from 1 to 999.")
    names = dataset_names(raw_root) if raw_root.exists() else []
    taken = [name for name in names if id_in_name(name) == number]
    if taken:
        raise UserError(
            f"The data set id {number} is taken by {raw_root / taken[0]}.", "Choose another id, or remove it."
        )


def _convert_all(
    scans: Sequence[_Scan], folder: Path, progress: Callable[[int, int], None] | None, workers: int
) -> None:
    with ThreadPoolExecutor(workers) as pool:
        try:
            for done, _ in enumerate(pool.map(partial(_convert, folder), scans), start=1):
                if progress is not None:
                    progress(done, len(scans))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _convert(folder: Path, scan: _Scan) -> None:
    image = read_image(scan.image)
    mask = read_mask(scan.mask, LABELS)
    check_pair(image, mask)
    check_not_empty(mask)
    write_volume(folder / "imagesTr" / f"{scan.case.case}_0000.nii.gz", image)
    write_volume(folder / "labelsTr" / f"{scan.case.case}.nii.gz", mask)


def _description(release: _Release, scans: int) -> dict[str, object]:
    return {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **LABELS},
        "numTraining": scans,
        "file_ending": ".nii.gz",
        "name": release.name,
        "description": release.description,
        "reference": release.reference,
        "licence": release.licence,
        "synthetic": release.synthetic,
    }
