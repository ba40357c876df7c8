"""The numbers of the page, as rows of texts: results, comparisons, settings, provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccdcseg.evaluation.compare import Comparison, compare
from ccdcseg.evaluation.display import METRICS, NONE, Metric, interval_text, number, signed
from ccdcseg.evaluation.family import FAMILY, Pair, compare_family, have_common
from ccdcseg.evaluation.patients import MEAN, WITH_MISSES, average, describe, patient_values
from ccdcseg.report.runs import BASELINE, Arm, Run, flattened

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
    """Every arm against its nnU-Net (`baseline_pairs`), in Dice and HD95."""
    by_label = {arm.label: arm for arm in arms}
    outcomes = compare_family(evaluations_of(arms), baseline_pairs(arms))
    return [
        Contest(by_label[o.first], by_label[o.second], METRICS[o.metric], o.comparison, o.p_adjusted)
        for o in outcomes
    ]


def evaluations_of(arms: Sequence[Arm]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Label of each arm to its evaluations."""
    return {arm.label: arm.evaluations for arm in arms}


def baseline_pairs(arms: Sequence[Arm]) -> list[Pair]:
    """Every other arm with the nnU-Net of as many labels and steps, of the same preset where there are several."""
    pairs = [(arm, baseline) for arm in arms if (baseline := _baseline(arm, arms)) is not None]
    return [(arm.label, baseline.label) for arm, baseline in pairs]


def budget(arm: Arm) -> tuple[Any, ...]:
    """Labels and steps of training: what must be alike where methods are compared."""
    record = arm.runs[0].record
    return record.fraction, record.iterations


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
    if arm.method == BASELINE:
        return None
    same = [other for other in arms if other.method == BASELINE and budget(other) == budget(arm)]
    preset = arm.runs[0].record.preset
    same.sort(key=lambda other: other.runs[0].record.preset != preset)
    return same[0] if same else None


def _shared(arm: Arm, baseline: Arm, metric: str, class_name: str) -> bool:
    return have_common(evaluations_of((arm, baseline)), (arm.label, baseline.label), metric, class_name)


def _compared(columns: Sequence[Mapping[str, Any]]) -> list[SettingRow]:
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = []
    for name in names:
        values = tuple(str(column[name]) if name in column else NONE for column in columns)
        rows.append(SettingRow(name, values, differs=len(set(values)) > 1))
    return rows
