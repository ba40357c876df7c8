from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nrrd_files import segments, write_nrrd

from ccdcseg.datasets.own import Layout, OwnData, prepare_own
from ccdcseg.datasets.release import read_notes
from ccdcseg.datasets.slicer import read_slicer_mask
from ccdcseg.datasets.volumes import Volume, read_mask, write_volume
from ccdcseg.errors import UserError

SHAPE = (4, 6, 7)
TURNED = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
IMAGE = Volume(Path("scan.nii.gz"), np.zeros(SHAPE, np.int16), (8.0, 1.5, 1.25), (3.0, -4.0, 5.0), TURNED)
LABELS = {"Liver": 2, "tumour": 5}
MASK = np.zeros(SHAPE, np.uint8)
MASK[1:3, 1:4, 2:5], MASK[2:, 4:, 5:] = 1, 2
EXPECTED = np.array([0, 2, 5])[MASK]


def cut(array: np.ndarray, box: tuple[slice, ...]) -> Volume:
    """A part of a mask on the image's voxels, placed where it lies."""
    first = [part.start for part in box][::-1]
    origin = IMAGE.affine @ [*first, 1]
    return Volume(IMAGE.path, array[box], IMAGE.spacing_mm, tuple(origin[:3]), TURNED)


ALL = tuple(slice(0, size) for size in SHAPE)


def read(path: Path, image: Volume = IMAGE) -> np.ndarray:
    found = read_slicer_mask(path, LABELS, image)
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-6)
    return found.array


@pytest.mark.parametrize("name", ["mask.seg.nrrd", "mask.nrrd"])
def test_segments_are_known_by_name(tmp_path: Path, name: str) -> None:
    path = write_nrrd(tmp_path / name, cut(MASK, ALL), segments("LIVER ", "Tumour"))
    np.testing.assert_array_equal(read(path), EXPECTED)


def test_a_label_map_has_the_values_of_the_labels(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "mask.nrrd", cut(EXPECTED.astype(np.uint8), ALL))
    np.testing.assert_array_equal(read(path), EXPECTED)
    other = write_nrrd(tmp_path / "mask.nrrd", cut(MASK, ALL))
    with pytest.raises(UserError, match=r"mask\.nrrd holds 1, no known label: .* 2 \(Liver\), 5 \(tumour\)"):
        read(other)


def test_a_segment_that_was_not_drawn(tmp_path: Path) -> None:
    drawn = cut(MASK * (MASK == 1), ALL)
    path = write_nrrd(tmp_path / "mask.seg.nrrd", drawn, segments("liver", "tumour"))
    np.testing.assert_array_equal(read(path), np.where(MASK == 1, 2, 0))


def test_a_segmentation_without_segments_is_empty(tmp_path: Path) -> None:
    """A single voxel stands for none; a label map of one voxel lies on none of the scan's."""
    voxel = Volume(tmp_path, np.zeros((1, 1, 1), np.uint8), (1.0, 1.0, 1.0))
    said = {"Segmentation_MasterRepresentation": "Binary labelmap"}
    found = read(write_nrrd(tmp_path / "mask.seg.nrrd", voxel, said))
    np.testing.assert_array_equal(found, np.zeros_like(EXPECTED))
    drawn = replace(voxel, array=voxel.array + 1)
    with pytest.raises(UserError, match="holds 1, no known label"):
        read(write_nrrd(tmp_path / "mask.seg.nrrd", drawn, said))


@pytest.mark.parametrize("old", [False, True])
def test_layers(tmp_path: Path, old: bool) -> None:
    """Before version 4.11 of 3D Slicer no segment names its layer and its value."""
    said = {"Segment0_Name": "liver", "Segment1_ID": "tumour"}
    if not old:
        said |= {"Segment0_Layer": "0", "Segment1_Layer": "1", "Segment1_LabelValue": "1"}
    layers = np.stack([MASK == 1, MASK == 2]).astype(np.uint8)
    path = write_nrrd(tmp_path / "mask.seg.nrrd", cut(MASK, ALL), said, layers=layers)
    np.testing.assert_array_equal(read(path), EXPECTED)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_part_of_the_scan_lies_where_it_was(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    box = []
    for size, low, high in zip(SHAPE, (1, 1, 2), (4, 6, 7), strict=True):
        box.append(slice(data.draw(st.integers(0, low)), data.draw(st.integers(high, size))))
    folder = tmp_path_factory.mktemp("slicer")
    space = data.draw(st.sampled_from(["LPS", "RAS"]))
    path = write_nrrd(folder / "a.nrrd", cut(MASK, tuple(box)), segments("liver", "tumour"), space=space)
    np.testing.assert_array_equal(read(path), EXPECTED)


def test_more_than_the_scan_where_nothing_is_drawn(tmp_path: Path) -> None:
    image = cut(MASK, (slice(1, 4), slice(1, 6), slice(2, 7)))
    path = write_nrrd(tmp_path / "a.nrrd", cut(MASK, ALL), segments("liver", "tumour"))
    np.testing.assert_array_equal(read(path, image), EXPECTED[1:, 1:, 2:])


@pytest.mark.parametrize("away", [(50, 0, 0), (0, -70, 0), (3, 3, 3)])
def test_foreground_outside_the_scan(tmp_path: Path, away: tuple[int, int, int]) -> None:
    origin = IMAGE.affine @ [*away, 1]
    volume = Volume(IMAGE.path, MASK, IMAGE.spacing_mm, tuple(origin[:3]), TURNED)
    path = write_nrrd(tmp_path / "a.nrrd", volume, segments("liver", "tumour"))
    with pytest.raises(UserError, match=r"a\.nrrd has \d+ labelled voxels outside \S*scan\.nii\.gz"):
        read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing_mm": (8.0, 1.5, 1.5)}, "has another geometry than"),
        ({"origin_mm": (3.5, -4.0, 5.0)}, "has another geometry than"),
        ({"origin_mm": (1e8, -4.0, 5.0)}, "has another geometry than"),
        ({"direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)}, "has another geometry than"),
    ],
)
def test_voxels_that_are_not_those_of_the_scan(tmp_path: Path, change: Any, message: str) -> None:
    place = {"spacing_mm": IMAGE.spacing_mm, "origin_mm": IMAGE.origin_mm, "direction": TURNED, **change}
    path = write_nrrd(tmp_path / "a.nrrd", Volume(IMAGE.path, MASK, **place), segments("liver", "tumour"))
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (segments("liver", "Segment_2"), "has the segment Segment_2, no known label: these are Liver, tumour"),
        (segments("liver", "LIVER"), "has two segments of one name, liver and LIVER"),
        (segments("liver", "tumour", Segment1_LabelValue="1"), "has two segments of one value and layer"),
        (segments("liver"), r"holds the value 2, which no segment has \(layer 0\)"),
        (segments("liver", "tumour", Segment1_LabelValue="-2"), "gives its segment 1 .* the value -2"),
        (segments("liver", "tumour", Segment1_LabelValue="0"), "the value 0"),
        (segments("liver", "tumour", Segment1_LabelValue="9" * 5000), "the value 9999"),
        (segments("liver", "tumour", Segment1_Layer="1"), "has its segment tumour in layer 1 of 1"),
        (segments("liver", "tumour", Segment1_Name=""), "gives its segment 1 the name none"),
        (
            segments("liver", "tumour", Segmentation_MasterRepresentation="Fractional labelmap"),
            "kept as a Fractional labelmap",
        ),
    ],
)  # fmt: skip
def test_segments_that_are_refused(tmp_path: Path, said: dict[str, str], message: str) -> None:
    path = write_nrrd(tmp_path / "a.seg.nrrd", cut(MASK, ALL), said)
    with pytest.raises(UserError, match=rf"a\.seg\.nrrd .*{message}"):
        read(path)


