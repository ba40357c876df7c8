import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.parametrize("fold", [False, True])
def test_patients_whom_a_split_measures_are_counted(
    raw_folder: Path, monkeypatch: pytest.MonkeyPatch, fold: bool
) -> None:
    """A fold's own tests are of labelled patients; its split has others."""
    split = Patients(train=("p1",), validation=(), test=("p2",))
    own = Patients(train=(), validation=(), test=("p1",)) if fold else split
    fold_of = FoldOf(split="1" * 64, number=1, folds=2) if fold else None
    record = RunRecord.model_construct(patients=own, fold_of=fold_of)
    entries = [
        {"hash": "1" * 64, "patients": split.model_dump()},
        {"hash": "2" * 64, "patients": own.model_dump()},
    ]
    monkeypatch.setattr("ccdcseg.review.review.read_entries", lambda _: entries)
    monkeypatch.setattr(Network, "hash", "0" * 64)
    cases = read_cases(raw_folder)
    files = {}
    for case in cases:
        files[case.case] = [raw_folder / f"{case.case}.npz"]
        np.savez_compressed(files[case.case][0], probabilities=np.full((3, 4, 20, 24), 85, np.uint8))
    wanted = {case.case: [Network(Path("model/fold_0"), record, frozenset())] for case in cases}
    found = review(raw_folder, cases, wanted, files, {}, lambda *_: None)
    assert found.measured == sum(case.patient == "p2" for case in cases) > 0


def test_an_answer_belongs_to_a_mask(result: Review) -> None:
    answered = replace(result.cases[0], answer="wrong")
    assert ranking_rows(replace(result, cases=(answered,)))[1][-1] == "wrong"
