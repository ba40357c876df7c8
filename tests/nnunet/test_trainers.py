import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from itertools import chain
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from matplotlib import pyplot

from ccdcseg.cores import has_bfloat16
from ccdcseg.datasets.raw_folder import case_names
from ccdcseg.errors import UserError
from ccdcseg.losses import CCDCLoss, Diagnostics, Role
from ccdcseg.nnunet.checkpoints import OWN_KEY, load_checkpoint
from ccdcseg.nnunet.models import build_predictor
from ccdcseg.nnunet.train import LATEST, prepare
from ccdcseg.nnunet.trainers import nnUNetTrainerPreset
from ccdcseg.runs.history import read_history, write_history

# What nnU-Net and its libraries warn of is theirs.
pytestmark = pytest.mark.filterwarnings("default")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(folder / "checkpoint_final.pth")
    head = checkpoint[OWN_KEY].get("contrastive", {})
    tensors = {f"head.{k}": v for k, v in head.items() if isinstance(v, torch.Tensor)}
    return checkpoint["network_weights"] | tensors


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_seeded_trainings_are_equal_bit_for_bit(tiny_run, train_run):
    first = weights(train_run(tiny_run(results="first")))
    again = weights(train_run(tiny_run(results="again")))
    assert any(k.startswith("head.") for k in first)
    assert same(first, again)


def test_a_term_of_weight_0_is_plain_nnunet(tiny_run, train_run, trained: Path):
    """So trainings whose term begins later share all before it with nnU-Net."""
    ours, theirs = train_run(tiny_run(changes=("ccdc.weight=0.0",))), trained / "fold_0"
    ours, theirs = (
        load_checkpoint(run / "checkpoint_final.pth")["network_weights"] for run in (ours, theirs)
    )
    assert same(ours, theirs)


def test_another_seed_trains_another_network(tiny_run, train_run, workspace):
    from ccdcseg.datasets.splits import split_dataset
    from ccdcseg.nnunet.runs import resolve_run

    first = weights(train_run(tiny_run()))
    split_dataset(workspace.raw, [0.4], 1)
    other = weights(train_run(resolve_run("901", "ccdc", 0.4, 1, str(workspace.preset))))
    assert not same(first, other)


def test_methods_of_a_seed_start_alike_and_see_the_same_batches(tiny_run, make_trainer):
    trainers = [
        make_trainer(tiny_run(method), name)
        for method, name in (("nnunet", "nnUNetTrainerPreset"), ("ccdc", "nnUNetTrainerCCDC"))
    ]
    plain, ccdc = (t.network.state_dict() for t in trainers)
    assert same(plain, ccdc)
    batches = []
    for trainer in trainers:
        trainer.on_train_start()
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        trainer.train_step(next(trainer.dataloader_train))
        batches.append(next(trainer.dataloader_train)["data"])
    assert torch.equal(*batches)


def test_continued_training_equals_an_uninterrupted_one(tiny_run, train_run, interrupt_run, monkeypatch):
    written = []
    monkeypatch.setattr(
        "ccdcseg.runs.history.write_history",
        lambda folder, epochs: written.append(len(epochs)) or write_history(folder, epochs),
    )
    whole = train_run(tiny_run(results="whole"))
    run = tiny_run(results="broken")
    interrupt_run(run, 5)
    assert (run.folder / LATEST).exists()
    assert not run.finished
    with (run.folder / "history.jsonl").open("a") as handle:
        handle.write('{"epoch": 1')  # a kill while the next epoch was written
    with pytest.raises(UserError, match="--resume"):
        train_run(run)
    steps = []
    train_run(
        run, resume=True, progress=lambda stage, *rest: steps.append(rest) if stage == "train" else None
    )
    assert [done for done, _, _ in steps] == [4, 5, 6]
    assert all(re.fullmatch(r"loss -?\d\.\d{3}, pseudo-Dice \d+\.\d %", note) for _, _, note in steps)
    assert same(weights(whole), weights(run.folder))
    strip = [epoch.model_copy(update={"seconds": 0}) for epoch in read_history(run.folder)]
    assert strip == [epoch.model_copy(update={"seconds": 0}) for epoch in read_history(whole)]
    assert written == [1, 1, 2]


