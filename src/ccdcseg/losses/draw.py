"""Drawing indices at random, in a time that does not depend on how many there are to draw from.

Draws are made on the CPU, so that a seed gives the same pixels on every device.
"""

import torch
from torch import Tensor


def with_replacement(
    size: int, count: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """``count`` indices below ``size``, independent and uniform: (count,) int64."""
    return torch.randint(size, (count,), generator=generator).to(device)


def without_replacement(
    size: int, count: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """``count`` different indices below ``size``, every subset equally likely: (count,) int64 in random order.

    Few of many: independent draws, repeats struck out. Given how many differ, each set of that many is equally
    likely, so a random part of it is a fair draw.

    Raises:
        ValueError: ``count`` exceeds ``size``.
    """
    if count > size:
        raise ValueError(f"cannot draw {count} different indices of {size}")
    if size < 4 * count:
        return torch.randperm(size, generator=generator)[:count].to(device)
    drawn = torch.empty(0, dtype=torch.int64)
    while len(drawn) < count:
        more = torch.randint(size, (count + count // 2 + 8,), generator=generator)
        drawn = torch.unique(torch.cat((drawn, more)))
    order = torch.randperm(len(drawn), generator=generator)[:count]
    return drawn[order].to(device)
