"""NIfTI files as they lie on disk: their header and their size, before any reader mends them silently.

SimpleITK turns a NaN spacing into 1.0, nibabel a negative spacing into a positive one; SimpleITK takes the spacing
from pixdim and the axes from qform or sform, nibabel all of it from one of them. So what a header says is checked
here, and where its parts disagree it is refused: readers would take it differently.
"""

import gzip
import itertools
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel
import numpy as np
from nibabel.quaternions import quat2mat
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ccdcseg.datasets.unicode_names import missing
from ccdcseg.errors import UserError, system_error
from ccdcseg.files import check_regular
from ccdcseg.texts import exactly

MAX_BYTES = 4 * 2**30
"""The largest volume that is read, uncompressed."""

SPACINGS_MM = (1e-3, 1e3)
"""The smallest and the largest spacing that are taken for one."""

GEOMETRY_TOLERANCE = 0.1
"""Of the smallest spacing: what places a corner closer than that is the same place."""

PERPENDICULAR = 1e-4
"""The largest cosine between axes that ITK takes for perpendicular."""

Affine = NDArray[np.float64]

_HEADER_BYTES = 348
_FIRST_BYTE = _HEADER_BYTES + 4  # of voxels, after the header and the four bytes that announce extensions
_CHUNK_BYTES = 2**20
_UNITS = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}
_SUFFIX = re.compile(r"\.nii(\.gz)?", re.IGNORECASE)
_GEOMETRY_FIELDS = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
_VALUE_FIELDS = ("datatype", "bitpix", "scl_slope", "scl_inter")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file in what the operating system and gzip complain about."""
    check_regular(path)
    try:
        yield
    except FileNotFoundError as error:
        raise missing(path, "Check the path, or restore the file.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is truncated or damaged ({error}).", "Copy or download it again.") from error
    except OSError as error:
        raise system_error(error, path) from error


def is_gzipped(path: Path) -> bool:
    """Whether a file is, by its first bytes, whatever its name says."""
    with path.open("rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def read_header(path: Path) -> Any:
    """The header of a NIfTI-1 or NIfTI-2 file, unchecked."""
    with _opened(path) as handle:
        block = handle.read(nibabel.Nifti2Header.sizeof_hdr)
    for kind, magic in ((nibabel.Nifti1Header, b"n+1"), (nibabel.Nifti2Header, b"n+2")):
        if len(block) >= kind.sizeof_hdr:
            # Without nibabel's own check, which mends zero and negative spacings instead of reporting them.
            header = kind(block[: kind.sizeof_hdr], check=False)
            if header["sizeof_hdr"] == kind.sizeof_hdr and header["magic"].item()[:3] == magic:
                return header
    if not path.stat().st_size:
        raise UserError(f"{path} is empty.", "Copy or download it again.")
    kind = "one of two files (.hdr and .img)" if block[344:347] == b"ni1" else "no NIfTI file"
    raise UserError(f"{path} is {kind}.", "Convert it to NIfTI, one file (.nii or .nii.gz).")


def check_header(path: Path, header: Any) -> None:
    """Refuse what is no 3-D volume in a known place.

    Raises:
        UserError: not 3-D, a spacing not within ``SPACINGS_MM``, axes that are singular or not perpendicular,
            pixdim, sform and qform that disagree by more than ``GEOMETRY_TOLERANCE`` at a corner, or a scaling
            that readers disagree on. An sform with axes of length 1 says nothing of the spacing: ACDC's are so.
    """
    _check_shape(path, header)
    _check_spacing(path, header)
    if not (_sform_is_usable(header) and _qform_is_usable(header)):
        raise UserError(
            f"{path} has a singular or non-finite affine.", "Write the true orientation into its header."
        )
    _check_sform(path, header)
    _check_scaling(path, header)


def check_content(path: Path, header: Any) -> memoryview:
    """Refuse a file that is not as long as its header says, or holds what is no finite number.

    Returns:
        The bytes of the voxels, as they are stored.

    Raises:
        UserError: more than ``MAX_BYTES`` are declared, fewer are there, the file goes on, its voxels are no plain
            numbers, or one is NaN or infinite.
    """
    dtype, start = _voxel_type(path, header)
    declared = start + dtype.itemsize * math.prod(_sizes(header))
    with _opened(path) as handle:
        content = declared_content(path, handle, declared)
    voxels = np.frombuffer(content[start:declared], dtype)
    bad = 0 if dtype.kind in "iu" else int(np.count_nonzero(~np.isfinite(voxels)))
    if bad:
        raise UserError(
            f"{path} holds {bad} voxels that are NaN or infinite.",
            "Replace them: in a mask by 0, in an image by a value of its background.",
        )
    return memoryview(content)[start:declared]


def declared_content(path: Path, handle: BinaryIO, declared: int) -> bytearray:
    """The bytes that a header declares, unzipped; the rest is read for the checksum alone, and may be little.

    Args:
        path: the file that errors name.
        handle: where the bytes begin.
        declared: how many there are to be.

    Raises:
        UserError: more than ``MAX_BYTES`` are declared, fewer are there, or the file goes on.
    """
    if declared > MAX_BYTES:
        raise UserError(
            f"{path} declares {declared} bytes; {MAX_BYTES} is the limit.",
            "Check its header, or crop the volume.",
        )
    content = bytearray()
    read = 0
    while chunk := handle.read(_CHUNK_BYTES):
        content += chunk[: declared - len(content)]
        read += len(chunk)
        if read - declared > _CHUNK_BYTES:
            raise UserError(
                f"{path} goes on for more than {_CHUNK_BYTES / 2**20:.0f} MiB after the {declared} bytes that "
                "its header declares.",
                "Check where it comes from.",
            )
    if len(content) < declared:
        raise UserError(
            f"{path} is cut short or its header lies: {declared} bytes declared, {len(content)} there.",
            "Copy or download it again.",
        )
    return content


def odd_form(path: Path, header: Any) -> UserError | None:
    """Why nnU-Net's reader does not take a file whose content is in order, and what to do; None where it does."""
    if isinstance(header, nibabel.Nifti2Header):  # Nifti1Header is no base class of it
        return UserError(
            f"{path} is NIfTI-2, which nnU-Net's reader does not know.",
            "Convert it with `ccdcseg prepare nifti`, or with nibabel: "
            "nibabel.save(nibabel.Nifti1Image.from_image(nibabel.load(OLD)), NEW).",
        )
    fitting = (".nii.gz", ".NII.GZ") if is_gzipped(path) else (".nii", ".NII", ".nii.gz", ".NII.GZ")
    if not path.name.endswith(fitting):
        form = "a gzipped NIfTI file" if is_gzipped(path) else "a NIfTI file"
        return UserError(
            f"{path} is {form}, which its name does not say.",
            f"Rename it to {_SUFFIX.sub('', path.name)}{fitting[0]}.",
        )
    if _is_tilted_slice(header):
        return UserError(
            f"{path} is 2-D and lies in another plane than x-y, which nnU-Net's reader does not know.",
            "Convert it with `ccdcseg prepare nifti`, or store it as 3-D with one slice.",
        )
    return None


