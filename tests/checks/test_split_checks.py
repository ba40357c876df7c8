import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccdcseg.checks.contents import read_contents
from ccdcseg.checks.findings import CheckSettings, Severity, Survey
from ccdcseg.checks.measure import measure_cases
from ccdcseg.checks.split_checks import split_findings
from ccdcseg.datasets.folds import add_folds
from ccdcseg.datasets.splits import split_dataset

GOOD = {"train": ["p1_ED", "p1_ES"], "val": ["p2_ED"], "test": ["p3_ED", "p3_ES"]}


@pytest.fixture
def find(raw_folder: Path, tmp_path: Path) -> Callable[..., list[tuple[tuple[str, ...], str]]]:
    """Cases and texts of the findings in some splits, or in those that lie in ``raw_folder``."""

    def run(splits: Any = None, severity: Severity = Severity.PROBLEM) -> list[tuple[tuple[str, ...], str]]:
        if splits is not None:
            (raw_folder / "splits_final.json").write_text(json.dumps(splits))
        contents = read_contents(raw_folder)
        facts = measure_cases(contents, tmp_path / "cache", 0.01, 1)
        found = list(split_findings(Survey(contents, facts, CheckSettings())))
        assert {one.severity for one in found} <= {severity}
        assert {one.check for one in found} <= {"split"}
        return [(one.cases, one.text) for one in found]

    return run


def test_no_splits_and_good_splits(find: Callable[..., object]) -> None:
    assert find() == []
    assert find([GOOD, {"train": ["p1_ED", "p1_ES"], "val": ["p2_ED", "p3_ED"]}]) == []


def test_our_own_splits(raw_folder: Path, find: Callable[..., object]) -> None:
    split_dataset(raw_folder, [0.34], 0)
    split_dataset(raw_folder, [0.34], 1, test_patients=1)
    assert find() == []


def test_folds_may_test_without_a_class(
    raw_folder: Path, find: Callable[..., object], change_volume: Callable[..., None]
) -> None:
    for case in ("p1_ED", "p1_ES"):
        change_volume(raw_folder / "labelsTr" / f"{case}.nii.gz", lambda array: array * (array == 1))
    split = split_dataset(raw_folder, [1.0], 0)[0]
    assert len(add_folds(raw_folder, split, 3)) == 3
    assert find() == []


def test_cases_that_are_gone(find: Callable[..., object]) -> None:
    assert find([GOOD, GOOD | {"val": ["p9_ED", "p8_ED", "p2_ED"]}]) == [
        (("p8_ED", "p9_ED"), "fold 1 names 2 cases that are not there")
    ]


@pytest.mark.parametrize(
    ("change", "cases", "parts"),
    [
        ({"train": ["p1_ED", "p3_ES"], "test": ["p3_ED"]}, ("p3_ES", "p3_ED"), "train and in test"),
        ({"val": ["p1_ES"], "train": ["p1_ED"]}, ("p1_ED", "p1_ES"), "train and in val"),
        ({"val": ["p3_ES", "p2_ED"], "test": ["p3_ES"]}, ("p3_ES",), "val and in test"),
    ],
)
def test_a_torn_patient(
    find: Callable[..., object], change: dict[str, list[str]], cases: tuple[str, ...], parts: str
) -> None:
    ((found, text),) = find([GOOD | change])
    assert found == cases
    assert text == f"fold 0 has patient {cases[0][:2]} both in {parts}"


def test_a_scan_without_mask_of_a_patient_who_is_tested(
    half_annotated: Path, find: Callable[..., Any]
) -> None:
    split = {"images": "imagesTs", "cases": ["q1_ED", "p1_ED"]}
    assert find([GOOD | {"unlabelled": split}]) == []
    table = half_annotated / "unlabelled.csv"
    table.write_text(table.read_text().replace("q1_ED,q1", "q1_ED,p3"))
    ((cases, text),) = find([GOOD | {"unlabelled": split}])
    assert (cases, text) == (("p3_ES", "q1_ED"), "fold 0 has patient p3 both in test and in unlabelled")
    ((_, text),) = find(
        [GOOD | {"train": ["p1_ED"], "unlabelled": {"images": "imagesTr", "cases": ["p2_ES"]}}]
    )
    assert text == "fold 0 has patient p2 both in val and in unlabelled"
    table.write_text("no table")
    assert find([GOOD | {"unlabelled": split}]) == []


