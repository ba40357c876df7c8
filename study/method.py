"""The figures of the page of the method: what CCDC saw and drew as a training went on.

    python study/method.py                     # docs/images/confidence.svg and pixels.svg
    python study/method.py --pixels-of RUN     # docs/images/selection.webp, of a run on the phantom

The curves are of a published training. Which pixels were drawn was kept of trainings on scans too, but scans are
nobody's to publish: the picture is of a training on the phantom, whose folder ``ccdcseg demo`` makes.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ccdcseg.errors import UserError
from ccdcseg.report.figures import ROLES, save_figure
from ccdcseg.report.pictures import ROLE_COLOURS, painted_roles
from ccdcseg.runs.finished import load_run
from ccdcseg.runs.history import Telemetry
from published import read_runs

ROOT = Path(__file__).parents[1]
RUN = ROOT / "study" / "data" / "ablation" / "literal_4x_seed0"
IMAGES = ROOT / "docs" / "images"
SIZE = (7, 2.2)
SVG = {"svg": {"metadata": {"Date": None}}}
CLASSES = ("#444444", "#0072b2", "#c14a00", "#00805d")
EPOCHS = 4
"""Of which a point is the mean."""
DASHES = ("-", "--", ":")
"""Of core, easy and hard."""
matplotlib.rcParams.update(
    {
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e4e7ea",
        "svg.hashsalt": "ccdcseg",
        "svg.fonttype": "none",
    }
)

Seen = Sequence[Telemetry]
Read = Callable[[Telemetry], float | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pixels-of", type=Path, metavar="RUN", help="folder of a training on the phantom")
    options = parser.parse_args()
    if options.pixels_of:
        selection(options.pixels_of)
        return
    (run,) = read_runs(RUN).values()
    found = [(epoch.iteration, epoch.diagnostics) for epoch in run.history if epoch.diagnostics]
    steps, seen = zip(*found, strict=True)
    confidence(steps, seen)
    pixels(steps, seen)


def confidence(steps: Sequence[int], seen: Seen) -> None:
    """Class confidence, and class confusion of each structure, over the steps."""
    classes = seen[0].classes
    figure = Figure(figsize=SIZE, layout="constrained")
    first, *others = figure.subplots(1, len(classes))
    for number, name in enumerate(classes):
        curve(first, steps, seen, lambda one, n=number: one.confidence[n], CLASSES[number], "-", name)  # type: ignore[misc]
    first.set(title="class confidence $D_A$", ylabel="mean probability", ylim=(0, 1))
    for row, panel in enumerate(others, start=1):
        for column in {*range(len(classes))} - {row}:
            curve(panel, steps, seen, lambda one, r=row, c=column: one.confusion[r][c], CLASSES[column], "-")  # type: ignore[misc]
        panel.set(title=f"confusion of {classes[row]} with", ylim=(0, None))
    finish(figure, first, "confidence")


def pixels(steps: Sequence[int], seen: Seen) -> None:
    """Which share of each class's pixels is core, easy and hard, over the steps."""
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = figure.subplots(1, len(seen[0].classes), sharey=True)
    for number, panel in enumerate(panels):
        for role, dash in zip(ROLES, DASHES, strict=False):
            curve(panel, steps, seen, share(role, number), CLASSES[number], dash, role)
        panel.set(title=seen[0].classes[number], ylim=(0, 1))
    panels[0].set_ylabel("share of the class's pixels")
    finish(figure, panels[0], "pixels")


def share(role: str, number: int) -> Read:
    """Pixels of a role among the easy and hard ones, which are all of the class."""

    def read(one: Telemetry) -> float | None:
        easy, hard, wanted = (getattr(one, name)[number] for name in ("easy", "hard", role))
        return None if easy is None or hard is None else wanted / (easy + hard)

    return read


def curve(
    panel: Axes,
    steps: Sequence[int],
    seen: Seen,
    read: Read,
    colour: str,
    dash: str,
    label: str | None = None,
) -> None:
    """A quantity over the steps, the mean of some epochs; a gap where it was not there."""
    known = np.ma.masked_invalid(np.array([read(one) for one in seen], dtype=float))
    x, y = (values.reshape(-1, EPOCHS).mean(axis=1) for values in (np.array(steps), known))
    panel.plot(x, y, dash, color=colour, linewidth=1.2, label=label)
    panel.set(xlabel="step", xticks=(0, 4000, 8000))


def finish(figure: Figure, panel: Axes, name: str) -> None:
    """Legend and file."""
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, IMAGES / name, SVG)


def selection(folder: Path) -> None:
    """Which pixels of a slice were drawn, early, in the middle and at the end of a training."""
    run = load_run(folder)
    if not run.record.synthetic:
        raise UserError(f"{folder} is of scans of patients.", "Name a run on the phantom.")
    steps = {epoch.epoch: epoch.iteration for epoch in run.history}
    files = [run.selections[0], run.selections[len(run.selections) // 2], run.selections[-1]]
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    for panel, file in zip(figure.subplots(1, len(files)), files, strict=True):
        with np.load(file) as arrays:
            label, role = arrays["label"].astype(int), arrays["role"]
            panel.imshow(painted_roles(arrays["image"].astype(float), label, role), interpolation="nearest")
        panel.set_title(f"step {steps[int(file.stem.removeprefix('epoch_'))]}")
        panel.set_axis_off()
    keys = [Patch(color=ROLE_COLOURS[role], label=role) for role in ROLES]
    figure.legend(handles=keys, loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, IMAGES / "selection", {"webp": {"dpi": 130, "pil_kwargs": {"quality": 80}}})


if __name__ == "__main__":
    main()
