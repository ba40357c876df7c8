import contextlib
import gzip
import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ccdcseg.datasets.volumes import (
    Volume,
    axis_in_words,
    check_not_empty,
    check_pair,
    read_image,
    read_mask,
    slice_axis,
    slices_first,
    stored_axes,
    write_volume,
)
from ccdcseg.errors import UserError

LABELS = {"RV": 1, "Myo": 2}


def written(
    path: Path, array: np.ndarray, spacing_mm: tuple[float, float, float] = (8.0, 1.5, 1.25)
) -> Volume:
    volume = Volume(path, array, spacing_mm)
    write_volume(path, volume)
    return volume


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    written(path, np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32))
    return path


def patch_header(path: Path, **fields: Any) -> None:
    content = gzip.decompress(path.read_bytes())
    header = nibabel.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(gzip.compress(header.binaryblock + content[348:]))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_what_is_written_is_read_again(tmp_path: Path, dtype: type) -> None:
    rotation = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, -1.0)
    path = tmp_path / "folder" / "scan.nii.gz"
    array = np.random.default_rng(1).integers(0, 200, (3, 4, 5)).astype(dtype)
    volume = Volume(path, array, (7.0, 1.5, 1.25), (3.0, -20.0, 11.0), rotation)
    write_volume(path, volume)
    again = read_image(path)
    assert again.array.dtype == dtype
    np.testing.assert_array_equal(again.array, array)
    np.testing.assert_allclose(again.spacing_mm, volume.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-5)
    check_pair(again, volume)


def test_other_readers_agree_with_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    write_volume(path, Volume(path, array, (7.0, 1.5, 1.25), (3.0, -20.0, 11.0)), "what it is")
    itk, image = SimpleITK.ReadImage(str(path)), nibabel.load(path)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk), array)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, array)
    assert itk.GetSpacing() == (1.25, 1.5, 7.0)
    assert itk.GetOrigin() == (3.0, -20.0, 11.0)
    np.testing.assert_allclose(np.abs(np.diag(image.affine)), [1.25, 1.5, 7.0, 1.0])
    assert image.header["descrip"].item() == b"what it is"


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    written(tmp_path / "a.nii.gz", array)
    written(tmp_path / "b.nii.gz", array)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_an_uncompressed_file_is_read(scan: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.nii"
    plain.write_bytes(gzip.decompress(scan.read_bytes()))
    np.testing.assert_array_equal(read_image(plain).array, read_image(scan).array)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.nii\.gz does not exist.*Check the path"):
        read_image(tmp_path / "nowhere.nii.gz")


@pytest.mark.parametrize(("value", "dtype"), [(1e300, np.float64), (-1e30, np.float32)])
def test_values_that_single_precision_cannot_square(tmp_path: Path, value: float, dtype: type) -> None:
    """nnU-Net would make the scan a constant one, or NaN, and predict background."""
    path = tmp_path / "huge.nii.gz"
    write_volume(path, Volume(path, np.full((2, 3, 4), value, dtype), (1.0, 1.0, 1.0)))
    with pytest.raises(UserError, match=r"huge\.nii\.gz holds values up to 1e\+30+; .*Divide"):
        read_image(path)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii.gz")
    with pytest.raises(UserError, match=r"pipe\.nii\.gz is no file, but a pipe"):
        read_image(tmp_path / "pipe.nii.gz")


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(UserError, match=r"folder\.nii\.gz is a folder where a file belongs"):
        read_image(tmp_path / "folder.nii.gz")


@pytest.mark.parametrize("kept", [15, 60, 200, -9, -1])
def test_a_truncated_gzip_file(scan: Path, kept: int) -> None:
    scan.write_bytes(scan.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"scan\.nii\.gz is truncated or damaged.*download it again"):
        read_image(scan)


@given(st.integers(0, 10**6), st.integers(1, 255))
@settings(deadline=None, max_examples=60)
def test_a_damaged_byte_is_noticed_or_harmless(tmp_path_factory: Any, place: int, change: int) -> None:
    path = tmp_path_factory.mktemp("damaged") / "scan.nii.gz"
    array = np.random.default_rng(0).integers(0, 1000, (3, 8, 8)).astype(np.int16)
    written(path, array)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= change
    path.write_bytes(bytes(content))
    with contextlib.suppress(UserError):
        np.testing.assert_array_equal(read_image(path).array, array)


def test_a_damaged_uncompressed_file(scan: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.nii"
    plain.write_bytes(gzip.decompress(scan.read_bytes())[:-7])
    with pytest.raises(
        UserError, match=r"plain\.nii is cut short or its header lies: 832 bytes declared, 825 there"
    ):
        read_image(plain)


@pytest.mark.parametrize("content", [b"", b"not an image" * 60])
def test_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.nii.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(UserError, match=r"other\.nii\.gz is no NIfTI file.*Convert it"):
        read_image(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((30000, 30000, 10), "declares 36000000352 bytes; 4294967296 is the limit"),
        ((3000, 3000, 20), "cut short or its header lies: 720000352 bytes declared"),
        ((6, 5, 5), "cut short or its header lies: 952 bytes declared, 832 there"),
    ],
)
def test_a_lying_header_allocates_nothing(
    scan: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], message: str
) -> None:
    patch_header(scan, dim=[3, *shape, 1, 1, 1, 1])
    monkeypatch.setattr(SimpleITK, "ReadImage", lambda _: pytest.fail("it was read"))
    with pytest.raises(UserError, match=rf"scan\.nii\.gz .*{message}"):
        read_image(scan)


