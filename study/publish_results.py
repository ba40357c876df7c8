"""Small files of measured runs, to keep beside the documentation: no scans, no weights, no paths.

    python study/publish_results.py OUTPUT RUN [RUN ...] [--part validation]

For each run: settings and versions, per-patient scores, the epochs of its training. Tables and figures of runs are
made by ``ccdcseg compare``, ``report`` and ``reproduce``.
"""

import argparse
import csv
import shutil
from pathlib import Path

from ccdcseg.datasets.splits import part_folder
from ccdcseg.files import write_text
from ccdcseg.runs.record import read_record, write_record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    arguments = parser.parse_args()
    for run in arguments.runs:
        publish(run, arguments.output / name_of(run), arguments.part)


def publish(run: Path, output: Path, part: str) -> None:
    """The files of one run, measured on "test" or "validation" patients, without paths of the machine."""
    output.mkdir(parents=True, exist_ok=True)
    write_record(output, read_record(run).published)
    shutil.copyfile(run / "history.jsonl", output / "history.jsonl")
    rounded(part_folder(run, part) / "evaluation.csv", output / "evaluation.csv")


def name_of(run: Path) -> str:
    """Method, settings and seed of a run, as a folder's name."""
    record = read_record(run)
    return f"{record.method}_{record.plans.removeprefix('ccdcseg_')}_seed{record.seed}"


def rounded(source: Path, target: Path) -> None:
    """A table with numbers to four decimals."""
    with source.open(newline="") as handle:
        rows = list(csv.reader(handle))
    lines = [",".join(_rounded(cell) for cell in row) for row in rows]
    write_text(target, "\n".join(lines) + "\n")


def _rounded(cell: str) -> str:
    try:
        return f"{float(cell):.4f}".rstrip("0").rstrip(".") if "." in cell else cell
    except ValueError:
        return cell


if __name__ == "__main__":
    main()
