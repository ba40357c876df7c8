"""What a run folder holds, and which runs are the same method with other seeds."""

import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ccdcseg.datasets.splits import part_folder
from ccdcseg.errors import UserError
from ccdcseg.evaluation.evaluate import read_evaluation
from ccdcseg.evaluation.patients import MEAN, seed_means
from ccdcseg.files import read_json
from ccdcseg.methods import METHODS

METHOD_NAMES = {name: method.title for name, method in METHODS.items()}
BASELINE = "nnunet"


class RunRecord(BaseModel):
    """The contents of ``run.json``: what was trained, on what, with which settings."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    method: str
    dataset: str
    preset: str
    fraction: float
    seed: int
    changes: list[str] = []
    fold: int | str = 0
    settings: dict[str, Any] = {}
    versions: dict[str, str] = {}
    data_hash: str = ""
    seconds: float | None = None
    iterations: int | None = None
    patients: dict[str, list[str]] = {}
    labels: dict[str, int]
    synthetic: bool = False
    reference: Path | None = None
    images: Path | None = None
    device: str = ""
    machine: str = ""
    precision: str = ""
    started: str = ""
    split_hash: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Versions, and the network's precision where it was recorded."""
        return self.versions | ({"precision": self.precision} if self.precision else {})

    @property
    def command(self) -> str:
        """The command that trains such a run."""
        options = {"method": self.method, "fraction": self.fraction, "seed": self.seed, "preset": self.preset}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        changes = [word for change in self.changes for word in ("--set", change)]
        return shlex.join(["ccdcseg", "train", self.dataset, *words, *changes])


@dataclass(frozen=True)
class Run:
    """A trained model and what was measured of it.

    Attributes:
        part: "test" or "validation", the patients whose predictions and evaluation these are.
        evaluation: contents of ``evaluation.json``; ``None`` where it is absent.
        history: a mapping for each epoch; empty where ``history.jsonl`` is absent.
    """

    folder: Path
    part: str
    record: RunRecord
    evaluation: Mapping[str, Any] | None
    history: Sequence[Mapping[str, Any]]

    @property
    def foreground(self) -> dict[str, int]:
        """Label value of each foreground class."""
        return {name: value for name, value in self.record.labels.items() if value != 0}

    @property
    def classes(self) -> list[str]:
        """The foreground classes."""
        return list(self.foreground)

    @property
    def predictions(self) -> Path:
        """Folder of the predicted label maps."""
        return part_folder(self.folder, self.part) / "predictions"

    @property
    def selections(self) -> list[Path]:
        """The stored selection maps, by epoch."""
        return sorted((self.folder / "selection").glob("epoch_*.npz"))

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """What tells trainings apart but for the seed and the split drawn with it, flattened to one level."""
        record = self.record
        settings = {name: value for name, value in record.settings.items() if name != "seed"}
        return {"preset": record.preset, "fraction": record.fraction} | flattened(settings)


@dataclass(frozen=True)
class Arm:
    """A method under one set of conditions, trained with one or several seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def method(self) -> str:
        """The method's name in ``run.json``."""
        return self.runs[0].record.method

    @property
    def classes(self) -> list[str]:
        """The foreground classes."""
        return self.runs[0].classes

    @property
    def evaluations(self) -> dict[int, Mapping[str, Any]]:
        """Seed to evaluation, of the runs that have one."""
        return {run.record.seed: run.evaluation for run in self.runs if run.evaluation is not None}

    def name_of(self, run: Run) -> str:
        """One of the arm's runs, as texts name it."""
        return f"{self.label}, seed {run.record.seed}"

    def values(self, metric: str, class_name: str = MEAN) -> dict[str, float]:
        """Value of each patient, the seeds averaged."""
        return seed_means(self.evaluations.values(), metric, class_name)


def load_run(folder: Path, part: str = "test") -> Run:
    """Read a run folder; only ``run.json`` must be there.

    Args:
        folder: of the run.
        part: "test" or "validation", whose predictions and evaluation are read.

    Raises:
        UserError: ``run.json`` is missing, a file is damaged, or the evaluation is of other classes.
    """
    evaluation = part_folder(folder, part) / "evaluation.json"
    run = Run(
        folder,
        part,
        _record(folder / "run.json"),
        read_evaluation(evaluation) if evaluation.exists() else None,
        _history(folder / "history.jsonl"),
    )
    if run.evaluation and run.evaluation["classes"] != run.classes:
        raise UserError(f"{evaluation} has other classes than run.json.", "Evaluate the run again.")
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
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[json.dumps([run.record.method, run.conditions], sort_keys=True, default=str)].append(run)
    for group in groups.values():
        _check_seeds(group)
        group.sort(key=lambda run: run.record.seed)
    labels = _labels([group[0] for group in groups.values()])
    return [Arm(label, tuple(group)) for label, group in zip(labels, groups.values(), strict=True)]


def runs_of(arms: Sequence[Arm]) -> list[tuple[Arm, Run]]:
    """Every run with its arm."""
    return [(arm, run) for arm in arms for run in arm.runs]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and value
        flat |= flattened(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _record(path: Path) -> RunRecord:
    if not path.exists():
        raise UserError(
            f"{path.parent} is no run folder: it has no run.json.", "Name a folder that `train` made."
        )
    try:
        return RunRecord.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "content"
        raise UserError(
            f"{path}: {place}: {first['msg']}.", "Train the run again, or mend the file."
        ) from error


def _history(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged ({error}).", "Remove the unfinished line.") from error


def _check_comparable(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        if run.record.dataset != runs[0].record.dataset or run.classes != runs[0].classes:
            raise UserError(
                f"{run.folder} has {run.record.dataset} with the classes {', '.join(run.classes)}, "
                f"{runs[0].folder} has {runs[0].record.dataset} with {', '.join(runs[0].classes)}.",
                "Make one report for each data set.",
            )


def _check_seeds(group: Sequence[Run]) -> None:
    seen: dict[int, Path] = {}
    for run in group:
        seed = run.record.seed
        if seed in seen:
            raise UserError(
                f"{run.folder} and {seen[seed]} are the same training with seed {seed}.",
                "Give each run once.",
            )
        seen[seed] = run.folder


def _labels(firsts: Sequence[Run]) -> list[str]:
    """The method's name, and what tells it from other arms of that method."""
    labels = []
    for run in firsts:
        peers = [other for other in firsts if other.record.method == run.record.method]
        differing = sorted(
            name
            for name in {name for peer in peers for name in peer.conditions}
            if len({repr(peer.conditions.get(name)) for peer in peers}) > 1
        )
        suffix = ", ".join(f"{name} {run.conditions.get(name, 'unset')}" for name in differing)
        name = METHOD_NAMES.get(run.record.method, run.record.method)
        labels.append(f"{name} ({suffix})" if suffix else name)
    return labels
