"""nnU-Net trainers: one that follows a preset and a seed, and one with a contrastive term on top of it."""

import contextlib
import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import torch
from matplotlib import pyplot
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from ccdcseg.cores import has_bfloat16, usable_cores
from ccdcseg.datasets.cases import id_in_name
from ccdcseg.datasets.splits import SPLITS_FILE
from ccdcseg.datasets.walk import is_hidden
from ccdcseg.errors import UserError
from ccdcseg.files import read_json
from ccdcseg.losses import CCDCLoss, Diagnostics, Schedule, nearest_to, selection_map
from ccdcseg.losses.parts.base import ContrastiveLoss
from ccdcseg.nnunet.augmentation import upright_geometry, upright_transforms
from ccdcseg.nnunet.averaging import averaged_copy
from ccdcseg.nnunet.checkpoints import OWN_KEY, STOCK_TRAINER, load_checkpoint, save_checkpoint
from ccdcseg.nnunet.features import tap_decoder, tapped_channels
from ccdcseg.nnunet.history import finite, mean_diagnostics
from ccdcseg.nnunet.memory import does_not_fit, if_it_fits
from ccdcseg.nnunet.models import class_values
from ccdcseg.nnunet.paths import nnunet_folder
from ccdcseg.nnunet.plans import check_readable
from ccdcseg.nnunet.preset import preset_of_plans
from ccdcseg.nnunet.rules import decided_rules, write_rules
from ccdcseg.nnunet.seeding import derived_seed, seed_everything, seed_from_environment
from ccdcseg.nnunet.selections import save_selection
from ccdcseg.nnunet.unlabelled import UnlabelledTraining, ignore_value
from ccdcseg.postprocessing import Postprocessing, decide
from ccdcseg.processes import can_share
from ccdcseg.runs.history import Epoch, extend_history, read_history
from ccdcseg.runs.record import BEGUN_FILE, RUN_FILE
from ccdcseg.texts import reason

logger = logging.getLogger(__name__)

GRADIENT_NORM = 12
"""nnU-Net's bound on the norm of the gradient."""
NNUNET_PROCESSES = 12
"""nnU-Net's usual number of augmentation processes; it counts all cores of the machine, we those that are ours."""
_PROCESSES = "nnUNet_n_proc_DA"
_RAW = "nnUNet_raw"
ADAMW_DECAY = 0.01
"""Weight decay of AdamW, its default."""


