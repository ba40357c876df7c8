"""Negatives: how many from which class (Sect. 3.4), and which pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccdcseg.losses.draw import with_replacement
from ccdcseg.losses.pixel_sets import no_numbers
from ccdcseg.losses.settings import NegativeStrategy


@dataclass(frozen=True)
class ClassNegatives:
    """The negatives of one query class.

    Attributes:
        pixels: (m,) indices of the pixels to project.
        columns: (n,) or (Q, n) positions in ``pixels``: the n negatives of all queries, or of each query.
        classes: class of each negative, on the CPU: (n,) where the counts are the same for every query, else
            (Q, n).
    """

    pixels: Tensor
    columns: Tensor
    classes: Tensor


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
    classes = torch.repeat_interleave(torch.tensor(counts))
    return ClassNegatives(numbers, torch.arange(len(numbers)), classes)


def draw_negative_classes(
    members: Sequence[Tensor],
    probabilities: Tensor,
    queries: int,
    negatives: int,
    generator: torch.Generator | None,
) -> ClassNegatives:
    """Draw negatives for each query by itself: the class of each first, then a pixel of the class.

    Args:
        members: C tensors of numbers of the pixels to draw from, one a class, on the CPU.
        probabilities: (C,) of the classes, on the CPU; 0 where a class has no pixel; one of them above 0.
        queries: Q.
        negatives: n.
        generator: source of randomness.

    Returns:
        The negatives, on the CPU, with numbers in place of pixels.
    """
    pool = torch.cat(list(members))
    sizes = torch.tensor([len(pixels) for pixels in members])
    starts = sizes.cumsum(0) - sizes
    classes = torch.multinomial(probabilities, queries * negatives, replacement=True, generator=generator)
    inside = (torch.rand(len(classes), generator=generator, dtype=torch.float64) * sizes[classes]).long()
    used = torch.zeros(len(pool), dtype=torch.bool)
    used[starts[classes] + inside] = True
    columns = (used.cumsum(0) - 1)[starts[classes] + inside]
    shape = (queries, negatives)
    return ClassNegatives(pool[used], columns.view(shape), classes.view(shape))
