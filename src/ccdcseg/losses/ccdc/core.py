"""The confidence class-specific core: the pixels of A with ``p_i^A > t_h`` (Eq. 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ccdcseg.losses.parts.class_statistics import sum_over_ranks
from ccdcseg.losses.parts.projection import unit
from ccdcseg.losses.parts.settings import StatisticsScope


def is_core(probabilities: Tensor, threshold: float) -> Tensor:
    """Which pixels are core pixels, by the probability of their own class: ``p_i^A > t_h`` (Eq. 2)."""
    return probabilities > threshold


def core_representations(
    representations: Sequence[Tensor], available: Sequence[int], scope: StatisticsScope
) -> Tensor:
    """Average the core pixels' representations by class and normalise the mean.

    Deviation: Eq. 2 leaves normalisation open; pixels and mean have unit length here.

    Args:
        representations: C tensors (n_c, d) of unit vectors, empty for a class without core pixels.
        available: C numbers of core pixels there were; each class's mean counts as so many.
        scope: the core pixels of this rank or of all ranks (then without gradient from the other ranks).

    Returns:
        (C, d) unit vectors, zero for a class without core.
    """
    shares = [count / max(1, len(part)) for count, part in zip(available, representations, strict=True)]
    sums = torch.stack([part.sum(0) * share for part, share in zip(representations, shares, strict=True)])
    if scope is StatisticsScope.GLOBAL:
        everywhere = sums.detach().clone()
        sum_over_ranks(everywhere)
        sums = sums + (everywhere - sums.detach())
    return unit(sums)
