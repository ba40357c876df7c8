"""The projection head, applied to sampled pixels only."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccdcseg.losses.parts.gather import gather_pixels

_SHORTEST = 1e-12


class ProjectionHead(nn.Module):
    """Pointwise head h -> z of Fig. 3: linear, ReLU, linear.

    Being pointwise, it need not see the pixels that are not sampled. The paper does not describe its head.

    Args:
        in_channels: channels of the decoder features.
        hidden_channels: width.
        embedding_channels: length of z.
    """

    def __init__(self, in_channels: int, hidden_channels: int = 256, embedding_channels: int = 128) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_channels, hidden_channels)
        self.output = nn.Linear(hidden_channels, embedding_channels)

    def forward(self, features: Tensor, pixels: Tensor, *, concatenate: bool = False) -> Tensor:
        """Unit representations of regions.

        The output layer is linear, so the mean over a region is taken before it: the same vector for a
        quarter of the work.

        Args:
            features: (B, in_channels, *spatial) decoder features, any floating type.
            pixels: (n, R) indices, int64, into the flattened (B, *spatial) batch.
            concatenate: The R projections stand one after the other; by default their mean is taken.

        Returns:
            (n, embedding) unit vectors, or (n, R * embedding) concatenated; in float32, or float64 from a head in
            that.
        """
        hidden = self._hidden(gather_pixels(features, pixels.flatten())).view(
            *pixels.shape, self.hidden.out_features
        )
        if concatenate:
            return unit(self._output(hidden).flatten(1))
        return unit(self._output(hidden.mean(1)))

    def vectors(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Embeddings of single pixels before they are given unit length.

        Args:
            features: (B, in_channels, *spatial) decoder features.
            pixels: (n,) int64 indices into the flattened (B, *spatial) batch.

        Returns:
            (n, embedding), in float32, or float64 from a head in that.
        """
        return self._output(self._hidden(gather_pixels(features, pixels)))

    def group_means(self, features: Tensor, pixels: Tensor, groups: Tensor, number: int) -> Tensor:
        """Mean embeddings of groups of pixels; the mean is taken before the linear output layer.

        Args:
            features: (B, in_channels, *spatial) decoder features.
            pixels: (n,) int64 indices into the flattened (B, *spatial) batch.
            groups: (n,) int64, the group of each, below ``number``.
            number: of groups, G.

        Returns:
            (G, embedding) means, not normalised, in float32, or float64 from a head in that; for an empty group the
            output layer's bias.
        """
        hidden = at_least_single(self._hidden(gather_pixels(features, pixels)))
        sums = hidden.new_zeros(number, hidden.shape[1]).index_add(0, groups, hidden)
        counts = groups.new_zeros(number).index_add(0, groups, torch.ones_like(groups)).clamp(min=1)
        return self._output(sums / counts[:, None])

    def _hidden(self, vectors: Tensor) -> Tensor:
        """(..., hidden) of feature vectors (..., in_channels)."""
        own = vectors.to(self.hidden.weight.dtype)
        return F.relu(self.hidden(own))

    def _output(self, hidden: Tensor) -> Tensor:
        """(..., embedding) of (..., hidden)."""
        return at_least_single(self.output(hidden.to(self.output.weight.dtype)))


def unit(vectors: Tensor) -> Tensor:
    """Vectors along the last axis at length 1; those shorter than 1e-12 as they are.

    `torch.nn.functional.normalize` divides those by 1e-12, and their gradient with them: where a head without
    biases meets pixels without features, one step would end the training.
    """
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.where(length > _SHORTEST, 1)


def at_least_single(values: Tensor) -> Tensor:
    """The values in float32, where their type is narrower."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
