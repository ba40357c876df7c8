"""Drawing core, queries and negatives of every class from one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ccdcseg.losses.class_statistics import ClassStatistics, sum_over_ranks
from ccdcseg.losses.core import draw_core
from ccdcseg.losses.negatives import draw_negatives, largest_remainder, negative_weights
from ccdcseg.losses.queries import draw_queries
from ccdcseg.losses.selection import Selection
from ccdcseg.losses.settings import CCDCSettings, StatisticsScope
from ccdcseg.losses.subset import PixelSubset


@torch.no_grad()
def select_pixels(
    probabilities: Tensor,
    labels: Tensor,
    spatial: Sequence[int],
    statistics: ClassStatistics,
    progress: float,
    settings: CCDCSettings,
    generator: torch.Generator | None = None,
) -> Selection:
    """Draw the pixels of one call of the loss.

    Args:
        probabilities: (B, C, N) softmax probabilities.
        labels: (B, N) labels; pixels outside [0, C) are left out.
        spatial: shape that N flattens.
        statistics: class confidence and confusion.
        progress: of the training, 0 to 1.
        settings: of the loss.
        generator: CPU source of randomness.

    Returns:
        The selection. A class is a query class if it has pixels here and a core (with scope "global": on any
        rank), the background only where ``background_queries`` is set.
    """
    batch, classes, _ = probabilities.shape
    own = probabilities.gather(1, labels.clamp(min=0)[:, None]).flatten()
    flat = labels.flatten()
    members = [PixelSubset(flat == c) for c in range(classes)]
    sure = own > settings.core_threshold
    confident = [PixelSubset(pixels.mask & sure) for pixels in members]
    core = {c: draw_core(p, settings.core_pixels, generator) for c, p in enumerate(confident) if len(p)}

    sizes, matrix = [len(pixels) for pixels in members], statistics.matrix.tolist()
    queries, negatives = {}, {}
    with_core = _classes_with_core(confident, settings.statistics_scope)
    for c in with_core if settings.background_queries else [c for c in with_core if c]:
        drawn = draw_queries(members[c].mask, own, matrix[c][c], progress, settings, generator)
        if len(drawn.pixels):
            weights = negative_weights(settings.negative_strategy, matrix[c], sizes, c)
            counts = largest_remainder(weights, settings.negatives)
            queries[c] = drawn
            negatives[c] = draw_negatives(
                members, counts, len(drawn.pixels), settings.negative_sharing, generator
            )
    available = {c: len(pixels) for c, pixels in enumerate(confident)}
    return Selection((batch, *spatial), core, available, queries, negatives)


def _classes_with_core(confident: Sequence[PixelSubset], scope: StatisticsScope) -> list[int]:
    """Classes with core pixels, here or (scope "global") on any rank."""
    sizes = torch.tensor([len(pixels) for pixels in confident], device=confident[0].mask.device)
    if scope is StatisticsScope.GLOBAL:
        sum_over_ranks(sizes)
    return [c for c, size in enumerate(sizes.tolist()) if size]
