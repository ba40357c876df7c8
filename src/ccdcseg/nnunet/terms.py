"""Sections of a preset: settings of a method, and how its loss enters the sum of the training."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from ccdcseg.losses.ccdc.settings import CCDCSettings
from ccdcseg.losses.contrastive_seg import ContrastiveSegSettings
from ccdcseg.losses.logits import FocalSettings, GDLSettings, MCCSettings, TopKSettings
from ccdcseg.losses.parts.settings import Settings
from ccdcseg.losses.reco import ReCoSettings
from ccdcseg.losses.region_contrast import RegionContrastSettings
from ccdcseg.losses.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class CCDCTerm(CCDCSettings, Schedule):
    """CCDC's term: its settings, its weight and its start."""


@dataclass(frozen=True, kw_only=True)
class ReCoTerm(ReCoSettings, Schedule):
    """ReCo's term."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveSegTerm(ContrastiveSegSettings, Schedule):
    """ContrastiveSeg's term, with weight and start as released."""

    weight: float = 0.1
    start_iteration: int = 5000


@dataclass(frozen=True, kw_only=True)
class RegionContrastTerm(RegionContrastSettings, Schedule):
    """RegionContrast's term, with the weight of its paper."""

    weight: float = 0.1


class Combination(StrEnum):
    """How a loss of the logits enters the training (the CCDC paper does not say it of its rivals)."""

    SUM = "sum"
    """Added to cross-entropy and Dice."""
    CROSS_ENTROPY = "cross_entropy"
    """Added to cross-entropy, instead of Dice."""
    ALONE = "alone"
    """Instead of them."""


@dataclass(frozen=True, kw_only=True)
class Share(Settings):
    """The share that a loss of the logits has in the training.

    Attributes:
        weight: Factor of the loss, at least 0.
        combination: See `Combination`.

    Raises:
        ValueError: A value outside its range.
    """

    weight: float = 1.0
    combination: Combination = Combination.SUM

    _at_least_zero: ClassVar[tuple[str, ...]] = ("weight",)


@dataclass(frozen=True, kw_only=True)
class FocalTerm(FocalSettings, Share):
    """The focal loss."""


@dataclass(frozen=True, kw_only=True)
class GDLTerm(GDLSettings, Share):
    """The generalised Dice loss."""


@dataclass(frozen=True, kw_only=True)
class TopKTerm(TopKSettings, Share):
    """The top-k cross-entropy."""


@dataclass(frozen=True, kw_only=True)
class MCCTerm(MCCSettings, Share):
    """The Matthews correlation loss."""