def test_a_history_that_was_moved_away_is_continued_where_the_checkpoint_is(
    tiny_run, train_run, interrupt_run
):
    """A kill between the history and the checkpoint leaves an epoch that is trained again."""
    run = tiny_run()
    history = run.folder / "history.jsonl"
    interrupt_run(run, 5)
    (epoch,) = map(json.loads, history.read_text().splitlines())
    history.write_text(f"{json.dumps(epoch | {'epoch': 1, 'iteration': 6})}\n")
    assert [epoch.epoch for epoch in read_history(train_run(run, resume=True))] == [1]


def test_a_training_of_a_gpu_continues_on_a_cpu(tiny_run, train_run, interrupt_run, monkeypatch):
    """As far as its checkpoint goes: every tensor in it is said to lie on a GPU."""
    whole, run = train_run(tiny_run(results="whole")), tiny_run(results="moved")
    with monkeypatch.context() as gpu:
        gpu.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        interrupt_run(run, 5)
    assert b"cuda:0" in (run.folder / LATEST).read_bytes()
    train_run(run, resume=True)
    assert same(weights(whole), weights(run.folder))


def test_a_seeded_training_gives_what_it_gave_in_version_0_1(tiny_run, train_run):
    """To the last bit on one machine; machines add in other orders."""
    found = [(e.segmentation_loss, e.contrastive_loss) for e in read_history(train_run(tiny_run()))]
    expected = [(1.3350051641464233, 3.425092935562134), (1.2339507341384888, 3.4049837589263916)]
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_a_training_that_version_0_1_began_is_continued(tiny_run, train_run, interrupt_run):
    """Its plans hold every setting, its checkpoint the count of calls and the state of a generator."""
    whole, run = train_run(tiny_run(results="whole")), tiny_run(results="broken")
    interrupt_run(run, 5)
    plans = json.loads((run.model / "plans.json").read_text())
    everything = run.preset.model_dump(mode="json")
    everything["ccdc"] |= {"warmup_iterations": 0, "head_normalisation": "none", "total_iterations": None}
    (run.model / "plans.json").write_text(json.dumps(plans | {"ccdcseg": everything}))
    checkpoint = load_checkpoint(run.folder / LATEST)
    checkpoint[OWN_KEY]["contrastive"] |= {
        "iteration": torch.tensor(3),
        "_extra_state": torch.Generator().get_state(),
        "average.matrix": torch.zeros(4, 4),
        "average.seen": torch.zeros(4, dtype=torch.bool),
    }
    torch.save(checkpoint, run.folder / LATEST)
    train_run(run, resume=True)
    assert same(weights(whole), weights(run.folder))


def test_a_term_that_waits_for_its_start(tiny_run, train_run, make_trainer):
    """Steps are counted, not calls of the loss, also where a training is continued."""
    trainer = make_trainer(tiny_run(changes=("ccdc.start_iteration=4",)), "nnUNetTrainerCCDC")
    trainer.on_train_start()
    seen = []
    for epoch in (0, 1):
        trainer.current_epoch = epoch
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        for _ in range(3):
            losses = trainer.train_step(next(trainer.dataloader_train))
            seen.append((trainer.iteration, losses["contrastive_loss"].item() > 0, len(trainer.steps)))
    waiting = [(1, False, 0), (2, False, 0), (3, False, 0), (4, False, 0)]
    assert seen == [*waiting, (5, True, 1), (6, True, 2)]
    assert all(parameter.grad is not None for parameter in trainer.contrastive.parameters())


def test_a_training_is_not_continued_in_another_precision(tiny_run, train_run, interrupt_run, monkeypatch):
    run, precision = tiny_run(), nnUNetTrainerPreset.precision
    interrupt_run(run, 4)
    before = (run.folder / LATEST).read_bytes()
    monkeypatch.setattr(nnUNetTrainerPreset, "precision", "float8")
    with pytest.raises(UserError, match=r"was begun in float32, and this machine trains in float8") as raised:
        train_run(run, resume=True)
    assert "start anew" in str(raised.value)
    assert (run.folder / LATEST).read_bytes() == before
    monkeypatch.setattr(nnUNetTrainerPreset, "precision", precision)
    train_run(run, resume=True)
    assert run.finished


def test_a_finished_run_is_left_alone(tiny_run, train_run):
    folder = train_run(tiny_run())
    before = (folder / "checkpoint_final.pth").stat().st_mtime_ns
    assert train_run(tiny_run()) == folder
    assert (folder / "checkpoint_final.pth").stat().st_mtime_ns == before


