"""From scores of scans to values of patients: scans first, then classes, then seeds.

Scans of one patient are not independent, so the patient is the unit of every mean and interval.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from ccdcseg.evaluation.metrics import METRICS

MEAN = "mean"
WITH_MISSES = "hd95_pooled_mm_with_misses"
SUMMARY_METRICS = (*METRICS, WITH_MISSES)
RESAMPLES = 2000

Key = TypeVar("Key", str, tuple[str, ...])

Unit = Literal["patient", "case"]
"""Whose scores are one observation. With "case" each scan counts for itself, as papers often have it, though
scans of one patient are alike."""


def score(row: Mapping[str, Any], metric: str) -> float | None:
    """The value of a metric in a row of ``cases``; ``None`` where it is undefined.

    `WITH_MISSES` is ``hd95_pooled_mm`` with the image's diagonal where the structure was missed, so
    that nobody wins by predicting nothing.
    """
    if metric != WITH_MISSES:
        return row[metric]  # type: ignore[no-any-return]
    return row["diagonal_mm"] if row["status"] == "missed" else row["hd95_pooled_mm"]  # type: ignore[no-any-return]


def patient_values(
    rows: Iterable[Mapping[str, Any]],
    classes: Sequence[str],
    metric: str,
    class_name: str = MEAN,
    unit: Unit = "patient",
) -> dict[str, float]:
    """The value of each patient: the mean over the scans, then (for "mean") over the classes.

    Args:
        rows: the ``cases`` of an evaluation.
        classes: the foreground classes.
        metric: one of `SUMMARY_METRICS`.
        class_name: one of ``classes``, or "mean".
        unit: "case" takes each scan for a patient of its own.

    Returns:
        Patient to value; undefined scores are left out, and so is a patient who has no other.
    """
    scans: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in classes}
    for row in rows:
        value = score(row, metric)
        if value is not None:
            scans[row["class"]][row[unit]].append(value)
    wanted = classes if class_name == MEAN else [class_name]
    return average([{patient: _mean(values) for patient, values in scans[name].items()} for name in wanted])


def average(values: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """The mean of each patient (or other key) over several mappings, over those that have a value for it."""
    keys = sorted({key for mapping in values for key in mapping})
    return {key: _mean([mapping[key] for mapping in values if key in mapping]) for key in keys}


def seed_means(
    evaluations: Iterable[Mapping[str, Any]], metric: str, class_name: str = MEAN
) -> dict[str, float]:
    """The value of each patient, the seeds averaged.

    Args:
        evaluations: of a method, one for each seed.
        metric: see `patient_values`.
        class_name: see `patient_values`.
    """
    return average(
        [patient_values(item["cases"], item["classes"], metric, class_name) for item in evaluations]
    )


def describe(values: Mapping[str, float]) -> dict[str, Any]:
    """Mean over patients, number of patients and 95 % interval, ready for JSON."""
    numbers = list(values.values())
    return {
        "value": _mean(numbers) if numbers else None,
        "n_patients": len(numbers),
        "interval": bootstrap_interval(numbers),
    }


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> list[float] | None:
    """95 % percentile bootstrap interval of the mean over patients; ``None`` below two patients."""
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    return percentile_interval(np.asarray(values, dtype=float)[drawn].mean(axis=1))


def percentile_interval(resampled: Sequence[float] | np.ndarray[Any, Any]) -> list[float]:
    """The 2.5th and 97.5th percentile of resampled means."""
    low, high = np.percentile(resampled, (2.5, 97.5))
    return [float(low), float(high)]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
