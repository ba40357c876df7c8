"""What the voxels of each structure were taken for: a confusion matrix over all scans of all the runs given.

    python study/confusion.py RUN [RUN ...] [--part validation]

Each row is a class of the reference, each column what was predicted, in % of the row.
"""

import argparse
from pathlib import Path

import numpy as np

from ccdcseg.runs.record import read_record
from errors import masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    options = parser.parse_args()
    names = ["background", *read_record(options.runs[0]).labels]
    size = len(names)
    counts = np.zeros((size, size), dtype=np.int64)
    for run in options.runs:
        for _, reference, prediction in masks(run, options.part):
            pairs = size * reference.astype(np.int64) + prediction
            counts += np.bincount(pairs.ravel(), minlength=size**2).reshape(size, size)
    print(f"| reference | {' | '.join(names)} |")
    print(f"|{' --- |' * (size + 1)}")
    for name, row in zip(names, 100 * counts / counts.sum(1, keepdims=True), strict=True):
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in row)} |")


if __name__ == "__main__":
    main()