def test_segments_that_overlap(tmp_path: Path) -> None:
    layers = np.stack([MASK > 0, MASK == 2]).astype(np.uint8)
    said = {"Segment0_Name": "liver", "Segment1_Name": "tumour"}
    path = write_nrrd(tmp_path / "a.seg.nrrd", cut(MASK, ALL), said, layers=layers)
    overlap = np.count_nonzero(MASK == 2)
    with pytest.raises(
        UserError, match=rf"that overlap, liver and tumour \({overlap} voxels\)\. .*Overwrite"
    ):
        read(path)


def test_layers_without_names(tmp_path: Path) -> None:
    path = write_nrrd(tmp_path / "a.nrrd", cut(MASK, ALL), layers=np.stack([MASK, MASK]))
    with pytest.raises(UserError, match="is 4-D and names no segments"):
        read(path)


def test_masks_of_slicer_become_a_data_set(tmp_path: Path) -> None:
    """One is a part of the scan, one has its axes in another order, one is a label map."""
    source = tmp_path / "scans"
    for name in "abc":
        path = source / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_volume(path, Volume(path, np.arange(168).reshape(SHAPE), IMAGE.spacing_mm, IMAGE.origin_mm))
    straight = Volume(IMAGE.path, MASK, IMAGE.spacing_mm, IMAGE.origin_mm)
    part = Volume(IMAGE.path, MASK[1:, 1:, 2:], IMAGE.spacing_mm, (3 + 2 * 1.25, -4 + 1.5, 13.0))
    flipped = (*(-1.0, 0.0, 0.0), *(0.0, 1.0, 0.0), *(0.0, 0.0, 1.0))
    other = Volume(IMAGE.path, MASK[:, :, ::-1], IMAGE.spacing_mm, (3 + 6 * 1.25, -4.0, 5.0), flipped)
    write_nrrd(source / "a.seg.NRRD", part, segments("liver", "tumour"))
    write_nrrd(source / "b.seg.nrrd", other, segments("liver", "tumour"))
    write_nrrd(source / "c.seg.nrrd", straight)
    data = OwnData("Own", {"liver": 1, "tumour": 2}, ["MRI"])
    layout = Layout(("{patient}.nii.gz",), "{patient}.seg.nrrd")
    folder = prepare_own(source, tmp_path / "raw", 7, data, layout, workers=1)
    for name in "abc":
        mask = read_mask(folder / "labelsTr" / f"{name}.nii.gz", data.labels)
        np.testing.assert_array_equal(mask.array, MASK)
    assert [*read_notes(folder).values()] == [["b"]]


def test_a_segment_that_is_to_be_ignored(tmp_path: Path) -> None:
    source = tmp_path / "scans"
    source.mkdir()
    write_volume(source / "a.nii.gz", Volume(source, np.arange(168).reshape(SHAPE), IMAGE.spacing_mm))
    drawn = Volume(IMAGE.path, MASK, IMAGE.spacing_mm)
    write_nrrd(source / "a.seg.nrrd", drawn, segments("liver", "Ignore"))
    data = OwnData("Own", {"liver": 1, "ignore": 9}, ["MRI"])
    layout = Layout(("{patient}.nii.gz",), "{patient}.seg.nrrd")
    folder = prepare_own(source, tmp_path / "raw", 7, data, layout, workers=1)
    mask = read_mask(folder / "labelsTr" / "a.nii.gz", {"liver": 1}, 2)
    np.testing.assert_array_equal(mask.array, MASK)
