import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ccdcseg.errors import UserError
from ccdcseg.experiments.experiment import load_experiment
from ccdcseg.experiments.jobs import Choice
from ccdcseg.experiments.outputs import check_outputs, write_outputs, write_page
from ccdcseg.files import write_json
from ccdcseg.statistics import family_table

CHOICE = Choice("Dataset027_ACDC", part="validation")


@pytest.fixture
def finished(job, result, tmp_path: Path):
    """A finished job with its result in the store."""

    def make(row: str, **dice: float):
        made = replace(job(row), folder=tmp_path / row)
        made.folder.mkdir()
        write_json(made.result, result(patients=6, **dice).content)
        return made

    return make


@pytest.fixture
def outputs(finished, job, tmp_path: Path):
    jobs = [finished("nnunet", RV=0.8, Myo=0.8), finished("ccdc", RV=0.9, Myo=0.8), job("reco")]
    return write_outputs(load_experiment("table1"), CHOICE, jobs, tmp_path / "out" / "table1")


def test_every_file_is_written_and_named(outputs, tmp_path: Path):
    names = ["table1.md", "table1.csv", "table1.tex", "table1_comparison.csv", "table1_comparison.json"]
    assert outputs.files == [tmp_path / "out" / name for name in names]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)


def test_markdown_has_tables_published_numbers_comparisons_and_notes(outputs):
    text = outputs.files[0].read_text()
    assert text.startswith(
        "# Table 1, methods on ACDC (cine cardiac MRI)\n\nData set Dataset027_ACDC, preset cpu, validation "
    )
    assert "| CCDC | **65.00** (83.49) |" in text
    assert "| CCDC − nnU-Net | Dice | 6 | +5.00 points, +5.00 to +5.00 |" in text
    assert "ReCo" not in text
    assert text.count("Wilcoxon") == text.count("In brackets, published") == 1


def test_latex_is_balanced(outputs):
    text = outputs.files[2].read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 4
    assert r"CCDC & \textbf{65.00} (83.49) &" in text
    for line in text.splitlines():
        assert line.startswith("%") or "%" not in line.replace(r"\%", "")


def test_numbers_and_differences_for_programs(outputs):
    rows = list(csv.DictReader(io.StringIO(outputs.files[1].read_text())))
    assert {row["row"] for row in rows} == {"nnunet", "ccdc"}
    record = json.loads(outputs.files[4].read_text())
    assert len(record["comparisons"][0]["comparison"]["differences"]) == 6


def test_a_figure_that_cannot_be_drawn_stops_nothing_and_is_said(finished, tmp_path: Path):
    jobs = [finished("nnunet", RV=0.8), finished("ccdc", RV=0.9)]
    outputs = write_outputs(load_experiment("figure7"), CHOICE, jobs, tmp_path / "figure7")
    assert "There is no figure" in outputs.problem
    assert outputs.problem in outputs.section.text
    assert outputs.files[0].is_file()


def test_what_is_of_other_tables_does_not_stay_beside(outputs, finished, tmp_path: Path, caplog):
    stem = tmp_path / "out" / "table1"
    (stem.parent / "table1.pdf").touch()  # the user's, as from table1.tex
    again = write_outputs(load_experiment("table1"), CHOICE, [finished("topk", RV=0.8)], stem)
    assert {path.suffix for path in again.files} == {".md", ".csv", ".tex"}
    kept = {"table1_comparison.stale.csv", "table1_comparison.stale.json", "table1.pdf"}
    assert {path.name for path in stem.parent.iterdir()} == kept | {path.name for path in again.files}
    assert "is kept as table1_comparison.stale.csv" in caplog.text


