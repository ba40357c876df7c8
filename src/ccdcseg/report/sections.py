"""Parts of the page that others fill: the tables of a paper, for instance."""

from collections.abc import Sequence
from dataclasses import dataclass

from ccdcseg.report.curves import Key, Panel
from ccdcseg.tabular import Grid


@dataclass(frozen=True)
class Section:
    """A part with a heading of its own.

    Attributes:
        title: the heading.
        text: a sentence or two below it.
        grids: its tables.
        panels: its figures, above the tables.
        keys: legend of the figures.
    """

    title: str
    text: str
    grids: Sequence[Grid]
    panels: Sequence[Panel] = ()
    keys: Sequence[Key] = ()
