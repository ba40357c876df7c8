from pathlib import Path

import pytest

from ccdcseg.errors import UserError
from ccdcseg.experiments.experiment import Published, experiment_names, load_experiment
from ccdcseg.experiments.published import published_structure, published_values


@pytest.mark.parametrize("name", [name for name in experiment_names() if name != "figure7"])
def test_every_row_that_claims_published_numbers_has_them(name: str):
    experiment = load_experiment(name)
    published = experiment.published
    values = published_values(published)
    for row in experiment.rows:
        for metric in experiment.metrics:
            if row.published and metric.published:
                for fraction in experiment.fractions:
                    variant = row.published.replace("{percent}", f"{100 * fraction:g}")
                    assert (variant, metric.published, "mean") in values
    used = {row.published for row in experiment.rows}
    if len(experiment.fractions) == 1:
        assert used == {variant for variant, _, _ in values}
        assert {*published.structures.values(), "mean"} == {structure for _, _, structure in values}


def test_printed_means_are_those_of_the_classes():
    for number in range(1, 9):
        values = published_values(load_experiment(f"table{number}").published)
        for (variant, metric, structure), value in values.items():
            if structure == "mean":
                classes = [
                    v for (a, b, c), v in values.items() if (a, b) == (variant, metric) and c != "mean"
                ]
                assert value == pytest.approx(sum(classes) / len(classes), abs=0.025)


def test_known_numbers():
    published = load_experiment("table3").published
    assert published_values(published)["CCDC", "DSC", "RK"] == 62.43
    organs = ["liver", "spleen", "left_kidney", "right_kidney"]
    assert published_structure(published, "right_kidney", organs) == "RK"
    assert published_structure(published, "pancreas", organs) is None


def test_a_mean_is_that_of_the_same_classes_alone():
    published = Published(source="", table="A", structures={"RV": "RV", "LV": "LV"})
    for classes, there in (
        (["LV", "RV"], "mean"),
        (["RV"], None),
        (["RV", "LV", "Myo"], None),
        (["tumour"], None),
    ):
        assert published_structure(published, "mean", classes) == there
    unnamed = published.model_copy(update={"structures": {}})
    assert published_structure(unnamed, "mean", ["tumour"]) == "mean"


def test_a_file_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.csv"
    path.write_text("table,dataset,method,variant,metric,structure,value\nA,Mine,UNet,,DSC,mean,80\n")
    assert published_values(Published(source="", table="A", structures={}, file=str(path))) == {
        ("UNet", "DSC", "mean"): 80
    }
    with pytest.raises(UserError, match="no table B"):
        published_values(Published(source="", table="B", structures={}, file=str(path)))
    path.write_text("a,b\n")
    with pytest.raises(UserError, match="other columns"):
        published_values(Published(source="", table="A", structures={}, file=str(path)))


def test_a_file_as_excel_saves_it(tmp_path: Path):
    path = tmp_path / "doe.csv"
    path.write_text("table,dataset,method,variant,metric,structure,value\nA,,x,,DSC,mean,80\n", "utf-8-sig")
    published = Published(source="Doe", table="A", structures={}, file=str(path))
    assert published_values(published) == {("x", "DSC", "mean"): 80.0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["A,,x,,DSC,mean,91,57"], "row A,,x,,DSC,mean,91,57 has 8 cells, not 7"),
        (["A,,x,,DSC,mean"], "row A,,x,,DSC,mean has 6 cells, not 7"),
        (["A,,x,,DSC,mean,nan"], "has no number as its value"),
        (["A,,x,,DSC,mean,inf"], "has no number as its value"),
        (["A,,x,,DSC,mean,"], "row A,,x,,DSC,mean, has no number"),
        (["A,Liver,x,,DSC,mean,91", "A,Spleen,x,,DSC,mean,55"], "table A has two values of x, DSC, mean"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, rows: list[str], message: str):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["table,dataset,method,variant,metric,structure,value", *rows]))
    with pytest.raises(UserError, match=message):
        published_values(Published(source="", table="A", structures={}, file=str(path)))


def test_rows_that_stand_twice_are_one(tmp_path: Path):
    path = tmp_path / "mine.csv"
    row = "A,,x,,DSC,mean,91"
    path.write_text("\n".join(["table,dataset,method,variant,metric,structure,value", row, row]))
    published = Published(source="", table="A", structures={}, file=str(path))
    assert published_values(published) == {("x", "DSC", "mean"): 91}
