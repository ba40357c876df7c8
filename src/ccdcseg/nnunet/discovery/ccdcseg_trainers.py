"""Found by nnU-Net through its variable nnUNet_extTrainer: trainers of ccdcseg under their names."""

from ccdcseg.nnunet.contrastive_trainers import (
    nnUNetTrainerContrastiveSeg,
    nnUNetTrainerReCo,
    nnUNetTrainerRegionContrast,
)
from ccdcseg.nnunet.logits_trainers import (
    nnUNetTrainerFocal,
    nnUNetTrainerGDL,
    nnUNetTrainerMCC,
    nnUNetTrainerTopK,
)
from ccdcseg.nnunet.nnformer_trainer import nnUNetTrainerNNFormer
from ccdcseg.nnunet.trainers import (
    nnUNetTrainerCCDC,
    nnUNetTrainerCCDCBoth,
    nnUNetTrainerPreset,
    nnUNetTrainerUnlabelled,
)

__all__ = [
    "nnUNetTrainerCCDC",
    "nnUNetTrainerCCDCBoth",
    "nnUNetTrainerContrastiveSeg",
    "nnUNetTrainerFocal",
    "nnUNetTrainerGDL",
    "nnUNetTrainerMCC",
    "nnUNetTrainerNNFormer",
    "nnUNetTrainerPreset",
    "nnUNetTrainerReCo",
    "nnUNetTrainerRegionContrast",
    "nnUNetTrainerTopK",
    "nnUNetTrainerUnlabelled",
]
