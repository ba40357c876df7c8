"""Reading feature vectors at sampled pixels, with a backward pass that need not touch the whole map."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Gather(torch.autograd.Function):
    """Feature vectors at pixels; the gradient of the map is sparse where its producer takes that, else dense."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, pixels: Tensor, sparse: bool) -> Tensor:
        channels, size = features.shape[1], features.shape[2:].numel()
        first = pixels + pixels // size * (channels - 1) * size
        places = (torch.arange(channels, device=pixels.device)[:, None] * size + first).flatten()
        ctx.save_for_backward(places)
        ctx.shape, ctx.sparse = features.shape, sparse
        return features.reshape(-1).index_select(0, places).view(channels, -1).T.contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        values = gradient.T.flatten()
        if not ctx.sparse:
            dense = values.new_zeros(ctx.shape.numel())
            return dense.index_add_(0, places, values).view(ctx.shape), None, None
        indices = torch.stack(coordinates(places, ctx.shape[1:]))
        result = torch.sparse_coo_tensor(indices, values, ctx.shape, check_invariants=False)
        return result, None, None


class _Tap(torch.autograd.Function):
    """Features for the segmentation layer and for a contrastive loss, whose gradient may be sparse."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return features.view_as(features), features.view_as(features)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, main: Tensor | None, tapped: Tensor | None) -> Tensor | None:
        if tapped is None:
            return main
        if main is None:
            return tapped.to_dense() if tapped.is_sparse else tapped
        return _add_sparse(main, tapped) if tapped.is_sparse else main.add_(tapped)


def _add_sparse(dense: Tensor, sparse: Tensor) -> Tensor:
    """Add in place, where its own addition would wait for the device."""
    places = torch.stack([i * step for i, step in zip(sparse._indices(), dense.stride(), strict=True)]).sum(0)
    span = 1 + sum((size - 1) * step for size, step in zip(dense.shape, dense.stride(), strict=True))
    dense.as_strided((span,), (1,)).index_add_(0, places, sparse._values())
    return dense


def coordinates(indices: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """Coordinates of flat indices (n,): (n,) each, of the axis before ``shape`` first, then of its axes."""
    found: list[Tensor] = []
    for size in reversed(shape):
        found.append(indices % size)
        indices = indices // size
    return [indices, *reversed(found)]


def tap_features(features: Tensor) -> tuple[Tensor, Tensor]:
    """Hand decoder features to the segmentation layer and to a contrastive loss.

    Optional: every loss works without it. With it, the gradient of the few thousand pixels drawn is added in
    place to that of the segmentation layer, rather than travelling as a map full of zeros. In a network under
    ``torch.compile`` it does nothing.

    Args:
        features: (B, C, *spatial).

    Returns:
        ``(main, tapped)``, both equal to ``features``. ``main`` must go into convolutions or linear layers
        alone, whose gradient is a tensor of its own: that of an addition is shared and would be spoilt.
        ``tapped`` is for the loss.

    Example:
        >>> body, layer = torch.nn.Conv2d(1, 8, 3), torch.nn.Conv2d(8, 3, 1)
        >>> main, tapped = tap_features(body(torch.randn(2, 1, 6, 6)))
        >>> tuple(layer(main).shape), tuple(tapped.shape)
        ((2, 3, 4, 4), (2, 8, 4, 4))
    """
    if torch.compiler.is_compiling():
        return features, features
    main, tapped = _Tap.apply(features)
    return main, tapped


def gather_pixels(features: Tensor, pixels: Tensor) -> Tensor:
    """Feature vectors at ``pixels``.

    Args:
        features: (B, C, *spatial).
        pixels: (n,) int64 indices into the flattened (B, *spatial) batch.

    Returns:
        (n, C) vectors, in the type of ``features``.
    """
    sparse = type(features.grad_fn).__name__ == "_TapBackward" and features.output_nr == 1
    vectors: Tensor = _Gather.apply(features, pixels, sparse)
    return vectors
