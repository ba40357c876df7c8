"""Figures as inline SVG whose colours are the page's CSS variables, so that they follow light and dark.

matplotlib draws with stand-in colours, each of which is then replaced by ``var(--name)``. Titles and legends
belong to the page, not to the figure.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

ARM_COLOURS = 6
CLASS_COLOURS = 8
ROLES = ("core", "easy", "hard", "negative")

_NAMES = [
    "ink",
    "muted",
    "grid",
    "good",
    "bad",
    *(f"arm-{index}" for index in range(ARM_COLOURS)),
    *(f"class-{index}" for index in range(CLASS_COLOURS)),
    *(f"role-{role}" for role in ROLES),
]
_STAND_IN = {name: f"#{index:02x}fe{index:02x}" for index, name in enumerate(_NAMES, start=1)}
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
_PANEL_INCHES = (3.3, 2.35)
_WIDE_INCHES = (4.8, 3.0)
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ccdcseg",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _STAND_IN["grid"],
    "grid.linewidth": 0.6,
    "axes.edgecolor": _STAND_IN["muted"],
    "axes.linewidth": 0.8,
    "axes.labelcolor": _STAND_IN["ink"],
    "text.color": _STAND_IN["ink"],
    "xtick.color": _STAND_IN["muted"],
    "ytick.color": _STAND_IN["muted"],
    "xtick.labelcolor": _STAND_IN["ink"],
    "ytick.labelcolor": _STAND_IN["ink"],
}

_DOT = "dot:"
"""Where matplotlib lets a patient's mark lead until its link is known."""

_STYLES = ["default", _STYLE]
"""nnU-Net's progress plot sets font sizes for the whole process, so we begin from matplotlib's own."""


@dataclass(frozen=True)
class Look:
    """How a series is drawn and how the legend shows it.

    Attributes:
        colour: name of a CSS variable.
        dash: lengths of strokes and gaps, empty for a solid line.
    """

    colour: str
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Line:
    """A series over training; NaN leaves a gap."""

    x: Sequence[float]
    y: Sequence[float]
    look: Look


@dataclass(frozen=True)
class Dot:
    """A patient's difference, and where its mark leads.

    Attributes:
        value: the difference.
        label: patient and difference in words.
        row: id of the patient's row in the table.
        scan: place of a scan of the patient in the viewer; None where there is none.
    """

    value: float
    label: str
    row: str
    scan: int | None = None


def arm_look(index: int) -> Look:
    """Colour and dash of the arm at a place in the order of the page; 24 arms all look different.

    Six colours and four dashes repeat together after twelve, so the dashes then move on by one.
    """
    return Look(f"arm-{index % ARM_COLOURS}", _DASHES[(index + index // 12) % len(_DASHES)])


def class_look(index: int) -> Look:
    """Colour and dash of a class; 0 is the background."""
    return Look(f"class-{index % CLASS_COLOURS}", _DASHES[index % len(_DASHES)])


def role_look(role: str) -> Look:
    """Colour and dash of a role that a pixel plays in the contrastive loss."""
    return Look(f"role-{role}", _DASHES[ROLES.index(role)])


def line_panel(
    name: str,
    lines: Sequence[Line],
    alt: str,
    y_label: str,
    limits: tuple[float, float | None] | None = None,
    counts: bool = False,
) -> Markup:
    """Lines over the training iterations.

    Args:
        name: unique on the page, in letters, digits and hyphens.
        lines: the series.
        alt: what a reader who does not see the figure should know.
        y_label: quantity and unit.
        limits: of the y axis; an upper limit of ``None`` is chosen to fit.
        counts: draw the y axis logarithmic above 1, linear below.
    """
    with matplotlib.style.context(_STYLES):
        figure = Figure(figsize=_PANEL_INCHES, layout="constrained")
        axes = figure.subplots()
        for line in lines:
            axes.plot(line.x, line.y, color=_STAND_IN[line.look.colour], dashes=line.look.dash, linewidth=1.4)
        axes.set(xlabel="iteration", ylabel=y_label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if limits:
            axes.set_ylim(*limits)
        if counts:
            axes.set_yscale("symlog", linthresh=1)
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        return _inline(figure, name, alt)


def difference_panel(
    name: str,
    dots: Sequence[Dot],
    interval: Sequence[float] | None,
    alt: str,
    y_label: str,
    better_up: bool,
) -> Markup:
    """A dot for each patient, sorted by paired difference, with the mean and its interval; each is a link.

    Args:
        name: unique on the page, in letters, digits and hyphens.
        dots: the patients, their differences in the unit of ``y_label``.
        interval: 95 % interval of the mean difference.
        alt: what a reader who does not see the figure should know.
        y_label: quantity and unit.
        better_up: whether a positive difference favours the first method.
    """
    ranked = sorted(dots, key=lambda dot: dot.value, reverse=not better_up)
    values = np.array([dot.value for dot in ranked])
    with matplotlib.style.context(_STYLES):
        figure = Figure(figsize=_WIDE_INCHES, layout="constrained")
        axes = figure.subplots()
        _draw_differences(axes, values, better_up)
        if interval:
            axes.axhspan(*interval, color=_STAND_IN["ink"], alpha=0.13, linewidth=0)
        axes.axhline(float(values.mean()), color=_STAND_IN["ink"], linewidth=1.2, dashes=(4, 2))
        axes.set(xlabel="patients, from worst to best difference", ylabel=y_label)
        axes.xaxis.grid(visible=False)
        axes.set_xticks([])
        return _linked(_inline(figure, name, alt, role="group"), ranked)


def _draw_differences(axes: Axes, values: np.ndarray[Any, Any], better_up: bool) -> None:
    places = np.arange(len(values))
    is_better = values > 0 if better_up else values < 0
    for chosen, colour, marker in ((~is_better, "bad", "D"), (is_better, "good", "o")):
        axes.vlines(places[chosen], 0, values[chosen], color=_STAND_IN[colour], linewidth=0.8, alpha=0.6)
        marks = axes.scatter(
            places[chosen],
            values[chosen],
            s=3.2**2,
            color=_STAND_IN[colour],
            marker=marker,
            linewidths=0,
            zorder=2,
        )
        marks.set_urls([f"{_DOT}{place}" for place in places[chosen]])
    axes.axhline(0, color=_STAND_IN["muted"], linewidth=1)


def _linked(svg: str, dots: Sequence[Dot]) -> Markup:
    """Lead the links that stand for the dots to where these lead."""

    def anchor(match: re.Match[str]) -> str:
        dot = dots[int(match[1])]
        scan = "" if dot.scan is None else Markup(' data-scan="{}"').format(dot.scan)
        opening = Markup('<a href="#{}"{} aria-label="{}"><title>{}</title>')
        return opening.format(dot.row, scan, dot.label, dot.label)

    return Markup(re.sub(rf'<a href="{_DOT}(\d+)" target="_blank">', anchor, svg))  # noqa: S704 - escaped above


def _inline(figure: Figure, name: str, alt: str, role: str = "img") -> Markup:
    """The figure as an ``svg`` element for the body of a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(
        r'<svg[^>]*?viewBox="([^"]*)"[^>]*>',
        lambda match: f'<svg viewBox="{match[1]}" role="{role}" aria-label="{escape(alt)}">',
        svg,
        count=1,
    )
    for variable, colour in _STAND_IN.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return Markup(svg)  # noqa: S704 - drawn by matplotlib, which escapes texts