def test_a_file_that_goes_on_after_its_voxels(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    written(path, np.zeros((2, 4, 4), np.int16))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(2**19)))
    assert read_image(path).array.shape == (2, 4, 4)
    path.write_bytes(gzip.compress(content + bytes(5 * 2**20)))
    with pytest.raises(UserError, match=r"bomb\.nii\.gz goes on for more than 1 MiB after the \d+ bytes"):
        read_image(path)


@pytest.mark.parametrize(
    ("slope", "shift", "message"),
    [
        (np.inf, 0, "scales its values by scl_slope inf"),
        (1, np.nan, "scl_inter nan, which readers take differently"),
        (0, 5, "scl_slope 0 and scl_inter 5"),
        (np.nan, -1000, "scl_slope nan and scl_inter -1000"),
        (np.nan, np.inf, "scl_slope nan and scl_inter inf"),
        (3e38, 3e38, "holds values beyond all numbers once scaled"),
    ],
)
def test_a_scaling_that_readers_disagree_on(scan: Path, slope: float, shift: float, message: str) -> None:
    patch_header(scan, scl_slope=slope, scl_inter=shift)
    with pytest.raises(UserError, match=rf"scan\.nii\.gz {message}|{message}"):
        read_image(scan)


@pytest.mark.parametrize("slope", [0, np.nan])
@pytest.mark.parametrize("shift", [0, np.nan])
def test_a_scaling_that_is_none(scan: Path, slope: float, shift: float) -> None:
    before = read_image(scan).array
    patch_header(scan, scl_slope=slope, scl_inter=shift)
    np.testing.assert_array_equal(read_image(scan).array, before)


@pytest.mark.parametrize("start", [0, 100, 351, -8, np.nan])
def test_voxels_that_begin_inside_the_header(scan: Path, start: float) -> None:
    patch_header(scan, vox_offset=start)
    with pytest.raises(UserError, match=r"scan\.nii\.gz has its voxels begin at byte"):
        read_image(scan)


@pytest.mark.parametrize("step", [0.0, -1.5, np.nan, np.inf, 1e-30, 1e30])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_an_impossible_spacing(scan: Path, step: float, axis: int) -> None:
    spacing = [1.0, 1.25, 1.5, 8.0, 1.0, 1.0, 1.0, 1.0]
    spacing[axis] = step
    patch_header(scan, pixdim=spacing)
    with pytest.raises(UserError, match=r"scan\.nii\.gz has the spacing .*0\.001 to 1000 mm.*pixdim"):
        read_image(scan)


@pytest.mark.parametrize(
    "fields",
    [
        {"sform_code": 1, "srow_x": [0, 0, 0, 0]},
        {"sform_code": 1, "srow_y": [1, 0, 0, 0], "srow_x": [2, 0, 0, 0]},
        {"sform_code": 1, "srow_z": [0, 0, np.nan, 0]},
        {"sform_code": 1, "srow_z": [0, 0, 8, np.inf]},
        {"qform_code": 1, "quatern_b": np.nan},
        {"qform_code": 1, "quatern_b": 1, "quatern_c": 1},
        {"qform_code": 1, "qoffset_x": np.nan},
    ],
)
def test_an_unusable_affine(scan: Path, fields: dict[str, Any]) -> None:
    patch_header(scan, **fields)
    with pytest.raises(UserError, match=r"scan\.nii\.gz has a singular or non-finite affine.*orientation"):
        read_image(scan)


