import contextlib
import io
import logging
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccdcseg
from ccdcseg.streams import degrade, warnings_shown


def test_warnings_of_ours_are_shown_though_nothing_else_is(capsys: pytest.CaptureFixture[str]):
    ours = str(Path(ccdcseg.__file__).parent / "losses" / "term.py")
    away = contextlib.redirect_stderr(io.StringIO())
    with warnings.catch_warnings(record=True) as others, warnings_shown(), away:
        warnings.simplefilter("always")
        warnings.warn_explicit("nothing to contrast", UserWarning, ours, 1)
        warnings.warn_explicit("chatter", UserWarning, "elsewhere.py", 1)
        logging.getLogger("ccdcseg.nnunet").warning("one process")
    assert capsys.readouterr().err == "Warning: nothing to contrast\none process\n"
    assert [str(other.message) for other in others] == ["chatter"]
    assert not logging.getLogger("ccdcseg").handlers


def written(text: str, encoding: str) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding, newline="")
    degrade(stream)
    stream.write(text)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def test_signs_that_an_encoding_lacks_become_signs_alike():
    assert (
        written("Dice 0.9 \u00b1 0.1 \u2013 \u2265 1 \u00d7 2 \u2026", "ascii")
        == "Dice 0.9 +- 0.1 - >= 1 x 2 ..."
    )
    assert written("M\u00fcller \u6f22 \ud800", "ascii") == "Muller ? ?"
    assert written("M\u00fcller \u00b1 \u2013", "latin-1") == "M\u00fcller \u00b1 -"


@given(
    st.text(st.characters(exclude_categories=())), st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8"])
)
def test_any_text_can_be_written_and_what_the_encoding_has_stays(text: str, encoding: str):
    shown = written(text, encoding)
    for letter in text:
        try:
            letter.encode(encoding)
        except UnicodeEncodeError:
            assert unicodedata.category(letter) == "Cs" or encoding != "utf-8"
        else:
            assert letter in shown


CLOSED = """
import os, sys
for number in {numbers}:
    os.close(number)
    setattr(sys, ("stdin", "stdout", "stderr")[number], None)  # as Python starts where they are closed
from ccdcseg.streams import settle_streams
settle_streams()
with open({path!r}, "w") as file:
    for _ in range(2):
        print("of us", file=sys.stdout, flush=True)
        print("of us", file=sys.stderr, flush=True)
        os.write(1, b"of a library")
        os.write(2, b"of a library")
    sys.stdin.read()
    file.write("ours")
"""


@pytest.mark.parametrize("numbers", [[1], [2], [0, 1, 2]])
def test_what_goes_to_a_closed_stream_gets_into_no_file(tmp_path, numbers: list[int]):
    path = tmp_path / "file"
    code = CLOSED.format(numbers=numbers, path=str(path))
    result = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert path.read_text() == "ours"
    assert (b"of us" in result.stdout) == (1 not in numbers)
    assert (b"of us" in result.stderr) == (2 not in numbers)