def test_other_settings_under_the_same_name_are_refused(tiny_run, train_run):
    run = tiny_run()
    folder = train_run(run)
    plans = json.loads((run.model / "plans.json").read_text())
    plans["ccdcseg"]["training"]["epochs"] = 77
    (run.model / "plans.json").write_text(json.dumps(plans))
    (folder / "run.json").unlink()
    with pytest.raises(UserError, match="other settings"):
        train_run(run)


def test_what_a_run_tells_and_leaves(tiny_run, train_run):
    told = {}
    folder = train_run(tiny_run(), progress=lambda stage, *counts: told.update({stage: counts[:2]}))
    assert (list(told)[-2:], told["pieces"]) == (["pieces", "train"], (4, 4))
    record = json.loads((folder / "run.json").read_text())
    assert (record["method"], record["fraction"], record["seed"], record["iterations"]) == ("ccdc", 0.4, 0, 6)
    assert record["synthetic"] is True
    assert len(record["patients"]["train"]) == 2
    assert record["versions"]["nnunetv2"].startswith("2.8")
    assert len(record["data_hash"]) == 64
    history = read_history(folder)
    assert [epoch.epoch for epoch in history] == [0, 1]
    for epoch in history:
        total = epoch.segmentation_loss + epoch.contrastive_loss
        assert epoch.train_loss == pytest.approx(total, abs=1e-5)
        ccdc = epoch.diagnostics
        assert ccdc.classes == ("background", "RV", "Myo", "LV")
        present = [a for a, d in enumerate(ccdc.confidence) if d is not None]
        assert all(sum(ccdc.confusion[a]) == pytest.approx(1, abs=1e-4) for a in present)
    pictures = sorted((folder / "selection").iterdir())
    assert len(pictures) == 2
    with np.load(pictures[-1]) as picture:
        assert picture["image"].shape == picture["label"].shape == picture["role"].shape == (64, 64)
        assert set(np.unique(picture["role"])) <= set(Role)
        assert picture["role"].any()


def test_plain_nnunet_has_no_contrastive_part(tiny_run, train_run):
    folder = train_run(tiny_run("nnunet"))
    epoch = read_history(folder)[-1]
    assert epoch.contrastive_loss is None
    assert epoch.diagnostics is None
    assert epoch.train_loss == epoch.segmentation_loss
    assert not (folder / "selection").exists()


