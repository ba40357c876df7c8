"""The CCDC loss and its rivals for any PyTorch segmentation network, 2-D or 3-D."""

from ccdcseg.losses.ccdc import CCDCLoss
from ccdcseg.losses.contrastive_seg import ContrastiveSegLoss, ContrastiveSegSettings
from ccdcseg.losses.gather import tap_features
from ccdcseg.losses.memory_bank import MemoryBank
from ccdcseg.losses.pixelwise import (
    FocalLoss,
    FocalSettings,
    GDLLoss,
    GDLSettings,
    MCCLoss,
    MCCSettings,
    TopKLoss,
    TopKSettings,
    VolumeWeight,
)
from ccdcseg.losses.reco import ReCoLoss, ReCoSettings
from ccdcseg.losses.region_contrast import RegionContrastLoss, RegionContrastSettings
from ccdcseg.losses.schedule import Schedule
from ccdcseg.losses.selection import Diagnostics, Role, Selection, selection_map
from ccdcseg.losses.settings import (
    CCDCSettings,
    ClassAverage,
    Denominator,
    NegativeStrategy,
    QueryReduction,
    QueryStrategy,
    Region,
    RegionCombination,
    Shortage,
    StatisticsScope,
    ThresholdRule,
)
from ccdcseg.losses.term import nearest_to

__all__ = [
    "CCDCLoss",
    "CCDCSettings",
    "ClassAverage",
    "ContrastiveSegLoss",
    "ContrastiveSegSettings",
    "Denominator",
    "Diagnostics",
    "FocalLoss",
    "FocalSettings",
    "GDLLoss",
    "GDLSettings",
    "MCCLoss",
    "MCCSettings",
    "MemoryBank",
    "NegativeStrategy",
    "QueryReduction",
    "QueryStrategy",
    "ReCoLoss",
    "ReCoSettings",
    "Region",
    "RegionCombination",
    "RegionContrastLoss",
    "RegionContrastSettings",
    "Role",
    "Schedule",
    "Selection",
    "Shortage",
    "StatisticsScope",
    "ThresholdRule",
    "TopKLoss",
    "TopKSettings",
    "VolumeWeight",
    "nearest_to",
    "selection_map",
    "tap_features",
]
