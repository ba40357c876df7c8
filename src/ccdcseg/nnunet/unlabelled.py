"""Scans without masks in a training: the network writes their labels between epochs, and learns from them.

The labels are files in the run's folder, ``unlabelled/epoch_NNNN``: ``CASE.nii.gz`` on the scan's own voxels for a
person to open, what the loader reads beside it, and ``summary.json``. A continued training finds the very labels
that it had. That whole scans are labelled now and then, instead of patches in every step (FixMatch and its
followers), costs a few per cent of the training, and lets post-processing see a whole organ.
"""

import contextlib
import copy
import shutil
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from numpy.typing import NDArray
from torch import Tensor

from ccdcseg.datasets.splits import SPLITS_FILE, unlabelled_split
from ccdcseg.errors import UserError
from ccdcseg.files import content_hash, new_folder, write_json
from ccdcseg.measure.patients import mean
from ccdcseg.nnunet.masks import write_whole
from ccdcseg.nnunet.memory import if_it_fits, within_memory
from ccdcseg.nnunet.models import build_predictor
from ccdcseg.nnunet.paths import nnunet_folder
from ccdcseg.nnunet.plans import UNLABELLED_SUFFIX, explaining, preprocess_unlabelled
from ccdcseg.nnunet.preset import UnlabelledScans
from ccdcseg.nnunet.seeding import derived_seed
from ccdcseg.postprocessing import Shares, keep_pieces
from ccdcseg.processes import Progress
from ccdcseg.runs.history import LabelsWritten, LeftOut, Removed, labels_folder

SUMMARY = "summary.json"
LEARNT_FROM = ("_seg.b2nd", "_locations.npz")
"""Endings of what the loader reads of a scan; without them its labels are for people alone."""
TILE_STEP = 1.0
"""Step of the sliding window in patches: without overlap, since most of the cost is here."""
LOCATIONS = 1000
"""Voxels of each class of a scan around which patches are drawn, at least."""
PATIENCE = timedelta(days=30)
"""How long ranks wait for the one that prepares or labels scans; they would give up on a step after ten minutes."""
MOST_TO_LOOK_AT = 5
PLAUSIBLE_RATIO = 3.0
"""A class whose mean share of the voxels differs by more than this factor from that in the annotated scans is
taken for a failure of the network, and its labels are not used."""


def writing_epochs(settings: UnlabelledScans, epochs: int) -> list[int]:
    """The epochs at whose beginning labels are written, of ``epochs`` from 0 on: the first one, by teachers."""
    if settings.teachers is not None:
        return [0]
    rest = 1 - settings.first
    shares = (settings.first + rest * i / settings.times for i in range(settings.times))
    return sorted({min(round(epochs * share), epochs - 1) for share in shares})


@dataclass(frozen=True)
class Labelling:
    """What is told of the labels of one scan.

    Attributes:
        confident: share of each class's voxels that are not ignored, by name; the background among them.
        voxels: of each foreground class, before anything was ignored, as a share of the scan.
        removed: share of the foreground that post-processing removed.
        changed: share of the foreground whose label is another than the last time; None: there was none.
        agreement: see `agreement`.
    """

    confident: dict[str, float]
    voxels: dict[str, float]
    removed: float
    changed: float | None = None
    agreement: float | None = None


def label_scan(
    probabilities: NDArray[np.floating[Any]],
    labels: Mapping[str, int],
    shares: Shares,
    confidence: float,
    ignore: int,
) -> tuple[NDArray[np.int16], Labelling]:
    """From probabilities to labels that a network can learn from.

    Args:
        probabilities: (C, Z, Y, X) of the classes.
        labels: value of each foreground class by name.
        shares: rules of post-processing.
        confidence: below it a voxel is ignored, unless post-processing made it background.
        ignore: value of such voxels.

    Returns:
        (Z, Y, X) class values, and ``ignore`` where the network was not sure; and what is told of them.
    """
    predicted = probabilities.argmax(0).astype(np.int16)
    cleaned = keep_pieces(predicted, probabilities, labels, shares)
    removed = cleaned != predicted
    sure = (probabilities.max(0) >= confidence) | removed
    classes = {"background": 0, **labels}
    of_class = {name: cleaned == value for name, value in classes.items()}
    return np.where(sure, cleaned, ignore).astype(np.int16), Labelling(
        confident={name: float(sure[mask].mean()) for name, mask in of_class.items() if mask.any()},
        voxels={name: float(of_class[name].mean()) for name in labels},
        removed=float(removed.sum() / max(1, (predicted > 0).sum())),
    )


