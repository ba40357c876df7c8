"""The numbers of the page, as rows of texts: results, comparisons, settings, provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccdcseg.evaluation.compare import Comparison, compare, holm
from ccdcseg.evaluation.patients import MEAN, WITH_MISSES, average, describe, patient_values
from ccdcseg.report.runs import BASELINE, Arm, Run, flattened

NONE = "–"
FAMILY = ("dice", "hd95_pooled_mm")
"""The metrics that are tested; the p values of all comparisons with them are one family."""


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        scale: what the value is multiplied with.
        unit: of the value shown.
        step: unit of a difference.
    """

    name: str
    title: str
    unit: str
    step: str
    scale: float = 1.0
    higher_is_better: bool = False


METRICS = {
    metric.name: metric
    for metric in (
        Metric("dice", "Dice", "%", "points", 100.0, higher_is_better=True),
        Metric("hd95_pooled_mm", "hd95_pooled_mm", "mm", "mm"),
        Metric("hd95_pooled_vox", "hd95_pooled_vox", "voxels", "voxels"),
        Metric("hd95_max_mm", "hd95_max_mm", "mm", "mm"),
        Metric("assd_mm", "assd_mm", "mm", "mm"),
        Metric("hd_mm", "hd_mm", "mm", "mm"),
        Metric(WITH_MISSES, "hd95_pooled_mm, missed = diagonal", "mm", "mm"),
    )
}
MAIN_METRICS = ("dice", "hd95_pooled_mm", "hd95_pooled_vox")
OTHER_METRICS = ("hd95_max_mm", "assd_mm", "hd_mm")


@dataclass(frozen=True)
class Cell:
    """A number and the small print under it."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class ResultRow:
    """An arm (the mean of its seeds) or one of its seeds."""

    label: str
    is_seed: bool
    cells: tuple[Cell, ...]
    missed: str


@dataclass(frozen=True)
class ResultTable:
    """A metric by class and method."""

    metric: Metric
    columns: tuple[str, ...]
    rows: tuple[ResultRow, ...]


@dataclass(frozen=True)
class Contest:
    """An arm against its baseline in one metric, with p adjusted over the family."""

    arm: Arm
    baseline: Arm
    metric: Metric
    comparison: Comparison
    p_adjusted: float


@dataclass(frozen=True)
class SettingRow:
    """A setting in every arm or run."""

    name: str
    values: tuple[str, ...]
    differs: bool


def number(value: float | None, metric: Metric) -> str:
    """A value in the metric's unit, two decimals."""
    return NONE if value is None else f"{metric.scale * value:.2f}"


def signed(value: float, metric: Metric) -> str:
    """A difference in the metric's unit with its sign."""
    text = f"{metric.scale * value:+.2f}"
    return text.replace("-", "−")


def interval_text(interval: Sequence[float] | None, metric: Metric, is_difference: bool = False) -> str:
    """Both ends of an interval."""
    if interval is None:
        return "no interval below two patients"
    low, high = (signed(end, metric) if is_difference else number(end, metric) for end in interval)
    return f"{low} to {high}"


