"""nnU-Net trainers with the contrastive losses that CCDC is compared with."""

from ccdcseg.losses import ContrastiveSegLoss, ReCoLoss, RegionContrastLoss
from ccdcseg.nnunet.trainers import ContrastiveTrainer


class nnUNetTrainerReCo(ContrastiveTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with the regional contrast of ReCo."""

    section, loss_class = "reco", ReCoLoss


class nnUNetTrainerContrastiveSeg(ContrastiveTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with the cross-image pixel contrast of ContrastiveSeg."""

    section, loss_class = "contrastive_seg", ContrastiveSegLoss


class nnUNetTrainerRegionContrast(ContrastiveTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with the region centres of RegionContrast."""

    section, loss_class = "region_contrast", RegionContrastLoss
