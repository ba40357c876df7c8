"""A table of texts in the forms that people read and paste: screen, Markdown, LaTeX and CSV."""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rich.cells import cell_len
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from ccdcseg.texts import no_formula, one_line

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
        "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$",
        "–": "--", "−": "$-$",
    }
)  # fmt: skip
NOTHING = 5e-5
"""A share below this is shown as zero."""
NOISE = 1e-12
"""Means that differ by no more are equal: the order in which numbers are summed up leaves as much."""
LONGEST_FIRST = 24
"""Letters of a word of the first column that stay together on the screen."""
_MARKUP = re.compile(r"[\\|`]|<(?=[A-Za-z/!?])|(?<=\])\(")
"""What would be cells, code, HTML or the address of a link in Markdown."""


@dataclass(frozen=True)
class Entry:
    """A cell.

    Attributes:
        text: of the number that is marked.
        rank: 1 the best of its column, 2 the second, 0 all others.
        note: small print after the text, never marked.
    """

    text: str
    rank: int = 0
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        title: what it shows.
        header: names of the columns; the first is that of the rows.
        rows: as long as ``header``.
        note: how to read it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    note: str = ""


def ranked(
    values: Sequence[float | None], higher_is_better: bool, groups: Sequence[object] | None = None
) -> list[int]:
    """1 for the best values of a column, 2 for the second best, 0 for all others.

    Args:
        values: of the column.
        higher_is_better: than a lower one; then zero, and what is shown as zero, is no achievement and has rank 0.
        groups: which values are comparable, those of equal entries; None: all are. One alone has rank 0.
    """
    groups = [None] * len(values) if groups is None else groups
    peers = [[v for v, other in zip(values, groups, strict=True) if other == group] for group in groups]
    return [_rank(value, found, higher_is_better) for value, found in zip(values, peers, strict=True)]


def _rank(value: float | None, peers: Sequence[float | None], higher_is_better: bool) -> int:
    if value is None or (higher_is_better and value < NOTHING):
        return 0
    gains = [peer - value if higher_is_better else value - peer for peer in peers if peer is not None]
    better = [gain for gain in gains if gain > NOISE]
    if len(peers) < 2 or (better and max(better) - min(better) > NOISE):
        return 0
    return 2 if better else 1


def to_screen(grid: Grid, width: int) -> Table | Text:
    """For a rich console: the best of a column bold, the second best in italics, small print below.

    Words, such as units and names of metrics, stay whole; but for long ones of the first column. Where a table has
    no room for them, each cell has a line of its own.

    Args:
        grid: to be shown.
        width: of the console, in characters.
    """
    columns = [*zip(map(one_line, grid.header), *map(_lines, grid.rows), strict=True)]
    least = [max(cell_len(word) for text in column for word in (*text.split(), "")) for column in columns]
    least[0] = min(least[0], LONGEST_FIRST)
    room = width - 3 * len(columns) - 1
    title, note = (Text(one_line(text)) for text in (grid.title, grid.note))
    if sum(least) > room:
        return Text("\n").join(text for text in (title, *map(partial(_block, grid), grid.rows), note) if text)
    table = Table(title=title, caption=note or None, title_justify="left", caption_justify="left")
    for index, (name, given) in enumerate(zip(grid.header, _widths(columns, least, room), strict=True)):
        justify: JustifyMethod = "right" if index else "left"
        table.add_column(Text(one_line(name)), justify=justify, overflow="fold", width=given)
    for row in grid.rows:
        table.add_row(*(_styled(cell, "\n") for cell in row))
    return table


def _lines(row: Sequence[Entry]) -> list[str]:
    return [f"{one_line(cell.text)}\n{one_line(cell.note)}" for cell in row]


def _widths(columns: Sequence[Sequence[str]], least: Sequence[int], room: int) -> list[int]:
    """Of columns of texts: what the widest give up until all have room, but never a part of a word."""
    widths = [max(cell_len(line) for text in column for line in text.split("\n")) for column in columns]
    while sum(widths) > room:
        index = max(range(len(widths)), key=lambda i: widths[i] if widths[i] > least[i] else 0)
        widths[index] -= 1
    return widths


