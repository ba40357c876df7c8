import json
from pathlib import Path

import pytest
import torch

from ccdcseg.errors import UserError
from ccdcseg.methods import METHODS
from ccdcseg.nnunet.checkpoints import OWN_KEY, load_checkpoint
from ccdcseg.nnunet.train import LATEST
from ccdcseg.runs.history import read_history

NAMES = ["reco", "contrastive_seg", "region_contrast"]
SMALL = ("hidden_channels=8", "embedding_channels=8")


def small(name: str) -> tuple[str, ...]:
    return tuple(f"{name}.{change}" for change in SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_a_training_runs_to_its_end_and_predicts_on_stock_nnunet(name: str, tiny_run, train_run):
    folder: Path = train_run(tiny_run(name, small(name)))
    record = json.loads((folder / "run.json").read_text())
    assert (record["method"], record["trainer"]) == (name, METHODS[name].trainer)
    history = read_history(folder)
    assert history[-1].contrastive_loss > 0
    assert history[-1].diagnostics.classes == ("background", "RV", "Myo", "LV")
    assert any(value is not None for value in history[-1].diagnostics.class_loss)
    wanted = {"reco": 1.0, "contrastive_seg": 0.5, "region_contrast": None}[name]
    assert set(history[-1].diagnostics.hard_share_wanted) - {None} == {wanted} - {None}
    checkpoint = load_checkpoint(folder / "checkpoint_final.pth")
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert not any("memory" in key or "head" in key for key in checkpoint["network_weights"])


@pytest.mark.parametrize("name", ["contrastive_seg", "region_contrast"])
def test_continuing_restores_the_memory(name: str, tiny_run, train_run, interrupt_run):
    whole = train_run(tiny_run(name, small(name), "whole"))
    run = tiny_run(name, small(name), "broken")
    interrupt_run(run, 5)
    assert (run.folder / LATEST).exists()
    train_run(run, resume=True)
    first, second = (
        load_checkpoint(f / "checkpoint_final.pth")[OWN_KEY]["contrastive"] for f in (whole, run.folder)
    )
    banks = [key for key in first if key.endswith(("keys", "written"))]
    assert banks
    assert all(torch.equal(first[key], second[key]) for key in first if torch.is_tensor(first[key]))
    assert any(first[key].sum() > 0 for key in banks if key.endswith("written"))


def test_without_memory_there_is_no_bank(tiny_run, make_trainer):
    trainer = make_trainer(
        tiny_run("contrastive_seg", ("contrastive_seg.memory_length=null",)), "nnUNetTrainerContrastiveSeg"
    )
    assert trainer.contrastive.pixels is None
    assert trainer.contrastive.settings.memory_length is None


def test_regions_are_refused_by_name(tiny_run, make_trainer):
    regions = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "heart": [1, 2, 3], "LV": 3},
        "regions_class_order": [1, 3],
        "file_ending": ".nii.gz",
    }
    with pytest.raises(UserError, match="reco needs one class a pixel"):
        make_trainer(tiny_run("reco"), "nnUNetTrainerReCo", regions)
