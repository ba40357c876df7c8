"""Figures as inline SVG whose colours are the page's CSS variables, so that they follow light and dark.

matplotlib draws with stand-in colours, each of which is then replaced by ``var(--name)``. Titles and legends
belong to the page, not to the figure.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import matplotlib.style
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from ccdcseg.files import write_bytes
from ccdcseg.texts import visible

T = TypeVar("T")

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
_MARGIN_INCHES = (0.72, 0.45, 0.08, 0.08)
"""Left, bottom, right and top: room for seven digits and the label of the axis."""
PRINT_COLOURS = {
    "ink": "#1a2027", "muted": "#5b6672", "grid": "#dfe4e9", "arm-0": "#0072b2", "arm-1": "#c14a00",
    "arm-2": "#00805d", "arm-3": "#a3467e", "arm-4": "#7a5a00", "arm-5": "#444c55",
}  # fmt: skip
"""Colours of figures in files of their own: those of the page in light."""


def _style(colours: Mapping[str, str]) -> list[Any]:
    """Ours upon matplotlib's own, since nnU-Net's progress plot sets font sizes for the whole process."""
    ours = {
        "svg.fonttype": "none",
        "svg.hashsalt": "ccdcseg",
        "pdf.fonttype": 42,
        "text.parse_math": False,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": colours["grid"],
        "grid.linewidth": 0.6,
        "axes.edgecolor": colours["muted"],
        "axes.linewidth": 0.8,
        "axes.labelcolor": colours["ink"],
        "text.color": colours["ink"],
        "xtick.color": colours["muted"],
        "ytick.color": colours["muted"],
        "xtick.labelcolor": colours["ink"],
        "ytick.labelcolor": colours["ink"],
    }
    return ["default", ours]


_DOT = "dot:"
"""Where matplotlib lets a patient's mark lead until its link is known."""


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
class Shares:
    """A method's value at several shares of labelled patients.

    Attributes:
        percent: of the patients.
        values: in the unit of the axis.
        intervals: 95 % of each value, None where there is none.
    """

    label: str
    percent: Sequence[float]
    values: Sequence[float]
    intervals: Sequence[Sequence[float] | None]
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
    """Colour and dash of a class, 0 being the background; 32 classes all look different."""
    return Look(f"class-{index % CLASS_COLOURS}", _DASHES[(index + index // CLASS_COLOURS) % len(_DASHES)])


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
    marks: Sequence[tuple[int, Look]] = (),
) -> Markup:
    """Lines over the training iterations.

    Args:
        name: unique on the page, in letters, digits and hyphens.
        lines: the series.
        alt: what a reader who does not see the figure should know.
        y_label: quantity and unit.
        limits: of the y axis; an upper limit of ``None`` is chosen to fit.
        counts: draw the y axis logarithmic above 1, linear below.
        marks: iterations at which something begins, and how they are drawn.
    """
    with matplotlib.style.context(_style(_STAND_IN)):
        figure, axes = _panel(_PANEL_INCHES)
        for line in lines:
            axes.plot(
                line.x,
                line.y,
                color=_STAND_IN[line.look.colour],
                dashes=line.look.dash,
                linewidth=1.4,
                marker="o",
                markersize=3,
                markevery=_alone(line.y),
            )
        for x, look in marks:
            axes.axvline(x, color=_STAND_IN[look.colour], dashes=look.dash, linewidth=0.7)
        axes.set(xlabel="iteration", ylabel=y_label)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if limits:
            axes.set_ylim(*limits)
        if counts:
            axes.set_yscale("symlog", linthresh=1)
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        return _inline(figure, name, alt)


def _alone(values: Sequence[float]) -> list[int]:
    """Places of values between NaNs: a line needs two points, so these are marked."""
    there = np.pad(np.isfinite(values), 1)
    return np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:]).tolist()


