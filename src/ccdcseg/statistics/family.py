"""Several comparisons that are tested together, and how surely each method has which rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ccdcseg.measure.display import METRICS
from ccdcseg.measure.patients import MEAN, RESAMPLES
from ccdcseg.runs.evaluation import Evaluation, comparable_values, spurious
from ccdcseg.statistics.compare import (
    Comparison,
    compare,
    holm,
    paired,
    resampled_means,
)
from ccdcseg.statistics.failure import failure
from ccdcseg.tabular import NOISE

FAMILY = ("dice", "hd95_pooled_mm")
"""The metrics that are tested unless others are named."""

Methods = Mapping[str, Mapping[int, Evaluation]]
"""Name of a method to its evaluations by seed."""

Told = TypeVar("Told", str, int)

Pair = tuple[str, str]
"""Names of two methods; the difference is the first minus the second."""


@dataclass(frozen=True)
class Outcome:
    """One comparison of a family, with p adjusted over all of them.

    Attributes:
        failures: name and what it came to of those of the two that hardly found the structures; where there is
            one, which of them is better means nothing.
        spurious: name and number of structures marked where there is none of those of the two that marked some.
    """

    first: str
    second: str
    comparison: Comparison
    p_adjusted: float
    failures: dict[str, str] = field(default_factory=dict)
    spurious: dict[str, int] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The metric that is compared."""
        return self.comparison.metric


@dataclass(frozen=True)
class Ranks:
    """How often each method had each rank when patients (and seeds) were drawn again.

    Attributes:
        frequencies: name to the shares of rank 1, 2 and so on; methods that are equal share the better rank.
        patients: that every method was tested on.
        seeds: that were drawn too; 1: patients alone were drawn.
    """

    metric: str
    frequencies: dict[str, list[float]]
    patients: int
    seeds: int


def compare_family(methods: Methods, pairs: Sequence[Pair], metrics: Sequence[str] = FAMILY) -> list[Outcome]:
    """Compare pairs in several metrics, the mean over the classes; one family for Holm's adjustment.

    Args:
        methods: what is compared.
        pairs: names of two of them each; one that is named twice is tested once, as is a metric.
        metrics: of `SUMMARY_METRICS`.

    Returns:
        In the order of metrics, then pairs; without those that share no patient with a value.
    """
    found = [
        (pair, compare(methods[pair[0]], methods[pair[1]], metric, MEAN))
        for metric in dict.fromkeys(metrics)
        for pair in dict.fromkeys((first, second) for first, second in pairs)
        if have_common(methods, pair, metric)
    ]
    adjusted = holm([comparison.p_value for _, comparison in found])
    failures = {name: failure(of_seeds.values()) for name, of_seeds in methods.items()}
    marked = {name: spurious(of_seeds.values()) for name, of_seeds in methods.items()}
    return [
        Outcome(*pair, comparison, p, _told(pair, failures), _told(pair, marked))
        for (pair, comparison), p in zip(found, adjusted, strict=True)
    ]


def _told(pair: Pair, told: Mapping[str, Told]) -> dict[str, Told]:
    """What there is to tell of the two."""
    return {name: told[name] for name in pair if told[name]}


def have_common(methods: Methods, pair: Pair, metric: str) -> bool:
    """Whether a patient has a value with both methods."""
    return bool(paired(methods[pair[0]], methods[pair[1]], metric))


def rank_frequencies(methods: Methods, metric: str) -> Ranks | None:
    """Draw patients and, where all methods have several seeds in common, seeds anew, and rank the means.

    Args:
        methods: what is ranked, in ``metric``'s mean over the classes.
        metric: one of `SUMMARY_METRICS`.

    Returns:
        None where there are fewer than two methods, or patients that all were tested on.
    """
    if len(methods) < 2:
        return None
    table = _paired_table([*methods.values()], metric)
    if table.shape[2] < 2:
        return None
    generator = np.random.default_rng(0)
    means = np.array([resampled_means(table, generator) for _ in range(RESAMPLES)])
    means = means[~np.isnan(means).any(axis=1)]
    ranks = _ranks(means if METRICS[metric].higher_is_better else -means)
    shares = {
        name: [float(np.mean(ranks[:, index] == rank)) for rank in range(1, len(methods) + 1)]
        for index, name in enumerate(methods)
    }
    return Ranks(metric, shares, table.shape[2], table.shape[1])


def _ranks(merits: NDArray[np.float64]) -> NDArray[np.int64]:
    """In each row, 1 and how many are better; by more than noise, as the order of classes leaves in a mean."""
    ranks: NDArray[np.int64] = 1 + (merits[:, None, :] - merits[:, :, None] > NOISE).sum(axis=2)
    return ranks


def _paired_table(methods: Sequence[Mapping[int, Evaluation]], metric: str) -> NDArray[np.float64]:
    """Shape (methods, seeds, patients), NaN where a patient has no value with a seed.

    Seeds that all methods have are kept apart; where there is none, each method's seeds are averaged first.
    """
    common = sorted(set.intersection(*map(set, methods)))
    rounds = [[[seeds[seed]] for seeds in methods] for seed in common]
    by_seed = comparable_values(rounds or [[[*seeds.values()] for seeds in methods]], metric)
    patients = sorted({patient for found in by_seed for patient in found[0]})
    return np.array(
        [[[values.get(p, np.nan) for p in patients] for values in found] for found in by_seed], dtype=float
    ).swapaxes(0, 1)
