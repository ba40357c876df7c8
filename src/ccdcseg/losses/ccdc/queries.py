"""Easy and hard pixels of a class, and the queries drawn from them (Eq. 3, Sect. 3.3)."""

import torch
from torch import Tensor

from ccdcseg.losses.ccdc.settings import CCDCSettings, QueryStrategy, Shortage, ThresholdRule
from ccdcseg.losses.parts.draw import with_replacement, without_replacement
from ccdcseg.losses.parts.pixel_sets import no_numbers
from ccdcseg.losses.parts.selection import ClassQueries


def easy_thresholds(confidence: Tensor, settings: CCDCSettings) -> Tensor:
    """(C,) ``T_A = 1 - D_A`` (Eq. 3) of the class confidence (C,), or the fixed threshold of Tab. 4."""
    if settings.threshold is ThresholdRule.FIXED:
        return torch.full_like(confidence, settings.fixed_threshold)
    return 1 - confidence


def is_easy(probabilities: Tensor, thresholds: Tensor) -> Tensor:
    """(C, n) which pixels are easy for each class: ``p_i^A > T_A`` (Eq. 3); the others are hard.

    Args:
        probabilities: (n,) of each pixel's own class.
        thresholds: (C,) T_A.
    """
    return probabilities > thresholds[:, None].to(probabilities.dtype)


def hard_share(confidence: float, progress: float, settings: CCDCSettings) -> float:
    """The share of hard queries: D_A (Sect. 3.3.2), or another strategy of Tab. 4 and 5.

    Args:
        confidence: D_A.
        progress: of the training, 0 to 1.
        settings: names the strategy.
    """
    shares = {
        QueryStrategy.DYNAMIC: confidence,
        QueryStrategy.FIXED: settings.fixed_hard_share,
        QueryStrategy.EASY_TO_HARD: progress,
        QueryStrategy.EASY: 0.0,
        QueryStrategy.HARD: 1.0,
    }
    return shares[settings.query_strategy]


def query_counts(share: float, easy: int, hard: int, settings: CCDCSettings) -> tuple[int, int]:
    """How many easy and hard queries to draw.

    ``n_hard = round(share * N)`` (halves upwards) and ``n_easy = N - n_hard``, then as
    `Shortage` says. The strategies "easy" and "hard" never turn to the other
    subset.

    Args:
        share: share of hard queries.
        easy: easy pixels there are.
        hard: hard pixels there are.
        settings: the number of queries N, strategy and shortage rule.

    Returns:
        ``(n_easy, n_hard)``.
    """
    n_hard = int(share * settings.queries + 0.5)
    n_easy = settings.queries - n_hard
    only = settings.query_strategy in (QueryStrategy.EASY, QueryStrategy.HARD)
    if settings.shortage is Shortage.REPLACE:
        moved_easy = 0 if easy or only else n_easy
        moved_hard = 0 if hard or only else n_hard
        wanted_easy, wanted_hard = n_easy - moved_easy + moved_hard, n_hard - moved_hard + moved_easy
        return (wanted_easy if easy else 0), (wanted_hard if hard else 0)
    got_easy, got_hard = min(n_easy, easy), min(n_hard, hard)
    if settings.shortage is Shortage.SHORT or only:
        return got_easy, got_hard
    return min(easy, got_easy + n_hard - got_hard), min(hard, got_hard + n_easy - got_easy)


def draw_queries(
    easy: range,
    hard: range,
    confidence: float,
    progress: float,
    settings: CCDCSettings,
    generator: torch.Generator | None,
) -> ClassQueries:
    """Draw queries from the easy and the hard pixels of a class.

    Args:
        easy: numbers of the pixels with ``p_i^A > T_A``.
        hard: numbers of the others.
        confidence: D_A.
        progress: of the training, 0 to 1.
        settings: of the loss.
        generator: source of randomness.

    Returns:
        The queries, on the CPU, with numbers in place of pixels.
    """
    share = hard_share(confidence, progress, settings)
    n_easy, n_hard = query_counts(share, len(easy), len(hard), settings)
    draw = with_replacement if settings.shortage is Shortage.REPLACE else without_replacement
    return ClassQueries(
        easy=draw(easy, n_easy, generator) if n_easy else no_numbers(),
        hard=draw(hard, n_hard, generator) if n_hard else no_numbers(),
        easy_available=len(easy),
        hard_available=len(hard),
        hard_share=share,
    )
