import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.checks.contents import read_contents
from ccdcseg.checks.findings import CheckSettings, Finding, Severity, Survey
from ccdcseg.checks.measure import measure_cases
from ccdcseg.checks.outliers import far_from_others, grid_findings, intensity_findings

Rule = Callable[[Survey], Iterable[Finding]]

values = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=20)


@pytest.fixture
def find(raw_folder: Path, tmp_path: Path) -> Callable[..., list[tuple[str, tuple[str, ...], str]]]:
    """Check, cases and text of what a rule finds in ``raw_folder`` as it is now."""

    def run(rule: Rule, **settings: float) -> list[tuple[str, tuple[str, ...], str]]:
        contents, thresholds = read_contents(raw_folder), CheckSettings(**settings)
        facts = measure_cases(contents, tmp_path / "cache", thresholds.speck_fraction, 1)
        found = list(rule(Survey(contents, facts, thresholds)))
        expected = {"constant image", "no Hounsfield units"}
        assert all((one.severity is Severity.PROBLEM) == (one.check in expected) for one in found)
        return [(one.check, one.cases, one.text) for one in found]

    return run


@given(values, st.floats(0.5, 10), st.floats(1e-3, 100))
def test_far_from_others_follows_its_formula(
    numbers: list[float], deviations: float, at_least: float
) -> None:
    middle = statistics.median(numbers)
    spread = statistics.median(abs(number - middle) for number in numbers)
    limit = max(deviations * 1.4826 * spread, at_least)
    far = far_from_others(np.array(numbers), deviations, at_least)
    for number, is_far in zip(numbers, far, strict=True):
        if abs(abs(number - middle) - limit) > 1e-6 * limit:
            assert is_far == (abs(number - middle) > limit)


@given(values, st.floats(0.5, 10))
def test_at_most_half_can_be_far(numbers: list[float], deviations: float) -> None:
    far = far_from_others(np.array(numbers), max(deviations, 1.0), 1e-3)
    assert far.sum() <= len(numbers) / 2


def test_columns_are_judged_apart() -> None:
    rows = np.array([[1.0, 5.0], [1.0, 5.0], [1.0, 5.0], [9.0, 5.0]])
    assert far_from_others(rows, 5, 1).tolist() == [[False, False]] * 3 + [[True, False]]


def test_a_clean_folder(find: Callable[..., object]) -> None:
    assert find(grid_findings) == []
    assert find(intensity_findings) == []


def test_a_spacing_far_from_the_others(
    raw_folder: Path, find: Callable[..., object], change_volume: Callable[..., None]
) -> None:
    for folder, ending in (("imagesTr", "_0000"), ("labelsTr", "")):
        change_volume(raw_folder / folder / f"p2_ED{ending}.nii.gz", spacing_mm=(8.0, 1.5, 3.0))
    found = find(grid_findings)
    assert found == [
        ("spacing outlier", ("p2_ED",), "8 x 1.5 x 3 mm (z, y, x); median of all cases 8 x 1.5 x 1.4 mm")
    ]
    assert find(grid_findings, size_factor=2.2) == []
    assert find(grid_findings, fewest_cases=7) == []


def test_a_shape_far_from_the_others(
    raw_folder: Path, find: Callable[..., object], change_volume: Callable[..., None]
) -> None:
    for folder, ending in (("imagesTr", "_0000"), ("labelsTr", "")):
        change_volume(
            raw_folder / folder / f"p3_ES{ending}.nii.gz", lambda array: np.concatenate([array, array, array])
        )
    assert find(grid_findings) == [
        ("shape outlier", ("p3_ES",), "12 x 20 x 24 (z, y, x); median of all cases 4 x 20 x 24")
    ]


def test_another_orientation(
    raw_folder: Path, find: Callable[..., object], change_volume: Callable[..., None]
) -> None:
    flipped = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    for folder, ending in (("imagesTr", "_0000"), ("labelsTr", "")):
        change_volume(raw_folder / folder / f"p1_ES{ending}.nii.gz", direction=flipped)
    assert find(grid_findings) == [("mixed orientation", ("p1_ES",), "axes RPS; LPS in 5 of 6 cases")]


