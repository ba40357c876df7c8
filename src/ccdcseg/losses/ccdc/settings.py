"""Settings of CCDC, one enum per choice of its paper.

Every default is our reading, described in ``docs/method.md``; every other value is either an ablation of the
paper's Tables 4 to 8 or another reading of a sentence that the paper leaves open.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from ccdcseg.losses.parts.settings import ContrastiveSettings, StatisticsScope


class ThresholdRule(StrEnum):
    """What separates easy from hard pixels of a class (Eq. 3, Tab. 4)."""

    ADAPTIVE = "adaptive"
    """``T_A = 1 - D_A``, with the class confidence ``D_A``."""
    FIXED = "fixed"
    """``fixed_threshold`` for every class: Tab. 4 "without adaptive T"."""


class QueryStrategy(StrEnum):
    """Which share of the queries is hard (Sect. 3.3.2, Tab. 4 and 5)."""

    DYNAMIC = "dynamic"
    """The class confidence ``D_A``."""
    FIXED = "fixed"
    """``fixed_hard_share``: Tab. 4 "without adjusted ratio"."""
    EASY_TO_HARD = "easy_to_hard"
    """The share of the training that is over, whatever the model's state."""
    EASY = "easy"
    """Easy pixels only, never filled up with hard ones."""
    HARD = "hard"
    """Hard pixels only, never filled up with easy ones."""


class Shortage(StrEnum):
    """What happens when the easy or the hard subset holds fewer pixels than its share (open in the paper)."""

    FILL = "fill"
    """Draw without replacement; the other subset fills the gap."""
    REPLACE = "replace"
    """Draw with replacement (ReCo); an empty subset's share goes to the other one."""
    SHORT = "short"
    """Draw without replacement and go without the missing ones."""


class NegativeStrategy(StrEnum):
    """From which classes the negatives of a query class come (Sect. 3.4, Tab. 6)."""

    DYNAMIC = "dynamic"
    """In proportion to the confusion ``M[A, c]``."""
    UNIFORM = "uniform"
    """The same number from every other class."""
    RANDOM = "random"
    """In proportion to the class sizes."""


class Region(StrEnum):
    """Pixels of a region representation (Sect. 3.5, Fig. 5, Tab. 7)."""

    PIXEL = "pixel"
    """The pixel alone."""
    PAIR = "pair"
    """The pixel and its horizontal neighbour."""
    BLOCK = "block"
    """The 2x2 block in the plane of the last two axes: pixel, horizontal, vertical and diagonal neighbour."""


class RegionCombination(StrEnum):
    """How the projections of a region's pixels become one vector (open in the paper)."""

    MEAN = "mean"
    """Their mean."""
    CONCATENATE = "concatenate"
    """One after the other."""


class Denominator(StrEnum):
    """The form of ``S_c`` in the loss, the part of negative class ``c`` in the denominator (Eq. 5)."""

    PIXEL = "pixel"
    """``sum_j exp(q.n_j / tau)`` over its sampled pixels (InfoNCE)."""
    CLASS_MEAN = "class_mean"
    """``exp(mean_j q.n_j / tau)``: one term a class, the printed form."""


class QueryReduction(StrEnum):
    """How the queries of a class become the loss of the class (Eq. 5)."""

    MEAN = "mean"
    """The mean over the queries."""
    HARDEST = "hardest"
    """The query least similar to its core only: the "min" of the printed formula."""
    SET = "set"
    """One term a class: before the logarithm, the least of its queries' similarities to the core, and their mean to
    each negative, as the braces of the printed formula may be read."""


class ClassAverage(StrEnum):
    """By what the sum over classes is divided (Eq. 7)."""

    QUERY_CLASSES = "query_classes"
    """The number of classes that had queries in this batch."""
    ALL_CLASSES = "all_classes"
    """The number of classes, C."""


@dataclass(frozen=True, kw_only=True)
class CCDCSettings(ContrastiveSettings):
    """Settings of `CCDCLoss`, beside those of `ContrastiveSettings`.

    Attributes:
        queries: queries a class and iteration.
        negatives: negatives a query class and iteration.
        core_threshold: ``t_h`` of Eq. 2 (Tab. 8).
        core_pixels: at most so many core pixels, drawn at random, enter the mean (None: all of them).
        core_gradient: whether the core carries gradient.
        core_as_queries: whether core pixels may be drawn as queries.
        background_queries: whether the background, class 0, has queries; it gives negatives in any case.
        threshold: see `ThresholdRule`.
        fixed_threshold: threshold of ``threshold=fixed``.
        query_strategy: see `QueryStrategy`.
        fixed_hard_share: hard share of ``query_strategy=fixed``.
        shortage: see `Shortage`.
        negative_strategy: see `NegativeStrategy`.
        negative_gradient: whether negatives carry gradient.
        region: see `Region`.
        region_stride: distance to the neighbours of a region, in pixels.
        region_combination: see `RegionCombination`.
        denominator: see `Denominator`.
        query_reduction: see `QueryReduction`.
        class_average: see `ClassAverage`.
        statistics_scope: see `StatisticsScope`.

    Raises:
        ValueError: a value outside its range.
    """

    queries: int = 256
    negatives: int = 256
    core_threshold: float = 0.97
    core_pixels: int | None = 2048
    core_gradient: bool = False
    core_as_queries: bool = True
    background_queries: bool = True
    threshold: ThresholdRule = ThresholdRule.ADAPTIVE
    fixed_threshold: float = 0.5
    query_strategy: QueryStrategy = QueryStrategy.DYNAMIC
    fixed_hard_share: float = 0.5
    shortage: Shortage = Shortage.FILL
    negative_strategy: NegativeStrategy = NegativeStrategy.DYNAMIC
    negative_gradient: bool = False
    region: Region = Region.BLOCK
    region_stride: int = 1
    region_combination: RegionCombination = RegionCombination.MEAN
    denominator: Denominator = Denominator.PIXEL
    query_reduction: QueryReduction = QueryReduction.MEAN
    class_average: ClassAverage = ClassAverage.QUERY_CLASSES
    statistics_scope: StatisticsScope = StatisticsScope.RANK
    embedding_channels: int = 128

    _at_least_one: ClassVar[tuple[str, ...]] = (
        "queries",
        "negatives",
        "core_pixels",
        "region_stride",
    )
    _shares: ClassVar[tuple[str, ...]] = ("core_threshold", "fixed_threshold", "fixed_hard_share")
