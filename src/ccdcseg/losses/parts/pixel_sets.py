"""Sets of pixels, of which a few members are wanted and a list of all would be long."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ccdcseg.losses.parts.transfer import to_device

_BLOCK = 128


class PixelSets:
    """Sets of pixels, given as masks, whose members have numbers and are found by them.

    The numbers run through the first set in the order of its pixels, then through the second, and so on. So the
    host needs no more than the sizes to draw members: see `numbers`. Members are counted once in blocks; a
    number is then looked up in the blocks' running total and counted out inside its block. Listing every pixel of
    every class would cost more than the loss itself.

    Args:
        masks: by kind, each (I, C, N) bool: C sets of every image (I = 1: of the whole batch) of N pixels.

    Attributes:
        sizes: by kind, (I * C,) int64 members of each set, image by image, on the device of the masks.
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        stacked = torch.stack(list(masks.values()))
        *sets, self._pixels = stacked.shape
        padded = F.pad(stacked, (0, -self._pixels % _BLOCK))
        self._shape = padded.shape
        self._blocks = padded.view(-1, _BLOCK)
        counts = _counts(self._blocks)
        self._ends = counts.cumsum(0)
        sizes = counts.view(*sets, padded.shape[-1] // _BLOCK).sum(-1).flatten(1)
        self.sizes = dict(zip(masks, sizes, strict=True))

    def numbers(self, sizes: Sequence[Tensor]) -> dict[str, list[range]]:
        """The members' numbers of each kind's sets, given copies of the values of ``sizes`` on the CPU."""
        found, start = {}, 0
        for kind, own in zip(self.sizes, sizes, strict=True):
            ends = (start + own.cumsum(0)).tolist()
            found[kind] = [range(end - size, end) for size, end in zip(own.tolist(), ends, strict=True)]
            start += int(own.sum())
        return found

    def find(
        self, numbers: Sequence[Tensor], others: Sequence[Tensor] = ()
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Pixels by their numbers, in one transfer from the host to the device.

        Args:
            numbers: groups of them, (n,) int64 each, on the CPU.
            others: further int64 tensors of any shapes, to be sent along.

        Returns:
            The pixels of each group, (n,) int64 indices into the flattened batch, and the others.
        """
        sizes = [len(group) for group in numbers]
        sent = to_device([torch.cat([no_numbers(), *numbers]), *others], self._ends.device)
        return list(torch.split(self._at(sent[0]), sizes)), sent[1:]

    def _at(self, numbers: Tensor) -> Tensor:
        """(n,) pixels of (n,) numbers."""
        if len(numbers) * _BLOCK > self._blocks.numel():  # counting through all is the shorter way
            place = torch.searchsorted(self._blocks.flatten().cumsum(0), numbers, right=True)
        else:
            block = torch.searchsorted(self._ends, numbers, right=True)
            inside = self._blocks[block]
            turns = (numbers - self._ends[block] + _counts(inside)).to(torch.uint8)
            place = block * _BLOCK + _counts(inside.cumsum(1, dtype=torch.uint8) <= turns[:, None])
        _, images, sets, length = self._shape
        return place // (sets * length) % images * self._pixels + place % length


def of_classes(labels: Tensor, classes: int) -> Tensor:
    """(I, C, N) bool of (I, N) labels: the pixels of each class."""
    return labels[:, None] == torch.arange(classes, device=labels.device)[:, None]


def no_numbers() -> Tensor:
    """(0,) int64 on the CPU."""
    return torch.empty(0, dtype=torch.int64, device="cpu")


def _counts(blocks: Tensor) -> Tensor:
    """True values of each row, adding eight at a time: the 16 words of a row cannot overflow a byte."""
    words = blocks.view(torch.uint8).view(torch.int64).sum(1)
    return words.view(torch.uint8).view(-1, 8).sum(1)
