import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ccdcseg.errors import UserError
from ccdcseg.files import locked
from ccdcseg.nnunet import train
from ccdcseg.nnunet.predict import predict


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


def test_leftovers_without_a_checkpoint_are_cleared_but_for_the_lock(
    tiny_run, train_run, monkeypatch: pytest.MonkeyPatch
):
    run, seen = tiny_run(), []
    (run.folder / "validation").mkdir(parents=True)
    (run.folder / "history.jsonl").touch()
    monkeypatch.setattr(train, "_train", lambda *_: seen.extend(path.name for path in run.folder.iterdir()))
    train_run(run)
    assert seen == [".lock"]


def test_predictions_of_a_run_that_another_command_holds(tiny_run, tmp_path: Path):
    run = tiny_run()
    run.folder.mkdir(parents=True)
    (run.model / "dataset.json").write_text('{"file_ending": ".nii.gz", "labels": {}}')
    with locked(run.folder, "train"):
        with pytest.raises(UserError, match=r"Another process works on .*then predict again"):
            predict(run.folder, {"a": []}, run.folder / "predictions", "cpu", lambda *_: None)
        with pytest.raises(UserError, match=r"checkpoint_final\.pth"):  # elsewhere it is not in the way
            predict(run.folder, {"a": []}, tmp_path / "elsewhere", "cpu", lambda *_: None)
    assert not (run.folder / "predictions").exists()
