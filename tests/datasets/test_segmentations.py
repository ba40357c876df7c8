from collections.abc import Callable, Sequence
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


@pytest.fixture
def draw(tmp_path: Path, slices: list[Path], write_segmentation: Callable[..., Path]) -> Callable[..., Path]:
    """Draw a mask, from the bottom up, on the slices."""

    def write(mask: np.ndarray = MASK, names: Sequence[str] = ("liver", "tumour")) -> Path:
        return write_segmentation(tmp_path / "seg.dcm", slices, mask[::-1], names)

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


def test_a_segmentation_cut_short(draw: Callable[..., Path], slices: list[Path]) -> None:
    path = draw()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"seg\.dcm (is no DICOM segmentation|does not fit)"):
        read_segmentation(path, LABELS, scan(slices))


def test_it_must_be_drawn_on_the_slices_of_the_scan(
    tmp_path: Path,
    draw: Callable[..., Path],
    slices: list[Path],
    write_slices: Callable[..., list[Path]],
) -> None:
    path = draw()
    own = read_series(slices)
    found = read_segmentation(path, LABELS, scan(slices), own.uids)
    np.testing.assert_array_equal(found.array, np.array([0, 2, 5])[MASK])
    other = write_slices(tmp_path / "other", PIXELS)
    with pytest.raises(UserError, match=r"seg\.dcm was drawn on other slices than those of .*other"):
        read_segmentation(path, LABELS, scan(other), read_series(other).uids)


def test_foreground_outside_the_scan_is_not_dropped(draw: Callable[..., Path], slices: list[Path]) -> None:
    path = draw()
    lower = scan(slices[3:])
    lost = np.count_nonzero(MASK[3:])
    with pytest.raises(UserError, match=rf"seg\.dcm has {lost} labelled voxels outside .*scan"):
        read_segmentation(path, LABELS, lower, read_series(slices[3:]).uids)