def _panel(inches: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure with one pair of axes. Margins are fixed: to measure the texts first takes as long as to draw."""
    (width, height), (left, bottom, right, top) = inches, _MARGIN_INCHES
    figure = Figure(figsize=inches)
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure, figure.add_axes(box)


def shares_panel(name: str, series: Sequence[Shares], alt: str, y_label: str) -> Markup:
    """A line for each method over the share of labelled patients, with 95 % intervals.

    Args:
        name, alt, y_label: see `line_panel`.
        series: the methods.
    """
    with matplotlib.style.context(_style(_STAND_IN)):
        figure = Figure(figsize=_WIDE_INCHES, layout="constrained")
        _draw_shares(figure.subplots(), series, y_label, _STAND_IN)
        return _inline(figure, name, alt)


def write_shares(path: Path, panels: Sequence[tuple[str, Sequence[Shares]]]) -> list[Path]:
    """The same, side by side with one legend, as ``path``.svg and .pdf; their paths.

    Args:
        path: without a suffix.
        panels: label of the y axis, and the methods.
    """
    width, height = _WIDE_INCHES
    with matplotlib.style.context(_style(PRINT_COLOURS)):
        figure = Figure(figsize=(width * len(panels), height + 0.4), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (y_label, series) in zip(grid, panels, strict=True):
            _draw_shares(axes, series, y_label, PRINT_COLOURS)
        legends = [axes.get_legend_handles_labels() for axes in grid]
        keys = in_any([dict(zip(labels, drawn, strict=True)) for drawn, labels in legends])
        figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=4, frameon=False)
        return save_figure(figure, path, {"svg": {"metadata": {"Date": None}}, "pdf": {}})


def in_any(panels: Sequence[Mapping[str, T]]) -> dict[str, T]:
    """What one legend for all panels names, the methods of the panel with most of them first.

    A method that missed everything has no distance, but a Dice.

    Args:
        panels: label of each method to what stands for it, such as its look.
    """
    return {label: look for panel in sorted(panels, key=len, reverse=True) for label, look in panel.items()}


def save_figure(figure: Figure, path: Path, formats: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Save a figure in several formats, each file written whole or not at all; the files' paths.

    Args:
        figure: what is drawn.
        path: without a suffix.
        formats: suffix to what matplotlib should know.
    """
    written = []
    for suffix, options in formats.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, **options)
        written.append(path.with_name(f"{path.name}.{suffix}"))
        write_bytes(written[-1], buffer.getvalue())
    return written


def _draw_shares(axes: Axes, series: Sequence[Shares], y_label: str, colours: Mapping[str, str]) -> None:
    for place, one in enumerate(series):
        beside = 1.025 ** (place - (len(series) - 1) / 2)  # so that intervals do not hide each other
        ends = [interval or (value, value) for value, interval in zip(one.values, one.intervals, strict=True)]
        errors = np.abs(np.transpose(ends) - np.array(one.values))
        line = axes.errorbar(
            beside * np.array(one.percent),
            one.values,
            errors,
            label=one.label,
            color=colours[one.look.colour],
            linewidth=1.4,
            marker="o",
            markersize=4,
            elinewidth=0.9,
            capsize=2,
        )
        line.lines[0].set_dashes(one.look.dash or (None, None))
    shown = sorted({share for one in series for share in one.percent})
    axes.set_xscale("log")
    axes.set_xticks(shown, [f"{share:g} %" for share in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="labelled patients", ylabel=y_label)


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
        name, alt, y_label: see `line_panel`.
        dots: the patients, their differences in the unit of ``y_label``.
        interval: 95 % interval of the mean difference.
        better_up: whether a positive difference favours the first method.
    """
    ranked = sorted(dots, key=lambda dot: dot.value, reverse=not better_up)
    values = np.array([dot.value for dot in ranked])
    with matplotlib.style.context(_style(_STAND_IN)):
        figure, axes = _panel(_WIDE_INCHES)
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
        label = visible(dot.label)
        return opening.format(dot.row, scan, label, label)

    return Markup(re.sub(rf'<a href="{_DOT}(\d+)" target="_blank">', anchor, svg))  # noqa: S704 - escaped above


def _inline(figure: Figure, name: str, alt: str, role: str = "img") -> Markup:
    """The figure as an ``svg`` element for the body of a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = visible(buffer.getvalue())
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(
        r'<svg[^>]*?viewBox="([^"]*)"[^>]*>',
        lambda match: f'<svg viewBox="{match[1]}" role="{role}" aria-label="{escape(visible(alt))}">',
        svg,
        count=1,
    )
    for variable, colour in _STAND_IN.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return Markup(svg)  # noqa: S704 - drawn by matplotlib, which escapes texts
