import json
from pathlib import Path

import pytest
from scored import MISSED, STORED, evaluation, scores

from ccdcseg.errors import UserError
from ccdcseg.measure.patients import WITH_MISSES
from ccdcseg.runs.evaluation import CaseScores, read_evaluation, seed_means, write_evaluation


def row(case: str, name: str, dice: float | None, distance: float | None = None, status: str = "ok"):
    fields = {"hd95_pooled_mm": distance} if status == "ok" else {"status": status}
    return scores(case, case[0], name, dice, **fields)


MEASURED = evaluation(
    [
        row("A1", "RV", 0.8, 2.0),
        row("A2", "RV", 0.6, 4.0),
        row("A1", "LV", 0.9, 1.0),
        row("A2", "LV", 0.9, 1.0),
        row("B1", "RV", 0.0, None, "missed"),
        row("B1", "LV", 0.5, 7.0),
        row("C1", "RV", None, None, "absent"),
        row("C1", "LV", None, None, "absent"),
    ]
)


def test_scans_are_averaged_within_a_patient():
    assert MEASURED.values("dice", "RV") == pytest.approx({"A": 0.7, "B": 0.0})


def test_the_mean_is_over_classes_then_patients():
    assert MEASURED.values("dice") == pytest.approx({"A": 0.8, "B": 0.25})


def test_undefined_distances_are_left_out():
    assert MEASURED.values("hd95_pooled_mm") == pytest.approx({"A": 2.0, "B": 7.0})


def test_a_missed_structure_costs_the_diagonal():
    assert MEASURED.values(WITH_MISSES, "RV") == pytest.approx({"A": 3.0, "B": 300.0})
    assert row("D1", "RV", 0.0, None, "spurious").value(WITH_MISSES) is None


def test_seeds_are_averaged_within_a_patient():
    other = evaluation([row("A1", "RV", 0.2, 2.0), row("A1", "LV", 0.2, 2.0)])
    assert seed_means([MEASURED, other], "dice") == pytest.approx({"A": 0.5, "B": 0.25})


def test_a_row_is_looked_at_as_often_with_many_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    looks: list[str] = []
    value = CaseScores.value
    monkeypatch.setattr(CaseScores, "value", lambda row, *rest: looks.append(row.case) or value(row, *rest))
    found = []
    for classes in (2, 16):
        looks.clear()
        made = evaluation(
            row(case, f"c{index}", 0.5, 1.0) for case in ("A1", "B1") for index in range(classes)
        )
        write_evaluation(made, tmp_path)
        assert read_evaluation(tmp_path / "evaluation.json") == made
        found.append(len(looks) / len(made.cases))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.append(rows[0]), "the scan patient.* has the classes RV, Myo, LV, RV"),
        (lambda rows: rows.pop(0), "the scan patient.* has the classes Myo, LV"),
        (lambda rows: [rows.pop(0) for _ in range(3)], "summary.RV.n_scans is 6, but .* give 5"),
        (lambda rows: rows[0].update({"class": "liver"}), "has the classes liver, Myo, LV"),
        (lambda rows: rows[0].update(patient="another"), "is of another and of patient"),
        (lambda rows: rows[0].update(dice=0.5), "summary.RV.dice is .* but the rows of cases give"),
        (lambda rows: rows[0].update(status="fine"), 'cases.0.status is "fine": it should be'),
        (lambda rows: rows[0].update(MISSED), "summary.RV.n_missing is 0, but the rows of cases give 1"),
        (lambda rows: rows[0].update(status="absent"), "dice is .* whose status is absent"),
        (lambda rows: rows[0].update(MISSED | {"dice": 0.1}), "dice is 0.1 .* whose status is missed"),
        (lambda rows: rows[0].update(hd_mm=None), "hd_mm is None .* whose status is ok"),
        (lambda rows: rows[0].update(diagonal_mm=-1), "cases.0.diagonal_mm is -1: it should be greater"),
    ],
)
def test_scores_that_nobody_measured(tmp_path: Path, change, words: str):
    content = json.loads((STORED / "evaluation.json").read_text())
    change(content["cases"])
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"evaluation\.json: .*{words}"):
        read_evaluation(tmp_path / "evaluation.json")


def test_the_command_that_makes_it_anew_knows_the_part(tmp_path: Path):
    folder = tmp_path / "my run" / "validation_patients"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text("{}")
    with pytest.raises(UserError, match=r"ccdcseg evaluate '.*my run' --part validation$"):
        read_evaluation(folder / "evaluation.json")
