import pytest
import scored

from ccdcseg.statistics.failure import failure
from ccdcseg.statistics.family import compare_family
from ccdcseg.statistics.family_table import comparison_grid


def evaluated(missed: int, dice: float = 0.9, found: int = 12):
    """Scans of a patient each: ``found`` structures, then those that were missed."""
    rows = [scored.scores(f"a{place}", f"a{place}", "LV", dice) for place in range(found)]
    rows += [scored.scores(f"b{p}", f"b{p}", "LV", **scored.MISSED) for p in range(missed)]
    return scored.evaluation(rows)


@pytest.mark.parametrize(
    ("missed", "dice", "failed"),
    [(0, 0.9, False), (3, 0.9, False), (4, 0.9, True), (0, 0.19, True), (0, 0.2, False), (12, 0.1, True)],
)
def test_a_quarter_missed_or_dice_near_nothing(missed: int, dice: float, failed: bool):
    assert bool(failure([evaluated(missed, dice)])) == failed


def test_it_is_told_of_all_seeds():
    assert failure([evaluated(0), evaluated(12)]) == "Dice 45.00 %, 12 of 36 structures missed"
    assert failure([evaluated(12, 0.0)]) == "Dice 0.00 %, 12 of 24 structures missed"


def test_who_finds_what_there_is_did_not_fail_by_marking_more():
    healthy = [scored.scores(f"c{p}", f"c{p}", "LV", **scored.SPURIOUS) for p in range(60)]
    wild = scored.evaluation([*evaluated(0).cases, *healthy])
    absent = [row.model_copy(update=scored.ABSENT) for row in healthy]
    sure = scored.evaluation([*evaluated(0).cases, *absent])
    (outcome,) = compare_family({"wild": {0: wild}, "sure": {0: sure}}, [("wild", "sure")], ["dice"])
    assert (outcome.failures, outcome.spurious) == ({}, {"wild": 60})
    assert "Marked where there is none, over all scans and seeds: wild 60." in comparison_grid([outcome]).note


def test_a_comparison_names_who_failed():
    methods = {"good": {0: evaluated(0)}, "bad": {0: evaluated(0, 0.06)}, "fair": {0: evaluated(0, 0.8)}}
    one, other = compare_family(methods, [("good", "bad"), ("good", "fair")], ["dice"])
    assert one.failures == {"bad": "Dice 6.00 %, 0 of 12 structures missed"}
    assert other.failures == {}
    assert "bad hardly finds the structures (Dice 6.00 %, 0 of 12" in comparison_grid([one, other]).note
    assert "hardly" not in comparison_grid([other]).note
    assert "Marked" not in comparison_grid([other]).note
