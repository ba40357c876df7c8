"""Drawing members of a set at random, in a time that does not depend on how many there are to draw from.

A set is the `range` of its members' numbers (see `PixelSets` in ``pixel_sets``). Draws are made on the
CPU, so that a seed gives the same pixels on every device.
"""

import torch
from torch import Tensor


def with_replacement(members: range, count: int, generator: torch.Generator | None) -> Tensor:
    """``count`` members, independent and uniform: (count,) int64."""
    return members.start + torch.randint(len(members), (count,), generator=generator, device="cpu")


def without_replacement(members: range, count: int, generator: torch.Generator | None) -> Tensor:
    """``count`` different members, every subset equally likely: (count,) int64 in random order.

    Few of many: independent draws, repeats struck out. Given how many differ, each set of that many is equally
    likely, so a random part of it is a fair draw.

    Raises:
        ValueError: ``count`` exceeds the size of the set.
    """
    size = len(members)
    if count > size:
        raise ValueError(f"cannot draw {count} different indices of {size}")
    if size < 4 * count:
        return members.start + torch.randperm(size, generator=generator, device="cpu")[:count]
    drawn = torch.empty(0, dtype=torch.int64, device="cpu")
    while len(drawn) < count:
        more = torch.randint(size, (count + count // 2 + 8,), generator=generator, device="cpu")
        drawn = torch.unique(torch.cat((drawn, more)))
    order = torch.randperm(len(drawn), generator=generator, device="cpu")[:count]
    return members.start + drawn[order]


def at_most(members: range, limit: int | None, generator: torch.Generator | None) -> Tensor:
    """All members, in order, or ``limit`` (None: no limit) different ones where there are more: (n,) int64."""
    if limit is None or len(members) <= limit:
        return torch.arange(members.start, members.stop, device="cpu")
    return without_replacement(members, limit, generator)
