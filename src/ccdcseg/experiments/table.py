"""Tables of results, ours with the published numbers beside."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ccdcseg.experiments.experiment import Experiment, Metric
from ccdcseg.experiments.measured import Measured, percent
from ccdcseg.experiments.published import Values, published_structure, published_values
from ccdcseg.measure.display import METRICS, NONE
from ccdcseg.measure.patients import MEAN
from ccdcseg.tabular import Entry, Grid, csv_text, ranked

COLUMNS = (
    "row", "title", "fraction", "metric", "minus", "class", "value", "interval_low", "interval_high",
    "rank", "published", "patients", "seeds", "missed",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A number of a table: Dice in %, distances in the unit of their name.

    Attributes:
        value: mean over patients, seeds averaged first.
        interval: 95 % over patients; None below two, and for differences.
        published: what was published.
        rank: 1 the best of the column at this fraction, 2 the second, 0 all others.
    """

    class_name: str
    value: float | None
    interval: list[float] | None
    published: float | None
    rank: int = 0


@dataclass(frozen=True)
class Line:
    """A row of a table at one fraction."""

    measured: Measured
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


def result_tables(experiment: Experiment, measured: Sequence[Measured]) -> list[Table]:
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
            Entry(line.measured.label),
            *(_entry(cell, table.metric) for cell in line.cells),
            Entry(str(line.measured.patients)),
            Entry(str(len(line.measured.evaluations))),
            Entry(str(line.measured.missed)),
        )
        for line in table.lines
    )
    return Grid(table.heading, ("row", *classes, "patients", "seeds", "missed"), rows)


def to_csv(tables: Sequence[Table]) -> str:
    """A line for each number."""
    rows = [
        _csv_row(table.metric, line.measured, cell)
        for table in tables
        for line in table.lines
        for cell in line.cells
    ]
    return csv_text([COLUMNS, *rows])


def _csv_row(metric: Metric, one: Measured, cell: Cell) -> tuple[Any, ...]:
    low, high = cell.interval or (None, None)
    return (
        one.row.name, one.label, one.fraction, metric.name, metric.minus, cell.class_name, cell.value, low, high,
        cell.rank or None, cell.published, one.patients, len(one.evaluations), one.missed,
    )  # fmt: skip


def _table(experiment: Experiment, metric: Metric, measured: Sequence[Measured], published: Values) -> Table:
    baselines = {one.fraction: one for one in measured if one.row.name == metric.minus}
    lines = [
        Line(
            one,
            tuple(
                _cell(experiment, metric, class_name, one, baselines.get(one.fraction), published)
                for class_name in (*one.classes, MEAN)
            ),
        )
        for one in measured
    ]
    return Table(metric, tuple(lines) if metric.minus else _with_ranks(lines, metric))


def _cell(
    experiment: Experiment,
    metric: Metric,
    class_name: str,
    measured: Measured,
    baseline: Measured | None,
    published: Values,
) -> Cell:
    summary = measured.summary(metric.name, class_name)
    value, interval = summary["value"], summary["interval"]
    if metric.minus:
        theirs = baseline.summary(metric.name, class_name)["value"] if baseline else None
        value, interval = (None if None in (value, theirs) else value - theirs), None
    scale = METRICS[metric.name].scale
    structure = published_structure(experiment.published, class_name) if experiment.published else None
    variant = (measured.row.published or "").replace("{percent}", percent(measured.fraction))
    return Cell(
        class_name,
        None if value is None else scale * value,
        interval and [scale * end for end in interval],
        published.get((variant, metric.published or "", structure or "")),
    )


def _with_ranks(lines: Sequence[Line], metric: Metric) -> tuple[Line, ...]:
    """The lines with the best and second best value of each column and fraction marked; what failed is not."""
    fractions = [line.measured.fraction for line in lines]
    values = [[None if line.measured.failure else cell.value for cell in line.cells] for line in lines]
    columns = [
        ranked(column, METRICS[metric.name].higher_is_better, fractions)
        for column in zip(*values, strict=True)
    ]
    return tuple(
        replace(line, cells=tuple(replace(c, rank=rank) for c, rank in zip(line.cells, ranks, strict=True)))
        for line, ranks in zip(lines, zip(*columns, strict=True), strict=True)
    )


def _entry(cell: Cell, metric: Metric) -> Entry:
    form = "{:+.2f}" if metric.minus else "{:.2f}"
    interval = "[{:.2f}, {:.2f}]".format(*cell.interval) if cell.interval and cell.class_name == MEAN else ""
    published = "" if cell.published is None else f"({form.format(cell.published)})"
    text = NONE if cell.value is None else form.format(cell.value)
    return Entry(text.replace("-", "−"), cell.rank, f"{interval} {published}".strip().replace("-", "−"))
