import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from ccdcseg.errors import UserError
from ccdcseg.networks import NNFormer
from ccdcseg.nnunet.checkpoints import OWN_KEY, load_checkpoint
from ccdcseg.nnunet.images import run_images
from ccdcseg.nnunet.outputs import Output
from ccdcseg.nnunet.plans import preset_plans
from ccdcseg.nnunet.predict import predict
from ccdcseg.nnunet.preset import load_preset
from ccdcseg.nnunet.train import LATEST
from ccdcseg.runs.history import read_history

# What nnU-Net and its libraries warn of is theirs.
pytestmark = pytest.mark.filterwarnings("default")

NAME = "nnUNetTrainerNNFormer"
CHANGES = (
    "network.configuration=3d_fullres",
    "network.features_per_stage=null",
    "network.patch_size=[4,32,32]",
    "network.spacing_mm=[10.0,3.0,3.0]",
    "network.batch_size=2",
    "nnformer.embedding_channels=8",
    "nnformer.strides=[[1,2,2],[2,2,2]]",
    "nnformer.windows=[[2,4,4],null,null]",
    "nnformer.depths=[2,1,1]",
    "nnformer.heads=[1,2,4]",
)


@pytest.fixture(autouse=True)
def one_thread():
    """Threads cost more than they save on patches this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_run(tiny_run) -> Callable[..., Any]:
    """A run of a tiny nnFormer."""
    return lambda *changes, **options: tiny_run("nnformer", CHANGES + changes, **options)


def mask(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def test_train_interrupt_continue_and_predict(
    small_run, train_run, interrupt_run, tmp_path: Path, monkeypatch, ccdcseg
):
    """To the end in one go, and after an interrupt: the same weights; then both ways to predict."""
    whole = train_run(small_run(), processes=1)
    checkpoint = load_checkpoint(whole / "checkpoint_final.pth")
    assert checkpoint["trainer_name"] == checkpoint[OWN_KEY]["trainer_name"] == NAME
    assert all(epoch.train_loss is not None for epoch in read_history(whole))
    record = json.loads((whole / "run.json").read_text())
    assert (record["method"], record["trainer"]) == ("nnformer", NAME)
    assert record["settings"]["nnformer"]["windows"] == [[2, 4, 4], None, None]

    run = small_run(results="continued")
    interrupt_run(run, 4)
    assert (run.folder / LATEST).exists()
    continued = load_checkpoint(train_run(run, resume=True) / "checkpoint_final.pth")["network_weights"]
    weights = checkpoint["network_weights"]
    assert all(torch.equal(weights[name], continued[name]) for name in weights)

    cases = dict(list(run_images(whole, "test").items())[:1])
    (case,) = cases
    ours = tmp_path / "ours"
    predict([whole], cases, Output(ours), "cpu", lambda *_: None)
    stock = stock_predictor(whole, monkeypatch, ccdcseg("trainers").out.strip())
    stock.predict_from_files_sequential([[str(f) for f in cases[case]]], [str(tmp_path / case)])
    assert np.array_equal(mask(ours / f"{case}.nii.gz"), mask(tmp_path / f"{case}.nii.gz"))


def stock_predictor(folder: Path, monkeypatch: pytest.MonkeyPatch, trainers: str) -> Any:
    """nnU-Net's predictor as ``nnUNetv2_predict`` makes it; without the variable it names what it misses."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    with pytest.raises(RuntimeError, match=f"Could not find requested nnunet trainer {NAME}"):
        predictor.initialize_from_trained_model_folder(str(folder.parent), [0])
    monkeypatch.setenv("nnUNet_extTrainer", trainers)
    predictor.initialize_from_trained_model_folder(str(folder.parent), [0])
    assert type(predictor.network).__name__ == "NNFormer"
    return predictor


