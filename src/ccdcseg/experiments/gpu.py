"""Hours and memory that trainings take on a GPU, by what ``benchmarks/gpu_check.py`` measured on one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ccdcseg.errors import UserError
from ccdcseg.experiments.jobs import Job
from ccdcseg.methods import METHODS
from ccdcseg.nnunet.duration import PLANNED_CHANNELS, patch_work, run_seconds, thread_seconds, to_train
from ccdcseg.nnunet.runs import Run
from ccdcseg.runs.stored import Count, Name, NotNegative, Stored
from ccdcseg.texts import significant

UNKNOWN = (
    "Hours and memory on a GPU: not known, none was measured. benchmarks/gpu_check.py measures one in eight "
    "minutes; give its JSON as --gpu-check."
)


class Timed(Stored):
    """A method's step: seconds, and mebibytes at their peak."""

    step_seconds: NotNegative
    peak_mebibytes: NotNegative


class Environment(Stored):
    """Where it was measured."""

    device: Name


class Scale(Stored):
    """Batch and size of an image, in pixels."""

    batch: Annotated[Count, Field(gt=0)]
    size: tuple[Annotated[Count, Field(gt=0)], Annotated[Count, Field(gt=0)]]


class GpuCheck(Stored):
    """What the check wrote, as far as it is needed here."""

    format: Literal["ccdcseg-gpu-check/1"]
    environment: Environment
    scale: Scale
    methods: dict[str, Timed]


@dataclass(frozen=True)
class Needs:
    """What a training takes.

    Attributes:
        hours: of its steps, without loading of data.
        gibibytes: of the GPU's memory.
    """

    hours: float
    gibibytes: float

    def __str__(self) -> str:
        """For a command's comment."""
        return f"{significant(self.hours, 3)} hours, {significant(self.gibibytes, 2)} GB"


def read_check(path: Path) -> GpuCheck:
    """Read the JSON of the check.

    Raises:
        UserError: it is none, is damaged, or was made with ``--small``, which says nothing of real trainings.
    """
    check = GpuCheck.read(path, "Make it with benchmarks/gpu_check.py, on a GPU.")
    if check.environment.device.startswith("cpu"):
        raise UserError(f"{path} was measured on a CPU.", "Make it with benchmarks/gpu_check.py, on a GPU.")
    return check


def needs(job: Job, check: GpuCheck) -> Needs | None:
    """What a job's training takes, in proportion to voxels and channels, with teachers that are not trained yet.

    None: a method was not measured.
    """
    found = [_needs(run, check) for run in to_train([job.training])]
    return None if None in found else _together(found)


def _needs(run: Run, check: GpuCheck) -> Needs | None:
    preset, method = run.preset, METHODS[run.method]
    timed = check.methods.get(method.variant_of or method.name)
    if timed is None:
        return None
    share = patch_work(preset, method.name) / (
        check.scale.batch * prod(check.scale.size) * PLANNED_CHANNELS**2
    )
    more = run_seconds(run) / thread_seconds(preset, run.method)  # by the labels of scans without masks
    seconds = more * preset.training.steps * timed.step_seconds
    return Needs(seconds * share / 3600, timed.peak_mebibytes * share / 1024)


def _together(parts: Iterable[Needs | None]) -> Needs:
    """One after the other, those that are known."""
    known = [part for part in parts if part]
    return Needs(sum(part.hours for part in known), max((part.gibibytes for part in known), default=0.0))


def forecast(jobs: Sequence[Job], check: GpuCheck) -> str:
    """All trainings together, in a sentence."""
    found = [_needs(run, check) for run in to_train(job.training for job in jobs)]
    unknown = f", {found.count(None)} not known" if None in found else ""
    whole = _together(found)
    return (
        f"On {check.environment.device}: {significant(whole.hours, 3)} hours for {len(found) - found.count(None)} "
        f"trainings{unknown}, without loading of data; up to {significant(whole.gibibytes, 2)} GB of its memory."
    )
