"""Compare two methods on the same patients.

The unit is the patient: a patient's scans are averaged, then the seeds. One seed compares two trained
networks; it takes several to compare two methods. `scans_as_patients` ignores that scans of a patient are alike: it
exists to repeat what papers print, and finds differences where there are none (docs/statistics.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, wilcoxon

from ccdcseg.errors import UserError
from ccdcseg.measure.patients import (
    MEAN,
    RESAMPLES,
    average,
    bootstrap_interval,
    mean,
    percentile_interval,
)
from ccdcseg.runs.evaluation import Evaluation, comparable_values

Paired = list[dict[str, float]]
"""Patient to value with the one method and with the other, for the same patients."""


@dataclass(frozen=True)
class Comparison:
    """Paired differences (first minus second) of two methods.

    Attributes:
        differences: difference of each patient tested with both methods, averaged over the seeds that both have:
            a seed draws the training patients too. Where they share none, each method's own are averaged first.
        interval: 95 % bootstrap interval of the mean difference over patients; ``None`` below two patients.
        interval_seeds: the same over seeds and patients; ``None`` below two seeds or two patients.
        p_value: two-sided Wilcoxon signed-rank test over patients; 1 if no patient differs.
        rank_biserial: matched-pairs rank-biserial correlation in [-1, 1]; positive: the first is larger.
        per_seed: mean difference of each seed that both methods have.
        seed_sd: standard deviation of ``per_seed``; ``None`` below two seeds.
    """

    metric: str
    class_name: str
    differences: dict[str, float]
    mean_difference: float
    interval: list[float] | None
    interval_seeds: list[float] | None
    p_value: float
    rank_biserial: float
    per_seed: dict[int, float]
    seed_sd: float | None

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(self.differences)


def compare(
    first: Mapping[int, Evaluation],
    second: Mapping[int, Evaluation],
    metric: str,
    class_name: str = MEAN,
) -> Comparison:
    """Compare two methods by patient.

    Args:
        first: seed to evaluation of the one method.
        second: seed to evaluation of the other.
        metric: one of `SUMMARY_METRICS`.
        class_name: a class, or "mean" over the classes.

    Raises:
        UserError: no patient has a value with both methods; there is no such metric; or an evaluation has no such
            class.
    """
    pairs = paired(first, second, metric, class_name)
    if not pairs:
        raise UserError(f"No patient has {metric} with both methods.", "Test both on the same patients.")
    differences = _averaged(pairs)
    by_seed = {seed: _differences(*pairs[seed]) for seed in sorted(first.keys() & pairs.keys())}
    per_seed = {seed: mean([*values.values()]) for seed, values in by_seed.items()}
    return Comparison(
        metric,
        class_name,
        differences,
        mean_difference=mean([*differences.values()]),
        interval=bootstrap_interval(list(differences.values())),
        interval_seeds=hierarchical_interval([*by_seed.values()]),
        p_value=wilcoxon_p(list(differences.values())),
        rank_biserial=rank_biserial(list(differences.values())),
        per_seed=per_seed,
        seed_sd=float(np.std(list(per_seed.values()), ddof=1)) if len(per_seed) > 1 else None,
    )


def patient_differences(
    first: Mapping[int, Evaluation], second: Mapping[int, Evaluation], metric: str, class_name: str = MEAN
) -> dict[str, float]:
    """`Comparison.differences` alone, empty where no patient has a value with both; the rest takes far longer.

    Args:
        first, second, metric, class_name: see `compare`.
    """
    pairs = paired(first, second, metric, class_name)
    return _averaged(pairs) if pairs else {}


def wilcoxon_p(differences: Sequence[float]) -> float:
    """Two-sided p of the Wilcoxon signed-rank test, zero differences left out; 1 where all are zero."""
    changed = tuple(value for value in differences if value != 0)
    return _wilcoxon_p(changed) if changed else 1.0


@lru_cache
def _wilcoxon_p(differences: tuple[float, ...]) -> float:
    """Kept, since with few patients and ties every sign is tried."""
    return float(wilcoxon(differences).pvalue)


def rank_biserial(differences: Sequence[float]) -> float:
    """Matched-pairs rank-biserial correlation: (ranks above zero - ranks below) / all ranks (Kerby 2014)."""
    changed = np.array([value for value in differences if value != 0])
    if not changed.size:
        return 0.0
    ranks = rankdata(np.abs(changed))
    return float(np.sum(np.sign(changed) * ranks) / np.sum(ranks))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p values, in the order given."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return [float(value) for value in adjusted]


def hierarchical_interval(by_seed: Sequence[Mapping[str, float]]) -> list[float] | None:
    """95 % bootstrap interval of the mean difference, seeds and patients both drawn with replacement.

    A patient tested with several seeds stays one patient: seeds and patients are drawn crosswise.

    Args:
        by_seed: for each seed, patient to difference.
    """
    patients = sorted({patient for values in by_seed for patient in values})
    if min(len(by_seed), len(patients)) < 2:
        return None
    table = np.array([[values.get(patient, np.nan) for patient in patients] for values in by_seed])
    generator = np.random.default_rng(0)
    means = np.array([resampled_means(table[None], generator)[0] for _ in range(RESAMPLES)])
    return percentile_interval(means[~np.isnan(means)])


def resampled_means(table: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """For each method, the mean over drawn patients of the mean over drawn seeds.

    Args:
        table: values, shape (methods, seeds, patients); NaN where a patient was not tested with a seed, which is
            then so for every method.
        generator: draws the same seeds and patients for all methods, each with replacement.

    Returns:
        Shape (methods,); NaN where no drawn patient was tested with a drawn seed.
    """
    seeds, patients = (generator.integers(size, size=size) for size in table.shape[1:])
    drawn = table[:, seeds][:, :, patients]
    tested = ~np.isnan(drawn)
    counts = tested.sum(axis=1)
    sums = np.where(tested, drawn, 0).sum(axis=1)
    kept = counts[0] > 0
    if not kept.any():
        return np.full(len(table), np.nan)
    means: NDArray[np.float64] = (sums[:, kept] / counts[:, kept]).mean(axis=1)
    return means


def scans_as_patients(evaluations: Mapping[int, Evaluation]) -> dict[int, Evaluation]:
    """The evaluations of a method, each scan a patient of its own; without summaries, which are of patients."""
    return {
        seed: evaluation.model_copy(
            update={
                "cases": tuple(row.model_copy(update={"patient": row.case}) for row in evaluation.cases),
                "summary": {},
            }
        )
        for seed, evaluation in evaluations.items()
    }


def paired(
    first: Mapping[int, Evaluation], second: Mapping[int, Evaluation], metric: str, class_name: str = MEAN
) -> dict[int | None, Paired]:
    """The values of two methods with the seeds, and of the structures, that both have; see `comparable_values`.

    Args:
        first, second, metric, class_name: see `compare`.

    Returns:
        By seed; where they share none, by None, each method's own averaged; empty where they share no patient.
    """
    seeds = [seed for seed in first if seed in second]
    pairs = comparable_values([[[first[seed]], [second[seed]]] for seed in seeds], metric, class_name)
    if any(ours for ours, _ in pairs):
        return {seed: pair for seed, pair in zip(seeds, pairs, strict=True) if pair[0]}
    (pair,) = comparable_values([[[*first.values()], [*second.values()]]], metric, class_name)
    return {None: pair} if pair[0] else {}


def _averaged(pairs: Mapping[int | None, Paired]) -> dict[str, float]:
    """Difference of each patient, averaged over the seeds."""
    return _differences(*map(average, zip(*pairs.values(), strict=True)))


def _differences(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Of values for the same patients, see `paired`; rounded, so that noise parts neither ties nor zeros."""
    return {patient: round(first[patient] - second[patient], 12) + 0.0 for patient in sorted(first)}
