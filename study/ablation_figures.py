"""Figures of the published runs of the ablation: differences to nnU-Net, and similarities over training.

    python study/ablation_figures.py study/data/ablation study/ablation --curves literal half_time_0.3

writes ``differences.svg``, each setting's difference to its paired nnU-Net with the 95 % interval over patients,
and ``similarity.svg``, how alike the queries of each class are to their core and to their negatives in the
settings named (seed 0).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ablation_table import by_structure, evaluations, is_plain, load, nnunet_of
from ccdcseg.report.figures import save_figure
from ccdcseg.statistics.compare import compare
from published import read_runs

matplotlib.rcParams.update({"font.size": 8, "svg.hashsalt": "ccdcseg", "svg.fonttype": "none"})
MARKS = (("o", "#0072B2"), ("s", "#D55E00"), ("^", "#009E73"), ("v", "#CC79A7"))
"""Of the structures."""
LOOKS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--curves", nargs="+", required=True, help="settings of similarity.svg")
    options = parser.parse_args()
    differences(options.runs, options.output / "differences")
    similarity(options.runs, options.curves, options.output / "similarity")


def differences(runs: Path, path: Path) -> None:
    """One line a setting, best first, in a panel for each length of training."""
    settings = load([runs])
    lengths = sorted({steps for _, steps in settings})
    found: dict[int, list[tuple[str, Any, dict[str, float]]]] = {steps: [] for steps in lengths}
    for (name, steps), trainings in settings.items():
        if not is_plain(trainings):
            ours, theirs = evaluations(trainings), nnunet_of(settings, (name, steps))
            label = name if len(ours) == 1 else f"{name}, {len(ours)} seeds"
            found[steps].append((label, compare(ours, theirs, "dice"), by_structure(ours, theirs)))
    heights = [1 + len(rows) for rows in found.values()]
    figure = Figure(figsize=(7, 0.19 * sum(heights) + 1.2), layout="constrained")
    panels = figure.subplots(len(lengths), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
    for panel, (steps, rows) in zip(panels[:, 0], found.items(), strict=True):
        forest(panel, sorted(rows, key=lambda row: row[1].mean_difference))
        panel.set_title(f"{steps:,} steps", loc="left", fontsize=8)
    panels[0, 0].legend(loc="upper left", frameon=False)
    panels[-1, 0].set_xlabel("Dice, difference to nnU-Net in points, patients for choosing")
    save_figure(figure, path, {"svg": {"metadata": {"Date": None}}})


def forest(panel: Any, rows: Sequence[tuple[str, Any, dict[str, float]]]) -> None:
    """Mean and interval of each row as a bar, structures as marks."""
    panel.axvline(0, color="0.6", linewidth=0.8)
    for place, (_, result, structures) in enumerate(rows):
        panel.plot([100 * end for end in result.interval], [place, place], color="0.25", linewidth=1.2)
        panel.plot(100 * result.mean_difference, place, "D", color="0.1", markersize=4)
        for (name, value), (mark, colour) in zip(structures.items(), MARKS, strict=False):
            label = name if place == 0 else None
            panel.plot(value, place, mark, color=colour, markersize=3, alpha=0.8, label=label, ls="")
    panel.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    panel.set_ylim(-0.7, len(rows) - 0.3)
    panel.spines[["top", "right"]].set_visible(False)


def similarity(runs: Path, names: Sequence[str], path: Path) -> None:
    """A panel for each class; solid: to the core, dashed: to the negatives."""
    trained = read_runs(runs)
    number = 1 + len(trained[f"{names[0]}_seed0"].record.classes)
    figure = Figure(figsize=(7, 2.3), layout="constrained")
    panels = figure.subplots(1, number, sharey=True)
    for name, colour in zip(names, LOOKS, strict=False):
        history = trained[f"{name}_seed0"].history
        found = [(epoch.iteration, epoch.diagnostics) for epoch in history if epoch.diagnostics]
        steps, seen = zip(*found, strict=True)
        for place, panel in enumerate(panels):
            for key, style in (("positive_similarity", "-"), ("negative_similarity", "--")):
                values = np.array([getattr(each, key)[place] for each in seen], dtype=float)
                label = name if style == "-" else None
                panel.plot(steps, values, style, color=colour, linewidth=1, label=label)
            panel.set_title(seen[0].classes[place], fontsize=8)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel("step")
    panels[0].set_ylabel("cosine to core (solid)\nand negatives (dashed)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, path, {"svg": {"metadata": {"Date": None}}})


if __name__ == "__main__":
    main()