def test_a_figure_and_a_page_of_before_do_not_stay_beside(finished, tmp_path: Path):
    for name in ("figure7.png", "figure7.pdf", "report.html"):
        (tmp_path / name).touch()
    jobs = [finished("nnunet", RV=0.8), finished("ccdc", RV=0.9)]
    outputs = write_outputs(load_experiment("figure7"), CHOICE, jobs, tmp_path / "figure7")
    assert write_page([outputs], jobs, "validation", tmp_path, lambda done, total: None) is None
    assert {path.name for path in tmp_path.glob("*.stale.*")} == {
        "figure7.stale.png",
        "figure7.stale.pdf",
        "report.stale.html",
    }


def test_the_part_of_the_page(outputs):
    section = outputs.section
    assert section.title == "Table 1, methods on ACDC (cine cardiac MRI)"
    assert [grid.title for grid in section.grids] == [
        "Dice, %",
        "hd95_pooled_mm, mm",
        "hd95_pooled_vox, voxels",
        "Paired comparisons",
    ]


def test_names_are_whole_on_the_page_whose_tables_can_be_downloaded(outputs, monkeypatch):
    monkeypatch.setattr(family_table, "LONGEST_NAME", 1)
    compared = outputs.section.grids[-1]
    assert [row[0].text for row in compared.rows[:1]] == ["CCDC − nnU-Net"]
    assert outputs._grids(abbreviate=True)[-1].rows[0][0].text == "[1] − [2]"


def test_no_page_where_nothing_is_finished(outputs, job, tmp_path: Path):
    assert write_page([outputs], [job("ccdc")], "validation", tmp_path, lambda done, total: None) is None
    assert not (tmp_path / "report.html").exists()


def test_outputs_of_before_may_be_replaced(outputs, tmp_path: Path):
    check_outputs(load_experiment("table1"), CHOICE, tmp_path / "out" / "table1")


def test_outputs_that_name_the_data_set_by_its_id_may_be_replaced(finished, tmp_path: Path):
    """As those of before do."""
    jobs, stem = [finished("nnunet", RV=0.8), finished("ccdc", RV=0.9)], tmp_path / "table1"
    write_outputs(load_experiment("table1"), replace(CHOICE, dataset="27"), jobs, stem)
    check_outputs(load_experiment("table1"), CHOICE, stem)


@pytest.mark.parametrize("ending", [".md", ".csv", ".tex", "_comparison.csv", "_comparison.json"])
def test_files_of_others_may_not_be_replaced(outputs, tmp_path: Path, ending: str):
    mine = tmp_path / "out" / f"table1{ending}"
    mine.write_text("my own words")
    with pytest.raises(UserError, match=f"{mine} would be replaced"):
        check_outputs(load_experiment("table1"), CHOICE, tmp_path / "out" / "table1")


@pytest.mark.parametrize("name", ["figure7.png", "figure7.pdf", "report.html"])
def test_a_figure_or_page_that_no_table_belongs_to_may_not_be_replaced(tmp_path: Path, name: str):
    (tmp_path / name).write_text("my own words")
    with pytest.raises(UserError, match=f"{name} would be replaced"):
        check_outputs(load_experiment("figure7"), CHOICE, tmp_path / "figure7")


def test_a_figure_beside_its_tables_may_be_replaced(finished, tmp_path: Path):
    jobs = [finished("nnunet", RV=0.8), finished("ccdc", RV=0.9)]
    write_outputs(load_experiment("figure7"), CHOICE, jobs, tmp_path / "figure7")
    (tmp_path / "figure7.png").touch()
    check_outputs(load_experiment("figure7"), CHOICE, tmp_path / "figure7")


@pytest.mark.parametrize("other", [{"dataset": "Dataset028_ACDC"}, {"part": "test"}, {"preset": "paper"}, {}])
def test_outputs_of_another_experiment_may_not_be_replaced(outputs, tmp_path: Path, other):
    experiment = load_experiment("table1" if other else "table6")
    with pytest.raises(UserError, match=r"table1.md would be replaced"):
        check_outputs(experiment, replace(CHOICE, **other), tmp_path / "out" / "table1")
