"""NRRD files as they lie on disk: their header and their size, before any voxel is read.

Readers mend silently: ITK takes a volume that names no space for one in LPS, passes over units, and makes room for
whatever the header declares. So the header is checked as it is written, and voxels are taken by it.
"""

import bz2
import gzip
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ccdcseg.datasets.nifti import PERPENDICULAR, SPACINGS_MM, Affine, declared_content, listed, reading
from ccdcseg.datasets.volumes import Volume
from ccdcseg.errors import UserError

SUFFIXES = (".nrrd", ".nhdr")

_HEADER_BYTES = 2**20  # of the longest header
_TEXT_BYTES = 32  # of a number that is written out
_FARTHEST = 1e9
_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
_END = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(r"([^:]+):(=| *)(.*)")
_SIZE = re.compile(r"[1-9][0-9]{0,8}")
_VECTOR = re.compile(r"none|\([^()]*\)")
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_KINDS = {name: kind for kind, names in _TYPES.items() for name in names}
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_MILLIMETRES = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1e3, "um": 1e-3, "µm": 1e-3, "μm": 1e-3}
_UNZIP = {"raw": None, "gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.open, "bz2": bz2.open}
_TEXT = ("ascii", "text", "txt")
_GEOMETRY_REMEDY = "Save it again with 3D Slicer, or export it as NIfTI."


@dataclass(frozen=True)
class Header:
    """What the first lines of a file say.

    Args:
        path: the file.
        fields: of the format, by name in small letters.
        said: keys and values that whoever wrote the file added.
        end: the byte where the voxels begin.
    """

    path: Path
    fields: Mapping[str, str]
    said: Mapping[str, str]
    end: int

    def field(self, *names: str) -> str:
        """A field that may have several names.

        Raises:
            UserError: it is missing.
        """
        for name in names:
            if name in self.fields:
                return self.fields[name]
        raise UserError(f'{self.path} has no "{names[0]}" in its header.', _GEOMETRY_REMEDY)


@dataclass(frozen=True, eq=False)
class Nrrd:
    """A volume of one or more layers.

    Args:
        layers: each on the same voxels.
        said: see `Header`.
    """

    layers: tuple[Volume, ...]
    said: Mapping[str, str]


def read_nrrd(path: Path) -> Nrrd:
    """Read a 3-D volume, or a 4-D one of which one axis is not in space.

    Args:
        path: the file, or the header of one whose voxels are in a file beside it.

    Raises:
        UserError: missing, damaged, cut short or too long; not 3-D; no plain numbers; a space other than LPS, RAS
            and LAS; spacings that are none; axes that are singular or not perpendicular; or voxels in several
            files.
    """
    with reading(path):
        header = _read_header(path)
        place, axis = _place(header)
        voxels = _voxels(header, _sizes(header))
    layers = [voxels] if axis is None else np.moveaxis(voxels, axis, 0)
    return Nrrd(tuple(replace(place, array=np.ascontiguousarray(one.T)) for one in layers), header.said)


def _read_header(path: Path) -> Header:
    with path.open("rb") as handle:
        block = handle.read(_HEADER_BYTES)
    if not _MAGIC.match(block):
        raise UserError(
            f"{path} is {'no NRRD file' if block else 'empty'}.",
            "Copy it again, or export the mask as NIfTI.",
        )
    end = _END.search(block)
    if end is None and len(block) == _HEADER_BYTES:
        raise UserError(f"{path} has a header without end.", "Copy or download it again.")
    try:
        lines = block[: end.start() if end else None].decode().split("\n")[1:]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} has a header that is no UTF-8 ({error}).", _GEOMETRY_REMEDY) from error
    return _parsed(path, [line.rstrip("\r") for line in lines], end.end() if end else len(block))


def _parsed(path: Path, lines: list[str], end: int) -> Header:
    fields: dict[str, str] = {}
    said: dict[str, str] = {}
    for line in (line for line in lines if line and not line.startswith("#")):
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise UserError(f"{path} has the line {line[:80]!r} in its header.", "Copy or download it again.")
        name, mark, value = parts.groups()
        known, name = (said, name) if mark == "=" else (fields, name.strip().lower())
        if known.setdefault(name, value.strip()) != value.strip():
            raise UserError(f"{path} says twice what its {name} is.", _GEOMETRY_REMEDY)
    return Header(path, fields, said, end)


def _sizes(header: Header) -> list[int]:
    texts = header.field("sizes").split()
    if not all(_SIZE.fullmatch(text) for text in texts):
        raise UserError(f"{header.path} has the sizes {header.field('sizes')}.", _GEOMETRY_REMEDY)
    if header.field("dimension") != str(len(texts)):
        raise UserError(
            f"{header.path} has {header.field('dimension')} dimensions and the sizes {header.field('sizes')}.",
            _GEOMETRY_REMEDY,
        )
    return [int(text) for text in texts]


