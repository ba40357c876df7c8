"""The standard streams of a command, whatever they are: closed, or of an encoding with few signs."""

import codecs
import io
import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

_DEGRADED = "ccdcseg.degraded"
_ALIKE = {
    "\u2013": "-", "\u2014": "-", "\u2212": "-", "\u2026": "...", "\u00b1": "+-", "\u00d7": "x", "\u00b7": "*",
    "\u2264": "<=", "\u2265": ">=", "\u2192": "->", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"',
}  # fmt: skip
"""What stands for a sign where only ASCII can be written."""


def settle_streams() -> None:
    """Have closed streams lead nowhere, and the others `degrade`."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # else files of ours would take their numbers
        pass
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end
    for stream in (sys.stdout, sys.stderr):
        degrade(stream)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show this package's warnings, a line each, on today's standard error, wherever that leads meanwhile.

    What nnU-Net prints is kept off the screen while it trains; what we have to say then is not.
    """
    logger, handler = logging.getLogger(__package__), logging.StreamHandler(sys.stderr)
    others = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, *place: Any, **rest: Any
    ) -> None:
        if Path(filename).is_relative_to(Path(__file__).parent):
            logger.warning("Warning: %s", message)
        else:
            others(message, category, filename, *place, **rest)

    logger.addHandler(handler)
    with warnings.catch_warnings():
        warnings.showwarning = cast("Any", show)
        try:
            yield
        finally:
            logger.removeHandler(handler)


def degrade(stream: TextIO) -> None:
    """Have a stream write signs that its encoding lacks as signs that look alike, or as "?", instead of failing."""
    codecs.register_error(_DEGRADED, _degraded)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_DEGRADED)


def _degraded(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_alike, error.object[error.start : error.end])), error.end


def _alike(letter: str) -> str:
    plain = unicodedata.normalize("NFKD", _ALIKE.get(letter, letter)).encode("ascii", "ignore")
    return plain.decode() or "?"
