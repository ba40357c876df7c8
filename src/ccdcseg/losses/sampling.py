"""Drawing core, queries and negatives of every class from one batch.

The device divides the pixels into sets (`class_sets`), the host draws members of them by their numbers
(`draw_pixels`), and the device finds the pixels that have these numbers (`located`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ccdcseg.losses.class_statistics import ClassStatistics
from ccdcseg.losses.draw import at_most
from ccdcseg.losses.negatives import draw_negatives, largest_remainder, negative_weights
from ccdcseg.losses.pixel_sets import PixelSets
from ccdcseg.losses.queries import draw_queries, easy_thresholds
from ccdcseg.losses.selection import Selection
from ccdcseg.losses.settings import CCDCSettings


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
    thresholds = easy_thresholds(statistics.confidence, settings).to(own.dtype)
    easy = own > thresholds[:, None]
    core = own > settings.core_threshold
    askable = members if settings.core_as_queries else members & (own <= settings.core_threshold)
    return {"class": members, "core": members & core, "easy": askable & easy, "hard": askable & ~easy}


def of_classes(labels: Tensor, classes: int) -> Tensor:
    """(I, C, N) bool of (I, N) labels: the pixels of each class."""
    return labels[:, None] == torch.arange(classes, device=labels.device)[:, None]


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


def located(drawn: Selection, sets: PixelSets) -> Selection:
    """A selection with pixels, on the device of the sets, in place of their numbers."""
    queries, negatives = drawn.queries, drawn.negatives
    numbers = [*drawn.core.values(), *(part for q in queries.values() for part in (q.easy, q.hard))]
    numbers += [negative.pixels for negative in negatives.values()]
    found, columns = sets.find(numbers, [negative.columns for negative in negatives.values()])
    pixels, column = iter(found), iter(columns)
    return replace(
        drawn,
        core={c: next(pixels) for c in drawn.core},
        queries={c: replace(q, easy=next(pixels), hard=next(pixels)) for c, q in queries.items()},
        negatives={c: replace(n, pixels=next(pixels), columns=next(column)) for c, n in negatives.items()},
    )
