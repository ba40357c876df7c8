import json

import scored

from ccdcseg.statistics.family import compare_family, rank_frequencies
from ccdcseg.statistics.family_table import (
    CASE_NOTE,
    ONE_SEED_NOTE,
    comparison_grid,
    comparison_record,
    of_scans,
    rank_grid,
)
from ccdcseg.tabular import to_markdown


def evaluation(*values):
    return scored.evaluation(scored.scores(f"p{i}_0", f"p{i}", "LV", value) for i, value in enumerate(values))


METHODS = {
    "CCDC": {0: evaluation(0.9, 0.8, 0.7), 1: evaluation(0.9, 0.8, 0.7)},
    "nnU-Net": {0: evaluation(0.8, 0.7, 0.6), 1: evaluation(0.7, 0.6, 0.5)},
    "a method with quite a long name": {0: evaluation(0.7, 0.7, 0.7)},
}
LONG = "a method with quite a long name"


def outcomes(*pairs):
    return compare_family(METHODS, pairs, ["dice"])


def test_a_row_says_difference_interval_seeds_and_p():
    grid = comparison_grid(outcomes(("CCDC", "nnU-Net")))
    cells = dict(zip(grid.header, grid.rows[0], strict=True))
    assert cells["comparison"].text == "CCDC − nnU-Net"
    assert cells["patients"].text == "3"
    assert (cells["difference"].text, cells["difference"].note) == ("+15.00", "points, +15.00 to +15.00")
    assert (cells["by seed"].text, cells["by seed"].note) == ("+10.00, +20.00", "SD 7.07")
    assert cells["95 %, patients and seeds"].text == "+10.00 to +20.00"
    assert cells["r"].text == "+1.00"


def test_without_several_seeds_there_are_no_columns_about_them():
    grid = comparison_grid(
        compare_family({"a": {0: evaluation(1)}, "b": {0: evaluation(0)}}, [("a", "b")], ["dice"])
    )
    assert grid.header == ("comparison", "metric", "patients", "difference", "p", "p, Holm", "r")
    assert {len(row) for row in grid.rows} == {7}


def test_methods_without_a_seed_in_common_are_said_to_have_none():
    ours, theirs = evaluation(1, 1), evaluation(0, 0)
    methods = {"a": {0: ours, 1: ours}, "b": {5: theirs, 6: theirs}}
    grid = comparison_grid(compare_family(methods | {"c": methods["a"]}, [("a", "b"), ("a", "c")], ["dice"]))
    place = grid.header.index("95 %, patients and seeds")
    assert [row[place].text for row in grid.rows] == ["no seed in common", "+0.00 to +0.00"]


def test_one_patient_has_no_interval_over_seeds():
    methods = {name: {0: evaluation(value), 1: evaluation(value)} for name, value in (("a", 1), ("b", 0))}
    grid = comparison_grid(compare_family(methods, [("a", "b")], ["dice"]))
    cells = dict(zip(grid.header, grid.rows[0], strict=True))
    assert cells["95 %, patients and seeds"].text == "no interval below two patients"
    assert cells["difference"].note == "points, no interval below two patients"


def test_one_seed_is_said_to_compare_networks():
    assert ONE_SEED_NOTE not in comparison_grid(outcomes(("CCDC", "nnU-Net"))).note
    assert ONE_SEED_NOTE in comparison_grid(outcomes(("CCDC", LONG), ("CCDC", "nnU-Net"))).note


def test_long_names_are_numbers_that_the_note_explains():
    found = outcomes(("CCDC", LONG))
    grid = comparison_grid(found)
    assert grid.rows[0][0].text == "[1] − [2]"
    assert grid.note.endswith(f"[1]: CCDC. [2]: {LONG}.")
    assert comparison_grid(found, abbreviate=False).rows[0][0].text == f"CCDC − {LONG}"


def test_scans_as_patients_are_never_without_their_warning():
    grid = of_scans(comparison_grid(outcomes(("CCDC", "nnU-Net"))))
    assert (grid.header[2], grid.header[4]) == ("scans", "95 %, scans and seeds")
    assert grid.note.startswith(CASE_NOTE)


def test_the_record_is_json_with_each_patient():
    ranks = rank_frequencies(METHODS, "dice")
    record = json.loads(json.dumps(comparison_record(outcomes(("CCDC", "nnU-Net")), [ranks], {"x": 1})))
    (comparison,) = record["comparisons"]
    assert comparison["comparison"]["n"] == 3
    assert list(comparison["comparison"]["differences"]) == ["p0", "p1", "p2"]
    assert record["ranks"][0]["frequencies"]["CCDC"][0] == 1.0
    assert record["runs"] == {"x": 1}


def test_ranks_are_shares_in_percent():
    grid = rank_grid(rank_frequencies({name: METHODS[name] for name in ("CCDC", "nnU-Net")}, "dice"))
    assert "3 patients and 2 seeds" in grid.title
    assert to_markdown(grid).splitlines()[2:] == ["| CCDC | 100.0 | 0.0 |", "| nnU-Net | 0.0 | 100.0 |"]
