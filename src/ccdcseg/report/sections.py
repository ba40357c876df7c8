"""What a page shows beside the runs themselves: tables of an experiment, with published numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from ccdcseg.report.curves import Key, Panel
from ccdcseg.tabular import Grid


@dataclass(frozen=True)
class Section:
    """A part of the page with its own heading, between the answer and the results.

    Attributes:
        title: the heading, and the link to it.
        text: how to read it; line breaks are kept.
        grids: the tables.
        panels: figures above the tables, whose names (`line_panel`) must be unique on the page.
        keys: the legend of the figures.
    """

    title: str
    text: str
    grids: Sequence[Grid]
    panels: Sequence[Panel] = ()
    keys: Sequence[Key] = ()
