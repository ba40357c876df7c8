"""Several scans with every method's outlines in one figure, as papers print them."""

from collections.abc import Sequence
from textwrap import wrap

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ccdcseg.report.pictures import (
    CaseSlice,
    Choice,
    Picture,
    case_slice,
    dice_by_scan,
    draw_outlines,
    figure_uri,
)
from ccdcseg.runs.finished import Arm

WIDTH_INCHES = 1.7
"""Of a picture."""
LINE_LETTERS = 28
"""Of a line under a picture."""


def montage(choices: Sequence[Choice], arms: Sequence[Arm]) -> Figure:
    """A row for each scan: the reference, then each arm's prediction with the reference dotted over it.

    Under a prediction stands the Dice of the whole scan, the mean of its classes in percent, and the seed of the
    network: seeds may have other patients for testing.

    Raises:
        UserError: as `case_slice`.
    """
    slices = [case_slice(choice, arms) for choice in choices]
    heights = [shown.image.shape[0] * shown.aspect / shown.image.shape[1] for shown in slices]
    columns = ["Reference", *(arm.label for arm in arms)]
    width = WIDTH_INCHES
    size = (width * len(columns), sum(width * height + 0.55 for height in heights) + 0.3)
    with matplotlib.style.context(
        ["default", {"text.parse_math": False, "pdf.fonttype": 42, "font.size": 8}]
    ):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(slices), len(columns), squeeze=False, height_ratios=heights)
        for row, choice, shown in zip(grid, choices, slices, strict=True):
            _draw_case(row, choice, shown)
        for axes, name in zip(grid[0], columns, strict=True):
            axes.set_title(name, fontsize=8)
    return figure


def montage_picture(figure: Figure, alt: str) -> Picture:
    """The montage for the page."""
    return Picture(figure_uri(figure), alt, "")


def _draw_case(row: Sequence[Axes], choice: Choice, shown: CaseSlice) -> None:
    words = [f"{choice.case}, slice {shown.number}", *choice.reasons]
    row[0].set_xlabel("\n".join(line for text in words for line in wrap(text, LINE_LETTERS)))
    draw_outlines(row[0], shown.image, shown.reference, shown.aspect)
    for axes, run, labels in zip(row[1:], shown.runs, shown.predictions, strict=True):
        draw_outlines(axes, shown.image, labels, shown.aspect, shown.reference)
        dice = dice_by_scan(run.evaluation).get((choice.patient, choice.case))
        seed = f"seed {run.record.seed}"
        axes.set_xlabel(seed if dice is None else f"Dice {100 * dice:.1f}, {seed}")
    for axes in row:
        axes.set(xticks=[], yticks=[])
