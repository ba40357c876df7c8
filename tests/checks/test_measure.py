import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ccdcseg.checks.contents import CaseFiles, read_contents
from ccdcseg.checks.measure import CaseFacts, FaultKind, measure_case, measure_cases
from ccdcseg.datasets.volumes import Volume, read_image, write_volume

LABELS = {"RV": 1, "LV": 2}
AXIS_TO_FEET = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


@pytest.fixture
def measure(tmp_path: Path) -> Callable[..., CaseFacts]:
    """Write image and mask, and measure them."""

    def run(image: np.ndarray, mask: np.ndarray, ignore: int | None = None, **fields: object) -> CaseFacts:
        paths = [tmp_path / "a_0000.nii.gz", tmp_path / "a.nii.gz"]
        for path, array in zip(paths, (image, mask), strict=True):
            write_volume(path, Volume(path, array, **{"spacing_mm": (5.0, 1.0, 1.0), **fields}))
        return measure_case(CaseFiles("a", {0: paths[0]}, paths[1]), LABELS, ignore, 0.1)

    return run


def a_case() -> tuple[np.ndarray, np.ndarray]:
    image = np.arange(4 * 10 * 12, dtype=np.int16).reshape(4, 10, 12)
    mask = np.zeros(image.shape, np.uint8)
    mask[1:3, 2:8, 2:8] = 1
    return image, mask


def test_intensities(measure: Callable[..., CaseFacts]) -> None:
    image, mask = a_case()
    image[0, :, 0] = 600
    channel = measure(image, mask).channels[0]
    assert (channel.minimum, channel.maximum) == (1, 600)
    assert channel.mean == pytest.approx(image.mean())
    assert [channel.p1, channel.median, channel.p99] == pytest.approx(np.percentile(image, (1, 50, 99)))
    assert channel.share_at_maximum == 10 / image.size


def test_what_was_wrong_with_a_file_is_measured_again(raw_folder: Path, tmp_path: Path) -> None:
    """Rights that are given back change neither its size nor its time."""
    contents = read_contents(raw_folder)
    files = next(iter(contents.files.values()))
    content = files.images[0].read_bytes()
    times = files.images[0].stat()
    for damaged in (True, False):
        files.images[0].write_bytes(b"\0" * len(content) if damaged else content)
        os.utime(files.images[0], ns=(times.st_atime_ns, times.st_mtime_ns))
        assert bool(measure_cases(contents, tmp_path / "cache", 0.1, 1)[files.case].faults) == damaged


def test_the_grid(measure: Callable[..., CaseFacts]) -> None:
    facts = measure(*a_case(), spacing_mm=(5.0, 1.25, 1.5), direction=AXIS_TO_FEET)
    assert facts.grid == facts.mask.grid
    assert facts.grid.shape == (4, 10, 12)
    assert facts.grid.spacing_mm == pytest.approx((5.0, 1.25, 1.5))
    assert facts.grid.axes == "LPI"


def test_equal_voxels_have_equal_hashes_whatever_their_type(measure: Callable[..., CaseFacts]) -> None:
    image, mask = a_case()
    hashes = {measure(image.astype(kind), mask).channels[0].voxels_hash for kind in ("int16", "float64")}
    changed = image.copy()
    changed[0, 0, 0] += 1
    turned = image.reshape(4, 12, 10), mask.reshape(4, 12, 10)
    assert len(hashes) == 1
    assert measure(changed, mask).channels[0].voxels_hash not in hashes
    assert measure(*turned).channels[0].voxels_hash not in hashes


def test_tiny_components_are_counted(measure: Callable[..., CaseFacts]) -> None:
    image, mask = a_case()
    mask[0, 0, 11], mask[3, 9, 10:12] = 1, 1  # 1 and 2 voxels, the largest has 72
    mask[0, 9, 0], mask[1, 8, 1] = 2, 2  # one component, joined by a corner
    facts = measure(image, mask).mask
    assert facts.voxels == {1: 75, 2: 2}
    assert [*facts.specks] == [1]
    assert (facts.specks[1].count, facts.specks[1].voxels, facts.specks[1].largest) == (2, 3, 72)


def test_a_component_just_large_enough_is_not_tiny(measure: Callable[..., CaseFacts]) -> None:
    image, mask = a_case()
    mask[0, 0, :8] = 1  # more than a tenth of 72
    assert measure(image, mask).mask.specks == {}


def test_voxels_at_the_border_of_the_slices(measure: Callable[..., CaseFacts]) -> None:
    image, mask = a_case()
    mask[:, 0, 0], mask[0, 4, 11], mask[0, 5, 5] = 2, 2, 2
    assert measure(image, mask).mask.at_border == {2: 5}


