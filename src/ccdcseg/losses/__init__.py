"""The CCDC loss for any PyTorch segmentation network, 2-D or 3-D."""

from ccdcseg.losses.ccdc import CCDCLoss, CombinedLoss, nearest_to
from ccdcseg.losses.selection import Diagnostics, Role, Selection, selection_map
from ccdcseg.losses.settings import (
    CCDCSettings,
    ClassAverage,
    Denominator,
    HeadNormalisation,
    NegativeSharing,
    NegativeStrategy,
    QueryReduction,
    QueryStrategy,
    Region,
    RegionCombination,
    Shortage,
    StatisticsScope,
    ThresholdRule,
)

__all__ = [
    "CCDCLoss",
    "CCDCSettings",
    "ClassAverage",
    "CombinedLoss",
    "Denominator",
    "Diagnostics",
    "HeadNormalisation",
    "NegativeSharing",
    "NegativeStrategy",
    "QueryReduction",
    "QueryStrategy",
    "Region",
    "RegionCombination",
    "Role",
    "Selection",
    "Shortage",
    "StatisticsScope",
    "ThresholdRule",
    "nearest_to",
    "selection_map",
]
