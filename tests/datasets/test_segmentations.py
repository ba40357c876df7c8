from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.parametrize("index", [0, 3, 5])
def test_a_single_slice(
    tmp_path: Path, slices: list[Path], write_segmentation: Callable[..., Path], index: int
) -> None:
    mask = np.zeros_like(MASK)
    mask[index, 2:4, 3] = 1
    path = write_segmentation(tmp_path / "seg.dcm", slices, mask[::-1], ["liver"])
    np.testing.assert_array_equal(read_segmentation(path, LABELS, scan(slices)).array, 2 * mask)


def test_a_segment_of_another_name(
    tmp_path: Path, slices: list[Path], write_segmentation: Callable[..., Path]
) -> None:
    path = write_segmentation(tmp_path / "seg.dcm", slices, MASK[::-1], ["liver", "kidney"])
    with pytest.raises(
        UserError, match=r"seg\.dcm has the segment kidney, .*Liver, tumour\. Name it: --label"
    ):
        read_segmentation(path, LABELS, scan(slices))


def test_segments_that_overlap(
    tmp_path: Path, slices: list[Path], write_segmentation: Callable[..., Path]
) -> None:
    both = np.stack([MASK[::-1] > 0, MASK[::-1] == 1], axis=-1)
    path = write_segmentation(tmp_path / "seg.dcm", slices, both, ["liver", "tumour"])
    with pytest.raises(UserError, match=r"seg\.dcm does not fit .*scan \(.*without overlapping segments"):
        read_segmentation(path, LABELS, scan(slices))


def test_voxels_of_another_scan(
    tmp_path: Path,
    slices: list[Path],
    write_slices: Callable[..., list[Path]],
    write_segmentation: Callable[..., Path],
) -> None:
    path = write_segmentation(tmp_path / "seg.dcm", slices, MASK[::-1], ["liver", "tumour"])
    other = write_slices(tmp_path / "other", PIXELS, spacing_mm=(7.7, 1.6, 1.25))
    with pytest.raises(UserError, match=r"seg\.dcm does not fit .*other \("):
        read_segmentation(path, LABELS, scan(other))


def test_what_is_no_segmentation(tmp_path: Path, slices: list[Path]) -> None:
    image = scan(slices)
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(UserError, match=r"text\.dcm is no DICOM segmentation"):
        read_segmentation(tmp_path / "text.dcm", LABELS, image)
    with pytest.raises(UserError, match=r"IMG.*dcm is no DICOM segmentation"):
        read_segmentation(slices[0], LABELS, image)
    with pytest.raises(UserError, match=r"nowhere\.dcm cannot be read"):
        read_segmentation(tmp_path / "nowhere.dcm", LABELS, image)


def test_a_segmentation_cut_short(
    tmp_path: Path, slices: list[Path], write_segmentation: Callable[..., Path]
) -> None:
    path = write_segmentation(tmp_path / "seg.dcm", slices, MASK[::-1], ["liver", "tumour"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"seg\.dcm (is no DICOM segmentation|does not fit)"):
        read_segmentation(path, LABELS, scan(slices))


def test_it_must_be_drawn_on_the_slices_of_the_scan(
    tmp_path: Path,
    slices: list[Path],
    write_slices: Callable[..., list[Path]],
    write_segmentation: Callable[..., Path],
) -> None:
    path = write_segmentation(tmp_path / "seg.dcm", slices, MASK[::-1], ["liver", "tumour"])
    own = read_series(slices)
    found = read_segmentation(path, LABELS, scan(slices), own.uids)
    np.testing.assert_array_equal(found.array, np.array([0, 2, 5])[MASK])
    other = write_slices(tmp_path / "other", PIXELS)
    with pytest.raises(UserError, match=r"seg\.dcm was drawn on other slices than those of .*other"):
        read_segmentation(path, LABELS, scan(other), read_series(other).uids)


def test_foreground_outside_the_scan_is_not_dropped(
    tmp_path: Path, slices: list[Path], write_segmentation: Callable[..., Path]
) -> None:
    path = write_segmentation(tmp_path / "seg.dcm", slices, MASK[::-1], ["liver", "tumour"])
    lower = scan(slices[3:])
    lost = np.count_nonzero(MASK[3:])
    with pytest.raises(UserError, match=rf"seg\.dcm has {lost} labelled voxels outside .*scan"):
        read_segmentation(path, LABELS, lower, read_series(slices[3:]).uids)


def test_labels_that_differ_by_case_alone(
    tmp_path: Path, slices: list[Path], write_segmentation: Callable[..., Path]
) -> None:
    path = write_segmentation(tmp_path / "seg.dcm", slices, MASK[::-1], ["liver", "Liver"])
    with pytest.raises(UserError, match=r"labels liver, Liver differ by case alone"):
        read_segmentation(path, {"liver": 1, "Liver": 2}, scan(slices))
