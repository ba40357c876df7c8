import math
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.spatial.transpose import TransposeAxesTransform
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

from ccdcseg.nnunet.augmentation import ROTATION, SCALES, upright_geometry, upright_transforms
from ccdcseg.runs.history import read_history

PATCH = (48, 48)


def stronger(size: tuple[int, ...] = PATCH, *, is_flat: bool = False) -> Any:
    rotation, _ = upright_geometry(size, is_flat)
    arguments = np.array(size), rotation, None, None, is_flat
    return upright_transforms(nnUNetTrainerDA5.get_training_transforms(*arguments))


def test_a_body_never_has_its_organs_on_the_other_side():
    """A point right of another one as seen from a third stays there, whatever is done to the patch."""
    transforms, handed = stronger(), []
    seg = torch.zeros(1, *PATCH, dtype=torch.int16)
    for value, (row, column) in enumerate(((22, 22), (22, 26), (26, 22)), 1):
        seg[0, row - 1 : row + 2, column - 1 : column + 2] = value
    for number in range(200):
        np.random.seed(number)  # noqa: NPY002 - nnU-Net's transforms draw from it
        torch.manual_seed(number)
        done = transforms(image=torch.zeros(1, *PATCH), segmentation=seg.clone())["segmentation"][0]
        first, second, third = (np.argwhere(done.numpy() == value).mean(0) for value in (1, 2, 3))
        handed.append(np.linalg.det(np.stack([second - first, third - first])))
    assert max(handed) < 0


def test_of_nnunets_stronger_ones_those_that_turn_the_body_over_alone_are_missing():
    kept = {type(getattr(one, "transform", one)).__name__ for one in stronger().transforms}
    assert {"LocalGammaTransform", "BrightnessGradientAdditiveTransform", "BlankRectangleTransform"} <= kept
    assert kept.isdisjoint({Rot90Transform.__name__, TransposeAxesTransform.__name__})


@given(st.lists(st.integers(8, 300), min_size=2, max_size=2), st.sampled_from([-1, 0, 1]))
def test_a_turned_and_scaled_patch_lies_within_what_is_cut_out(patch: list[int], share: int):
    rotation, cut_out = upright_geometry(patch, is_flat=False)
    angle = share * rotation[1]
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = np.array([[patch[0], patch[1]], [patch[0], -patch[1]]]) / (2 * min(SCALES))
    assert (np.abs(corners @ turn.T).max(0) <= cut_out / 2 + 1).all()


def test_slices_of_a_thick_volume_are_turned_as_images():
    rotation, cut_out = upright_geometry((6, 48, 48), is_flat=True)
    assert rotation == (-ROTATION, ROTATION)
    assert cut_out[0] == 6
    assert min(cut_out[1:]) > 48
    done = stronger((6, 48, 48), is_flat=True)(
        image=torch.zeros(1, 6, 70, 70), segmentation=torch.zeros(1, 6, 70, 70, dtype=torch.int16)
    )
    assert done["image"].shape == (1, 6, 48, 48)


def test_where_patches_are_mirrored_it_is_nnunets_own(tiny_run: Any, make_trainer: Any):
    """Batches of the preset's trainer, against those that ``nnUNetTrainerDA5`` itself would make of its loaders."""
    run = tiny_run("nnunet", ("training.augmentation=strong",))
    ours, theirs = (make_trainer(run, "nnUNetTrainerPreset") for _ in range(2))
    for name in ("configure_rotation_dummyDA_mirroring_and_inital_patch_size", "get_training_transforms"):
        method = vars(nnUNetTrainerDA5)[name]
        setattr(theirs, name, method.__get__(theirs, type(theirs)))
    batches = []
    for trainer in (ours, theirs):
        trainer.on_train_start()
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        batches.append([next(trainer.dataloader_train) for _ in range(3)])
    assert ours.inference_allowed_mirroring_axes == (0, 1)
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one["data"], other["data"])
        assert all(torch.equal(a, b) for a, b in zip(one["target"], other["target"], strict=True))


def test_where_they_are_not_it_turns_no_body_over(tiny_run: Any, make_trainer: Any):
    run = tiny_run("nnunet", ("training.augmentation=strong", "training.mirroring=false"))
    trainer = make_trainer(run, "nnUNetTrainerPreset")
    rotation, *_, axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert rotation == (-ROTATION, ROTATION)
    assert axes is trainer.inference_allowed_mirroring_axes is None
    names = {
        type(getattr(one, "transform", one))
        for one in trainer.get_training_transforms(PATCH, rotation, None, None, False).transforms
    }
    assert names.isdisjoint({Rot90Transform, TransposeAxesTransform})


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler itself
def test_a_training_with_stronger_augmentation_can_be_repeated(tiny_run: Any, train_run: Any):
    strong = ("training.augmentation=strong",)
    first, second, usual = (
        read_history(train_run(tiny_run("nnunet", changes, results=f"{n}")))[0].train_loss
        for n, changes in enumerate([strong, strong, ()])
    )
    assert first == second != usual
