"""The figures of an experiment, for the page and as files: values over labels, and outlined predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from ccdcseg.experiments.experiment import Experiment
from ccdcseg.experiments.measured import Measured
from ccdcseg.measure.display import METRICS
from ccdcseg.report.curves import Key, Panel
from ccdcseg.report.figures import Shares, arm_look, in_any, save_figure, shares_panel, write_shares
from ccdcseg.report.montage import montage, montage_picture
from ccdcseg.report.pictures import choose_cases

PRINT_DPI = 300
SUFFIXES = {"fractions": (".svg", ".pdf"), "cases": (".png", ".pdf")}
"""Of the files of a figure, by what an experiment calls it."""
CASES_TITLE = (
    "Outlines of the classes; dotted: the reference. Below: mean Dice of the whole scan, %, and seed"
)


@dataclass(frozen=True)
class Drawn:
    """A figure on the page, and its files."""

    panels: tuple[Panel, ...] = ()
    keys: tuple[Key, ...] = ()
    files: list[Path] = field(default_factory=list)


def draw(experiment: Experiment, measured: Measured, stem: Path) -> Drawn:
    """Draw what the experiment declares, and write it to ``stem`` with the suffixes of the formats.

    Raises:
        UserError: predictions or images of a chosen case are not there or cannot be read.
    """
    if not measured or experiment.figure is None:
        return Drawn()
    if experiment.figure == "fractions":
        return _fractions(experiment, measured, stem)
    return _cases(experiment, measured, stem)


def _fractions(experiment: Experiment, measured: Measured, stem: Path) -> Drawn:
    shown = [METRICS[metric.name] for metric in experiment.metrics if not metric.minus]
    series = [
        (f"{metric.title}, {metric.unit}", _series(experiment, measured, metric.name)) for metric in shown
    ]
    panels = [
        Panel(metric.title, shares_panel(f"{stem.name}-{place}", lines, _alt(metric.title, lines), label))
        for place, (metric, (label, lines)) in enumerate(zip(shown, series, strict=True))
    ]
    looks = in_any([{line.label: line.look for line in lines} for _, lines in series])
    return Drawn(tuple(panels), tuple(Key(*key) for key in looks.items()), write_shares(stem, series))


def _series(experiment: Experiment, measured: Measured, metric: str) -> list[Shares]:
    scale = METRICS[metric].scale
    found = []
    for number, row in enumerate(dict.fromkeys(place.row for place in measured)):
        summaries = [(at.fraction, arm.summary(metric)) for at, arm in measured.items() if at.row == row]
        known = [(fraction, s) for fraction, s in summaries if s["value"] is not None]
        found.append(
            Shares(
                experiment.label(experiment.row(row)),
                [100 * fraction for fraction, _ in known],
                [scale * s["value"] for _, s in known],
                [s["interval"] and [scale * end for end in s["interval"]] for _, s in known],
                arm_look(number),
            )
        )
    return [one for one in found if one.values]


def _alt(title: str, series: Sequence[Shares]) -> str:
    lines = [
        f"{one.label}: "
        + ", ".join(
            f"{value:.1f} at {share:g} %" for share, value in zip(one.percent, one.values, strict=True)
        )
        for one in series
    ]
    return f"{title} over the share of labelled patients. {'; '.join(lines)}."


def _cases(experiment: Experiment, measured: Measured, stem: Path) -> Drawn:
    """Cases by the rule of `choose_cases`: the first two rows decide."""
    arms = list(measured.values())
    choices = choose_cases(arms)
    if not choices:
        return Drawn()
    figure = montage(choices, arms)
    reasons = "; ".join(f"{choice.case}: {', '.join(choice.reasons)}" for choice in choices)
    picture = montage_picture(figure, f"Reference and predictions outlined. {reasons}.")
    image = Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{}">'
        '<img class="montage" src="{}" alt="{}"></div>'
    ).format(experiment.title, picture.uri, picture.alt)
    files = save_figure(figure, stem, {"png": {"dpi": PRINT_DPI}, "pdf": {"dpi": PRINT_DPI}})
    return Drawn((Panel(CASES_TITLE, image),), files=files)
