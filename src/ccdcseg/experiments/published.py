"""Published numbers, to stand beside ours: those of the paper, or a table of one's own."""

import csv
from collections.abc import Collection
from contextlib import suppress
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

from ccdcseg.errors import UserError
from ccdcseg.experiments.experiment import Published
from ccdcseg.measure.patients import MEAN

COLUMNS = ("table", "dataset", "method", "variant", "metric", "structure", "value")

Values = dict[tuple[str, str, str], float]
"""(variant, metric, structure) to value; the variant is the method where a table has none."""


def published_values(published: Published) -> Values:
    """The numbers of one table, in its own units (Dice in %).

    The shipped file holds every number of Tables 1 to 8 and the differences of Figure 6 of Chen et al., Pattern
    Recognition 145 (2024) 109881, read off the paper; blank lines and lines that begin with # are comments.

    Raises:
        UserError: the file is missing or has other columns, in a row, too; the table is not in it, or has two
            values of one thing; or a value is no number.
    """
    path = Path(published.file) if published.file else shipped()
    try:
        lines = [
            line
            for line in path.read_text(encoding="utf-8-sig").splitlines()
            if line.strip() and line[0] != "#"
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}).", "Check the path of the published file."
        ) from error
    reader = csv.DictReader(lines)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise UserError(f"{path} has other columns.", f"Its first line is {','.join(COLUMNS)}.")
    rows = [row for row in reader if row["table"] == published.table]
    if not rows:
        raise UserError(f"{path} has no table {published.table}.", "Name one that it has.")
    values: Values = {}
    for row in rows:
        value = _number(row, path)
        key = row["variant"] or row["method"], row["metric"], row["structure"]
        if values.setdefault(key, value) != value:
            raise UserError(
                f"{path}: table {published.table} has two values of {', '.join(key)}.",
                "Give the tables of each data set a name of their own.",
            )
    return values


def published_structure(published: Published, class_name: str, classes: Collection[str]) -> str | None:
    """The name of a class of ours, or of the mean, in the published numbers; None where it has none.

    Args:
        published: what stands beside ours.
        class_name: one of ``classes``, or "mean".
        classes: of which ours is the mean; the published one is of its structures, where these are named.
    """
    if class_name != MEAN:
        return published.structures.get(class_name)
    return MEAN if not published.structures or {*classes} == published.structures.keys() else None


def shipped() -> Path:
    """The file with the paper's numbers."""
    return Path(str(files("ccdcseg.experiments") / "published.csv"))


def _number(row: dict[str | Any, Any], path: Path) -> float:
    """The value of a row."""
    cells = [cell for name in COLUMNS if (cell := row[name]) is not None] + row.get(None, [])
    line = f"{path}: the row {','.join(cells)}"
    if len(cells) != len(COLUMNS):
        raise UserError(
            f"{line} has {len(cells)} cells, not {len(COLUMNS)}.", "Write decimals with a point, not a comma."
        )
    with suppress(ValueError):
        if isfinite(value := float(row["value"])):
            return value
    raise UserError(f"{line} has no number as its value.", "Correct the value, or take the row out.")