def test_a_validation_that_repeats_the_training_stands_for_none(find: Callable[..., object]) -> None:
    assert find([GOOD | {"val": GOOD["train"]}]) == []


def test_unknown_patients_are_not_torn(raw_folder: Path, find: Callable[..., object]) -> None:
    (raw_folder / "cases.csv").unlink()
    assert find([GOOD | {"val": ["p1_ES"], "train": ["p1_ED"]}]) == []


def test_the_same_scan_in_two_parts(raw_folder: Path, find: Callable[..., object]) -> None:
    images = raw_folder / "imagesTr"
    shutil.copy(images / "p1_ES_0000.nii.gz", images / "p3_ED_0000.nii.gz")
    text = "fold 0 has the same scan in train and in test"
    assert find([GOOD]) == [(("p1_ES", "p3_ED"), text)]
    assert find([{"train": ["p1_ES", "p3_ED"], "val": ["p2_ED"]}]) == []
    table = raw_folder / "cases.csv"
    table.write_text(table.read_text().replace("p3,", "p1,"))
    assert [text for _, text in find([GOOD])] == ["fold 0 has patient p1 both in train and in test"]


def test_a_part_without_a_class(
    raw_folder: Path, find: Callable[..., object], change_volume: Callable[..., None]
) -> None:
    for case in GOOD["test"]:
        change_volume(raw_folder / "labelsTr" / f"{case}.nii.gz", lambda array: array * (array == 1))
    absent = "fold 0 has no voxel of LV in its {} cases (2)"
    assert find([GOOD], Severity.NOTE) == [((), absent.format("test"))]
    swapped = GOOD | {"train": GOOD["test"], "test": GOOD["train"]}
    assert find([swapped], Severity.PROBLEM) == [((), absent.format("train"))]


def test_a_class_that_nobody_has_is_not_the_splits_fault(
    find: Callable[..., object], raw_folder: Path, describe_dataset: Callable[..., None]
) -> None:
    describe_dataset(raw_folder, labels={"background": 0, "RV": 1, "LV": 2, "Myo": 3})
    assert find([GOOD]) == []


@pytest.mark.parametrize(
    "content",
    [
        [1],
        {"train": []},
        3,
        [{"train": ["p1_ED"]}],
        [{"train": 1, "val": 2}],
        None,
        [{"train": [0, 1], "val": [2]}],
        [{"train": ["p1_ED"], "val": [["p2_ED"]]}],
        [{**GOOD, "unlabelled": {}}],
        [{**GOOD, "unlabelled": 3}],
    ],
)
def test_what_is_no_list_of_splits(raw_folder: Path, find: Callable[..., object], content: Any) -> None:
    (raw_folder / "splits_final.json").write_text(json.dumps(content))
    ((cases, text),) = find()
    assert cases == ()
    assert "no list of splits" in text


def test_no_json(raw_folder: Path, find: Callable[..., object]) -> None:
    (raw_folder / "splits_final.json").write_text("[")
    assert "no list of splits" in find()[0][1]


def test_splits_that_this_user_may_not_read_are_not_to_be_moved_away(
    raw_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: str) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    contents = read_contents(raw_folder)
    (raw_folder / "splits_final.json").write_text(json.dumps([GOOD]))
    monkeypatch.setattr(Path, "read_text", refuse)
    (found,) = split_findings(Survey(contents, {}, CheckSettings()))
    assert (found.severity, found.cases) == (Severity.PROBLEM, ())
    assert found.text == "splits_final.json is forbidden to this user (Permission denied)"
    assert found.remedy.startswith("Change its rights")
