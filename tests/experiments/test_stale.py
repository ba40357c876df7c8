import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import untrained

from ccdcseg.errors import UserError
from ccdcseg.experiments import stale
from ccdcseg.experiments.experiment import load_experiment
from ccdcseg.experiments.jobs import Choice, Job, plan_jobs, read_results, write_result
from ccdcseg.experiments.reproduce import unfinished
from ccdcseg.experiments.stale import held_against_today, set_aside, why_stale
from ccdcseg.nnunet.evaluate import evaluate_run


@pytest.fixture
def job(workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A finished one on scans of its own: a run whose predictions are the references, with its result."""
    raw = tmp_path / "nnUNet_raw" / workspace.raw.name
    shutil.copytree(workspace.raw, raw)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "mine.yaml").write_text(
        "title: mine\nfractions: [0.4]\nrows: [{name: nnunet, method: nnunet}]"
    )
    choice = Choice("901", preset=str(workspace.preset))
    (job,) = plan_jobs(load_experiment(str(tmp_path / "mine.yaml")), choice, tmp_path / "store")
    untrained.train(job.training)
    untrained.predict(job.training)
    measured(job)
    return job


def measured(job: Job) -> None:
    evaluate_run(job.run, "test", 1, lambda *_: None)
    write_result(job, 1.0)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shift(change_volume: Any, path: Path) -> None:
    change_volume(path, lambda array: np.roll(array, 2, axis=2))


def test_a_result_of_today_counts(job: Job):
    assert held_against_today([job]) == [job]
    assert why_stale(job) == ""
    assert set_aside(held_against_today([job])) == [job]
    assert job.result.exists()
    shutil.rmtree(job.run)
    assert why_stale(job) == ""
    shutil.rmtree(job.training.raw / "imagesTr")
    assert why_stale(job) == ""


def test_a_result_of_an_earlier_version_counts(job: Job):
    """It names neither its scans one by one nor what was measured."""
    content = json.loads(job.result.read_text())
    del content["evaluation"]["measured"], content["run"]["scans"]
    job.result.write_text(json.dumps(content))
    edit(job.run / "run.json", scans=None)
    shutil.rmtree(job.run)
    assert why_stale(job) == ""


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_corrected_mask(job: Job, change_volume: Any, part: str, gone: bool):
    case = job.training.split[part][0]
    shift(change_volume, job.training.raw / "labelsTr" / f"{case}.nii.gz")
    if gone:
        shutil.rmtree(job.run)
    assert f"labelsTr/{case}.nii.gz was changed since" in why_stale(job)
    if part == "train" and not gone:
        refusal = rf"^{job.run} was trained on other scans: [^;]*\. Move what lies there"
        with pytest.raises(UserError, match=refusal):
            held_against_today([job, replace(job, folder=job.folder / "without a result")])
    else:
        assert held_against_today([job])[0].stale


def test_a_corrected_mask_that_teachers_were_trained_on(
    job: Job, change_volume: Any, monkeypatch: pytest.MonkeyPatch
):
    """They are named at once, not when the training that they label scans for lies in the way no more."""
    student = replace(job, folder=job.folder / "other", training=replace(job.training, plans_name="other"))
    monkeypatch.setattr(
        stale, "teachers_of", lambda run: [job.training] * 2 if run == student.training else []
    )
    assert held_against_today([student]) == [student]
    shift(change_volume, job.training.raw / "labelsTr" / f"{job.training.split['train'][0]}.nii.gz")
    with pytest.raises(UserError, match=rf"^{job.run} was trained on other scans: [^;]*\. Move what"):
        held_against_today([student])


def test_a_corrected_training_mask_of_an_earlier_version(job: Job, change_volume: Any):
    content = json.loads(job.result.read_text())
    del content["run"]["scans"]
    job.result.write_text(json.dumps(content))
    shift(change_volume, job.training.raw / "labelsTr" / f"{job.training.split['train'][0]}.nii.gz")
    assert why_stale(job) == "it was trained on other scans: one of them was changed since"


def test_other_images_of_the_test_cases(job: Job, change_volume: Any):
    shift(change_volume, job.training.raw / "imagesTr" / f"{job.training.split['test'][0]}_0000.nii.gz")
    assert why_stale(job).endswith("is out of date: its images changed since it was predicted")


@pytest.mark.parametrize("command", ["compare", "report"])
def test_other_images_are_neither_compared_nor_shown(
    job: Job, ccdcseg: Any, change_volume: Any, command: str
):
    shift(change_volume, job.training.raw / "imagesTr" / f"{job.training.split['test'][0]}_0000.nii.gz")
    result = ccdcseg(command, job.run)
    assert (result.code, "its images changed since it was predicted" in result.err) == (2, True)


def test_another_prediction(job: Job, change_volume: Any):
    shift(change_volume, job.run / "predictions" / f"{job.training.split['test'][0]}.nii.gz")
    assert why_stale(job).endswith(".nii.gz was changed since")
    content = json.loads(job.result.read_text())
    del content["evaluation"]["measured"]
    job.result.write_text(json.dumps(content))
    assert why_stale(job).endswith(".nii.gz was changed since it was predicted")
    shutil.rmtree(job.run / "predictions" / "made_from")
    assert why_stale(job) == ""
    evaluate_run(job.run, "test", 1, lambda *_: None)
    assert why_stale(job).endswith("fold_0 was evaluated again since")


def test_another_training(job: Job):
    edit(job.run / "run.json", started="2026-01-01T00:00:00+00:00")
    assert why_stale(job).endswith("fold_0 was trained again since")


def test_other_labels(job: Job, describe_dataset: Any):
    describe_dataset(job.training.raw, labels={"background": 0, "RV": 1, "muscle": 2, "LV": 3})
    changed = job.training.raw / "dataset.json"
    assert why_stale(job) == f"it was trained with other labels: {changed} was changed since"


def test_other_settings_under_the_same_name(job: Job):
    """As of a preset that has others since an earlier version."""
    plans = job.training.model / "plans.json"
    settings = json.loads(plans.read_text())["ccdcseg"]
    edit(plans, ccdcseg=settings | {"training": settings["training"] | {"epochs": 7}})
    assert why_stale(job) == "it was trained with other settings under the same name"


def test_a_further_scan_of_a_tested_patient(job: Job, scan_again: Any):
    new = scan_again(job.training.raw, job.training.split["test"][0])
    assert why_stale(job) == f"splits_final.json and the evaluation differ in the scan {new}"


def test_other_plans(job: Job, tmp_path: Path):
    for path in (job.result, job.run / "run.json"):
        content = json.loads(path.read_text())
        content.get("run", content)["plans_hash"] = "0" * 64
        path.write_text(json.dumps(content))
    assert why_stale(job) == ""
    job.training.preprocessed.mkdir(parents=True)
    path = job.training.preprocessed / f"{job.training.plans_name}.json"
    shutil.copy(job.training.model / "plans.json", path)
    assert why_stale(job) == "it was trained with other plans: nnU-Net planned anew since"


def test_a_result_that_lies_in_the_place_of_another(job: Job):
    content = json.loads(job.result.read_text())
    content["run"]["split_hash"] = "0" * 64
    job.result.write_text(json.dumps(content))
    assert "on another split" in why_stale(job)


def test_stale_results_are_moved_aside_and_made_again(job: Job, caplog: pytest.LogCaptureFixture):
    (job.folder / "test.stale.json").write_text("an older one")
    before = job.result.read_bytes()
    edit(job.run / "run.json", started="2026-01-01T00:00:00+00:00")
    (held,) = held_against_today([job])
    assert unfinished([held]) == [held]
    assert read_results([held]) == {}
    assert job.result.read_bytes() == before
    (again,) = set_aside([held])
    assert (again.stale, again.finished) == ("", False)
    assert (job.folder / "test.stale2.json").read_bytes() == before
    assert "is kept as" in caplog.text
    measured(again)
    assert held_against_today([again])[0].finished
    assert replace(held, stale="") == held  # equal jobs, whatever is said of their results
