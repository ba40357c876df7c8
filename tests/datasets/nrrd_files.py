"""NRRD files, put together by hand as the format's specification says."""

import bz2
import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ccdcseg.datasets.volumes import Volume

_TYPES = {"uint8": "unsigned char", "int16": "short", "uint16": "ushort", "int32": "int", "float32": "float"}
_PACK = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}
_RAS = np.diag([-1, -1, 1])


def write_nrrd(
    path: Path,
    volume: Volume,
    said: Mapping[str, str] | None = None,
    *,
    layers: np.ndarray | None = None,
    encoding: str = "gzip",
    space: str = "left-posterior-superior",
    big: bool = False,
    **fields: str,
) -> Path:
    """Write a volume, or layers (layer, z, y, x) in its place; a field that is empty is left out."""
    array = volume.array if layers is None else np.moveaxis(layers, 0, -1)
    to_space = _RAS if space in ("RAS", "right-anterior-superior") else np.eye(3)
    axes = (to_space @ volume.affine[:3, :3]).T
    origin = to_space @ volume.affine[:3, 3]
    header = {
        "type": _TYPES[array.dtype.name],
        "dimension": str(array.ndim),
        "space": space,
        "sizes": " ".join(map(str, array.shape[::-1])),
        "space directions": " ".join([*(["none"] if array.ndim == 4 else []), *map(_vector, axes)]),
        "kinds": " ".join([*(["list"] if array.ndim == 4 else []), "domain", "domain", "domain"]),
        "endian": "big" if big else "little",
        "encoding": encoding,
        "space origin": _vector(origin),
        **{name.replace("_", " "): value for name, value in fields.items()},
    }
    lines = ["NRRD0004", "# a comment", *(f"{name}: {value}" for name, value in header.items() if value)]
    lines += [f"{key}:={value}" for key, value in (said or {}).items()]
    numbers = array.astype(array.dtype.newbyteorder(">" if big else "<"))
    text = encoding in ("ascii", "txt")
    data = " ".join(map(str, array.ravel())).encode() if text else _PACK[encoding](numbers.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    if "data_file" in fields:
        (path.parent / fields["data_file"]).write_bytes(data)
        data = b""
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + data)
    return path


def segments(*names: str, **more: str) -> dict[str, str]:
    """Keys of segments with the values 1, 2, ... in layer 0."""
    said = {}
    for number, name in enumerate(names):
        said |= {f"Segment{number}_Name": name, f"Segment{number}_LabelValue": str(number + 1)}
        said |= {f"Segment{number}_Layer": "0", f"Segment{number}_Color": "0.5 0.6 0.7"}
    return {**said, "Segmentation_MasterRepresentation": "Binary labelmap", **more}


def _vector(numbers: np.ndarray) -> str:
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"
