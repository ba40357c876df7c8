"""What a run folder holds, and which runs are the same method with other seeds."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ccdcseg.datasets.splits import part_folder
from ccdcseg.errors import UserError
from ccdcseg.measure.patients import MEAN, describe
from ccdcseg.methods import METHODS
from ccdcseg.runs.evaluation import Evaluation, missed, read_current, seed_means
from ccdcseg.runs.history import HISTORY_FILE, Epoch, read_history
from ccdcseg.runs.record import PLAIN_PREDICTIONS, PREDICTIONS, RunRecord, read_record
from ccdcseg.runs.removed import USUAL, without_removed
from ccdcseg.texts import as_set

METHOD_NAMES = {name: method.title for name, method in METHODS.items()}
BASELINE = "nnunet"
_UNLABELLED = {"": "", "--unlabelled": " + scans without masks", "--self-training": " + self-training"}


@dataclass(frozen=True)
class FinishedRun:
    """A trained model and what was measured of it.

    Attributes:
        part: "test" or "validation", the patients whose predictions and evaluation these are.
        evaluation: ``None`` where ``evaluation.json`` is absent.
        history: an entry for each epoch; empty where ``history.jsonl`` is absent or was not read.
        plain: of what the network predicts, where post-processing made the predictions of ``evaluation``.
    """

    folder: Path
    part: str
    record: RunRecord
    evaluation: Evaluation | None
    history: Sequence[Epoch] = ()
    plain: Evaluation | None = None

    @property
    def classes(self) -> list[str]:
        """The foreground classes."""
        return self.record.classes

    @property
    def predictions(self) -> Path:
        """Folder of the predicted label maps."""
        return part_folder(self.folder, self.part) / PREDICTIONS

    @property
    def selections(self) -> list[Path]:
        """The stored selection maps, by epoch."""
        return sorted((self.folder / "selection").glob("epoch_*.npz"))

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """What tells trainings apart but for the seed and the split drawn with it, flattened to one level."""
        record = self.record
        settings = {name: value for name, value in record.settings.items() if name != "description"}
        given = {"preset": Path(record.preset).stem, "fraction": record.fraction}
        found = given | flattened(without_removed(settings))
        for name, value in USUAL.items():
            if found.get(f"training.{name}") is None:
                found[f"training.{name}"] = value
        return found


@dataclass(frozen=True)
class Arm:
    """A method under one set of conditions, trained with one or several seeds."""

    label: str
    runs: tuple[FinishedRun, ...]

    @property
    def method(self) -> str:
        """The method's name in ``run.json``."""
        return self.runs[0].record.method

    @property
    def unlabelled(self) -> str:
        """How scans without masks took part, see `RunRecord.unlabelled`."""
        return self.runs[0].record.unlabelled

    @property
    def classes(self) -> list[str]:
        """The foreground classes."""
        return self.runs[0].classes

    @property
    def evaluations(self) -> dict[int, Evaluation]:
        """Seed to evaluation, of the runs that have one."""
        return {run.record.seed: run.evaluation for run in self.runs if run.evaluation is not None}

    @property
    def plain_evaluations(self) -> dict[int, Evaluation]:
        """The same of what the network predicts, of the runs whose predictions post-processing made."""
        return {run.record.seed: run.plain for run in self.runs if run.evaluation and run.plain}

    def name_of(self, run: FinishedRun) -> str:
        """One of the arm's runs, as texts name it."""
        return f"{self.label}, seed {run.record.seed}"

    def values(self, metric: str, class_name: str = MEAN) -> dict[str, float]:
        """Value of each patient, the seeds averaged."""
        return seed_means(self.evaluations.values(), metric, class_name)

    def summary(self, metric: str, class_name: str = MEAN) -> dict[str, Any]:
        """Mean over patients with its 95 % interval; see `describe`."""
        return describe(self.values(metric, class_name))

    @property
    def patients(self) -> int:
        """How many patients were measured with any seed."""
        return len({patient for item in self.evaluations.values() for patient in item.patients})

    @property
    def missed(self) -> tuple[int, int]:
        """Structures that were not predicted at all, and structures that there are, over all scans and seeds."""
        return missed(self.evaluations.values())


