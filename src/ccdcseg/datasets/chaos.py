"""The CHAOS release (Kavur et al., Medical Image Analysis 69, 2021) as nnU-Net raw folders: MR, CT."""

import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccdcseg.datasets.cases import Case
from ccdcseg.datasets.dicom import read_series, read_voxels
from ccdcseg.datasets.release import Notes, Release, free_folder, patient_folders, write_dataset, write_pair
from ccdcseg.datasets.sequences import ChaosSequence
from ccdcseg.datasets.volumes import Volume
from ccdcseg.datasets.walk import by_number
from ccdcseg.errors import UserError
from ccdcseg.files import real
from ccdcseg.processes import Progress
from ccdcseg.texts import reason

MR_LABELS = {"liver": 1, "right_kidney": 2, "left_kidney": 3, "spleen": 4}
"""Value of each foreground class of a converted MR mask."""

CT_LABELS = {"liver": 1}
"""Value of the one foreground class of a converted CT mask."""

Bands = Mapping[int, tuple[tuple[int, int], ...]]
"""Ranges of grey values, both ends included, that mean a label."""

MR_BANDS: Bands = {1: ((55, 70),), 2: ((110, 135),), 3: ((175, 200),), 4: ((240, 255),)}
"""Of MR masks. The values meant are 63, 126, 189 and 252."""

CT_BANDS: Bands = {1: ((55, 70), (255, 255))}
"""Of CT masks: a one-bit mask's white, or the liver's band as in MR, as in submissions to the challenge."""

_MR_IMAGES = {
    ChaosSequence.T1_IN: Path("T1DUAL", "DICOM_anon", "InPhase"),
    ChaosSequence.T1_OUT: Path("T1DUAL", "DICOM_anon", "OutPhase"),
    ChaosSequence.T2: Path("T2SPIR", "DICOM_anon"),
}
_CT_IMAGES = Path("DICOM_anon")
_GROUND = "Ground"
_NUMBER = re.compile(r"\d+")
_RESTORE = "Restore it from the official release."

_MR = Release(
    name="CHAOS_MR",
    description="Abdominal MRI of healthy people, T1-DUAL in and out of phase and T2-SPIR, four organs",
    reference="A. E. Kavur, N. S. Gezer, M. Baris, S. Aslan, P.-H. Conze, et al. CHAOS Challenge - combined "
    "(CT-MR) healthy abdominal organ segmentation. Medical Image Analysis 69, 101950, 2021. "
    "doi:10.1016/j.media.2020.101950. Data: doi:10.5281/zenodo.3362844",
    licence="CC BY-NC-SA 4.0; whoever uses the data cites the reference",
    labels=MR_LABELS,
)
_CT = Release(
    name="CHAOS_CT",
    description="Contrast-enhanced abdominal CT of healthy people in Hounsfield units, the liver",
    reference=_MR.reference,
    licence=_MR.licence,
    labels=CT_LABELS,
    channels=("CT",),
)


@dataclass(frozen=True)
class _Scan:
    case: Case
    slices: Path
    ground: Path


def prepare_chaos_mr(
    source: Path,
    raw_root: Path,
    dataset_id: int,
    sequences: Sequence[ChaosSequence] = tuple(ChaosSequence),
    progress: Progress | None = None,
    workers: int = 1,
) -> Path:
    """Turn the MR part of CHAOS into an nnU-Net raw folder with a table of cases.

    Each sequence of a patient is a case of its own; the two phases of T1-DUAL share one mask.

    Args:
        source: the release with ``MR``, that folder, or one patient's, which holds ``T1DUAL`` and ``T2SPIR``.
        sequences: which to convert.
        raw_root, dataset_id, progress, workers: see `ccdcseg.datasets.own.prepare_own`.

    Returns:
        The new folder, ``Dataset{ID}_CHAOS_MR``.

    Raises:
        UserError: no patient is found; slices or masks are missing, damaged or do not belong together (see
            `ccdcseg.datasets.dicom.read_series`); a mask holds a grey value of no organ; or the id is
            taken. Nothing is left.
    """
    wanted = [sequence for sequence in ChaosSequence if sequence in sequences]
    folders = _patient_folders(source, "MR", ("T1DUAL", "T2SPIR"))
    scans = [
        _Scan(
            Case(f"{patient}_{sequence}", patient, "", sequence.value),
            folder / _MR_IMAGES[sequence],
            folder / _MR_IMAGES[sequence].parts[0] / _GROUND,
        )
        for patient, folder in folders.items()
        for sequence in wanted
    ]
    return _prepare(_MR, MR_BANDS, scans, free_folder(raw_root, dataset_id, _MR.name), progress, workers)


