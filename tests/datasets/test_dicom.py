from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_fields import set_fields

from ccdcseg.datasets import dicom
from ccdcseg.datasets.dicom import read_series, read_voxels
from ccdcseg.datasets.dicom_header import ADAPTED, NAMES, SERIES
from ccdcseg.datasets.volumes import Volume, write_volume
from ccdcseg.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 4096, (5, 6, 7)).astype(np.uint16)
OBLIQUE = np.array([[np.cos(0.3), np.sin(0.3), 0], [0, 0, -1]])
Write = Callable[..., list[Path]]


@pytest.fixture
def slices(tmp_path: Path, write_slices: Write) -> list[Path]:
    """Five slices, the first in the order of names on top."""
    return write_slices(tmp_path / "scan", PIXELS)


@pytest.mark.parametrize("axes", [np.eye(3)[:2], OBLIQUE, [[0, 1, 0], [0, 0, 1]]])
def test_slices_lie_where_their_headers_say(tmp_path: Path, write_slices: Write, axes: Any) -> None:
    axes, origin = np.array(axes, float), (-100.0, -80.0, 30.0)
    series = read_series(write_slices(tmp_path, PIXELS, (7.7, 1.5, 1.25), origin, axes))
    np.testing.assert_array_equal(read_voxels(series), PIXELS)
    assert series.order == (4, 3, 2, 1, 0)
    np.testing.assert_allclose(series.spacing_mm, (7.7, 1.5, 1.25), rtol=1e-5)
    volume = Volume(tmp_path, PIXELS, series.spacing_mm, series.origin_mm, series.direction)
    row, column, number = 2, 3, 4
    expected = origin + column * 1.25 * axes[0] + row * 1.5 * axes[1] + number * 7.7 * np.cross(*axes)
    np.testing.assert_allclose((volume.affine @ [column, row, number, 1])[:3], expected, atol=1e-3)
    assert np.linalg.det(np.reshape(series.direction, (3, 3))) == pytest.approx(1)


def test_directions_of_few_digits_are_made_perpendicular(tmp_path: Path, write_slices: Write) -> None:
    """ITK reads no scan whose axes are farther than 0.0001 from right angles; headers of four digits are."""
    axes = np.array([[0.999, -0.035, 0], [0.0354, 0.9994, 0]])
    paths = write_slices(tmp_path / "scan", PIXELS, (3, 1, 1), (0, 0, 0), axes)
    series = read_series(paths)
    found = np.reshape(series.direction, (3, 3))
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(found[:, :2].T, axes, atol=1e-3)
    volume = Volume(tmp_path, read_voxels(series), series.spacing_mm, series.origin_mm, series.direction)
    write_volume(tmp_path / "scan.nii.gz", volume)
    assert SimpleITK.ReadImage(str(tmp_path / "scan.nii.gz")).GetSize() == PIXELS.shape[::-1]


def test_the_place_is_that_of_itk(slices: list[Path]) -> None:
    one = SimpleITK.ReadImage(str(slices[-1]))
    series = read_series(slices)
    assert one.GetOrigin() == pytest.approx(series.origin_mm)
    assert one.GetSpacing()[:2] == pytest.approx(series.spacing_mm[:0:-1])
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(one)[0], PIXELS[0])


def test_the_order_given_does_not_matter(slices: list[Path]) -> None:
    mixed = [slices[index] for index in (3, 0, 4, 1, 2)]
    series = read_series(mixed)
    assert series.paths == read_series(slices).paths
    assert [mixed[index] for index in series.order] == list(series.paths)


def test_values_are_rescaled_slice_by_slice(slices: list[Path]) -> None:
    for path in slices:
        set_fields(path, RescaleSlope=1, RescaleIntercept=0)
    set_fields(slices[0], RescaleSlope=2, RescaleIntercept=-1000)
    voxels = read_voxels(read_series(slices))
    assert voxels.dtype == np.int16
    np.testing.assert_array_equal(voxels[-1], 2 * PIXELS[-1].astype(int) - 1000)
    np.testing.assert_array_equal(voxels[:-1], PIXELS[:-1])


def test_slices_of_a_microscope_are_not_doubled(slices: list[Path]) -> None:
    for number, path in enumerate(slices):
        set_fields(path, PixelSpacing=[0.004, 0.004], ImagePositionPatient=[0, 0, 0.004 * number])
    assert read_series(slices).spacing_mm[0] == pytest.approx(0.004)
    set_fields(slices[2], ImagePositionPatient=[0, 0, 0.0041])
    with pytest.raises(UserError, match="doubled"):
        read_series(slices)


