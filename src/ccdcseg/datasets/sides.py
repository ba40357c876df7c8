"""Organs that come in a left and a right one, by the names of their classes."""

import re
from collections.abc import Iterable, Sequence

from ccdcseg.texts import listed

UNMIRRORED = "training.mirroring=false"
"""How a training with organs of two sides is changed, unless its preset says whether it mirrors."""
MIRRORED = "Where the two are not alike when mirrored, --set training.mirroring=true does it."
"""What to do where it should not be."""
_OTHER = {"left": "right", "l": "r", "lt": "rt", "lh": "rh"}
_WORDS = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+")


def sides(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of names, the left one first, that differ by their side alone.

    Args:
        names: of classes, such as left_kidney and right_kidney, LeftKidney and RightKidney, or kidney L and
            kidney R.
    """
    by_words = {tuple(word.lower() for word in _WORDS.findall(name)): name for name in names}
    return tuple(
        (name, by_words[other])
        for words, name in by_words.items()
        for place, word in enumerate(words)
        if (other := (*words[:place], _OTHER.get(word, ""), *words[place + 1 :])) in by_words
    )


def in_pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """Pairs of `sides` in words."""
    return listed([f"{left} and {right}" for left, right in pairs])
