"""nnU-Net trainers with a loss of the logits beside cross-entropy and Dice, or instead of them."""

from typing import Any

from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor, nn

from ccdcseg.errors import UserError
from ccdcseg.losses.logits import FocalLoss, GDLLoss, MCCLoss, TopKLoss
from ccdcseg.nnunet.terms import Combination, Share
from ccdcseg.nnunet.trainers import nnUNetTrainerPreset


class SummedLoss(nn.Module):
    """A weighted loss of (logits, target), beside another one where there is one.

    Args:
        first: The other loss; None: the weighted one stands alone.
        second: The loss that has a weight.
        weight: Of ``second``.
    """

    def __init__(self, first: nn.Module | None, second: nn.Module, weight: float = 1.0) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.weight = weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """() the sum."""
        beside = 0 if self.first is None else self.first(logits, target)
        total: Tensor = beside + self.weight * self.second(logits, target)
        return total


class _LogitsTrainer(nnUNetTrainerPreset):
    """Every output of deep supervision is judged by the same loss, with nnU-Net's weights."""

    section: str
    loss_class: type[FocalLoss | GDLLoss | TopKLoss | MCCLoss]

    def _build_loss(self) -> Any:
        if self.label_manager.has_regions:
            raise UserError(
                f"{self.plans_manager.dataset_name} has region labels, which may overlap.",
                f"{self.section} needs one class a pixel: write plain labels into dataset.json.",
            )
        section = getattr(self.preset, self.section)
        settings = self.loss_class.settings_type.part_of(section)
        term = self.loss_class(ignore_index=self.label_manager.ignore_label, **settings)
        loss = super()._build_loss()
        if not isinstance(loss, DeepSupervisionWrapper):
            return _combined(loss, term, section)
        loss.loss = _combined(loss.loss, term, section)
        return loss


def _combined(dice_and_cross_entropy: Any, term: nn.Module, share: Share) -> nn.Module:
    """The term with the parts of nnU-Net's loss that it does not replace."""
    if share.combination is Combination.ALONE:
        return SummedLoss(None, term, share.weight)
    if share.combination is Combination.CROSS_ENTROPY:
        dice_and_cross_entropy.weight_dice = 0
    return SummedLoss(dice_and_cross_entropy, term, share.weight)


class nnUNetTrainerFocal(_LogitsTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with the focal loss."""

    section, loss_class = "focal", FocalLoss


class nnUNetTrainerGDL(_LogitsTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with the generalised Dice loss."""

    section, loss_class = "gdl", GDLLoss


class nnUNetTrainerTopK(_LogitsTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with the cross-entropy of the worst pixels."""

    section, loss_class = "topk", TopKLoss


class nnUNetTrainerMCC(_LogitsTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with Matthews' correlation coefficient."""

    section, loss_class = "mcc", MCCLoss