def test_loss_targets_and_outputs_belong_together(small_run, make_trainer):
    trainer = make_trainer(small_run("nnformer.drop_path=0.1"), NAME)
    assert isinstance(trainer.network, NNFormer)
    assert trainer.network.settings.drop_path == 0.1
    assert trainer._get_deep_supervision_scales() == [[1, 1, 1], [1, 0.5, 0.5]]
    assert isinstance(trainer.loss, DeepSupervisionWrapper)
    assert trainer.loss.weight_factors == pytest.approx((2 / 3, 1 / 3))
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    outputs = trainer.network(batch["data"])
    assert [o.shape[2:] for o in outputs] == [t.shape[2:] for t in batch["target"]]
    trainer.set_deep_supervision_enabled(False)
    assert trainer.network(batch["data"]).shape == outputs[0].shape
    trainer.enable_deep_supervision = False
    assert trainer._get_deep_supervision_scales() is None
    assert not isinstance(trainer._build_loss(), DeepSupervisionWrapper)


def test_two_dimensions_are_refused_before_anything_is_planned(tiny_run):
    with pytest.raises(UserError, match=r"for volumes.*3d_fullres"):
        tiny_run("nnformer")
    with pytest.raises(UserError, match=r"for volumes.*3d_fullres"):
        tiny_run(
            "nnformer",
            ("network.patch_size=null", "network.spacing_mm=null", "network.features_per_stage=null"),
        )


def test_a_patch_that_does_not_fit(small_run):
    with pytest.raises(UserError, match=r"second axis of the patch has 40 voxels.*multiple of 16"):
        small_run("network.patch_size=[4,40,32]")


def volume_plans(preset: str, *changes: str) -> dict[str, Any]:
    """The 3-D configuration of a preset's plans, from a base like nnU-Net's for ACDC."""
    arguments = {
        "n_stages": 6,
        "features_per_stage": [32, 64, 128, 256, 320, 320],
        "strides": [[1, 1, 1]] + [[1, 2, 2]] * 5,
        "kernel_sizes": [[1, 3, 3]] * 6,
        "n_conv_per_stage": [2] * 6,
        "n_conv_per_stage_decoder": [2] * 5,
    }
    configuration = {
        "batch_size": 4,
        "patch_size": [14, 256, 224],
        "spacing": [6.35, 1.52, 1.52],
        "preprocessor_name": "DefaultPreprocessor",
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": {"arch_kwargs": arguments},
    }
    base = {"dataset_name": "Dataset027_ACDC", "configurations": {"3d_fullres": configuration}}
    label, resolved = load_preset(preset, changes)
    planned: dict[str, Any] = preset_plans(deepcopy(base), label, resolved)["configurations"]["3d_fullres"]
    return planned


@pytest.mark.parametrize(
    ("preset", "patch", "batch"),
    [("nnformer_cpu", [8, 128, 128], 2), ("nnformer_paper", [16, 160, 160], 4)],
)
def test_shipped_presets(preset: str, patch: list[int], batch: int):
    planned = volume_plans(preset)
    assert (planned["patch_size"], planned["batch_size"]) == (patch, batch)
    with torch.device("meta"):
        settings = load_preset(preset)[1].nnformer
        outputs = NNFormer(1, 4, patch, settings)(torch.empty(batch, 1, *patch))
    assert list(outputs[0].shape[2:]) == patch
    assert len(outputs) == 3


def test_cpu_preset_has_the_schedule_of_the_two_dimensional_one():
    ours, plain = (load_preset(name)[1] for name in ("nnformer_cpu", "cpu_sgd"))
    assert ours.training == plain.training
    assert ours.prediction == plain.prediction


def test_a_patch_that_nnunets_own_network_could_not_halve_as_often():
    """288 = 9 * 32; nnU-Net's rule would halve it six times, and nnFormer does five times."""
    planned = volume_plans("nnformer_cpu", "network.patch_size=[8,288,288]")
    assert planned["patch_size"] == [8, 288, 288]
    assert planned["architecture"]["arch_kwargs"]["n_stages"] == 6
