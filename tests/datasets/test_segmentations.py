import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_fields import set_fields
from pydicom.uid import MPEG2MPML, UID, ExplicitVRLittleEndian, RLELossless

from ccdcseg.datasets.dicom import read_series, read_voxels
from ccdcseg.datasets.segmentations import read_segmentation
from ccdcseg.datasets.volumes import Volume
from ccdcseg.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 4096, (6, 7, 8)).astype(np.uint16)
MASK = np.zeros(PIXELS.shape, np.uint8)
MASK[1:4, 1:3, 1:4], MASK[2:5, 4:6, 5:7] = 1, 2
LABELS = {"Liver": 2, "tumour": 5}
OBLIQUE = np.array([[np.cos(0.3), np.sin(0.3), 0], [0, 0, -1]])


def scan(paths: list[Path]) -> Volume:
    series = read_series(paths)
    return Volume(paths[0].parent, read_voxels(series), series.spacing_mm, series.origin_mm, series.direction)


@pytest.fixture
def slices(tmp_path: Path, write_slices: Callable[..., list[Path]]) -> list[Path]:
    """Six slices; file names go from the top down."""
    return write_slices(tmp_path / "scan", PIXELS)


@pytest.fixture
def draw(tmp_path: Path, slices: list[Path], write_segmentation: Callable[..., Path]) -> Callable[..., Path]:
    """Draw a mask, from the bottom up, on the slices."""

    def write(mask: np.ndarray = MASK, names: Sequence[str] = ("liver", "tumour"), **options: Any) -> Path:
        return write_segmentation(tmp_path / "seg.dcm", slices, mask[::-1], names, **options)

    return write


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("axes", [np.eye(3)[:2], OBLIQUE])
def test_segments_lie_where_they_were_drawn(
    tmp_path: Path,
    write_slices: Callable[..., list[Path]],
    write_segmentation: Callable[..., Path],
    axes: np.ndarray,
    kind: str,
) -> None:
    paths = write_slices(tmp_path / "scan", PIXELS, axes=axes)
    image = scan(paths)
    path = write_segmentation(tmp_path / "seg.dcm", paths, MASK[::-1], ["LIVER", "Tumour"], kind=kind)
    found = read_segmentation(path, LABELS, image)
    np.testing.assert_array_equal(found.array, np.array([0, 2, 5])[MASK])
    np.testing.assert_allclose(found.affine, image.affine)


@pytest.mark.parametrize("value", [32767, 32768, 70000, 2**40, 10**30])
def test_labels_of_any_size(draw: Callable[..., Path], slices: list[Path], value: int) -> None:
    found = read_segmentation(draw(), {"liver": value, "tumour": 1}, scan(slices)).array
    np.testing.assert_array_equal(found == value, MASK == 1)
    np.testing.assert_array_equal(found == 1, MASK == 2)


@pytest.mark.parametrize("most", [255, 100, 1])
def test_a_fractional_one_of_two_values_is_binary(
    draw: Callable[..., Path], slices: list[Path], most: int
) -> None:
    parts = np.stack([MASK == 1, MASK == 2], axis=-1).astype(np.float64)
    path = draw(parts, kind="FRACTIONAL", max_fractional_value=most)
    found = read_segmentation(path, LABELS, scan(slices), read_series(slices))
    np.testing.assert_array_equal(found.array, np.array([0, 2, 5])[MASK])


def test_a_fraction_of_a_voxel_is_refused(draw: Callable[..., Path], slices: list[Path]) -> None:
    parts = np.stack([MASK == 1, 0.2 * (MASK == 2)], axis=-1)
    path = draw(parts, kind="FRACTIONAL", max_fractional_value=100)
    with pytest.raises(UserError, match=r"seg\.dcm is a fractional .* by 20 of 100\. Choose a threshold"):
        read_segmentation(path, LABELS, scan(slices))
    path = draw(np.stack([MASK > 0, MASK == 2], axis=-1).astype(np.float64), kind="FRACTIONAL")
    with pytest.raises(UserError, match=r"does not fit .*overlap"):
        read_segmentation(path, LABELS, scan(slices))


@pytest.mark.parametrize("options", [{}, {"omit_empty_frames": False}])
def test_nothing_drawn(draw: Callable[..., Path], slices: list[Path], options: dict[str, bool]) -> None:
    assert not read_segmentation(draw(0 * MASK, **options), LABELS, scan(slices)).array.any()