def _place(header: Header) -> tuple[Volume, int | None]:
    """Where the voxels lie, as a volume of none, and the axis that is not in space, if there is one."""
    space = header.field("space").lower()
    if space not in _TO_LPS:
        raise UserError(
            f"{header.path} is in the space {space}, whose place in the patient is not known.",
            _GEOMETRY_REMEDY,
        )
    vectors = _VECTOR.findall(header.field("space directions"))
    outside = [axis for axis, vector in enumerate(vectors) if vector == "none"]
    if len(vectors) - len(outside) != 3 or len(outside) > 1 or len(vectors) != len(_sizes(header)):
        raise UserError(
            f"{header.path} is not 3-D: its sizes are {header.field('sizes')}, its axes "
            f"{header.field('space directions')}.",
            "Give one 3-D volume a file.",
        )
    unit = _unit(header)
    to_lps = np.array(_TO_LPS[space])[:, None] * _MILLIMETRES[unit]
    axes = np.column_stack([_vector(header, vector) for vector in vectors if vector != "none"]) * to_lps
    origin = _vector(header, header.field("space origin"))[:, None] * to_lps
    spacing_mm = _spacing_mm(header, axes)
    place = Volume(
        header.path,
        np.empty(0),
        cast(tuple[float, float, float], tuple(spacing_mm[::-1].tolist())),
        cast(tuple[float, float, float], tuple(origin[:, 0].tolist())),
        tuple((axes / spacing_mm).ravel().tolist()),
        () if _MILLIMETRES[unit] == 1 else (f"states lengths in {unit}, converted to millimetres",),
    )
    return place, outside[0] if outside else None


def _vector(header: Header, text: str) -> Affine:
    try:
        numbers = np.array([float(number) for number in text.strip("() ").split(",")])
    except ValueError:
        numbers = np.empty(0)
    if numbers.shape != (3,) or not (np.abs(numbers) < _FARTHEST).all():
        raise UserError(f"{header.path} has {text} where three numbers belong.", _GEOMETRY_REMEDY)
    return numbers


def _unit(header: Header) -> str:
    units = {unit.strip('"') for unit in header.fields.get("space units", "mm").split()}
    if len(units) != 1 or not units <= _MILLIMETRES.keys():
        raise UserError(
            f"{header.path} states lengths in {', '.join(sorted(units))}.", "Store it in millimetres."
        )
    return units.pop()


def _spacing_mm(header: Header, axes: Affine) -> Affine:
    """Lengths of the axes, which are sensible and at right angles."""
    spacing_mm: Affine = np.linalg.norm(axes, axis=0)
    if not ((SPACINGS_MM[0] <= spacing_mm) & (spacing_mm <= SPACINGS_MM[1])).all():
        raise UserError(
            f"{header.path} has the spacing (x, y, z) {listed(spacing_mm)} mm; {SPACINGS_MM[0]:g} to "
            f"{SPACINGS_MM[1]:g} mm is taken for one.",
            "Write the true spacing into its header (space directions).",
        )
    axes = axes / spacing_mm
    if np.abs(axes.T @ axes - np.eye(3)).max() > PERPENDICULAR:
        raise UserError(
            f"{header.path} is sheared: its axes (space directions) are not at right angles.",
            "Resample it to right angles.",
        )
    return spacing_mm


def _voxels(header: Header, sizes: list[int]) -> NDArray[Any]:
    """In the order of the sizes."""
    kind, encoding = _KINDS.get(header.field("type").lower()), header.field("encoding").lower()
    if kind is None or not (encoding in _TEXT or encoding in _UNZIP):
        raise UserError(
            f"{header.path} holds {header.field('type')}, encoded as {encoding}, which is not read.",
            "Store integers, raw or gzipped.",
        )
    for name in ("line skip", "lineskip", "byte skip", "byteskip"):
        if header.fields.get(name, "0") != "0":
            raise UserError(f"{header.path} has a {name}.", "Store header and voxels in one file, .nrrd.")
    path, start = _data_file(header)
    with reading(path), path.open("rb") as handle:
        handle.seek(start)
        array = _numbers(header, path, handle, np.dtype(kind), math.prod(sizes))
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"{header.path} holds voxels that are NaN or infinite.", "Store integers.")
    return array.reshape(sizes, order="F")


def _numbers(header: Header, path: Path, handle: BinaryIO, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    encoding = header.field("encoding").lower()
    if encoding in _TEXT:
        return _written_out(path, handle, dtype, count)
    if dtype.itemsize > 1:
        endian = header.field("endian").lower()
        if endian not in ("little", "big"):
            raise UserError(f"{path} has the endian {endian}.", "Correct its header: little or big.")
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    unzip = _UNZIP[encoding]
    unzipped = cast(BinaryIO, unzip(handle)) if unzip else handle
    content = declared_content(path, unzipped, count * dtype.itemsize)
    return np.frombuffer(content, dtype).astype(dtype.newbyteorder("="))


def _written_out(path: Path, handle: BinaryIO, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    words = handle.read(min(count, _HEADER_BYTES * _TEXT_BYTES) * _TEXT_BYTES).split()
    if len(words) != count or handle.read(1):
        raise UserError(
            f"{path} is cut short, goes on or its header lies: {count} numbers declared, {len(words)} there.",
            "Copy or download it again.",
        )
    read = float if dtype.kind == "f" else int
    try:
        return np.array([read(word) for word in words], dtype)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path} holds what is no number of its type ({error}).", "Copy it again.") from error


def voxels_of(path: Path) -> Path:
    """The file that holds the voxels which an NRRD header describes: its own, or one beside it.

    Raises:
        UserError: it is no such header, or its voxels are in several files.
    """
    return _data_file(_read_header(path))[0]


def _data_file(header: Header) -> tuple[Path, int]:
    """The file with the voxels, which is in the header's folder, and where they begin."""
    name = header.fields.get("data file", header.fields.get("datafile"))
    if name is None:
        return header.path, header.end
    if name.startswith("LIST") or "%" in name or Path(name).name != name or name == "..":
        raise UserError(
            f"{header.path} has its voxels in {name}, not in one file beside it.",
            "Store header and voxels in one file, .nrrd.",
        )
    return header.path.parent / name, 0
