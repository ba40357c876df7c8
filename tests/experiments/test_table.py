import csv
import io

import pytest
import scored

from ccdcseg.experiments.experiment import Experiment, load_experiment
from ccdcseg.experiments.measured import measured_rows
from ccdcseg.experiments.table import result_tables, table_grid, table_note, to_csv
from ccdcseg.tabular import to_latex, to_markdown


@pytest.fixture
def tables(job, result):
    results = {
        job("nnunet"): result(RV=0.8, Myo=0.8, LV=0.9),
        job("ccdc"): result(1, RV=0.7, Myo=0.9, LV=0.9),
        job("ccdc", seed=1): result(1, seed=1, RV=0.8, Myo=0.9, LV=0.9),
        job("gdl"): result(RV=0.6, Myo=0.6, LV=0.6),
    }
    experiment = load_experiment("table1")
    return result_tables(experiment, measured_rows(experiment, results))


def cells(line) -> dict:
    return {cell.class_name: cell for cell in line.cells}


def test_means_published_numbers_and_ranks(tables):
    dice, distance, voxels = tables
    lines = {line.place.row: line for line in dice.lines}
    ccdc = cells(lines["ccdc"])
    assert round(ccdc["RV"].value, 6) == 70  # patients 75 and 65, two seeds averaged
    assert (ccdc["RV"].published, ccdc["mean"].published) == (83.49, 87.45)
    assert [cells(lines[n])["RV"].rank for n in ("nnunet", "ccdc", "gdl")] == [1, 2, 0]
    assert [cells(lines[n])["LV"].rank for n in ("nnunet", "ccdc", "gdl")] == [1, 1, 2]
    assert [cells(line)["RV"].rank for line in distance.lines] == [1, 2, 0]
    assert cells(voxels.lines[0])["RV"].value == 10


def test_differences_at_each_fraction(job, result):
    dice = {("nnunet", 0.05): 0.7, ("ccdc", 0.05): 0.75, ("nnunet", 0.1): 0.8, ("ccdc", 0.1): 0.79}
    experiment = load_experiment("figure6")
    results = {job(*key): result(RV=value, Myo=value, LV=value) for key, value in dice.items()}
    tables = result_tables(experiment, measured_rows(experiment, results))
    found = {line.place: cells(line)["mean"] for line in tables[1].lines}
    assert round(found["ccdc", 0.05].value, 6) == 5
    assert round(found["ccdc", 0.1].value, 6) == -1
    assert (found["ccdc", 0.05].published, found["ccdc", 0.1].published) == (1.79, 1.84)
    grid = table_grid(tables[1])
    assert grid.title == "Dice, points, difference to nnunet"
    shown = {row[0].text: row[grid.header.index("mean")] for row in grid.rows}
    assert (shown["CCDC, 10 %"].text, shown["CCDC, 10 %"].note) == ("−1.00", "(+1.84)")


def test_the_best_is_marked_within_a_fraction(job, result):
    dice = {("nnunet", 0.05): 0.7, ("ccdc", 0.05): 0.75, ("nnunet", 0.1): 0.8, ("ccdc", 0.1): 0.79}
    experiment = load_experiment("figure6")
    measured = measured_rows(experiment, {job(*key): result(RV=value) for key, value in dice.items()})
    table, _ = result_tables(experiment, measured)
    ranks = {line.place: line.cells[0].rank for line in table.lines}
    assert ranks == {("nnunet", 0.05): 2, ("ccdc", 0.05): 1, ("nnunet", 0.1): 1, ("ccdc", 0.1): 2}


def test_a_difference_that_rounds_to_zero_has_no_minus(job, result):
    """As on the page and in comparisons."""
    results = {job("nnunet"): result(RV=0.7), job("ccdc"): result(RV=0.69996)}
    experiment = load_experiment("figure6")
    grid = table_grid(result_tables(experiment, measured_rows(experiment, results))[1])
    assert [row[1].text for row in grid.rows] == ["+0.00", "+0.00"]


def test_what_is_shown_as_zero_is_not_marked(job, result):
    dice = {"nnunet": 4e-5, "ccdc": 2e-5, "gdl": 0.0}
    results = {job(row): result(less=0.0, LV=0.9, vessel=value) for row, value in dice.items()}
    experiment = load_experiment("table1")
    table = result_tables(experiment, measured_rows(experiment, results))[0]
    assert [cells(line)["vessel"].rank for line in table.lines] == [0, 0, 0]
    assert [cells(line)["mean"].rank for line in table.lines] == [1, 2, 0]


def test_a_difference_to_a_row_that_is_not_measured_is_none(job, result):
    experiment = load_experiment("figure6")
    _, difference = result_tables(experiment, measured_rows(experiment, {job("ccdc"): result(RV=0.5)}))
    assert cells(difference.lines[0])["mean"].value is None


