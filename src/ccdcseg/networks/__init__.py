"""Networks in plain PyTorch that nnU-Net does not bring along."""

from ccdcseg.networks.nnformer import NNFormer, NNFormerSettings

__all__ = ["NNFormer", "NNFormerSettings"]