def agreement(votes: Sequence[NDArray[np.integer[Any]]], values: Sequence[int]) -> float | None:
    """How far several networks agree on a scan: the mean Dice of each two of them, over the classes.

    A class that both of two do not see says nothing.

    Args:
        votes: (Z, Y, X) class values of each network.
        values: of the foreground classes.

    Returns:
        From 0 to 1; 1 where nobody sees a class, None where there is one network.
    """
    if len(votes) < 2:
        return None
    dice = [
        2 * np.count_nonzero(first & second) / (first.sum() + second.sum())
        for value in values
        for first, second in combinations([vote == value for vote in votes], 2)
        if first.any() or second.any()
    ]
    return mean(dice) if dice else 1.0


def implausible(found: Mapping[str, float], annotated: Mapping[str, float]) -> list[str]:
    """Classes whose mean share of the voxels is not what it is in the annotated scans, within `PLAUSIBLE_RATIO`."""
    return [
        name
        for name, share in annotated.items()
        if share > 0 and not share / PLAUSIBLE_RATIO <= found[name] <= share * PLAUSIBLE_RATIO
    ]


class MixedDataset:
    """Annotated scans of a dataset of nnU-Net's, and scans whose labels were written, as one dataset.

    Args:
        annotated: nnU-Net's dataset.
        images: folder of the preprocessed unlabelled scans.
        labels: folder of the labels that were written for them.
    """

    def __init__(self, annotated: Any, images: Path, labels: Path) -> None:
        self.annotated = annotated
        self.identifiers: list[str] = annotated.identifiers
        self._images = nnUNetDatasetBlosc2(str(images), [])
        self._labels = labels
        self.unlabelled = sorted(path.name.removesuffix("_seg.b2nd") for path in labels.glob("*_seg.b2nd"))

    def load_case(self, identifier: str | tuple[str]) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Image, labels, nothing and properties of a scan; an unlabelled one is named by a tuple."""
        if not isinstance(identifier, tuple):
            case: tuple[Any, Any, Any, dict[str, Any]] = self.annotated.load_case(identifier)
            return case
        (name,) = identifier
        options = self._images.mmap_kwargs | {"mode": "r", "dparams": {"nthreads": 1}}
        image = blosc2.open(urlpath=str(Path(self._images.source_folder) / f"{name}.b2nd"), **options)
        labels = blosc2.open(urlpath=str(self._labels / f"{name}_seg.b2nd"), **options)
        return image, labels, None, {"class_locations": self._locations(name)}

    def _locations(self, name: str) -> dict[Any, NDArray[Any]]:
        with np.load(self._labels / f"{name}_locations.npz") as stored:
            return {literal_eval(key): stored[key] for key in stored.files}


class MixedLoader(nnUNetDataLoader):  # type: ignore[misc]
    """nnU-Net's loader of patches, the last ``unlabelled`` of each batch from scans without masks.

    Foreground is oversampled among both alike.

    Args:
        loader: nnU-Net's, of the annotated scans, whose patches and transforms are taken over.
        data: both kinds of scans.
        unlabelled: patches of a batch.
    """

    def __init__(self, loader: nnUNetDataLoader, data: MixedDataset, unlabelled: int) -> None:
        self.__dict__.update(loader.__dict__)
        self._data = data
        self.unlabelled = unlabelled
        self.get_do_oversample = self._oversample_both

    def get_indices(self) -> list[Any]:
        """The scans of a batch."""
        annotated = self.batch_size - self.unlabelled
        chosen = np.random.choice(len(self._data.unlabelled), self.unlabelled)  # noqa: NPY002 - nnU-Net's state
        return [
            *np.random.choice(self.indices, annotated),  # noqa: NPY002
            *((self._data.unlabelled[index],) for index in chosen),
        ]

    def _oversample_both(self, index: int) -> bool:
        annotated = self.batch_size - self.unlabelled
        index, count = (index, annotated) if index < annotated else (index - annotated, self.unlabelled)
        return not index < round(count * (1 - self.oversample_foreground_percent))


def mixed_batches(batches: Any, images: Path, labels: Path, unlabelled: int) -> Any:
    """nnU-Net's source of training batches, with patches of unlabelled scans in each.

    Args:
        batches: nnU-Net's, of annotated scans alone.
        images: see `MixedDataset`.
        labels: see `MixedDataset`.
        unlabelled: patches of a batch.
    """
    single = isinstance(batches, SingleThreadedAugmenter)
    loader = batches.data_loader if single else batches.generator
    mixed = MixedLoader(loader, MixedDataset(loader._data, images, labels), unlabelled)
    if single:
        return SingleThreadedAugmenter(mixed, None)
    return NonDetMultiThreadedAugmenter(
        mixed,
        None,
        batches.num_processes,
        num_cached=batches.num_cached,
        pin_memory=batches.pin_memory,
        wait_time=batches.wait_time,
    )


@dataclass(frozen=True)
class Labeller:
    """Labels whole scans with one or several networks, as nnU-Net predicts them, without mirroring.

    Several networks label by the mean of their probabilities.

    Attributes:
        predictors: nnU-Net's, one of each network.
        agreed: share of the scans that is kept where there are several, those on which they agree most.
        labels: value of each foreground class by name.
        shares: rules of post-processing.
        confidence: see `UnlabelledScans`.
        ignore: value of voxels that are not sure.
        patches: how many the network sees at a time.
    """

    predictors: Sequence[nnUNetPredictor]
    labels: Mapping[str, int]
    shares: Shares
    confidence: float
    ignore: int
    patches: int
    agreed: float = 1.0

    def write(
        self,
        images: Path,
        names: Sequence[str],
        target: Path,
        annotated: Mapping[str, float],
        before: Path | None,
        progress: Progress = lambda *_: None,
    ) -> LabelsWritten:
        """Label scans and write the labels into a new folder, which is whole or not there.

        Args:
            images: folder of the preprocessed scans.
            names: of the scans.
            target: the new folder; one that is there is replaced.
            annotated: mean share of the voxels of each class in the annotated scans.
            before: labels of the last time.
            progress: called with the scans that are labelled, and how many there are.

        Returns:
            What ``summary.json`` holds.
        """
        shutil.rmtree(target, ignore_errors=True)
        with new_folder(target) as folder:
            scans = {}
            for done, name in enumerate(names, 1):
                scans[name] = self._label(images, name, folder, before and before / f"{name}_seg.b2nd")
                progress(done, len(names))
            summary = _summary(scans, annotated, [*self.labels], self.agreed)
            for left_out in summary.left_out:
                for ending in LEARNT_FROM:
                    (folder / f"{left_out.scan}{ending}").unlink()
            write_json(folder / SUMMARY, summary.content)
        return summary

    def _label(self, images: Path, name: str, folder: Path, before: Path | None) -> Labelling:
        data = torch.from_numpy(blosc2.open(urlpath=str(images / f"{name}.b2nd"), mode="r")[:])
        probabilities, votes = self._asked(data)
        labels, found = label_scan(probabilities, self.labels, self.shares, self.confidence, self.ignore)
        locations = DefaultPreprocessor._sample_foreground_locations(
            labels[None], self._looked_for, min_num_samples=LOCATIONS
        )
        # nnU-Net's form of properties, written by the preprocessing of this very training
        properties = load_pickle(str(images / f"{name}.pkl"))
        with explaining(folder / name):
            learnt = _outside_marked(labels, images / f"{name}_seg.b2nd", self.ignore)
            nnUNetDatasetBlosc2.save_seg(learnt[None], str(folder / f"{name}_seg"))
            np.savez(
                folder / f"{name}_locations.npz", **{str(key): locations[key] for key in self._looked_for}
            )
            self._write_for_people(labels, properties, folder / name)
        return replace(
            found,
            changed=_changed(labels, before, self.ignore),
            agreement=agreement(votes, [*self.labels.values()]),
        )

    def _asked(self, data: Tensor) -> tuple[NDArray[np.float32], list[NDArray[np.int16]]]:
        """The mean of the networks' probabilities of a scan, and the class that each takes for the likeliest."""
        total: Any = 0
        votes = []
        for predictor in self.predictors:
            said = self._probabilities(predictor, data).cpu().numpy()
            total = total + said
            votes.append(said.argmax(0).astype(np.int16))
            del said  # before the next network is asked: those of a large scan fill the memory
        total /= len(votes)
        return total, votes

    @property
    def _looked_for(self) -> list[Any]:
        """What nnU-Net's loader draws patches around: each class, and all known voxels if some are ignored."""
        manager = self.predictors[0].label_manager
        known = [(-1, *map(int, manager.all_labels))] if manager.has_ignore_label else []
        return [*self.labels.values(), *known]

    def _probabilities(self, predictor: nnUNetPredictor, data: Tensor) -> Tensor:
        """As nnU-Net's sliding window gives them, but several patches at a time.

        Patches are joined on the device, or, as nnU-Net does it, on the CPU where the scan fills its memory.
        """

        def joined_on(device: torch.device) -> Tensor:
            return torch.softmax(self._logits(predictor, data, device), 0)

        found = if_it_fits(lambda: joined_on(predictor.device))
        return joined_on(torch.device("cpu")) if found is None else found

    def _logits(self, predictor: nnUNetPredictor, data: Tensor, device: torch.device) -> Tensor:
        patch = predictor.configuration_manager.patch_size
        padded, inside = pad_nd_image(data, patch, "constant", {"value": 0}, True, None)
        weight = compute_gaussian(tuple(patch), sigma_scale=1 / 8, value_scaling_factor=10, device=device)
        places = predictor._internal_get_sliding_window_slicers(padded.shape[1:])
        heads = predictor.label_manager.num_segmentation_heads
        logits = torch.zeros((heads, *padded.shape[1:]), device=device)
        weights = torch.zeros(padded.shape[1:], device=device)
        for first in range(0, len(places), self.patches):
            some = places[first : first + self.patches]
            found = predictor.network(torch.stack([padded[place] for place in some]).to(predictor.device))
            for place, patch_logits in zip(some, found.to(device), strict=True):
                logits[place] += patch_logits * weight
                weights[place[1:]] += weight
        return (logits / weights)[(slice(None), *inside[1:])]

    def _write_for_people(self, labels: NDArray[np.int16], properties: dict[str, Any], path: Path) -> None:
        """Write labels on the voxels of the scan that they belong to."""
        write_whole(
            _nearest(labels, properties["shape_after_cropping_and_before_resampling"]),
            properties,
            self.predictors[0].plans_manager,
            path.with_name(f"{path.name}{self.predictors[0].dataset_json['file_ending']}"),
        )


