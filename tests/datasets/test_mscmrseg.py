import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccdcseg.datasets.cases import Case, read_cases, read_labels
from ccdcseg.datasets.mscmrseg import prepare_mscmrseg
from ccdcseg.datasets.release import unlabelled_scans
from ccdcseg.datasets.sequences import CardiacSequence
from ccdcseg.datasets.splits import split_dataset
from ccdcseg.datasets.volumes import Volume, read_image, read_mask, write_volume
from ccdcseg.errors import UserError

SPACING_MM = (5.0, 0.75, 0.74)
LABELS = np.zeros((3, 8, 9), np.int16)
LABELS[:, 1, 1:3], LABELS[:, 2, 1:4], LABELS[:, 3, 1:5] = 1, 2, 3
CHALLENGE, LATER = (0, 600, 200, 500), (0, 1, 2, 3)
"""Values of background, RV, myocardium and LV."""


def pixels(number: int) -> np.ndarray:
    """Made-up pixels."""
    return np.random.default_rng(number).integers(0, 1500, LABELS.shape).astype(np.int16)


def write_scan(folder: Path, name: str, number: int) -> None:
    path = folder / f"{name}.nii.gz"
    write_volume(path, Volume(path, pixels(number), SPACING_MM, (10.0, -20.0, 5.0)))