def test_preset_trainer_steps_as_stock_nnunet_does(tiny_run, make_trainer):
    """The preset trainer's own training step, against the one it replaces, from equal weights and batch."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    results = []
    for stock in (False, True):
        trainer = make_trainer(tiny_run("nnunet"), "nnUNetTrainerPreset")
        trainer.on_train_start()
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        batch = next(trainer.dataloader_train)
        losses = nnUNetTrainer.train_step(trainer, batch) if stock else trainer.train_step(batch)
        results.append((losses["loss"], {k: v.clone() for k, v in trainer.network.state_dict().items()}))
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler itself
def test_without_mirroring_neither_batches_nor_predictions_are_mirrored(
    tiny_run, train_run, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    monkeypatch.setattr(MirrorTransform, "get_parameters", lambda *_, **__: asked.append(1) or {"axes": ()})
    folder = train_run(tiny_run("nnunet", ("training.mirroring=false",), results="unmirrored"))
    assert asked == []
    assert build_predictor(folder, "cpu").allowed_mirroring_axes is None
    folder = train_run(tiny_run("nnunet", results="mirrored"))
    assert asked
    assert build_predictor(folder, "cpu").allowed_mirroring_axes == (0, 1)


def test_a_compiled_network_steps_as_one_that_is_not(tiny_run, make_trainer, monkeypatch, tmp_path):
    """Where nnU-Net compiles, here with a compiler that only reads; nnU-Net does so on no CPU."""
    compiler, found = torch.compile, []

    def compiled(module):
        return (
            compiler(module, backend="eager") if hasattr(module, "decoder") else module
        )  # not the Dice loss

    monkeypatch.setattr(torch, "compile", compiled)
    for compiles in (False, True):
        monkeypatch.setattr(
            "ccdcseg.nnunet.trainers.ContrastiveTrainer._do_i_compile", lambda _, on=compiles: on
        )
        trainer = make_trainer(tiny_run(), "nnUNetTrainerCCDC")
        trainer.on_train_start()
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        assert hasattr(trainer.network, "_orig_mod") is compiles
        losses = trainer.train_step(next(trainer.dataloader_train))
        trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
        found.append((losses, load_checkpoint(tmp_path / "checkpoint.pth")["network_weights"]))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize(("switch", "compiles"), [(None, True), ("true", True), ("f", False)])
def test_whether_a_gpu_compiles_is_nnunets_switch(tiny_run, make_trainer, monkeypatch, switch, compiles):
    monkeypatch.delenv("nnUNet_compile", raising=False)
    if switch:
        monkeypatch.setenv("nnUNet_compile", switch)
    trainer = make_trainer(tiny_run(), "nnUNetTrainerCCDC")
    assert not trainer._do_i_compile()
    trainer.device = torch.device("cuda", 0)
    assert trainer._do_i_compile() is compiles


def test_head_is_restored_and_stays_out_of_the_network(tiny_run, train_run, make_trainer):
    run = tiny_run()
    folder = train_run(run)
    checkpoint = load_checkpoint(folder / "checkpoint_final.pth")
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint[OWN_KEY]["trainer_name"] == "nnUNetTrainerCCDC"
    assert not any("contrastive" in k or "head" in k for k in checkpoint["network_weights"])
    fresh = make_trainer(run, "nnUNetTrainerCCDC")
    before = fresh.contrastive.head.hidden.weight.clone()
    fresh.load_checkpoint(str(folder / "checkpoint_final.pth"))
    saved = checkpoint[OWN_KEY]["contrastive"]
    assert torch.equal(fresh.contrastive.head.hidden.weight, saved["head.hidden.weight"])
    assert not torch.equal(fresh.contrastive.head.hidden.weight, before)


def test_only_the_same_trainer_continues(tiny_run, train_run, make_trainer):
    run = tiny_run("nnunet")
    folder = train_run(run)
    trainer = make_trainer(tiny_run("ccdc"), "nnUNetTrainerCCDC")
    with pytest.raises(UserError, match="written by nnUNetTrainerPreset"):
        trainer.load_checkpoint(str(folder / "checkpoint_final.pth"))


def test_pretrained_weights(tiny_run, train_run, make_trainer):
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    run = tiny_run()
    folder = train_run(run)
    trainer = make_trainer(run, "nnUNetTrainerCCDC")
    load_pretrained_weights(trainer.network, str(folder / "checkpoint_final.pth"))
    saved = load_checkpoint(folder / "checkpoint_final.pth")["network_weights"]
    loaded = trainer.network.state_dict()
    body = [k for k in saved if ".seg_layers." not in k]
    assert all(torch.equal(saved[k], loaded[k]) for k in body)


def test_coarser_stage_feeds_the_head(tiny_run, train_run):
    folder = train_run(tiny_run(changes=("decoder_stage=1",)))
    with np.load(sorted((folder / "selection").iterdir())[-1]) as picture:
        assert picture["role"].shape == (32, 32)
    head = load_checkpoint(folder / "checkpoint_final.pth")[OWN_KEY]["contrastive"]
    assert head["head.hidden.weight"].shape[1] == 8


def test_three_dimensions(tiny_run, train_run):
    """Volumes of a few thick slices, with nnU-Net's own topology for the patch."""
    changes = (
        "network.configuration=3d_fullres",
        "network.patch_size=[8,64,64]",
        "network.spacing_mm=[10,3,3]",
        "network.features_per_stage=[4,8,8]",
    )
    folder = train_run(tiny_run(changes=changes))
    assert folder.parent.name.endswith("__3d_fullres")
    assert read_history(folder)[-1].contrastive_loss > 0
    with np.load(sorted((folder / "selection").iterdir())[-1]) as picture:
        assert picture["role"].shape == picture["image"].shape == (64, 64)