def prepare_chaos_ct(
    source: Path, raw_root: Path, dataset_id: int, progress: Progress | None = None, workers: int = 1
) -> Path:
    """Turn the CT part of CHAOS into an nnU-Net raw folder with a table of cases, in Hounsfield units.

    Args:
        source: the release with ``CT``, that folder, or one patient's, which holds ``DICOM_anon`` and ``Ground``.
        raw_root, dataset_id, progress, workers: see `ccdcseg.datasets.own.prepare_own`.

    Returns:
        The new folder, ``Dataset{ID}_CHAOS_CT``.

    Raises:
        UserError: as `prepare_chaos_mr`.
    """
    folders = _patient_folders(source, "CT", ("DICOM_anon",))
    scans = [
        _Scan(Case(patient, patient, "", ""), folder / _CT_IMAGES, folder / _GROUND)
        for patient, folder in folders.items()
    ]
    return _prepare(_CT, CT_BANDS, scans, free_folder(raw_root, dataset_id, _CT.name), progress, workers)


def _prepare(
    release: Release,
    bands: Bands,
    scans: Sequence[_Scan],
    target: Path,
    progress: Progress | None,
    workers: int,
) -> Path:
    for scan in scans:
        _paired_files(scan)
    return write_dataset(release, scans, partial(_convert, bands), target, workers, progress)


def _patient_folders(source: Path, part: str, content: Sequence[str]) -> dict[str, Path]:
    """Folder of each patient by the patient's name, such as mr01."""
    if any((source / name).is_dir() for name in content):
        return {_patient(part, real(source).name): source}
    trees = (source, source / "Train_Sets", source / "CHAOS_Train_Sets" / "Train_Sets")
    folders = patient_folders((source, *(tree / part for tree in trees)), _NUMBER, content)
    if not folders:
        raise UserError(
            f"{source} holds no patient folder of CHAOS {part}.",
            f"Give the folder with {part}, the folder {part} with its numbered patients, or one patient's "
            f"folder with {' and '.join(content)}.",
        )
    named: dict[str, Path] = {}
    for folder in folders:
        patient = _patient(part, folder.name)
        if patient in named:
            raise UserError(f"{folder} and {named[patient]} are the same patient.", "Remove one of them.")
        named[patient] = folder
    return named


def _patient(part: str, name: str) -> str:
    return f"{part.lower()}{int(name):02d}" if _NUMBER.fullmatch(name) else re.sub(r"[^\w-]", "_", name)


def _paired_files(scan: _Scan) -> tuple[list[Path], list[Path]]:
    """Slices and masks, each in the order of their names, in which they belong together."""
    slices, masks = _files(scan.slices, ".dcm"), _files(scan.ground, ".png")
    if len(slices) != len(masks):
        raise UserError(
            f"{scan.slices} holds {len(slices)} slices, {scan.ground} {len(masks)} masks.",
            "Restore both folders from the official release.",
        )
    return slices, masks


def _files(folder: Path, suffix: str) -> list[Path]:
    entries = folder.iterdir() if folder.is_dir() else ()
    found = [path for path in entries if path.suffix.lower() == suffix and not path.name.startswith(".")]
    if not found:
        raise UserError(
            f"{folder} holds no {suffix} file.",
            "Restore it from the official release; its test sets have no masks and cannot be converted.",
        )
    return sorted(found, key=lambda path: by_number(path.name))


def _convert(bands: Bands, folder: Path, scan: _Scan) -> Notes:
    slices, masks = _paired_files(scan)
    series = read_series(slices)
    mask = np.stack([_read_mask(masks[index], series.shape, bands) for index in series.order])
    image, mask_volume = (
        Volume(path, array, series.spacing_mm, series.origin_mm, series.direction)
        for path, array in ((scan.slices, read_voxels(series)), (scan.ground, mask))
    )
    return [*series.notes, *write_pair(folder, scan.case.case, [image], mask_volume)]


def _read_mask(path: Path, shape: tuple[int, int], bands: Bands) -> NDArray[np.int16]:
    grey = _read_png(path, shape)
    labels = _label_of_grey(bands)[grey]
    unknown = np.unique(grey[labels < 0])
    if unknown.size:
        known = ", ".join(
            f"{first} to {last}" if first < last else f"{last}" for b in bands.values() for first, last in b
        )
        raise UserError(
            f"{path} holds the value {', '.join(map(str, unknown[:3]))}, which is no organ's: these are {known}, "
            "and 0 for the background.",
            _RESTORE,
        )
    return labels


def _label_of_grey(bands: Bands) -> NDArray[np.int16]:
    """Label of each grey value, -1 where it has none."""
    table = np.full(256, -1, np.int16)
    table[0] = 0
    for label, ranges in bands.items():
        for first, last in ranges:
            table[first : last + 1] = label
    return table


def _read_png(path: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Grey values from 0 to 255; a one-bit image has the two ends. Its size is checked before pixels are read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Any = Image.open(path, formats=["PNG"])
        with image:
            if (image.height, image.width) != shape:
                raise UserError(
                    f"{path} has {image.height} x {image.width} pixels, its slice {shape[0]} x {shape[1]}.",
                    _RESTORE,
                )
            if image.mode not in ("1", "L"):
                raise UserError(f"{path} is no grey mask of 1 or 8 bits ({image.mode}).", _RESTORE)
            return np.asarray(image.convert("L"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path} declares absurdly many pixels.", _RESTORE) from error
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} is damaged or no PNG file ({reason(error)}).", "Copy or download it again."
        ) from error