def write_mask(folder: Path, name: str, values: tuple[int, ...], labels: np.ndarray = LABELS) -> Path:
    path = folder / f"{name}_manual.nii.gz"
    array = np.array(values, np.int16)[labels]
    write_volume(path, Volume(path, array, SPACING_MM, (10.0, -20.0, 5.0)))
    return path


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    """The challenge's release: images together, masks of each sequence apart, LGE masks of a few patients only."""
    root = tmp_path / "C0LET2_nii45_for_challenge19"
    for number in (1, 2, 10):
        for offset, suffix in enumerate(("LGE", "T2", "C0")):
            write_scan(root / "c0t2lge", f"patient{number}_{suffix}", 100 * offset + number)
            if (number, suffix) != (10, "LGE"):
                write_mask(root / f"{suffix.lower()}gt", f"patient{number}_{suffix}", CHALLENGE)
    return root


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The later release: parts with images and labels, scribbles where there is no full mask."""
    root = tmp_path / "mscmr"
    for part, number in (("train", 3), ("val", 7), ("test", 12)):
        write_scan(root / part / "images", f"subject{number}_DE", number)
        if part != "train":
            write_mask(root / part / "labels", f"subject{number}_DE", LATER)
    write_scan(root / "train" / "labels", "subject3_DE_scribble", 0)
    return root


@pytest.fixture
def raw_root(tmp_path: Path) -> Path:
    return tmp_path / "raw"


def refuse(source: Path, raw_root: Path, message: str, **kwargs: Any) -> None:
    """A UserError of one line that says ``message``, and nothing left behind."""
    raw_root.mkdir(exist_ok=True)
    before = sorted(raw_root.rglob("*"))
    with pytest.raises(UserError, match=message) as error:
        prepare_mscmrseg(source, raw_root, 30, **kwargs)
    assert "\n" not in str(error.value)
    assert sorted(raw_root.rglob("*")) == before


def test_the_challenges_release(challenge: Path, raw_root: Path) -> None:
    folder = prepare_mscmrseg(challenge, raw_root, 30)
    assert folder == raw_root / "Dataset030_MSCMRSeg_LGE"
    assert read_cases(folder) == [
        Case("patient01_lge", "patient01", "", "lge"),
        Case("patient02_lge", "patient02", "", "lge"),
    ]
    assert unlabelled_scans(folder) == ["patient10_lge"]
    description = json.loads((folder / "dataset.json").read_text())
    assert (description["numTraining"], description["channel_names"]) == (2, {"0": "MRI"})
    assert "Zhuang" in description["reference"]
    assert read_labels(folder) == {"RV": 1, "Myo": 2, "LV": 3}


def test_the_later_release(later: Path, raw_root: Path) -> None:
    folder = prepare_mscmrseg(later, raw_root, 30)
    assert [case.case for case in read_cases(folder)] == ["subject07_lge", "subject12_lge"]
    assert unlabelled_scans(folder) == ["subject03_lge"]


@pytest.mark.parametrize(
    ("name", "number", "place"), [("challenge", 1, "patient01"), ("later", 7, "subject07")]
)
def test_both_have_the_labels_of_acdc(
    request: pytest.FixtureRequest, raw_root: Path, name: str, number: int, place: str
) -> None:
    folder = prepare_mscmrseg(request.getfixturevalue(name), raw_root, 30)
    image = read_image(folder / "imagesTr" / f"{place}_lge_0000.nii.gz")
    mask = read_mask(folder / "labelsTr" / f"{place}_lge.nii.gz", read_labels(folder))
    np.testing.assert_array_equal(image.array, pixels(number))
    np.testing.assert_array_equal(mask.array, LABELS)
    for volume in (image, mask):
        assert volume.spacing_mm == pytest.approx(SPACING_MM)
        assert volume.origin_mm == pytest.approx((10, -20, 5))


def test_an_image_without_mask_is_kept_as_it_is(challenge: Path, raw_root: Path) -> None:
    folder = prepare_mscmrseg(challenge, raw_root, 30)
    image = read_image(folder / "imagesTs" / "patient10_lge_0000.nii.gz")
    np.testing.assert_array_equal(image.array, pixels(10))
    (entry,) = split_dataset(folder, [0.5], 0)
    assert sorted([*entry["train"], *entry["test"]]) == ["patient01_lge", "patient02_lge"]


@pytest.mark.parametrize(("sequence", "offset"), [(CardiacSequence.T2, 100), (CardiacSequence.BSSFP, 200)])
def test_other_sequences(challenge: Path, raw_root: Path, sequence: CardiacSequence, offset: int) -> None:
    folder = prepare_mscmrseg(challenge, raw_root, 30, sequence)
    assert folder.name == f"Dataset030_MSCMRSeg_{sequence.name}"
    assert [case.phase for case in read_cases(folder)] == [sequence.value] * 3
    image = read_image(folder / "imagesTr" / f"patient10_{sequence}_0000.nii.gz")
    np.testing.assert_array_equal(image.array, pixels(offset + 10))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            (0, 600, 200, 501),
            r"holds the values 200, 501, 600 besides the background 0, not 1 \(RV\), 2 \(Myo\)",
        ),
        ((0, 1, 2, 500), r"holds the values 1, 2, 500 .* or 600 \(RV\), 200 \(Myo\), 500 \(LV\) alone"),
        ((0, 1, 2, 4), r"holds the values 1, 2, 4 "),
        ((0, 0, 0, 0), r"is empty"),
    ],
)
def test_values_of_neither_release(
    challenge: Path, raw_root: Path, values: tuple[int, ...], message: str
) -> None:
    path = write_mask(challenge / "lgegt", "patient2_LGE", values)
    refuse(challenge, raw_root, rf"{path.name} {message}")


def test_a_mask_need_not_hold_all_classes(challenge: Path, raw_root: Path) -> None:
    write_mask(challenge / "lgegt", "patient2_LGE", (0, 0, 200, 0))
    folder = prepare_mscmrseg(challenge, raw_root, 30)
    mask = read_image(folder / "labelsTr" / "patient02_lge.nii.gz")
    np.testing.assert_array_equal(mask.array, 2 * (LABELS == 2))


def test_a_mask_of_another_shape(challenge: Path, raw_root: Path) -> None:
    path = write_mask(challenge / "lgegt", "patient2_LGE", CHALLENGE, LABELS[:, :-1])
    refuse(challenge, raw_root, rf"{path.name} has another shape")


def test_a_truncated_image(challenge: Path, raw_root: Path) -> None:
    path = challenge / "c0t2lge" / "patient10_LGE.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    refuse(challenge, raw_root, r"patient10_LGE\.nii\.gz is truncated or damaged")


def test_capitals_in_names_do_not_matter(challenge: Path, raw_root: Path) -> None:
    """Other disks and programs write them; the patient was left out."""
    for path in [*challenge.rglob("patient2_LGE*")]:
        path.rename(path.with_name(path.name.upper()))
    folder = prepare_mscmrseg(challenge, raw_root, 30)
    assert [case.case for case in read_cases(folder)] == ["patient01_lge", "patient02_lge"]


@pytest.mark.parametrize(
    "name", ["patient2_LGE (1).nii.gz", "patient2_LGE_manual (1).nii.gz", "patient2_lge-1.nii"]
)
def test_a_patient_of_another_name_is_not_left_out(challenge: Path, raw_root: Path, name: str) -> None:
    (challenge / name).touch()
    refuse(challenge, raw_root, rf"{re.escape(name)} is named nearly as a file of the release")


def test_a_mask_without_image(challenge: Path, raw_root: Path) -> None:
    (challenge / "c0t2lge" / "patient2_LGE.nii.gz").unlink()
    refuse(challenge, raw_root, r"patient2_LGE_manual\.nii\.gz is the mask of an image that is not there")


def test_an_image_twice(challenge: Path, raw_root: Path) -> None:
    write_scan(challenge / "again", "patient2_LGE", 2)
    refuse(challenge, raw_root, r"patient2_LGE\.nii\.gz and .*patient2_LGE\.nii\.gz are the same image")


def test_both_releases_at_once(challenge: Path, later: Path, raw_root: Path) -> None:
    refuse(later.parent, raw_root, r"holds both releases, patientN and subjectN")


def test_no_image_with_a_mask(later: Path, raw_root: Path) -> None:
    refuse(later / "nowhere", raw_root, r"nowhere is no folder")
    refuse(later / "train", raw_root, r"train holds no lge image with a mask.*patient1_LGE")
    refuse(later, raw_root, r"holds no t2 image with a mask", sequence=CardiacSequence.T2)


def test_an_id_that_is_taken(challenge: Path, raw_root: Path) -> None:
    (raw_root / "Dataset030_Other").mkdir(parents=True)
    refuse(challenge, raw_root, r"id 30 is taken by .*Dataset030_Other")


def test_the_command_line(
    challenge: Path, raw_root: Path, ccdcseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(raw_root))
    done = ccdcseg("prepare", "mscmrseg", challenge, "--dataset", 30)
    assert done.code == 0
    assert "No mask: patient10_lge" in done.out
    done = ccdcseg("prepare", "mscmrseg", challenge, "--dataset", 31, "--sequence", "bssfp")
    assert (done.code, "No mask" in done.out) == (0, False)
    write_mask(challenge / "lgegt", "patient2_LGE", (0, 9, 9, 9))
    failed = ccdcseg("prepare", "mscmrseg", challenge, "--dataset", 32)
    assert failed.code == 2
    assert "patient2_LGE_manual.nii.gz holds the values 9" in failed.err
    assert sorted(path.name for path in raw_root.iterdir()) == [
        "Dataset030_MSCMRSeg_LGE",
        "Dataset031_MSCMRSeg_BSSFP",
    ]