def _nearest(labels: NDArray[np.int16], shape: Sequence[int]) -> NDArray[np.int16]:
    """Labels on another number of voxels of the same extent."""
    places = [
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for old, new in zip(labels.shape, shape, strict=True)
    ]
    nearest: NDArray[np.int16] = labels[np.ix_(*places)]
    return nearest


def _outside_marked(labels: NDArray[np.int16], mask: Path, ignore: int) -> NDArray[np.int16]:
    """Labels with -1 where nnU-Net has it in masks, around what is not empty, and no structure was found.

    Its transforms empty the image there again after they have changed it, and call it background then.

    Args:
        labels: (Z, Y, X).
        mask: preprocessed, of a scan without one.
        ignore: value of voxels that are not sure.
    """
    outside = blosc2.open(urlpath=str(mask), mode="r")[:][0] < 0
    return np.where(outside & np.isin(labels, (0, ignore)), np.int16(-1), labels)


def _changed(labels: NDArray[np.int16], before: Path | None, ignore: int) -> float | None:
    """Share of the foreground, now or before, whose label is another than the last time; None: there was none."""
    if before is None or not before.exists():
        return None
    old = blosc2.open(urlpath=str(before), mode="r")[:][0]
    foreground = ((labels > 0) & (labels != ignore)) | ((old > 0) & (old != ignore))
    return float((labels != old)[foreground].mean()) if foreground.any() else 0.0


