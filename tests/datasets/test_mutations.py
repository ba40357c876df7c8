"""Headers with values that nobody expects: a volume comes out, or one line of refusal; never anything else."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccdcseg.datasets.dicom import read_series, read_voxels
from ccdcseg.datasets.volumes import Volume, read_image, read_mask, write_volume
from ccdcseg.errors import UserError

SHAPE, SPACING = (3, 4, 5), (8.0, 1.5, 1.25)
IMAGE = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.int16)
LABELS = {"a": 1, "b": 2}
# Extensions, statistics and texts play no role in what is read; everything else of a NIfTI-1 header is mutated.
FIELDS = [
    *("dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter", "xyzt_units"),
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "magic", "sizeof_hdr"),
]
numbers = st.one_of(
    st.sampled_from([0, -1, 1, 2, 3, 4, 5, 7, 255, 32767, -32768, 1e-30, 1e30, np.nan, np.inf, -np.inf]),
    st.floats(width=32),
    st.integers(-(2**31), 2**31 - 1),
)
quickly = settings(
    deadline=None,
    max_examples=150,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def check(volume: Volume) -> None:
    """What every reader promises of a volume."""
    assert volume.array.ndim == 3
    assert min(volume.array.shape) >= 1
    assert all(np.isfinite(step) and step > 0 for step in volume.spacing_mm)
    assert np.isfinite(volume.affine).all()
    assert np.isfinite(volume.array).all()
    axes = np.reshape(volume.direction, (3, 3))
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=0.02)


def outcome(read: Callable[[], Volume]) -> None:
    """A sound volume, or one line."""
    try:
        volume = read()
    except UserError as error:
        line = str(error)
    else:
        check(volume)
        return
    assert "\n" not in line


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    write_volume(path, Volume(path, IMAGE, SPACING))
    return path


def mutated(stored: bytes, changes: dict[str, list[float]]) -> bytes:
    """A header with fields set, as far as the field's type can hold the number."""
    header = nibabel.Nifti1Header(stored[:348], check=False)
    for name, values in changes.items():
        field = header.structarr[name]
        if field.dtype.kind == "S":
            header.structarr[name] = str(values[0]).encode()[:4]
            continue
        flat = np.array(values[: max(field.size, 1)], np.float64)
        if field.dtype.kind in "iu":
            limits = np.iinfo(field.dtype)
            flat = np.nan_to_num(flat, posinf=limits.max, neginf=limits.min).clip(limits.min, limits.max)
        whole = np.resize(flat, field.shape or (1,)).astype(field.dtype)
        header.structarr[name] = whole if field.shape else whole[0]
    return bytes(header.binaryblock) + stored[348:]


@given(
    changes=st.dictionaries(
        st.sampled_from(FIELDS), st.lists(numbers, min_size=8, max_size=8), min_size=1, max_size=3
    )
)
@quickly
def test_any_nifti_header(scan: Path, tmp_path: Path, changes: dict[str, list[float]]) -> None:
    with np.errstate(all="ignore"):
        content = mutated(gzip.decompress(scan.read_bytes()), changes)
    path = tmp_path / "mutated.nii"
    path.write_bytes(content)
    outcome(lambda: read_image(path))
    outcome(lambda: read_mask(path, LABELS))


@given(flips=st.lists(st.tuples(st.integers(0, 351), st.integers(1, 255)), min_size=1, max_size=4))
@quickly
def test_any_bytes_of_a_nifti_header(scan: Path, tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(gzip.decompress(scan.read_bytes()))
    for place, change in flips:
        content[place] ^= change
    path = tmp_path / "mutated.nii"
    path.write_bytes(bytes(content))
    outcome(lambda: read_image(path))


texts = st.one_of(
    st.sampled_from(["", "0", "-1", "1e400", "nan", "inf", "x", "1\\2\\3", "1\\2\\3\\4\\5\\6", "9" * 40]),
    numbers.map(str),
    st.text(max_size=8),
)
TEXT_FIELDS = [
    *("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"),
    "NumberOfFrames",
]
NUMBER_FIELDS = [
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation"),
]


def series_of(paths: list[Path]) -> Volume:
    series = read_series(paths)
    return Volume(paths[0], read_voxels(series), series.spacing_mm, series.origin_mm, series.direction)


@given(
    text=st.dictionaries(st.sampled_from(TEXT_FIELDS), texts, max_size=2),
    number=st.dictionaries(st.sampled_from(NUMBER_FIELDS), st.integers(0, 65535), max_size=2),
    where=st.sampled_from([(0,), (1,), (0, 1, 2)]),
)
@quickly
@pytest.mark.filterwarnings("ignore")
def test_any_dicom_header(
    tmp_path: Path,
    write_slices: Callable[..., list[Path]],
    text: dict[str, str],
    number: dict[str, int],
    where: tuple[int, ...],
) -> None:
    paths = write_slices(tmp_path / "scan", IMAGE.astype(np.uint16))
    for index in where:
        dataset = pydicom.dcmread(paths[index])
        for keyword, value in (*text.items(), *number.items()):
            put(dataset, keyword, value)
        dataset.save_as(paths[index])
    outcome(lambda: series_of(paths))


def put(dataset: pydicom.Dataset, keyword: str, value: Any) -> None:
    """Set a field to raw bytes, so that a value that DICOM forbids is written all the same."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    kind = pydicom.datadict.dictionary_VR(tag)
    raw = value.to_bytes(2, "little") if isinstance(value, int) else value.encode("utf-8", "replace")
    raw += b" " * (len(raw) % 2)
    dataset[tag] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(tag), kind, len(raw), raw, 0, is_implicit_VR=False, is_little_endian=True
    )


@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 60),
)
@quickly
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_of_a_dicom_file(
    tmp_path: Path, write_slices: Callable[..., list[Path]], flips: list[tuple[int, int]], cut: int
) -> None:
    paths = write_slices(tmp_path / "scan", IMAGE.astype(np.uint16))
    content = bytearray(paths[1].read_bytes())
    for place, change in flips:
        content[132 + place % (len(content) - 132)] ^= change
    paths[1].write_bytes(bytes(content[: len(content) - cut]))
    outcome(lambda: series_of(paths))


@pytest.mark.parametrize("dim", [[3, 20000, 20000, 4, 1, 1, 1, 1], [3, 32767, 32767, 32767, 1, 1, 1, 1]])
def test_a_lying_header_needs_no_memory(scan: Path, dim: list[int]) -> None:
    """In a process that may have little more memory than it starts with."""
    path = scan.with_name("lies.nii.gz")
    path.write_bytes(gzip.compress(mutated(gzip.decompress(scan.read_bytes()), {"dim": dim})))
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from ccdcseg.datasets.volumes import read_image\n"
        "from ccdcseg.errors import UserError\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "limit = pages * resource.getpagesize() + 256 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n"
        "    read_image(Path(sys.argv[1]))\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "is the limit" in found.stdout or "cut short or its header lies" in found.stdout
