"""The page: one HTML file that needs nothing but a browser, neither network nor other files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ccdcseg.errors import UserError
from ccdcseg.files import write_text
from ccdcseg.measure.display import METRICS, interval_text, number, signed
from ccdcseg.measure.patients import describe
from ccdcseg.processes import Progress
from ccdcseg.report import tables
from ccdcseg.report.answer import doubts, headline
from ccdcseg.report.comparison import rankings, unpaired
from ccdcseg.report.curves import Panel, PanelGroup, diagnostics, learning_curves
from ccdcseg.report.downloads import downloads, sort_value
from ccdcseg.report.figures import Dot, Look, arm_look, difference_panel
from ccdcseg.report.pictures import (
    ROLE_COLOURS,
    Picture,
    case_pictures,
    choose_cases,
    class_colour,
    scan_dice,
    selection_pictures,
)
from ccdcseg.report.sections import Section
from ccdcseg.report.template import PATIENTS, SYNTHETIC, render
from ccdcseg.report.unlabelled import writings
from ccdcseg.report.viewer import NO_VIEWER, STRAY_MARGIN_MM, Gallery, gallery, niivue_script
from ccdcseg.runs.evaluation import spurious
from ccdcseg.runs.finished import Arm, FinishedRun, load_arms, runs_of
from ccdcseg.statistics.family import FAMILY, Outcome, Pair
from ccdcseg.statistics.family_table import comparison_grid, rank_grid
from ccdcseg.tabular import Grid

MOST_CARDS = 4
"""Arms with a card each; more are in the tables alone."""

MOST_OPEN_PAIRS = 3
"""Of more comparisons, the difference plots of the first metric alone are shown at once."""


@dataclass(frozen=True)
class Card:
    """The main numbers of an arm."""

    label: str
    look: Look
    dice: str
    dice_interval: str
    distance: str
    distance_interval: str
    missed: str
    spurious: int
    patients: int


@dataclass(frozen=True)
class Diagnosis:
    """What the contrastive loss did in one run."""

    label: str
    groups: Sequence[PanelGroup]
    selections: Sequence[Picture]
    problem: str


@dataclass(frozen=True)
class Differences:
    """Plots of the differences of patients.

    Attributes:
        shown: at once.
        folded: title of a metric to plots that are shown on demand.
    """

    shown: Sequence[Panel]
    folded: Mapping[str, Sequence[Panel]]


def build_report(
    runs: Sequence[str | Path],
    output: str | Path,
    title: str,
    progress: Callable[..., None] | None = None,
    part: str = "test",
    sections: Sequence[Section] = (),
) -> Path:
    """Write a self-contained page about one or several runs.

    Args:
        runs: run folders; only ``run.json`` must be in them, what else is missing the page says. Runs that
            differ by their seed alone are shown as one method.
        output: the HTML file, replaced if it exists.
        title: heading of the page.
        progress: called with "scans", how many are read for the viewer and to be read.
        part: "test" or "validation", whose predictions and evaluations are shown.
        sections: shown between the answer and the results.

    Returns:
        The page's path.

    Raises:
        UserError: a folder is no run folder, a file is damaged, or the runs are of different data sets.
    """
    arms, page = load_arms([Path(run) for run in runs], part), Path(output)
    about = {"title": title, "part": part, "sections": sections}
    context = about | _facts(arms) | _context(arms, part, progress and partial(progress, "scans"))
    write_text(page, render("page.html.j2", context, niivue_script() or ""))
    return page


def _facts(arms: Sequence[Arm]) -> dict[str, Any]:
    """What the page says about itself."""
    return {
        "dataset": arms[0].runs[0].record.dataset,
        "synthetic": SYNTHETIC if any(run.record.synthetic for _, run in runs_of(arms)) else "",
        "patients_note": PATIENTS if any(arm.evaluations for arm in arms) else "",
        "no_viewer": NO_VIEWER if niivue_script() is None else "",
        "duration": tables.duration_text,
        "asdict": asdict,
        "downloads": downloads,
        "sort_value": sort_value,
        "short_name": short_name,
        "stray_margin_mm": STRAY_MARGIN_MM,
    }


def _context(arms: Sequence[Arm], part: str, progress: Progress | None) -> dict[str, Any]:
    """Everything the template shows."""
    evaluated = [arm for arm in arms if arm.evaluations]
    pairs, outcomes = tables.usual_pairs(evaluated), tables.usual_outcomes(evaluated)
    choices = choose_cases(evaluated) if evaluated else []
    stored = _gallery(evaluated, [choice.case for choice in choices], progress)
    patients = tables.patient_grid(evaluated)
    row_ids = {row[0].text: f"patient-{index}" for index, row in enumerate(patients.rows)}
    return {
        "arms": arms,
        "evaluated": evaluated,
        "classes": arms[0].classes,
        "unevaluated": [arm.name_of(run) for arm, run in runs_of(arms) if run.evaluation is None],
        "answer": headline(evaluated, outcomes, part),
        "doubts": doubts(arms),
        "most_cards": MOST_CARDS,
        "cards": [_card(arm, arms.index(arm)) for arm in evaluated] if len(evaluated) <= MOST_CARDS else [],
        "main_grids": _result_grids(evaluated, tables.MAIN_METRICS),
        "postprocessing": tables.postprocessing_grid(evaluated),
        "other_grids": _result_grids(evaluated, tables.OTHER_METRICS),
        "seed_grids": _seed_grids(evaluated),
        "comparison_grids": _comparison_grids(evaluated, pairs, outcomes) if outcomes else [],
        "unpaired": unpaired(evaluated, pairs) if outcomes else [],
        "differences": _differences(outcomes, evaluated, row_ids, stored),
        "patients": patients,
        "row_ids": row_ids,
        "cases": [case_pictures(choice, evaluated) for choice in choices],
        "gallery": stored,
        "class_colours": [
            (name, class_colour(value)) for name, value in arms[0].runs[0].record.foreground.items()
        ],
        "curves": learning_curves(arms),
        "diagnoses": _diagnoses(arms),
        "writings": writings(arms),
        "role_colours": list(ROLE_COLOURS.items()),
        "setting_rows": tables.setting_rows(arms),
        "version_rows": tables.version_rows([run for _, run in runs_of(arms)]),
        "runs": runs_of(arms),
        "run_names": [arm.name_of(run) for arm, run in runs_of(arms)],
    }


def _result_grids(evaluated: Sequence[Arm], names: Sequence[str]) -> list[Grid]:
    return [tables.result_grid(evaluated, name) for name in names if evaluated]


def _seed_grids(evaluated: Sequence[Arm]) -> list[Grid]:
    names = (*tables.MAIN_METRICS, *tables.OTHER_METRICS) if evaluated else ()
    return [grid for name in names if (grid := tables.seed_grid(evaluated, name))]


def _comparison_grids(
    evaluated: Sequence[Arm], pairs: Sequence[Pair], outcomes: Sequence[Outcome]
) -> list[Grid]:
    ranks = rankings(evaluated, pairs)
    return [
        comparison_grid(outcomes, abbreviate=False),
        *map(rank_grid, ranks),
        tables.structure_grid(outcomes, evaluated),
    ]


def _gallery(evaluated: Sequence[Arm], first: Sequence[str], progress: Progress | None) -> Gallery:
    """The scans of the slice viewer; none where there is no viewer."""
    if niivue_script() is None or not evaluated:
        return Gallery()
    return gallery(evaluated, first, progress=progress)


def short_name(case: str, patient: str) -> str:
    """What tells a scan from others of its patient."""
    return case.removeprefix(patient).strip("_-. ") or case


def _card(arm: Arm, index: int) -> Card:
    dice, distance = (describe(arm.values(name)) for name in FAMILY)
    count, present = arm.missed
    return Card(
        arm.label,
        arm_look(index),
        number(dice["value"], METRICS["dice"]),
        interval_text(dice["interval"], METRICS["dice"]),
        number(distance["value"], METRICS["hd95_pooled_mm"]),
        interval_text(distance["interval"], METRICS["hd95_pooled_mm"]),
        f"{count} of {present}",
        spurious(arm.evaluations.values()),
        arm.patients,
    )


def _differences(
    outcomes: Sequence[Outcome], evaluated: Sequence[Arm], rows: Mapping[str, str], stored: Gallery
) -> Differences:
    dice = {arm.label: scan_dice(arm) if stored.cases else {} for arm in evaluated}
    panels: dict[str, list[Panel]] = {}
    for index, outcome in enumerate(outcomes):
        dots = [
            _dot(outcome, dice[outcome.first].get(patient, {}), patient, rows[patient], stored)
            for patient in outcome.comparison.differences
        ]
        panel = _difference_panel(outcome, f"difference-{index}", dots)
        panels.setdefault(METRICS[outcome.metric].title, []).append(panel)
    if all(len(found) <= MOST_OPEN_PAIRS for found in panels.values()):
        return Differences([panel for found in panels.values() for panel in found], {})
    first, *others = panels
    return Differences(panels[first], {title: panels[title] for title in others})


def _difference_panel(outcome: Outcome, name: str, dots: Sequence[Dot]) -> Panel:
    result, metric = outcome.comparison, METRICS[outcome.metric]
    bounds = [metric.scale * end for end in result.interval] if result.interval else None
    against = f"{outcome.first} minus {outcome.second}"
    better = sum(dot.value > 0 if metric.higher_is_better else dot.value < 0 for dot in dots)
    alt = f"{metric.title}, {against}, of {result.n} patients: {better} better, {result.n - better} not."
    figure = difference_panel(name, dots, bounds, alt, f"difference, {metric.step}", metric.higher_is_better)
    return Panel(f"{metric.title}: {against}; better for {better} of {result.n} patients", figure)


def _dot(outcome: Outcome, dice: Mapping[str, float], patient: str, row: str, stored: Gallery) -> Dot:
    """A patient's mark: it leads to the row and to the stored scan with the lowest Dice."""
    value, metric = outcome.comparison.differences[patient], METRICS[outcome.metric]
    scans = stored.of_patient(patient)
    scan = min(scans, key=lambda case: dice.get(case, 1.0), default=None)
    label = f"{patient}: {signed(value, metric)} {metric.step}"
    return Dot(metric.scale * value, label, row, None if scan is None else scans[scan])


def _diagnoses(arms: Sequence[Arm]) -> list[Diagnosis]:
    found = []
    for index, (arm, run) in enumerate(runs_of(arms)):
        groups = diagnostics(run, f"run-{index}")
        if groups or run.selections:
            found.append(_diagnosis(arm.name_of(run), groups, run))
    return found


def _diagnosis(label: str, groups: Sequence[PanelGroup], run: FinishedRun) -> Diagnosis:
    try:
        selections, problem = selection_pictures(run), ""
    except UserError as error:
        selections, problem = [], str(error)
    if not (selections or problem):
        problem = "No selection maps were stored."
    return Diagnosis(label, groups, selections, problem)
