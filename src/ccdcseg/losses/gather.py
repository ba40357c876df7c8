"""Reading feature vectors at sampled pixels, with a backward pass that does not touch the whole map."""

from typing import Any

import torch
from torch import Tensor


class _Gather(torch.autograd.Function):
    """Feature vectors at pixels; the gradient of the map is sparse."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, pixels: Tensor) -> Tensor:
        channels, size = features.shape[1], features.shape[2:].numel()
        channel = torch.arange(channels, device=pixels.device)[:, None]
        places = (pixels // size * channels + channel) * size + pixels % size
        ctx.save_for_backward(places)
        ctx.shape = features.shape
        vectors = features.reshape(-1).index_select(0, places.flatten()).view(channels, -1)
        return vectors.T.contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        coordinates = torch.stack(torch.unravel_index(places.flatten(), ctx.shape))
        values = gradient.T.flatten()
        return torch.sparse_coo_tensor(coordinates, values, ctx.shape, check_invariants=False), None


def _densify(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def gather_pixels(features: Tensor, pixels: Tensor) -> Tensor:
    """Feature vectors at ``pixels``.

    A few thousand pixels are read of a map of hundreds of thousands. Their gradient travels as a sparse tensor,
    which autograd adds in place to the dense one of the segmentation layer; a hook makes it dense where it is
    the only one, so that the layers behind never meet a sparse gradient.

    Args:
        features: (B, C, *spatial).
        pixels: (n,) int64 indices into the flattened (B, *spatial) batch.

    Returns:
        (n, C) vectors, in the type of ``features``.
    """
    if torch.is_grad_enabled() and features.requires_grad:
        features.register_hook(_densify)  # type: ignore[no-untyped-call]
    result: Tensor = _Gather.apply(features, pixels)
    return result