def test_axes_of_length_one_whatever_the_spacing_are_acdcs(
    scan: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    patch_header(
        scan, sform_code=2, qform_code=0, srow_x=[-1, 0, 0, 0], srow_y=[0, -1, 0, 0], srow_z=[0, 0, 1, 0]
    )
    np.testing.assert_allclose(read_image(scan).spacing_mm, (8.0, 1.5, 1.25))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ([4, 6, 5, 2, 2, 1, 1, 1], "4 dimensions, 6 x 5 x 2 x 2"),
        ([1, 6, 20, 1, 1, 1, 1, 1], "1 dimensions, 6"),
        ([3, 6, 0, 4, 1, 1, 1, 1], "3 dimensions, 6 x 0 x 4"),
    ],
)
def test_a_volume_that_is_not_3d(scan: Path, dimensions: list[int], message: str) -> None:
    patch_header(scan, dim=dimensions)
    with pytest.raises(UserError, match=rf"scan\.nii\.gz is not 3-D: .*{message}.*one 3-D volume a file"):
        read_image(scan)


@pytest.mark.parametrize("datatype", [32, 128, 9999])
def test_voxels_that_are_no_plain_numbers(scan: Path, datatype: int) -> None:
    patch_header(scan, datatype=datatype)
    with pytest.raises(
        UserError, match=rf"scan\.nii\.gz holds no plain numbers \(NIfTI data type {datatype}"
    ):
        read_image(scan)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite(tmp_path: Path, value: float) -> None:
    array = np.zeros((2, 3, 4), np.float32)
    array[0, 1, 1:3] = value
    path = tmp_path / "scan.nii.gz"
    written(path, array)
    with pytest.raises(
        UserError, match=r"scan\.nii\.gz holds 2 voxels that are NaN or infinite\. .*in a mask by 0"
    ):
        read_image(path)


def test_a_mask_is_read_as_integers(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    array = np.array([0, 1, 2, 1, 0, 2, 2, 1], np.float64).reshape(2, 2, 2)
    written(path, array)
    mask = read_mask(path, LABELS)
    assert mask.array.dtype == np.int16
    np.testing.assert_array_equal(mask.array, array)
    check_not_empty(mask)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (7, "7"),
        (1.5, "1.5"),
        (-1, "-1"),
        (1 + 2**-23, "1.0000001"),
        (312782560, "312782560"),
        (65537, "65537"),
    ],
)
def test_a_mask_with_an_unknown_label(tmp_path: Path, value: float, shown: str) -> None:
    path = tmp_path / "mask.nii.gz"
    array = np.zeros((2, 3, 4), np.float32)
    array[1, 1, 1] = value
    written(path, array)
    with pytest.raises(UserError, match=rf"mask\.nii\.gz holds {shown}, no known label.*1 \(RV\), 2 \(Myo\)"):
        read_mask(path, LABELS)


TYPES = [
    np.uint8,
    np.int8,
    np.int16,
    np.uint16,
    np.int32,
    np.uint32,
    np.int64,
    np.uint64,
    np.float32,
    np.float64,
]


@given(st.data(), st.sampled_from(TYPES))
@settings(deadline=None, max_examples=60)
def test_labels_of_any_size_and_type_are_kept(
    tmp_path_factory: Any, data: st.DataObject, dtype: type
) -> None:
    exact = 2**24 if dtype is np.float32 else 2**53
    largest = exact if np.dtype(dtype).kind == "f" else min(np.iinfo(dtype).max, 2**63 - 1)
    edges = [value for value in (1, 255, 32767, 32768, 65535, 65537, 2**31, 2**53) if value <= largest]
    values = data.draw(
        st.lists(st.sampled_from(edges) | st.integers(1, largest), min_size=1, max_size=4, unique=True)
    )
    path = tmp_path_factory.mktemp("labels") / "mask.nii.gz"
    array = np.zeros((2, 3, 4), dtype)
    array.ravel()[: len(values)] = values
    written(path, array)
    mask = read_mask(path, {str(value): value for value in values})
    assert mask.array.dtype.kind == "i"
    assert mask.array.ravel().tolist() == [int(value) for value in array.ravel()]


def test_labels_beyond_64_bits(scan: Path) -> None:
    with pytest.raises(UserError, match=f"label {2**63} is beyond 64 bits"):
        read_mask(scan, {"a": 2**63})


