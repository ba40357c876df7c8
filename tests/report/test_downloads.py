import csv
from urllib.parse import unquote

import pytest

from ccdcseg.report.downloads import downloads, sort_value
from ccdcseg.tabular import Entry, Grid, to_csv, to_latex

GRID = Grid(
    "Dice, % – hd95_pooled_mm",
    ("method", "50 % & more"),
    ((Entry('A, "quoted" #1'), Entry("−1.20", 1, "n = 3")),),
    "A note.",
)


def test_the_files_are_those_of_the_table():
    found = downloads(GRID)
    assert [(file.label, file.name) for file in found] == [
        ("CSV", "dice-hd95_pooled_mm.csv"),
        ("LaTeX", "dice-hd95_pooled_mm.tex"),
    ]
    contents = [unquote(file.uri.split(",", 1)[1]) for file in found]
    assert contents == [to_csv(GRID), to_latex(GRID)]
    assert list(csv.reader(contents[0].splitlines()))[1] == ['A, "quoted" #1', "-1.20", "n = 3"]
    assert not set(found[0].uri) & set(' "#\n&')


def test_sections_have_tables_of_one_title():
    names = {downloads(GRID, section)[0].name for section in ("", "Table 1", "Table 6")}
    assert names == {f"{section}dice-hd95_pooled_mm.csv" for section in ("", "table-1-", "table-6-")}


def test_a_title_without_letters_still_names_a_file():
    assert downloads(Grid("–", ("a",), ()))[0].name == "table.csv"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("85.12", "85.12"),
        ("−2.10", "-2.10"),
        ("+1.20, +0.40", "+1.20"),
        ("3 of 20", "3"),
        ("< 0.001", "0.001"),
        ("–", ""),
        ("CCDC", "CCDC"),
        ("3D U-Net", "3D U-Net"),
        ("2.5D", "2.5D"),
        ("− of both", "- of both"),
    ],
)
def test_values_to_sort_by(text, value):
    assert sort_value(Entry(text, note="9")) == value
