"""The CCDC loss and its rivals for any PyTorch segmentation network, 2-D or 3-D."""

from ccdcseg.losses.ccdc.contrast import ccdc_loss
from ccdcseg.losses.ccdc.loss import CCDCLoss
from ccdcseg.losses.ccdc.settings import (
    CCDCSettings,
    ClassAverage,
    Denominator,
    NegativeStrategy,
    QueryReduction,
    QueryStrategy,
    Region,
    RegionCombination,
    Shortage,
    ThresholdRule,
)
from ccdcseg.losses.contrastive_seg import ContrastiveSegLoss, ContrastiveSegSettings
from ccdcseg.losses.logits import (
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
from ccdcseg.losses.parts.base import nearest_to
from ccdcseg.losses.parts.memory_bank import MemoryBank
from ccdcseg.losses.parts.selection import Diagnostics, Role, Selection, selection_map
from ccdcseg.losses.parts.settings import StatisticsScope
from ccdcseg.losses.reco import ReCoLoss, ReCoSettings
from ccdcseg.losses.region_contrast import RegionContrastLoss, RegionContrastSettings
from ccdcseg.losses.schedule import Schedule

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
    "ccdc_loss",
    "nearest_to",
    "selection_map",
]
