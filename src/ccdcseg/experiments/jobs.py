"""The trainings of an experiment as jobs: the commands of each, and the store of what was measured.

A job's folder in the store is named by the hash of its resolved settings, so tables that share a training share its
result. The training itself lies where ``ccdcseg train`` puts it.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ccdcseg.datasets.cases import dataset_folder
from ccdcseg.datasets.splits import SPLITS_FILE, check_splits, part_cases, part_folder
from ccdcseg.errors import UserError
from ccdcseg.experiments.experiment import Experiment, Row
from ccdcseg.experiments.published import published_values
from ccdcseg.files import json_hash, write_json
from ccdcseg.nnunet.duration import LONG_SECONDS, scan_seconds, thread_seconds_left
from ccdcseg.nnunet.paths import nnunet_folder
from ccdcseg.nnunet.preset import identity
from ccdcseg.nnunet.runs import Run, resolve_run
from ccdcseg.runs.evaluation import Evaluation, read_current
from ccdcseg.runs.record import PREDICTIONS, RunRecord, read_record
from ccdcseg.runs.stored import NotNegative, Stored
from ccdcseg.texts import exactly


@dataclass(frozen=True)
class Job:
    """One training with its prediction and measurement.

    Attributes:
        row: name of its row.
        training: what is trained, as it is today.
        part: "test" or "validation", the patients that are measured.
        folder: of the result in the store.
        commands: arguments of ``ccdcseg`` for each step.
        device: that computes it, or "auto".
        cases: how many are predicted and measured.
        after_seconds: of one thread for the predictions, roughly (see `ccdcseg.nnunet.duration`).
        stale: why the result that is there does not count; empty where it does.
    """

    row: str
    training: Run = field(compare=False, repr=False)
    part: str
    folder: Path
    commands: tuple[tuple[str, ...], ...]
    device: str
    cases: int
    after_seconds: float
    stale: str = field(default="", compare=False)

    @property
    def fraction(self) -> float:
        """Share of the patients to train on."""
        fraction: float = self.training.split["fraction"]
        return fraction

    @property
    def seed(self) -> int:
        """Of the split and the training."""
        seed: int = self.training.split["seed"]
        return seed

    @property
    def run(self) -> Path:
        """Folder of the training."""
        return self.training.folder

    @property
    def label(self) -> str:
        """The job's name in messages."""
        return f"{self.row}, fraction {self.fraction:g}, seed {self.seed}"

    @property
    def result(self) -> Path:
        """The file that holds what was measured."""
        return self.folder / f"{self.part}.json"

    @property
    def finished(self) -> bool:
        """Whether it has a result that counts."""
        return not self.stale and self.result.exists()

    @property
    def log(self) -> Path:
        """What the commands printed."""
        return self.folder / f"{self.part}.log"

    @property
    def predicted(self) -> int:
        """How many cases were predicted so far."""
        folder = part_folder(self.run, self.part) / PREDICTIONS
        return min(self.cases, sum(file.is_file() for file in folder.glob("[!.]*")))

    @property
    def line(self) -> str:
        """All commands as one line for a shell."""
        return " && ".join(shlex.join(["ccdcseg", *command]) for command in self.commands)


@dataclass(frozen=True)
class Choice:
    """What a user chooses of an experiment.

    Attributes:
        dataset: its name in ``nnUNet_raw``.
        preset: see :meth:`Experiment.preset`.
        seeds: empty: the experiment's.
        only: names of rows; empty: all.
        part: "test" or "validation".
        device: "cpu", "cuda", "mps" or "auto"; see `ccdcseg.devices.usable_device`.
    """

    dataset: str
    preset: str = "cpu"
    seeds: tuple[int, ...] = ()
    only: tuple[str, ...] = ()
    part: str = "test"
    device: str = "cpu"


class Result(Stored):
    """What the store keeps of a job.

    Attributes:
        format: name and number of this form.
        part: "test" or "validation", the patients that were measured.
        run: record of the training.
        evaluation: of its predictions.
        after_seconds: that prediction and measurement took; None in results of version 0.1.0.
    """

    format: Literal["ccdcseg-result/1"]
    part: Literal["test", "validation"]
    run: RunRecord
    evaluation: Evaluation
    after_seconds: NotNegative | None = None


