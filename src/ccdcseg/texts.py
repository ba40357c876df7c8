"""Texts of others, such as names of patients, classes and files, where they are shown."""

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

LISTED = 5
"""Names that a sentence gives before it says how many more there are."""
_SPACES = "\n\t"
_BREAK = re.compile(r" *(?:[^\S ]|[\x00-\x1f\x7f-\x9f])[\s\x00-\x1f\x7f-\x9f]*")
"""White space and control characters, unless they are spaces alone."""
_JOINERS = "\u200c\u200d"
"""Invisible, but letters of some scripts are written with them."""
_UNKNOWN = "\ufffd"
_NUMBERS = re.compile(r"[+-]?\d+(\.\d+)?((, | to )[+-]?\d+(\.\d+)?)*")
_SIGNS = "[=+@\uff1d\uff0b\uff0d\uff20-]"
"""What begins a formula, the wide forms too."""
_FORMULA = re.compile(rf"(^|;)(\s*)(?={_SIGNS})")
"""At the start, or where spreadsheets of some languages begin a new cell."""
_NO_FORMULA = re.compile(rf"(^|;)'(?=\s*{_SIGNS})")


def visible(text: str) -> str:
    """A text without what acts on its surroundings instead of being seen.

    Left out are characters that control a terminal and those that turn the direction of what follows; half a
    surrogate pair, as Python has it for a byte that is no UTF-8, becomes a question mark. Line breaks and tabs
    stay.
    """
    return text.translate({ord(letter): _shown(letter) for letter in {*text}})


def one_line(text: str) -> str:
    """A visible text with single spaces for all breaks; several spaces, as names may have them, stay."""
    return visible(_BREAK.sub(" ", text)).strip()


def reason(error: Exception) -> str:
    """What an error says in one line, or its kind where it says nothing."""
    return one_line(str(error)) or type(error).__name__


def listed(things: Sequence[Any]) -> str:
    """The first of some things, and how many more there are."""
    more = f" and {len(things) - LISTED} more" if len(things) > LISTED else ""
    return f"{', '.join(map(str, things[:LISTED]))}{more}"


def exactly(number: Any) -> str:
    """A number with as many digits as tell it from every other of its type, so that 1.0000001 is not shown as 1."""
    whole = math.isfinite(number) and number == int(number) and abs(number) < 1e16
    return str(int(number)) if whole else str(number)


def as_set(value: Any) -> str:
    """The value of a setting as ``--set`` takes it: ``false``, ``null`` and ``[192, 192]``."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def significant(number: float, digits: int) -> str:
    """A number to so many digits, its whole part in full: "0.00012" and "1,234", and never "1.2e+03"."""
    text = f"{number:,.{digits}g}"
    return f"{number:,.0f}" if "e+" in text else text


def no_formula(text: str) -> str:
    """A text as a cell of CSV that is no formula to a spreadsheet: an apostrophe stands before what would be one.

    Numbers, and lists and ranges of them, stay as they are.
    """
    return text if _NUMBERS.fullmatch(text) else _FORMULA.sub(r"\1'\2", text)


def from_cell(cell: str) -> str:
    """The text of which `no_formula` made a cell."""
    return _NO_FORMULA.sub(r"\1", cell)


def _shown(letter: str) -> str:
    category = unicodedata.category(letter)
    if category == "Cs":
        return _UNKNOWN
    if category == "Cc" and letter not in _SPACES:
        return " "
    return "" if category == "Cf" and letter not in _JOINERS else letter
