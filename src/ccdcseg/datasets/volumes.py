"""Reading NIfTI volumes that nobody has vouched for, and writing them.

A header may lie, a download may be cut short, and readers mend silently (SimpleITK turns a NaN spacing into
1.0 and a NaN voxel into 0, nibabel a negative spacing into a positive one). So header and content are checked
as they lie in the file before SimpleITK loads them. Arrays are in the order (z, y, x), and so is every
``spacing_mm``.
"""

import gzip
import itertools
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel
import numpy as np
import SimpleITK
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ccdcseg.errors import UserError
from ccdcseg.files import write_bytes

MAX_BYTES = 4 * 2**30
"""The largest volume that is read, uncompressed."""

SPACINGS_MM = (1e-3, 1e3)
"""The smallest and the largest spacing that are taken for one."""

_HEADER_BYTES = 348
_FIRST_BYTE = _HEADER_BYTES + 4  # of voxels, after the header and the four bytes that announce extensions
_CHUNK_BYTES = 2**20
_GEOMETRY_TOLERANCE = 0.1  # of a voxel

# ITK warns twice for every file of the ACDC release (axes without scale); what matters is checked here.
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D scan or mask and where it lies.

    Args:
        path: the file that errors name.
        array: voxels, shape (z, y, x).
        spacing_mm: distance between voxels, in the order of the array's axes.
        origin_mm: position (x, y, z) of the first voxel, in ITK's LPS coordinates.
        direction: 3 x 3 direction cosines, row by row, columns in the order x, y, z of the voxel index.
    """

    path: Path
    array: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @property
    def affine(self) -> NDArray[np.float64]:
        """4 x 4 matrix from a voxel index (x, y, z) to LPS millimetres."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(self.direction, (3, 3)) * np.array(self.spacing_mm[::-1])
        affine[:3, 3] = self.origin_mm
        return affine


def read_image(path: Path) -> Volume:
    """Read a scan: 3-D, 2-D (one slice of 1 mm) or 3-D with further axes of one element.

    Returns:
        The volume, its values as stored.

    Raises:
        UserError: the file is missing, truncated or damaged, its header lies or is unusable (not 3-D, more
            than ``MAX_BYTES``, a spacing not within ``SPACINGS_MM``, singular or skewed axes, a scaling that
            readers disagree on), or a voxel is NaN or infinite.
    """
    with _reading(path):
        header = _header(path)
        _check_header(path, header)
        _check_content(path, header)
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{path} cannot be read ({reason}).", "Convert it to plain 3-D NIfTI.") from error
    volume = _in_3d(path, image)
    _check_read(volume, header)
    return volume


def _in_3d(path: Path, image: SimpleITK.Image) -> Volume:
    """A 2-D image as one slice, axes beyond the third left out."""
    array = SimpleITK.GetArrayFromImage(image)
    axes = min(image.GetDimension(), 3)
    spacing, origin, direction = np.ones(3), np.zeros(3), np.eye(3)
    spacing[:axes], origin[:axes] = image.GetSpacing()[:axes], image.GetOrigin()[:axes]
    stored = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)
    direction[:axes, :axes] = stored[:axes, :axes]
    return Volume(
        path,
        array.reshape((1, *array.shape) if array.ndim == 2 else array.shape[-3:]),
        cast(tuple[float, float, float], tuple(spacing[::-1].tolist())),
        cast(tuple[float, float, float], tuple(origin.tolist())),
        tuple(direction.ravel().tolist()),
    )


def _check_read(volume: Volume, header: Any) -> None:
    """Refuse what the reader made of a header that passed: scaling beyond all numbers, other axes than stored."""
    axes = min(int(header["dim"][0]), 3)
    shape = (1,) * (3 - axes) + tuple(int(size) for size in header["dim"][axes:0:-1])
    if volume.array.shape != shape or not np.isfinite(volume.affine).all():
        raise UserError(
            f"{volume.path} has a header that contradicts itself.", "Convert it to plain 3-D NIfTI."
        )
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        raise UserError(
            f"{volume.path} holds values beyond all numbers once scaled (scl_slope {header['scl_slope']:g}, "
            f"scl_inter {header['scl_inter']:g}).",
            "Correct the scaling in its header.",
        )


