"""Computing on the CPU what PyTorch cannot compute on a device, such as Apple's or Intel's GPUs."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

COMPLETE = frozenset({"cpu", "cuda"})
"""Devices that have every operation of the losses."""


def lacking(criterion: Any, device: torch.device) -> str:
    """What a device lacks for a contrastive loss, as PyTorch says it; empty where it lacks nothing.

    A copy of the loss is tried on a small batch, there and back. It works on the CPU, so that whatever fails is the
    device's.
    """
    trial = copy.deepcopy(criterion).train()
    size, channels = (2, 8, 8), criterion.head.hidden.in_features
    try:
        target = torch.arange(2 * 64, device=device).view(size) % criterion.num_classes
        logits = 9 * nn.functional.one_hot(target, criterion.num_classes).movedim(-1, 1).float()
        for _ in range(2):  # a memory is empty in the first
            features = torch.ones(2, channels, 8, 8, device=device, requires_grad=True)
            trial(features, logits, target, progress=0.0, generator=torch.Generator()).backward()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        return str(error).splitlines()[0]
    return ""


def on_cpu(criterion: nn.Module, features: Tensor, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    """A loss whose inputs, parameters and buffers are on a device, computed on the CPU."""
    buffers = dict(criterion.named_buffers())
    state = {name: value.cpu() for name, value in (*criterion.named_parameters(), *buffers.items())}
    given = (features.cpu(), logits.cpu(), target.cpu())
    loss: Tensor = torch.func.functional_call(criterion, state, given, options)
    for name, buffer in buffers.items():
        buffer.copy_(state[name])
    return loss.to(features.device)
