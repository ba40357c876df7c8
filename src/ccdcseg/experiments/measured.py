"""What was measured of an experiment: each row at each fraction, with its seeds."""

from collections.abc import Mapping
from typing import NamedTuple

from ccdcseg.experiments.experiment import Experiment
from ccdcseg.experiments.jobs import Job, Result
from ccdcseg.runs.finished import Arm, FinishedRun


class Place(NamedTuple):
    """Where in an experiment's grid: the name of a row, and a fraction."""

    row: str
    fraction: float


Measured = Mapping[Place, Arm]
"""What was measured, seeds together, in the experiment's order."""


def measured_rows(experiment: Experiment, results: Mapping[Job, Result]) -> Measured:
    """The rows that have results."""
    runs: dict[Place, list[FinishedRun]] = {}
    for job, result in results.items():
        runs.setdefault(Place(job.row, job.fraction), []).append(_run(job, result))
    return {place: Arm(_label(experiment, place), tuple(found)) for place, found in runs.items()}


def same_fraction(measured: Measured) -> dict[float, Measured]:
    """Fraction to what was measured at it."""
    fractions = dict.fromkeys(place.fraction for place in measured)
    return {
        fraction: {place: arm for place, arm in measured.items() if place.fraction == fraction}
        for fraction in fractions
    }


def percent(fraction: float) -> str:
    """A fraction in percent, as short as can be."""
    return f"{100 * fraction:g}"


def _run(job: Job, result: Result) -> FinishedRun:
    """The run of a result, whose record names no folders, with those of this machine."""
    folders = {"images": job.training.raw / "imagesTr", "reference": job.training.raw / "labelsTr"}
    return FinishedRun(job.run, job.part, result.run.model_copy(update=folders), result.evaluation)


def _label(experiment: Experiment, place: Place) -> str:
    """The row's name in tables, with the fraction where there are several."""
    several = len(experiment.fractions) > 1
    return experiment.label(experiment.row(place.row)) + (f", {percent(place.fraction)} %" if several else "")
