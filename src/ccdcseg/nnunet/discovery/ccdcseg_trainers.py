"""Found by nnU-Net through its variable nnUNet_extTrainer: trainers of ccdcseg under their names."""

from ccdcseg.nnunet.nnformer_trainer import nnUNetTrainerNNFormer
from ccdcseg.nnunet.pixelwise_trainers import (
    nnUNetTrainerFocal,
    nnUNetTrainerGDL,
    nnUNetTrainerMCC,
    nnUNetTrainerTopK,
)
from ccdcseg.nnunet.trainers import nnUNetTrainerCCDC, nnUNetTrainerPreset

__all__ = [
    "nnUNetTrainerCCDC",
    "nnUNetTrainerFocal",
    "nnUNetTrainerGDL",
    "nnUNetTrainerMCC",
    "nnUNetTrainerNNFormer",
    "nnUNetTrainerPreset",
    "nnUNetTrainerTopK",
]
