"""The same voxels in another order: axes that are exchanged or run the other way."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ccdcseg.datasets.volumes import Volume, check_pair
from ccdcseg.errors import UserError


def fitted(volume: Volume, onto: Volume) -> Volume:
    """A volume on the voxels of another: as it is, or with its axes in that one's order and direction.

    Nothing is resampled: dcm2niix, for one, stores rows from the bottom up where DICOM has them from the top
    down, and each voxel still says where it lies.

    Returns:
        ``volume`` itself where nothing was to be turned.

    Raises:
        UserError: they do not lie on the same voxels, in whatever order; see `check_pair`.
    """
    try:
        check_pair(onto, volume)
    except UserError as apart:
        other = _turned(volume, onto)
        try:
            check_pair(onto, other)
        except UserError:
            raise apart from None
        return other
    return volume


def whole(part: Volume, of: Volume) -> Volume:
    """A mask of a part of a scan, such as a crop, as one of all its voxels: what is left out is background.

    Returns:
        The mask of the whole scan, in the order of axes of ``part``; see `fitted`.

    Raises:
        UserError: its voxels are not those of the scan (see `check_pair`), or foreground lies outside.
    """
    frame = _turned(of, part)
    first = np.linalg.solve(frame.affine, [*part.origin_mm, 1])[:3].clip(-(2**31), 2**31).round().astype(int)
    _check_on_voxels(part, frame, first)
    shape, start = np.array(frame.array.shape), first[::-1]
    low, high = np.maximum(start, 0), np.minimum(start + part.array.shape, shape)
    inside = part.array[tuple(map(slice, low - start, np.maximum(high - start, 0)))]
    lost = int(np.count_nonzero(part.array)) - int(np.count_nonzero(inside))
    if lost:
        raise UserError(
            f"{part.path} has {lost} labelled voxels outside {of.path}.",
            "Give the whole scan, or its own mask.",
        )
    array = np.zeros(frame.array.shape, part.array.dtype)
    array[tuple(map(slice, low, np.maximum(high, low)))] = inside
    return replace(frame, path=part.path, array=array, notes=part.notes)


def _check_on_voxels(part: Volume, frame: Volume, first: NDArray[np.int_]) -> None:
    """Refuse a part whose corners do not lie on voxels of the frame, the first one on the voxel ``first``."""
    origin = frame.affine[:3, :3] @ first + frame.affine[:3, 3]
    there = replace(frame, array=part.array, origin_mm=tuple(origin.tolist()))
    check_pair(there, part)


def _turned(volume: Volume, onto: Volume) -> Volume:
    """Axes exchanged and flipped so that each runs as nearly as can be along that of another volume."""
    axes, wanted = (np.reshape(one.direction, (3, 3)) for one in (volume, onto))
    along = wanted.T @ axes  # row: axis wanted, column: axis there is
    order = np.abs(along).argmax(axis=1)
    if len({*order.tolist()}) < 3:
        return volume
    steps = np.where(along[range(3), order] < 0, -1, 1)
    array = volume.array.transpose(2 - order[::-1])[tuple(slice(None, None, step) for step in steps[::-1])]
    far = (steps < 0) * (
        np.array(array.shape[::-1]) - 1
    )  # the voxel, by the old directions, that comes first now
    origin = volume.affine[:3, [*order]] @ far + volume.affine[:3, 3]
    z, y, x = (volume.spacing_mm[axis] for axis in 2 - order[::-1])
    return replace(
        volume,
        array=np.ascontiguousarray(array),
        spacing_mm=(z, y, x),
        origin_mm=tuple(origin.tolist()),
        direction=tuple((axes[:, order] * steps).ravel().tolist()),
    )
