from pathlib import Path

import numpy as np
import pytest

from ccdcseg.datasets.cases import Case
from ccdcseg.datasets.volumes import Volume, write_volume
from ccdcseg.proposals.features import (
    ScanFeatures,
    ScanFiles,
    distances,
    measure_scan,
    measure_scans,
    same_patient,
)


def noise(seed: int, shape: tuple[int, int, int] = (4, 20, 24)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 900, (4, 5, 6))
    return coarse.repeat(4, 1).repeat(4, 2)[: shape[0], : shape[1], : shape[2]].astype(np.int16)


def put(
    folder: Path, name: str, array: np.ndarray, spacing: tuple[float, ...] = (8.0, 1.5, 1.25)
) -> ScanFiles:
    path = folder / f"{name}_0000.nii.gz"
    write_volume(path, Volume(path, array, spacing))  # type: ignore[arg-type]
    return ScanFiles(Case(name, name, "", ""), (path,))


def test_what_is_measured(tmp_path: Path) -> None:
    array = noise(0)
    found = measure_scan(put(tmp_path, "a", array))
    assert (found.shape, found.spacing_mm) == ((4, 20, 24), (8.0, 1.5, 1.25))
    assert found.intensities == tuple(np.quantile(array, [0.05, 0.25, 0.5, 0.75, 0.95]))
    np.testing.assert_allclose(found.numbers[3:6], [32, 30, 30])
    assert np.isclose(np.linalg.norm(found.look), 1, atol=1e-3)


@pytest.mark.parametrize("axis", [1, 2])
def test_slices_come_first_however_they_are_stored(tmp_path: Path, axis: int) -> None:
    spacing = [1.5, 1.25]
    spacing.insert(axis, 8.0)
    found = measure_scan(put(tmp_path, "a", np.moveaxis(noise(0), 0, axis), tuple(spacing)))
    assert found == measure_scan(put(tmp_path, "b", noise(0)))
    assert found.axis.startswith(f"{'zyx'[axis]} of the file, not z (")


def test_a_constant_image(tmp_path: Path) -> None:
    scans = [measure_scan(put(tmp_path, name, np.full((3, 4, 5), 7, np.int16))) for name in "ab"]
    assert not any(scans[0].look)
    assert not same_patient([Case(name, name, "", "") for name in "ab"], scans)[0, 1]


def test_measurements_are_kept_by_folder_and_content(tmp_path: Path) -> None:
    scans = [put(tmp_path / "imagesTr", "a", noise(0)), put(tmp_path / "imagesTs", "a", noise(1))]
    first = measure_scans(scans, tmp_path / "cache", 1)
    assert first == [measure_scan(scan) for scan in scans] == measure_scans(scans, tmp_path / "cache", 1)
    put(tmp_path / "imagesTs", "a", noise(2, (3, 20, 24)))
    assert measure_scans(scans, tmp_path / "cache", 1)[1] == measure_scan(scans[1]) != first[1]


def test_scans_of_one_name_in_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    scans = [
        put(tmp_path / place / "imagesTr", "a", noise(seed)) for seed, place in enumerate(("here", "there"))
    ]
    for _ in range(2):
        assert measure_scans(scans, tmp_path / "cache", 1) == [measure_scan(scan) for scan in scans]


def test_near_duplicates(tmp_path: Path) -> None:
    """A patient's scans, a copy under another name, and a scan with some noise."""
    grain = np.random.default_rng(1).integers(0, 30, (4, 20, 24)).astype(np.int16)
    arrays = [noise(0), noise(1), noise(0), noise(0) + grain, noise(2)]
    patients = ["p", "p", "q", "r", "s"]
    features = [measure_scan(put(tmp_path, f"{n}", array)) for n, array in enumerate(arrays)]
    same = same_patient([Case(f"{n}", patient, "", "") for n, patient in enumerate(patients)], features)
    expected = np.eye(5, dtype=bool)
    for one, other in ((0, 1), (0, 2), (0, 3), (2, 3)):
        expected[one, other] = expected[other, one] = True
    np.testing.assert_array_equal(same, expected)


def test_distances_are_of_ranks() -> None:
    """An outlier is as far as the next scan, whatever its unit."""
    scans = [
        ScanFeatures((4, 20, 20), (step, 1.0, 1.0), (0.0, 1.0, 2.0, 3.0, 4.0), (), "z")
        for step in (1.0, 2.0, 900.0)
    ]
    apart = distances(scans)
    np.testing.assert_allclose(apart[0, 1], apart[1, 2])
    np.testing.assert_allclose(apart[0, 2], np.sqrt(2 / 3))
    np.testing.assert_allclose(apart, apart.T)
    assert distances(scans[:1]).tolist() == [[0.0]]


def test_rounded_sizes_are_equal() -> None:
    """Noise of headers plays no role, at no size; what differs by more is told apart."""
    steps = np.array([5.0, 1.40625, 0.703125, 5.0, 1.40625, 5.002])
    noise = 1 + np.random.default_rng(0).uniform(-2e-5, 2e-5, (2, 6))
    exact, rounded = (
        distances(
            [ScanFeatures((9, 256, 256), (step, same, 1.0), (0.0,) * 5, (), "z") for step, same in pairs]
        )
        for pairs in (
            zip(steps, np.full(6, 0.78125), strict=True),
            zip(steps * noise[0], 0.78125 * noise[1], strict=True),
        )
    )
    np.testing.assert_array_equal(rounded, exact)
    assert exact[0, 3] == 0 < exact[0, 5]
