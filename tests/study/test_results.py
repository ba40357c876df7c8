"""The page of results holds what the stored scores give."""

from pathlib import Path

import pytest

import next_scans
import results

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "results.md").read_text().splitlines()


def test_the_first_table_is_of_the_scores_of_its_patients():
    printed = list(results.unlabelled_table())
    assert len(printed) == 2 + len(results.STEPS)
    assert set(printed) <= set(PAGE)


def test_the_table_of_scans_is_of_the_scores_of_its_patients():
    printed = list(results.scans_table())
    assert len(printed) == 2 + len(results.SCANS)
    assert set(printed) <= set((DOCS / "scans.md").read_text().splitlines())


def test_the_table_of_the_ceiling_is_of_the_published_runs():
    printed = list(results.ceiling_table())
    assert len(printed) == 2 + len(results.CEILING)
    assert set(printed) <= set((DOCS / "unlabelled.md").read_text().splitlines())


def test_the_table_of_draws_is_of_the_scores_of_its_patients():
    printed = list(results.draws_table())
    assert len(printed) == 2 + len(results.DRAWS) + 1
    assert set(printed) <= set((DOCS / "scans.md").read_text().splitlines())


@pytest.mark.parametrize(
    "table",
    [
        results.levels_table,
        results.sides_table,
        results.sides_by_organ,
        results.hearts_table,
        results.two_hearts_table,
        results.five_hearts_table,
        results.strong_table,
        results.strong_by_organ,
        results.confirmed_table,
        results.target_table,
        results.context_table,
        results.volumes_table,
        results.more_table,
        results.ccdc_table,
        results.more_target_table,
    ],
)
def test_the_tables_of_two_annotated_patients_are_of_the_published_runs(table):
    printed = list(table())
    assert len(printed) > 3
    assert set(printed) <= set((DOCS / "two.md").read_text().splitlines())


def test_the_spread_over_patients_is_of_the_published_runs():
    page = " ".join((DOCS / "two.md").read_text().split())
    assert f"{results.spread(results.SIDES)} points without mirroring" in page
    assert f"{results.spread(results.STRONG)} by stronger augmentation" in page


def test_what_two_hearts_gain_by_less_is_of_the_published_runs():
    *_, everyone = results.thirty_degrees_table()
    gain = everyone.strip("| ").rpartition(" | ")[2]
    assert f"seeds 0 and 1 gained {gain}: a heart" in " ".join((DOCS / "two.md").read_text().split())


def test_what_two_patients_come_to_is_the_mean_over_the_draws():
    page = (DOCS / "scans.md").read_text()
    assert all(f"| {cell} |" in page for cell in results.of_two_patients())


def test_the_table_of_ways_to_choose_scans_is_of_the_scores_of_its_patients():
    printed = list(results.next_table())
    assert len(printed) == 2 + len(next_scans.WAYS)
    assert set(printed) <= set((DOCS / "next.md").read_text().splitlines())


@pytest.mark.parametrize(
    ("table", "rows"),
    [(results.printed_table, results.PRINTED), (results.shares_table, results.PRINTED_ARMS)],
)
def test_the_tables_of_the_printed_form_are_of_the_published_runs(table, rows):
    printed = list(table())
    assert len(printed) == 2 + len(rows)
    assert set(printed) <= set((DOCS / "method.md").read_text().splitlines())


def test_p_of_rows_that_were_declared_together_are_adjusted_over_both_metrics():
    """Two rows of equal differences, on six patients of whom all gain: the least p that there is is 1/32."""
    plain = {f"p{number}": (50.0, 9.0) for number in range(6)}
    better = {name: (dice + 1 + number, mm) for number, (name, (dice, mm)) in enumerate(plain.items())}
    scores = {("a", "x"): plain, ("b", "x"): better}
    steps = [("plain", ("a", "x"), 0), ("one", ("b", "x"), 1), ("two", ("b", "x"), 1)]
    alone, together = (
        [row.split("p ")[1][:5] for row in list(results.steps_table(steps, scores, arms))[3:]]
        for arms in ((), (2, 3))
    )
    assert alone == ["0.031", "0.031"]
    assert together == ["0.125", "0.125"]


def test_a_table_is_of_the_patients_that_all_of_its_rows_have():
    scores = {("a", "x"): {"p": (50.0, 1.0), "q": (70.0, 3.0)}, ("b", "x"): {"q": (72.0, 2.0)}}
    rows = list(results.steps_table([("one", ("a", "x"), 0), ("two", ("b", "x"), 1)], scores))
    assert [row.split(" | ")[2][:4] for row in rows[2:]] == ["70.0", "72.0"]
    assert "1: +2.0" in rows[3]


def test_rows_of_the_second_table_are_of_the_published_runs():
    (row,) = (row for row in results.READINGS if row.places == ("chaos_t2",))
    printed = list(results.readings_table([(row, row.comparison)]))
    assert len(printed) == 2 + 1
    assert set(printed) <= set(PAGE)
    assert sum(line.startswith("| CCDC, ") for line in PAGE) == len(results.READINGS)
