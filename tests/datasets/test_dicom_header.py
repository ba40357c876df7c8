from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_fields import set_fields

from ccdcseg.datasets.dicom_header import read_header, read_pixels, reading
from ccdcseg.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 4096, (2, 6, 7)).astype(np.uint16)


@pytest.fixture
def slice_file(tmp_path: Path, write_slices: Callable[..., list[Path]]) -> Path:
    return write_slices(tmp_path / "scan", PIXELS)[-1]


def test_what_a_header_says(slice_file: Path) -> None:
    set_fields(slice_file, EchoTime=2.3, ImageType=["ORIGINAL", "PRIMARY"], PatientID="P1")
    header = read_header(slice_file)
    assert (header.path, header.patient, header.shape) == (slice_file, "P1", (6, 7))
    assert header.uid == pydicom.dcmread(slice_file).SOPInstanceUID
    np.testing.assert_allclose(header.spacing_mm, [1.5, 1.25])
    np.testing.assert_allclose(header.position_mm, [-100, -80, 30])
    np.testing.assert_allclose(header.axes, np.eye(3)[:2])
    assert (header.said["EchoTime"], header.said["ConvolutionKernel"]) == ("2.3", "")
    assert "ORIGINAL" in header.said["ImageType"]
    assert header.rescaled == ()
    set_fields(slice_file, RescaleIntercept=-1024)
    assert read_header(slice_file).rescaled == ("RescaleIntercept",)


def test_values_are_rescaled(slice_file: Path) -> None:
    np.testing.assert_array_equal(read_pixels(slice_file, (6, 7)), PIXELS[0])
    set_fields(slice_file, RescaleSlope=2, RescaleIntercept=-1000)
    np.testing.assert_array_equal(read_pixels(slice_file, (6, 7)), 2.0 * PIXELS[0] - 1000)


@pytest.mark.parametrize("blank", ["", "  "])
def test_what_an_anonymiser_left_empty_is_absent(slice_file: Path, blank: str) -> None:
    set_fields(slice_file, RescaleSlope=blank, RescaleIntercept=blank, ModalityLUTSequence=[])
    assert read_header(slice_file).rescaled == ()
    np.testing.assert_array_equal(read_pixels(slice_file, (6, 7)), PIXELS[0])
    set_fields(slice_file, RescaleSlope=2)
    assert read_header(slice_file).rescaled == ("RescaleSlope",)
    np.testing.assert_array_equal(read_pixels(slice_file, (6, 7)), 2.0 * PIXELS[0])


@pytest.mark.parametrize("syntax", [None, ""])
def test_a_slice_that_does_not_say_how_it_is_encoded(slice_file: Path, syntax: str | None) -> None:
    """It is whole; other programs guess."""
    dataset = pydicom.dcmread(slice_file)
    del dataset.file_meta.TransferSyntaxUID
    if syntax is not None:
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(slice_file, implicit_vr=False, little_endian=True)
    with pytest.raises(UserError, match=r"dcm does not say how it is encoded.*dcm2niix"):
        read_header(slice_file)


def test_a_slope_of_zero(slice_file: Path) -> None:
    set_fields(slice_file, RescaleSlope=0)
    with pytest.raises(UserError, match=r"dcm has .*RescaleSlope 0: its header lies"):
        read_pixels(slice_file, (6, 7))


def test_more_pixels_than_declared_are_not_cut_off(slice_file: Path) -> None:
    set_fields(slice_file, Rows=5)
    with pytest.raises(UserError, match=r"dcm has 84 bytes of pixels, its header declares 70: it lies"):
        read_pixels(slice_file, (5, 7))


def test_an_enhanced_file_is_named_before_what_it_lacks(slice_file: Path) -> None:
    set_fields(slice_file, SharedFunctionalGroupsSequence=[pydicom.Dataset()], PixelSpacing=None)
    with pytest.raises(UserError, match=r"dcm is a multi-frame file"):
        read_header(slice_file)


def test_a_grey_picture_among_slices_may_be_taken_out(slice_file: Path) -> None:
    """As a dose report has no place, it has none when it is exported again."""
    set_fields(slice_file, PixelSpacing=None, ImagePositionPatient=None, ImageOrientationPatient=None)
    with pytest.raises(
        UserError, match=r"no usable PixelSpacing .*Export it again.* a dose report .*take it out"
    ):
        read_header(slice_file)


def test_a_slice_whose_header_is_cut_short_is_to_be_copied_again(slice_file: Path) -> None:
    """Without it the scan would lack a slice, at its end without a word."""
    content = slice_file.read_bytes()
    for length in range(132, len(content), 3):
        slice_file.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"dcm is damaged or cut short.*Copy or download it again"):
            read_pixels(slice_file, read_header(slice_file).shape)


def test_an_error_that_only_looks_like_one_of_the_operating_system(slice_file: Path) -> None:
    with pytest.raises(UserError, match=r"dcm is damaged or cut short \(no item\)"), reading(slice_file):
        raise OSError("no item")
    with pytest.raises(UserError, match=r"dcm cannot be read \(Is a directory\)"), reading(slice_file):
        slice_file.parent.read_bytes()
