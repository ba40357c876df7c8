"""How patches are changed at random as a training goes on, where nnU-Net's own way is too timid for a few scans."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.spatial.transpose import TransposeAxesTransform
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

ROTATION = math.radians(30)
"""Patches are turned by as much at most: nnU-Net's bound in 3-D, where it has 180 degrees in 2-D."""
SCALES = (0.7, 1.43)
"""Of `nnUNetTrainerDA5`."""


def strong_transforms(*arguments: Any, **settings: Any) -> Any:
    """The transforms of nnU-Net's ``nnUNetTrainerDA5``, without quarter turns and transposition.

    Against those of ``nnUNetTrainer``: brightness and gamma that differ from place to place, as coils make them;
    rectangles blanked out; sharpened and median-filtered patches; twice as many rotations. Quarter turns and
    transposition are left out, since scans of one protocol lie alike, and a transposed body has its organs on the
    other side.

    Args:
        arguments: as of ``nnUNetTrainer.get_training_transforms``.
        settings: likewise.
    """
    composed = nnUNetTrainerDA5.get_training_transforms(*arguments, **settings)
    turning = Rot90Transform, TransposeAxesTransform
    composed.transforms = [
        one for one in composed.transforms if not isinstance(getattr(one, "transform", None), turning)
    ]
    return composed


def strong_geometry(patch: Sequence[int], is_flat: bool) -> tuple[tuple[float, float], Any]:
    """The range of rotations, in radians, and the patch to cut out, of which the widest turn uses no more.

    Args:
        patch: what the network sees, in voxels, slowest axis first.
        is_flat: whether slices of a volume are turned as images, nnU-Net's ``do_dummy_2d_data_aug``.
    """
    turns = [get_patch_size(sides, ROTATION, ROTATION, ROTATION, SCALES) for sides in (patch, patch[::-1])]
    cut_out = np.maximum(turns[0], turns[1][::-1])  # nnU-Net's function turns to one side alone
    if is_flat:
        cut_out[0] = patch[0]
    return (-ROTATION, ROTATION), cut_out