class nnUNetTrainerPreset(nnUNetTrainer):  # type: ignore[misc]  # noqa: N801 - nnU-Net's naming
    """Plain nnU-Net (cross-entropy and Dice) that follows the preset in its plans, and a seed.

    Without a preset (``nnUNetPlans``) it trains as ``nnUNetTrainer`` does. The seed comes from the environment
    variable ``CCDCSEG_SEED``; every epoch is seeded anew, so that a training that was continued equals one that
    was not, and two methods of one seed see the same batches. Beside nnU-Net's log it writes ``history.jsonl``.

    Attributes:
        predicted_by: written into checkpoints as the trainer's name, for ``nnUNetv2_predict`` to build the network.
        always_unlabelled: scans without masks take part whatever the preset says.
        recorded: `ccdcseg train` began this training, and keeps its record.
        teachers: folders of the runs whose networks label scans without masks in self-training.
        history_size: of the file with the history as this process left it; None: it has not written it yet.
        begun_in: precision of the training whose checkpoint was loaded; None: none was, or it does not say.
        averaged: the network with averaged weights, which predicts; None: the trained one does.
        unlabelled: the part that scans without masks have; None: they have none.
        postprocessing: what the training masks say of the pieces of a prediction; None: not known yet, or regions.
        report: called with a stage beside the steps, how much of it is done, and how much there is.
    """

    predicted_by = STOCK_TRAINER
    always_unlabelled = False
    recorded = False
    teachers: Sequence[Path] = ()
    postprocessing: Postprocessing | None = None
    report: Callable[[str, int, int], None] = staticmethod(lambda *_: None)
    network: Any
    dataset_class: Any

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net reads this signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.preset = preset_of_plans(plans)
        training = self.preset.training
        self.num_epochs = training.epochs
        self.num_iterations_per_epoch = training.iterations_per_epoch
        self.num_val_iterations_per_epoch = training.validation_iterations
        self.initial_lr = training.initial_learning_rate
        self.oversample_foreground_percent = training.foreground_oversampling
        self.save_every = training.checkpoint_every
        self.seed = seed_from_environment() if training.seed is None else training.seed
        self.history: list[Epoch] = []
        self.history_size: int | None = None
        self.begun_in: str | None = None
        self.averaged: AveragedModel | None = None
        self.unlabelled: UnlabelledTraining | None = None

    def initialize(self) -> None:
        """Build network, optimiser and loss, from the seed."""
        self._reseed("weights")
        super().initialize()
        if (decay := self.preset.training.averaged_weights) is not None:
            self.averaged = averaged_copy(_inner(self.network), decay)
        if self.preset.unlabelled.use or self.always_unlabelled:
            self.unlabelled = UnlabelledTraining(self)

    def configure_optimizers(self) -> tuple[Any, Any]:
        """The preset's optimiser, with nnU-Net's schedule."""
        if self.preset.training.optimizer == "sgd":
            optimizers: tuple[Any, Any] = super().configure_optimizers()
            return optimizers
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=ADAMW_DECAY)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802 - nnU-Net's
        """nnU-Net's; where the preset does not mirror without axes, and upright where it augments strongly."""
        geometry = self._augmenter().configure_rotation_dummyDA_mirroring_and_inital_patch_size(self)
        rotation, is_flat, cut_out, axes = geometry
        if not self.preset.training.mirrors:
            axes = self.inference_allowed_mirroring_axes = None
            if self.preset.training.augmentation == "strong":
                rotation, cut_out = upright_geometry(self.configuration_manager.patch_size, is_flat)
        return rotation, is_flat, cut_out, axes

    def get_training_transforms(self, *arguments: Any, **settings: Any) -> Any:
        """nnU-Net's, without those that put organs on their other side where the preset does not mirror."""
        transforms = self._augmenter().get_training_transforms(*arguments, **settings)
        return transforms if self.preset.training.mirrors else upright_transforms(transforms)

    def _augmenter(self) -> Any:
        """The trainer of nnU-Net's that changes patches as the preset says."""
        return nnUNetTrainerDA5 if self.preset.training.augmentation == "strong" else nnUNetTrainer

    def do_split(self) -> tuple[list[str], list[str]]:
        """Cases for training and validation, of the file with the splits or drawn by nnU-Net.

        Raises:
            UserError: nnU-Net would draw from a part of the scans.
        """
        if self.dataset_class is None:
            self.dataset_class = infer_dataset_class(self.preprocessed_dataset_folder)
        if not self._is_in_file():
            self._check_preprocessed()
        split: tuple[list[str], list[str]] = super().do_split()
        return split

    def _is_in_file(self) -> bool:
        """Whether the file with the splits names the cases of this fold."""
        splits = Path(self.preprocessed_dataset_folder_base) / SPLITS_FILE
        return self.fold != "all" and splits.exists() and self.fold < len(read_json(splits))

    def _check_preprocessed(self) -> None:
        """Refuse to draw from a part of the scans: `ccdcseg train` preprocesses those of its split alone."""
        name, ending = self.plans_manager.dataset_name, self.dataset_json["file_ending"]
        if not os.environ.get(_RAW):
            return
        masks = (nnunet_folder(_RAW) / name / "labelsTr").glob(f"*{ending}")
        cases = {mask.name.removesuffix(ending) for mask in masks if not is_hidden(mask.name)}
        there = cases.intersection(self.dataset_class.get_identifiers(self.preprocessed_dataset_folder))
        if there != cases:
            raise UserError(
                f"{self.preprocessed_dataset_folder} holds {len(there)} of the {len(cases)} scans of {name}, and "
                f"nnU-Net would draw fold {self.fold} from these alone.",
                f"Preprocess all: nnUNetv2_preprocess -d {id_in_name(name)} "
                f"-plans_name {self.plans_manager.plans_name} -c {self.configuration_name}",
            )

    def get_dataloaders(self) -> Any:
        """nnU-Net's loaders, with as many augmentation processes as the preset says; none where none can be."""
        processes = self.preset.training.augmentation_processes
        if processes is None and _PROCESSES not in os.environ:
            processes = min(NNUNET_PROCESSES, usable_cores())
        if processes != 0 and not can_share():
            processes = 0
        with _environment(_PROCESSES, processes):
            return super().get_dataloaders()

    def run_training(self) -> None:
        """Train.

        Raises:
            UserError: a preprocessed scan is damaged; nnU-Net does not say which.
        """
        try:
            super().run_training()
        except RuntimeError:
            check_readable(self._preprocessed_scans())
            raise

    def _preprocessed_scans(self) -> list[Path]:
        """``FOLDER/NAME`` of each scan that takes part."""
        folder, cases = Path(self.preprocessed_dataset_folder), sorted({*chain(*self.do_split())})
        return [folder / case for case in cases] + (self.unlabelled.preprocessed if self.unlabelled else [])

    def on_train_start(self) -> None:
        """Begin the training, or continue one.

        Raises:
            UserError: it was begun in another precision, so that it would end as no uninterrupted one can; or the
                folder holds a training of `ccdcseg train`, whose record would tell of another.
        """
        self._check_folder()
        if self.begun_in not in (None, self.precision):
            raise UserError(
                f"{self.output_folder} was begun in {self.begun_in}, and this machine trains in {self.precision}.",
                f"Continue on a machine that trains in {self.begun_in}, or remove the folder and start anew.",
            )
        super().on_train_start()
        self._decide_postprocessing()
        if self.unlabelled is not None:
            self.unlabelled.start()

    def _check_folder(self) -> None:
        folder = Path(self.output_folder)
        if not self.recorded and any((folder / name).exists() for name in (RUN_FILE, BEGUN_FILE)):
            raise UserError(
                f"{folder} holds a training of `ccdcseg train`, whose record would tell of another one.",
                "Move that folder away, or go on with it by `ccdcseg train --resume`.",
            )

    def on_train_epoch_start(self) -> None:
        """Begin an epoch, with new labels of the unlabelled scans where they are due."""
        if self.unlabelled is not None:
            self.unlabelled.start_epoch()
        self._reseed("epoch", self.current_epoch)
        super().on_train_epoch_start()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One optimiser step, as nnU-Net's but for `compute_losses` and bfloat16 on the CPU.

        The losses stay on the device until the epoch ends: to read them is to wait for the step.

        Raises:
            UserError: the device's memory does not suffice; it names the largest batch for which it does.
        """
        done = if_it_fits(lambda: self._train_step(batch))
        if done is not None:
            return done
        least = 1 if self.unlabelled is None else self.preset.unlabelled.least_batch
        raise does_not_fit(
            self.configuration_manager.batch_size,
            least * self.ranks,
            self.configuration_manager.patch_size,
            self.device,
            Path(self.output_folder),
            partial(self._try_step, batch, self._own_loss()),
        )

    def _own_loss(self) -> Any:
        """The segmentation loss of this rank's patches alone: counts of all ranks would have to be waited for."""
        alone: Any = copy.copy(self)
        alone.is_ddp = False
        return alone._build_loss().eval()  # in which no loss of ours asks other ranks

    def _try_step(self, batch: dict[str, Any], own_loss: Any, size: int) -> None:
        """Forward and backward of this rank's part of a batch of that size, by the segmentation loss.

        Ranks do not wait for each other here: maybe one of them alone has no memory left.
        """
        self.optimizer.zero_grad(set_to_none=True)
        patches, target = math.ceil(size / self.ranks), batch["target"]
        network = self.network.module if self.is_ddp else self.network
        several = isinstance(target, list)
        targets = [part[:patches].to(self.device) for part in (target if several else [target])]
        with self.autocast():
            output = self.segmentation(network(batch["data"][:patches].to(self.device)))
            loss = own_loss(_as_float(output), targets if several else targets[0])
        # backward() would send gradients to the other ranks
        torch.autograd.grad(loss, [*network.parameters()], allow_unused=True)

    @property
    def ranks(self) -> int:
        """How many GPUs share a batch."""
        return torch.distributed.get_world_size() if self.is_ddp else 1

    def segmentation(self, output: Any) -> Any:
        """What the segmentation loss takes of the output of the network that is trained."""
        return output

    def _train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        several = isinstance(target, list)
        target = [t.to(self.device, non_blocking=True) for t in (target if several else [target])]
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            losses = self.compute_losses(self.network(data), target if several else target[0], data)
        self._step(losses["loss"])
        return {name: loss.detach().float() for name, loss in losses.items()}

    def compute_losses(self, output: Any, target: Any, data: Tensor) -> dict[str, Tensor]:
        """The total as "loss", and its parts under names of their own."""
        del data
        if self.unlabelled is None or self.unlabelled.annotated is None:
            loss = self.loss(_as_float(output), target)
            return {"loss": loss, "segmentation_loss": loss}
        return self.unlabelled.losses(_as_float(output), target)

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's, of the network that predicts and in the training's precision."""
        with self._predicting(), self.autocast():
            result: dict[str, Any] = super().validation_step(batch)
        return result

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's final validation, of the network that predicts; no training goes on after it."""
        _inner(self.network).load_state_dict(self.predicting_network.state_dict())
        super().perform_actual_validation(save_probabilities)

    @property
    def predicting_network(self) -> nn.Module:
        """The network whose weights predict: the averaged one, where there is one."""
        network: nn.Module = _inner(self.network) if self.averaged is None else self.averaged.module
        return network

    @contextlib.contextmanager
    def _predicting(self) -> Iterator[None]:
        """Let the averaged network, where there is one, take the place of the one that is trained."""
        if self.averaged is None:
            yield
            return
        trained, self.network = self.network, self.averaged.module
        self.network.eval()
        try:
            yield
        finally:
            self.network = trained

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Read the losses of the epoch and keep their means, over all ranks as nnU-Net's log has them."""
        names = list(train_outputs[0])
        read = torch.stack([output[name] for output in train_outputs for name in names])
        if self.is_ddp:
            torch.distributed.all_reduce(read)
        losses = (read / self.ranks).cpu().numpy().reshape(-1, len(names))
        super().on_train_epoch_end([{"loss": step[names.index("loss")]} for step in losses])
        self.epoch_losses = {name: float(np.mean(losses[:, i])) for i, name in enumerate(names)}

    def on_epoch_end(self) -> None:
        """Log, write the history, and checkpoint."""
        self.history.append(Epoch.model_validate(finite(self._epoch_record())))
        if self.local_rank == 0 and not self.disable_checkpointing:
            self.history_size = extend_history(Path(self.output_folder), self.history, self.history_size)
        with self._plots_seldom():
            super().on_epoch_end()

    @contextlib.contextmanager
    def _plots_seldom(self) -> Iterator[None]:
        """Draw nnU-Net's plot of the progress with checkpoints and at the end: it takes as long as many steps."""
        number, plot = self.current_epoch + 1, self.logger.plot_progress_png
        seldom = number % self.save_every and number < self.num_epochs
        self.logger.plot_progress_png = (lambda *_: None) if seldom else partial(_plot, plot)
        try:
            yield
        finally:
            self.logger.plot_progress_png = plot

    def _epoch_record(self) -> dict[str, Any]:
        return {
            "epoch": self.current_epoch,
            "iteration": (self.current_epoch + 1) * self.num_iterations_per_epoch,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": max(0.0, time.time() - self.logger.get_value("epoch_start_timestamps", step=-1)),
            "train_loss": self.epoch_losses["loss"],
            "segmentation_loss": self.epoch_losses["segmentation_loss"],
            "contrastive_loss": self.epoch_losses.get("contrastive_loss"),
            **({} if self.unlabelled is None else self.unlabelled.epoch_record(self.epoch_losses)),
            "validation_loss": float(self.logger.get_value("val_losses", step=-1)),
            "pseudo_dice": dict(
                zip(self.classes, self.logger.get_value("dice_per_class_or_region", step=-1), strict=False)
            ),
            "diagnostics": None,
        }

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint that nnU-Net can predict with (atomically)."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        checkpoint = {
            "network_weights": self.predicting_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": self.predicted_by,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            OWN_KEY: {
                "trainer_name": type(self).__name__,
                "precision": self.precision,
                **self._own_state(),
            },
        }
        save_checkpoint(checkpoint, Path(filename))

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Continue from a checkpoint of the same trainer.

        Raises:
            UserError: another trainer wrote it, or it cannot be read.
        """
        own = load_checkpoint(Path(filename_or_checkpoint)).get(OWN_KEY)
        written_by = own["trainer_name"] if own else STOCK_TRAINER
        if own is None or written_by != type(self).__name__:
            raise UserError(
                f"{filename_or_checkpoint} was written by {written_by}, not {type(self).__name__}.",
                "Continue with the trainer that wrote it, or start from it with -pretrained_weights.",
            )
        super().load_checkpoint(filename_or_checkpoint)
        self._load_own_state(own)
        self.begun_in = own.get("precision")
        history = read_history(Path(self.output_folder))
        self.history = [epoch for epoch in history if epoch.epoch < self.current_epoch]
        self.history_size = None

    def _own_state(self) -> dict[str, Any]:
        """State that only ccdcseg needs, to continue."""
        state: dict[str, Any] = {}
        if self.averaged is not None:
            state["trained_weights"] = _inner(self.network).state_dict()
            state["updates"] = self.averaged.n_averaged
        if self.unlabelled is not None:
            state["written_labels"] = self.unlabelled.written
        return state

    def _load_own_state(self, state: dict[str, Any]) -> None:
        """Restore what `_own_state` gave; the network holds the weights that predict."""
        if self.averaged is not None:
            self.averaged.module.load_state_dict(_inner(self.network).state_dict())
            self.averaged.n_averaged.copy_(state["updates"])
            _inner(self.network).load_state_dict(state["trained_weights"])
        if self.unlabelled is not None:
            self.unlabelled.written = state["written_labels"]

    def _step(self, loss: Tensor) -> None:
        """Backward pass, clipping and optimiser step, with nnU-Net's gradient scaler where it has one."""
        scaler = self.grad_scaler
        (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        for module in self.trained_modules():
            nn.utils.clip_grad_norm_(module.parameters(), GRADIENT_NORM)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(_inner(self.network))

    def trained_modules(self) -> list[nn.Module]:
        """Modules whose gradients are clipped, each by itself."""
        return [self.network]

    @property
    def precision(self) -> str:
        """The network's: nnU-Net's "float16" on CUDA, on the CPU what the preset says, where the CPU can."""
        if self.device.type == "cuda":
            return "float16"
        wanted = self.preset.training.cpu_autocast == "bfloat16" and self.device.type == "cpu"
        return "bfloat16" if wanted and has_bfloat16() else "float32"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """In which network and losses are computed."""
        if self.device.type == "cuda":
            return torch.autocast("cuda")
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16")

    def _decide_postprocessing(self) -> None:
        """Decide from the training masks which pieces of a prediction are kept, and write it beside the run.

        Every rank decides for itself: those that waited for the first would give up after ten minutes. A training
        of `ccdcseg train` that goes on, whose masks are known to be those of before, keeps what it decided.
        """
        if self.label_manager.has_regions:
            return
        if self.recorded and self.current_epoch and (decided := decided_rules(Path(self.output_folder))):
            self.postprocessing = decided
            return
        ignored = self.label_manager.ignore_label
        self.postprocessing = decide(self._training_masks(), self.class_values, ignored)
        if self.local_rank == 0:
            write_rules(self.postprocessing, self.class_values, Path(self.output_folder))

    def _training_masks(self) -> Iterator[NDArray[np.int32]]:
        """Masks of the scans that are trained on, (Z, Y, X), as their files have them."""
        reader = self.plans_manager.image_reader_writer_class()
        folder = Path(self.preprocessed_dataset_folder_base) / "gt_segmentations"
        cases = self.do_split()[0]
        self.print_to_log_file(f"Looking at the pieces of each class in {len(cases)} masks.")
        for done, case in enumerate(cases, 1):
            mask, _ = reader.read_seg(str(folder / f"{case}{self.dataset_json['file_ending']}"))
            yield mask[0].astype(np.int32)
            self.report("pieces", done, len(cases))

    @property
    def class_values(self) -> dict[str, int]:
        """Value of each foreground class by name."""
        return class_values(self.dataset_json)

    @property
    def classes(self) -> list[str]:
        """Names of the foreground classes in nnU-Net's order: that of their values, of regions the file's own."""
        names = [name for name in self.dataset_json["labels"] if name not in ("background", "ignore")]
        return sorted(names, key=lambda name: self.class_values.get(name, 0))

    def _reseed(self, *purpose: str | int) -> None:
        if self.seed is not None:
            seed_everything(derived_seed(self.seed, self.local_rank, *purpose))


class nnUNetTrainerUnlabelled(nnUNetTrainerPreset):  # noqa: N801 - nnU-Net's naming
    """Plain nnU-Net that also trains on the split's scans without masks, for ``nnUNetv2_train`` with any plans.

    ``splits_final.json`` names these scans, as `ccdcseg split --unlabelled` writes it.
    """

    always_unlabelled = True


class ContrastiveTrainer(nnUNetTrainerPreset):
    """nnU-Net with a contrastive term beside cross-entropy and Dice, in 2-D and 3-D.

    Cross-entropy and Dice keep their deep supervision; the term reads the features of the last decoder stage
    (the preset's ``decoder_stage`` names a coarser one). Its projection head, and its memory, belong to the
    term, not to the network: checkpoints predict on a stock nnU-Net.

    Attributes:
        section: of the preset with the term's settings.
        loss_class: of the term.
        contrasts_unlabelled: the term takes pixels of scans without masks too, with the labels written for them.
    """

    section: str
    contrasts_unlabelled = False
    loss_class: type[ContrastiveLoss[Any]]
    contrastive: nn.Module

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """nnU-Net's network, whose decoder also returns features while it trains."""
        network = nnUNetTrainer.build_network_architecture(
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        return tap_decoder(network, preset_of_plans(plans_manager.plans).decoder_stage)

    def initialize(self) -> None:
        """Build network, head, optimiser and loss."""
        if self.label_manager.has_regions:
            raise UserError(
                f"{self.plans_manager.dataset_name} has region labels, which may overlap.",
                f"{self.section} needs one class a pixel: write plain labels into dataset.json.",
            )
        super().initialize()
        self.schedule: Schedule = getattr(self.preset, self.section)
        self.draws = torch.Generator()
        self.draws.seed()
        self.iteration = 0
        self.steps: list[Diagnostics] = []
        if self.is_ddp:
            self.contrastive = DistributedDataParallel(  # whose buffers are equal on all ranks by themselves
                self.contrastive, device_ids=[self.local_rank], broadcast_buffers=False
            )

    def configure_optimizers(self) -> tuple[Any, Any]:
        """nnU-Net's, over the network and the projection head."""
        self.contrastive = self._build_contrastive().to(self.device)
        optimizer, scheduler = super().configure_optimizers()
        optimizer.add_param_group({"params": list(self.contrastive.parameters())})
        return optimizer, scheduler

    def _build_contrastive(self) -> ContrastiveLoss[Any]:
        own_ignored = self.label_manager.ignore_label
        return self.loss_class(
            tapped_channels(_inner(self.network)),
            self.label_manager.num_segmentation_heads,
            ignore_index=ignore_value(self) if self.contrasts_unlabelled else own_ignored,
            **self.loss_class.settings_type.part_of(getattr(self.preset, self.section)),
        )

    def trained_modules(self) -> list[nn.Module]:
        """Network and projection head."""
        return [self.network, self.contrastive]

    def on_train_epoch_start(self) -> None:
        """Begin an epoch; the draws have a seed of their own."""
        super().on_train_epoch_start()
        self.contrastive.train()
        self.steps = []
        self.iteration = self.current_epoch * self.num_iterations_per_epoch
        if self.seed is not None:
            self.draws.manual_seed(derived_seed(self.seed, self.local_rank, "draws", self.current_epoch))

    def segmentation(self, output: Any) -> Any:
        """The output without the features."""
        return output[0]

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As the preset trainer, and count the steps."""
        losses = super().train_step(batch)
        self.iteration += 1
        return losses

    def compute_losses(self, output: Any, target: Any, data: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and Dice with deep supervision, plus the weighted term (Eq. 8)."""
        outputs, features = output
        losses = super().compute_losses(outputs, target, data)
        weight = self.schedule(self.iteration)
        contrastive = weight * self._term(features, outputs, target) if weight else _nothing(self.contrastive)
        self.last_data = data
        return {**losses, "loss": losses["loss"] + contrastive, "contrastive_loss": contrastive}

    def _term(self, features: Tensor, outputs: Any, target: Any) -> Tensor:
        """The term at the tapped stage's resolution."""
        logits, labels = (outputs[0], target[0]) if self.enable_deep_supervision else (outputs, target)
        annotated = None if self.unlabelled is None else self.unlabelled.annotated
        if not self.contrasts_unlabelled:  # the term is the paper's: on annotated pixels alone
            features, logits, labels = (part[:annotated] for part in (features, logits, labels))
        if features.shape[2:] != logits.shape[2:]:
            logits, labels = nearest_to(features, logits, labels)
        progress = min(1.0, self.iteration / (self.num_epochs * self.num_iterations_per_epoch))
        term: Tensor = self.contrastive(
            features, logits, labels, progress=progress, generator=self.draws, annotated=annotated
        )
        if self._criterion.diagnostics is not None:
            self.steps.append(self._criterion.diagnostics)
        self.last_labels = labels
        return term

    def on_epoch_end(self) -> None:
        """As the preset trainer, and keep a picture of what was drawn, six times over the training."""
        sixth = 6 * (self.current_epoch + 1) // self.num_epochs > 6 * self.current_epoch // self.num_epochs
        if sixth and self.local_rank == 0 and self._criterion.selection:
            roles = selection_map(self._criterion.selection)
            path = Path(self.output_folder) / "selection" / f"epoch_{self.current_epoch:04d}.npz"
            save_selection(path, self.last_data, self.last_labels, roles)
        super().on_epoch_end()

    def _epoch_record(self) -> dict[str, Any]:
        found = mean_diagnostics(self.steps, ["background", *self.classes])
        return {**super()._epoch_record(), "diagnostics": found}

    def _own_state(self) -> dict[str, Any]:
        return super()._own_state() | {"contrastive": self._criterion.state_dict()}

    def _load_own_state(self, state: dict[str, Any]) -> None:
        super()._load_own_state(state)
        self._criterion.load_state_dict(state["contrastive"])

    @property
    def _criterion(self) -> Any:
        return _inner(self.contrastive)


class nnUNetTrainerCCDC(ContrastiveTrainer):  # noqa: N801 - nnU-Net's naming
    """nnU-Net with the CCDC term beside cross-entropy and Dice (Eq. 8)."""

    section, loss_class = "ccdc", CCDCLoss


class nnUNetTrainerCCDCBoth(nnUNetTrainerCCDC):  # noqa: N801 - nnU-Net's naming
    """CCDC on scans without masks too: pixels of all, class confidence and confusion of annotated ones.

    It is not the paper's method, which knows annotated scans alone.
    """

    always_unlabelled = contrasts_unlabelled = True


def _plot(plot: Callable[[str], None], folder: str) -> None:
    """Let nnU-Net plot on matplotlib's own settings, not the user's; no training ends for a plot that fails."""
    try:
        with matplotlib.style.context("default"):
            plot(folder)
    except Exception as error:
        pyplot.close()  # nnU-Net's figure
        logger.warning("progress.png is not drawn (%s).", reason(error))


def _as_float(output: Any) -> Any:
    return [o.float() for o in output] if isinstance(output, list) else output.float()


def _nothing(module: nn.Module) -> Tensor:
    """Zero, connected to every parameter: what a term adds in steps in which it takes no part."""
    return torch.stack([parameter.flatten()[:0].sum() for parameter in module.parameters()]).sum()


def _inner(module: nn.Module) -> Any:
    """The module inside DistributedDataParallel and torch.compile."""
    if isinstance(module, DistributedDataParallel):
        module = module.module
    return getattr(module, "_orig_mod", module)


@contextlib.contextmanager
def _environment(name: str, value: int | None) -> Iterator[None]:
    """Set an environment variable for a while; None leaves it as it is."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = str(value)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        elif value is not None:
            del os.environ[name]
