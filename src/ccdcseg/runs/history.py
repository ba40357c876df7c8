"""What a training was like, epoch by epoch: ``history.jsonl`` in a run's folder."""

import json
import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

from pydantic import model_validator

from ccdcseg.errors import UserError
from ccdcseg.files import append_bytes, read_text, write_text
from ccdcseg.runs.stored import Count, Name, NotNegative, Share, Stored

HISTORY_FILE = "history.jsonl"

Vector = tuple[float | None, ...]
"""A number for each class; None where it has none."""


class Telemetry(Stored):
    """What a contrastive term saw and drew of each class, the mean over the steps of an epoch.

    See `ccdcseg.losses.Diagnostics` for the quantities; one that a method has not is None. A new quantity is added
    here.
    """

    classes: tuple[Name, ...]
    confidence: Vector | None = None
    confusion: tuple[Vector, ...] | None = None
    threshold: Vector | None = None
    core: Vector | None = None
    easy: Vector | None = None
    hard: Vector | None = None
    queries_easy: Vector | None = None
    queries_hard: Vector | None = None
    positive_similarity: Vector | None = None
    negative_similarity: Vector | None = None
    class_loss: Vector | None = None
    hard_share_wanted: Vector | None = None
    hard_share_drawn: Vector | None = None

    @model_validator(mode="after")
    def _one_number_a_class(self) -> Self:
        size = len(self.classes)
        for name in type(self).model_fields:
            held = getattr(self, name)
            rows = held if name == "confusion" and held is not None else ()
            if held is not None and {len(held), *map(len, rows)} != {size}:
                raise ValueError(f"{name} does not have a number for each of the {size} classes")
        return self


class Removed(Stored):
    """How much of the predicted foreground of a scan post-processing removed."""

    scan: Name
    removed: Share


class LeftOut(Stored):
    """A scan on which teachers do not agree: mean Dice of each two of them, over the classes."""

    scan: Name
    agreement: Share


class LabelsWritten(Stored):
    """What the labels were like that a network wrote for scans without masks: ``summary.json`` beside them.

    Attributes:
        scans: how many were labelled.
        confident: share of each class's voxels, the background among them, that the network was sure of.
        share: of each foreground class among the voxels of a scan, the mean over the scans.
        annotated: the same in the annotated scans.
        changed: share of the foreground whose label is another than the last time; None: there was none.
        removed_most: the scans of which post-processing removed most, which are those to look at first.
        implausible: classes whose size cannot be; if there are any, the labels are not used.
        agreement: how far the teachers of self-training agreed, the mean over the scans; None: there were none.
        left_out: the scans on which they agreed least, which are not learnt from.
    """

    scans: Count
    confident: dict[Name, Share]
    share: dict[Name, Share]
    annotated: dict[Name, Share]
    changed: Share | None
    removed_most: tuple[Removed, ...]
    implausible: tuple[Name, ...]
    agreement: Share | None = None
    left_out: tuple[LeftOut, ...] = ()


def labels_folder(run: Path, epoch: int) -> Path:
    """Where the labels lie that a run wrote for scans without masks at the beginning of an epoch."""
    return run / "unlabelled" / f"epoch_{epoch:04d}"


class Epoch(Stored):
    """One epoch of a training.

    A new field is added here, with the default None; the trainer sets it (``_epoch_record``).

    Attributes:
        epoch: its number, from 0 on.
        iteration: optimiser steps so far.
        learning_rate: at its end.
        seconds: how long it took.
        train_loss: all that was minimised; losses are None where they were not finite.
        segmentation_loss: the network's own loss.
        contrastive_loss: None where the method has none.
        unlabelled_loss: on scans without masks; None where there are none, or none yet.
        labels_written: what the labels of these scans were like, in an epoch that wrote some.
        validation_loss: nnU-Net's.
        pseudo_dice: nnU-Net's, of each class; None where it is not defined.
        diagnostics: see `Telemetry`.
    """

    epoch: Count
    iteration: Count
    learning_rate: NotNegative
    seconds: NotNegative
    train_loss: float | None
    segmentation_loss: float | None
    contrastive_loss: float | None
    unlabelled_loss: float | None = None
    labels_written: LabelsWritten | None = None
    validation_loss: float | None
    pseudo_dice: dict[Name, Share | None]
    diagnostics: Telemetry | None

    @model_validator(mode="after")
    def _known_classes(self) -> Self:
        known = self.diagnostics.classes if self.diagnostics else ("background", *self.pseudo_dice)
        for name in ("background", *self.pseudo_dice):
            if name not in known:
                raise ValueError(f"diagnostics.classes is {', '.join(known)} and lacks {name}")
        return self


def read_history(folder: Path) -> list[Epoch]:
    """The epochs so far; none where nothing was written yet.

    A last line that is cut short, as a kill may leave it, is dropped and the log says so.

    Raises:
        UserError: a line is no epoch, a field of it is missing or wrong, or the epochs are not in their order.
    """
    path = folder / HISTORY_FILE
    if not path.exists():
        return []
    lines = read_text(path).splitlines(keepends=True)
    if lines and _is_cut_short(lines[-1]):
        logging.getLogger("ccdcseg").warning("%s: its last line is cut short and left out.", path)
        del lines[-1]
    remedy = "Restore it from a copy, or move it away: then a finished run has no curves."
    epochs = [Epoch.parse(line, f"{path}, line {number}", remedy) for number, line in enumerate(lines, 1)]
    for number, (before, after) in enumerate(pairwise(epochs), 2):
        if after.epoch <= before.epoch or after.iteration <= before.iteration:
            raise UserError(
                f"{path}, line {number}: epoch {after.epoch} at iteration {after.iteration} follows epoch "
                f"{before.epoch} at iteration {before.iteration}.",
                remedy,
            )
    return epochs


def count_epochs(folder: Path) -> int:
    """How many epochs were written so far, without reading them."""
    path = folder / HISTORY_FILE
    return path.read_bytes().count(b"\n") if path.exists() else 0


def write_history(folder: Path, epochs: Sequence[Epoch]) -> None:
    """Write all epochs, atomically."""
    write_text(folder / HISTORY_FILE, "".join(map(_line, epochs)))


def extend_history(folder: Path, epochs: Sequence[Epoch], left: int | None) -> int:
    """Write the last epoch behind the others, or all where the file is not as it was left.

    An epoch of many classes has a matrix of them: to write all each time takes the square of the epochs.

    Args:
        folder: of the run.
        epochs: all so far.
        left: size of the file with all but the last; None: it holds what an earlier training came to.

    Returns:
        Its size now.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / HISTORY_FILE
    if path.exists() and path.stat().st_size == left:
        append_bytes(path, _line(epochs[-1]).encode())
    else:
        write_history(folder, epochs)
    return path.stat().st_size


def _line(epoch: Epoch) -> str:
    return json.dumps(epoch.content, allow_nan=False) + "\n"


def _is_cut_short(line: str) -> bool:
    if line.endswith("\n"):
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    return False