def _summary(
    scans: Mapping[str, Labelling], annotated: Mapping[str, float], names: Sequence[str], agreed: float
) -> LabelsWritten:
    """Means over the scans, and the scans to look at first."""
    share = {name: mean([scan.voxels[name] for scan in scans.values()]) for name in names}
    removed = sorted(((scan.removed, name) for name, scan in scans.items() if scan.removed > 0), reverse=True)
    changed = [scan.changed for scan in scans.values() if scan.changed is not None]
    confident = {
        name: [scan.confident[name] for scan in scans.values() if name in scan.confident]
        for name in ("background", *names)
    }
    ranked = sorted((scan.agreement, name) for name, scan in scans.items() if scan.agreement is not None)
    return LabelsWritten(
        scans=len(scans),
        confident={name: mean(values) for name, values in confident.items() if values},
        share=share,
        annotated=dict(annotated),
        changed=mean(changed) if changed else None,
        removed_most=tuple(Removed(scan=name, removed=part) for part, name in removed[:MOST_TO_LOOK_AT]),
        implausible=tuple(implausible(share, annotated)),
        agreement=mean([part for part, _ in ranked]) if ranked else None,
        left_out=tuple(
            LeftOut(scan=name, agreement=part)
            for part, name in ranked[: len(ranked) - max(1, round(len(ranked) * agreed))]
        ),
    )