@pytest.mark.parametrize("lacked", ["RescaleSlope", "RescaleIntercept"])
def test_a_slice_that_says_less_of_its_rescaling_than_others(slices: list[Path], lacked: str) -> None:
    """Without its intercept a slice of CT would be 1024 HU brighter than its neighbours."""
    for path in slices:
        set_fields(path, RescaleSlope=1, RescaleIntercept=-1024)
    set_fields(slices[2], **{lacked: None})
    with pytest.raises(UserError, match=rf"00003\.dcm and .*00001\.dcm has a {lacked}, the other none"):
        read_series(slices)


@pytest.mark.parametrize(("field", "value"), [("RescaleSlope", 0.5), ("RescaleIntercept", 40000)])
def test_values_that_are_no_short_integers(slices: list[Path], field: str, value: float) -> None:
    for path in slices:
        set_fields(path, RescaleSlope=1, RescaleIntercept=0)
    set_fields(slices[2], **{field: value})
    voxels = read_voxels(read_series(slices))
    assert voxels.dtype == np.float32
    expected = PIXELS[2] * 0.5 if field == "RescaleSlope" else PIXELS[2] + 40000.0
    np.testing.assert_array_equal(voxels[2], expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ImagePositionPatient": None}, r"00003\.dcm has no usable ImagePositionPatient \(None\)"),
        ({"ImagePositionPatient": [1, 2]}, r"00003\.dcm has no usable ImagePositionPatient"),
        ({"ImagePositionPatient": ["1", "2", "nan"]}, r"00003\.dcm"),
        ({"PixelSpacing": None}, r"00003\.dcm has no usable PixelSpacing"),
        ({"PixelSpacing": [0, 1.25]}, r"00003\.dcm has 6 x 7 pixels of the spacing 0, 1\.25 mm"),
        ({"PixelSpacing": [1.5, 1.3]}, r"00003\.dcm has another pixel spacing than .*00001\.dcm"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]}, r"00003\.dcm has another orientation than .*00001"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, r"00003\.dcm has an orientation that is no pair"),
        ({"ImagePositionPatient": [-100, -80, 60.8]}, r"00003\.dcm lies where .*00001\.dcm lies.*doubled"),
        ({"ImagePositionPatient": [-100, -80, 48]}, r"00004\.dcm and .*00003\.dcm .*10\.3 mm apart, other"),
        ({"ImagePositionPatient": [-100, -77, 45.4]}, r"00003\.dcm is shifted sideways by 3 mm.*sheared"),
        ({"Columns": 6}, r"00003\.dcm has another size in pixels than .*00001\.dcm: 6, 6 against 6, 7"),
        ({"Rows": 60000, "Columns": 60000}, r"00003\.dcm is cut short or its header lies: 7200000000 bytes"),
        ({"Rows": 0}, r"00003\.dcm has 0 x 7 pixels"),
        ({"Rows": 5}, r"00003\.dcm has another size in pixels than .*00001\.dcm: 5, 7 against 6, 7"),
        ({"NumberOfFrames": 2}, r"00003\.dcm is a multi-frame file, not one slice\. .*dcm2niix"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, r"00003\.dcm is a mosaic.*dcm2niix"),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
            r"00003\.dcm is no grey slice \(3 values a pixel, RGB\)",
        ),
        (
            {"PhotometricInterpretation": "PALETTE COLOR"},
            r"00003\.dcm is no grey slice \(1 values? .*, PALETTE COLOR\)",
        ),
        ({"ModalityLUTSequence": [pydicom.Dataset()]}, r"00003\.dcm gives its values by a table"),
        ({"HighBit": 15}, r"00003\.dcm has the HighBit 15 of 12 BitsStored"),
        ({"RescaleSlope": 1}, r"00003\.dcm and .*00001\.dcm has a RescaleSlope, the other none"),
    ],
)
def test_a_wrong_header(slices: list[Path], fields: dict[str, object], message: str) -> None:
    set_fields(slices[2], **fields)
    with pytest.raises(UserError, match=message):
        read_voxels(read_series(slices))


@pytest.mark.parametrize("keyword", SERIES)
@pytest.mark.parametrize("values", [["1.1", "1.1", "1.2", "1.2", "1.2"], ["1.1", "1.1", "1.1", "1.1", None]])
def test_two_series_are_no_scan(slices: list[Path], keyword: str, values: list[str | None]) -> None:
    for path, value in zip(slices, values, strict=True):
        set_fields(path, **{keyword: value or ""})
    last = values.index(values[-1]) + 1
    count = values.count(values[0])
    with pytest.raises(
        UserError,
        match=rf"00001.*0000{last}\.dcm are not of one series: {count} of 5 .*{keyword}.*of its own",
    ):
        read_series(slices)