@pytest.mark.parametrize(
    ("trainer", "labels", "names"),
    [
        ("CCDC", {"background": 0, "LV": 3, "RV": 1, "MYO": 2}, ["RV", "MYO", "LV"]),
        ("CCDC", {"LV": 3, "MYO": 2, "background": 0, "RV": 1}, ["RV", "MYO", "LV"]),
        ("Preset", {"background": 0, "heart": [1, 2, 3], "LV": 3}, ["heart", "LV"]),
    ],
)
def test_the_history_names_classes_in_nnunets_order(tiny_run, make_trainer, trainer, labels, names):
    description = {"channel_names": {"0": "MRI"}, "file_ending": ".nii.gz", "labels": labels}
    regions = {} if trainer == "CCDC" else {"regions_class_order": [1, 3]}
    made = make_trainer(tiny_run(), f"nnUNetTrainer{trainer}", description | regions)
    made.logger.log("epoch_start_timestamps", 0, 0)
    made.logger.log("val_losses", 0.0, 0)
    made.logger.log("dice_per_class_or_region", [0.1, 0.2, 0.3][: len(names)], 0)
    made.epoch_losses = {"loss": 0.0, "segmentation_loss": 0.0}
    ones = dict.fromkeys([field.name for field in fields(Diagnostics)], torch.ones(4))
    made.steps = [Diagnostics(**ones)]
    record = made._epoch_record()
    assert record["pseudo_dice"] == dict(zip(names, [0.1, 0.2, 0.3], strict=False))
    if trainer == "CCDC":
        assert record["diagnostics"]["classes"] == ["background", *names]


def test_regions_are_refused(tiny_run, make_trainer):
    run = tiny_run()
    regions = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "heart": [1, 2, 3], "LV": 3},
        "regions_class_order": [1, 3],
        "file_ending": ".nii.gz",
    }
    with pytest.raises(UserError, match="region labels"):
        make_trainer(run, "nnUNetTrainerCCDC", regions)


def test_ignore_label_reaches_the_loss(tiny_run, make_trainer):
    run = tiny_run()
    ignoring = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "RV": 1, "Myo": 2, "ignore": 3},
        "file_ending": ".nii.gz",
    }
    trainer = make_trainer(run, "nnUNetTrainerCCDC", ignoring)
    criterion = trainer.contrastive
    assert isinstance(criterion, CCDCLoss)
    assert (criterion.num_classes, criterion.ignore_index) == (3, 3)


def test_bfloat16_on_the_cpu(tiny_run, train_run):
    folder = train_run(tiny_run(changes=("training.cpu_autocast=bfloat16",)))
    assert all(np.isfinite(epoch.train_loss) for epoch in read_history(folder))
    expected = "bfloat16" if has_bfloat16() else "float32"
    assert json.loads((folder / "run.json").read_text())["precision"] == expected


@pytest.mark.parametrize(
    ("device", "wanted", "able", "precision"),
    [
        ("cuda", "none", False, "float16"),
        ("cuda", "bfloat16", True, "float16"),
        ("cpu", "bfloat16", True, "bfloat16"),
        ("cpu", "bfloat16", False, "float32"),
        ("cpu", "none", True, "float32"),
        ("mps", "bfloat16", True, "float32"),
    ],
)
def test_the_precision_is_what_the_preset_wants_where_the_device_can(
    tiny_run, make_trainer, monkeypatch, device, wanted, able, precision
):
    trainer = make_trainer(tiny_run(changes=(f"training.cpu_autocast={wanted}",)), "nnUNetTrainerCCDC")
    monkeypatch.setattr("ccdcseg.nnunet.trainers.has_bfloat16", lambda: able)
    trainer.device = torch.device(device)
    assert trainer.precision == precision


@pytest.mark.parametrize("fold", ["all", 99])
def test_folds_that_nnunet_draws_want_all_scans_preprocessed(
    tiny_run, make_trainer, workspace, tmp_path: Path, fold: int | str
):
    """`ccdcseg train` preprocesses those of its split alone, and nnU-Net draws from what is there."""
    run = tiny_run("nnunet")
    trainer = make_trainer(run, "nnUNetTrainerPreset")
    assert trainer.do_split()[0] == run.split["train"]
    trainer.fold, trainer.preprocessed_dataset_folder = fold, str(tmp_path)
    (tmp_path / f"{run.split['train'][0]}.b2nd").touch()
    with pytest.raises(
        UserError,
        match=rf"holds 1 of the 10 scans of .* nnUNetv2_preprocess -d 901 -plans_name {run.plans_name} -c 2d",
    ):
        trainer.do_split()
    for case in case_names(workspace.raw):
        (tmp_path / f"{case}.b2nd").touch()
    assert len({*chain(*trainer.do_split())}) == 10