def _styled(cell: Entry, between: str) -> Text:
    note = one_line(cell.note)
    style = ("", "bold", "italic")[cell.rank]
    return Text.assemble((one_line(cell.text), style), f"{between}{note}" if note else "")


def _block(grid: Grid, row: Sequence[Entry]) -> Text:
    """A row with a line for each cell."""
    first, *others = row
    lines = [
        Text.assemble(f"  {one_line(name)}: ", _styled(cell, " "))
        for name, cell in zip(grid.header[1:], others, strict=True)
    ]
    return Text("\n").join([_styled(first, " "), *lines])


def to_markdown(grid: Grid) -> str:
    """The table alone: the best of a column bold, the second best in italics."""
    lines = [_bars(grid.header), _bars(["---"] * len(grid.header))]
    lines += [_bars([_shown(cell, "**{}**", "*{}*") for cell in row]) for row in grid.rows]
    return "\n".join(lines) + "\n"


def to_section(grid: Grid) -> str:
    """Markdown with the title as heading, then the table and the note."""
    title, note = _in_markdown(grid.title), "\n".join(map(_in_markdown, grid.note.splitlines()))
    return f"## {title}\n\n{to_markdown(grid)}\n{note}".rstrip() + "\n"


def to_latex(grid: Grid) -> str:
    """For the package booktabs: the best bold, the second best underlined, title and note as comments."""
    lines = [latex_comment(text) for text in (grid.title, grid.note) if text]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}", r"\toprule"]
    lines += [_ampersands([_escaped(name) for name in grid.header]), r"\midrule"]
    for row in grid.rows:
        cells = [Entry(_escaped(cell.text), cell.rank, _escaped(cell.note)) for cell in row]
        lines.append(_ampersands([_shown(cell, r"\textbf{{{}}}", r"\underline{{{}}}") for cell in cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def latex_comment(text: str) -> str:
    """One line that LaTeX passes over."""
    return f"% {one_line(text)}"


def to_csv(grid: Grid) -> str:
    """The texts as they are shown, without marks; notes in columns of their own."""
    noted = [any(row[index].note for row in grid.rows) for index in range(len(grid.header))]
    header = [
        text
        for name, has_notes in zip(grid.header, noted, strict=True)
        for text in ((name, f"{name}, note") if has_notes else (name,))
    ]
    rows = [
        [
            text.replace("−", "-")
            for cell, has_notes in zip(row, noted, strict=True)
            for text in ((cell.text, cell.note) if has_notes else (cell.text,))
        ]
        for row in grid.rows
    ]
    return csv_text([header, *rows])


def csv_text(rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV to be looked at: cells are one line each and visible, and none is a formula to a spreadsheet."""
    return exact_csv_text(
        [[one_line(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    )


def exact_csv_text(rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV whose names are read again, with all their letters; none is a formula to a spreadsheet.

    A text that a spreadsheet would take for one gets an apostrophe before it, at which they all take it as it is.
    """
    text = io.StringIO()
    cells = [[no_formula(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    csv.writer(text, lineterminator="\n").writerows(cells)
    return text.getvalue()


def _shown(cell: Entry, best: str, second: str) -> str:
    text = {1: best, 2: second}.get(cell.rank, "{}").format(cell.text)
    return f"{text} {cell.note}" if cell.note else text


def _escaped(text: str) -> str:
    return unicodedata.normalize("NFC", one_line(text)).translate(_LATEX)


def _bars(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_in_markdown, cells))} |"


def _in_markdown(text: str) -> str:
    """A line without cells, HTML, links or code of its own."""
    return _MARKUP.sub(r"\\\g<0>", one_line(text))


def _ampersands(cells: Sequence[str]) -> str:
    """A row; what the command before it would take for an option of its own is set apart."""
    row = " & ".join(cells)
    return (f"{{}}{row}" if row.startswith(("[", "*")) else row) + r" \\"
