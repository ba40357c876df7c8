import errno
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import blosc2
import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from alive import Alive
from ccdcseg import files
from ccdcseg.datasets.splits import split_dataset
from ccdcseg.errors import UserError
from ccdcseg.files import locked, read_json, write_json
from ccdcseg.methods import METHODS
from ccdcseg.nnunet import train
from ccdcseg.nnunet.checkpoints import OWN_KEY, load_checkpoint
from ccdcseg.nnunet.models import build_predictor
from ccdcseg.nnunet.preset import UnlabelledScans
from ccdcseg.nnunet.runs import resolve_run, teachers_of
from ccdcseg.nnunet.unlabelled import (
    Labeller,
    Labelling,
    _annotated_mask,
    _outside_marked,
    _summary,
    agreement,
    annotated_shares,
    ignore_value,
    implausible,
    label_scan,
    writing_epochs,
)
from ccdcseg.runs.history import labels_folder, read_history

# What nnU-Net and its libraries warn of is theirs.
pytestmark = pytest.mark.filterwarnings("default")

TRAINING = ("training.epochs=4", "training.averaged_weights=0.9")
EARLY = (*TRAINING, "unlabelled.confidence=0")


@pytest.fixture
def unlabelled_run(workspace, tmp_path, monkeypatch):
    """A run of the tiny preset with two patients' scans taken without their masks."""
    split_dataset(workspace.raw, [0.4], 7, unlabelled=2)

    def make(method="nnunet", changes=(), results="results"):
        monkeypatch.setenv("nnUNet_results", str(tmp_path / results))
        # labels of so short a training are mostly implausible
        monkeypatch.setattr("ccdcseg.nnunet.unlabelled.PLAUSIBLE_RATIO", 1e9)
        return resolve_run("901", method, 0.4, 7, str(workspace.preset), (*EARLY, *changes), unlabelled=True)

    return make


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint_final.pth")["network_weights"]


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("method", ["nnunet", "ccdc_both", "focal"])
def test_scans_without_masks_are_labelled_and_trained_on(unlabelled_run, train_run, method):
    run, told = unlabelled_run(method), {}
    folder = train_run(run, progress=lambda stage, *rest: told.update({stage: rest[:2]}))
    assert [told[f"labels, epoch_000{number}"] for number in (1, 2, 3)] == [(4, 4)] * 3
    history = read_history(folder)
    written = [epoch.labels_written is not None for epoch in history]
    assert written == [False, True, True, True]
    assert [epoch.unlabelled_loss is not None for epoch in history] == written
    places = sorted(path.name for path in (folder / "unlabelled").iterdir())
    assert places == ["epoch_0001", "epoch_0002", "epoch_0003"]
    cases = run.split["unlabelled"]["cases"]
    assert len(cases) == 4
    for case in cases:
        image = nibabel.load(run.raw / "imagesTr" / f"{case}_0000.nii.gz")
        labels = nibabel.load(folder / "unlabelled" / "epoch_0003" / f"{case}.nii.gz")
        assert labels.shape == image.shape
        np.testing.assert_allclose(labels.affine, image.affine, atol=1e-4)
        assert set(np.unique(labels.get_fdata())) <= {0, 1, 2, 3, 4}


@pytest.mark.parametrize("method", ["ccdc", "ccdc_both"])
def test_the_papers_term_sees_annotated_patches_alone(unlabelled_run, make_trainer, method):
    """Labels of the second half of a batch matter to the method that is named so, and to no other."""
    trainer = make_trainer(unlabelled_run(method, ["ccdc.core_threshold=0.0"]), METHODS[method].trainer)
    trainer.unlabelled.annotated, ignored = 2, ignore_value(trainer)
    generator = torch.Generator().manual_seed(0)
    size = trainer.configuration_manager.patch_size
    data = torch.randn(4, 1, *size, generator=generator)
    trainer.network.train()
    with torch.no_grad():
        output, features = trainer.network(data)
    outputs = output if isinstance(output, list) else [output]
    targets = [torch.randint(0, 4, (4, 1, *o.shape[2:]), generator=generator).float() for o in outputs]
    several = isinstance(output, list)

    def term(change):
        trainer.draws.manual_seed(0)
        changed = [target.clone() for target in targets]
        for target in changed:
            change(target)
        losses = trainer.compute_losses((output, features), changed if several else changed[0], data)
        return losses["contrastive_loss"].item()

    def ignore_the_second_half(target):
        target[2:] = ignored

    assert (term(ignore_the_second_half) != term(lambda _: None)) == (method == "ccdc_both")
    assert trainer._criterion.ignore_index == (ignored if method == "ccdc_both" else None)