def departures(path: Path, header: Any) -> tuple[str, ...]:
    """What is not as it mostly is though it can be read exactly: half sentences."""
    name, _ = _UNITS.get(int(header["xyzt_units"]) & 7, ("", 1.0))
    zipped = path.name.lower().endswith(".gz")
    said = {
        "is NIfTI-2, converted to NIfTI-1": isinstance(header, nibabel.Nifti2Header),
        "is gzipped, though its name does not say so": is_gzipped(path) and not zipped,
        "is not gzipped, though its name says so": zipped and not is_gzipped(path),
        f"states lengths in {name}, converted to millimetres": name,
        "is 2-D, taken as one slice as thick as its larger pixel": len(_sizes(header)) == 2,
    }
    return tuple(text for text, applies in said.items() if applies)


def plain_form(path: Path, header: Any, voxels: memoryview) -> bytes:
    """The same volume as plain NIfTI-1, 3-D, without extensions.

    Raises:
        UserError: it is too large for NIfTI-1.
    """
    if max(header["dim"]) > np.iinfo(np.int16).max:
        raise UserError(
            f"{path} has {max(header['dim'])} voxels along an axis; 32767 is the limit.", "Crop it."
        )
    plain = nibabel.Nifti1Header(endianness=header.endianness, check=False)
    for name in (*_GEOMETRY_FIELDS, *_VALUE_FIELDS):
        plain[name] = header[name]
    if len(_sizes(header)) == 2:
        _add_thickness(plain)
    plain["vox_offset"] = _FIRST_BYTE
    return bytes(plain.binaryblock) + bytes(_FIRST_BYTE - _HEADER_BYTES) + voxels


