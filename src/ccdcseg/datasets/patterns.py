"""File names with named parts in them: ``{patient}_{phase}``."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from ccdcseg.datasets.unicode_names import composed
from ccdcseg.errors import UserError

PARTS = ("patient", "phase", "group")
"""What a pattern of scans may name."""
_PART = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class NamePattern:
    """A text with parts in braces, each standing for one or more characters other than ``/``.

    ``{name}`` is a part to read, ``{}`` one to pass over; a name that comes twice must stand for the same text.
    Everything else is literal.

    Args:
        text: such as ``{patient}_frame{phase}``.
        names: the names that may be in it.
        required: the names that must be.

    Raises:
        UserError: braces that do not close, an unknown name, or a required one missing.
    """

    text: str
    names: Collection[str]
    required: Collection[str] = ()

    def __post_init__(self) -> None:
        """Refuse what can match nothing sensible."""
        found = _PART.findall(self.text)
        known = ", ".join(f"{{{name}}}" for name in self.names)
        if any(brace in _PART.sub("", self.text) for brace in "{}"):
            raise UserError(f"The pattern {self.text} has a brace without its other.", f"Parts are {known}.")
        for name in found:
            if name and name not in self.names:
                raise UserError(
                    f"The pattern {self.text} has the part {{{name}}}.",
                    f"Parts are {known} and {{}} for what does not matter.",
                )
        for name in self.required:
            if name not in found:
                raise UserError(f"The pattern {self.text} has no {{{name}}}.", "Write where it stands.")

    @property
    def fixed_length(self) -> int:
        """Characters outside the braces."""
        return len(_PART.sub("", self.text))

    def fits(self, name: str) -> bool:
        """Whether it fits a name, in one way or in several."""
        return self._expression("+").fullmatch(composed(name)) is not None

    def parts(self, name: str) -> dict[str, str] | None:
        """Text of each named part of ``name``, with composed characters and no space around it.

        None where the pattern does not fit, or nothing but spaces stands for a part.

        Raises:
            UserError: it fits in more than one way, such as ``{patient}_{phase}`` and "a_1_ED".
        """
        short, long = (self._expression(some).fullmatch(composed(name)) for some in ("+?", "+"))
        if short is None or long is None:
            return None
        if short.groupdict() != long.groupdict():
            one, other = (
                ", ".join(f"{key} {value}" for key, value in found.groupdict().items())
                for found in (short, long)
            )
            raise UserError(
                f"The pattern {self.text} fits {name} in two ways: {one}, or {other}.",
                "Write more of the fixed text, or more parts.",
            )
        parts = {key: text.strip() for key, text in short.groupdict().items()}
        return parts if all(parts.values()) else None

    def _expression(self, some: str) -> re.Pattern[str]:
        """The regular expression whose parts are as short (``+?``) or as long (``+``) as they can be."""
        seen: set[str] = set()
        pieces = []
        for index, piece in enumerate(_PART.split(self.text)):
            if index % 2 == 0:
                pieces.append(re.escape(composed(piece)))
            elif not piece:
                pieces.append(f"[^/]{some}")
            elif piece in seen:
                pieces.append(f"(?P={piece})")
            else:
                pieces.append(f"(?P<{piece}>[^/]{some})")
                seen.add(piece)
        return re.compile("".join(pieces))
