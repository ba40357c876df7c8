"""The page: one HTML file that needs nothing but a browser, neither network nor other files."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from ccdcseg.errors import UserError
from ccdcseg.evaluation.display import METRICS, interval_text, number, p_text, signed
from ccdcseg.evaluation.family import FAMILY
from ccdcseg.evaluation.patients import describe
from ccdcseg.files import write_text
from ccdcseg.report import tables
from ccdcseg.report.curves import Panel, PanelGroup, diagnostics, learning_curves
from ccdcseg.report.figures import Dot, Look, arm_look, difference_panel
from ccdcseg.report.pictures import (
    CLASS_COLOURS,
    ROLE_COLOURS,
    Picture,
    case_pictures,
    choose_cases,
    scan_dice,
    selection_pictures,
)
from ccdcseg.report.runs import Arm, Run, load_arms
from ccdcseg.report.tables import Contest
from ccdcseg.report.template import SYNTHETIC, render
from ccdcseg.report.viewer import STRAY_MARGIN_MM, Gallery, Progress, gallery, niivue_script


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
    patients: int


@dataclass(frozen=True)
class Diagnosis:
    """What the contrastive loss did in one run."""

    label: str
    groups: Sequence[PanelGroup]
    selections: Sequence[Picture]
    problem: str


def build_report(
    runs: Sequence[Path], output: Path, title: str, note: str = "", progress: Progress | None = None
) -> Path:
    """Write a self-contained page about one or several runs.

    Args:
        runs: run folders; only ``run.json`` must be in them, what else is missing the page says. Runs that
            differ by their seed alone are shown as one method.
        output: the HTML file, replaced if it exists.
        title: heading of the page.
        note: a remark of the author, shown under the answer.
        progress: called with the number of scans read for the viewer and to be read.

    Returns:
        ``output``.

    Raises:
        UserError: a folder is no run folder, a file is damaged, or the runs are of different data sets.
    """
    arms = load_arms(runs)
    context = {"title": title, "note": note, **_facts(arms), **_context(arms, progress)}
    write_text(output, render("page.html.j2", context, niivue_script() or ""))
    return output


def _facts(arms: Sequence[Arm]) -> dict[str, Any]:
    """What the page says about itself."""
    return {
        "dataset": arms[0].runs[0].record.dataset,
        "synthetic": SYNTHETIC if any(run.record.synthetic for _, run in _runs(arms)) else "",
        "duration": tables.duration_text,
        "number": number,
        "metrics": METRICS,
        "asdict": asdict,
        "short_name": short_name,
        "stray_margin_mm": STRAY_MARGIN_MM,
    }


def _context(arms: Sequence[Arm], progress: Progress | None) -> dict[str, Any]:
    """Everything the template shows."""
    evaluated = [arm for arm in arms if arm.evaluations]
    contests = tables.contests(evaluated)
    choices = choose_cases(evaluated) if evaluated else []
    stored = _gallery(evaluated, [choice.case for choice in choices], progress)
    patient_rows = tables.patient_rows(evaluated)
    row_ids = {patient: f"patient-{index}" for index, (patient, _) in enumerate(patient_rows)}
    return {
        "arms": arms,
        "evaluated": evaluated,
        "classes": arms[0].classes,
        "unevaluated": [arm.name_of(run) for arm, run in _runs(arms) if run.evaluation is None],
        "headline": headline(evaluated, contests),
        "doubts": doubts(arms),
        "cards": [_card(arm, arms.index(arm)) for arm in evaluated],
        "main_tables": [tables.result_table(evaluated, name) for name in tables.MAIN_METRICS if evaluated],
        "other_tables": [tables.result_table(evaluated, name) for name in tables.OTHER_METRICS if evaluated],
        "contests": contests,
        "class_differences": tables.class_differences,
        "signed": signed,
        "interval": interval_text,
        "p_text": p_text,
        "difference_panels": [
            _difference_panel(contest, index, row_ids, stored) for index, contest in enumerate(contests)
        ],
        "family": [METRICS[name] for name in FAMILY],
        "patient_rows": patient_rows,
        "row_ids": row_ids,
        "cases": [case_pictures(choice, evaluated) for choice in choices],
        "gallery": stored,
        "class_colours": list(zip(arms[0].classes, cycle(CLASS_COLOURS), strict=False)),
        "curves": learning_curves(arms),
        "diagnoses": _diagnoses(arms),
        "role_colours": list(ROLE_COLOURS.items()),
        "setting_rows": tables.setting_rows(arms),
        "version_rows": tables.version_rows([run for _, run in _runs(arms)]),
        "runs": _runs(arms),
        "run_names": [arm.name_of(run) for arm, run in _runs(arms)],
    }


def _gallery(evaluated: Sequence[Arm], first: Sequence[str], progress: Progress | None) -> Gallery:
    """The scans of the slice viewer; none where there is no viewer."""
    if niivue_script() is None or not evaluated:
        return Gallery()
    return gallery(evaluated, first, progress=progress)


def short_name(case: str, patient: str) -> str:
    """What tells a scan from others of its patient."""
    return case.removeprefix(patient).strip("_-. ") or case


def headline(evaluated: Sequence[Arm], contests: Sequence[Contest]) -> list[str]:
    """The answer in one sentence for each comparison and metric, then what limits it."""
    if not evaluated:
        return ["Nothing has been evaluated yet: run `ccdcseg evaluate` on the runs first."]
    if not contests:
        return [_level(arm) for arm in evaluated] + [
            "There is no comparison: no nnU-Net of the same preset and fraction was evaluated."
        ]
    sentences = [verdict(contest) for contest in contests]
    if any(len(contest.comparison.per_seed) < 2 for contest in contests):
        sentences.append("With fewer than two seeds in common this compares trained networks, not methods.")
    return sentences


def verdict(contest: Contest) -> str:
    """Better, worse or not shown, with difference, interval and number of patients.

    The interval over seeds and patients decides where there are several seeds, that over patients otherwise.
    """
    result, metric = contest.comparison, contest.metric
    interval = result.interval_seeds or result.interval
    names = f"{contest.arm.label}", f"{contest.baseline.label}"
    over = "over patients and seeds" if result.interval_seeds else "over patients"
    patients = f"On {result.n} test patient{'s' if result.n != 1 else ''}"
    if interval is None or interval[0] <= 0 <= interval[1]:
        claim = f"no difference in {metric.title} between {names[0]} and {names[1]} is shown"
    else:
        is_better = (result.mean_difference > 0) == metric.higher_is_better
        claim = f"{names[0]} has a {'better' if is_better else 'worse'} {metric.title} than {names[1]}"
    difference = f"{signed(result.mean_difference, metric)} {metric.step}"
    bounds = interval_text(interval, metric, is_difference=True)
    uncertainty = f"95 % interval {bounds} {over}" if interval else bounds
    return f"{patients}, {claim}: mean difference {difference} ({uncertainty}).{_disagreement(contest, interval)}"


def _disagreement(contest: Contest, interval: Sequence[float] | None) -> str:
    """What to say where the signed-rank test and the interval of the mean do not agree."""
    if interval is None:
        return ""
    is_shown, is_significant = not interval[0] <= 0 <= interval[1], contest.p_adjusted < 0.05
    equals = "" if contest.p_adjusted < 0.001 else "= "
    p_value = f"Holm-adjusted p {equals}{p_text(contest.p_adjusted)}"
    if is_significant and not is_shown:
        is_better = (contest.comparison.rank_biserial > 0) == contest.metric.higher_is_better
        favoured = contest.arm.label if is_better else contest.baseline.label
        return f" The signed-rank test over patients, which knows no seeds, favours {favoured} ({p_value})."
    if is_shown and not is_significant:
        return f" The signed-rank test over patients does not confirm it ({p_value})."
    return ""


def doubts(arms: Sequence[Arm]) -> list[str]:
    """What makes a comparison doubtful: other data, patients seen in training, other test patients or seeds."""
    found = [text for arm, run in _runs(arms) if (text := _leak(arm, run))]
    hashes: dict[tuple[float, int], set[str]] = defaultdict(set)
    for _, run in _runs(arms):
        hashes[run.record.fraction, run.record.seed].add(run.record.data_hash)
    for (fraction, seed), different in hashes.items():
        if len(different) > 1:
            found.append(
                f"Runs of fraction {fraction:g} and seed {seed} were not trained on the same data (hashes)."
            )
    evaluated = [arm for arm in arms if arm.evaluations]
    tested = [frozenset(arm.values("dice")) for arm in evaluated]
    if len(set(tested)) > 1:
        common = len(frozenset.intersection(*tested))
        found.append(f"The methods were not tested on the same patients; {common} are common to all.")
    if len({tuple(arm.evaluations) for arm in evaluated}) > 1:
        found.append("The methods were not trained with the same seeds.")
    return found


def _leak(arm: Arm, run: Run) -> str:
    seen = {patient for part in ("train", "validation") for patient in run.record.patients.get(part, [])}
    tested = {row["patient"] for row in run.evaluation["cases"]} if run.evaluation else set()
    both = sorted(seen & tested)
    if not both:
        return ""
    return f"{arm.name_of(run)} was tested on {len(both)} of its training or validation patients ({both[0]}, ...)."


def _level(arm: Arm) -> str:
    card = _card(arm, 0)
    return f"{arm.label}: Dice {card.dice} % (95 % interval {card.dice_interval}) on {card.patients} test patients."


def _card(arm: Arm, index: int) -> Card:
    dice, distance = (describe(arm.values(name)) for name in FAMILY)
    count, present = tables.missed(list(arm.evaluations.values()))
    return Card(
        arm.label,
        arm_look(index),
        number(dice["value"], METRICS["dice"]),
        interval_text(dice["interval"], METRICS["dice"]),
        number(distance["value"], METRICS["hd95_pooled_mm"]),
        interval_text(distance["interval"], METRICS["hd95_pooled_mm"]),
        f"{count} of {present}",
        dice["n_patients"],
    )


def _difference_panel(contest: Contest, index: int, rows: Mapping[str, str], stored: Gallery) -> Panel:
    result, metric = contest.comparison, contest.metric
    dots = [_dot(contest, patient, rows[patient], stored) for patient in result.differences]
    bounds = [metric.scale * end for end in result.interval] if result.interval else None
    against = f"{contest.arm.label} minus {contest.baseline.label}"
    better = sum(dot.value > 0 if metric.higher_is_better else dot.value < 0 for dot in dots)
    alt = f"{metric.title}, {against}, of {result.n} patients: {better} better, {result.n - better} not."
    figure = difference_panel(
        f"difference-{index}", dots, bounds, alt, f"difference, {metric.step}", metric.higher_is_better
    )
    return Panel(f"{metric.title}: {against}; better for {better} of {result.n} patients", figure)


def _dot(contest: Contest, patient: str, row: str, stored: Gallery) -> Dot:
    """A patient's mark: it leads to the row and to the stored scan with the lowest Dice."""
    value, metric = contest.comparison.differences[patient], contest.metric
    scans = stored.of_patient(patient)
    dice = scan_dice(contest.arm, patient) if scans else {}
    scan = min(scans, key=lambda case: dice.get(case, 1.0), default=None)
    label = f"{patient}: {signed(value, metric)} {metric.step}"
    return Dot(metric.scale * value, label, row, None if scan is None else scans[scan])


def _diagnoses(arms: Sequence[Arm]) -> list[Diagnosis]:
    found = []
    for index, (arm, run) in enumerate(_runs(arms)):
        groups = diagnostics(run, f"run-{index}")
        if groups or run.selections:
            found.append(_diagnosis(arm.name_of(run), groups, run))
    return found


def _diagnosis(label: str, groups: Sequence[PanelGroup], run: Run) -> Diagnosis:
    try:
        selections, problem = selection_pictures(run), ""
    except UserError as error:
        selections, problem = [], str(error)
    if not (selections or problem):
        problem = "No selection maps were stored."
    return Diagnosis(label, groups, selections, problem)


def _runs(arms: Sequence[Arm]) -> list[tuple[Arm, Run]]:
    return [(arm, run) for arm in arms for run in arm.runs]
