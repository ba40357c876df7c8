"""What the paper calls a region: a pixel together with its neighbours (Sect. 3.5, Fig. 5, Tab. 7)."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from ccdcseg.losses.ccdc.settings import Region
from ccdcseg.losses.parts.gather import coordinates


def neighbour_offsets(region: Region, stride: int, dimensions: int) -> list[tuple[int, ...]]:
    """Offsets of a region's pixels from its own, one coordinate a spatial axis.

    The horizontal axis is the last one, the vertical axis the last but one; in volumes PAIR and BLOCK stay in
    the plane of these two.

    Raises:
        ValueError: BLOCK in fewer than two dimensions.
    """
    extended = {Region.PIXEL: 0, Region.PAIR: 1, Region.BLOCK: 2}[region]
    if extended > dimensions:
        raise ValueError(f"region '{region}' needs {extended} spatial axes, the features have {dimensions}")
    steps = [(0,)] * (dimensions - extended) + [(0, stride)] * extended
    return list(product(*steps))


def with_neighbours(
    pixels: Tensor, labels: Tensor, shape: Sequence[int], offsets: Sequence[tuple[int, ...]]
) -> Tensor:
    """Indices of every pixel of the regions.

    Beyond the border stands the nearest pixel inside, and for a neighbour that is ignored the pixel itself.

    Args:
        pixels: (n,) indices into a flattened (B, *spatial) batch; none of them ignored.
        labels: (B, N) labels, negative where ignored.
        shape: spatial shape.
        offsets: R offsets, from `neighbour_offsets`.

    Returns:
        (n, R) indices, the pixel itself first.
    """
    image, *position = coordinates(pixels, shape)
    moved = image[:, None]
    for axis, size in enumerate(shape):
        steps = [position[axis] + offset[axis] for offset in offsets]
        moved = moved * size + torch.stack(steps, 1).clamp(max=size - 1)
    return torch.where(labels.flatten()[moved] < 0, pixels[:, None], moved)
