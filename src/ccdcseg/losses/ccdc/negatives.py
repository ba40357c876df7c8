"""Negatives: how many from which class (Sect. 3.4), and which pixels."""

from collections.abc import Sequence

import torch

from ccdcseg.losses.ccdc.settings import NegativeStrategy
from ccdcseg.losses.parts.draw import with_replacement
from ccdcseg.losses.parts.pixel_sets import no_numbers
from ccdcseg.losses.parts.selection import ClassNegatives


def negative_weights(
    strategy: NegativeStrategy, confusion: Sequence[float], counts: Sequence[int], query_class: int
) -> list[float]:
    """Relative share of each class among the negatives of ``query_class``; 0 where it has no pixel.

    Args:
        strategy: see `NegativeStrategy`.
        confusion: (C,) row M[A] of the confusion matrix.
        counts: (C,) pixels of each class.
        query_class: A.
    """
    by_strategy: dict[NegativeStrategy, Sequence[float]] = {
        NegativeStrategy.DYNAMIC: confusion,
        NegativeStrategy.UNIFORM: [1.0] * len(counts),
        NegativeStrategy.RANDOM: counts,
    }
    others = [float(count > 0 and c != query_class) for c, count in enumerate(counts)]
    weights = [w * other for w, other in zip(by_strategy[strategy], others, strict=True)]
    return weights if sum(weights) > 0 else others


def largest_remainder(weights: Sequence[float], total: int) -> list[int]:
    """Divide ``total`` in proportion to ``weights`` by the method of the largest remainder.

    ``[0.6, 0.25, 0.15] x 256 -> [154, 64, 38]``. Equal remainders: the first class first. All weights zero: all
    zero.
    """
    whole = sum(weights)
    if whole <= 0:
        return [0] * len(weights)
    quotas = [weight / whole * total for weight in weights]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda c: (counts[c] - quotas[c], c))
    for c in by_remainder[: total - sum(counts)]:
        counts[c] += 1
    return counts


def draw_negatives(
    members: Sequence[range], counts: Sequence[int], generator: torch.Generator | None
) -> ClassNegatives:
    """Draw the negatives of a query class, within each class uniformly and with replacement.

    Args:
        members: C sets, the numbers of the pixels of each class.
        counts: (C,) negatives wanted of each class; 0 where it has no pixel.
        generator: source of randomness.

    Returns:
        The negatives, on the CPU, with numbers in place of pixels.
    """
    drawn = [
        with_replacement(own, count, generator) for own, count in zip(members, counts, strict=True) if count
    ]
    numbers = torch.cat([no_numbers(), *drawn])
    classes = torch.repeat_interleave(torch.tensor(counts, device="cpu"))
    return ClassNegatives(numbers, torch.arange(len(numbers), device="cpu"), classes)
