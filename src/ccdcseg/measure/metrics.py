"""Overlap and surface distances of two binary masks, each under a name that says its definition.

Definitions of HD95 in common tools differ by many millimetres on the same masks, so none is called plain
"HD95" here:

- ``hd95_pooled_mm``: both directed sets of surface distances pooled, then the 95th percentile (as in medpy);
- ``hd95_pooled_vox``: the same in voxels, without spacing (as in SSL4MIS, nnFormer and Swin-Unet on ACDC);
- ``hd95_max_mm``: the larger of the two directed 95th percentiles (as in MONAI and Metrics Reloaded);
- ``assd_mm``, ``hd_mm``: mean and maximum of the pooled distances.

The surface of a mask is what a binary erosion with face neighbours takes away; outside the image is
background, so a structure cut off by the image's end has a surface there (as in medpy). Axes of length one are left
out: the outline of a single slice lies in the slice, where as a volume all of its area would be surface.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]
Distances = NDArray[np.float64]
Status = Literal["ok", "missed", "spurious", "absent"]

DISTANCES = ("hd95_pooled_mm", "hd95_pooled_vox", "hd95_max_mm", "assd_mm", "hd_mm")
METRIC_NAMES = ("dice", *DISTANCES)

_CENTRE = slice(1, -1)

_STATUS: dict[tuple[bool, bool], Status] = {
    (True, True): "ok",
    (True, False): "missed",
    (False, True): "spurious",
    (False, False): "absent",
}


@dataclass(frozen=True)
class Scores:
    """The scores of one structure in one scan.

    Attributes:
        status: "ok"; "missed" (only the reference has it: Dice 0), "spurious" (only the prediction has it:
            Dice 0), "absent" (neither: Dice undefined). Distances are undefined (``None``) unless "ok": a
            missed structure never counts as 0 mm.
        dice: 2 |R and P| / (|R| + |P|), in [0, 1].
        diagonal_mm: the image's diagonal, the pessimistic stand-in for the distance of a missed structure.
    """

    status: Status
    diagonal_mm: float
    dice: float | None = None
    hd95_pooled_mm: float | None = None
    hd95_pooled_vox: float | None = None
    hd95_max_mm: float | None = None
    assd_mm: float | None = None
    hd_mm: float | None = None


def measure(reference: Mask, prediction: Mask, spacing_mm: Sequence[float]) -> Scores:
    """Score a predicted mask against its reference.

    Args:
        reference: mask of any dimension; z, y, x in three.
        prediction: mask of the same shape.
        spacing_mm: distance of neighbouring voxels along each axis, in the order of the array's axes.

    Raises:
        ValueError: shapes differ, or a spacing is not a positive finite number.
    """
    _check(reference, prediction, spacing_mm)
    diagonal_mm = float(np.linalg.norm(np.multiply(reference.shape, spacing_mm)))
    status = _STATUS[bool(reference.any()), bool(prediction.any())]
    if status != "ok":
        return Scores(status, diagonal_mm, dice=None if status == "absent" else 0.0)
    reference, prediction, spacing_mm = _in_slice(reference, prediction, spacing_mm)
    reference, prediction = _cropped(reference, prediction)
    borders = border(reference), border(prediction)
    (forth, back), in_voxels = directed_distances(*borders, spacing_mm, (1.0,) * reference.ndim)
    pooled, voxels = np.concatenate((forth, back)), np.concatenate(in_voxels)
    return Scores(
        status,
        diagonal_mm,
        dice=_dice(reference, prediction),
        hd95_pooled_mm=float(np.percentile(pooled, 95)),
        hd95_pooled_vox=float(np.percentile(voxels, 95)),
        hd95_max_mm=float(max(np.percentile(forth, 95), np.percentile(back, 95))),
        assd_mm=float(pooled.mean()),
        hd_mm=float(pooled.max()),
    )


def border(mask: Mask) -> Mask:
    """The voxels of a mask with a face neighbour outside it; beyond the array is outside."""
    padded = np.pad(mask, 1)
    inside = mask.copy()
    for axis in range(mask.ndim):
        for neighbours in (slice(None, -2), slice(2, None)):
            inside &= padded[tuple(neighbours if other == axis else _CENTRE for other in range(mask.ndim))]
    return mask & ~inside


def directed_distances(
    first: Mask, second: Mask, *spacings: Sequence[float]
) -> list[tuple[Distances, Distances]]:
    """For each spacing, distances from every border voxel of one mask to the nearest of the other, and back.

    Args:
        first: border of the one mask, with at least one voxel.
        second: border of the other.
        spacings: distance of neighbouring voxels along each axis.

    Returns:
        Distances in the unit of the spacing, in no particular order.
    """
    ours, theirs = np.argwhere(first), np.argwhere(second)
    shared = np.zeros(np.count_nonzero(first & second))
    only_ours, only_theirs = ours[~second[first]], theirs[~first[second]]
    return [
        (
            np.concatenate((shared, _nearest(only_ours * step, theirs * step))),
            np.concatenate((shared, _nearest(only_theirs * step, ours * step))),
        )
        for step in map(np.asarray, spacings)
    ]


def _nearest(points: Distances, goals: Distances) -> Distances:
    """Distance of each point to the nearest goal. The tree is the one that is fastest to build and ask once."""
    distances: Distances = cKDTree(goals, balanced_tree=False, compact_nodes=False).query(points)[0]
    return distances


def _check(reference: Mask, prediction: Mask, spacing_mm: Sequence[float]) -> None:
    if not reference.dtype == prediction.dtype == bool:
        raise ValueError(
            f"Masks are boolean, not {reference.dtype} and {prediction.dtype}: compare a NumPy array (of a tensor: "
            ".numpy()) with a label."
        )
    if reference.shape != prediction.shape or len(spacing_mm) != reference.ndim:
        raise ValueError(f"Shapes {reference.shape}, {prediction.shape} and spacing {spacing_mm} do not fit.")
    if not all(np.isfinite(step) and step > 0 for step in spacing_mm):
        raise ValueError(f"Spacing {spacing_mm} is not positive and finite.")


def _in_slice(
    reference: Mask, prediction: Mask, spacing_mm: Sequence[float]
) -> tuple[Mask, Mask, Sequence[float]]:
    """Both masks and their spacing without axes of length one, but for the last axis there is."""
    single = tuple(axis for axis, size in enumerate(reference.shape) if size == 1)[: reference.ndim - 1]
    flat_mm: list[float] = np.delete(spacing_mm, single).tolist()
    return np.squeeze(reference, single), np.squeeze(prediction, single), flat_mm


def _cropped(reference: Mask, prediction: Mask) -> tuple[Mask, Mask]:
    """Both masks in their common bounding box; no margin is needed since outside the array is background."""
    box: tuple[slice, ...] = ()
    union = reference | prediction
    for axis in range(union.ndim):
        inside = np.flatnonzero(union.any(axis=tuple(other for other in range(union.ndim) if other != axis)))
        box = (*box, slice(inside[0], inside[-1] + 1))
        union = union[(slice(None),) * axis + box[-1:]]
    return reference[box], prediction[box]


def _dice(reference: Mask, prediction: Mask) -> float:
    overlap = np.count_nonzero(reference & prediction)
    return 2 * overlap / (np.count_nonzero(reference) + np.count_nonzero(prediction))
