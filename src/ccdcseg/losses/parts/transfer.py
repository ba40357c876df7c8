"""Moving several tensors between a device and the host in one piece, since every move may wait for the device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def to_host(*tensors: Tensor) -> list[Tensor]:
    """Copies on the CPU, of any types and shapes. This waits for all that the device still has to do."""
    pieces = [tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in tensors]
    arrived = torch.split(torch.cat(pieces).cpu(), [len(piece) for piece in pieces])
    return [
        piece.clone().view(tensor.dtype).view(tensor.shape)
        for piece, tensor in zip(arrived, tensors, strict=True)
    ]


def to_device(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copies of int64 tensors of the host, of any shapes. Nothing waits for them."""
    together = torch.cat([tensor.flatten() for tensor in tensors])
    pinned = device.type == "cuda"
    sent = (together.pin_memory() if pinned else together).to(device, non_blocking=pinned)
    pieces = torch.split(sent, [tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]
