"""nnU-Net trainers with a region loss beside cross-entropy and Dice, or instead of them."""

from typing import Any

from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor, nn

from ccdcseg.errors import UserError
from ccdcseg.losses.pixelwise import Combination, FocalLoss, GDLLoss, MCCLoss, TopKLoss
from ccdcseg.nnunet.trainers import nnUNetTrainerPreset


class SummedLoss(nn.Module):
    """The sum of two losses of (logits, target)."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """() the sum."""
        total: Tensor = self.first(logits, target) + self.second(logits, target)
        return total


class _RegionLossTrainer(nnUNetTrainerPreset):
    """Every output of deep supervision is judged by the same loss, with nnU-Net's weights."""

    section: str
    loss_class: type[FocalLoss | GDLLoss | TopKLoss | MCCLoss]

    def _build_loss(self) -> Any:
        if self.label_manager.has_regions:
            raise UserError(
                f"{self.plans_manager.dataset_name} has region labels, which may overlap.",
                f"{self.section} needs one class a pixel: write plain labels into dataset.json.",
            )
        settings = getattr(self.preset, self.section)
        term = self.loss_class(settings, ignore_label=self.label_manager.ignore_label)
        loss = super()._build_loss()
        if not isinstance(loss, DeepSupervisionWrapper):
            return _combined(loss, term, settings.combination)
        loss.loss = _combined(loss.loss, term, settings.combination)
        return loss


def _combined(dice_and_cross_entropy: Any, term: nn.Module, combination: Combination) -> nn.Module:
    """The term with the parts of nnU-Net's loss that it does not replace."""
    if combination is Combination.ALONE:
        return term
    if combination is Combination.CROSS_ENTROPY:
        dice_and_cross_entropy.weight_dice = 0
    return SummedLoss(dice_and_cross_entropy, term)


class nnUNetTrainerFocal(_RegionLossTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with the focal loss."""

    section, loss_class = "focal", FocalLoss


class nnUNetTrainerGDL(_RegionLossTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with the generalised Dice loss."""

    section, loss_class = "gdl", GDLLoss


class nnUNetTrainerTopK(_RegionLossTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with the cross-entropy of the worst pixels."""

    section, loss_class = "topk", TopKLoss


class nnUNetTrainerMCC(_RegionLossTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with Matthews' correlation coefficient."""

    section, loss_class = "mcc", MCCLoss
