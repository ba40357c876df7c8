"""Decoder features out of nnU-Net's U-Nets, without touching their parameter names."""

from typing import Any

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn

from ccdcseg.errors import UserError


class TappedDecoder(UNetDecoder):  # type: ignore[misc]
    """nnU-Net's decoder; in training mode it returns (its output, features of one stage).

    In evaluation mode it is nnU-Net's own, so predictor and validation see a plain network.
    """

    tapped_stage: int

    def forward(self, skips: list[Tensor]) -> Any:
        """Decode; see the class."""
        if not self.training:
            return super().forward(skips)
        x, features, outputs = skips[-1], skips[-1], []
        for depth, stage in enumerate(self.stages):
            x = stage(torch.cat((self.transpconvs[depth](x), skips[-(depth + 2)]), 1))
            if depth == self.tapped_stage:
                features = x
            if self.deep_supervision or depth == len(self.stages) - 1:
                outputs.append(self.seg_layers[depth](x))
        return (outputs[::-1] if self.deep_supervision else outputs[-1]), features


def tap_decoder(network: nn.Module, stage: int) -> nn.Module:
    """Make a U-Net of nnU-Net return the features of a decoder stage while it trains.

    Args:
        network: as nnU-Net builds it.
        stage: 0 the last stage (full resolution), 1 the one before, and so on.

    Raises:
        UserError: the network has no such decoder, or no such stage.

    Example:
        >>> from dynamic_network_architectures.architectures.unet import PlainConvUNet
        >>> network = PlainConvUNet(1, 3, (8, 16, 32), nn.Conv2d, 3, (1, 2, 2), 1, 4, 1)
        >>> network = tap_decoder(network, stage=0).train()
        >>> logits, features = network(torch.randn(2, 1, 32, 32))
        >>> tapped_channels(network), tuple(features.shape)
        (8, (2, 8, 32, 32))
    """
    decoder: Any = getattr(network, "decoder", None)
    if type(decoder) not in (UNetDecoder, TappedDecoder):
        raise UserError(
            f"A contrastive loss cannot read features from {type(network).__name__}.",
            "Use plans with nnU-Net's PlainConvUNet or ResidualEncoderUNet.",
        )
    if not 0 <= stage < len(decoder.stages):
        raise UserError(
            f"decoder_stage is {stage}, but the network has {len(decoder.stages)} decoder stages.",
            f"Set it between 0 (full resolution) and {len(decoder.stages) - 1}.",
        )
    decoder.__class__ = TappedDecoder
    decoder.tapped_stage = len(decoder.stages) - 1 - stage
    return network


def tapped_channels(network: nn.Module) -> int:
    """Channels of the tapped features."""
    decoder: Any = network.decoder
    channels: int = decoder.stages[decoder.tapped_stage].output_channels
    return channels
