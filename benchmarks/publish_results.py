"""Small files of measured runs, to keep beside the documentation: no scans, no weights, no paths.

    python benchmarks/publish_results.py OUTPUT RUN [RUN ...]

For each run: settings and versions, per-patient scores, the epochs of its training. Over all runs: tables as
Markdown, and figures of the training and of the paired differences to nnU-Net.
"""

import argparse
import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from ccdcseg.datasets.splits import part_folder
from ccdcseg.evaluation.compare import compare
from ccdcseg.files import read_json, write_json, write_text
from ccdcseg.report.runs import BASELINE, Arm, load_arms

POINTS = {"dice": 100.0, "hd95_pooled_mm": 1.0, "hd95_pooled_vox": 1.0}
"""Metrics of the tables, and the factor they are shown with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    output: Path = arguments.output
    arms = load_arms(arguments.runs)
    for arm in arms:
        for run in arm.runs:
            publish(run.folder, output / name_of(run.folder), "test")
    write_text(output / "tables.md", tables(arms))
    draw_training(arms, output / "training.svg")
    draw_differences(arms, output / "differences.svg")


def publish(run: Path, output: Path, part: str) -> None:
    """The files of one run, measured on "test" or "validation" patients, without paths of the machine."""
    output.mkdir(parents=True, exist_ok=True)
    record = read_json(run / "run.json")
    write_json(output / "run.json", {k: v for k, v in record.items() if k not in ("images", "reference")})
    shutil.copyfile(run / "history.jsonl", output / "history.jsonl")
    rounded(part_folder(run, part) / "evaluation.csv", output / "evaluation.csv")


def name_of(run: Path) -> str:
    """Method, settings and seed of a run, as a folder's name."""
    record = read_json(run / "run.json")
    return f"{record['method']}_{record['plans'].removeprefix('ccdcseg_')}_seed{record['seed']}"


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


def tables(arms: Sequence[Arm]) -> str:
    """Means by class, method and seed, and the differences to nnU-Net by patient."""
    lines = [
        "# Tables",
        "",
        "Written by `benchmarks/publish_results.py`. Mean over patients [95 % interval].",
    ]
    for metric, factor in POINTS.items():
        classes = [*arms[0].classes, "mean"]
        unit = " (%)" if metric == "dice" else ""
        lines += ["", f"## {metric}{unit}", "", f"| run | {' | '.join(classes)} | missed | spurious |"]
        lines += ["| --- " * (len(classes) + 3) + "|"]
        for arm in arms:
            for seed, evaluation in arm.evaluations.items():
                summary = evaluation["summary"]
                cells = [_cell(summary[name][metric], factor) for name in classes]
                mean = summary["mean"]
                lines.append(
                    f"| {arm.label}, seed {seed} | {' | '.join(cells)} | {mean['n_missing']} "
                    f"| {mean['n_spurious']} |"
                )
    lines += ["", "## hd95_pooled_mm, median over all structures of all scans", "", "| run | median |"]
    lines += ["| --- | --- |"]
    for arm in arms:
        for seed, evaluation in arm.evaluations.items():
            distances = [row["hd95_pooled_mm"] for row in evaluation["cases"] if row["status"] == "ok"]
            lines.append(f"| {arm.label}, seed {seed} | {median(distances):.2f} |")
    lines += [
        "",
        "## Differences to nnU-Net",
        "",
        "| method, metric | class | difference | by seed | p | n |",
    ]
    lines += ["| --- " * 6 + "|"]
    baseline = next(arm for arm in arms if arm.method == BASELINE)
    for arm in arms:
        if arm is not baseline:
            lines += _differences(arm, baseline)
    return "\n".join(lines) + "\n"


def _cell(summary: dict[str, Any], factor: float) -> str:
    low, high = (factor * value for value in summary["interval"])
    return f"{factor * summary['value']:.2f} [{low:.2f}, {high:.2f}]"


def _differences(arm: Arm, baseline: Arm) -> list[str]:
    lines = []
    theirs = {seed: e for seed, e in baseline.evaluations.items() if seed in arm.evaluations}
    for metric, factor in POINTS.items():
        for name in [*arm.classes, "mean"]:
            result = compare(arm.evaluations, theirs, metric, name)
            low, high = (factor * value for value in result.interval or (float("nan"),) * 2)
            seeds = ", ".join(f"{factor * value:+.2f}" for value in result.per_seed.values())
            lines.append(
                f"| {arm.label}, {metric} | {name} | {factor * result.mean_difference:+.2f} "
                f"[{low:+.2f}, {high:+.2f}] | {seeds} | {result.p_value:.2g} | {result.n} |"
            )
    return lines


def draw_training(arms: Sequence[Arm], path: Path) -> None:
    """Segmentation loss of every run; similarities and contrastive loss of those that have them."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    loss, contrast, similarity = figure.subplots(1, 3)
    for number, arm in enumerate(arms):
        for run in arm.runs:
            steps = [epoch["iteration"] for epoch in run.history]
            name = f"{arm.label}, seed {run.record.seed}"
            style = {"color": f"C{number}", "linestyle": ("-", "--", ":")[run.record.seed % 3], "label": name}
            loss.plot(steps, [epoch["segmentation_loss"] for epoch in run.history], **style)
            if run.history[0].get("ccdc"):
                contrast.plot(steps, [epoch["contrastive_loss"] for epoch in run.history], **style)
                for key, width in (("positive_similarity", 1.6), ("negative_similarity", 0.8)):
                    similarity.plot(
                        steps, [_mean(e["ccdc"][key]) for e in run.history], **{**style, "linewidth": width}
                    )
    loss.set(xlabel="iteration", title="CE + Dice, training")
    loss.legend(fontsize="x-small")
    contrast.set(xlabel="iteration", title="contrastive loss")
    similarity.set(xlabel="iteration", title="similarity: core thick, negatives thin")
    figure.savefig(path, metadata={"Date": None})


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")


def draw_differences(arms: Sequence[Arm], path: Path) -> None:
    """A dot for each patient: the difference in Dice to nnU-Net, averaged over the common seeds."""
    baseline = next(arm for arm in arms if arm.method == BASELINE)
    others = [arm for arm in arms if arm is not baseline]
    figure = Figure(figsize=(10, 3), layout="constrained")
    for arm, axes in zip(others, figure.subplots(1, len(others), squeeze=False, sharey=True)[0], strict=True):
        theirs = {seed: e for seed, e in baseline.evaluations.items() if seed in arm.evaluations}
        result = compare(arm.evaluations, theirs, "dice")
        axes.plot(sorted(100 * value for value in result.differences.values()), ".")
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.axhline(100 * result.mean_difference, color="black", linestyle="--", linewidth=0.8)
        axes.set(title=f"{arm.label} - {baseline.label}", xlabel="patients", ylabel="Dice points")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
