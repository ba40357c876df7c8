"""Table of the published runs of the ablation: each setting, its seeds, and the difference to its paired nnU-Net.

python benchmarks/ablation_table.py docs/ablation/runs > docs/ablation/runs.md

Several folders are joined; each is that of one run, or holds those of several. With --bare: the table alone.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from ccdcseg.evaluation.compare import compare
from ccdcseg.evaluation.patients import bootstrap_interval, patient_values
from ccdcseg.files import read_json

HEADER = """# Runs of the ablation

Written by `benchmarks/ablation_table.py` from the files under `docs/ablation/runs`; [protocol](protocol.md).
Measured on the 30 patients for choosing of each seed: Dice in %, mean [95 % interval over patients], the difference
to nnU-Net of the same seeds and number of steps (mean, median over the patients, mean without the patient who
differs most, then the mean by class; to the mean of its trainings where there are several), and mean and median of
`hd95_pooled_mm` over all structures, and for how many it is not defined.
"""
COLUMNS = (
    "setting", "steps", "seeds", "changes to the preset", "Dice", "difference", "median", "without",
    "RV", "Myo", "LV", "HD95, mean, median", "none",
)  # fmt: skip

Evaluations = dict[int, dict[str, Any]]
"""Of a setting, by seed."""
Key = tuple[str, int]
"""Setting and number of steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--bare", action="store_true")
    arguments = parser.parse_args()
    seeds, records = load(tables(arguments.runs))
    baselines = nnunet_means(seeds, records)
    if not arguments.bare:
        print(HEADER)
    for line in (COLUMNS, ["---"] * len(COLUMNS)):
        print(f"| {' | '.join(line)} |")
    for name, steps in sorted(records, key=lambda key: (key[1], not is_plain(records[key]))):
        run, ours = records[name, steps], seeds[name, steps]
        changes = ", ".join(f"`{change}`" for change in run["changes"])
        row = f"{name} | {steps} | {', '.join(map(str, ours))} | {changes}"
        theirs = {} if is_plain(run) else baselines.get(steps, {})
        print(f"| {row} | {cells(ours, theirs)} |")


def load(paths: Sequence[Path]) -> tuple[dict[Key, Evaluations], dict[Key, dict[str, Any]]]:
    """Evaluations of each setting by seed, and the record of one of its runs."""
    evaluations: dict[Key, Evaluations] = defaultdict(dict)
    records: dict[Key, dict[str, Any]] = {}
    for table in paths:
        name, seed = table.parent.name.rsplit("_seed", 1)
        run = read_json(table.parent / "run.json")
        records[name, run["iterations"]] = run
        evaluations[name, run["iterations"]][int(seed)] = read(table)
    return evaluations, records


def tables(folders: Sequence[Path]) -> list[Path]:
    """The published evaluations in them, or one level below."""
    found = {table for folder in folders for table in folder.glob("**/evaluation.csv")}
    return sorted(found)


def read(table: Path) -> dict[str, Any]:
    """A published table as an evaluation."""
    with table.open(newline="") as handle:
        rows = [{key: _value(cell) for key, cell in row.items()} for row in csv.DictReader(handle)]
    return {"classes": list(dict.fromkeys(row["class"] for row in rows)), "cases": rows}


def is_plain(run: dict[str, Any]) -> bool:
    """Whether a run is nnU-Net's, or CCDC's with a term of weight 0, which is the same training."""
    return run["method"] == "nnunet" or (run["method"] == "ccdc" and not run["settings"]["ccdc"]["weight"])


def nnunet_means(runs: dict[Key, Evaluations], records: dict[Key, dict[str, Any]]) -> dict[int, Evaluations]:
    """By steps and seed, the mean of all trainings of nnU-Net."""
    trained: dict[int, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for name, steps in (key for key, record in records.items() if is_plain(record)):
        for seed, evaluation in runs[name, steps].items():
            trained[steps][seed].append(evaluation)
    return {steps: {seed: averaged(each) for seed, each in found.items()} for steps, found in trained.items()}


def averaged(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several trainings as one: each structure's mean Dice."""
    cases = zip(*(evaluation["cases"] for evaluation in evaluations), strict=True)
    rows = [{**same[0], "dice": mean(row["dice"] for row in same)} for same in cases]
    return {"classes": evaluations[0]["classes"], "cases": rows}


def _value(cell: str) -> str | float | None:
    try:
        return float(cell)
    except ValueError:
        return cell or None


def cells(ours: Evaluations, baseline: Evaluations) -> str:
    """What is printed of one setting."""
    dice = [100 * v for e in ours.values() for v in patient_values(e["cases"], e["classes"], "dice").values()]
    low, high = bootstrap_interval(dice) or (float("nan"),) * 2
    distances = [
        row["hd95_pooled_mm"]
        for e in ours.values()
        for row in e["cases"]
        if row["hd95_pooled_mm"] is not None
    ]
    theirs = {seed: baseline[seed] for seed in ours if seed in baseline}
    shown = [f"{mean(dice):.2f} [{low:.2f}, {high:.2f}]", *differences(ours, theirs)]
    undefined = sum(row["hd95_pooled_mm"] is None for e in ours.values() for row in e["cases"])
    return " | ".join([*shown, f"{mean(distances):.1f}, {median(distances):.1f}", str(undefined)])


def differences(ours: Evaluations, theirs: Evaluations) -> list[str]:
    """The mean over the classes with its interval, median, mean without one patient, then each class."""
    if not theirs:
        return [""] * 6
    result = compare(ours, theirs, "dice")
    low, high = (100 * value for value in result.interval or (float("nan"),) * 2)
    each = [f"{points:+.2f}" for points in by_structure(ours, theirs).values()]
    middle = f"{100 * median(result.differences.values()):+.2f}"
    shown = f"{100 * result.mean_difference:+.2f} [{low:+.2f}, {high:+.2f}]"
    return [shown, middle, without_one(result.differences), *each]


def without_one(differences: dict[str, float]) -> str:
    """The mean without the patient who differs most, and who that is."""
    patient = max(differences, key=lambda name: abs(differences[name]))
    rest = [value for name, value in differences.items() if name != patient]
    return f"{100 * mean(rest):+.2f} ({patient})" if rest else ""


def by_structure(ours: Evaluations, theirs: Evaluations) -> dict[str, float]:
    """The mean difference of each structure in points."""
    classes = next(iter(ours.values()))["classes"]
    return {name: 100 * compare(ours, theirs, "dice", name).mean_difference for name in classes}


if __name__ == "__main__":
    main()