def _add_thickness(header: Any) -> None:
    """Make a 2-D image one slice, as thick as its larger pixel, across its plane."""
    affine = header.get_sform() if header["sform_code"] > 0 else np.eye(4)
    thickness = _whole_spacing_mm(header)[2] / _unit_mm(header)
    across = np.cross(affine[:3, 0], affine[:3, 1])
    affine[:3, 2] = thickness * across / np.linalg.norm(across)
    header["dim"][:4] = [3, *_sizes(header), 1]
    header["pixdim"][3] = thickness
    for name, row in zip(("srow_x", "srow_y", "srow_z"), affine, strict=False):
        header[name] = row


def _is_tilted_slice(header: Any) -> bool:
    """Whether a 2-D image lies in another plane than x-y."""
    if len(_sizes(header)) == 3:
        return False
    affine = header.get_sform() if header["sform_code"] > 0 else _qform(header)
    axes = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    coded = header["sform_code"] > 0 or header["qform_code"] > 0
    return bool(coded and np.abs(axes[2]).max() > PERPENDICULAR)


def is_scaled(header: Any) -> bool:
    """Whether the values are the stored ones times a slope, plus a shift."""
    slope, shift = float(header["scl_slope"]), float(header["scl_inter"])
    none = (math.isnan(slope) or slope == 0) and not shift > 0 and not shift < 0
    return not none and (slope, shift) != (1, 0)


def listed(numbers: Iterable[float]) -> str:
    """Numbers of a header, which has single precision."""
    return "(" + ", ".join(exactly(np.float32(number)) for number in numbers) + ")"


def corners_mm(affine: Affine, sizes: Sequence[int]) -> Affine:
    """Where the eight corners of a volume lie.

    Args:
        affine: from a voxel index (x, y, z) to millimetres, shape (4, 4) or (3, 4).
        sizes: number of voxels along x, y and z.
    """
    corners = [[*corner, 1] for corner in itertools.product(*((0, size - 1) for size in sizes))]
    return np.array(corners) @ affine[:3].T


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if is_gzipped(path) else path.open("rb")


def _check_shape(path: Path, header: Any) -> None:
    number, *sizes = (int(size) for size in header["dim"])
    sizes = sizes[: max(number, 1)]
    if not 2 <= number <= 7 or min(sizes) < 1 or max(sizes[3:], default=1) > 1:
        raise UserError(
            f"{path} is not 3-D: its header says {number} dimensions, {' x '.join(map(str, sizes))}.",
            "Give one 3-D volume a file.",
        )


def _sizes(header: Any) -> list[int]:
    """Number of voxels along x, y and, unless it is 2-D, z."""
    return [int(size) for size in header["dim"][1 : 1 + min(int(header["dim"][0]), 3)]]


def _unit_mm(header: Any) -> float:
    return _UNITS.get(int(header["xyzt_units"]) & 7, ("", 1.0))[1]


def _spacing_mm(header: Any) -> Affine:
    """By pixdim, of as many axes as there are."""
    return np.array(header["pixdim"][1 : 1 + len(_sizes(header))], np.float64) * _unit_mm(header)


def _check_spacing(path: Path, header: Any) -> None:
    spacing_mm = _spacing_mm(header)
    if not all(SPACINGS_MM[0] <= step <= SPACINGS_MM[1] for step in spacing_mm):
        name = _UNITS.get(int(header["xyzt_units"]) & 7, ("",))[0]
        raise UserError(
            f"{path} has the spacing (x, y, z) {listed(spacing_mm)} mm"
            + (f", since its header says that it is in {name}" if name else "")
            + f"; {SPACINGS_MM[0]:g} to {SPACINGS_MM[1]:g} mm is taken for one.",
            "Write the true spacing into its header (pixdim" + (" and xyzt_units)." if name else ")."),
        )


def _sform_is_usable(header: Any) -> bool:
    """Three finite axes that span space."""
    if header["sform_code"] <= 0:
        return True
    affine = np.asarray(header.get_sform(), dtype=np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or (lengths == 0).any():
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-3)


def _qform_is_usable(header: Any) -> bool:
    """A finite offset and the vector part of a unit quaternion."""
    if header["qform_code"] <= 0:
        return True
    vector, offset = _quaternion(header)
    return bool(np.isfinite([*vector, *offset]).all() and vector @ vector < 1 + 1e-4)


def _quaternion(header: Any) -> tuple[Affine, Affine]:
    """The vector part of the quaternion, and the offset."""
    vector = np.array([header[f"quatern_{name}"] for name in "bcd"], dtype=np.float64)
    return vector, np.array([header[f"qoffset_{name}"] for name in "xyz"], dtype=np.float64)


