from dataclasses import replace

import pytest

from ccdcseg.review.measure import WHOLE, ClassMeasures, Measures, Mend, Slices
from ccdcseg.review.suspicion import ALL_BOUNDS, CONTRADICTS, suspicions, usual

PLAIN = ClassMeasures(0.9, 1.0, 0.4, Slices(), Slices(), Slices(), 0.0, {"background": 0.1, "RV": 0.9}, 3, 0)


ABSENT = replace(PLAIN, dice=None, contradiction_mm=0.0, surface_probability=None, taken_for={})


def mask(*mends: Mend, **changes: ClassMeasures) -> Measures:
    return Measures({WHOLE: PLAIN, "RV": PLAIN, "LV": PLAIN} | changes, mends, 1.5)


NORMAL = usual([mask()] * 3)


def test_a_usual_mask_is_no_suspicion():
    assert all(found.strength < 1 for found in suspicions(mask(), NORMAL))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"gap": Slices((4,), 1.0, 4)}, "RV is missing in slice 4, between slices"),
        ({"early": Slices((1, 8), 9.0, 8)}, "RV ends too early: the network sees it in slices 1, 8 too."),
        ({"late": Slices((8,), 9.0, 8)}, "RV goes on too far: the network sees nothing of it in slice 8."),
        (
            {"apart": 0.2, "apart_slice": 5},
            "A piece of RV, 20.0% of it, lies apart where the network sees nothing of it, most in slice 5.",
        ),
        (
            {"contradiction_mm": 9.0, "dice": 0.3, "taken_for": {"background": 0.6, "RV": 0.3, "LV": 0.1}},
            "RV: Dice 30%, where 90% is usual here, most in slice 3; 60% of the label is background",
        ),
    ],
)
def test_each_suspicion_of_a_class_is_named(changed: dict[str, object], sentence: str) -> None:
    first, *others = suspicions(mask(RV=replace(PLAIN, **changed)), NORMAL)
    assert first.sentence.startswith(sentence)
    assert first.classes == ("RV",)
    assert first.strength >= 1
    assert all(other.strength < 1 for other in others)


@pytest.mark.parametrize("kind", ["mirrored", "shifted", "wide", "narrow"])
def test_what_explains_a_mask_is_named_before_what_it_explains(kind: str) -> None:
    mend = Mend(kind, ("RV", "LV"), "The mask looks odd", 0.8)  # type: ignore[arg-type]
    contradicting = replace(PLAIN, contradiction_mm=99.0, dice=0.2)
    first, *_ = suspicions(mask(mend, **{WHOLE: contradicting}), NORMAL)
    assert first.sentence == "The mask looks odd: without that 80% of the contradiction would go."


def test_a_mask_that_nothing_explains_may_be_another_scans():
    mend = Mend("shifted", ("RV", "LV"), "The mask looks shifted", 0.2)
    contradicting = replace(PLAIN, contradiction_mm=99.0, dice=0.2)
    first, *_ = suspicions(mask(mend, **{WHOLE: contradicting}), NORMAL)
    assert first.sentence.endswith("is it another scan's?")


def test_a_class_that_neither_has_is_no_suspicion():
    assert all(
        "RV" not in found.classes or found.strength < 1 for found in suspicions(mask(RV=ABSENT), NORMAL)
    )


def test_what_is_usual_of_a_class_does_not_depend_on_masks_without_it():
    wide = [mask(RV=replace(PLAIN, contradiction_mm=4.0))] * 3
    healthy = [mask(RV=ABSENT)] * 7
    assert usual(wide + healthy) == usual(wide)
    assert usual(healthy).contradiction_mm["RV"] == 0


@pytest.mark.parametrize("forgotten", [1, 2])
def test_what_masks_lack_and_the_network_sees_is_not_usual(forgotten: int):
    lacks = mask(RV=replace(ABSENT, contradiction_mm=4.0, dice=0.0))
    first, *_ = suspicions(lacks, usual([lacks] * forgotten + [mask(RV=ABSENT)] * 7))
    assert (first.kind, first.classes) == (CONTRADICTS, ("RV",))
    assert first.strength > 1


def test_in_a_list_of_perfect_masks_a_voxel_is_no_suspicion():
    perfect = usual([mask(RV=replace(PLAIN, contradiction_mm=0.0))] * 3)
    found = suspicions(mask(RV=replace(PLAIN, contradiction_mm=0.1)), perfect)
    assert all(one.strength < 1 for one in found)


def test_on_fine_pixels_a_forgotten_structure_is_as_suspicious() -> None:
    """A list of perfect masks; one is empty where the network sees a structure of some ten pixels."""
    perfect = usual([mask(RV=replace(PLAIN, contradiction_mm=0.0))] * 3)
    for pixel_mm in (0.012, 0.05, 1.5):
        empty = mask(RV=replace(PLAIN, contradiction_mm=12 * pixel_mm, dice=0.0))
        assert suspicions(replace(empty, pixel_mm=pixel_mm), perfect)[0].strength > 1
        voxel = mask(RV=replace(PLAIN, contradiction_mm=0.1 * pixel_mm))
        assert all(one.strength < 1 for one in suspicions(replace(voxel, pixel_mm=pixel_mm), perfect))


def test_the_strengths_are_shares_of_the_bounds():
    mend = Mend("swapped", ("RV",), "Swapped", ALL_BOUNDS["swapped"])
    assert suspicions(mask(mend), NORMAL)[0].strength == pytest.approx(1)