def plan_jobs(experiment: Experiment, choice: Choice, store: Path) -> list[Job]:
    """Every job of an experiment, in the order of rows, fractions and seeds.

    Args:
        experiment: the grid.
        choice: of it.
        store: folder of the results.

    Raises:
        UserError: data set, split, patients for ``part``, row, preset or setting do not exist.
    """
    return [
        _job(row, _resolve(experiment, choice, row, fraction, seed), choice, store.absolute())
        for row, fraction, seed in _grid(experiment, choice)
    ]


def plan_all(experiments: Mapping[str, Experiment], choice: Choice, store: Path) -> dict[str, list[Job]]:
    """The jobs of several experiments, see `plan_jobs`.

    Raises:
        UserError: as `plan_jobs`, of all splits that were not drawn at once; published numbers cannot be read.
    """
    for one in experiments.values():
        if one.published:
            published_values(one.published)
    raw = dataset_folder(nnunet_folder("nnUNet_raw"), choice.dataset)
    splits = ((fraction, seed) for one in experiments.values() for _, fraction, seed in _grid(one, choice))
    check_splits(raw / SPLITS_FILE, dict.fromkeys(splits))
    return {name: plan_jobs(one, choice, store) for name, one in experiments.items()}


def write_result(job: Job, after_seconds: float) -> None:
    """Store settings, versions, seed, hash of the data and scores, without paths of the machine.

    Args:
        job: whose steps are done.
        after_seconds: what the steps after the training took.

    Raises:
        UserError: there is no evaluation of the run as it is.
    """
    record = read_record(job.run)
    evaluation = read_current(job.run, job.part, PREDICTIONS, record)
    if evaluation is None:
        raise UserError(f"{job.run} was not evaluated.", "Run the same command again.")
    result = Result(
        format="ccdcseg-result/1",
        part=job.part,
        run=record.published,
        evaluation=evaluation,
        after_seconds=round(after_seconds, 1),
    )
    write_json(job.result, result.content)


def read_result(job: Job) -> Result:
    """The result of a job.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return Result.read(job.result, "Remove the file and run the same command: it is made anew.")


def read_results(jobs: Sequence[Job]) -> dict[Job, Result]:
    """The results of the jobs that are finished.

    Raises:
        UserError: one is damaged.
    """
    return {job: read_result(job) for job in jobs if job.finished}


def _grid(experiment: Experiment, choice: Choice) -> list[tuple[Row, float, int]]:
    return [
        (row, fraction, seed)
        for row in experiment.only(choice.only)
        for fraction in experiment.fractions
        for seed in choice.seeds or row.seeds or experiment.seeds
    ]


def _resolve(experiment: Experiment, choice: Choice, row: Row, fraction: float, seed: int) -> Run:
    preset = experiment.preset(row, choice.preset)
    return resolve_run(choice.dataset, row.method, fraction, seed, preset, tuple(row.changes))


def _job(row: Row, run: Run, choice: Choice, store: Path) -> Job:
    cases = len(part_cases(run.raw, run.fold, choice.part))
    return Job(
        row=row.name,
        training=run,
        part=choice.part,
        folder=store / "runs" / _key(run),
        commands=_commands(run, choice),
        device=choice.device,
        cases=cases,
        after_seconds=cases * scan_seconds(run.preset, run.method),
    )


def _key(run: Run) -> str:
    content = {
        "dataset": run.raw.name,
        "method": run.method,
        "split": run.split["hash"],
        "settings": identity(run.preset),
    }
    return json_hash(content)[:16]


def _commands(run: Run, choice: Choice) -> tuple[tuple[str, ...], ...]:
    """``--resume`` starts anew where there is nothing to continue."""
    options = {
        "method": run.method,
        "fraction": exactly(run.split["fraction"]),
        "seed": str(run.split["seed"]),
    }
    options |= {"preset": run.preset_name, "device": choice.device}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    changes = [word for change in run.changes for word in ("--set", change)]
    is_long = thread_seconds_left([run]) > LONG_SECONDS
    yes = ("--yes",) if is_long and choice.device != "cuda" else ()  # `reproduce` has asked
    part = ("--part", choice.part)
    return (
        ("train", run.raw.name, *words, *changes, "--resume", *yes),
        ("predict", str(run.folder), *part, "--device", choice.device),
        ("evaluate", str(run.folder), *part),
    )