def test_slices_lie_across_the_largest_spacing(measure: Callable[..., CaseFacts]) -> None:
    image, mask = a_case()
    mask[1, 9, 5] = 2  # the last row of axial slices, the last slice of coronal ones
    assert measure(image, mask).mask.at_border == {2: 1}
    assert measure(image, mask, spacing_mm=(1.0, 5.0, 1.0)).mask.at_border == {}


def test_a_mask_of_some_slices(measure: Callable[..., CaseFacts]) -> None:
    """Nobody knows which of its pieces belong together."""
    image, mask = a_case()
    mask[0, 0, 0] = 1
    assert measure(image, mask).mask.specks
    mask[1:3] = 7
    facts = measure(image, mask, ignore=7)
    assert (facts.mask.specks, facts.mask.annotated_slices) == ({}, len(mask) - 2)


def test_ignored_voxels_are_of_no_class(measure: Callable[..., CaseFacts]) -> None:
    image, mask = a_case()
    mask[0, 0, :3] = 7
    facts = measure(image, mask, ignore=7)
    assert (facts.faults, facts.mask.voxels, facts.mask.ignored) == ((), {1: 72}, 3)
    assert facts.mask.at_border == {}


@pytest.mark.parametrize("values", [[7], [0.5]])
def test_unknown_and_broken_labels_are_a_fault(
    measure: Callable[..., CaseFacts], values: list[float]
) -> None:
    image, mask = a_case()
    mask = mask.astype(np.float32)
    mask[0, 0, 0] = values[0]
    facts = measure(image, mask)
    assert facts.mask is None
    assert [fault.kind for fault in facts.faults] == [FaultKind.MASK]
    assert f"holds {values[0]:g}" in facts.faults[0].problem


def test_an_image_that_cannot_be_read_is_a_fault(raw_folder: Path) -> None:
    files = read_contents(raw_folder).files["p1_ED"]
    files.images[0].write_bytes(files.images[0].read_bytes()[:100])
    facts = measure_case(files, LABELS, None, 0.1)
    assert facts.channels == {}
    assert facts.grid == facts.mask.grid
    assert [fault.kind for fault in facts.faults] == [FaultKind.IMAGE]


def test_every_channel_must_lie_on_the_same_voxels(
    raw_folder: Path, change_volume: Callable[..., None]
) -> None:
    first = raw_folder / "imagesTr" / "p1_ED_0000.nii.gz"
    second = first.with_name("p1_ED_0001.nii.gz")
    second.write_bytes(first.read_bytes())
    change_volume(second, origin_mm=(1.0, 0.0, 0.0))
    facts = measure_case(read_contents(raw_folder).files["p1_ED"], LABELS, None, 0.1)
    assert sorted(facts.channels) == [0, 1]
    assert [fault.kind for fault in facts.faults] == [FaultKind.GEOMETRY]
    assert "p1_ED_0001" in facts.faults[0].problem


def test_measured_cases_are_not_measured_again(
    raw_folder: Path, tmp_path: Path, change_volume: Callable[..., None]
) -> None:
    def run(fraction: float = 0.1) -> tuple[dict[str, CaseFacts], list[int]]:
        seen: list[int] = []
        contents = read_contents(raw_folder)
        facts = measure_cases(contents, tmp_path / "cache", fraction, 1, lambda _, total: seen.append(total))
        return facts, seen

    first, seen = run()
    assert list(first) == list(read_contents(raw_folder).files)
    assert seen == [6] * 6
    assert run() == (first, [])
    (tmp_path / "cache" / "p1_ED.json").write_text("damaged")
    change_volume(raw_folder / "labelsTr" / "p2_ED.nii.gz", lambda array: array * 0)
    again, seen = run()
    assert seen == [2, 2]
    assert again["p1_ED"] == first["p1_ED"]
    assert (again["p2_ED"].mask.voxels, first["p2_ED"].mask.voxels) == ({}, {1: 128, 2: 32})
    assert run(fraction=0.2)[1] == [6] * 6


def test_processes_measure_the_same(raw_folder: Path, tmp_path: Path) -> None:
    contents = read_contents(raw_folder)
    assert measure_cases(contents, tmp_path / "a", 0.1, 2) == measure_cases(contents, tmp_path / "b", 0.1, 1)


def test_the_scan_itself_is_left_alone(raw_folder: Path, tmp_path: Path) -> None:
    before = read_image(raw_folder / "imagesTr" / "p1_ED_0000.nii.gz").array
    measure_cases(read_contents(raw_folder), tmp_path / "cache", 0.1, 1)
    assert (read_image(raw_folder / "imagesTr" / "p1_ED_0000.nii.gz").array == before).all()
    assert {path.name for path in raw_folder.iterdir()} == {
        "imagesTr",
        "labelsTr",
        "dataset.json",
        "cases.csv",
    }
