import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alive import Alive
from ccdcseg.datasets.cases import read_cases
from ccdcseg.errors import UserError
from ccdcseg.review.measure import Opinions, measure
from ccdcseg.review.networks import Network
from ccdcseg.review.review import (
    Review,
    Reviewed,
    check_labels,
    mask_files,
    rank,
    ranking_file,
    ranking_rows,
    read_opinions,
    review,
    write_review,
)
from ccdcseg.runs.record import FoldOf, Patients, RunRecord


def reviewed(case: str, moved: int, name: str = "RV") -> Reviewed:
    labels = np.zeros((4, 20, 20), np.int16)
    labels[1:3, 4:12, 4:12] = 1
    probabilities = np.where(np.arange(2)[:, None, None, None] == np.roll(labels, moved, 1), 0.95, 0.05)
    return Reviewed(
        case, case, ("n",), "0" * 64, measure(Opinions.of(labels, probabilities, (8, 1, 1), (name,)))
    )


@pytest.fixture
def result() -> Review:
    return Review(
        "D", {"RV": 1}, {"n": "1" * 64}, *rank([reviewed("a", 0), reviewed("b", 3), reviewed("c", 1)])
    )


def test_the_list_begins_with_the_strongest_suspicion(result: Review) -> None:
    assert {one.case for one in result.cases[:2]} == {"b", "c"}
    assert result.cases[2].score == 0
    scores = [one.score for one in result.cases]
    assert scores == sorted(scores, reverse=True)
    assert result.suspicious == sum(score >= 1 for score in scores) == 2
    assert result.cases[0].class_score("RV") == scores[0]


def test_ranking_and_record_are_written_whole(result: Review, tmp_path: Path) -> None:
    write_review(result, tmp_path / "review.json")
    content = json.loads((tmp_path / "review.json").read_text())
    assert content["format"] == "ccdcseg-review/2"
    assert content["networks"] == {"n": "1" * 64}
    assert content["versions"].keys() >= {"ccdcseg", "torch", "nnunetv2"}
    assert [case["mask"] for case in content["cases"]] == ["0" * 64] * 3
    rows = [*csv.DictReader(io.StringIO(ranking_file(tmp_path / "review.json").read_text()))]
    assert [row["case"] for row in rows] == [one.case for one in result.cases]
    assert rows[0]["sentence"] == result.cases[0].suspicions[0].sentence
    assert rows[2]["suspicion"] == ""


def test_the_ranking_has_a_row_for_each_class_in_the_order_of_their_scores(result: Review) -> None:
    scores = [row[3] for row in ranking_rows(result)[1:]]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]


def test_a_class_may_be_called_foreground(result: Review) -> None:
    normal, cases = rank(
        [reviewed(case, moved, "foreground") for case, moved in (("a", 0), ("b", 3), ("c", 1))]
    )
    named = ranking_rows(replace(result, labels={"foreground": 1}, normal=normal, cases=cases))
    rows = [[str(value).replace("foreground", "RV") for value in row] for row in named]
    assert rows == [[str(value) for value in row] for row in ranking_rows(result)]


def test_a_missing_mask_is_named(raw_folder: Path) -> None:
    cases = read_cases(raw_folder)
    assert mask_files(raw_folder, cases).keys() == {case.case for case in cases}
    (raw_folder / "labelsTr" / "p2_ES.nii.gz").unlink()
    with pytest.raises(UserError, match=r"p2_ES.nii.gz does not exist"):
        mask_files(raw_folder, cases)


def test_labels_with_gaps_are_refused(raw_folder: Path, describe_dataset: Callable[..., None]) -> None:
    assert [*check_labels(raw_folder)] == ["RV", "LV"]
    describe_dataset(raw_folder, labels={"background": 0, "RV": 1, "LV": 4})
    with pytest.raises(UserError, match="the labels are 0, 1, 4"):
        check_labels(raw_folder)


def test_a_mask_on_other_voxels_than_its_scan_is_refused(raw_folder: Path, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "p.npz", probabilities=np.zeros((3, 4, 20, 23), np.uint8))
    with pytest.raises(UserError, match=r"another shape \(z, y, x\) than its scan"):
        read_opinions(raw_folder, raw_folder / "labelsTr" / "p1_ED.nii.gz", [tmp_path / "p.npz"])


SPLIT = {"train": ["p1"], "validation": [], "test": ["p2"]}
OWN = {"train": [], "validation": [], "test": ["p1"]}


def entries(split: str) -> list[dict[str, object]]:
    """Of a split, and of a fold of another one."""
    fold_of = {"split": "1" * 64, "number": 1, "folds": 2}
    return [{"hash": split, "patients": SPLIT}, {"hash": "2" * 64, "patients": OWN, "fold_of": fold_of}]


def reviewed_by(raw_folder: Path, record: RunRecord) -> Review:
    """All masks, held against the network of a run."""
    cases = read_cases(raw_folder)
    files = {case.case: [raw_folder / f"{case.case}.npz"] for case in cases}
    for (file,) in files.values():
        np.savez_compressed(file, probabilities=np.full((3, 4, 20, 24), 85, np.uint8))
    wanted = {case.case: [Network(Path("model/fold_0"), record, frozenset())] for case in cases}
    return review(raw_folder, cases, wanted, files, {}, lambda *_: None)


@pytest.mark.parametrize(
    ("fold", "split"), [(False, "1"), (True, "1"), (True, "3")], ids=["run", "fold", "redrawn"]
)
def test_patients_whom_a_split_measures_are_counted(
    raw_folder: Path, monkeypatch: pytest.MonkeyPatch, fold: bool, split: str
) -> None:
    """A fold's own tests are of labelled patients; its split, or the one drawn since, has others."""
    fold_of = FoldOf(split="1" * 64, number=1, folds=2) if fold else None
    patients = Patients.model_validate(OWN if fold else SPLIT)
    record = RunRecord.model_construct(patients=patients, fold_of=fold_of)
    monkeypatch.setattr("ccdcseg.review.review.read_entries", lambda _: entries(split * 64))
    monkeypatch.setattr(Network, "hash", "0" * 64)
    found = reviewed_by(raw_folder, record)
    assert found.measured == sum(one.patient == "p2" for one in found.cases) > 0


def test_what_networks_say_is_held_of_one_scan_at_a_time(
    raw_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = Alive()
    monkeypatch.setattr("ccdcseg.review.review.read_opinions", lambda *of: alive.watch(read_opinions(*of)))
    monkeypatch.setattr(Network, "hash", "0" * 64)
    record = RunRecord.model_construct(patients=Patients.model_validate(SPLIT), fold_of=None)
    assert len(reviewed_by(raw_folder, record).cases) == 6
    assert alive.most == 1


@pytest.mark.parametrize("theirs", [None, '[{"train": ["p1_ED"], "val": []}]', "["])
def test_without_a_list_of_splits_of_ours_a_fold_s_network_reviews_too(
    raw_folder: Path, monkeypatch: pytest.MonkeyPatch, theirs: str | None
) -> None:
    if theirs:
        (raw_folder / "splits_final.json").write_text(theirs)
    fold_of = FoldOf(split="1" * 64, number=1, folds=2)
    record = RunRecord.model_construct(patients=Patients.model_validate(OWN), fold_of=fold_of)
    monkeypatch.setattr(Network, "hash", "0" * 64)
    found = reviewed_by(raw_folder, record)
    assert found.cases
    assert found.measured == 0


def test_an_answer_belongs_to_a_mask(result: Review) -> None:
    answered = replace(result.cases[0], answer="wrong")
    assert ranking_rows(replace(result, cases=(answered,)))[1][-1] == "wrong"
