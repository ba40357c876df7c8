"""One scan in a folder of DICOM slices that nobody has vouched for.

Anonymised releases give each slice a series of its own, which readers of series refuse, and number slices in any
direction. So all files named are one scan, and where a slice lies is what its position and orientation say.
Headers are checked before any pixel is read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder

from ccdcseg.datasets.volumes import MAX_BYTES
from ccdcseg.errors import UserError

_TOLERANCE = 0.1  # of a voxel
_DOUBLED_MM = 0.01
_WORKING_BYTES = 8  # of a voxel while slices are read
_RESTORE = "Restore it from the official release."
_DOWNLOAD = "Copy or download it again."

# Anonymisers leave invalid values in fields that play no role here.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


@dataclass(frozen=True, eq=False)
class Series:
    """Where the slices of a scan lie.

    Args:
        paths: the files, ascending along the normal of the slices.
        order: place of each of these in the sequence that was given.
        shape: rows and columns.
        spacing_mm: distance between slices (from their positions), between rows and between columns.
        origin_mm: position (x, y, z) of the first voxel, LPS.
        direction: 3 x 3 direction cosines, as in `ccdcseg.datasets.volumes.Volume`.
        uids: SOPInstanceUID of each slice, empty where a file has none.
    """

    paths: tuple[Path, ...]
    order: tuple[int, ...]
    shape: tuple[int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]
    uids: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Header:
    path: Path
    patient: str
    uid: str
    shape: tuple[int, int]
    spacing_mm: NDArray[np.float64]  # between rows, between columns
    position_mm: NDArray[np.float64]
    axes: NDArray[np.float64]  # directions of a row and of a column, shape (2, 3)


def read_series(paths: Sequence[Path]) -> Series:
    """Find out from the headers how slices make up a volume.

    Args:
        paths: all slices of the scan, in any order.

    Raises:
        UserError: a file is missing, damaged or compressed in a way that cannot be read; it lacks position,
            orientation or spacing; slices differ in patient, orientation, size or spacing; one is missing or
            doubled; they are sheared; fewer than two; or they declare more than ``MAX_BYTES``.
    """
    if len(paths) < 2:
        raise UserError(
            f"{', '.join(map(str, paths)) or 'The scan'} is fewer than two slices.", "Restore the others."
        )
    headers = [_read_header(path) for path in paths]
    _check_alike(headers)
    normal = np.cross(*headers[0].axes)
    along_mm = np.array([header.position_mm @ normal for header in headers])
    order = np.argsort(along_mm, kind="stable")
    ordered = [headers[index] for index in order]
    _check_gaps([header.path for header in ordered], np.diff(along_mm[order]))
    _check_straight(ordered, normal)
    first = ordered[0]
    step_mm = (along_mm[order[-1]] - along_mm[order[0]]) / (len(paths) - 1)
    return Series(
        paths=tuple(header.path for header in ordered),
        order=tuple(int(index) for index in order),
        shape=first.shape,
        spacing_mm=(float(step_mm), float(first.spacing_mm[0]), float(first.spacing_mm[1])),
        origin_mm=(float(first.position_mm[0]), float(first.position_mm[1]), float(first.position_mm[2])),
        direction=tuple(float(x) for x in np.column_stack([*first.axes, normal]).ravel()),
        uids=tuple(header.uid for header in ordered),
    )


def read_voxels(series: Series) -> NDArray[Any]:
    """Read the values of a series, rescaled as each slice says (RescaleSlope and RescaleIntercept).

    Returns:
        Shape (slices, rows, columns); int16 where every value is such an integer, else float32.

    Raises:
        UserError: a slice is cut short or damaged, or its rescaling is unusable.
    """
    voxels = np.stack([_read_pixels(path, series.shape) for path in series.paths])
    limits = np.iinfo(np.int16)
    fits = limits.min <= voxels.min() and voxels.max() <= limits.max
    return voxels.astype(np.int16 if fits and (voxels == np.rint(voxels)).all() else np.float32)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in whatever the parser stumbles over: damaged bytes make it raise errors of any kind."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}).", "Check the file and its rights."
        ) from error
    except InvalidDicomError as error:
        raise UserError(f"{path} is no DICOM file.", _DOWNLOAD) from error
    except Exception as error:
        raise UserError(f"{path} is damaged or cut short ({error}).", _DOWNLOAD) from error


def _read_header(path: Path) -> _Header:
    with _reading(path):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        shape = _whole(path, dataset, "Rows"), _whole(path, dataset, "Columns")
        header = _Header(
            path,
            str(dataset.get("PatientID") or ""),
            str(dataset.get("SOPInstanceUID") or ""),
            shape,
            _numbers(path, dataset, "PixelSpacing", 2),
            _numbers(path, dataset, "ImagePositionPatient", 3),
            _numbers(path, dataset, "ImageOrientationPatient", 6).reshape(2, 3),
        )
        _check_size(path, dataset, shape)
    _check_geometry(header)
    return header


def _whole(path: Path, dataset: pydicom.Dataset, keyword: str) -> int:
    return int(_numbers(path, dataset, keyword, 1)[0])


def _numbers(path: Path, dataset: pydicom.Dataset, keyword: str, count: int) -> NDArray[np.float64]:
    value = dataset.get(keyword)
    numbers = np.atleast_1d(np.array(np.nan if value is None else value, np.float64))
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise UserError(f"{path} has no usable {keyword} ({value}).", _RESTORE)
    return numbers


def _optional(path: Path, dataset: pydicom.Dataset, keyword: str, default: float) -> float:
    return float(_numbers(path, dataset, keyword, 1)[0]) if keyword in dataset else default


def _check_size(path: Path, dataset: pydicom.Dataset, shape: tuple[int, int]) -> None:
    """Refuse what is no single grey slice, or larger than its file, before any pixel is read."""
    if int(dataset.get("NumberOfFrames") or 1) != 1 or int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise UserError(f"{path} is no single grey slice.", _RESTORE)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_deflated or (syntax.is_compressed and not _has_decoder(syntax)):
        raise UserError(
            f"{path} is compressed ({syntax.name}), which cannot be read here.",
            "Decompress it, for instance with gdcmconv --raw.",
        )
    declared = shape[0] * shape[1] * _whole(path, dataset, "BitsAllocated") // 8
    there = path.stat().st_size
    if not syntax.is_compressed and declared > there:
        raise UserError(
            f"{path} is cut short or its header lies: {declared} bytes of pixels declared, {there} there.",
            _DOWNLOAD,
        )


def _has_decoder(syntax: pydicom.uid.UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _check_geometry(header: _Header) -> None:
    if min(header.shape) < 1 or header.spacing_mm.min() <= 0:
        raise UserError(
            f"{header.path} has {header.shape[0]} x {header.shape[1]} pixels of the spacing "
            f"{_listed(header.spacing_mm)} mm.",
            _RESTORE,
        )
    if not np.allclose(header.axes @ header.axes.T, np.eye(2), atol=1e-3):
        raise UserError(
            f"{header.path} has an orientation that is no pair of perpendicular directions: "
            f"{_listed(header.axes.ravel())}.",
            _RESTORE,
        )


def _check_alike(headers: Sequence[_Header]) -> None:
    first = headers[0]
    for header in headers[1:]:
        if header.patient != first.patient:
            raise UserError(
                f"{header.path} is of another patient (PatientID) than {first.path}.",
                "Keep the slices of one scan in the folder.",
            )
        for name, one, other in (
            ("orientation", first.axes, header.axes),
            ("size in pixels", np.array(first.shape), np.array(header.shape)),
            ("pixel spacing", first.spacing_mm, header.spacing_mm),
        ):
            if not np.allclose(one, other, rtol=0, atol=1e-3):
                raise UserError(
                    f"{header.path} has another {name} than {first.path}: {_listed(other.ravel())} against "
                    f"{_listed(one.ravel())}.",
                    "Keep the slices of one scan in the folder.",
                )
    declared = len(headers) * first.shape[0] * first.shape[1] * _WORKING_BYTES
    if declared > MAX_BYTES:
        raise UserError(
            f"{first.path} and the {len(headers) - 1} slices with it declare {declared / 2**30:.1f} GiB; "
            f"{MAX_BYTES / 2**30:.0f} GiB is the limit.",
            "Check the headers.",
        )


def _check_gaps(paths: Sequence[Path], gaps_mm: NDArray[np.float64]) -> None:
    """Refuse a missing or doubled slice."""
    least = int(gaps_mm.argmin())
    if gaps_mm[least] < _DOUBLED_MM:
        raise UserError(
            f"{paths[least + 1]} lies where {paths[least]} lies: a slice is doubled.", "Remove one of them."
        )
    usual_mm = float(np.quantile(gaps_mm, 0.5, method="lower"))
    worst = int(np.abs(gaps_mm - usual_mm).argmax())
    if abs(gaps_mm[worst] - usual_mm) > _TOLERANCE * usual_mm:
        raise UserError(
            f"{paths[worst]} and {paths[worst + 1]} are neighbours {gaps_mm[worst]:.4g} mm apart, other slices "
            f"{usual_mm:.4g} mm: one is missing or misplaced.",
            "Restore all slices from the official release.",
        )


def _check_straight(headers: Sequence[_Header], normal: NDArray[np.float64]) -> None:
    """Refuse slices that are shifted against each other, as a tilted gantry does."""
    offsets = np.array([header.position_mm for header in headers]) - headers[0].position_mm
    aside_mm = np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1)
    worst = int(aside_mm.argmax())
    if aside_mm[worst] > _TOLERANCE * headers[0].spacing_mm.min():
        raise UserError(
            f"{headers[worst].path} is shifted sideways by {aside_mm[worst]:.3g} mm against "
            f"{headers[0].path}: the slices are sheared.",
            "Resample the scan onto a straight grid.",
        )


def _read_pixels(path: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    with _reading(path):
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array.astype(np.float64)
        slope = _optional(path, dataset, "RescaleSlope", 1.0)
        intercept = _optional(path, dataset, "RescaleIntercept", 0.0)
    if pixels.shape != shape or slope == 0:
        raise UserError(
            f"{path} has pixels of the shape {pixels.shape}, RescaleSlope {slope:g}: its header lies.",
            _RESTORE,
        )
    return pixels * slope + intercept


def _listed(numbers: NDArray[Any]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