def annotated_shares(
    folder: Path, cases: Sequence[str], labels: Mapping[str, int], ignore: int
) -> dict[str, float]:
    """Mean share of each class in the annotated voxels of preprocessed scans, of those that have some.

    Args:
        folder: of the preprocessed scans.
        cases: of them.
        labels: value of each foreground class by name.
        ignore: value of voxels that nobody annotated.
    """
    found = [_shares_of(_annotated_mask(folder, case), labels, ignore) for case in cases]
    return {name: mean([shares[name] for shares in found if shares]) for name in labels}


def _shares_of(mask: NDArray[Any], labels: Mapping[str, int], ignore: int) -> dict[str, float]:
    """Share of each class in the annotated voxels of a mask; empty where it has none."""
    known = mask[mask != ignore]
    return {name: float((known == value).mean()) for name, value in labels.items()} if known.size else {}


def _annotated_mask(folder: Path, case: str) -> NDArray[Any]:
    """The mask of a preprocessed scan, which nnU-Net wrote into one file with the image before it had blosc2."""
    older = folder / f"{case}.npz"
    if older.exists():
        with np.load(older) as stored:
            return np.asarray(stored["seg"][0])
    return np.asarray(blosc2.open(urlpath=str(folder / f"{case}_seg.b2nd"), mode="r")[:][0])


def ignore_value(trainer: Any) -> int:
    """Value of voxels that are not learnt from: the data set's own, or the one after its classes."""
    known: int | None = trainer.label_manager.ignore_label
    return max(trainer.class_values.values()) + 1 if known is None else known