@pytest.mark.parametrize("keyword", NAMES)
@pytest.mark.parametrize("uid", ["", "1.{}"])
def test_names_tell_series_apart_where_identifiers_say_nothing(
    slices: list[Path], keyword: str, uid: str
) -> None:
    for number, path in enumerate(slices):
        set_fields(path, SeriesInstanceUID=uid.format(number), **{keyword: "3" if number < 3 else "5"})
    with pytest.raises(
        UserError,
        match=rf"00001.*00004\.dcm are not of one series: 3 of 5 .*{keyword}.*of its own",
    ):
        read_series(slices)
    for path in slices[3:]:
        set_fields(path, **{keyword: None})
    with pytest.raises(UserError, match=rf"are not of one series: 3 of 5 slices have the {keyword}"):
        read_series(slices)


@pytest.mark.parametrize("keyword", NAMES)
def test_names_say_nothing_where_each_slice_has_its_own_or_one_identifier(
    slices: list[Path], keyword: str
) -> None:
    """Scanners may take each slice of a stack as a series, and write the time into the name of a single one."""
    for number, path in enumerate(slices):
        set_fields(path, **{keyword: str(number)})
    assert read_series(slices).notes == ()
    for number, path in enumerate(slices):
        set_fields(path, SeriesInstanceUID="1.1", **{keyword: "3" if number < 3 else "5"})
    assert read_series(slices).notes == ()


@pytest.mark.parametrize("keyword", [*SERIES, *NAMES])
def test_of_two_slices_each_may_be_a_series(slices: list[Path], keyword: str) -> None:
    for number, path in enumerate(slices[:3]):
        set_fields(path, SeriesInstanceUID="")
        set_fields(path, **{keyword: f"1.{number}" if keyword in SERIES else str(number)})
    with pytest.raises(
        UserError, match=rf"00001.*00002\.dcm are not of one series: 1 of 2 slices have the {keyword}"
    ):
        read_series(slices[:2])
    assert read_series(slices[:3]).notes == ()
    for path in slices[:2]:
        set_fields(path, **{keyword: "1"})
    assert read_series(slices[:2]).notes == ()


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("Modality", ["MR", "CT"]),
        ("ImageType", [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]]),
        ("PhotometricInterpretation", ["MONOCHROME1", "MONOCHROME2"]),
        ("EchoNumbers", [1, 2]),
        ("DiffusionBValue", [0, 800]),
        ("TemporalPositionIdentifier", [1, 2]),
        ("ConvolutionKernel", ["B30f", "B70f"]),
        ("KVP", [120, 80]),
        ("KVP", ["", 120]),
        ("ContrastBolusAgent", ["Gd", "iodine"]),
        ("ContrastBolusAgent", ["", "Gd"]),
    ],
)
def test_two_volumes_in_one_series(slices: list[Path], keyword: str, values: list[Any]) -> None:
    for path in slices:
        set_fields(path, SeriesInstanceUID="1.1", **{keyword: values[path in slices[3:]]})
    with pytest.raises(UserError, match=rf"00004\.dcm has another {keyword} than .*00001.*: .*(against|and)"):
        read_series(slices)


@pytest.mark.parametrize("value", ["", "120"])
@pytest.mark.parametrize("keyword", ["KVP", "ContrastBolusAgent"])
def test_what_all_slices_have_or_none(slices: list[Path], keyword: str, value: str) -> None:
    for path in slices[1:]:
        set_fields(path, **{keyword: value})
    set_fields(slices[0], **{keyword: value and f"{value} "})
    assert read_series(slices).notes == ()


def test_a_kind_that_some_slices_do_not_say(slices: list[Path]) -> None:
    set_fields(slices[2], EchoNumbers=1, ConvolutionKernel="B30f")
    assert read_series(slices).notes == ()


@pytest.mark.parametrize("keyword", ADAPTED)
def test_what_is_adapted_from_slice_to_slice(slices: list[Path], keyword: str) -> None:
    """In one series it is noted; where each slice is a series of its own, two may be joined."""
    for number, path in enumerate(slices):
        set_fields(path, SeriesInstanceUID="1.1", **{keyword: 280 + number})
    assert read_series(slices).notes == (f"slices differ in {keyword}",)
    set_fields(slices[2], ImagePositionPatient=[-100, -80, 60.8])
    with pytest.raises(
        UserError, match=rf"lies where .*\({keyword} 28\d\.0 against 28\d\.0.*several volumes"
    ):
        read_series(slices)
    for name in ("", "1.{}"):
        for number, path in enumerate(slices):
            set_fields(path, SeriesInstanceUID=name.format(number))
        with pytest.raises(UserError, match=rf"has another {keyword} than"):
            read_series(slices)


