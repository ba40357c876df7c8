"""What a NIfTI header says twice, and the forms that NIfTI files come in."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ccdcseg.datasets.volumes import read_image
from ccdcseg.errors import UserError

SIZES = (6, 5, 4)
VOXELS = np.random.default_rng(0).integers(0, 900, SIZES).astype(np.int16)
AFFINE = np.array([[-1.25, 0, 0, 30], [0, -1.5, 0, 40], [0, 0, 8, -50], [0, 0, 0, 1]])
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Change = Callable[[Any], object]


def save(path: Path, affine: np.ndarray = AFFINE, voxels: np.ndarray = VOXELS, *changes: Change) -> Path:
    """A file with the affine as its sform alone, and its header changed as nobody checks."""
    header = nibabel.Nifti1Image(voxels, affine).header
    header["vox_offset"], header["magic"] = 352, b"n+1"
    for change in changes:
        change(header)
    content = header.binaryblock + bytes(4) + voxels.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def pixdim(*spacing: float) -> Change:
    return lambda header: header["pixdim"].__setitem__(slice(1, 1 + len(spacing)), spacing)


def both_forms(affine: np.ndarray = AFFINE) -> Change:
    return lambda header: header.set_qform(affine, 1)


def qform_alone(affine: np.ndarray) -> Change:
    return lambda header: (header.set_qform(affine, 1), header.set_sform(None, 0))


def assert_plain(path: Path, **options: Any) -> None:
    """The file holds VOXELS, at AFFINE."""
    volume = read_image(path, **options)
    np.testing.assert_array_equal(volume.array.T, VOXELS)
    np.testing.assert_allclose(LPS @ volume.affine, AFFINE, atol=1e-4)
    assert volume.path == path


def gzipped_as_nii(folder: Path) -> Path:
    return save(folder / "scan.nii.gz").rename(folder / "scan.nii")


def capitals(folder: Path) -> Path:
    return save(folder / "scan.nii.gz").rename(folder / "scan.Nii.GZ")


def no_suffix(folder: Path) -> Path:
    return save(folder / "scan.nii").rename(folder / "scan")


def second_version(folder: Path) -> Path:
    nibabel.save(nibabel.Nifti2Image(VOXELS, AFFINE), folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


def second_version_big_endian(folder: Path) -> Path:
    header = nibabel.Nifti2Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti2Image(VOXELS.astype(">i2"), AFFINE, header)
    nibabel.save(image, folder / "scan.nii")
    assert (folder / "scan.nii").read_bytes()[:4] == b"\0\0\x02\x1c"
    return folder / "scan.nii"


@pytest.mark.parametrize(
    ("make", "reason", "remedy"),
    [
        (gzipped_as_nii, "a gzipped NIfTI file, which its name does not say", r"Rename it to scan\.nii\.gz"),
        (capitals, "a gzipped NIfTI file, which its name does not say", r"Rename it to scan\.nii\.gz"),
        (no_suffix, "a NIfTI file, which its name does not say", r"Rename it to scan\.nii\."),
        (second_version, "NIfTI-2", "ccdcseg prepare nifti"),
        (second_version_big_endian, "NIfTI-2", "ccdcseg prepare nifti"),
    ],
)
def test_a_form_that_nnunet_does_not_read_is_named_and_can_be_converted(
    tmp_path: Path, make: Callable[[Path], Path], reason: str, remedy: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(UserError, match=rf"{path} is {reason}.*{remedy}"):
        read_image(path)
    assert_plain(path, any_form=True)


def not_gzipped(folder: Path) -> Path:
    return save(folder / "scan.nii").rename(folder / "scan.nii.gz")


def all_capitals(folder: Path) -> Path:
    return save(folder / "scan.nii.gz").rename(folder / "SCAN.NII.GZ")


@pytest.mark.parametrize("make", [not_gzipped, all_capitals])
def test_a_form_that_nnunet_reads_is_read(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert_plain(make(tmp_path))


def test_a_large_nifti_2_is_refused_by_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    nibabel.save(nibabel.Nifti2Image(np.zeros((40000, 2, 2), np.uint8), AFFINE), path)
    with pytest.raises(UserError, match=rf"{path} has 40000 voxels along an axis; 32767 is the limit"):
        read_image(path, any_form=True)


def test_one_of_two_files(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(VOXELS, AFFINE), tmp_path / "scan.hdr")
    with pytest.raises(UserError, match=r"scan\.hdr is one of two files \(\.hdr and \.img\)"):
        read_image(tmp_path / "scan.hdr")


@pytest.mark.parametrize("place", [lambda affine: lambda header: None, both_forms, qform_alone])
@pytest.mark.parametrize(("unit", "factor"), [("micron", 1e3), ("meter", 1e-3), ("mm", 1), ("unknown", 1)])
def test_units_of_length_count(
    tmp_path: Path, place: Callable[[np.ndarray], Change], unit: str, factor: float
) -> None:
    affine = np.diag([factor, factor, factor, 1]) @ AFFINE
    units: Change = lambda header: header.set_xyzt_units(unit)  # noqa: E731
    assert_plain(save(tmp_path / "scan.nii", affine, VOXELS, units, place(affine)))


def test_a_unit_that_cannot_be_true_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", AFFINE, VOXELS, lambda header: header.set_xyzt_units("meter"))
    with pytest.raises(
        UserError, match=r"\(1250, 1500, 8000\) mm, since its header says that it is in metres"
    ):
        read_image(path)


@pytest.mark.parametrize("forms", [lambda header: None, both_forms()])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (1.25, 1.5, 7), (1.31, 1.5, 8)])
def test_pixdim_and_sform_that_disagree(tmp_path: Path, forms: Change, spacing: tuple[float, ...]) -> None:
    path = save(tmp_path / "scan.nii", AFFINE, VOXELS, forms, pixdim(*spacing))
    shown = ", ".join(f"{step:g}" for step in spacing)
    with pytest.raises(
        UserError, match=rf"\({shown}\) mm by pixdim, \(1\.25, 1\.5, 8\) mm by the sform.*set_qform"
    ):
        read_image(path)


@pytest.mark.parametrize("spacing", [(1.25, 1.5, 8), (1.2500001, 1.5, 8.0001), (1.26, 1.5, 8)])
def test_pixdim_and_sform_that_differ_by_rounding(tmp_path: Path, spacing: tuple[float, ...]) -> None:
    read_image(save(tmp_path / "scan.nii", AFFINE, VOXELS, pixdim(*spacing)))


def test_the_thickness_of_one_slice_said_twice(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", AFFINE, VOXELS[..., :1], pixdim(1.25, 1.5, 1))
    with pytest.raises(UserError, match=r"\(1\.25, 1\.5, 1\) mm by pixdim"):
        read_image(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda affine: np.diag([-1, 1, 1, 1]) @ affine,
        lambda affine: affine + np.outer([0.2, 0, 0, 0], [0, 0, 0, 1]),
        lambda affine: affine[[1, 0, 2, 3]],
    ],
)
def test_qform_and_sform_that_disagree(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = save(tmp_path / "scan.nii", change(AFFINE), VOXELS, both_forms(AFFINE))
    with pytest.raises(UserError, match=r"says twice where it lies: .*mm apart.*set_qform\(image\.get_sform"):
        read_image(path)


def test_a_sheared_sform(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 1] = 0.02
    path = save(tmp_path / "scan.nii", affine, VOXELS)
    with pytest.raises(
        UserError, match=r"is sheared: the axes x and y .*0\.76 degrees off a right angle.*Resample"
    ):
        read_image(path)


def test_a_sheared_sform_beside_the_qform_that_nibabel_makes_of_it(tmp_path: Path) -> None:
    """To copy it once more changes nothing; to copy the qform moves voxels."""
    affine = AFFINE.copy()
    affine[:, 1] += 0.2 * affine[:, 0]
    path = save(tmp_path / "scan.nii", affine, VOXELS, both_forms(affine))
    with pytest.raises(
        UserError, match=r"is sheared: the axes x and y .*off a right angle.*Resample"
    ) as told:
        read_image(path)
    assert "image.get_sform()" not in str(told.value)


def test_a_shear_that_is_a_rounding_error_where_a_qform_says_what_is_meant(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 1] = 0.005
    assert_plain(save(tmp_path / "scan.nii", affine, VOXELS, both_forms(AFFINE)))


angles = st.tuples(*[st.floats(-180, 180)] * 3)
steps = st.tuples(*[st.floats(0.3, 9)] * 3)


@given(angles, steps, st.tuples(*[st.floats(-300, 300)] * 3), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_scan_lies_where_nibabel_says(
    tmp_path_factory: Any, angles: Any, steps: Any, origin: Any, flipped: bool
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * steps
    affine[:3, 3] = origin
    affine[:, 2] *= -1 if flipped else 1
    path = tmp_path_factory.mktemp("scan") / "scan.nii"
    save(
        path,
        affine,
        VOXELS,
        lambda image: image.set_qform(affine, 1),
        lambda image: image.set_sform(affine, 1),
    )
    np.testing.assert_allclose(LPS @ read_image(path).affine, nibabel.load(path).affine, atol=0.01)


@given(steps, st.integers(0, 2), st.floats(1.05, 20))
@settings(deadline=None, max_examples=40)
def test_any_spacing_said_twice_is_noticed(
    tmp_path_factory: Any, steps: Any, axis: int, factor: float
) -> None:
    assume(not np.allclose(steps, 1, atol=1e-3))
    spacing = [float(np.float32(step)) for step in steps]
    spacing[axis] *= factor
    assume((SIZES[axis] - 1) * (factor - 1) * steps[axis] > 0.11 * min(spacing))
    path = tmp_path_factory.mktemp("scan") / "scan.nii"
    save(path, np.diag([*steps, 1.0]), VOXELS, pixdim(*spacing))
    with pytest.raises(UserError, match="says its spacing twice"):
        read_image(path)


def test_a_2d_image_is_as_thick_as_its_larger_pixel(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", AFFINE, VOXELS[..., 2])
    volume = read_image(path)
    assert volume.array.shape == (1, 5, 6)
    assert volume.spacing_mm == (1.5, 1.5, 1.25)


def test_a_2d_image_in_another_plane_can_be_converted(tmp_path: Path) -> None:
    affine = np.array([[1.25, 0, 0, 3], [0, 0, 1, 4], [0, 1.5, 0, 5], [0, 0, 0, 1.0]])  # coronal
    path = save(tmp_path / "scan.nii", affine, VOXELS[..., 2])
    with pytest.raises(UserError, match=r"is 2-D and lies in another plane than x-y.*prepare nifti"):
        read_image(path)
    volume = read_image(path, any_form=True)
    np.testing.assert_array_equal(volume.array[0].T, VOXELS[..., 2])
    np.testing.assert_allclose((LPS @ volume.affine)[:, [0, 1, 3]], affine[:, [0, 1, 3]], atol=1e-5)
    assert volume.spacing_mm == (1.5, 1.5, 1.25)


def test_a_gzipped_file_whose_content_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    path.write_bytes(gzip.compress(b"something else" * 100))
    with pytest.raises(UserError, match=r"scan\.nii is no NIfTI file"):
        read_image(path, any_form=True)