def test_a_difference_is_over_the_seeds_that_both_rows_have(job, result):
    """The training patients of the third seed, which the baseline lacks yet, say nothing about the method."""
    results = {
        job("nnunet"): result(RV=0.5),
        job("nnunet", seed=1): result(seed=1, RV=0.6),
        job("ccdc"): result(RV=0.5),
        job("ccdc", seed=1): result(seed=1, RV=0.7),
        job("ccdc", seed=2): result(seed=2, RV=0.1),
    }
    _, difference = result_tables(
        load_experiment("figure6"), measured_rows(load_experiment("figure6"), results)
    )
    assert round(cells(difference.lines[1])["mean"].value, 6) == 5
    del results[job("ccdc")], results[job("ccdc", seed=1)]
    _, none = result_tables(load_experiment("figure6"), measured_rows(load_experiment("figure6"), results))
    assert cells(none.lines[1])["mean"].value is None


def test_other_classes_have_no_published_numbers(job, result):
    """Nor has the mean over other classes than the paper's."""
    experiment = load_experiment("table1")
    for classes, published in (({"tumour": 0.5}, {"tumour": None}), ({"RV": 0.5}, {"RV": 83.49})):
        dice, *_ = result_tables(experiment, measured_rows(experiment, {job("ccdc"): result(**classes)}))
        found = {name: cell.published for name, cell in cells(dice.lines[0]).items()}
        assert found == {**published, "mean": None}


def test_three_forms_of_one_table(tables):
    grid = table_grid(tables[0])
    assert grid.title == "Dice, %"
    assert "published: Chen et al. 2024" in table_note(load_experiment("table1"))
    assert "| nnU-Net | **75.00** (80.90) |" in to_markdown(grid)
    assert r"nnU-Net & \textbf{75.00} (80.90) &" in to_latex(grid)
    assert grid.rows[0][4].note == "[73.33, 83.33] (85.61)"
    rows = list(csv.DictReader(io.StringIO(to_csv(tables))))
    assert len(rows) == 3 * 3 * 4
    assert (rows[0]["row"], rows[0]["class"], rows[0]["rank"], rows[0]["published"]) == (
        "nnunet",
        "RV",
        "1",
        "80.9",
    )


def test_structures_marked_where_there_is_none_are_counted(job, result):
    found = result(RV=0.8, LV=0.9)
    rows = [row.model_copy(update=scored.SPURIOUS) for row in found.evaluation.cases[:1]]
    evaluation = scored.evaluation([*rows, *found.evaluation.cases[1:]])
    experiment = load_experiment("table1")
    measured = measured_rows(experiment, {job("ccdc"): found.model_copy(update={"evaluation": evaluation})})
    tables = result_tables(experiment, measured)
    assert (table_grid(tables[0]).rows[0][-1].text, table_grid(tables[0]).rows[0][-1].note) == (
        "0",
        "1 spurious",
    )
    assert {row["spurious"] for row in csv.DictReader(io.StringIO(to_csv(tables)))} == {"1"}


def test_patients_are_those_who_have_a_value(job, result):
    """One whose structures were all missed has a Dice of 0, but no distance: the mean is not of it."""
    found = result(RV=0.8, LV=0.9, patients=3)
    rows = [row.model_copy(update=scored.MISSED) for row in found.evaluation.cases[:3]]
    missed = found.model_copy(update={"evaluation": scored.evaluation([*rows, *found.evaluation.cases[3:]])})
    metrics = [{"name": "dice"}, {"name": "hd95_pooled_mm"}, {"name": "hd95_pooled_mm", "minus": "nnunet"}]
    rows = [{"name": "nnunet", "method": "nnunet"}, {"name": "ccdc"}]
    experiment = Experiment.model_validate({"title": "mine", "metrics": metrics, "rows": rows})
    tables = result_tables(experiment, measured_rows(experiment, {job("nnunet"): found, job("ccdc"): missed}))
    shown = [[row[4].text for row in table_grid(table).rows] for table in tables]
    assert shown == [["3", "3"], ["3", "2"], ["3", "2"]]
    written = [row["patients"] for row in csv.DictReader(io.StringIO(to_csv(tables))) if row["row"] == "ccdc"]
    assert written == ["3", "3", "3", "1", "2", "2", "1", "2", "2"]


def test_nothing_measured_yet():
    experiment = Experiment.model_validate({"title": "mine", "rows": [{"name": "ccdc"}]})
    grid = table_grid(result_tables(experiment, {})[0])
    assert (grid.header, grid.rows) == (("row", "patients", "seeds", "missed"), ())
