"""Found by nnU-Net through its variable nnUNet_extTrainer: trainers of ccdcseg under their names."""

from ccdcseg.nnunet.trainers import nnUNetTrainerCCDC, nnUNetTrainerPreset

__all__ = ["nnUNetTrainerCCDC", "nnUNetTrainerPreset"]
