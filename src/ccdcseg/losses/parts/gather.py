"""Reading feature vectors at sampled pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor


def gather_pixels(features: Tensor, pixels: Tensor) -> Tensor:
    """Feature vectors at ``pixels``.

    Args:
        features: (B, C, *spatial).
        pixels: (n,) int64 indices into the flattened (B, *spatial) batch.

    Returns:
        (n, C) vectors, in the type of ``features``.
    """
    last = features.movedim(1, -1)
    if last.is_contiguous():  # channels_last: flattened in the other order it would be copied whole
        return last.flatten(0, -2).index_select(0, pixels)
    channels, size = features.shape[1], features.shape[2:].numel()
    first = pixels + pixels // size * (channels - 1) * size
    places = (torch.arange(channels, device=pixels.device)[:, None] * size + first).flatten()
    return features.reshape(-1).index_select(0, places).view(channels, -1).T.contiguous()


def coordinates(indices: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """Coordinates of flat indices (n,): (n,) each, of the axis before ``shape`` first, then of its axes."""
    found: list[Tensor] = []
    for size in reversed(shape):
        found.append(indices % size)
        indices = indices // size
    return [indices, *reversed(found)]
