import unicodedata

import numpy as np
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.texts import (
    as_set,
    exactly,
    from_cell,
    listed,
    no_formula,
    one_line,
    reason,
    significant,
    visible,
)


def test_letters_stay_and_what_is_not_seen_goes():
    assert visible("na\u00efve\n\te\u0301 \U0001f600") == "na\u00efve\n\te\u0301 \U0001f600"
    assert (
        visible("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
        == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )
    assert visible("a\x1b[31mb\u202ec\u2066d\ufeffe\ud800") == "a [31mbcde\ufffd"
    assert one_line(" a\r\n\u2028b\x0c\x00c ") == "a b c"
    assert one_line(" a  b\t  \n c") == "a  b c"  # a folder may be called so


def test_numbers_are_shown_with_the_digits_that_tell_them_apart():
    numbers = (
        np.float32(1 + 2**-23),
        np.float32(312782560),
        np.uint16(65535),
        0.1,
        1 / 3,
        8.0,
        -0.5,
        float("nan"),
        1e30,
    )
    shown = "1.0000001 312782560 65535 0.1 0.3333333333333333 8 -0.5 nan 1e+30"
    assert " ".join(map(exactly, numbers)) == shown


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


def test_what_an_error_says():
    assert reason(ValueError("two\n lines")) == "two lines"
    assert reason(ValueError(" ")) == "ValueError"


def test_whole_parts_are_written_in_full():
    numbers = (12345.6, 9999.6, 1234.5, 12.3456, -23456.7, 0.000123456, 0)
    shown = [significant(number, 4) for number in numbers]
    assert shown == ["12,346", "10,000", "1,234", "12.35", "-23,457", "0.0001235", "0"]
    assert significant(139, 2) == "139"


def test_of_many_things_the_first_are_named():
    assert listed(range(5)) == "0, 1, 2, 3, 4"
    assert listed("abcdefg") == "a, b, c, d, e and 2 more"
    assert listed([]) == ""


def test_settings_are_shown_as_they_are_given():
    for value in (False, None, 0.3, 43, [192, 192], "strong", "früh"):
        assert yaml.safe_load(as_set(value)) == value
