"""Computing on the CPU what PyTorch cannot compute on a device, such as Apple's or Intel's GPUs."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

COMPLETE = frozenset({"cpu", "cuda"})
"""Devices that have every operation of the losses."""
SIDE, CLASSES = 64, 4
"""Size of the images of a trial, and how many classes these show at most: each is to have a thousand pixels."""


def lacking(criterion: Any, device: torch.device) -> str:
    """What a device lacks for a contrastive loss, as PyTorch says it; empty where it lacks nothing.

    A copy of the loss is tried on a batch, there and back, whatever the first call is for. It works on the CPU, so
    that whatever fails is the device's.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            _try(copy.deepcopy(criterion).train(), device)
    except (NotImplementedError, RuntimeError, TypeError) as error:
        return str(error).splitlines()[0]
    return ""


def _try(trial: Any, device: torch.device) -> None:
    """Two steps, since a memory is empty in the first, on pixels some of which are sure, and some wrong."""
    columns = torch.arange(SIDE, device="cpu").expand(2, SIDE, SIDE)
    target = columns % min(trial.num_classes, CLASSES)
    said = (target + (columns.mT % 4 == 0)) % trial.num_classes
    logits = 9 * nn.functional.one_hot(said, trial.num_classes).movedim(-1, 1).float()
    given = logits.to(device), target.to(device)
    for _ in range(2):
        size = (2, trial.head.hidden.in_features, SIDE, SIDE)
        features = torch.ones(size, device=device, requires_grad=True)
        trial(features, *given, progress=0.0, generator=torch.Generator()).backward()


def on_cpu(criterion: nn.Module, features: Tensor, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    """A loss whose inputs, parameters and buffers are on a device, computed on the CPU."""
    buffers = dict(criterion.named_buffers())
    state = {name: value.cpu() for name, value in (*criterion.named_parameters(), *buffers.items())}
    given = (features.cpu(), logits.cpu(), target.cpu())
    loss: Tensor = torch.func.functional_call(criterion, state, given, options)
    for name, buffer in buffers.items():
        buffer.copy_(state[name])
    return loss.to(features.device)
