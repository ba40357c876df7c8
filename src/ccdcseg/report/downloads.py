"""A table of the page as files to keep, and its cells as values to sort by."""

import re
from dataclasses import dataclass
from urllib.parse import quote

from ccdcseg.measure.display import NONE
from ccdcseg.tabular import Entry, Grid, to_csv, to_latex

_NUMBER = re.compile(r"(?:[<>] ?)?([+-]?\d+(?:\.\d+)?)(?![\w.])")


@dataclass(frozen=True)
class Download:
    """A file within the page.

    Attributes:
        label: the format.
        name: of the file when it is saved.
        uri: the contents, as a data URI.
    """

    label: str
    name: str
    uri: str


def downloads(grid: Grid, section: str = "") -> list[Download]:
    """The table as CSV and as LaTeX; other sections have tables of the same title."""
    stem = re.sub(r"[^a-z0-9_]+", "-", f"{section} {grid.title}".lower()).strip("-") or "table"
    return [
        Download("CSV", f"{stem}.csv", f"data:text/csv;charset=utf-8,{quote(to_csv(grid))}"),
        Download("LaTeX", f"{stem}.tex", f"data:application/x-tex;charset=utf-8,{quote(to_latex(grid))}"),
    ]


def sort_value(entry: Entry) -> str:
    """The number that a text begins with, empty where there is none to show, else the text."""
    text = entry.text.replace("−", "-")
    number = _NUMBER.match(text)
    if number:
        return number[1]
    return "" if text == NONE else text
