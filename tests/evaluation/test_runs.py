import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import scored

from ccdcseg.datasets.splits import split_dataset
from ccdcseg.datasets.volumes import read_mask, write_volume
from ccdcseg.errors import UserError
from ccdcseg.evaluation.runs import evaluate_run
from ccdcseg.runs.evaluation import read_evaluation
from ccdcseg.runs.record import PLAIN_PREDICTIONS, PREDICTIONS, read_record


@pytest.fixture
def run(workspace, tmp_path: Path) -> Path:
    """A run whose predictions are the references themselves."""
    raw = workspace.raw
    split = json.loads((raw / "splits_final.json").read_text())[0]
    record = scored.record(split_hash=split["hash"], reference=str(raw / "labelsTr"))
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "predictions").mkdir()
    for case in split["test"]:
        shutil.copy(raw / "labelsTr" / f"{case}.nii.gz", tmp_path / "predictions")
    return tmp_path


def test_perfect_predictions_of_the_test_cases_alone(run: Path, workspace):
    result = evaluate_run(run, "test", 1, lambda *_: None)[PREDICTIONS]
    split = json.loads((workspace.raw / "splits_final.json").read_text())[0]
    assert {row.case for row in result.cases} == set(split["test"])
    assert result.summary["mean"].dice.value == 1
    assert read_evaluation(run / "evaluation.json") == result
    assert (run / "evaluation.csv").exists()


def test_a_missing_prediction_is_an_error(run: Path):
    next((run / "predictions").iterdir()).unlink()
    with pytest.raises(UserError, match="predict"):
        evaluate_run(run, "test", 1, lambda *_: None)
    assert not (run / "evaluation.json").exists()


def test_what_the_network_predicts_is_measured_beside_what_post_processing_keeps(run: Path):
    shutil.copytree(run / PREDICTIONS, run / PLAIN_PREDICTIONS)
    path = next((run / PLAIN_PREDICTIONS).iterdir())
    mask = read_mask(path, read_record(run).labels)
    island = mask.array.copy()
    island[0, 0, 0] = 1
    write_volume(path, dataclasses.replace(mask, array=island))
    seen: list[tuple[int, int]] = []
    result = evaluate_run(run, "test", 1, lambda *done: seen.append(done))
    count = len(list((run / PREDICTIONS).glob("*.nii.gz")))
    assert seen == [(done, 2 * count) for done in range(1, 2 * count + 1)]
    kept, plain = (result[name].summary["mean"].dice.value for name in (PREDICTIONS, PLAIN_PREDICTIONS))
    assert plain < kept == 1
    assert read_evaluation(run / "evaluation.json") == result[PREDICTIONS]
    assert read_evaluation(run / PLAIN_PREDICTIONS / "evaluation.json") == result[PLAIN_PREDICTIONS]


def test_patients_for_choosing_are_measured_apart(workspace, tmp_path: Path):
    raw, run = tmp_path / "raw", tmp_path / "run"
    shutil.copytree(workspace.raw, raw, ignore=shutil.ignore_patterns("splits_final.json", "imagesTr"))
    (entry,) = split_dataset(raw, [0.4], 0, test_patients=2)
    (run / "validation_patients" / "predictions").mkdir(parents=True)
    record = scored.record(split_hash=entry["hash"], reference=str(raw / "labelsTr"))
    (run / "run.json").write_text(json.dumps(record))
    for case in entry["val"]:
        shutil.copy(raw / "labelsTr" / f"{case}.nii.gz", run / "validation_patients" / "predictions")
    result = evaluate_run(run, "validation", 1, lambda *_: None)[PREDICTIONS]
    assert {row.case for row in result.cases} == set(entry["val"])
    assert read_evaluation(run / "validation_patients" / "evaluation.json") == result
    assert not (run / "evaluation.json").exists()


def test_no_patients_for_choosing(run: Path):
    with pytest.raises(UserError, match=r"has no patients for validation.*--test N"):
        evaluate_run(run, "validation", 1, lambda *_: None)


def test_a_run_of_a_split_that_was_drawn_anew(run: Path):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"split_hash": "0" * 64}))
    with pytest.raises(UserError, match=r"was trained on another split than fold 0 of .*splits_final\.json"):
        evaluate_run(run, "test", 1, lambda *_: None)
    assert not (run / "evaluation.json").exists()
