"""Tables that a user hands in: CSV in UTF-8, the columns named in the first line.

Between the columns are commas, or semicolons or tabs where the first line has no comma.
"""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccdcseg.errors import UserError, system_error


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Args:
        place: file and line, for messages.
        values: text of each column, as it stands there.
    """

    place: str
    values: Mapping[str, str]


def read_table(path: Path, required: Collection[str], optional: str, remedy: str) -> list[Row]:
    """Read a CSV table; lines without a value and spaces around the names of columns are passed over.

    Args:
        path: of the table; a byte order mark, as spreadsheets write it, may be there.
        required: columns that must be there, in any order.
        optional: regular expression of the columns that may be there.
        remedy: what to do about a table that cannot be used.

    Raises:
        UserError: the file is missing, cannot be read, is no UTF-8 or no CSV, lacks a column, has one that nobody
            knows or has one twice, or a row has more or fewer values than there are columns.
    """
    (_, names), *rows = _lines(path, remedy) or [(1, [])]
    columns = [name.strip() for name in names]
    _check_columns(path, columns, required, optional, remedy)
    for number, values in rows:
        if len(values) != len(columns):
            raise UserError(
                f"{path}, line {number}, has {len(values)} values, not {len(columns)}: "
                f"{','.join(values)[:200]!r}.",
                "Give it one for each column; what is not known stays empty.",
            )
    return [Row(f"{path}, line {number}", dict(zip(columns, values, strict=True))) for number, values in rows]


def _lines(path: Path, remedy: str) -> list[tuple[int, list[str]]]:
    """Number and values of every line that is not empty, or nothing but commas."""
    text = _text(path, remedy)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_delimiter(text))
    try:
        return [(reader.line_num, values) for values in reader if any(value.strip() for value in values)]
    except csv.Error as error:
        raise UserError(f"{path} is no CSV table (line {reader.line_num}: {error}).", remedy) from error


def _delimiter(text: str) -> str:
    """What stands between the names of columns: a comma, or what spreadsheets of some countries write."""
    names = (text.strip().splitlines() or [""])[0]
    return next((mark for mark in ";\t" if mark in names and "," not in names), ",")


def _text(path: Path, remedy: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.", remedy) from error
    except IsADirectoryError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).", remedy) from error
    except OSError as error:
        raise system_error(error, path) from error
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} is no CSV table (line {number} is not in UTF-8).", remedy) from error


def _check_columns(
    path: Path, columns: Sequence[str], required: Collection[str], optional: str, remedy: str
) -> None:
    unknown = [one for one in columns if one not in required and not re.fullmatch(optional, one)]
    if unknown or not {*required} <= {*columns}:
        raise UserError(f"{path} has the columns {', '.join(columns)[:200] or 'none'}.", remedy)
    if twice := [one for one in columns if columns.count(one) > 1]:
        raise UserError(f"{path} has the column {twice[0]} twice.", remedy)
