"""What of nnU-Net's stronger augmentation may be done to organs that have sides."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.spatial.transpose import TransposeAxesTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

ROTATION = math.radians(30)
"""Scans of one protocol lie alike: nnU-Net's bound in 3-D, where it has 180 degrees in 2-D."""
SCALES = (0.7, 1.43)
"""Of `nnUNetTrainerDA5`."""


def upright_transforms(composed: ComposeTransforms) -> ComposeTransforms:
    """The transforms without those that put organs on the other side of the body: quarter turns and transposition.

    ``nnUNetTrainerDA5`` has both beside its rotations.

    Args:
        composed: of ``get_training_transforms`` of a trainer of nnU-Net's; changed in place.
    """
    turning = Rot90Transform, TransposeAxesTransform
    composed.transforms = [
        one for one in composed.transforms if not isinstance(getattr(one, "transform", None), turning)
    ]
    return composed


def upright_geometry(patch: Sequence[int], is_flat: bool) -> tuple[tuple[float, float], Any]:
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