class UnlabelledTraining:
    """The part of a training that scans without masks have; a trainer owns one and tells it when an epoch begins.

    Args:
        trainer: of the class ``nnUNetTrainerPreset``, initialised.

    Attributes:
        annotated: patches of annotated scans at the beginning of each batch; None: all are.
        written: the epoch at whose beginning labels were written last, and a hash of them; None: never.

    Raises:
        UserError: there are no unlabelled scans, the batch has no room for them, labels are regions, or the network
            is the second of a cascade.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._settings: UnlabelledScans = trainer.preset.unlabelled
        self._patches = self._settings.patches(trainer.batch_size, trainer.ranks)
        self._check()
        raw = nnunet_folder("nnUNet_raw") / trainer.plans_manager.dataset_name
        splits = Path(trainer.preprocessed_dataset_folder_base) / SPLITS_FILE
        self._split = unlabelled_split(raw, splits, trainer.fold)
        self._preprocessed = Path(f"{trainer.preprocessed_dataset_folder}{UNLABELLED_SUFFIX}")
        self._ignore = ignore_value(trainer)
        self._loss = self._ignoring_loss()
        self._summary: LabelsWritten | None = None
        self.annotated: int | None = None
        self.written: dict[str, Any] | None = None

    @property
    def preprocessed(self) -> list[Path]:
        """Where the preprocessed scans lie, ``FOLDER/NAME`` of each."""
        return [self._preprocessed / name for name in self._split.images]

    def start(self) -> None:
        """Preprocess what is not there yet; go on with the labels that a continued training had.

        Raises:
            UserError: those labels are not there any more, or others are.
        """
        trainer = self._trainer
        self._on_one_rank(self._preprocess)
        self._batches = trainer.dataloader_train
        self._shares = annotated_shares(
            Path(trainer.preprocessed_dataset_folder),
            trainer.do_split()[0],
            trainer.class_values,
            self._ignore,
        )
        if self.written is not None:
            folder = self._folder(self.written["epoch"])
            if _labels_hash(folder) != self.written["hash"]:
                raise UserError(
                    f"{folder} does not hold the labels that this training had when it was interrupted.",
                    "Restore the folder, or move the run away and start anew.",
                )
            self._use(folder)

    def start_epoch(self) -> None:
        """Write labels where they are due."""
        trainer = self._trainer
        self._summary = None
        if trainer.current_epoch not in writing_epochs(self._settings, trainer.num_epochs):
            return
        folder = self._folder(trainer.current_epoch)
        self._on_one_rank(lambda: self._write(folder))
        self.written = {"epoch": trainer.current_epoch, "hash": _labels_hash(folder)}
        self._summary = _read_summary(folder)
        self._use(folder)

    def losses(self, outputs: Any, target: Any) -> dict[str, Tensor]:
        """The total, and its parts on annotated and on unlabelled patches."""
        annotated, unlabelled = slice(None, self.annotated), slice(self.annotated, None)
        known = self._trainer.loss(_patches(outputs, annotated), _patches(target, annotated))
        guessed = self._loss(_patches(outputs, unlabelled), _patches(target, unlabelled))
        total = known + self._settings.weight * guessed
        return {"loss": total, "segmentation_loss": known, "unlabelled_loss": guessed}

    def epoch_record(self, losses: Mapping[str, float]) -> dict[str, Any]:
        """What the history says of an epoch."""
        return {
            "unlabelled_loss": losses.get("unlabelled_loss"),
            "labels_written": self._summary and self._summary.content,
        }

    def _preprocess(self) -> None:
        trainer = self._trainer
        configuration = trainer.configuration_manager.configuration
        resolved = {key: value for key, value in configuration.items() if key != "inherits_from"}
        preprocess_unlabelled(
            self._split,
            self._preprocessed,
            {**trainer.plans_manager.plans, "configurations": {trainer.configuration_name: resolved}},
            trainer.dataset_json,
            default_num_processes,
            lambda *_: None,
        )

    def _on_one_rank(self, write: Callable[[], None]) -> None:
        """Let the first rank write what all ranks read, while the others wait."""
        ranks = self._waiting_ranks if self._trainer.is_ddp else None
        if self._trainer.local_rank == 0:
            write()
        if ranks is not None:
            torch.distributed.barrier(ranks)

    @cached_property
    def _waiting_ranks(self) -> Any:
        """All ranks, which make this group together, as it waits longer than the one that trains."""
        return torch.distributed.new_group(timeout=PATIENCE, backend="gloo")

    def _check(self) -> None:
        trainer = self._trainer
        if trainer.label_manager.has_regions:
            raise UserError(
                f"{trainer.plans_manager.dataset_name} has region labels, which may overlap.",
                "Scans without masks need one class a voxel: write plain labels into dataset.json.",
            )
        if trainer.is_cascaded:
            raise UserError(
                f"{trainer.configuration_name} is fed another network's predictions, which these scans lack.",
                "Train a configuration without a previous stage, such as 3d_fullres.",
            )
        if len(trainer.teachers) != (self._settings.teachers or 0):
            raise UserError(
                f"Self-training takes {self._settings.teachers} finished trainings, and this one was given none.",
                "Begin it with ccdcseg train --self-training, which trains them first.",
            )

    def _ignoring_loss(self) -> Any:
        """The trainer's loss, which leaves out voxels that are not sure."""
        trainer = self._trainer
        if trainer.label_manager.has_ignore_label:
            return trainer.loss
        known = trainer.label_manager
        trainer.label_manager = copy.copy(known)
        trainer.label_manager._ignore_label = self._ignore
        try:
            return trainer._build_loss()
        finally:
            trainer.label_manager = known

    def _write(self, folder: Path) -> None:
        trainer, settings = self._trainer, self._settings
        labeller = Labeller(
            self._predictors(),
            trainer.class_values,
            trainer.postprocessing.shares,
            settings.confidence,
            self._ignore,
            trainer.batch_size,
            settings.agreed,
        )
        before = None if self.written is None else self._folder(self.written["epoch"])
        progress = partial(trainer.report, f"labels, {folder.name}")
        with (
            within_memory(Path(trainer.output_folder), trainer.device),
            torch.no_grad(),
            trainer.autocast(),
            self._without_deep_supervision(),
        ):
            labeller.write(self._preprocessed, self._drawn(), folder, self._shares, before, progress)

    def _predictors(self) -> list[nnUNetPredictor]:
        """Of the teachers, or of the network that is trained."""
        trainer = self._trainer
        if self._settings.teachers is None:
            predictors = [nnUNetPredictor(device=trainer.device)]
            predictors[0].manual_initialization(
                trainer.predicting_network,
                trainer.plans_manager,
                trainer.configuration_manager,
                None,
                trainer.dataset_json,
                type(trainer).__name__,
                None,
            )
        else:
            predictors = [build_predictor(folder, trainer.device.type) for folder in trainer.teachers]
        for predictor in predictors:
            predictor.tile_step_size = TILE_STEP
            predictor.network.eval()
        return predictors

    @contextlib.contextmanager
    def _without_deep_supervision(self) -> Iterator[None]:
        decoder = self._trainer.predicting_network.decoder
        decoder.deep_supervision = False
        try:
            yield
        finally:
            decoder.deep_supervision = self._trainer.enable_deep_supervision

    def _drawn(self) -> list[str]:
        """The scans that are labelled this time; teachers label all."""
        names, most = [*self._split.images], self._settings.scans
        if most is None or most >= len(names) or self._settings.teachers is not None:
            return names
        seed = self._trainer.seed
        drawn = None if seed is None else derived_seed(seed, "scans", self._trainer.current_epoch)
        return sorted(np.random.default_rng(drawn).choice(names, most, replace=False).tolist())

    def _use(self, folder: Path) -> None:
        """Draw batches from these labels too, unless they are implausible."""
        trainer = self._trainer
        if isinstance(trainer.dataloader_train, NonDetMultiThreadedAugmenter):
            trainer.dataloader_train._finish()  # its worker processes may have patches with older labels in store
        if wrong := _read_summary(folder).implausible:
            trainer.print_to_log_file(f"Labels in {folder} are not used: {', '.join(wrong)} is implausible.")
            self.annotated, trainer.dataloader_train = None, self._batches
            return
        self.annotated = trainer.batch_size - self._patches
        trainer.dataloader_train = mixed_batches(self._batches, self._preprocessed, folder, self._patches)

    def _folder(self, epoch: int) -> Path:
        return labels_folder(Path(self._trainer.output_folder), epoch)


def _patches(tensors: Any, which: slice) -> Any:
    """Some patches of a batch; of each scale, where there is deep supervision."""
    return [tensor[which] for tensor in tensors] if isinstance(tensors, list) else tensors[which]


def _read_summary(folder: Path) -> LabelsWritten:
    return LabelsWritten.read(folder / SUMMARY, "Restore the folder, or move the run away and start anew.")


def _labels_hash(folder: Path) -> str | None:
    """Of all labels in a folder; None where there are none."""
    files = [*folder.glob("*_seg.b2nd")]
    return content_hash(files) if files else None
