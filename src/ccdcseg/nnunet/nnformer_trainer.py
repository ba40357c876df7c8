"""nnU-Net trainer whose network is nnFormer."""

from typing import Any

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from ccdcseg.networks.nnformer import NNFormer, check_patch
from ccdcseg.nnunet.preset import preset_of_plans
from ccdcseg.nnunet.trainers import nnUNetTrainerPreset


class nnUNetTrainerNNFormer(nnUNetTrainerPreset):  # noqa: N801 - nnU-Net's naming
    """nnFormer in nnU-Net: its planning, augmentation, SGD, Dice and cross-entropy around another network.

    The network's settings are the preset's section ``nnformer``; the plans give the patch, and their U-Net is not
    built. Deep supervision weighs the outputs as the paper does, 4 : 2 : 1 for three, and leaves none out.

    A stock nnU-Net has no such network, so checkpoints carry this trainer's name: ``nnUNetv2_predict`` finds it
    through ``nnUNet_extTrainer``.
    """

    predicted_by = "nnUNetTrainerNNFormer"

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net reads this signature
    ) -> None:
        check_patch(
            PlansManager(plans).get_configuration(configuration).patch_size, preset_of_plans(plans).nnformer
        )
        super().__init__(plans, configuration, fold, dataset_json, device)

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The nnFormer of the preset, for the plans' patch."""
        settings = preset_of_plans(plans_manager.plans).nnformer
        patch = configuration_manager.patch_size
        check_patch(patch, settings)
        network = NNFormer(num_input_channels, num_output_channels, patch, settings)
        network.decoder.deep_supervision = enable_deep_supervision
        return network

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        """Size of each output in units of the patch."""
        if not self.enable_deep_supervision:
            return None
        return [[1 / s for s in stride] for stride in self.preset.nnformer.output_strides]

    def _build_loss(self) -> Any:
        """nnU-Net's, with a weight that halves from output to output and is zero for none."""
        loss = super()._build_loss()
        if isinstance(loss, DeepSupervisionWrapper):
            halved = [0.5**i for i in range(len(loss.weight_factors))]
            return DeepSupervisionWrapper(loss.loss, [w / sum(halved) for w in halved])
        return loss
