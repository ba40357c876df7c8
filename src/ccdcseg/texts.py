"""Texts of others, such as names of patients, classes and files, where they are shown."""

import unicodedata

_SPACES = "\n\t"
_JOINERS = "\u200c\u200d"
"""Invisible, but letters of some scripts are written with them."""
_UNKNOWN = "\ufffd"


def visible(text: str) -> str:
    """A text without what acts on its surroundings instead of being seen.

    Left out are characters that control a terminal and those that turn the direction of what follows; half a
    surrogate pair, as Python has it for a byte that is no UTF-8, becomes a question mark. Line breaks and tabs
    stay.
    """
    return text.translate({ord(letter): _shown(letter) for letter in {*text}})


def one_line(text: str) -> str:
    """A visible text with single spaces for all breaks."""
    return " ".join(visible(text).split())


def _shown(letter: str) -> str:
    category = unicodedata.category(letter)
    if category == "Cs":
        return _UNKNOWN
    if category == "Cc" and letter not in _SPACES:
        return " "
    return "" if category == "Cf" and letter not in _JOINERS else letter