def test_a_segmentation_that_names_no_slice_must_share_their_frame_of_reference(
    draw: Callable[..., Path], slices: list[Path]
) -> None:
    path = draw()
    dataset = pydicom.dcmread(path)
    frame = dataset.FrameOfReferenceUID
    del dataset.ReferencedSeriesSequence
    for one in dataset.PerFrameFunctionalGroupsSequence:
        del one.DerivationImageSequence
    dataset.save_as(path)
    for uid in (frame, None, "1.2.3"):
        for name in slices:
            set_fields(name, FrameOfReferenceUID=uid)
        image, series = scan(slices), read_series(slices)
        if uid == "1.2.3":
            with pytest.raises(UserError, match=r"in another frame of reference than that of .*scan"):
                read_segmentation(path, LABELS, image, series)
        else:
            assert read_segmentation(path, LABELS, image, series).array.any()


def test_names_whose_accents_are_stored_otherwise(draw: Callable[..., Path], slices: list[Path]) -> None:
    path = draw(names=["v\u00e9sicule", "TUMOUR"])
    found = read_segmentation(path, {"Ve\u0301sicule": 1, "tumour": 2}, scan(slices))
    np.testing.assert_array_equal(found.array, MASK)


@pytest.mark.parametrize("index", [0, 3, 5])
def test_a_single_slice(draw: Callable[..., Path], slices: list[Path], index: int) -> None:
    mask = np.zeros_like(MASK)
    mask[index, 2:4, 3] = 1
    found = read_segmentation(draw(mask, ["liver"]), LABELS, scan(slices))
    np.testing.assert_array_equal(found.array, 2 * mask)


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (["liver", "kidney"], LABELS, r"seg\.dcm has the segment kidney, .*Liver, tumour\. Name it: --label"),
        (["liver", "Liver"], {"liver": 1, "Liver": 2}, r"labels liver, Liver differ by case alone"),
    ],
)
def test_segments_that_have_no_label_of_their_own(
    draw: Callable[..., Path], slices: list[Path], names: list[str], labels: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_segmentation(draw(names=names), labels, scan(slices))


def test_segments_that_overlap(draw: Callable[..., Path], slices: list[Path]) -> None:
    path = draw(np.stack([MASK > 0, MASK == 1], axis=-1))
    with pytest.raises(UserError, match=r"seg\.dcm does not fit .*scan \(.*without overlapping segments"):
        read_segmentation(path, LABELS, scan(slices))


def test_voxels_of_another_scan(
    tmp_path: Path,
    draw: Callable[..., Path],
    slices: list[Path],
    write_slices: Callable[..., list[Path]],
) -> None:
    path = draw()
    other = write_slices(tmp_path / "other", PIXELS, spacing_mm=(7.7, 1.6, 1.25))
    with pytest.raises(UserError, match=r"seg\.dcm has another geometry than .*other: "):
        read_segmentation(path, LABELS, scan(other))


TURNED = np.column_stack([[np.cos(0.12), np.sin(0.12), 0], [-np.sin(0.12), np.cos(0.12), 0], [0, 0, 1]])


@pytest.mark.parametrize(
    "change",
    [
        {"spacing_mm": (7.7, 1.49, 1.25)},
        {"spacing_mm": (7.64, 1.5, 1.25)},
        {"spacing_mm": (7.7, 3.0, 2.5), "array": np.zeros((20, 20, 20), np.int16)},
        {"direction": tuple(TURNED.ravel().tolist())},
    ],
)
def test_voxels_that_are_nearly_those_of_the_scan(
    tmp_path: Path,
    write_slices: Callable[..., list[Path]],
    write_segmentation: Callable[..., Path],
    change: dict[str, Any],
) -> None:
    """As of a scan that was resampled, or turned; every voxel that is drawn lies in it."""
    mask = np.zeros((20, 40, 40), np.uint8)
    mask[15:18, 30:36, 30:36] = 1
    paths = write_slices(tmp_path / "scan", mask.astype(np.uint16))
    path = write_segmentation(tmp_path / "seg.dcm", paths, mask[::-1], ["liver"])
    image = replace(scan(paths), **change)
    with pytest.raises(UserError, match=r"seg\.dcm has another geometry than .*scan: "):
        read_segmentation(path, LABELS, image)


def sideways(volume: Volume) -> Volume:
    """The same voxels with the slices along x of the file, from the last on, as KiTS stores them."""
    x, y, z = np.reshape(volume.direction, (3, 3)).T
    first = volume.affine @ [0, 0, len(volume.array) - 1, 1]
    return replace(
        volume,
        array=np.ascontiguousarray(volume.array.transpose(2, 1, 0)[:, :, ::-1]),
        spacing_mm=volume.spacing_mm[::-1],
        origin_mm=tuple(first[:3].tolist()),
        direction=tuple(np.column_stack([-z, y, x]).ravel().tolist()),
    )


@pytest.mark.parametrize("cut", [0, 1])
def test_a_scan_that_ends_before_its_segmentation(
    draw: Callable[..., Path], slices: list[Path], cut: int
) -> None:
    path, image = draw(omit_empty_frames=False), scan(slices)
    drawn = sideways(replace(image, array=np.array([0, 2, 5])[MASK]))
    kept = slice(0, drawn.array.shape[2] - cut)
    short = replace(sideways(image), array=drawn.array[:, :, kept])
    found = read_segmentation(path, LABELS, short)
    np.testing.assert_array_equal(found.array, drawn.array[:, :, kept])
    np.testing.assert_allclose(found.affine, short.affine, atol=1e-6)


@pytest.mark.parametrize("rows", [(1, 4), (3,)])
def test_frames_lie_on_slices_along_any_axis_of_the_file(
    draw: Callable[..., Path], slices: list[Path], rows: tuple[int, ...]
) -> None:
    mask, image = np.zeros_like(MASK), scan(slices)
    mask[list(rows), 2:4, 3] = 1
    path = draw(mask, ["liver"])
    dataset = pydicom.dcmread(path)
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    dataset.save_as(path)
    found = read_segmentation(path, LABELS, sideways(image))
    np.testing.assert_array_equal(found.array, sideways(replace(image, array=2 * mask)).array)


def test_frames_whose_directions_have_few_digits(
    tmp_path: Path, write_slices: Callable[..., list[Path]], draw: Callable[..., Path]
) -> None:
    """They are made perpendicular as those of the scan's slices are."""
    paths = write_slices(tmp_path / "scan", PIXELS)
    path, axes = draw(), [0.999, -0.035, 0, 0.0354, 0.9994, 0]
    for name in paths:
        set_fields(name, ImageOrientationPatient=axes)
    dataset = pydicom.dcmread(path)
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = axes
    dataset.save_as(path)
    found = read_segmentation(path, LABELS, scan(paths))
    np.testing.assert_array_equal(found.array, np.array([0, 2, 5])[MASK])


@pytest.mark.parametrize("said_mm", [None, 0.62, 0.63])
@pytest.mark.parametrize("rows", [range(2, 38), (3, 4, 5, 20), (7,), (1, 12, 38)])
def test_frames_lie_on_slices_whose_positions_are_rounded(
    tmp_path: Path,
    write_slices: Callable[..., list[Path]],
    write_segmentation: Callable[..., Path],
    said_mm: float | None,
    rows: Sequence[int],
) -> None:
    mask = np.zeros((40, 7, 8), np.uint8)
    mask[list(rows), 2:4, 3] = 1
    paths = write_slices(tmp_path / "scan", np.repeat(PIXELS[:1], 40, axis=0), (0.625, 1.5, 1.25))
    for index, path in enumerate(paths):
        set_fields(path, ImagePositionPatient=[-100.0, -80.0, round(30 + 0.625 * (39 - index), 2)])
    path = write_segmentation(tmp_path / "seg.dcm", paths, mask[::-1], ["liver"])
    dataset = pydicom.dcmread(path)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = said_mm or measures.SpacingBetweenSlices
    dataset.save_as(path)
    found = read_segmentation(path, LABELS, scan(paths), read_series(paths)).array
    np.testing.assert_array_equal(found, 2 * mask)


def test_frames_between_slices_are_refused(
    draw: Callable[..., Path], slices: list[Path], tmp_path: Path, write_slices: Callable[..., list[Path]]
) -> None:
    path, image = draw(), scan(slices)
    z = image.origin_mm[2]
    for off in (0.2, -0.5):
        other = replace(image, origin_mm=(*image.origin_mm[:2], z + off * image.spacing_mm[0]))
        with pytest.raises(UserError, match=r"seg\.dcm has another geometry than"):
            read_segmentation(path, LABELS, other)


def test_what_is_no_segmentation(tmp_path: Path, slices: list[Path]) -> None:
    image = scan(slices)
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(UserError, match=r"text\.dcm is no DICOM segmentation"):
        read_segmentation(tmp_path / "text.dcm", LABELS, image)
    with pytest.raises(UserError, match=r"IMG.*dcm is no DICOM segmentation .*as one, or as NIfTI"):
        read_segmentation(slices[0], LABELS, image)
    with pytest.raises(UserError, match=r"nowhere\.dcm cannot be read"):
        read_segmentation(tmp_path / "nowhere.dcm", LABELS, image)


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("BINARY", ExplicitVRLittleEndian),
        ("LABELMAP", ExplicitVRLittleEndian),
        ("LABELMAP", RLELossless),
        ("FRACTIONAL", ExplicitVRLittleEndian),
        ("FRACTIONAL", RLELossless),
    ],
)
def test_a_segmentation_cut_short(
    draw: Callable[..., Path], slices: list[Path], kind: str, syntax: UID
) -> None:
    """In how the file begins, its header, what is said of each frame, its pixels, and the last of these."""
    mask = (MASK[..., None] == [1, 2]).astype(np.float32) if kind == "FRACTIONAL" else MASK
    path = draw(mask, kind=kind, transfer_syntax_uid=syntax)
    content, image, series = path.read_bytes(), scan(slices), read_series(slices)
    pixels = content.rindex(b"\xe0\x7f\x10\x00")
    for length in {*range(140, pixels, 173), *range(pixels - 5, pixels + 20, 3), len(content) - 20}:
        path.write_bytes(content[:length])
        with pytest.raises(
            UserError, match=r"seg\.dcm is damaged or cut short .*Copy or download it again\.$"
        ):
            read_segmentation(path, LABELS, image, series)
    path.write_bytes(content)
    assert read_segmentation(path, LABELS, image, series).array.any()