def test_masks_of_unlabelled_patients_are_never_read(
    unlabelled_run, train_run, workspace, tmp_path, monkeypatch
):
    """Garbage in their place gives the same split, the same labels and the same weights."""
    trained = train_run(unlabelled_run())
    root = tmp_path / "other"
    raw = root / "nnUNet_raw" / workspace.raw.name
    shutil.copytree(workspace.raw, raw)
    (raw / "splits_final.json").unlink()
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(root / name))
    unlabelled = resolve_entry(workspace.raw)["unlabelled"]["cases"]
    for case in unlabelled:
        (raw / "labelsTr" / f"{case}.nii.gz").write_bytes(b"garbage")
    assert split_dataset(raw, [0.4], 7, unlabelled=2)[0] == resolve_entry(workspace.raw)
    run = resolve_run("901", "nnunet", 0.4, 7, str(workspace.preset), EARLY, unlabelled=True)
    assert same(weights(train_run(run)), weights(trained))


def resolve_entry(raw: Path):
    return next(entry for entry in read_json(raw / "splits_final.json") if entry["seed"] == 7)


def test_an_interrupted_training_ends_as_one_that_was_not(unlabelled_run, train_run, interrupt_run):
    whole = train_run(unlabelled_run(results="whole"))
    run = unlabelled_run(results="interrupted")
    for step in (4, 7, 10):
        interrupt_run(run, step, resume=True)
    again = train_run(run, resume=True)
    assert same(weights(whole), weights(again))
    first, second = (load_checkpoint(f / "checkpoint_final.pth")[OWN_KEY] for f in (whole, again))
    assert first["written_labels"] == second["written_labels"]


def test_self_training_learns_from_what_other_trainings_agree_on(unlabelled_run, train_run, interrupt_run):
    run = unlabelled_run(changes=("unlabelled.teachers=2", "unlabelled.agreed=0.5"))
    first, second = teachers_of(run)
    train_run(run)
    assert first.finished
    assert second.finished
    assert not same(weights(first.folder), weights(second.folder))
    assert not first.preset.unlabelled.use
    assert [first.preset.training.seed, second.preset.training.seed] == [None, 8]
    folder = labels_folder(run.folder, 0)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    written = read_history(run.folder)[0].labels_written
    assert written.scans == 4
    assert len(written.left_out) == 2
    assert max(found.agreement for found in written.left_out) <= written.agreement
    learnt = {path.name.removesuffix("_seg.b2nd") for path in folder.glob("*_seg.b2nd")}
    assert learnt == {path.name.removesuffix("_locations.npz") for path in folder.glob("*_locations.npz")}
    assert len(learnt) == 2
    assert not learnt & {found.scan for found in written.left_out}
    assert all(epoch.unlabelled_loss is not None for epoch in read_history(run.folder))
    before = weights(run.folder)
    run.folder.rename(run.folder.with_name("before"))
    interrupt_run(run, 4)
    assert same(weights(train_run(run, resume=True)), before)
    run.folder.rename(run.folder.with_name("again"))
    interrupt_run(run, 4)
    shutil.copy(second.folder / "checkpoint_best.pth", second.folder / "checkpoint_final.pth")
    with pytest.raises(UserError, match=f"was begun with other teachers.*{second.model.name}"):
        train_run(run, resume=True)


def test_a_teacher_labels_on_its_device(finished_run, monkeypatch):
    """What is on the CPU beside a GPU is an error; "meta" stands in for one."""
    even = partial(torch.ones, device="meta")
    monkeypatch.setattr("ccdcseg.nnunet.unlabelled.compute_gaussian", lambda patch, **_: even(patch))
    predictor = build_predictor(finished_run.folder, "meta")
    labeller = Labeller([predictor], {"RV": 1}, {}, 0.8, 4, 3)
    assert labeller._probabilities(predictor, torch.zeros(1, 1, 64, 64)).device.type == "meta"


