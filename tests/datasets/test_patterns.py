import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.datasets.patterns import NamePattern
from ccdcseg.errors import UserError

NAMES = ("patient", "phase", "group")
letters = st.text("ab.[]*+?(1", min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("text", "name", "parts"),
    [
        ("{patient}", "a_1", {"patient": "a_1"}),
        ("{patient}_{phase}", "a_1", {"patient": "a", "phase": "1"}),
        ("{group}-{patient}_{}", "DCM-a_1", {"group": "DCM", "patient": "a"}),
        ("case_{patient}", "b_1", None),
        ("{patient}_{phase}", "a", None),
        ("{patient}/{patient}_{phase}", "a/a_1", {"patient": "a", "phase": "1"}),
        ("{patient}/{patient}_{phase}", "a/b_1", None),
        ("{patient}", "a/b", None),
        ("{patient}.x", "a_x", None),
        ("{group}-{patient}", "HCM - 001", {"group": "HCM", "patient": "001"}),
        ("{group}-{patient}", "a b-\u00a0c d ", {"group": "a b", "patient": "c d"}),
        ("{group}-{patient}", " -001", None),
    ],
)
def test_parts(text: str, name: str, parts: dict[str, str] | None) -> None:
    assert NamePattern(text, NAMES).parts(name) == parts


@given(letters, letters, letters)
def test_a_name_that_was_put_together_is_taken_apart(patient: str, phase: str, fixed: str) -> None:
    assert NamePattern(f"{{patient}}_{fixed}_{{phase}}", NAMES).parts(f"{patient}_{fixed}_{phase}") == {
        "patient": patient,
        "phase": phase,
    }


def test_two_ways_to_read_a_name_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"a_1_ED in two ways: patient a, phase 1_ED, or patient a_1, phase ED"
    ):
        NamePattern("{patient}_{phase}", NAMES).parts("a_1_ED")
    assert NamePattern("{patient}_{}_{phase}", NAMES).parts("a_1_ED") == {"patient": "a", "phase": "ED"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{patient", "brace"),
        ("patient}", "brace"),
        ("{{patient}}", "brace"),
        ("{patient}_{side}", r"part \{side\}.*\{patient\}, \{phase\}, \{group\} and \{\}"),
        ("{phase}", r"no \{patient\}"),
        ("", r"no \{patient\}"),
    ],
)
def test_unusable_patterns(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        NamePattern(text, NAMES, ["patient"])


@pytest.mark.parametrize(("text", "length"), [("{patient}", 0), ("{patient}_{}", 1), ("a/{patient}_b", 4)])
def test_fixed_text(text: str, length: int) -> None:
    assert NamePattern(text, NAMES).fixed_length == length


def test_characters_composed_otherwise() -> None:
    pattern = NamePattern("{patient}/M\u00fcller.nii.gz", ["patient"])
    assert pattern.parts("Mu\u0308/Mu\u0308ller.nii.gz") == {"patient": "M\u00fc"}
    assert pattern.parts("a/m\u00fcller.nii.gz") is None