@pytest.mark.slow
def test_stock_command_trains_and_validates(tiny_run, ccdcseg):
    """``nnUNetv2_train -tr nnUNetTrainerCCDC``, with worker processes and its final validation."""
    run = tiny_run(changes=("training.augmentation_processes=1",))
    prepare(run, 1, lambda *_: None)
    environment = {
        **os.environ,
        "nnUNet_extTrainer": ccdcseg("trainers").out.strip(),
        "CCDCSEG_SEED": "0",
    }
    command = [str(Path(sys.executable).parent / "nnUNetv2_train"), "901", "2d", "0"]
    command += ["-tr", "nnUNetTrainerCCDC", "-p", run.plans_name, "-device", "cpu"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (run.folder / "validation" / "summary.json").exists()
    assert len(read_history(run.folder)) == 2
    assert load_checkpoint(run.folder / "checkpoint_final.pth")["trainer_name"] == "nnUNetTrainer"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_stock_nnunet_finds_the_trainers(ccdcseg, commands: dict[str, str], tmp_path: Path):
    folder = ccdcseg("trainers").out.strip()
    assert Path(folder).is_dir()
    program = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "print([find(n).__name__ for n in ('nnUNetTrainerCCDC', 'nnUNetTrainerPreset')])"
    )
    (tmp_path / "find.py").write_text(program)
    python = commands["PATH"].partition(os.pathsep)[0] + "/python"
    environment = {**commands, "nnUNet_extTrainer": folder}
    result = subprocess.run(
        [python, str(tmp_path / "find.py")], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip().endswith("['nnUNetTrainerCCDC', 'nnUNetTrainerPreset']")


def test_no_rank_waits_for_another_to_look_at_the_masks(make_trainer, tiny_run):
    trainer = make_trainer(tiny_run("nnunet"), "nnUNetTrainerPreset")
    trainer.local_rank = 1
    trainer._decide_postprocessing()
    assert trainer.postprocessing.masks == 4
    assert not (Path(trainer.output_folder) / "postprocessing.json").exists()


def test_a_training_that_goes_on_keeps_what_it_decided(make_trainer, tiny_run, monkeypatch):
    trainer = make_trainer(tiny_run("nnunet"), "nnUNetTrainerPreset")
    trainer.recorded = True
    trainer._decide_postprocessing()
    decided, trainer.postprocessing = trainer.postprocessing, None
    looks, masks = [], trainer._training_masks
    monkeypatch.setattr(trainer, "_training_masks", lambda: looks.append(1) or masks())
    trainer._decide_postprocessing()  # nothing was kept of it yet
    trainer.current_epoch = 1
    trainer._decide_postprocessing()
    assert (trainer.postprocessing, len(looks)) == (decided, 1)
    (Path(trainer.output_folder) / "postprocessing.pkl").unlink()
    trainer._decide_postprocessing()
    assert len(looks) == 2
    assert (Path(trainer.output_folder) / "postprocessing.pkl").exists()


def test_progress_is_plotted_with_checkpoints_and_at_the_end(make_trainer, tiny_run):
    trainer = make_trainer(tiny_run(), "nnUNetTrainerPreset")
    trainer.save_every, trainer.num_epochs, plotted = 3, 8, []
    trainer.logger.plot_progress_png = lambda _: plotted.append(trainer.current_epoch)
    for trainer.current_epoch in range(8):
        with trainer._plots_seldom():
            trainer.logger.plot_progress_png(trainer.output_folder)
    assert plotted == [2, 5, 7]


def test_progress_is_plotted_on_matplotlibs_own_settings(make_trainer, tiny_run):
    """With those of a user who has TeX draw texts, and no TeX on the node, it ended every training."""
    trainer, drawn = make_trainer(tiny_run(), "nnUNetTrainerPreset"), []
    trainer.current_epoch = trainer.num_epochs - 1
    trainer.logger.plot_progress_png = lambda _: drawn.append(matplotlib.rcParams["text.usetex"])
    with matplotlib.rc_context({"text.usetex": True}):
        with trainer._plots_seldom():
            trainer.logger.plot_progress_png(trainer.output_folder)
        assert matplotlib.rcParams["text.usetex"]
    assert drawn == [False]


def test_a_plot_that_fails_ends_no_training(make_trainer, tiny_run, caplog: pytest.LogCaptureFixture):
    def fail(_: str) -> None:
        pyplot.figure()
        raise RuntimeError("no font")

    trainer, figures = make_trainer(tiny_run(), "nnUNetTrainerPreset"), pyplot.get_fignums()
    trainer.current_epoch = trainer.num_epochs - 1
    trainer.logger.plot_progress_png = fail
    with trainer._plots_seldom():
        trainer.logger.plot_progress_png(trainer.output_folder)
    assert caplog.messages == ["progress.png is not drawn (no font)."]
    assert pyplot.get_fignums() == figures
