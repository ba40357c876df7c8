"""One DICOM file that nobody has vouched for: what its header says of a slice, and its values."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder

from ccdcseg.errors import UserError
from ccdcseg.files import check_regular
from ccdcseg.texts import reason

SERIES = ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
"""What tells one series from another."""

NAMES = ("SeriesNumber", "SeriesDescription", "ProtocolName")
"""What tells them apart where anonymisers left no SeriesInstanceUID, or made one for each slice.

SequenceName does not: in a stack of cine slices it follows the heart rate.
"""

ADAPTED = ("EchoTime", "InversionTime", "FlipAngle")
"""What scanners adapt from slice to slice of one series, as the inversion time to contrast that washes out."""

COMMON = ("KVP", "ContrastBolusAgent")
"""What all slices of a volume have, or none: a scan without contrast has no agent."""

KINDS = (
    *("Modality", "ImageType", "PhotometricInterpretation", "EchoNumbers", *ADAPTED),
    *("DiffusionBValue", "TemporalPositionIdentifier", "ConvolutionKernel", *COMMON),
)
"""What is one and the same for all slices of a volume, but for `ADAPTED`."""

MOMENTS = ("AcquisitionNumber", "TriggerTime", "AcquisitionTime", "ContentTime", "InstanceNumber")
"""What may tell one slice from another at the same place, beside all others."""

_RESCALING = ("RescaleSlope", "RescaleIntercept")
_RESTORE = "Export it again, or restore it from its release."
DOWNLOAD = "Copy or download it again."
_NO_SLICE = "If it is no slice, such as a dose report or a screenshot, take it out of the folder."
_OR_TAKE_OUT = f"{DOWNLOAD} {_NO_SLICE}"
CONVERT = "Convert the scan to NIfTI, for instance with dcm2niix, and take `ccdcseg prepare nifti`."

# Anonymisers leave invalid values in fields that play no role here.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


@dataclass(frozen=True, eq=False)
class Header:
    """What the header of a slice says.

    Args:
        path: the file.
        patient: PatientID, may be empty.
        uid: SOPInstanceUID, may be empty.
        shape: rows and columns.
        spacing_mm: between rows and between columns.
        position_mm: of the first pixel (x, y, z), LPS.
        axes: directions of a row and of a column, shape (2, 3).
        said: text of each field of ``SERIES``, ``NAMES``, ``KINDS`` and ``MOMENTS``, empty where the file has none.
        rescaled: which of RescaleSlope and RescaleIntercept it has; anonymisers leave some that are empty.
    """

    path: Path
    patient: str
    uid: str
    shape: tuple[int, int]
    spacing_mm: NDArray[np.float64]
    position_mm: NDArray[np.float64]
    axes: NDArray[np.float64]
    said: Mapping[str, str]
    rescaled: tuple[str, ...]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file in whatever the parser stumbles over: damaged bytes make it raise errors of any kind."""
    check_regular(path)
    try:
        yield
    except UserError:
        raise
    except InvalidDicomError as error:
        raise UserError(
            f"{path} is no DICOM file.",
            f"{_OR_TAKE_OUT} If other programs read it: {CONVERT}",
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # pydicom raises it, too, without one
            raise UserError(
                f"{path} cannot be read ({error.strerror}).", "Check the file and its rights."
            ) from error
        raise UserError(f"{path} is damaged or cut short ({reason(error)}).", DOWNLOAD) from error


def read_header(path: Path) -> Header:
    """Read what is said of a slice; no pixel is read.

    Raises:
        UserError: the file is missing, damaged, compressed in a way that cannot be read, or no single grey slice of
            plain values; it lacks position, orientation or spacing, or these cannot be.
    """
    with reading(path):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        _check_kind(path, dataset)
        header = Header(
            path=path,
            patient=_text(dataset, "PatientID"),
            uid=_text(dataset, "SOPInstanceUID"),
            shape=(_whole(path, dataset, "Rows"), _whole(path, dataset, "Columns")),
            spacing_mm=_numbers(path, dataset, "PixelSpacing", 2),
            position_mm=_numbers(path, dataset, "ImagePositionPatient", 3),
            axes=_numbers(path, dataset, "ImageOrientationPatient", 6).reshape(2, 3),
            said={keyword: _text(dataset, keyword) for keyword in (*SERIES, *NAMES, *KINDS, *MOMENTS)},
            rescaled=tuple(keyword for keyword in _RESCALING if _text(dataset, keyword).strip()),
        )
        _check_size(path, dataset, header.shape)
    _check_geometry(header)
    return header


def read_pixels(path: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Read the values of a slice, rescaled as it says (RescaleSlope and RescaleIntercept).

    Args:
        path: the file.
        shape: rows and columns that its header has.

    Raises:
        UserError: it is cut short or damaged, or its rescaling is unusable.
    """
    with reading(path):
        dataset = pydicom.dcmread(path)
        _check_length(path, dataset, shape)
        pixels = dataset.pixel_array.astype(np.float64)
        slope = _optional(path, dataset, "RescaleSlope", 1.0)
        intercept = _optional(path, dataset, "RescaleIntercept", 0.0)
    if pixels.shape != shape or slope == 0:
        raise UserError(
            f"{path} has pixels of the shape {pixels.shape}, RescaleSlope {slope:g}: its header lies.",
            _RESTORE,
        )
    return pixels * slope + intercept


def check_decoder(path: Path, syntax: pydicom.uid.UID) -> None:
    """Refuse what cannot be decompressed.

    Raises:
        UserError: the transfer syntax is one that cannot be read here.
    """
    if syntax.is_deflated or (syntax.is_compressed and not _has_decoder(syntax)):
        raise UserError(
            f"{path} is compressed ({syntax.name}), which cannot be read here.",
            "Decompress it, for instance with gdcmconv --raw.",
        )


def listed(numbers: NDArray[Any]) -> str:
    """Numbers as a message shows them, with as many digits as tell them from others."""
    return ", ".join(f"{number:.6g}" for number in numbers)


def _text(dataset: pydicom.Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(float(value) if isinstance(value, float) else value)


def _whole(path: Path, dataset: pydicom.Dataset, keyword: str) -> int:
    return int(_numbers(path, dataset, keyword, 1)[0])


def _numbers(path: Path, dataset: pydicom.Dataset, keyword: str, count: int) -> NDArray[np.float64]:
    value = dataset.get(keyword)
    numbers = np.atleast_1d(np.array(np.nan if value is None else value, np.float64))
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise UserError(f"{path} has no usable {keyword} ({value}).", f"{_RESTORE} {_NO_SLICE}")
    return numbers


def _optional(path: Path, dataset: pydicom.Dataset, keyword: str, default: float) -> float:
    is_there = bool(_text(dataset, keyword).strip())
    return float(_numbers(path, dataset, keyword, 1)[0]) if is_there else default


def _check_kind(path: Path, dataset: pydicom.Dataset) -> None:
    """Refuse what is no single slice of grey values that are stored as they are, or linearly."""
    if "MOSAIC" in _text(dataset, "ImageType").upper():
        raise UserError(f"{path} is a mosaic, all slices of a volume in one picture.", CONVERT)
    if "SharedFunctionalGroupsSequence" in dataset or int(dataset.get("NumberOfFrames") or 1) != 1:
        raise UserError(f"{path} is a multi-frame file, not one slice.", CONVERT)
    if "HighBit" not in dataset:
        raise UserError(f"{path} is damaged or cut short, or no image: it has no HighBit.", _OR_TAKE_OUT)
    photometric, samples = _text(dataset, "PhotometricInterpretation"), int(dataset.get("SamplesPerPixel", 1))
    if samples != 1 or not photometric.startswith("MONOCHROME"):
        raise UserError(
            f"{path} is no grey slice ({samples} values a pixel, {photometric}).",
            "Take it out of the folder.",
        )
    if dataset.get("ModalityLUTSequence"):
        raise UserError(
            f"{path} gives its values by a table (ModalityLUTSequence), which is not read.", CONVERT
        )
    stored, highest = (_whole(path, dataset, keyword) for keyword in ("BitsStored", "HighBit"))
    if highest != stored - 1:
        raise UserError(
            f"{path} has the HighBit {highest} of {stored} BitsStored: where its pixels lie is unclear.",
            CONVERT,
        )


def _check_size(path: Path, dataset: pydicom.Dataset, shape: tuple[int, int]) -> None:
    """Refuse what is larger than its file, or cannot be decompressed, before any pixel is read."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        raise UserError(f"{path} does not say how it is encoded: it has no TransferSyntaxUID.", CONVERT)
    check_decoder(path, syntax)
    declared = shape[0] * shape[1] * _whole(path, dataset, "BitsAllocated") // 8
    there = path.stat().st_size
    if not syntax.is_compressed and declared > there:
        raise UserError(
            f"{path} is cut short or its header lies: {declared} bytes of pixels declared, {there} there.",
            DOWNLOAD,
        )


def _check_length(path: Path, dataset: pydicom.Dataset, shape: tuple[int, int]) -> None:
    """Refuse a slice that has rows beyond those that its header declares."""
    row = shape[1] * dataset.BitsAllocated // 8
    there = 0 if dataset.file_meta.TransferSyntaxUID.is_compressed else len(dataset.get("PixelData", b""))
    if there >= (shape[0] + 1) * row:
        raise UserError(
            f"{path} has {there} bytes of pixels, its header declares {shape[0] * row}: it lies.", _RESTORE
        )


def _has_decoder(syntax: pydicom.uid.UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _check_geometry(header: Header) -> None:
    if min(header.shape) < 1 or header.spacing_mm.min() <= 0:
        raise UserError(
            f"{header.path} has {header.shape[0]} x {header.shape[1]} pixels of the spacing "
            f"{listed(header.spacing_mm)} mm.",
            _RESTORE,
        )
    if not np.allclose(header.axes @ header.axes.T, np.eye(2), atol=1e-3):
        raise UserError(
            f"{header.path} has an orientation that is no pair of perpendicular directions: "
            f"{listed(header.axes.ravel())}.",
            _RESTORE,
        )