def test_large_labels_that_are_scaled(tmp_path: Path) -> None:
    """SimpleITK reads 16777216 + 1 as 16777216, another class."""
    path = tmp_path / "mask.nii.gz"
    written(path, np.full((2, 3, 4), 2**24, np.int32))
    assert (read_mask(path, {"a": 2**24}).array == 2**24).all()
    patch_header(path, scl_slope=1, scl_inter=1)
    with pytest.raises(UserError, match=r"labels from 16777216 on are read inexactly.*without scaling"):
        read_mask(path, {"a": 2**24, "b": 2**24 + 1})


def test_an_image_in_place_of_a_mask_is_told_in_one_line(scan: Path) -> None:
    with pytest.raises(UserError, match=r"\(120 such values\), no known label") as caught:
        read_mask(scan, LABELS)
    assert len(str(caught.value)) < 400


def test_the_ignore_label_is_allowed_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    written(path, np.full((2, 3, 4), 3, np.uint8))
    assert (read_mask(path, LABELS, ignore=3).array == 3).all()
    with pytest.raises(UserError, match="holds 3, no known label"):
        read_mask(path, LABELS)


def test_an_empty_mask(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    written(path, np.zeros((2, 3, 4), np.uint8))
    mask = read_mask(path, LABELS)
    with pytest.raises(UserError, match=r"mask\.nii\.gz is empty.*Annotate the scan or leave it out"):
        check_not_empty(mask)


def placed(name: str, shape: tuple[int, int, int] = (4, 20, 30), **geometry: Any) -> Volume:
    return Volume(Path(name), np.zeros(shape), **{"spacing_mm": (8.0, 1.5, 1.25), **geometry})


def test_a_pair_of_different_shapes() -> None:
    with pytest.raises(UserError, match=r"mask has another shape.*scan: \(4, 20, 29\) against \(4, 20, 30\)"):
        check_pair(placed("scan"), placed("mask", (4, 20, 29)))


def test_a_pair_whose_axes_are_in_the_other_order() -> None:
    with pytest.raises(UserError, match=r"axes are in the other order.*CopyInformation") as told:
        check_pair(placed("scan"), placed("mask", (30, 20, 4)))
    assert "Resample" not in str(told.value)


@pytest.mark.parametrize(
    "geometry",
    [
        {"spacing_mm": (8.0, 1.5, 1.3)},
        {"spacing_mm": (9.0, 1.5, 1.25)},
        {"origin_mm": (0.0, 0.0, 0.3)},
        {"direction": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)},
    ],
)
def test_a_pair_of_different_geometry(geometry: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"mask has another geometry than scan.*mm apart.*Resample"):
        check_pair(placed("scan"), placed("mask", **geometry))


UNPLACED = [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1)]
"""Directions of nibabel's and SimpleITK's arrays that are stored without a place."""


def assert_header_is_copied(scan: Volume, mask: Volume) -> None:
    for pair in ((scan, mask), (mask, scan)):
        with pytest.raises(
            UserError, match=r"header of mask says nothing .* those of scan, give it that"
        ) as told:
            check_pair(*pair)
        assert "Resample" not in str(told.value)


@pytest.mark.parametrize("direction", UNPLACED)
def test_what_says_nothing_of_its_place_is_not_to_be_resampled(direction: tuple[float, ...]) -> None:
    """As nibabel's and SimpleITK's arrays without a header are stored."""
    bare = placed("mask", spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=direction)
    assert_header_is_copied(placed("scan"), bare)


@pytest.mark.parametrize("direction", UNPLACED)
def test_what_says_its_spacing_alone_is_not_to_be_resampled(direction: tuple[float, ...]) -> None:
    """A mask stored with np.diag of the spacing; to resample it empties it."""
    scan = placed("scan", origin_mm=(80.0, -60.0, 30.0))
    assert_header_is_copied(scan, placed("mask", direction=direction))


@pytest.mark.parametrize("direction", [*UNPLACED, (0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1)])
def test_what_has_the_place_of_the_other_without_its_spacing_may_be_given_that(
    direction: tuple[float, ...],
) -> None:
    """As nibabel's affine of ACDC's scans is, whose spacing is in pixdim alone."""
    scan = placed("scan", origin_mm=(80.0, -60.0, 30.0), direction=direction)
    bare = replace(scan, path=Path("mask"), spacing_mm=(1.0, 1.0, 1.0))
    for pair in ((scan, bare), (bare, scan)):
        with pytest.raises(UserError, match=r"mask begins where scan does.*CopyInformation\(other\)\."):
            check_pair(*pair)


