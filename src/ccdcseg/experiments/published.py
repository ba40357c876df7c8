"""Published numbers, to stand beside ours: those of the paper, or a table of one's own."""

import csv
from importlib.resources import files
from pathlib import Path

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
        UserError: the file is missing or has other columns, the table is not in it, or a value is no number.
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
    return {
        (r["variant"] or r["method"], r["metric"], r["structure"]): _number(r["value"], path) for r in rows
    }


def published_structure(published: Published, class_name: str) -> str | None:
    """The name of a class of ours, or of the mean, in the published numbers; None where it has none."""
    return MEAN if class_name == MEAN else published.structures.get(class_name)


def shipped() -> Path:
    """The file with the paper's numbers."""
    return Path(str(files("ccdcseg.experiments") / "published.csv"))


def _number(text: str, path: Path) -> float:
    try:
        return float(text)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {text} is no number.", "Correct the value.") from error
