"""The projection head, applied to sampled pixels only."""

import torch.nn.functional as F
from torch import Tensor, nn

from ccdcseg.losses.gather import gather_pixels
from ccdcseg.losses.settings import HeadNormalisation, RegionCombination


class ProjectionHead(nn.Module):
    """Pointwise head h -> z of Fig. 3: linear, (per-pixel normalisation,) ReLU, linear.

    Being pointwise, it need not see the pixels that are not sampled. The paper does not describe its head.

    Args:
        in_channels: channels of the decoder features.
        hidden_channels: width.
        embedding_channels: length of z.
        normalisation: after the first layer.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 256,
        embedding_channels: int = 128,
        normalisation: HeadNormalisation = HeadNormalisation.NONE,
    ) -> None:
        super().__init__()
        layer = normalisation is HeadNormalisation.LAYER
        self.hidden = nn.Linear(in_channels, hidden_channels)
        self.normalisation = nn.LayerNorm(hidden_channels) if layer else nn.Identity()
        self.output = nn.Linear(hidden_channels, embedding_channels)

    def forward(self, features: Tensor, pixels: Tensor, combination: RegionCombination) -> Tensor:
        """Unit representations of regions.

        The output layer is linear, so the mean over a region is taken before it: the same vector for a
        quarter of the work.

        Args:
            features: (B, in_channels, *spatial) decoder features, any floating type.
            pixels: (n, R) indices, int64, into the flattened (B, *spatial) batch.
            combination: how the R projections become one vector.

        Returns:
            (n, embedding) unit vectors, or (n, R * embedding) with "concatenate"; in the head's own precision.
        """
        sampled = gather_pixels(features, pixels.flatten()).to(self.hidden.weight.dtype)
        hidden = F.relu(self.normalisation(self.hidden(sampled)), inplace=True).view(
            *pixels.shape, self.hidden.out_features
        )
        if combination is RegionCombination.MEAN:
            return F.normalize(self.output(hidden.mean(1)), dim=1)
        return F.normalize(self.output(hidden).flatten(1), dim=1)
