from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from ccdcseg.errors import UserError
from ccdcseg.methods import METHODS
from ccdcseg.nnunet.memory import does_not_fit, halved, if_it_fits, largest_that_fits, within_memory
from ccdcseg.nnunet.preset import Preset, UnlabelledScans
from ccdcseg.nnunet.unlabelled import UnlabelledTraining

MPS_FULL = RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, max allowed: 18.1 GB).")


def memory_for(patches: int, full: Exception | None = None) -> Callable[[int], None]:
    def step(number: int) -> None:
        assert number > 0
        if number > patches:
            raise full or torch.OutOfMemoryError

    return step


@given(st.integers(1, 300), st.integers(0, 300), st.sampled_from([None, MPS_FULL]))
def test_the_largest_batch_is_found(size: int, patches: int, full: Exception | None):
    assert largest_that_fits(size, memory_for(patches, full)) == min(patches, size - 1)


def test_a_gpus_memory_is_let_go_after_each_try_however_it_ends(monkeypatch: pytest.MonkeyPatch):
    emptied: list[int] = []

    def step(number: int) -> None:
        if number == 1:
            raise ValueError("another fault")
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    with pytest.raises(ValueError, match="another fault"):
        largest_that_fits(4, step)
    assert len(emptied) == 2


def test_what_does_not_fit_is_told_from_other_faults():
    def fail(error: Exception) -> int:
        raise error

    assert if_it_fits(lambda: 0) == 0
    assert if_it_fits(lambda: fail(torch.OutOfMemoryError())) is None
    assert if_it_fits(lambda: fail(MPS_FULL)) is None
    with pytest.raises(RuntimeError, match="shapes"):
        if_it_fits(lambda: fail(RuntimeError("shapes do not match")))


@pytest.mark.parametrize(
    ("method", "patches", "words"),
    [
        ("nnunet", 2, r"batch_size=2 .*nnU-Net's own plans.*batch_size"),
        ("nnunet", 0, r"patch_size=\[32,64\] .*nnU-Net's own plans.*-gpu_memory_target"),
        ("ccdc", 2, r"batch_size=2"),
    ],
)
def test_a_training_that_does_not_fit_names_the_batch_that_does(
    tiny_run, make_trainer, monkeypatch: pytest.MonkeyPatch, method: str, patches: int, words: str
):
    trainer = make_trainer(tiny_run(method), METHODS[method].trainer)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    batch, forward = next(trainer.dataloader_train), trainer.network.forward
    assert len(batch["data"]) == 3

    def limited(images: torch.Tensor) -> object:
        memory_for(patches)(len(images))
        return forward(images)

    monkeypatch.setattr(trainer.network, "forward", limited)
    with pytest.raises(UserError, match=rf"A batch of 3 does not fit into the memory of cpu.*{words}"):
        trainer.train_step(batch)


@pytest.mark.parametrize(("method", "changes"), [("nnunet", ()), ("mcc", ("mcc.scope=global",))])
def test_where_one_of_several_gpus_is_full_no_other_is_asked(
    tiny_run, make_trainer, method: str, changes: tuple[str, ...]
):
    """The others wait for its gradients, with which it would never come."""
    trainer = make_trainer(tiny_run(method, changes), METHODS[method].trainer)
    trainer.is_ddp = True
    assert any(getattr(part, "ddp", False) for part in trainer._build_loss().modules())
    own = [*trainer._own_loss().modules()]
    assert trainer.is_ddp
    assert not any(getattr(part, "ddp", False) for part in own)
    assert not any(part._needs_all_ranks() for part in own if hasattr(part, "_needs_all_ranks"))


@pytest.mark.parametrize("stage", ["initialize", "validation_step"])
def test_a_device_that_is_full_is_named_before_and_beside_the_steps(
    tiny_run, train_run, monkeypatch: pytest.MonkeyPatch, stage: str
):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(nnUNetTrainer, stage, full)
    with pytest.raises(UserError, match=r"fold_0 does not fit into the memory of cpu.*--device cpu"):
        train_run(tiny_run("nnunet"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
    ],
)
def test_whatever_pytorch_calls_it_a_full_device_is_named(error: RuntimeError):
    with pytest.raises(UserError, match="fold_0 does not fit into"), within_memory(Path("fold_0"), "cuda"):
        raise error


def test_other_failures_of_a_training_are_not_for_want_of_memory():
    with pytest.raises(RuntimeError, match="shapes"), within_memory(Path("fold_0"), "cuda"):
        raise RuntimeError("shapes do not match")


def test_the_patch_that_is_advised_has_the_axes_of_the_plans():
    assert halved([16, 128, 96]) == "[16,64,96]"
    assert halved((8, 8)) == "[4,8]"


def test_no_batch_is_advised_that_has_no_room_for_scans_without_masks():
    error = does_not_fit(8, 2, [128, 128], torch.device("cpu"), Path("run"), memory_for(1))
    assert error.remedy.startswith(
        "2 patches do not either: give smaller ones, such as --set network.patch_size=[64,"
    )


@given(st.floats(0.001, 0.999))
def test_the_smallest_batch_with_room_is_advised(share: float):
    scans = UnlabelledScans(share=share)
    least = next(batch for batch in range(1, 2000) if max(1, round(batch * share)) < batch)
    assert scans.least_batch == least
    assert 0 < scans.patches(least) < least
    with pytest.raises(UserError, match=rf"to {least} or more \(with nnU-Net's own plans, batch_size"):
        scans.patches(least - 1)


def test_the_smallest_batch_with_room_on_each_gpu_is_advised():
    trainer = SimpleNamespace(preset=Preset(), batch_size=1, ranks=3)
    with pytest.raises(
        UserError, match=r"A batch of 1 on one of 3 GPUs has no room.*batch_size to 6 or more"
    ):
        UnlabelledTraining(trainer)


def test_other_failures_of_a_step_are_not_for_want_of_memory():
    def step(_: int) -> None:
        raise RuntimeError("other")

    with pytest.raises(RuntimeError, match="other"):
        largest_that_fits(4, step)