def test_a_constant_image(
    raw_folder: Path, find: Callable[..., object], change_volume: Callable[..., None]
) -> None:
    change_volume(raw_folder / "imagesTr" / "p1_ED_0000.nii.gz", lambda array: array * 0 + 12)
    assert find(intensity_findings) == [("constant image", ("p1_ED",), "channel 0 (MRI): every voxel is 12")]


def test_clipped_intensities(
    raw_folder: Path, find: Callable[..., object], change_volume: Callable[..., None]
) -> None:
    def clip(array: np.ndarray) -> None:
        array.flat[:24] = 3000  # of 1920

    change_volume(raw_folder / "imagesTr" / "p1_ED_0000.nii.gz", clip)
    text = "channel 0 (MRI): 1.2 % of the voxels at the maximum, 3000"
    assert find(intensity_findings) == [("clipped intensities", ("p1_ED",), text)]
    assert find(intensity_findings, clipped_share=0.02) == []


def test_intensities_far_from_the_others(
    raw_folder: Path, find: Callable[..., object], change_volume: Callable[..., None]
) -> None:
    change_volume(
        raw_folder / "imagesTr" / "p2_ES_0000.nii.gz", lambda array: array.astype(np.float32) / 100 + 1
    )
    ((check, cases, text),) = find(intensity_findings)
    assert (check, cases) == ("intensity outlier", ("p2_ES",))
    assert "mean 1" in text
    assert "median of all cases 1" in text
    assert find(intensity_findings, fewest_cases=7) == []


def test_intensities_around_zero_are_compared_without_logarithms(
    raw_folder: Path, find: Callable[..., object], change_volume: Callable[..., None]
) -> None:
    for path in (raw_folder / "imagesTr").iterdir():
        change_volume(path, lambda array: (array.astype(np.float32) - 1500) / 1000)
    assert find(intensity_findings) == []
    change_volume(raw_folder / "imagesTr" / "p3_ED_0000.nii.gz", lambda array: array + 5)
    ((check, cases, _),) = find(intensity_findings)
    assert (check, cases) == ("intensity outlier", ("p3_ED",))


def test_values_of_a_ct(
    raw_folder: Path,
    find: Callable[..., object],
    change_volume: Callable[..., None],
    describe_dataset: Callable[..., None],
) -> None:
    describe_dataset(raw_folder, channel_names={"0": "ct"})
    for path in (raw_folder / "imagesTr").iterdir():
        change_volume(path, lambda array: array - 1024)
    assert find(intensity_findings) == []
    change_volume(raw_folder / "imagesTr" / "p1_ED_0000.nii.gz", lambda array: (array + 1024).clip(5, 2000))
    change_volume(raw_folder / "imagesTr" / "p1_ES_0000.nii.gz", lambda array: array / 4000)
    found = [
        (cases, text) for check, cases, text in find(intensity_findings) if check == "no Hounsfield units"
    ]
    assert [cases for cases, _ in found] == [("p1_ED",), ("p1_ES",)]
    assert found[0][1] == "channel 0 (ct): values from 5 to 2000"


def test_every_channel_is_looked_at(
    raw_folder: Path,
    find: Callable[..., object],
    change_volume: Callable[..., None],
    describe_dataset: Callable[..., None],
) -> None:
    describe_dataset(raw_folder, channel_names={"0": "T1", "1": "T2"})
    for path in list((raw_folder / "imagesTr").iterdir()):
        path.with_name(path.name.replace("_0000", "_0001")).write_bytes(path.read_bytes())
    change_volume(raw_folder / "imagesTr" / "p1_ED_0001.nii.gz", lambda array: array * 0)
    assert find(intensity_findings) == [("constant image", ("p1_ED",), "channel 1 (T2): every voxel is 0")]