def load_run(folder: Path, part: str = "test") -> FinishedRun:
    """Read a run folder; only ``run.json`` must be there.

    Args:
        folder: of the run.
        part: "test" or "validation", whose predictions and evaluation are read.

    Raises:
        UserError: ``run.json`` is missing, a file is damaged, or they are of different classes.
    """
    record = read_record(folder)
    evaluation, plain = (
        read_current(folder, part, name, record) for name in (PREDICTIONS, PLAIN_PREDICTIONS)
    )
    run = FinishedRun(folder, part, record, evaluation, read_history(folder), plain)
    unknown = {name for epoch in run.history for name in epoch.pseudo_dice} - set(run.classes)
    if unknown:
        raise UserError(
            f"{folder / HISTORY_FILE} has pseudo Dice of {min(unknown)}, which run.json does not know.",
            "Restore both from a copy: one of them is of another run.",
        )
    return run


def load_arms(folders: Sequence[Path], part: str = "test") -> list[Arm]:
    """Read runs and group those that differ by nothing but their seed, in the order given.

    Args:
        folders: of the runs.
        part: see `load_run`.

    Raises:
        UserError: no run; runs of different data sets or classes; a run given twice.
    """
    if not folders:
        raise UserError("There is no run to report.", "Name at least one run folder.")
    runs = [load_run(folder, part) for folder in folders]
    _check_comparable(runs)
    groups: dict[str, list[FinishedRun]] = defaultdict(list)
    for run in runs:
        groups[json.dumps([run.record.method, run.conditions], sort_keys=True, default=str)].append(run)
    for group in groups.values():
        _check_seeds(group)
        group.sort(key=lambda run: run.record.seed)
    labels = _labels([group[0] for group in groups.values()])
    return [Arm(label, tuple(group)) for label, group in zip(labels, groups.values(), strict=True)]


def runs_of(arms: Sequence[Arm]) -> list[tuple[Arm, FinishedRun]]:
    """Every run with its arm."""
    return [(arm, run) for arm in arms for run in arm.runs]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and value
        flat |= flattened(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _check_comparable(runs: Sequence[FinishedRun]) -> None:
    for run in runs[1:]:
        if run.record.dataset != runs[0].record.dataset or run.classes != runs[0].classes:
            raise UserError(
                f"{run.folder} has {run.record.dataset} with the classes {', '.join(run.classes)}, "
                f"{runs[0].folder} has {runs[0].record.dataset} with {', '.join(runs[0].classes)}.",
                "Make one report for each data set.",
            )


def _check_seeds(group: Sequence[FinishedRun]) -> None:
    seen: dict[int, FinishedRun] = {}
    for run in group:
        other = seen.setdefault(run.record.seed, run)
        if other is run:
            continue
        if other.record.fold_of != run.record.fold_of:
            raise UserError(
                f"{run.folder} and {other.folder} are folds of one split, with other patients each.",
                "Give one fold.",
            )
        raise UserError(
            f"{run.folder} and {other.folder} are the same training with seed {run.record.seed}.",
            "Give each run once.",
        )


def _labels(firsts: Sequence[FinishedRun]) -> list[str]:
    """The method's name, and what tells it from other arms of that name."""
    names = [_name(run.record) for run in firsts]
    labels = []
    for run, name in zip(firsts, names, strict=True):
        peers = [other for other, same in zip(firsts, names, strict=True) if same == name]
        differing = sorted(
            name
            for name in {name for peer in peers for name in peer.conditions}
            if len({repr(peer.conditions.get(name)) for peer in peers}) > 1
        )
        suffix = ", ".join(f"{name} {as_set(run.conditions.get(name, 'unset'))}" for name in differing)
        labels.append(f"{name} ({suffix})" if suffix else name)
    return labels


def _name(record: RunRecord) -> str:
    """The method's name, and how scans without masks took part unless that goes without saying."""
    method = METHODS.get(record.method)
    if method and method.needs_unlabelled and record.unlabelled == "--unlabelled":
        return method.title
    return METHOD_NAMES.get(record.method, record.method) + _UNLABELLED[record.unlabelled]
