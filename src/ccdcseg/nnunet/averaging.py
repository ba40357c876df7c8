"""An exponential moving average of a network's weights, which predicts in its place."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged_copy(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of a network whose weights follow the network's, by its method ``update_parameters``.

    After t updates the average keeps min(1 - 1 / (t + 1), decay) of itself (Tarvainen and Valpola, NeurIPS 2017):
    the first 1 / (1 - decay) steps are averaged evenly, so that the untrained weights leave no trace.

    Args:
        network: to follow, without wrappers of DistributedDataParallel or torch.compile.
        decay: from 0 on, below 1.
    """

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Any) -> None:
        kept = min(1 - 1 / (int(updates) + 1), decay)
        torch._foreach_lerp_(list(averaged), list(current), 1 - kept)

    averaged = AveragedModel(network, multi_avg_fn=update, use_buffers=False)
    averaged.requires_grad_(False)
    return averaged