def read_mask(path: Path, labels: Mapping[str, int], ignore: int | None = None) -> Volume:
    """Read a 3-D label mask.

    Args:
        path: the mask.
        labels: value of each foreground class by name; 0 is always the background.
        ignore: a further value that is allowed: voxels nobody has labelled.

    Returns:
        The volume, int16. It may hold no foreground, as a prediction may: see `check_not_empty`.

    Raises:
        UserError: as `read_image`, and where a value is not an integer or not a known label.
    """
    volume = read_image(path)
    known = {0, *labels.values()} | ({ignore} if ignore is not None else set())
    found = np.unique(volume.array)
    unknown = [float(value) for value in found if value not in known]
    if unknown:
        names = ", ".join(f"{value} ({name})" for name, value in labels.items())
        raise UserError(
            f"{path} holds {_shortened(unknown)}, no known label: these are 0 (background), {names}.",
            "Correct the mask, or the labels of the data set.",
        )
    return Volume(path, volume.array.astype(np.int16), volume.spacing_mm, volume.origin_mm, volume.direction)


def check_not_empty(mask: Volume) -> None:
    """Refuse a reference mask without foreground.

    Raises:
        UserError: every voxel of ``mask`` is background.
    """
    if not mask.array.any():
        raise UserError(
            f"{mask.path} is empty: every voxel is background.", "Annotate the scan or leave it out."
        )


def check_pair(first: Volume, second: Volume) -> None:
    """Refuse two volumes (scan and mask, reference and prediction) that do not lie on the same voxels.

    Raises:
        UserError: their shapes differ, or spacing, origin and direction together move a corner by more than a
            tenth of the smallest spacing.
    """
    remedy = "Resample one onto the other's voxels, or pair the right files."
    if first.array.shape != second.array.shape:
        raise UserError(
            f"{second.path} has another shape (z, y, x) than {first.path}: {second.array.shape} against "
            f"{first.array.shape}.",
            remedy,
        )
    apart_mm = float(np.abs(_corners_mm(first) - _corners_mm(second)).max())
    if apart_mm > _GEOMETRY_TOLERANCE * min(first.spacing_mm):
        raise UserError(
            f"{second.path} has another geometry than {first.path}: spacing (z, y, x) "
            f"{_rounded(second.spacing_mm)} against {_rounded(first.spacing_mm)} mm, corners up to "
            f"{apart_mm:.2f} mm apart.",
            remedy,
        )


def write_volume(path: Path, volume: Volume, description: str = "") -> None:
    """Write a volume as gzipped NIfTI, atomically; the same volume gives the same bytes.

    nibabel encodes it, since SimpleITK reports success for a NIfTI file that a full disk has cut short.

    Args:
        path: the file, ``.nii.gz``.
        volume: what to write; its own ``path`` plays no role.
        description: text of the header's ``descrip`` field, at most 79 bytes.
    """
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    image = nibabel.Nifti1Image(volume.array.T, lps_to_ras @ volume.affine, dtype=volume.array.dtype)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()
    write_bytes(path, gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in what the operating system and gzip complain about."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.", "Check the path, or restore the file.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is truncated or damaged ({error}).", "Copy or download it again.") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}).", "Check the file and its rights."
        ) from error


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _header(path: Path) -> Any:
    with _opened(path) as handle:
        block = handle.read(_HEADER_BYTES)
    # Without nibabel's own check, which mends zero and negative spacings instead of reporting them.
    header = nibabel.Nifti1Header(block, check=False) if len(block) == _HEADER_BYTES else None
    if header is None or header["sizeof_hdr"] != _HEADER_BYTES or header["magic"] != b"n+1":
        raise UserError(f"{path} is no NIfTI-1 file.", "Convert it to NIfTI (.nii or .nii.gz).")
    return header


def _check_header(path: Path, header: Any) -> None:
    number, *sizes = (int(size) for size in header["dim"])
    sizes = sizes[: max(number, 1)]
    if not 2 <= number <= 7 or min(sizes) < 1 or max(sizes[3:], default=1) > 1:
        raise UserError(
            f"{path} is not 3-D: its header says {number} dimensions, {' x '.join(map(str, sizes))}.",
            "Give one 3-D volume a file.",
        )
    spacing_mm = [float(step) for step in header["pixdim"][1 : 1 + min(number, 3)]]
    if not all(SPACINGS_MM[0] <= step <= SPACINGS_MM[1] for step in spacing_mm):
        raise UserError(
            f"{path} has the spacing (x, y, z) {_rounded(spacing_mm)} mm; "
            f"{SPACINGS_MM[0]:g} to {SPACINGS_MM[1]:g} mm is taken for one.",
            "Write the true spacing into its header (pixdim).",
        )
    if not (_sform_is_usable(header) and _qform_is_usable(header)):
        raise UserError(
            f"{path} has a singular or non-finite affine.", "Write the true orientation into its header."
        )
    slope, shift = float(header["scl_slope"]), float(header["scl_inter"])
    none = math.isnan(slope) or (slope == 0 and not shift > 0 and not shift < 0)
    if not none and not (math.isfinite(slope) and slope and math.isfinite(shift)):
        raise UserError(
            f"{path} scales its values by scl_slope {slope:g} and scl_inter {shift:g}, which readers take "
            "differently.",
            "Correct the scaling in its header: 1 and 0 for none.",
        )


