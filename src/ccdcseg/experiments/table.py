"""Tables of results, ours with the published numbers beside: Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ccdcseg.evaluation.patients import MEAN, average, describe, patient_values
from ccdcseg.experiments.experiment import Experiment, Metric
from ccdcseg.experiments.jobs import Job
from ccdcseg.experiments.published import Values, published_structure, published_values

NONE = "–"
LOWER_IS_BETTER = "hd"
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
        rank: 1 the best of the column, 2 the second, 0 all others.
    """

    class_name: str
    value: float | None
    interval: list[float] | None
    published: float | None
    rank: int = 0


@dataclass(frozen=True)
class Line:
    """A row of a table at one fraction."""

    row: str
    title: str
    fraction: float
    cells: tuple[Cell, ...]
    patients: int
    seeds: int
    missed: int


@dataclass(frozen=True)
class Table:
    """All rows in one metric."""

    metric: Metric
    lines: tuple[Line, ...]

    @property
    def heading(self) -> str:
        """The metric, in words."""
        unit = " (%)" if self.metric.name == "dice" else ""
        return f"{self.metric.name}{unit}" + (
            f", difference to {self.metric.minus}" if self.metric.minus else ""
        )


Results = Mapping[Job, Mapping[str, Any]]


def result_tables(experiment: Experiment, results: Results) -> list[Table]:
    """A table for each metric, with the rows that have results."""
    values = published_values(experiment.published) if experiment.published else {}
    return [_table(experiment, metric, results, values) for metric in experiment.metrics]


def to_markdown(experiment: Experiment, tables: Sequence[Table], setup: str) -> str:
    """Best value bold, second best in italics, published numbers in brackets."""
    text = [f"# {experiment.title}", "", f"{setup} {_note(experiment)}"]
    for table in tables:
        header = ["row", *_classes(table), "patients", "seeds", "missed"]
        text += ["", f"## {table.heading}", "", _bars(header), _bars(["---"] * len(header))]
        text += [_bars(_texts(table, line, ("**{}**", "*{}*"))) for line in table.lines]
    return "\n".join(text) + "\n"


def to_latex(experiment: Experiment, tables: Sequence[Table], setup: str) -> str:
    """Tables for the package booktabs: best value bold, second best underlined."""
    text = [f"% {experiment.title}. {setup} {_note(experiment)}"]
    for table in tables:
        header = ["", *_classes(table), "patients", "seeds", "missed"]
        text += [f"% {table.heading}", rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule"]
        text += [_ampersands(header), r"\midrule"]
        text += [
            _ampersands(_texts(table, line, (r"\textbf{{{}}}", r"\underline{{{}}}"))) for line in table.lines
        ]
        text += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(text).replace("%)", r"\%)").replace("_", r"\_").replace(NONE, "--") + "\n"


def to_csv(tables: Sequence[Table]) -> str:
    """A line for each number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for table in tables:
        for line in table.lines:
            writer.writerows(_csv_row(table.metric, line, cell) for cell in line.cells)
    return text.getvalue()


def _csv_row(metric: Metric, line: Line, cell: Cell) -> tuple[Any, ...]:
    low, high = cell.interval or (None, None)
    return (
        line.row, line.title, line.fraction, metric.name, metric.minus, cell.class_name, cell.value, low, high,
        cell.rank or None, cell.published, line.patients, line.seeds, line.missed,
    )  # fmt: skip


def _table(experiment: Experiment, metric: Metric, results: Results, published: Values) -> Table:
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for job, result in results.items():
        groups.setdefault((job.row, job.fraction), []).append(result["evaluation"])
    titles = {row.name: row for row in experiment.rows}
    lines = []
    for (name, fraction), evaluations in groups.items():
        row = titles[name]
        baseline = groups.get((metric.minus, fraction), []) if metric.minus else None
        variant = (row.published or "").replace("{percent}", f"{100 * fraction:g}")
        cells = tuple(
            _cell(experiment, metric, class_name, evaluations, baseline, variant, published)
            for class_name in (*evaluations[0]["classes"], MEAN)
        )
        patients = {case["patient"] for evaluation in evaluations for case in evaluation["cases"]}
        missed = sum(evaluation["summary"][MEAN]["n_missing"] for evaluation in evaluations)
        title = row.label + (f", {100 * fraction:g} %" if len(experiment.fractions) > 1 else "")
        lines.append(Line(name, title, fraction, cells, len(patients), len(evaluations), missed))
    return Table(metric, tuple(lines) if metric.minus else _ranked(lines, metric))


def _cell(
    experiment: Experiment,
    metric: Metric,
    class_name: str,
    evaluations: Sequence[Mapping[str, Any]],
    baseline: Sequence[Mapping[str, Any]] | None,
    variant: str,
    published: Values,
) -> Cell:
    scale = 100.0 if metric.name == "dice" else 1.0
    summary = _summary(evaluations, metric.name, class_name)
    value, interval = summary["value"], summary["interval"]
    if baseline is not None:
        theirs = _summary(baseline, metric.name, class_name)["value"]
        value, interval = (None if None in (value, theirs) else value - theirs), None
    structure = published_structure(experiment.published, class_name) if experiment.published else None
    return Cell(
        class_name,
        None if value is None else scale * value,
        interval and [scale * end for end in interval],
        published.get((variant, metric.published or "", structure or "")),
    )


def _summary(evaluations: Sequence[Mapping[str, Any]], metric: str, class_name: str) -> dict[str, Any]:
    seeds = [patient_values(item["cases"], item["classes"], metric, class_name) for item in evaluations]
    return describe(average(seeds))


def _ranked(lines: Sequence[Line], metric: Metric) -> tuple[Line, ...]:
    """The lines with the best and the second best value of each column marked."""
    sign = 1 if metric.name.startswith(LOWER_IS_BETTER) or metric.name == "assd_mm" else -1
    bests = [
        sorted({sign * cell.value for cell in column if cell.value is not None})[:2]
        for column in zip(*(line.cells for line in lines), strict=True)
    ]
    return tuple(
        replace(line, cells=tuple(_marked(c, sign, b) for c, b in zip(line.cells, bests, strict=True)))
        for line in lines
    )


def _marked(cell: Cell, sign: int, best: Sequence[float]) -> Cell:
    found = cell.value is not None and sign * cell.value in best
    return replace(cell, rank=best.index(sign * cell.value) + 1) if found and cell.value is not None else cell


def _texts(table: Table, line: Line, marks: tuple[str, str]) -> list[str]:
    cells = [_text(cell, table.metric, marks) for cell in line.cells]
    return [line.title, *cells, str(line.patients), str(line.seeds), str(line.missed)]


def _text(cell: Cell, metric: Metric, marks: tuple[str, str]) -> str:
    form = "{:+.2f}" if metric.minus else "{:.2f}"
    text = NONE if cell.value is None else form.format(cell.value)
    text = marks[cell.rank - 1].format(text) if cell.rank else text
    if cell.interval and cell.class_name == MEAN:
        text += " [{:.2f}, {:.2f}]".format(*cell.interval)
    return text if cell.published is None else f"{text} ({form.format(cell.published)})"


def _note(experiment: Experiment) -> str:
    note = "Mean over patients, seeds averaged first [95 % interval over patients]. Missed: not predicted."
    source = f" In brackets, published: {experiment.published.source}." if experiment.published else ""
    return note + source


def _classes(table: Table) -> list[str]:
    return [cell.class_name for cell in table.lines[0].cells] if table.lines else []


def _bars(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
