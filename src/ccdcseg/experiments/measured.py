"""What was measured of an experiment: each row at each fraction, with its seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ccdcseg.experiments.experiment import Experiment, Row
from ccdcseg.experiments.jobs import Job, Result
from ccdcseg.measure.patients import MEAN, describe
from ccdcseg.runs.evaluation import Evaluation, seed_means
from ccdcseg.statistics.failure import failure

Results = Mapping[Job, Result]


@dataclass(frozen=True)
class Measured:
    """A row at one fraction.

    Attributes:
        label: its name in tables, with the fraction where there are several.
        jobs: its trainings, those that are finished.
        evaluations: seed to evaluation.
    """

    row: Row
    fraction: float
    label: str
    jobs: tuple[Job, ...]
    evaluations: dict[int, Evaluation]

    @property
    def classes(self) -> list[str]:
        """The foreground classes."""
        return list(next(iter(self.evaluations.values())).classes)

    @property
    def patients(self) -> int:
        """How many patients were measured with any seed."""
        return len({patient for item in self.evaluations.values() for patient in item.patients})

    @property
    def missed(self) -> int:
        """Structures that were not predicted at all, over all scans and seeds."""
        return sum(item.summary[MEAN].n_missing for item in self.evaluations.values())

    @cached_property
    def failure(self) -> str:
        """What it came to where it hardly found anything; see `ccdcseg.statistics.failure.failure`."""
        return failure(self.evaluations.values())

    def values(self, metric: str, class_name: str = MEAN) -> dict[str, float]:
        """Value of each patient, the seeds averaged."""
        return seed_means(self.evaluations.values(), metric, class_name)

    def summary(self, metric: str, class_name: str = MEAN) -> dict[str, Any]:
        """Mean over patients with its 95 % interval; see `describe`."""
        return describe(self.values(metric, class_name))


def measured_rows(experiment: Experiment, results: Results) -> list[Measured]:
    """The rows that have results, in the experiment's order."""
    rows = {row.name: row for row in experiment.rows}
    jobs: dict[tuple[str, float], list[Job]] = {}
    for job in results:
        jobs.setdefault((job.row, job.fraction), []).append(job)
    return [
        Measured(
            rows[name],
            fraction,
            experiment.label(rows[name])
            + (f", {percent(fraction)} %" if len(experiment.fractions) > 1 else ""),
            tuple(found),
            {job.seed: results[job].evaluation for job in found},
        )
        for (name, fraction), found in jobs.items()
    ]


def same_fraction(measured: Sequence[Measured]) -> dict[float, list[Measured]]:
    """Fraction to its rows."""
    groups: dict[float, list[Measured]] = {}
    for one in measured:
        groups.setdefault(one.fraction, []).append(one)
    return groups


def percent(fraction: float) -> str:
    """A fraction in percent, as short as can be."""
    return f"{100 * fraction:g}"