def _sform_is_usable(header: Any) -> bool:
    """Three finite axes that span space. Their lengths are ignored: ACDC's are 1 whatever the spacing."""
    if header["sform_code"] == 0:
        return True
    affine = np.asarray(header.get_sform(), dtype=np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or (lengths == 0).any():
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-3)


def _qform_is_usable(header: Any) -> bool:
    """A finite offset and the vector part of a unit quaternion."""
    if header["qform_code"] == 0:
        return True
    vector = np.array([header[f"quatern_{name}"] for name in "bcd"], dtype=np.float64)
    offset = np.array([header[f"qoffset_{name}"] for name in "xyz"], dtype=np.float64)
    return bool(np.isfinite([*vector, *offset]).all() and vector @ vector < 1 + 1e-4)


def _check_content(path: Path, header: Any) -> None:
    dtype, start = _voxel_type(path, header)
    axes = min(int(header["dim"][0]), 3)
    declared = start + dtype.itemsize * math.prod(int(size) for size in header["dim"][1 : 1 + axes])
    if declared > MAX_BYTES:
        raise UserError(
            f"{path} declares {declared / 2**30:.1f} GiB; {MAX_BYTES / 2**30:.0f} GiB is the limit.",
            "Check its header, or crop the volume.",
        )
    content = _content(path, declared)
    if len(content) < declared:
        raise UserError(
            f"{path} is cut short or its header lies: {declared} bytes declared, {len(content)} there.",
            "Copy or download it again.",
        )
    voxels = np.frombuffer(content[start:declared], dtype)
    bad = 0 if dtype.kind in "iu" else int(np.count_nonzero(~np.isfinite(voxels)))
    if bad:
        raise UserError(
            f"{path} holds {bad} voxels that are NaN or infinite.", "Replace them by a sensible intensity."
        )


def _voxel_type(path: Path, header: Any) -> tuple[np.dtype[Any], int]:
    """Type of the voxels and the byte where they begin."""
    try:
        dtype = np.dtype(header.get_data_dtype())
    except (KeyError, HeaderDataError):
        dtype = np.dtype(object)
    if dtype.kind not in "iuf":
        raise UserError(
            f"{path} holds no plain numbers (NIfTI data type {int(header['datatype'])}).",
            "Convert it to integer or floating-point voxels.",
        )
    start = float(header["vox_offset"])
    if not _FIRST_BYTE <= start <= MAX_BYTES:
        raise UserError(
            f"{path} has its voxels begin at byte {start:g}, after {_FIRST_BYTE} bytes of header.",
            "Correct its header (vox_offset).",
        )
    return dtype, int(start)


def _content(path: Path, declared: int) -> bytearray:
    """The bytes declared, unzipped; the rest is read for the checksum alone, and there may be little of it."""
    content = bytearray()
    read = 0
    with _opened(path) as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            content += chunk[: declared - len(content)]
            read += len(chunk)
            if read - declared > _CHUNK_BYTES:
                raise UserError(
                    f"{path} goes on for more than {_CHUNK_BYTES / 2**20:.0f} MiB after the {declared} bytes that "
                    "its header declares.",
                    "Check where it comes from.",
                )
    return content


def _corners_mm(volume: Volume) -> NDArray[np.float64]:
    last = np.array(volume.array.shape[::-1]) - 1
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, index) for index in last))])
    return corners @ volume.affine[:3].T


def _rounded(numbers: tuple[float, ...] | list[float]) -> str:
    return "(" + ", ".join(f"{number:.4g}" for number in numbers) + ")"


def _shortened(values: list[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:3])
    return shown if len(values) <= 3 else f"{shown}, ... ({len(values)} such values)"
