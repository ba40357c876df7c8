"""The page of results holds what the stored scores give."""

from pathlib import Path

import results

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text().splitlines()


def test_the_first_table_is_of_the_scores_of_its_patients():
    printed = list(results.unlabelled_table())
    assert len(printed) == 2 + len(results.STEPS)
    assert set(printed) <= set(PAGE)


def test_rows_of_the_second_table_are_of_the_published_runs():
    (row,) = (row for row in results.READINGS if row.places == ("chaos_t2",))
    printed = list(results.readings_table([(row, row.comparison)]))
    assert len(printed) == 2 + 1
    assert set(printed) <= set(PAGE)
    assert sum(line.startswith("| CCDC, ") for line in PAGE) == len(results.READINGS)