def p_text(p_value: float) -> str:
    """A p value as printed in papers."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def result_table(arms: Sequence[Arm], name: str) -> ResultTable:
    """Each arm, and each of its seeds if there are several, by class and on average."""
    classes = arms[0].classes
    metric = METRICS[name]
    rows = []
    for arm in arms:
        seeds = arm.evaluations
        rows.append(_row(f"{arm.label}, {_seeds(seeds)}", list(seeds.values()), arm.classes, metric))
        if len(seeds) > 1:
            rows += [
                _row(f"seed {seed}", [evaluation], arm.classes, metric, is_seed=True)
                for seed, evaluation in seeds.items()
            ]
    columns = (MEAN, *classes, *(("mean, missed = diagonal",) if name == "hd95_pooled_mm" else ()))
    return ResultTable(metric, columns, tuple(rows))


def contests(arms: Sequence[Arm]) -> list[Contest]:
    """Every arm against the nnU-Net trained on as many labels, in Dice and HD95.

    Arms without a baseline or without a patient in common with it are left out.
    """
    pairs = [(arm, baseline) for arm in arms if (baseline := _baseline(arm, arms)) is not None]
    family = [
        (arm, baseline, name) for arm, baseline in pairs for name in FAMILY if _shared(arm, baseline, name)
    ]
    results = [compare(arm.evaluations, baseline.evaluations, name) for arm, baseline, name in family]
    adjusted = holm([result.p_value for result in results])
    return [
        Contest(arm, baseline, METRICS[name], result, p)
        for (arm, baseline, name), result, p in zip(family, results, adjusted, strict=True)
    ]


def class_differences(contest: Contest) -> list[tuple[str, Cell]]:
    """Mean paired difference by class; exploratory, so without p values."""
    cells = []
    for name in contest.arm.classes:
        if _shared(contest.arm, contest.baseline, contest.metric.name, name):
            result = compare(contest.arm.evaluations, contest.baseline.evaluations, contest.metric.name, name)
            note = interval_text(result.interval, contest.metric, is_difference=True)
            cells.append((name, Cell(signed(result.mean_difference, contest.metric), note)))
        else:
            cells.append((name, Cell(NONE)))
    return cells


def missed(evaluations: Sequence[Mapping[str, Any]], class_name: str = MEAN) -> tuple[int, int]:
    """Structures missed entirely, and structures in the reference, over all scans and seeds."""
    rows = [row for item in evaluations for row in item["cases"] if class_name in (row["class"], MEAN)]
    present = [row["status"] for row in rows if row["status"] in ("ok", "missed")]
    return present.count("missed"), len(present)


def patient_rows(arms: Sequence[Arm]) -> list[tuple[str, list[float | None]]]:
    """Each patient with Dice and HD95 of every arm, the seeds averaged."""
    columns = [arm.values(name) for name in FAMILY for arm in arms]
    patients = sorted({patient for column in columns for patient in column})
    return [(patient, [column.get(patient) for column in columns]) for patient in patients]


def setting_rows(arms: Sequence[Arm]) -> list[SettingRow]:
    """Every setting in every arm."""
    return _compared([{"method": arm.method, **arm.runs[0].conditions} for arm in arms])


def version_rows(runs: Sequence[Run]) -> list[SettingRow]:
    """Every version in every run."""
    return _compared([flattened(run.record.versions) for run in runs])


def duration_text(seconds: float | None) -> str:
    """Hours, minutes and seconds."""
    if seconds is None:
        return "not recorded"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _row(
    label: str,
    evaluations: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    metric: Metric,
    is_seed: bool = False,
) -> ResultRow:
    cells = [_cell(evaluations, classes, metric, name) for name in (MEAN, *classes)]
    if metric.name == "hd95_pooled_mm":
        cells.append(_cell(evaluations, classes, METRICS[WITH_MISSES], MEAN))
    count, present = missed(evaluations)
    return ResultRow(label, is_seed, tuple(cells), f"{count} of {present}")


def _cell(
    evaluations: Sequence[Mapping[str, Any]], classes: Sequence[str], metric: Metric, class_name: str
) -> Cell:
    seeds = [patient_values(item["cases"], classes, metric.name, class_name) for item in evaluations]
    summary = describe(average(seeds))
    if class_name == MEAN:
        note = f"{interval_text(summary['interval'], metric)}, n = {summary['n_patients']}"
    else:
        count, _ = missed(evaluations, class_name)
        note = f"{count} missed" if count else ""
    return Cell(number(summary["value"], metric), note)


def _seeds(seeds: Mapping[int, Any]) -> str:
    return f"seed {next(iter(seeds))}" if len(seeds) == 1 else f"mean of {len(seeds)} seeds"


def _baseline(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The nnU-Net of the same preset and fraction."""
    if arm.method == BASELINE:
        return None
    same = [other for other in arms if other.method == BASELINE and _budget(other) == _budget(arm)]
    return same[0] if same else None


def _budget(arm: Arm) -> tuple[Any, ...]:
    record = arm.runs[0].record
    return record.preset, record.fraction


def _shared(arm: Arm, baseline: Arm, metric: str, class_name: str = MEAN) -> bool:
    return bool(arm.values(metric, class_name).keys() & baseline.values(metric, class_name).keys())


def _compared(columns: Sequence[Mapping[str, Any]]) -> list[SettingRow]:
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = []
    for name in names:
        values = tuple(str(column[name]) if name in column else NONE for column in columns)
        rows.append(SettingRow(name, values, differs=len(set(values)) > 1))
    return rows
