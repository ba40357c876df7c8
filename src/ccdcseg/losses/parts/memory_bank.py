"""Embeddings of earlier batches, by class: a ring buffer that is saved with the training."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ccdcseg.losses.parts.projection import at_least_single


class MemoryBank(nn.Module):
    """The last ``length`` keys of each class, without gradient and equal on all ranks.

    Only keys that were written are handed out, so that a bank that is not full yet holds nothing made up.

    Args:
        num_classes: C.
        length: keys kept of each class.
        channels: of a key.

    Example:
        >>> bank = MemoryBank(num_classes=2, length=3, channels=4)
        >>> bank.push(torch.ones(5, 4), torch.tensor([0, 0, 0, 0, 1]))
        >>> [len(bank.of_class(c)) for c in (0, 1)]
        [3, 1]
    """

    keys: Tensor
    written: Tensor

    def __init__(self, num_classes: int, length: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(num_classes, length, channels))
        self.register_buffer("written", torch.zeros(num_classes, dtype=torch.int64))

    def of_class(self, c: int) -> Tensor:
        """(n, channels) keys of class ``c``, at most ``length``, in no particular order; float32 at least."""
        return self.first(c, self.sizes(self.written)[c])

    def first(self, c: int, size: int) -> Tensor:
        """(size, channels) of the keys of class ``c``, which must be that many; float32 at least."""
        return at_least_single(self.keys[c, :size])

    def sizes(self, written: Tensor) -> list[int]:
        """Keys kept of each class, given ``written``; from its copy on the CPU without waiting for the device."""
        sizes: list[int] = written.clamp(max=self.keys.shape[1]).tolist()
        return sizes

    @torch.no_grad()
    def push(self, keys: Tensor, classes: Tensor) -> None:
        """Store keys; beyond ``length`` the oldest of the class gives way.

        Keys that are not finite are left out: they would spoil every later call until they are overwritten.

        In distributed training every rank must call it in the same step, with any number of keys; each then
        stores those of all ranks, rank by rank.

        Args:
            keys: (n, channels).
            classes: (n,) int64 class of each.
        """
        keys, classes = gather_over_ranks(keys.detach(), classes)
        if len(keys):
            self._write(keys.to(self.keys.dtype), classes)

    def _write(self, keys: Tensor, classes: Tensor) -> None:
        """Store keys, one or more, without reading from the device which of them, or how many."""
        number, length, channels = self.keys.shape
        each = torch.arange(number, device=keys.device)
        own = (classes[:, None] == each) & keys.isfinite().all(1, keepdim=True)
        turns, counts = own.cumsum(0), own.sum(0)
        stays = own & (turns > counts - length)
        slots = (each * length + (self.written + turns - 1) % length).where(stays, 0).sum(1)
        stored = stays.any(1)
        # A key that is left out stands for the first that is stored; where there is none, for what its slot holds.
        source = torch.arange(len(keys), device=keys.device).where(stored, stored.long().argmax())
        held, slots = self.keys.view(-1, channels), slots[source]
        held[slots] = keys[source].where(stored.any(), held[slots])
        self.written.add_(counts)  # In place: a sum with MONAI's tensors is one of theirs, metadata and all.


def gather_over_ranks(keys: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and classes of all ranks of the default process group, in the order of the ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return keys, classes
    size = torch.tensor([len(keys)], device=keys.device)
    sizes = [torch.zeros_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    counts = [int(one) for one in sizes]

    def everywhere(values: Tensor) -> Tensor:
        padded = F.pad(values, [0, 0] * (values.ndim - 1) + [0, max(counts) - len(values)])
        parts = [torch.zeros_like(padded) for _ in counts]
        dist.all_gather(parts, padded.contiguous())
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    return everywhere(keys), everywhere(classes)
