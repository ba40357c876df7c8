"""Commands that are killed (SIGKILL, or the power fails) at any moment go on, and nothing finished is lost."""

import shutil
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from ccdcseg.nnunet import predict as module
from ccdcseg.nnunet.checkpoints import FINAL, OWN_KEY, load_checkpoint
from ccdcseg.nnunet.outputs import Output
from ccdcseg.nnunet.predict import predict
from ccdcseg.nnunet.runs import Run
from kills import killed_before, moments

pytestmark = pytest.mark.filterwarnings("default")

CHANGES = 170
"""Changes of files, about, of a small training with its preprocessing; 30 moments take some minutes."""


def tensors(folder: Path) -> dict[str, Any]:
    """Weights, optimiser state and the term's state of the last checkpoint."""
    checkpoint = load_checkpoint(folder / FINAL)
    state = {f"{i}.{k}": v for i, s in checkpoint["optimizer_state"]["state"].items() for k, v in s.items()}
    head = {f"head.{k}": v for k, v in checkpoint[OWN_KEY].get("contrastive", {}).items()}
    return {k: v for k, v in (checkpoint["network_weights"] | state | head).items() if torch.is_tensor(v)}


@pytest.mark.parametrize("step", moments(CHANGES))
def test_a_training(own_run: Run, trained: Path, train_run, tmp_path: Path, step: int):
    shutil.rmtree(next(own_run.preprocessed.glob("ccdcseg_2d_*")))
    (own_run.preprocessed / "nnUNetPlans.json").unlink()
    # a fork of a process that has packed arrays itself cannot pack any more: it has others do that
    killed_before(step, lambda: train_run(own_run, resume=True, processes=2), tmp_path)
    last = own_run.folder / FINAL
    finished = last.read_bytes() if last.exists() else None
    folder = train_run(own_run, resume=True)
    assert finished in (None, last.read_bytes())
    expected, found = tensors(trained / "fold_0"), tensors(folder)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (folder / "run.json").exists()


def test_a_prediction_at_every_moment(
    finished_run: Run, workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The network's answer is made once; what is written, and when, is the command's own."""
    folder, images = finished_run.folder, next((workspace.raw / "imagesTr").glob("*.nii.gz"))
    predictor = module.build_predictor(folder, "cpu")
    answer = module.segment([predictor], [images], probabilities=True)
    monkeypatch.setattr(module, "build_predictor", lambda *_: predictor)
    monkeypatch.setattr(module, "segment", lambda *_, **__: answer)
    place = tmp_path / "out"
    output, wanted = Output(place / "kept", {"RV": 1.0}, place / "plain"), {"a": [images], "b": [images]}

    def work() -> None:
        predict([folder], wanted, output, "cpu", lambda *_: None)

    work()
    expected = {path: path.read_bytes() for path in place.rglob("*.nii.gz")}
    for step in count(1):
        shutil.rmtree(place)
        killed = killed_before(step, work, tmp_path)
        before = {path: path.stat().st_mtime_ns for path in output.folder.glob("*.nii.gz")}
        work()
        assert {path: path.read_bytes() for path in place.glob("*/*.nii.gz")} == expected
        assert all(path.stat().st_mtime_ns == time for path, time in before.items())
        if not killed:
            break
    assert step > 20
