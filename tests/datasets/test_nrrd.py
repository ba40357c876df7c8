import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from nrrd_files import write_nrrd

from ccdcseg.datasets.nrrd import read_nrrd, voxels_of
from ccdcseg.datasets.volumes import Volume
from ccdcseg.errors import UserError

ARRAY = np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(np.uint8)
TURNED = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
VOLUME = Volume(Path("mask.nrrd"), ARRAY, (8.0, 1.5, 1.25), (3.0, -4.0, 5.0), TURNED)


def read(path: Path) -> Volume:
    (layer,) = read_nrrd(path).layers
    return layer


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii", "txt"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("big", [False, True])
def test_every_encoding(tmp_path: Path, encoding: str, dtype: Any, big: bool) -> None:
    volume = Volume(VOLUME.path, ARRAY.astype(dtype), VOLUME.spacing_mm, VOLUME.origin_mm, TURNED)
    found = read(write_nrrd(tmp_path / "mask.nrrd", volume, encoding=encoding, big=big))
    np.testing.assert_array_equal(found.array, ARRAY)
    assert found.array.dtype == dtype
    np.testing.assert_allclose(found.affine, VOLUME.affine, atol=1e-9)


@pytest.mark.parametrize("space", ["LPS", "left-posterior-superior", "RAS", "right-anterior-superior"])
def test_every_space(tmp_path: Path, space: str) -> None:
    found = read(write_nrrd(tmp_path / "mask.nrrd", VOLUME, space=space))
    np.testing.assert_allclose(found.affine, VOLUME.affine, atol=1e-9)


def test_units_of_length(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "mask.nrrd", VOLUME, space_units='"cm" "cm" "cm"')
    found = read(path)
    np.testing.assert_allclose(found.affine[:3], 10 * VOLUME.affine[:3], atol=1e-9)
    assert found.notes == ("states lengths in cm, converted to millimetres",)


def test_voxels_in_a_file_beside_the_header(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "mask.nhdr", VOLUME, encoding="raw", data_file="mask.raw")
    np.testing.assert_array_equal(read(path).array, ARRAY)
    assert voxels_of(path) == tmp_path / "mask.raw"
    (tmp_path / "mask.raw").unlink()
    with pytest.raises(UserError, match=r"mask\.raw does not exist"):
        read(path)


