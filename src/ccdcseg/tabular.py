"""A table of texts in the forms that people read and paste: screen, Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
        "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$",
        "–": "--", "−": "$-$",
    }
)  # fmt: skip


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
        higher_is_better: than a lower one.
        groups: which values are comparable, those of equal entries; None: all are. One alone has rank 0.
    """
    groups = [None] * len(values) if groups is None else groups
    peers = [[v for v, other in zip(values, groups, strict=True) if other == group] for group in groups]
    return [_rank(value, found, higher_is_better) for value, found in zip(values, peers, strict=True)]


def _rank(value: float | None, peers: Sequence[float | None], higher_is_better: bool) -> int:
    order = sorted({peer for peer in peers if peer is not None}, reverse=higher_is_better)[:2]
    return order.index(value) + 1 if len(peers) > 1 and value is not None and value in order else 0


def to_screen(grid: Grid) -> Table:
    """For a rich console: the best of a column bold, the second best in italics, small print below."""
    table = Table(title=grid.title, caption=grid.note or None, title_justify="left", caption_justify="left")
    for index, name in enumerate(grid.header):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    styles = ("", "bold", "italic")
    for row in grid.rows:
        table.add_row(
            *(
                Text.assemble((cell.text, styles[cell.rank]), f"\n{cell.note}" if cell.note else "")
                for cell in row
            )
        )
    return table


def to_markdown(grid: Grid) -> str:
    """The table alone: the best of a column bold, the second best in italics."""
    lines = [_bars(grid.header), _bars(["---"] * len(grid.header))]
    lines += [_bars([_shown(cell, "**{}**", "*{}*") for cell in row]) for row in grid.rows]
    return "\n".join(lines) + "\n"


def to_section(grid: Grid) -> str:
    """Markdown with the title as heading, then the table and the note."""
    return f"## {grid.title}\n\n{to_markdown(grid)}\n{grid.note}".rstrip() + "\n"


def to_latex(grid: Grid) -> str:
    """For the package booktabs: the best bold, the second best underlined, title and note as comments."""
    lines = [f"% {' '.join(text.split())}" for text in (grid.title, grid.note) if text]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}", r"\toprule"]
    lines += [_ampersands([_escaped(name) for name in grid.header]), r"\midrule"]
    for row in grid.rows:
        cells = [Entry(_escaped(cell.text), cell.rank, _escaped(cell.note)) for cell in row]
        lines.append(_ampersands([_shown(cell, r"\textbf{{{}}}", r"\underline{{{}}}") for cell in cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


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
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _shown(cell: Entry, best: str, second: str) -> str:
    text = {1: best, 2: second}.get(cell.rank, "{}").format(cell.text)
    return f"{text} {cell.note}" if cell.note else text


def _escaped(text: str) -> str:
    return text.translate(_LATEX)


def _bars(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
