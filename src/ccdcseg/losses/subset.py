"""Sets of pixels, of which a few members are wanted and a list of all would be long."""

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 128


class PixelSubset:
    """A set of pixels, given as a mask, whose r-th member is found without listing the others.

    Members are counted once in blocks; a rank is then looked up in the blocks' running total and counted out
    inside its block. Listing every pixel of every class would cost more than the loss itself.

    Args:
        mask: (N,) bool over the flattened batch.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self._blocks = F.pad(mask, (0, -len(mask) % _BLOCK)).view(-1, _BLOCK)
        self._ends = _counts(self._blocks).cumsum(0)
        self._size = int(self._ends[-1]) if len(mask) else 0

    def __len__(self) -> int:
        """Number of members."""
        return self._size

    def at(self, ranks: Tensor) -> Tensor:
        """Indices of the members with these ranks, counted from 0 in the order of their indices.

        Args:
            ranks: (n,) int64, each below the size of the set.

        Returns:
            (n,) int64 indices into the flattened batch.
        """
        if len(ranks) * _BLOCK > len(self.mask):  # a list of all is the shorter way
            return self.members()[ranks]
        block = torch.searchsorted(self._ends, ranks, right=True)
        inside = self._blocks[block]
        before = self._ends[block] - inside.sum(1)
        place = (inside.cumsum(1) <= (ranks - before)[:, None]).sum(1)
        return block * _BLOCK + place

    def members(self) -> Tensor:
        """Indices of all members, in order."""
        return self.mask.nonzero()[:, 0]


def _counts(blocks: Tensor) -> Tensor:
    """True values of each row, adding eight at a time: the 16 words of a row cannot overflow a byte."""
    words = blocks.view(torch.uint8).view(torch.int64).sum(1)
    return words.view(torch.uint8).view(-1, 8).sum(1)
