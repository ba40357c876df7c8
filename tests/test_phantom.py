import errno
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ccdcseg import phantom
from ccdcseg.datasets.acdc import LABELS, prepare_acdc
from ccdcseg.datasets.cases import read_cases
from ccdcseg.datasets.volumes import read_image, read_mask
from ccdcseg.errors import UserError
from ccdcseg.phantom import write_phantom

RV, MYO, LV = LABELS["RV"], LABELS["Myo"], LABELS["LV"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("phantom") / "release", patients=10, seed=0)


@pytest.fixture(scope="module")
def raw_folder(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_acdc(made, tmp_path_factory.mktemp("raw"), 900)


def frames(made: Path, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """ED image and mask, ES image and mask of a patient."""
    masks = sorted((made / "training" / f"patient{number:03d}").glob("*_gt.nii.gz"))
    pairs = [
        (read_image(path.with_name(path.name.replace("_gt", ""))).array, read_mask(path, LABELS).array)
        for path in masks
    ]
    return (*pairs[0], *pairs[1])


def lv_ml(made: Path, number: int) -> tuple[float, float]:
    """Volume of the LV at ED and ES."""
    masks = sorted((made / "training" / f"patient{number:03d}").glob("*_gt.nii.gz"))
    volumes = [read_mask(path, LABELS) for path in masks]
    ed, es = (np.count_nonzero(mask.array == LV) * np.prod(mask.spacing_mm) / 1000 for mask in volumes)
    return float(ed), float(es)


def test_it_is_read_as_a_release_of_acdc(raw_folder: Path) -> None:
    cases = read_cases(raw_folder)
    assert [case.group for case in cases if case.phase == "ED"] == ["NOR", "DCM", "HCM", "MINF", "RV"] * 2
    assert len(cases) == 20


def test_it_says_everywhere_that_it_is_synthetic(made: Path, raw_folder: Path) -> None:
    assert "synthetic phantom" in (made / "README.txt").read_text()
    for folder in (made / "training").iterdir():
        assert "Synthetic: phantom" in (folder / "Info.cfg").read_text()
        for path in folder.glob("*.nii.gz"):
            assert nibabel.load(path).header["descrip"].item() == b"synthetic phantom"
    description = json.loads((raw_folder / "dataset.json").read_text())
    assert raw_folder.name == "Dataset900_Phantom"
    assert description["synthetic"] is True
    assert "Synthetic" in description["description"]
    assert "Bernard" not in json.dumps(description)


def test_sizes_are_those_of_cine_mri(made: Path) -> None:
    spacings = set()
    for path in made.glob("training/*/*.nii.gz"):
        volume = read_image(path)
        slices, height, width = volume.array.shape
        slice_mm, row_mm, column_mm = volume.spacing_mm
        assert 6 <= slices <= 10
        assert 120 <= height == width <= 160
        assert 8 <= slice_mm <= 10
        assert 1.5 <= row_mm == column_mm <= 2
        spacings.add(round(row_mm, 3))
    assert len(spacings) >= 4


def test_the_heart_contracts(made: Path) -> None:
    for number in range(1, 11):
        ed, es = lv_ml(made, number)
        assert 40 < ed < 400
        assert 0.1 < es / ed < 0.95


def test_the_groups_differ_as_their_diseases_do(made: Path) -> None:
    def mean(first: int) -> tuple[float, float]:
        (ed_1, es_1), (ed_2, es_2) = lv_ml(made, first), lv_ml(made, first + 5)
        return ed_1 + ed_2, (es_1 / ed_1 + es_2 / ed_2) / 2

    normal, dilated, thick = mean(1), mean(2), mean(3)
    assert dilated[0] > 1.4 * normal[0]
    assert dilated[1] > normal[1] > thick[1]

    def ratio(number: int, first: int, second: int) -> float:
        mask = frames(made, number)[1]
        return np.count_nonzero(mask == first) / np.count_nonzero(mask == second)

    assert ratio(3, MYO, LV) > 1.3 * ratio(1, MYO, LV)
    assert ratio(5, RV, LV) > 1.3 * ratio(1, RV, LV)


def test_the_rv_vanishes_towards_the_apex(made: Path) -> None:
    for number in range(1, 11):
        mask = frames(made, number)[1]
        areas = np.array([[np.count_nonzero(part == label) for label in (RV, MYO)] for part in mask])
        last = np.flatnonzero(areas[:, 1]).max()
        assert areas[last, 0] < 0.3 * areas[:, 0].max()


def test_the_lv_lies_within_the_myocardium(made: Path) -> None:
    for number in range(1, 11):
        mask = frames(made, number)[1]
        beyond = np.zeros(mask.shape, bool)
        for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
            beyond |= np.roll(mask == LV, step, axis)
        assert not np.isin(mask[beyond], [0, RV]).any()


def test_tissues_overlap_in_intensity(made: Path) -> None:
    """Papillary muscles, partial volume and noise: no threshold gives the reference."""
    for number in range(1, 11):
        image, mask, _, _ = frames(made, number)
        blood, muscle, around = image[mask == LV], image[mask == MYO], image[mask == 0]
        assert np.median(blood) > 1.3 * np.median(muscle)
        assert np.quantile(blood, 0.03) < np.quantile(muscle, 0.9)
        assert np.mean(around > np.median(muscle)) > 0.1


def test_a_seed_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_phantom(tmp_path / name, 1, seed)
    contents = {
        name: [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.nii.gz"))] for name in "abc"
    }
    assert contents["a"] == contents["b"]
    assert contents["a"][0] != contents["c"][0]


def test_a_patient_does_not_depend_on_how_many_there_are(made: Path, tmp_path: Path) -> None:
    few = write_phantom(tmp_path / "few", 2, 0)
    for path in (few / "training").rglob("*.*"):
        assert path.read_bytes() == (made / path.relative_to(few)).read_bytes()


def test_progress(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    write_phantom(tmp_path / "release", 2, 0, 60.0, lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]


@pytest.mark.parametrize(("patients", "seed"), [(0, 0), (1000, 0), (3, -1)])
def test_numbers_out_of_range(tmp_path: Path, patients: int, seed: int) -> None:
    with pytest.raises(UserError, match=rf"{patients} patients with seed {seed} cannot be made.*1 to 999"):
        write_phantom(tmp_path / "release", patients, seed)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        write_phantom(tmp_path, 1, 0)


def test_a_full_disk_or_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(phantom, "write_volume", fail)
    failure: BaseException = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        write_phantom(tmp_path / "release", 1, 0, 60.0)
    failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "release", 1, 0, 60.0)
    assert list(tmp_path.iterdir()) == []