def test_numbers_are_compared_as_numbers(slices: list[Path]) -> None:
    for path in slices:
        set_fields(path, EchoTime="1.50" if path == slices[0] else "1.5")
    assert read_series(slices).notes == ()


def test_phases_at_one_place(tmp_path: Path, write_slices: Write) -> None:
    phases = [write_slices(tmp_path / name, PIXELS) for name in ("a", "b")]
    for number, paths in enumerate(phases):
        for path in paths:
            set_fields(path, TriggerTime=40 * number)
    with pytest.raises(
        UserError, match=r"lies where .*TriggerTime 40.0 against 0.0.*several volumes.*its own"
    ):
        read_series([*phases[0], *phases[1]])


def test_several_acquisitions_are_said(slices: list[Path]) -> None:
    assert read_series(slices).notes == ()
    for path in slices:
        set_fields(path, AcquisitionNumber=1 + (path in slices[3:]))
    assert "several acquisitions" in read_series(slices).notes[0]


def test_inverted_slices_are_noted(slices: list[Path]) -> None:
    for path in slices:
        set_fields(path, PhotometricInterpretation="MONOCHROME1")
    (note,) = read_series(slices).notes
    assert "MONOCHROME1" in note


def test_slices_of_ct_without_rescaling_are_noted(slices: list[Path]) -> None:
    for path in slices:
        set_fields(path, Modality="CT")
    (note,) = read_series(slices).notes
    assert "no RescaleSlope or RescaleIntercept" in note
    for path in slices:
        set_fields(path, RescaleIntercept=0)
    assert read_series(slices).notes == ()


def test_a_distance_that_changes(tmp_path: Path, write_slices: Write) -> None:
    """Neighbours differ little, but in the sum slices would be far from where they lie."""
    slices = write_slices(tmp_path, np.zeros((13, 2, 2), np.uint16))
    for path, height in zip(slices, np.cumsum([0.0] + [7.0] * 6 + [7.6] * 6), strict=True):
        set_fields(path, ImagePositionPatient=[-100, -80, round(height, 3)])
    with pytest.raises(UserError, match=r"00007\.dcm lies 1\.8 mm from where .*the distance changes"):
        read_series(slices)


def test_a_missing_slice(slices: list[Path]) -> None:
    del slices[1]
    with pytest.raises(UserError, match=r"00003\.dcm and .*00001\.dcm .*15\.4 mm apart, .*7\.7 mm: one is"):
        read_series(slices)


def test_one_slice_is_no_volume(slices: list[Path]) -> None:
    with pytest.raises(UserError, match=r"00001\.dcm is fewer than two slices.*none: .*dcm2niix"):
        read_series(slices[:1])


@pytest.mark.parametrize("length", [0, 100, 400, -60, -2])
def test_a_file_cut_short(slices: list[Path], length: int) -> None:
    slices[2].write_bytes(slices[2].read_bytes()[:length])
    with pytest.raises(UserError, match=r"00003\.dcm") as error:
        read_voxels(read_series(slices))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"no DICOM", bytes(200), b"\0" * 128 + b"DICM" + b"\xff" * 50])
def test_no_dicom_file(slices: list[Path], content: bytes) -> None:
    slices[2].write_bytes(content)
    with pytest.raises(UserError, match=r"00003\.dcm (is|has)"):
        read_series(slices)


def test_a_file_that_is_not_there(slices: list[Path]) -> None:
    slices[2].unlink()
    with pytest.raises(UserError, match=r"00003\.dcm cannot be read \(No such file"):
        read_series(slices)


def test_many_large_slices_are_refused_from_their_headers(
    slices: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom, "MAX_BYTES", 5 * 6 * 7 * 8 - 1)
    with pytest.raises(
        UserError, match=r"00001\.dcm and the 4 slices with it declare .* is the limit.*right: .*dcm2niix"
    ):
        read_series(slices)


@pytest.mark.parametrize("syntax", [pydicom.uid.MPEG2MPML, pydicom.uid.DeflatedExplicitVRLittleEndian])
def test_a_compression_that_cannot_be_read(slices: list[Path], syntax: pydicom.uid.UID) -> None:
    dataset = pydicom.dcmread(slices[2])
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax.is_encapsulated:
        dataset.PixelData = pydicom.encaps.encapsulate([dataset.PixelData])
        dataset["PixelData"].is_undefined_length = True
    dataset.save_as(slices[2])
    with pytest.raises(UserError, match=r"00003\.dcm is compressed .*gdcmconv"):
        read_series(slices)


def test_lossless_compression_that_can_be_read(slices: list[Path]) -> None:
    for path in slices:
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless, encoding_plugin="pydicom")
        dataset.save_as(path)
    np.testing.assert_array_equal(read_voxels(read_series(slices)), PIXELS)
