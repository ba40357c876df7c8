"""Drawing core, queries and negatives of every class from one batch.

The device divides the pixels into sets (`class_sets`), the host draws members of them by their numbers
(`draw_pixels`), and the device finds the pixels that have these numbers (`located`).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ccdcseg.losses.ccdc.core import is_core
from ccdcseg.losses.ccdc.negatives import draw_negatives, largest_remainder, negative_weights
from ccdcseg.losses.ccdc.queries import draw_queries, easy_thresholds, is_easy
from ccdcseg.losses.ccdc.settings import CCDCSettings
from ccdcseg.losses.parts.class_statistics import ClassStatistics
from ccdcseg.losses.parts.draw import at_most
from ccdcseg.losses.parts.pixel_sets import of_classes
from ccdcseg.losses.parts.selection import Selection


def class_sets(
    probabilities: Tensor, labels: Tensor, statistics: ClassStatistics, settings: CCDCSettings
) -> dict[str, Tensor]:
    """The pixels of each class, its core, and its pixels that may be easy or hard queries: (1, C, B * N) bool each.

    Args:
        probabilities: (B, C, N) softmax probabilities.
        labels: (B, N) labels; pixels outside [0, C) are left out.
        statistics: class confidence and confusion.
        settings: of the loss.
    """
    own = probabilities.gather(1, labels.clamp(min=0)[:, None]).flatten()
    members = of_classes(labels.flatten()[None], probabilities.shape[1])
    thresholds = easy_thresholds(statistics.confidence, settings)
    easy = is_easy(own, thresholds)
    core = is_core(own, settings.core_threshold)
    askable = members if settings.core_as_queries else members & ~core
    return {"class": members, "core": members & core, "easy": askable & easy, "hard": askable & ~easy}


def draw_pixels(
    sets: Mapping[str, Sequence[range]],
    shape: tuple[int, ...],
    confusion: Sequence[Sequence[float]],
    cores: Sequence[int],
    progress: float,
    settings: CCDCSettings,
    generator: torch.Generator | None,
) -> Selection:
    """Draw the pixels of one call of the loss, on the CPU, by their numbers.

    Args:
        sets: numbers of the pixels in each of `class_sets`.
        shape: (B, *spatial).
        confusion: (C, C) mean probability of class c over the pixels of A.
        cores: (C,) core pixels of each class, here or (scope "global") on all ranks.
        progress: of the training, 0 to 1.
        settings: of the loss.
        generator: CPU source of randomness.

    Returns:
        The selection with numbers in place of pixels. A class is a query class if it has pixels here and a core,
        the background only where ``background_queries`` is set.
    """
    core = {c: at_most(own, settings.core_pixels, generator) for c, own in enumerate(sets["core"]) if own}
    sizes = [len(own) for own in sets["class"]]
    queries, negatives = {}, {}
    for c in range(0 if settings.background_queries else 1, len(cores)):
        if not cores[c]:
            continue
        drawn = draw_queries(sets["easy"][c], sets["hard"][c], confusion[c][c], progress, settings, generator)
        if len(drawn.pixels):
            weights = negative_weights(settings.negative_strategy, confusion[c], sizes, c)
            counts = largest_remainder(weights, settings.negatives)
            queries[c] = drawn
            negatives[c] = draw_negatives(sets["class"], counts, generator)
    available = {c: len(own) for c, own in enumerate(sets["core"])}
    return Selection(shape, core, available, queries, negatives)