def test_layers_and_keys(tmp_path: Path) -> None:
    layers = np.stack([ARRAY, ARRAY == 1, ARRAY == 2]).astype(np.uint8)
    found = read_nrrd(write_nrrd(tmp_path / "mask.nrrd", VOLUME, {"a key": " of: mine := "}, layers=layers))
    np.testing.assert_array_equal([layer.array for layer in found.layers], layers)
    assert found.said == {"a key": "of: mine :="}


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 4)] * 3),
    dtype=st.sampled_from(["uint8", "int16", "uint32", "int64", "float64"]),
    spacing=st.tuples(*[st.floats(0.1, 9)] * 3),
    origin=st.tuples(*[st.floats(-999, 999)] * 3),
    angle=st.floats(0, 3),
    layers=st.integers(1, 3),
    zipped=st.booleans(),
)
def test_simpleitk_writes_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, shape: Any, dtype: str, spacing: Any, origin: Any, angle: float,
    layers: int, zipped: bool,
) -> None:  # fmt: skip
    array = np.random.default_rng(0).integers(0, 99, (*shape, layers)).astype(dtype)
    image = SimpleITK.GetImageFromArray(array if layers > 1 else array[..., 0], isVector=layers > 1)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    image.SetDirection((cosine, 0, -sine, 0, 1, 0, sine, 0, cosine))
    path = tmp_path_factory.mktemp("nrrd") / "mask.nrrd"
    SimpleITK.WriteImage(image, str(path), useCompression=zipped)
    found = read_nrrd(path).layers
    np.testing.assert_array_equal([layer.array for layer in found], np.moveaxis(array, -1, 0))
    end = image.TransformIndexToPhysicalPoint([3, 1, 2])
    np.testing.assert_allclose(found[0].affine @ [3, 1, 2, 1], [*end, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": ""}, 'has no "space" in its header'),
        ({"space": "scanner-xyz"}, "in the space scanner-xyz, whose place"),
        ({"space": "left-posterior-superior-time"}, "whose place in the patient is not known"),
        ({"space_origin": ""}, 'has no "space origin"'),
        ({"space_origin": "(nan,0,0)"}, "where three numbers belong"),
        ({"space_origin": "(1e300,0,0)"}, "where three numbers belong"),
        ({"space_origin": "(1,2)"}, "where three numbers belong"),
        ({"space_directions": "(1,0,0) (0,inf,0) (0,0,1)"}, "where three numbers belong"),
        ({"space_directions": "(1,0,0) (0,0,0) (0,0,1)"}, r"spacing \(x, y, z\) \(1, 0, 1\) mm"),
        ({"space_directions": "(1,0,0) (1,1,0) (0,0,1)"}, "is sheared"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, "is not 3-D"),
        ({"space_directions": "none (1,0,0) (0,1,0)"}, "is not 3-D"),
        ({"space_units": '"parsec" "parsec" "parsec"'}, "states lengths in parsec"),
        ({"space_units": '"mm" "mm" "cm"'}, "states lengths in cm, mm"),
        ({"space_units": ""}, ""),
        ({"sizes": "5 4"}, "has 3 dimensions and the sizes 5 4"),
        ({"sizes": "5 4 0"}, "has the sizes 5 4 0"),
        ({"sizes": "5 4 -3"}, "has the sizes 5 4 -3"),
        ({"sizes": "5 4 3000000000000"}, "has the sizes"),
        ({"sizes": "5 4 900000000"}, "declares 18000000000 bytes"),
        ({"sizes": "5 4 4"}, "is cut short or its header lies: 80 bytes declared, 60 there"),
        ({"type": "block"}, "holds block, encoded as gzip, which is not read"),
        ({"type": "short", "endian": ""}, 'has no "endian"'),
        ({"type": "short", "endian": "middle"}, "has the endian middle"),
        ({"encoding": "hex"}, "encoded as hex"),
        ({"encoding": "bzip2"}, "cannot be used|damaged"),
        ({"encoding": "txt"}, "is cut short, goes on or its header lies"),
        ({"byte_skip": "-1"}, "has a byte skip"),
        ({"data_file": "../other.raw"}, "not in one file beside it"),
        ({"data_file": "/etc/passwd"}, "not in one file beside it"),
        ({"data_file": "LIST"}, "not in one file beside it"),
        ({"data_file": "a%03d.raw 1 3 1"}, "not in one file beside it"),
        ({"data_file": ".."}, "not in one file beside it"),
    ],
)  # fmt: skip
def test_headers_that_are_refused(tmp_path: Path, fields: dict[str, str], message: str) -> None:
    path = write_nrrd(tmp_path / "mask.nrrd", VOLUME)
    start, data = path.read_bytes().split(b"\n\n", 1)
    header = dict(line.split(": ", 1) for line in start.decode().split("\n")[2:])
    header |= {name.replace("_", " "): value for name, value in fields.items()}
    lines = [f"{name}: {value}" for name, value in header.items() if value]
    path.write_bytes("\n".join(["NRRD0004", *lines]).encode() + b"\n\n" + data)
    if not message:
        read(path)
        return
    with pytest.raises(UserError, match=rf"^\S*mask\.nrrd .*(?:{message})"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"NRRD", "is no NRRD file"),
        (b"NRRD0004\n" + bytes(2**20), "has a header without end"),
        (b"NRRD0004\n\xff: 3\n\n", "is no UTF-8"),
        (b"NRRD0004\nnonsense\n\n", "has the line 'nonsense'"),
        (b"NRRD0004\ntype: short\ntype: int\n\n", "says twice what its type is"),
        (b"NRRD0004\n\n", 'has no "space"'),
    ],
)
def test_no_header(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mask.nrrd"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"mask\.nrrd .*{message}"):
        read(path)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "txt"])
@pytest.mark.parametrize("lost", [1, 20])
def test_a_file_that_is_cut_short(tmp_path: Path, encoding: str, lost: int) -> None:
    path = write_nrrd(tmp_path / "mask.nrrd", VOLUME, encoding=encoding)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(UserError, match=r"mask\.nrrd is (cut short|truncated or damaged)"):
        read(path)


def test_a_file_that_unzips_to_more_than_it_declares(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "mask.nrrd", VOLUME)
    start = path.read_bytes().split(b"\n\n")[0]
    path.write_bytes(start + b"\n\n" + gzip.compress(bytes(2**23), 1))
    with pytest.raises(UserError, match="goes on for more than 1 MiB after the 60 bytes"):
        read(path)


@pytest.mark.parametrize("word", ["nan", "1e3", "300", "x", "-1"])
def test_written_numbers_that_are_none_of_their_type(tmp_path: Path, word: str) -> None:
    path = write_nrrd(tmp_path / "mask.nrrd", VOLUME, encoding="ascii")
    path.write_bytes(path.read_bytes()[:-1] + word.encode())
    with pytest.raises(UserError, match="no number of its type"):
        read(path)


def test_floats_that_are_no_numbers(tmp_path: Path) -> None:
    array = ARRAY.astype(np.float32)
    array[0, 0, 0] = np.nan
    with pytest.raises(UserError, match="NaN or infinite"):
        read(write_nrrd(tmp_path / "mask.nrrd", Volume(VOLUME.path, array, VOLUME.spacing_mm)))
