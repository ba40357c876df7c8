import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.texts import from_cell, no_formula, one_line, visible


def test_letters_stay_and_what_is_not_seen_goes():
    assert visible("na\u00efve\n\te\u0301 \U0001f600") == "na\u00efve\n\te\u0301 \U0001f600"
    assert (
        visible("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
        == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )
    assert visible("a\x1b[31mb\u202ec\u2066d\ufeffe\ud800") == "a [31mbcde\ufffd"
    assert one_line(" a\r\n\u2028b\x0c\x00c ") == "a b c"


@given(st.text(st.characters(exclude_categories=())))
def test_any_text(text):
    shown = visible(text)
    assert visible(shown) == shown
    assert {unicodedata.category(letter) for letter in shown} & {"Cs"} == set()
    shown.encode()
    assert len(one_line(text).splitlines()) <= 1


@given(st.text(st.sampled_from("=+-@;, '\t1a\uff1d")))
def test_a_cell_is_no_formula_and_its_text_comes_back(text):
    cell = no_formula(text)
    numbers = all(part.strip().lstrip("+-").isdecimal() for part in text.split(","))
    assert numbers or not any(part.strip().startswith(tuple("=+-@\uff1d")) for part in cell.split(";"))
    if "'" not in text:
        assert from_cell(cell) == text
