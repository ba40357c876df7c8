"""Where runs are wrong: wrong voxels by kind and by third of the heart, and the differences to the first run.

    python study/errors.py NNUNET_RUN RUN [RUN ...] [--part validation] > ERRORS.md

The text that it writes (HEADER) says what is counted.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label

from ccdcseg.datasets.cases import read_cases, read_file_ending
from ccdcseg.datasets.splits import part_cases, part_folder
from ccdcseg.datasets.volumes import read_mask
from ccdcseg.measure.patients import average, bootstrap_interval
from ccdcseg.progress import progress_bars
from ccdcseg.runs.record import RunRecord, read_record

ISLAND_PIXELS = 3
OUTLINE_PIXELS = 2
KINDS = ("island", "beyond", "missed slice", "outline", "inside", "outside")
THIRDS = ("base", "middle", "apex")

HEADER = f"""# Where runs are wrong

Written by `study/errors.py`. Each structure's wrong voxels, in % of its voxels in the reference, as the mean
over patients (a patient's scans averaged), and in brackets the difference to the first run with its 95 % interval:

- island: predicted, in a connected part (3-D, with diagonals), nowhere within {ISLAND_PIXELS} pixels of the heart;
- beyond: else predicted, in a slice in which the reference has none of the structure;
- missed slice: of the reference, in a slice in which none of the structure is predicted;
- outline: else wrong, within {OUTLINE_PIXELS} pixels of the reference's outline in the slice;
- inside, outside: else wrong, deeper in the structure or farther from it.

Then Dice, in %, by third of the heart's slices in the reference; the base is the end whose half holds more heart.
"""

Mask = NDArray[np.bool_]
Scores = dict[tuple[str, ...], float]
"""(structure, "wrong" or "dice", kind or third) to a number in %."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    options = parser.parse_args()
    with progress_bars() as report:
        found = []
        for index, run in enumerate(options.runs):
            report("runs", index, len(options.runs))
            found.append(by_patient(run, options.part))
        report("runs", len(found), len(found))
    names = [run_name(read_record(run)) for run in options.runs]
    structures = read_record(options.runs[0]).labels
    print(HEADER)
    for what, columns in (("wrong", KINDS), ("dice", THIRDS)):
        print(f"| structure | run | {' | '.join(columns)} |")
        print(f"|{' --- |' * (2 + len(columns))}")
        for structure in structures:
            for name, scores in zip(names, found, strict=True):
                cells = [cell(scores, found[0], (structure, what, column)) for column in columns]
                print(f"| {structure} | {name} | {' | '.join(cells)} |")
        print()


def run_name(record: RunRecord) -> str:
    """Method, and what was changed of the preset."""
    return ", ".join([record.method, *record.changes])


def by_patient(run: Path, part: str) -> dict[str, Scores]:
    """Each patient's scores, the mean over the scans."""
    labels = read_record(run).labels
    scans: dict[str, list[Scores]] = defaultdict(list)
    for patient, reference, prediction in masks(run, part):
        scans[patient].append(scan_scores(reference, prediction, labels))
    return {patient: average(each) for patient, each in scans.items()}


def masks(run: Path, part: str) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Of every scan: patient, reference and prediction (z, y, x)."""
    record = read_record(run)
    reference_folder = record.local("reference", run)
    patients = {case.case: case.patient for case in read_cases(reference_folder.parent)}
    ending = read_file_ending(reference_folder.parent)
    for case in part_cases(reference_folder.parent, record.fold, part):
        paths = (reference_folder, part_folder(run, part) / "predictions")
        reference, prediction = (
            read_mask(folder / f"{case}{ending}", record.labels).array for folder in paths
        )
        yield patients[case], reference, prediction


def scan_scores(reference: NDArray[Any], prediction: NDArray[Any], labels: dict[str, int]) -> Scores:
    """All scores of one scan (z, y, x); a structure that the reference lacks has none."""
    heart: Mask = reference > 0
    near_heart, parts = within(heart, ISLAND_PIXELS), thirds(heart)
    scores: Scores = {}
    for name, value in labels.items():
        ours, theirs = reference == value, prediction == value
        if not ours.any():
            continue
        for kind, wrong in wrong_voxels(ours, theirs, near_heart).items():
            scores[name, "wrong", kind] = 100 * np.count_nonzero(wrong) / np.count_nonzero(ours)
        for third, slices in parts.items():
            size = np.count_nonzero(ours[slices]) + np.count_nonzero(theirs[slices])
            if size:
                scores[name, "dice", third] = 200 * np.count_nonzero((ours & theirs)[slices]) / size
    return scores


def wrong_voxels(reference: Mask, prediction: Mask, near_heart: Mask) -> dict[str, Mask]:
    """The wrong voxels of one structure, each in the first kind that fits."""
    parts, _ = label(prediction, np.ones((3, 3, 3)))
    attached = np.unique(parts[near_heart])
    island = prediction & ~np.isin(parts, attached)
    near = within(reference, OUTLINE_PIXELS) & within(~reference, OUTLINE_PIXELS)
    added, lost = prediction & ~reference & ~island, reference & ~prediction
    beyond = added & ~reference.any((1, 2), keepdims=True)
    missed = lost & ~prediction.any((1, 2), keepdims=True)
    added, lost = added & ~beyond, lost & ~missed
    return {
        "island": island & ~reference,
        "beyond": beyond,
        "missed slice": missed,
        "outline": (added | lost) & near,
        "inside": lost & ~near,
        "outside": added & ~near,
    }


def within(mask: Mask, pixels: float) -> Mask:
    """Pixels at most so far from the mask, slice by slice; none in a slice without it."""
    found = [
        distance_transform_edt(~plane) <= pixels if plane.any() else np.zeros_like(plane) for plane in mask
    ]
    return np.stack(found)


def thirds(heart: Mask) -> dict[str, NDArray[np.intp]]:
    """Slices with heart, in three parts of as equal length as can be, from base to apex."""
    slices = np.flatnonzero(heart.any((1, 2)))
    half = len(slices) // 2
    if np.count_nonzero(heart[slices[:half]]) < np.count_nonzero(heart[slices[len(slices) - half :]]):
        slices = slices[::-1]
    return dict(zip(THIRDS, np.array_split(slices, 3), strict=True))


def cell(scores: dict[str, Scores], baseline: dict[str, Scores], key: tuple[str, ...]) -> str:
    """The mean over patients, and for all but the first run the difference to it with its 95 % interval."""
    shared = [p for p in baseline if key in baseline[p] and key in scores[p]]
    shown = f"{np.mean([scores[p][key] for p in shared]):.1f}"
    if scores is baseline:
        return shown
    differences = [scores[p][key] - baseline[p][key] for p in shared]
    low, high = bootstrap_interval(differences) or (float("nan"),) * 2
    return f"{shown} ({np.mean(differences):+.1f} [{low:+.1f}, {high:+.1f}])"


if __name__ == "__main__":
    main()