@pytest.mark.parametrize("length", [0, 131])
def test_a_segmentation_of_which_nothing_is_left(
    draw: Callable[..., Path], slices: list[Path], length: int
) -> None:
    path = draw()
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"seg\.dcm is no DICOM segmentation .*Copy or download it again"):
        read_segmentation(path, LABELS, scan(slices))


def test_a_pipe_is_no_segmentation(tmp_path: Path, slices: list[Path]) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    with pytest.raises(UserError, match=r"pipe\.dcm is no file, but a pipe"):
        read_segmentation(tmp_path / "pipe.dcm", LABELS, scan(slices))


def test_a_segmentation_whose_compression_cannot_be_read(
    draw: Callable[..., Path], slices: list[Path]
) -> None:
    path = draw(kind="LABELMAP", transfer_syntax_uid=RLELossless)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.save_as(path)
    with pytest.raises(UserError, match=r"seg\.dcm is compressed \(MPEG2 .*gdcmconv"):
        read_segmentation(path, LABELS, scan(slices))


@pytest.mark.parametrize("keyword", ["SegmentationType", "MaximumFractionalValue"])
def test_what_each_segmentation_has_may_be_missing(
    draw: Callable[..., Path], slices: list[Path], keyword: str
) -> None:
    path = draw((MASK[..., None] == [1, 2]).astype(np.float32), kind="FRACTIONAL", max_fractional_value=100)
    set_fields(path, **{keyword: None})
    with pytest.raises(UserError, match=rf"seg\.dcm is damaged or cut short \(.*{keyword}"):
        read_segmentation(path, LABELS, scan(slices))


def test_it_must_be_drawn_on_the_slices_of_the_scan(
    tmp_path: Path,
    draw: Callable[..., Path],
    slices: list[Path],
    write_slices: Callable[..., list[Path]],
) -> None:
    path = draw()
    own = read_series(slices)
    found = read_segmentation(path, LABELS, scan(slices), own)
    np.testing.assert_array_equal(found.array, np.array([0, 2, 5])[MASK])
    other = write_slices(tmp_path / "other", PIXELS)
    with pytest.raises(UserError, match=r"seg\.dcm was drawn on other slices than those of .*other"):
        read_segmentation(path, LABELS, scan(other), read_series(other))


def test_foreground_outside_the_scan_is_not_dropped(draw: Callable[..., Path], slices: list[Path]) -> None:
    path = draw()
    lower = scan(slices[3:])
    lost = np.count_nonzero(MASK[3:])
    with pytest.raises(UserError, match=rf"seg\.dcm has {lost} labelled voxels outside .*scan"):
        read_segmentation(path, LABELS, lower, read_series(slices[3:]))
