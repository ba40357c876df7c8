"""Frozen, validated settings: what all methods share, and CCDC's, one enum per choice of its paper.

Every default of CCDC is our reading, described in ``docs/method.md``; every other value is either an ablation of
the paper's Tables 4 to 8 or another reading of a sentence that the paper leaves open.
"""

import math
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar


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


class ClassAverage(StrEnum):
    """By what the sum over classes is divided (Eq. 7)."""

    QUERY_CLASSES = "query_classes"
    """The number of classes that had queries in this batch."""
    ALL_CLASSES = "all_classes"
    """The number of classes, C."""


class StatisticsScope(StrEnum):
    """Over which pixels class confidence, confusion and core are taken in distributed training."""

    RANK = "rank"
    """Those of this process."""
    GLOBAL = "global"
    """Summed over all ranks of the default process group."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings whose types and ranges are checked when they are made.

    A class names its own numbers of limited range in ``_at_least_one``, ``_at_least_zero`` and ``_shares``; a
    subclass adds to those of its bases.

    Raises:
        ValueError: a value of another type, outside its range, or not among an enum's.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    _at_least_one: ClassVar[tuple[str, ...]] = ()
    _at_least_zero: ClassVar[tuple[str, ...]] = ()
    _shares: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Coerce enum values given as strings and check every type and range."""
        for field in fields(self):
            self._check_type(field.name, field.type)
        for name in self._limited("_at_least_one"):
            self._require(name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1")
        for name in self._limited("_at_least_zero"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in self._limited("_shares"):
            self._require(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")

    @classmethod
    def part_of(cls, settings: "Settings") -> dict[str, Any]:
        """The values that settings have for the names of this class, to be given as keywords."""
        return {field.name: getattr(settings, field.name) for field in fields(cls)}

    @classmethod
    def _limited(cls, limit: str) -> list[str]:
        """Names of all classes that this one is made of."""
        return [name for part in cls.__mro__ for name in vars(part).get(limit, ())]

    def _check_type(self, name: str, annotation: Any) -> None:
        value = getattr(self, name)
        if isinstance(annotation, type) and issubclass(annotation, StrEnum):
            known = [member.value for member in annotation]
            self._require(name, value in known, f"one of {', '.join(known)}")
            object.__setattr__(self, name, annotation(value))
        elif value is None and "None" in str(annotation):
            return
        elif annotation is bool:
            self._require(name, isinstance(value, bool), "true or false")
        elif "int" in str(annotation):
            self._require(name, type(value) is int, "a whole number")
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            self._require(name, number and math.isfinite(value), "a finite number")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {what}, not {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings(Settings):
    """What the settings of all contrastive losses have in common.

    Attributes:
        temperature: tau.
        hidden_channels: width of the projection head.
        embedding_channels: length of a pixel's embedding.
    """

    temperature: float = 0.5
    hidden_channels: int = 256
    embedding_channels: int = 256

    _at_least_one: ClassVar[tuple[str, ...]] = ("hidden_channels", "embedding_channels")

    def __post_init__(self) -> None:
        """As the base, and a temperature above 0."""
        super().__post_init__()
        self._require("temperature", self.temperature > 0, "above 0")


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
