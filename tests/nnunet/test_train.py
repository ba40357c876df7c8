import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from ccdcseg.errors import UserError
from ccdcseg.files import locked
from ccdcseg.nnunet import train
from ccdcseg.nnunet.predict import Output, predict
from ccdcseg.nnunet.train import BEGUN, FINAL, LATEST


def test_trainings_side_by_side_prepare_one_after_the_other(tiny_run, monkeypatch: pytest.MonkeyPatch):
    """Two that preprocessed the same scans at once would read each other's half-written files."""
    inside, overlaps, met = threading.Lock(), [], threading.Event()

    def count(*_: Any) -> dict[str, Any]:
        overlaps.append(not inside.acquire(blocking=False))
        met.wait(0.2)
        inside.release()
        return {}

    monkeypatch.setattr(train, "_prepare", count)
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(train.prepare, tiny_run(), 1, lambda *_: None) for _ in range(2)]:
            job.result()
    assert overlaps == [False, False]


def test_a_run_that_another_command_holds_is_left_alone(tiny_run, train_run):
    run = tiny_run()
    with locked(run.folder, "train"):
        (run.folder / "history.jsonl").touch()
        with pytest.raises(UserError, match=r"Another process works on .*fold_0\. .*then train again"):
            train_run(run)
    assert sorted(path.name for path in run.folder.iterdir()) == [".lock", "history.jsonl"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("default")
def test_a_training_that_lacks_only_its_record_is_completed(tiny_run, train_run):
    run = tiny_run("nnunet")
    folder = train_run(run)
    before = contents(folder)
    (folder / "run.json").unlink()
    (folder / LATEST).touch()  # killed before nnU-Net removed it
    assert train_run(run) == folder
    assert contents(folder) == before


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("finished", [True, False])
def test_a_training_of_nnunets_own_command_is_left_alone(tiny_run, train_run, finished: bool):
    run = tiny_run("nnunet")
    folder = train_run(run)
    as_if_by_nnunet(folder, "None")
    if not finished:
        (folder / FINAL).rename(folder / LATEST)
    before = contents(folder)
    with pytest.raises(
        UserError, match=r"did not begin, such as a training by nnUNetv2_train\. Move that folder"
    ):
        train_run(run, resume=True)
    assert contents(folder) == before


@pytest.mark.filterwarnings("default")
def test_a_training_of_an_earlier_version_is_completed(tiny_run, train_run, caplog: pytest.LogCaptureFixture):
    run = tiny_run("nnunet")
    folder = train_run(run)
    record = json.loads((folder / "run.json").read_text())
    as_if_by_nnunet(folder, "0")
    train_run(run)
    assert "begun by an earlier version" in caplog.text
    assert json.loads((folder / "run.json").read_text()) == record | {"started": ANY}


def as_if_by_nnunet(folder: Path, seed: str) -> None:
    """Take away what only ``ccdcseg train`` writes; nnU-Net notes the trainer's seed."""
    for name in ("run.json", BEGUN):
        (folder / name).unlink()
    notes = json.loads((folder / "debug.json").read_text())
    (folder / "debug.json").write_text(json.dumps(notes | {"seed": seed}))


def test_nothing_that_somebody_else_put_there_is_removed(tiny_run, train_run):
    run = tiny_run()
    (run.folder / "validation").mkdir(parents=True)
    (run.folder / "notes.txt").touch()
    with pytest.raises(UserError, match="did not begin"):
        train_run(run)
    assert (run.folder / "notes.txt").exists()
    assert (run.folder / "validation").exists()


@pytest.mark.parametrize("content", ['[{"train": ["a"], "val": ["b"]}]', '[{"train":'])
def test_own_splits_in_the_preprocessed_folder_are_left_alone(
    tiny_run, train_run, tmp_path: Path, content: str
):
    run = replace(tiny_run(), preprocessed=tmp_path / "preprocessed")
    run.preprocessed.mkdir()
    (run.preprocessed / "splits_final.json").write_text(content)
    with pytest.raises(UserError, match=r"preprocessed/splits_final\.json (was not made|is not valid)"):
        train_run(run)
    assert (run.preprocessed / "splits_final.json").read_text() == content
    assert not run.folder.exists()


def test_predictions_of_a_run_that_another_command_holds(tiny_run, tmp_path: Path):
    run = tiny_run()
    run.folder.mkdir(parents=True)
    (run.model / "dataset.json").write_text('{"file_ending": ".nii.gz", "labels": {}}')
    with locked(run.folder, "train"):
        with pytest.raises(UserError, match=r"Another process works on .*then predict again"):
            predict(run.folder, {"a": []}, Output(run.folder / "predictions"), "cpu", lambda *_: None)
        with pytest.raises(UserError, match=r"checkpoint_final\.pth"):  # elsewhere it is not in the way
            predict(run.folder, {"a": []}, Output(tmp_path / "elsewhere"), "cpu", lambda *_: None)
    assert not (run.folder / "predictions").exists()
