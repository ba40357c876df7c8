"""From scores of scans to values of patients: scans first, then classes, then seeds.

Scans of one patient are not independent, so the patient is the unit of every mean and interval.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ccdcseg.measure.metrics import METRIC_NAMES

MEAN = "mean"
WITH_MISSES = "hd95_pooled_mm_with_misses"
SUMMARY_METRICS = (*METRIC_NAMES, WITH_MISSES)
RESAMPLES = 2000

Key = TypeVar("Key", str, tuple[str, ...])


def average(values: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """The mean of each patient (or other key) over several mappings, over those that have a value for it."""
    keys = sorted({key for mapping in values for key in mapping})
    return {key: mean([mapping[key] for mapping in values if key in mapping]) for key in keys}


def describe(values: Mapping[str, float]) -> dict[str, Any]:
    """Mean over patients, number of patients and 95 % interval, ready for JSON."""
    numbers = list(values.values())
    return {
        "value": mean(numbers) if numbers else None,
        "n_patients": len(numbers),
        "interval": bootstrap_interval(numbers),
    }


def bootstrap_interval(values: Sequence[float]) -> list[float] | None:
    """95 % percentile bootstrap interval of the mean over patients; ``None`` below two patients."""
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    return percentile_interval(np.asarray(values, dtype=float)[drawn].mean(axis=1))


def percentile_interval(resampled: Sequence[float] | np.ndarray[Any, Any]) -> list[float]:
    """The 2.5th and 97.5th percentile of resampled means."""
    low, high = np.percentile(resampled, (2.5, 97.5))
    return [float(low), float(high)]


def mean(values: Sequence[float]) -> float:
    """The mean as a plain number; of one or two, as most patients have scans, without an array's overhead."""
    return float(values[0] + values[-1]) / 2 if 0 < len(values) < 3 else float(np.mean(values))