def _qform(header: Any) -> Affine:
    """From a voxel index to millimetres, shape (3, 4); nibabel's own refuses what other readers round."""
    vector, offset = _quaternion(header)
    rest = max(1 - float(vector @ vector), 0.0)
    rotation = quat2mat([math.sqrt(rest), *vector])
    rotation[:, 2] *= -1 if header["pixdim"][0] < 0 else 1
    return np.column_stack([rotation * _whole_spacing_mm(header), offset * _unit_mm(header)])


def _whole_spacing_mm(header: Any) -> Affine:
    """By pixdim, of three axes: a 2-D image is as thick as its larger pixel."""
    spacing_mm = _spacing_mm(header)
    return np.append(spacing_mm, spacing_mm.max()) if len(spacing_mm) == 2 else spacing_mm


def _check_sform(path: Path, header: Any) -> None:
    """Refuse an sform that contradicts pixdim or the qform, or whose axes are not perpendicular."""
    if header["sform_code"] <= 0:
        return
    sform = np.asarray(header.get_sform(), np.float64)[:3]
    lengths = np.linalg.norm(sform[:, :3], axis=0)
    axes = sform[:, :3] / lengths
    if header["qform_code"] <= 0:
        _check_perpendicular(path, sform)
    if not np.allclose(lengths[: len(_sizes(header))], 1, atol=1e-4):
        _check_same_spacing(path, header, lengths[: len(_sizes(header))] * _unit_mm(header))
    if header["qform_code"] > 0:
        placed = np.column_stack([axes * _whole_spacing_mm(header), sform[:, 3] * _unit_mm(header)])
        _check_same_place(path, placed, _qform(header), [*_sizes(header), 1][:3])


def _check_same_spacing(path: Path, header: Any, sform_mm: Affine) -> None:
    spacing_mm = _spacing_mm(header)
    steps = np.maximum(np.array(_sizes(header)) - 1, 1)
    if (np.abs(sform_mm - spacing_mm) * steps).max() > GEOMETRY_TOLERANCE * spacing_mm.min():
        raise UserError(
            f"{path} says its spacing twice: (x, y, z) {listed(spacing_mm)} mm by pixdim, {listed(sform_mm)} mm "
            "by the sform.",
            "Write the true one into both, for instance with nibabel: image.set_sform(affine, 1), "
            "image.set_qform(affine, 1).",
        )


def _check_same_place(path: Path, sform: Affine, qform: Affine, sizes: Sequence[int]) -> None:
    apart_mm = float(np.abs(corners_mm(sform, sizes) - corners_mm(qform, sizes)).max())
    if apart_mm > GEOMETRY_TOLERANCE * np.linalg.norm(qform[:, :3], axis=0).min():
        # nibabel leaves a shear out of the qform that it makes of an sform: neither of them would do.
        _check_perpendicular(path, sform)
        raise UserError(
            f"{path} says twice where it lies: by sform and by qform its corners are up to {apart_mm:.3g} mm "
            "apart.",
            "Keep what is right, for instance with nibabel: image.set_qform(image.get_sform(), 1), or "
            "image.set_sform(image.get_qform(), 1).",
        )


def _check_perpendicular(path: Path, sform: Affine) -> None:
    axes = sform[:, :3] / np.linalg.norm(sform[:, :3], axis=0)
    cosines = np.abs(axes.T @ axes - np.eye(3))
    if cosines.max() > PERPENDICULAR:
        first, second = sorted(np.unravel_index(int(cosines.argmax()), (3, 3)))
        off = math.degrees(math.asin(min(float(cosines.max()), 1.0)))
        raise UserError(
            f"{path} is sheared: the axes {'xyz'[first]} and {'xyz'[second]} of its sform are {off:.2g} degrees "
            "off a right angle.",
            "Resample it to right angles; where the shear is a rounding error, store the nearest right angles with "
            "nibabel: image.set_qform(image.affine, 1), image.set_sform(image.get_qform(), 1).",
        )


def _check_scaling(path: Path, header: Any) -> None:
    slope, shift = float(header["scl_slope"]), float(header["scl_inter"])
    if is_scaled(header) and not (math.isfinite(slope) and slope and math.isfinite(shift)):
        raise UserError(
            f"{path} scales its values by scl_slope {exactly(header['scl_slope'])} and scl_inter "
            f"{exactly(header['scl_inter'])}, which readers take differently.",
            "Correct the scaling in its header: 1 and 0 for none.",
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
            f"{path} has its voxels begin at byte {exactly(start)}, after {_FIRST_BYTE} bytes of header.",
            "Correct its header (vox_offset).",
        )
    return dtype, int(start)