def test_a_pair_may_differ_by_rounding() -> None:
    check_pair(placed("scan"), placed("mask", spacing_mm=(8.0001, 1.50001, 1.25), origin_mm=(0.01, 0.0, 0.0)))


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "axis"),
    [
        ((9, 9, 9), (1, 1, 1), 0),
        ((9, 9, 9), (1, 2, 1), 1),
        ((9, 9, 9), (1, 1, 2), 2),
        ((9, 9, 9), (0.79999995, 0.80000001, 0.8), 0),
        ((9, 9, 9), (0.7, 0.80000001, 0.80000003), 1),
        ((1, 9, 9), (1, 2, 2), 0),
        ((9, 9, 1), (1, 2, 1), 2),
        ((1, 1, 9), (1, 2, 1), 1),
    ],
)
def test_slices_lie_across_a_single_voxel_or_the_largest_spacing(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], axis: int
) -> None:
    assert slice_axis(shape, spacing_mm) == axis


def test_slices_come_first_and_their_axes_stay_in_order() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    spacing_mm, (first, second) = slices_first((1.0, 2.0, 5.0), array, -array)
    assert spacing_mm == (5.0, 1.0, 2.0)
    np.testing.assert_array_equal(first[3], array[:, :, 3])
    np.testing.assert_array_equal(second, -first)


def turned(about: str, degrees: float) -> tuple[float, ...]:
    """Direction cosines of a scan whose slices are turned."""
    transform = SimpleITK.Euler3DTransform()
    transform.SetRotation(*(np.deg2rad(degrees) * (axis == about) for axis in "xyz"))
    return transform.GetMatrix()


UPRIGHT = turned("x", 0)


@pytest.mark.parametrize(
    ("spacing_mm", "direction", "words"),
    [
        ((8.0, 1.0, 1.0), UPRIGHT, "z of the file (axial)"),
        ((0.6, 0.9, 0.9), UPRIGHT, "y of the file, not z (coronal)"),
        ((1.0, 1.0, 8.0), UPRIGHT, "x of the file, not z (sagittal)"),
        ((8.0, 1.0, 1.0), turned("x", 90), "z of the file (coronal)"),
        ((8.0, 1.0, 1.0), turned("y", -90), "z of the file (sagittal)"),
        ((1.0, 8.0, 1.0), turned("x", 90), "y of the file, not z (axial)"),
        ((1.0, 1.0, 8.0), turned("z", 90), "x of the file, not z (coronal)"),
        ((8.0, 1.0, 1.0), turned("x", 15), "z of the file (axial)"),
        ((8.0, 1.0, 1.0), turned("y", 30), "z of the file (oblique, nearest to axial)"),
    ],
)
def test_the_axis_across_the_slices_in_words(
    tmp_path: Path, spacing_mm: tuple[float, float, float], direction: tuple[float, ...], words: str
) -> None:
    path = tmp_path / "scan.nii.gz"
    write_volume(path, Volume(path, np.zeros((4, 5, 6), np.int16), spacing_mm, direction=direction))
    assert axis_in_words(read_image(path), slice_axis((4, 5, 6), spacing_mm)) == words


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_where_stored_axes_point(tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """nibabel's words for its own affine, in RAS; tilted by a few degrees, they are the same."""
    path = tmp_path / "scan.nii.gz"
    tilt = Rotation.from_euler("xyz", (4, -3, 5), degrees=True).as_matrix()
    for axes in (np.eye(3), tilt):
        affine = np.eye(4)
        affine[:3, :3] = axes @ (np.eye(3)[:, order] * signs * (1.5, 2.0, 8.0))
        nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), affine), path)
        words = "".join(("RAS" if sign > 0 else "LPI")[axis] for axis, sign in zip(order, signs, strict=True))
        assert stored_axes(path) == read_image(path).axes == words


def test_axes_of_what_has_two_or_is_no_scan(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5), np.float32), np.diag([-1.5, -1.5, 1.0, 1.0])), path)
    assert stored_axes(path) == read_image(path).axes == "LPS"
    path.write_bytes(b"nothing")
    assert stored_axes(path) is None
    assert stored_axes(tmp_path / "missing.nii.gz") is None


def test_every_real_scan_is_accepted(real_data: Path) -> None:
    for number in (1, 38, 85):
        for path in sorted((real_data / "acdc" / "training" / f"patient{number:03d}").glob("*_gt.nii.gz")):
            mask = read_mask(path, {"RV": 1, "Myo": 2, "LV": 3})
            check_pair(read_image(path.with_name(path.name.replace("_gt", ""))), mask)
            check_not_empty(mask)