def test_a_scan_that_fills_the_devices_memory_is_joined_beside_it(finished_run, monkeypatch):
    predictor = build_predictor(finished_run.folder, "cpu")
    labeller = Labeller([predictor], {"RV": 1}, {}, 0.8, 4, 3)
    scan = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = labeller._probabilities(predictor, scan)
        full = iter([True])
        zeros = torch.zeros

        def zeros_that_fit(*shape, **options):
            if next(full, False):
                raise torch.OutOfMemoryError
            return zeros(*shape, **options)

        monkeypatch.setattr(torch, "zeros", zeros_that_fit)
        torch.testing.assert_close(labeller._probabilities(predictor, scan), expected)
    assert next(full, "used") == "used"


def test_labels_and_what_networks_say_are_held_of_one_scan_and_one_network(tmp_path, monkeypatch):
    """Those of all scans fill any memory."""
    labelled, said = Alive(), Alive()
    networks = [
        SimpleNamespace(label_manager=SimpleNamespace(has_ignore_label=False), shift=shift)
        for shift in (0, 1, 2)
    ]

    def watched(*arguments):
        labels, told = label_scan(*arguments)
        return labelled.watch(labels), told

    def probabilities(_, network, scan):
        found = torch.softmax(torch.cat([scan, network.shift - scan]), 0).numpy()
        return SimpleNamespace(cpu=lambda: SimpleNamespace(numpy=lambda: said.watch(found.copy())))

    for name, other in (("_probabilities", probabilities), ("_write_for_people", lambda *_: None)):
        monkeypatch.setattr(Labeller, name, other)
    monkeypatch.setattr("ccdcseg.nnunet.unlabelled.label_scan", watched)
    for number in range(3):
        scan = np.random.default_rng(number).normal(size=(1, 2, 8, 8)).astype(np.float32)
        nnUNetDatasetBlosc2.save_case(scan, np.zeros(scan.shape, np.int8), {}, str(tmp_path / f"s{number}"))
    labeller = Labeller(networks, {"heart": 1}, {}, 0.6, 2, 3)
    written = labeller.write(tmp_path, ["s0", "s1", "s2"], tmp_path / "labels", {"heart": 0.5}, None)
    assert (labelled.most, said.most) == (1, 1)
    assert written.scans == 3
    assert written.agreement < 1
    assert len({*(tmp_path / "labels").glob("*_seg.b2nd")}) == 3


def test_what_lies_outside_of_an_image_is_marked_as_in_masks(tmp_path):
    labels = np.array([[[0, 1, 4, 0, 2, 4]]], np.int16)
    mask = np.array([[[[-1, -1, -1, 0, 0, 0]]]], np.int8)
    nnUNetDatasetBlosc2.save_seg(mask, str(tmp_path / "scan_seg"))
    marked = _outside_marked(labels, tmp_path / "scan_seg.b2nd", 4)
    assert marked.dtype == np.int16
    assert marked.tolist() == [[[-1, 1, -1, 0, 2, 4]]]


def test_labels_of_a_training_are_marked_where_the_image_is_empty(
    unlabelled_run, train_run, workspace, tmp_path, monkeypatch
):
    unlabelled_run()
    root = tmp_path / "other"
    raw = root / "nnUNet_raw" / workspace.raw.name
    shutil.copytree(workspace.raw, raw)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(root / name))
    for path in (raw / "imagesTr").glob("*.nii.gz"):
        image = nibabel.load(path)
        voxels = image.get_fdata()
        x, y = np.indices(voxels.shape[:2])
        voxels[x + y < len(voxels) // 2] = 0  # a corner, which is not cropped
        nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), image.affine), path)
    run = resolve_run("901", "nnunet", 0.4, 7, str(workspace.preset), EARLY, unlabelled=True)
    folder = train_run(run)
    for case in run.split["unlabelled"]["cases"]:
        mask = next(run.preprocessed.glob(f"ccdcseg_2d_*_unlabelled/{case}_seg.b2nd"))
        outside = blosc2.open(str(mask))[:][0] < 0
        labels = blosc2.open(str(folder / "unlabelled" / "epoch_0003" / mask.name))[:][0]
        assert outside.any()
        assert set(np.unique(labels[outside])) <= {-1, 1, 2, 3}
        assert (labels[~outside] >= 0).all()


