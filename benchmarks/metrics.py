"""All metrics of a structure against medpy's HD95 alone, on real ACDC references, and cases over the cores.

The prediction of a scan is its reference with errors as networks make them: an outline that is off by a voxel here
and there, and a stray island. Both are timed in turn on the same masks, in one process.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from medpy.metric.binary import assd, dc, hd, hd95
from scipy.ndimage import gaussian_filter

from ccdcseg.cores import usable_cores
from ccdcseg.datasets.volumes import Volume, read_mask, write_volume
from ccdcseg.measure.metrics import Mask, measure
from ccdcseg.runs.scoring import evaluate_folder

LABELS = {"RV": 1, "Myo": 2, "LV": 3}


@dataclass(frozen=True)
class Pair:
    """A structure in reference and prediction."""

    reference: Mask
    prediction: Mask
    spacing_mm: tuple[float, ...]


def references(count: int) -> list[Volume]:
    """Label maps of the first ACDC scans of ``CCDCSEG_DATA``."""
    root = os.environ.get("CCDCSEG_DATA")
    paths = sorted(Path(root).rglob("patient*_gt.nii.gz"))[:count] if root else []
    if not paths:
        sys.exit("CCDCSEG_DATA names no folder with ACDC scans. Set it to one.")
    return [read_mask(path, LABELS) for path in paths]


def with_errors(labels: np.ndarray[Any, Any], generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """The label map read at places that are off by about a voxel, with an island of another class."""
    shifts = [gaussian_filter(generator.normal(size=labels.shape), (0, 3, 3)) * 12 for _ in range(2)]
    places = np.indices(labels.shape)
    for axis, shift in enumerate(shifts, 1):
        places[axis] = np.clip(places[axis] + np.rint(shift).astype(int), 0, labels.shape[axis] - 1)
    wrong: np.ndarray[Any, Any] = labels[tuple(places)]
    wrong[labels.shape[0] // 2, 5:8, 5:8] = 1
    return wrong


def seconds(function: Callable[[Pair], Any], pairs: Sequence[Pair]) -> float:
    """Time for all pairs."""
    start = time.perf_counter()
    for pair in pairs:
        function(pair)
    return time.perf_counter() - start


def against_medpy(pairs: Sequence[Pair], repeats: int) -> dict[str, float]:
    """Ratios to medpy: its HD95 in mm alone, and all of its metrics that we have."""

    def ours(pair: Pair) -> float | None:
        return measure(pair.reference, pair.prediction, pair.spacing_mm).hd95_pooled_mm

    def theirs(pair: Pair) -> float:
        return float(hd95(pair.prediction, pair.reference, pair.spacing_mm))

    def all_theirs(pair: Pair) -> None:
        masks = pair.prediction, pair.reference
        dc(*masks), hd95(*masks)
        for metric in (hd95, assd, hd):
            metric(*masks, pair.spacing_mm)

    taken = [[seconds(f, pairs) for f in (ours, theirs, all_theirs)] for _ in range(repeats)]
    own = median(row[0] for row in taken)
    return {
        "speedup_over_medpy": median(row[1] / row[0] for row in taken),
        "speedup_over_medpy_all": median(row[2] / row[0] for row in taken),
        "max_abs_difference": max(abs((ours(pair) or 0) - theirs(pair)) for pair in pairs),
        "seconds_per_case": own / len(pairs) * len(LABELS),
    }


def over_cores(scans: Sequence[tuple[Volume, np.ndarray[Any, Any]]], repeats: int) -> dict[str, float]:
    """How many times faster a folder is evaluated by all cores than by one."""
    workers = usable_cores()
    with tempfile.TemporaryDirectory() as name:
        folders = Path(name) / "reference", Path(name) / "prediction"
        for folder in folders:
            folder.mkdir()
        for index, (volume, prediction) in enumerate(scans):
            for folder, array in zip(folders, (volume.array, prediction), strict=True):
                wanted = Volume(folder, array.astype(np.uint8), volume.spacing_mm)
                write_volume(folder / f"{index}.nii.gz", wanted)
        patients = {str(index): str(index) for index in range(len(scans))}

        def taken(count: int) -> float:
            start = time.perf_counter()
            evaluate_folder(*folders, LABELS, patients, workers=count)
            return time.perf_counter() - start

        ratio = median(taken(1) / taken(workers) for _ in range(repeats))
    return {"cores": workers, "speedup_over_one_core": ratio}


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    scans = [(volume, with_errors(volume.array, generator)) for volume in references(arguments.scans)]
    pairs = [
        Pair(volume.array == value, prediction == value, volume.spacing_mm)
        for volume, prediction in scans
        for value in LABELS.values()
        if (volume.array == value).any() and (prediction == value).any()
    ]
    result = {**against_medpy(pairs, arguments.repeats), **over_cores(scans, arguments.repeats)}
    print(
        json.dumps(result, indent=1)
        if arguments.json
        else "\n".join(f"{k}: {v:.3g}" for k, v in result.items())
    )


if __name__ == "__main__":
    main()
