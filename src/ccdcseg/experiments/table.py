"""Tables of results, ours with the published numbers beside."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ccdcseg.experiments.experiment import Experiment, Metric
from ccdcseg.experiments.measured import Measured, Place, percent
from ccdcseg.experiments.published import Values, published_structure, published_values
from ccdcseg.measure.display import METRICS, NONE, spurious_text
from ccdcseg.measure.patients import MEAN, average, mean
from ccdcseg.runs.evaluation import spurious
from ccdcseg.runs.finished import Arm
from ccdcseg.statistics.compare import paired
from ccdcseg.statistics.failure import failure
from ccdcseg.tabular import Entry, Grid, csv_text, ranked

COLUMNS = (
    "row", "title", "fraction", "metric", "minus", "class", "value", "interval_low", "interval_high",
    "rank", "published", "patients", "seeds", "missed", "spurious",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A number of a table: Dice in %, distances in the unit of their name.

    Attributes:
        value: mean over patients, seeds averaged first.
        interval: 95 % over patients; None below two, and for differences.
        published: what was published.
        patients: who have a value, such as a distance; who missed every structure has none.
        rank: 1 the best of the column at this fraction, 2 the second, 0 all others.
    """

    class_name: str
    value: float | None
    interval: list[float] | None
    published: float | None
    patients: int
    rank: int = 0


@dataclass(frozen=True)
class Line:
    """A row of a table at one fraction."""

    place: Place
    arm: Arm
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """All rows in one metric."""

    metric: Metric
    lines: tuple[Line, ...]

    @property
    def heading(self) -> str:
        """The metric and its unit, in words."""
        shown = METRICS[self.metric.name]
        unit = f"{shown.step}, difference to {self.metric.minus}" if self.metric.minus else shown.unit
        return f"{shown.title}, {unit}"


def result_tables(experiment: Experiment, measured: Measured) -> list[Table]:
    """A table for each metric."""
    values = published_values(experiment.published) if experiment.published else {}
    return [_table(experiment, metric, measured, values) for metric in experiment.metrics]


def table_note(experiment: Experiment) -> str:
    """How to read the tables of an experiment."""
    note = "Mean over patients, seeds averaged first [95 % interval over patients]. Missed: not predicted."
    source = f" In brackets, published: {experiment.published.source}." if experiment.published else ""
    return note + source


def table_grid(table: Table) -> Grid:
    """The table as texts; intervals of the mean and published numbers, in brackets, as small print."""
    classes = [cell.class_name for cell in table.lines[0].cells] if table.lines else []
    rows = tuple(
        (
            Entry(line.arm.label),
            *(_entry(cell, table.metric) for cell in line.cells),
            *_count_entries(line),
        )
        for line in table.lines
    )
    return Grid(table.heading, ("row", *classes, "patients", "seeds", "missed"), rows)


def to_csv(tables: Sequence[Table]) -> str:
    """A line for each number."""
    rows = [
        _csv_row(table.metric, line, cell) for table in tables for line in table.lines for cell in line.cells
    ]
    return csv_text([COLUMNS, *rows])


def _csv_row(metric: Metric, line: Line, cell: Cell) -> tuple[Any, ...]:
    low, high = cell.interval or (None, None)
    row, fraction = line.place
    return (
        row, line.arm.label, fraction, metric.name, metric.minus, cell.class_name, cell.value, low, high,
        cell.rank or None, cell.published, cell.patients, *_counts(line.arm),
    )  # fmt: skip


def _counts(arm: Arm) -> tuple[int, int, int]:
    """Seeds, structures that were missed and structures marked where there is none."""
    return len(arm.evaluations), arm.missed[0], spurious(arm.evaluations.values())


def _count_entries(line: Line) -> tuple[Entry, Entry, Entry]:
    """Patients are those of the mean, which is the last cell."""
    seeds, missed, marked = _counts(line.arm)
    patients = line.cells[-1].patients
    return Entry(str(patients)), Entry(str(seeds)), Entry(str(missed), note=spurious_text(marked))


def _table(experiment: Experiment, metric: Metric, measured: Measured, published: Values) -> Table:
    def cell(place: Place, class_name: str) -> Cell:
        baseline = measured.get(Place(metric.minus, place.fraction)) if metric.minus else None
        arm = measured[place]
        theirs = _published(experiment, metric, place, arm.classes, class_name, published)
        return _cell(metric, class_name, arm, baseline, theirs)

    lines = [
        Line(place, arm, tuple(cell(place, class_name) for class_name in (*arm.classes, MEAN)))
        for place, arm in measured.items()
    ]
    return Table(metric, tuple(lines) if metric.minus else _with_ranks(lines, metric))


def _published(
    experiment: Experiment,
    metric: Metric,
    place: Place,
    classes: Sequence[str],
    class_name: str,
    published: Values,
) -> float | None:
    if experiment.published is None:
        return None
    structure = published_structure(experiment.published, class_name, classes)
    variant = (experiment.row(place.row).published or "").replace("{percent}", percent(place.fraction))
    return published.get((variant, metric.published or "", structure or ""))


def _cell(metric: Metric, class_name: str, arm: Arm, baseline: Arm | None, published: float | None) -> Cell:
    summary = arm.summary(metric.name, class_name)
    value, interval, patients = summary["value"], summary["interval"], summary["n_patients"]
    if metric.minus:
        interval = None
        value, patients = _difference(arm, baseline, metric.name, class_name) if baseline else (None, 0)
    scale = METRICS[metric.name].scale
    return Cell(
        class_name,
        None if value is None else scale * value,
        interval and [scale * end for end in interval],
        published,
        patients,
    )


def _difference(arm: Arm, baseline: Arm, metric: str, class_name: str) -> tuple[float | None, int]:
    """Of two rows, over the seeds that both have, and of how many patients."""
    pairs = paired(arm.evaluations, baseline.evaluations, metric, class_name)
    if not pairs or None in pairs:
        return None, 0
    ours, theirs = map(average, zip(*pairs.values(), strict=True))
    return mean([*ours.values()]) - mean([*theirs.values()]), len(ours)


def _with_ranks(lines: Sequence[Line], metric: Metric) -> tuple[Line, ...]:
    """The lines with the best and second best value of each column and fraction marked; what failed is not."""
    fractions, shown = [line.place.fraction for line in lines], METRICS[metric.name]
    failed = [bool(failure(line.arm.evaluations.values())) for line in lines]
    values = [
        [None if fails or cell.value is None else cell.value / shown.scale for cell in line.cells]
        for line, fails in zip(lines, failed, strict=True)
    ]
    columns = [ranked(column, shown.higher_is_better, fractions) for column in zip(*values, strict=True)]
    return tuple(
        replace(line, cells=tuple(replace(c, rank=rank) for c, rank in zip(line.cells, ranks, strict=True)))
        for line, ranks in zip(lines, zip(*columns, strict=True), strict=True)
    )


def _entry(cell: Cell, metric: Metric) -> Entry:
    form = "{:+z.2f}" if metric.minus else "{:.2f}"
    interval = "[{:.2f}, {:.2f}]".format(*cell.interval) if cell.interval and cell.class_name == MEAN else ""
    published = "" if cell.published is None else f"({form.format(cell.published)})"
    text = NONE if cell.value is None else form.format(cell.value)
    return Entry(text.replace("-", "−"), cell.rank, f"{interval} {published}".strip().replace("-", "−"))
