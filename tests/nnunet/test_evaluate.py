import dataclasses
import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scored

import ccdcseg
from ccdcseg.datasets.splits import split_dataset
from ccdcseg.datasets.volumes import read_mask, write_volume
from ccdcseg.errors import UserError
from ccdcseg.nnunet.evaluate import evaluate_run
from ccdcseg.runs.evaluation import Evaluation, read_current, read_evaluation
from ccdcseg.runs.record import PLAIN_PREDICTIONS, PREDICTIONS, read_record, write_record
from kills import killed_before, moments

RAW = "Dataset901_Phantom"


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
    with pytest.raises(UserError, match=r"was trained on another split: .*splits_final\.json was drawn anew"):
        evaluate_run(run, "test", 1, lambda *_: None)
    assert not (run / "evaluation.json").exists()


def evaluated(run: Path) -> list[tuple[int, int]]:
    """Evaluate; what was reported of the cases that were measured."""
    seen: list[tuple[int, int]] = []
    evaluate_run(run, "test", 1, lambda *done: seen.append(done))
    return seen


@pytest.fixture
def own_scans(run: Path, workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run with a raw folder of its own, without images, in ``nnUNet_raw``."""
    raw = shutil.copytree(workspace.raw, run / RAW, ignore=shutil.ignore_patterns("imagesTr"))
    monkeypatch.setenv("nnUNet_raw", str(run))
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"reference": str(raw / "labelsTr")}))
    return run


def test_what_was_measured_is_written_down_and_not_measured_twice(run: Path, workspace):
    split = json.loads((workspace.raw / "splits_final.json").read_text())[0]
    assert len(evaluated(run)) == len(split["test"])
    measured = json.loads((run / "evaluation.json").read_text())["measured"]
    for name, folder in (("references", workspace.raw / "labelsTr"), ("predictions", run / "predictions")):
        expected = {c: sha256((folder / f"{c}.nii.gz").read_bytes()).hexdigest() for c in split["test"]}
        assert measured[name] == expected
    assert (measured["version"], measured["split"]) == (ccdcseg.__version__, split["hash"])
    before = (run / "evaluation.json").read_bytes()
    assert evaluated(run) == []
    assert (run / "evaluation.json").read_bytes() == before


CHANGES = {
    "prediction": lambda run: shift(next((run / "predictions").iterdir())),
    "reference": lambda run: shift(run / RAW / "labelsTr" / next((run / "predictions").iterdir()).name),
    "patients": lambda run: edit(run / RAW / "cases.csv", "patient002,", "patient009,"),
    "version": lambda run: edit(run / "evaluation.json", '"version": "', '"version": "0.'),
    "rule": lambda run: edit(run / "evaluation.json", '"rule": 2', '"rule": 1'),
    "damaged": lambda run: (run / "evaluation.json").write_text("{"),
    "earlier version": lambda run: edit(run / "evaluation.json", '"measured"', '"unknown"'),
}


def shift(path: Path) -> None:
    mask = read_mask(path, {"RV": 1, "Myo": 2, "LV": 3})
    write_volume(path, dataclasses.replace(mask, array=np.roll(mask.array, 3, axis=2)))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_measured_again(own_scans: Path, change: str):
    evaluated(own_scans)
    before = (own_scans / "evaluation.json").read_bytes()
    CHANGES[change](own_scans)
    assert evaluated(own_scans) != []
    after = (own_scans / "evaluation.json").read_bytes()
    assert (after != before) == (change in ("prediction", "reference", "patients"))
    assert evaluated(own_scans) == []


@pytest.mark.parametrize("step", moments(12))
def test_whenever_it_is_killed(run: Path, tmp_path: Path, step: int):
    """An evaluation of other predictions is there; it stays until the new one is whole."""
    shutil.copytree(run / PREDICTIONS, run / PLAIN_PREDICTIONS)
    files = [run / name / "evaluation.json" for name in (".", PLAIN_PREDICTIONS)]
    evaluated(run)
    old = [file.read_bytes() for file in files]
    for name in (PREDICTIONS, PLAIN_PREDICTIONS):
        shift(next((run / name).glob("*.nii.gz")))
    killed_before(step, lambda: evaluated(run), tmp_path)
    left = [file.read_bytes() for file in files]
    evaluated(run)
    for before, found, after in zip(old, left, [file.read_bytes() for file in files], strict=True):
        assert before != after
        assert found in (before, after)


def shown(run: Path) -> Evaluation | None:
    """What `report`, `compare` and tables see."""
    return read_current(run, "test", PREDICTIONS, read_record(run))


@pytest.mark.parametrize("change", ["prediction", "reference", "patients"])
def test_an_evaluation_of_other_files_is_not_shown(own_scans: Path, change: str):
    words = {"patients": "cases.csv has another patient for patient002"}.get(change, "was changed since")
    evaluated(own_scans)
    assert shown(own_scans) is not None
    CHANGES[change](own_scans)
    with pytest.raises(UserError, match=rf"evaluation\.json is out of date: .*{words}.*ccdcseg evaluate "):
        shown(own_scans)
    evaluated(own_scans)
    assert shown(own_scans) is not None


def test_an_evaluation_of_a_patient_who_withdrew_is_not_shown(own_scans: Path):
    evaluated(own_scans)
    case = next((own_scans / PREDICTIONS).iterdir()).name.removesuffix(".nii.gz")
    table = own_scans / RAW / "cases.csv"
    rows = [row for row in table.read_text().splitlines(True) if not row.startswith(f"{case},")]
    table.write_text("".join(rows))
    (own_scans / RAW / "labelsTr" / f"{case}.nii.gz").unlink()
    for look in (shown, evaluated):
        with pytest.raises(
            UserError, match=rf"cases\.csv has no {case}, .*train on it: ccdcseg split .* --redraw"
        ):
            look(own_scans)
    (own_scans / RAW / "splits_final.json").unlink()
    with pytest.raises(UserError, match=rf"out of date: .*cases\.csv has no {case}\."):
        shown(own_scans)
    table.unlink()
    assert shown(own_scans) is not None


def test_distances_of_single_slices_by_an_earlier_rule_are_not_shown(own_scans: Path):
    evaluated(own_scans)
    CHANGES["rule"](own_scans)
    assert shown(own_scans) is not None
    name = next((own_scans / PREDICTIONS).iterdir()).name
    for path in (own_scans / PREDICTIONS / name, own_scans / RAW / "labelsTr" / name):
        mask = read_mask(path, {"RV": 1, "Myo": 2, "LV": 3})
        write_volume(path, dataclasses.replace(mask, array=mask.array[:1]))
    evaluated(own_scans)
    assert shown(own_scans) is not None
    CHANGES["rule"](own_scans)
    with pytest.raises(UserError, match=rf"out of date: distances within a single slice, such as .*{name}"):
        shown(own_scans)


def test_an_evaluation_of_another_split_is_not_shown(own_scans: Path):
    evaluated(own_scans)
    (entry,) = json.loads((own_scans / RAW / "splits_final.json").read_text())
    edit(own_scans / "evaluation.json", entry["hash"], "0" * 64)
    with pytest.raises(UserError, match=r"out of date: run\.json has another split"):
        shown(own_scans)
    (own_scans / RAW / "splits_final.json").write_text("[]")
    with pytest.raises(UserError, match="was trained on another split"):
        shown(own_scans)


def test_an_evaluation_of_other_scans_of_the_patients_is_not_shown(own_scans: Path, scan_again: Any):
    """The split has the same patients, and so the same hash."""
    evaluated(own_scans)
    case = next((own_scans / PREDICTIONS).iterdir()).name.removesuffix(".nii.gz")
    new = scan_again(own_scans / RAW, case)
    with pytest.raises(UserError, match=rf"out of date: splits_final\.json .* differ in the scan {new}\."):
        shown(own_scans)
    shutil.copy(own_scans / RAW / "labelsTr" / f"{new}.nii.gz", own_scans / PREDICTIONS)
    assert evaluated(own_scans) != []
    assert shown(own_scans) is not None


def test_labels_that_were_changed_since_the_training(own_scans: Path, describe_dataset: Any):
    """In ``dataset.json`` and masks alike."""
    evaluated(own_scans)
    describe_dataset(own_scans / RAW, labels={"background": 0, "LV": 1, "Myo": 2, "RV": 3})
    for look in (evaluated, shown):
        with pytest.raises(UserError, match=r"was trained with other labels: .*dataset\.json was changed"):
            look(own_scans)


def test_what_is_gone_is_not_compared(own_scans: Path):
    assert shown(own_scans) is None
    evaluated(own_scans)
    shutil.rmtree(own_scans / RAW)
    shutil.rmtree(own_scans / PREDICTIONS)
    assert shown(own_scans) is not None
    write_record(own_scans, read_record(own_scans).published)
    assert shown(own_scans) is not None


def test_an_evaluation_of_an_earlier_version_is_shown_with_a_warning(
    own_scans: Path, caplog: pytest.LogCaptureFixture
):
    evaluated(own_scans)
    CHANGES["earlier version"](own_scans)
    assert shown(own_scans) is not None
    assert caplog.text.count("evaluation.json is of an earlier version") == 1
    shutil.rmtree(own_scans / PREDICTIONS)
    assert shown(own_scans) is not None
    assert caplog.text.count("earlier version") == 1


@pytest.mark.parametrize("name", ["evaluation.csv", "evaluation.json", f"{PLAIN_PREDICTIONS}/evaluation.csv"])
def test_tables_of_others_in_a_folder_in_place_of_the_runs_are_not_replaced(
    run: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(run / PREDICTIONS, run / PLAIN_PREDICTIONS)
    output = tmp_path / "out"
    mine = output / name
    mine.parent.mkdir(parents=True)
    mine.write_text("case,dice\n")
    with pytest.raises(UserError, match=f"{mine} would be replaced"):
        evaluate_run(run, "test", 1, lambda *_: None, output)
    assert [path for path in output.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "case,dice\n"


def test_an_evaluation_of_before_in_such_a_folder_is_replaced(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    before = evaluate_run(run, "test", 1, lambda *_: None, output)
    assert evaluate_run(run, "test", 1, lambda *_: None, output) == before


def test_another_runs_evaluation_in_such_a_folder_is_not_replaced(
    run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = tmp_path_factory.mktemp("out")
    other = shutil.copytree(run, tmp_path_factory.mktemp("others") / "other")
    record = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**record, "plans": "ccdcseg_other"}))
    before = evaluate_run(run, "test", 1, lambda *_: None, output)
    with pytest.raises(UserError, match=r"evaluation\.json is the evaluation of another run, .*Give another"):
        evaluate_run(other, "test", 1, lambda *_: None, output)
    assert read_evaluation(output / "evaluation.json") == before[PREDICTIONS]
    (output / "evaluation.json").write_text('{"format": "ccdcseg-evaluation/')
    evaluate_run(run, "test", 1, lambda *_: None, output)
    assert read_evaluation(output / "evaluation.json") == before[PREDICTIONS]


@pytest.mark.parametrize("place", ["", "scores"])
def test_an_evaluation_is_not_written_into_another_run(
    run: Path, tmp_path_factory: pytest.TempPathFactory, place: str
) -> None:
    other = shutil.copytree(run, tmp_path_factory.mktemp("others") / "other")
    with pytest.raises(UserError, match=r"lies in another run, .*other"):
        evaluate_run(run, "test", 1, lambda *_: None, other / place)


def test_a_damaged_evaluation_among_the_runs_own_files_is_made_anew(run: Path) -> None:
    for name in ("evaluation.json", "evaluation.csv"):
        (run / name).write_text("")
    evaluate_run(run, "test", 1, lambda *_: None)
    assert read_evaluation(run / "evaluation.json")
    assert (run / "evaluation.csv").read_text()