def test_a_device_that_is_full_is_named_where_labels_are_written(unlabelled_run, train_run, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError

    run = unlabelled_run()
    monkeypatch.setattr(Labeller, "_logits", fail)
    with pytest.raises(UserError, match=r"does not fit into the memory of cpu.*--device cpu"):
        train_run(run)
    assert not labels_folder(run.folder, 1).exists()


def test_a_teacher_takes_over_all_but_the_scans_without_masks(workspace, unlabelled_run):
    changes = ("training.epochs=2", "unlabelled.use=true", "unlabelled.teachers=3")
    run = unlabelled_run("ccdc_both", changes=changes)
    plain = resolve_run("901", "ccdc", 0.4, 7, str(workspace.preset), (*TRAINING, "training.epochs=2"))
    first, *others = teachers_of(run)
    assert first.folder == plain.folder
    assert [other.preset.training.seed for other in others] == [8, 9]
    assert teachers_of(first) == []


def test_stock_nnunet_cannot_begin_self_training(unlabelled_run, make_trainer):
    run = unlabelled_run(changes=("unlabelled.teachers=2",))
    with pytest.raises(UserError, match="ccdcseg train --self-training"):
        make_trainer(run, "nnUNetTrainerPreset")


@pytest.mark.parametrize(
    ("votes", "agreed"),
    [
        (([[[1, 1, 0, 2]]], [[[1, 0, 0, 2]]]), (2 / 3 + 1) / 2),
        (([[[0, 0]]], [[[0, 0]]]), 1.0),
        (([[[1, 0]]], [[[0, 0]]]), 0.0),
        (([[[1, 1]]], [[[1, 1]]], [[[0, 0]]]), 1 / 3),
        (([[[1, 1]]],), None),
    ],
)
def test_agreement_is_the_mean_dice_of_each_two(votes, agreed):
    assert agreement([np.array(vote) for vote in votes], [1, 2]) == (agreed and pytest.approx(agreed))


@pytest.mark.parametrize(
    ("scans", "agreed", "left_out"), [(10, 0.8, 2), (100, 0.8, 20), (4, 0.5, 2), (3, 1, 0), (4, 0.1, 3)]
)
def test_the_share_of_scans_that_is_kept(scans, agreed, left_out):
    """1 - 0.8 is a little less than 0.2; one scan is kept at least."""
    found = {f"s{i:03d}": Labelling({}, {"RV": 0.1}, 0.0, agreement=i / scans) for i in range(scans)}
    summary = _summary(found, {"RV": 0.1}, ["RV"], agreed)
    assert [one.scan for one in summary.left_out] == [*found][:left_out]


def test_labels_that_are_not_what_they_were_are_refused(unlabelled_run, train_run, interrupt_run):
    run = unlabelled_run()
    interrupt_run(run, 7)
    seg = next((run.folder / "unlabelled" / "epoch_0001").glob("*_seg.b2nd"))
    seg.unlink()
    with pytest.raises(UserError, match=r"epoch_0001 does not hold the labels that this training had"):
        train_run(run, resume=True)


def test_a_disk_that_is_full_is_named_where_labels_are_written(unlabelled_run, train_run, monkeypatch):
    """What blosc2 raises there does not name it."""

    def fail(*_):
        raise RuntimeError

    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    run = unlabelled_run()
    monkeypatch.setattr(nnUNetDatasetBlosc2, "save_seg", fail)
    monkeypatch.setattr("ccdcseg.nnunet.plans.explain_failure", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as stop:
        train_run(run)
    assert Path(stop.value.filename).parent == labels_folder(run.folder, 1)
    assert not labels_folder(run.folder, 1).exists()


def test_implausible_labels_are_not_used(unlabelled_run, train_run, monkeypatch):
    run = unlabelled_run()
    monkeypatch.setattr("ccdcseg.nnunet.unlabelled.PLAUSIBLE_RATIO", 1 + 1e-9)
    folder = train_run(run)
    history = read_history(folder)
    assert [epoch.unlabelled_loss for epoch in history] == [None] * 4
    assert history[1].labels_written.implausible
    assert "are not used" in next(folder.glob("training_log*.txt")).read_text()


def test_a_few_scans_are_labelled_each_time(unlabelled_run, train_run):
    folder = train_run(unlabelled_run(changes=("unlabelled.scans=2",)))
    labelled = [{path.name for path in place.glob("*.nii.gz")} for place in (folder / "unlabelled").iterdir()]
    assert [len(names) for names in labelled] == [2, 2, 2]
    assert len(set.union(*labelled)) > 2
    assert [epoch.labels_written.scans for epoch in read_history(folder)[1:]] == [2, 2, 2]


def test_scans_along_other_axes_than_the_annotated_are_named(unlabelled_run, tmp_path, monkeypatch, caplog):
    run = unlabelled_run()
    scans = train.scans_without_masks(run)
    train._warn_of_axes(run)
    assert not caplog.messages
    name, (image, *_) = next(iter(scans.items()))
    turned = nibabel.load(image).as_reoriented(np.array([[1, 1], [0, 1], [2, -1]]))
    nibabel.save(turned, tmp_path / "turned.nii.gz")
    monkeypatch.setattr(train, "scans_without_masks", lambda _: scans | {name: [tmp_path / "turned.nii.gz"]})
    train._warn_of_axes(run)
    (message,) = caplog.messages
    assert message.startswith(
        f"1 of {len(scans)} scans without masks are stored along other axes than the annotated"
    )
    assert f"such as {name} (PLI, not LPS)" in message


def test_a_split_without_such_scans_is_refused(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    with pytest.raises(UserError, match=r"names no scans without masks\. Draw a split that has some"):
        resolve_run("901", "nnunet", 0.4, 0, str(workspace.preset), unlabelled=True)


def test_a_batch_of_one_has_no_room(unlabelled_run, train_run):
    """It is said before the teachers are trained."""
    run = unlabelled_run(changes=("network.batch_size=1", "unlabelled.teachers=2"))
    with pytest.raises(UserError, match=r"A batch of 1 has no room"):
        train_run(run)
    assert not any(teacher.folder.exists() for teacher in teachers_of(run))


def test_self_training_waits_for_a_teacher_that_another_process_trains(
    unlabelled_run, train_run, monkeypatch: pytest.MonkeyPatch
):
    """It finds it finished then."""
    run = unlabelled_run(changes=("unlabelled.teachers=2",))
    first, second = teachers_of(run)
    trained, waiting = [], threading.Event()
    for name in ("prepare", "_check_begun", "_finish", "check_trained"):
        monkeypatch.setattr(train, name, lambda *_: None)
    monkeypatch.setattr(train, "_train", lambda run, *_: trained.append(run))
    monkeypatch.setattr(files, "TOLD_SECONDS", 0)
    monkeypatch.setattr(files.logger, "warning", lambda *_: waiting.set())
    with ThreadPoolExecutor(1) as pool:
        with locked(first.folder, "train"):
            job = pool.submit(train._train_teachers, run, "cpu", 1, lambda *_: None)
            assert waiting.wait(10)
            (first.folder / "run.json").touch()
        job.result()
    assert [one.folder for one in trained] == [second.folder]


def test_the_stock_trainer_takes_them_by_itself(unlabelled_run, make_trainer):
    run = unlabelled_run()
    write_json(run.preprocessed / "splits_final.json", read_json(run.raw / "splits_final.json"))
    trainer = make_trainer(run, "nnUNetTrainerUnlabelled")
    assert trainer.unlabelled is not None


@pytest.fixture
def inheriting(unlabelled_run, make_trainer):
    """The stock trainer with nnU-Net's own way to change a configuration."""
    run = unlabelled_run()
    plans, first = train.prepare(run, 1, lambda *_: None), make_trainer(run, "nnUNetTrainerUnlabelled")

    def make(**changes):
        configurations = plans["configurations"] | {"changed": {"inherits_from": "2d", **changes}}
        changed = plans | {"configurations": configurations, "continue_training": False}
        trainer = type(first)(changed, "changed", run.fold, first.dataset_json, torch.device("cpu"))
        trainer.initialize()
        return trainer

    return make


def test_a_configuration_that_inherits_is_preprocessed_as_a_whole(inheriting, monkeypatch):
    handed = []
    monkeypatch.setattr(
        "ccdcseg.nnunet.unlabelled.preprocess_unlabelled", lambda _, __, plans, *___: handed.append(plans)
    )
    inheriting(batch_size=6).unlabelled._preprocess()
    assert PlansManager(handed[0]).get_configuration("changed").batch_size == 6


def test_the_second_network_of_a_cascade_is_refused(inheriting):
    with pytest.raises(UserError, match="changed is fed another network's predictions"):
        inheriting(previous_stage="2d")


def test_one_rank_preprocesses_while_the_others_wait(unlabelled_run, make_trainer, monkeypatch):
    """Several would write the same files."""
    trainer, done = make_trainer(unlabelled_run(), "nnUNetTrainerPreset"), []
    trainer.dataloader_train, trainer.is_ddp = None, True
    monkeypatch.setattr("torch.distributed.new_group", lambda **_: "patient")
    monkeypatch.setattr("torch.distributed.barrier", done.append)
    monkeypatch.setattr(
        "ccdcseg.nnunet.unlabelled.preprocess_unlabelled", lambda *_: done.append("preprocessed")
    )
    trainer.unlabelled.start()
    trainer.local_rank = 1
    trainer.unlabelled.start()
    assert done == ["preprocessed", "patient", "patient"]


@pytest.mark.parametrize(
    ("epochs", "expected"), [(90, [30, 45, 60, 75]), (4, [1, 2, 3]), (48, [16, 24, 32, 40])]
)
def test_when_labels_are_written(epochs, expected):
    assert writing_epochs(UnlabelledScans(first=1 / 3, times=4), epochs) == expected


@given(st.floats(0.01, 0.99), st.integers(1, 10), st.integers(1, 500))
def test_labels_are_written_within_the_training(first, times, epochs):
    written = writing_epochs(UnlabelledScans(first=first, times=times), epochs)
    assert 1 <= len(written) <= times
    assert all(min(round(epochs * first), epochs - 1) <= epoch < epochs for epoch in written)


def test_labels_of_a_scan():
    """Sure voxels keep their class, unsure ones are ignored, what post-processing removes is background."""
    probabilities = np.zeros((2, 1, 1, 8), np.float32)
    probabilities[1, 0, 0] = [0.9, 0.95, 0.7, 0.1, 0.6, 0.2, 0.3, 0.05]
    probabilities[0] = 1 - probabilities[1]
    labels, found = label_scan(probabilities, {"organ": 1}, {"foreground": 1.0}, 0.8, 2)
    assert labels.ravel().tolist() == [1, 1, 2, 0, 0, 0, 2, 0]
    assert found.voxels == {"organ": 3 / 8}
    assert found.confident == {"background": pytest.approx(4 / 5), "organ": pytest.approx(2 / 3)}
    assert found.removed == pytest.approx(1 / 4)


def test_what_is_implausible():
    assert implausible({"a": 0.1, "b": 0.0}, {"a": 0.04, "b": 0.02}) == ["b"]
    assert implausible({"a": 0.1, "b": 0.0}, {"a": 0.03, "b": 0.0}) == ["a"]


def test_voxels_that_nobody_annotated_are_no_background(tmp_path):
    """One of four slices is annotated, a quarter of it; a scan of which nothing is says nothing."""
    mask = np.full((1, 4, 4, 4), 2, np.int16)
    mask[:, 0] = 0
    mask[:, 0, 0] = 1
    for name, array in (("a", mask), ("b", np.full_like(mask, 2))):
        nnUNetDatasetBlosc2.save_seg(array, str(tmp_path / f"{name}_seg"))
    assert annotated_shares(tmp_path, ["a", "b"], {"heart": 1}, ignore=2) == {"heart": 0.25}


def test_masks_are_held_one_at_a_time(tmp_path, monkeypatch):
    for name in "abc":
        nnUNetDatasetBlosc2.save_seg(np.ones((1, 2, 4, 4), np.int16), str(tmp_path / f"{name}_seg"))
    alive = Alive()
    monkeypatch.setattr(
        "ccdcseg.nnunet.unlabelled._annotated_mask", lambda *place: alive.watch(_annotated_mask(*place))
    )
    assert annotated_shares(tmp_path, ["a", "b", "c"], {"heart": 1}, ignore=2) == {"heart": 1.0}
    assert alive.most == 1


def test_scans_that_an_older_nnunet_preprocessed(tmp_path):
    mask = np.zeros((1, 1, 2, 4), np.int8)
    mask[:, 0, 0] = 1
    np.savez_compressed(tmp_path / "a.npz", data=mask.astype(np.float32), seg=mask)
    assert annotated_shares(tmp_path, ["a"], {"heart": 1}, ignore=2) == {"heart": 0.5}
