import csv
import io
from pathlib import Path

from ccdcseg.experiments.experiment import Experiment, load_experiment
from ccdcseg.experiments.jobs import Job
from ccdcseg.experiments.table import result_tables, to_csv, to_latex, to_markdown


def job(row: str, fraction: float = 0.1, seed: int = 0) -> Job:
    return Job(row, fraction, seed, "test", 1, Path("run"), Path(f"{row}{fraction}{seed}"), ())


def result(missed: int = 0, **dice: float) -> dict:
    """Two patients; the second is 0.1 worse. Distances are 10 times the error."""
    cases = [
        {
            "case": f"{p}_ED", "patient": p, "class": name, "dice": value - less, "status": "ok",
            "hd95_pooled_mm": 10 * (1 - value + less), "hd95_pooled_vox": None, "diagonal_mm": 100.0,
        }
        for p, less in (("p1", 0.0), ("p2", 0.1))
        for name, value in dice.items()
    ]  # fmt: skip
    return {"evaluation": {"classes": list(dice), "cases": cases, "summary": {"mean": {"n_missing": missed}}}}


RESULTS = {
    job("nnunet"): result(RV=0.8, Myo=0.8, LV=0.9),
    job("ccdc"): result(2, RV=0.7, Myo=0.9, LV=0.9),
    job("ccdc", seed=1): result(1, RV=0.8, Myo=0.9, LV=0.9),
    job("gdl"): result(RV=0.6, Myo=0.6, LV=0.6),
}


def cells(line) -> dict:
    return {cell.class_name: cell for cell in line.cells}


def test_means_published_numbers_and_ranks():
    dice, distance, voxels = result_tables(load_experiment("table1"), RESULTS)
    lines = {line.row: line for line in dice.lines}
    ccdc = cells(lines["ccdc"])
    assert round(ccdc["RV"].value, 6) == 70  # patients 75 and 65, two seeds averaged
    assert (ccdc["RV"].published, ccdc["mean"].published) == (83.49, 87.45)
    assert [cells(lines[n])["RV"].rank for n in ("nnunet", "ccdc", "gdl")] == [1, 2, 0]
    assert [cells(lines[n])["LV"].rank for n in ("nnunet", "ccdc", "gdl")] == [1, 1, 2]
    assert (lines["ccdc"].patients, lines["ccdc"].seeds, lines["ccdc"].missed) == (2, 2, 3)
    assert [cells(line)["RV"].rank for line in distance.lines] == [1, 2, 0]
    assert cells(voxels.lines[0])["RV"].value is None


def test_differences_at_each_fraction():
    dice = {("nnunet", 0.05): 0.7, ("ccdc", 0.05): 0.75, ("nnunet", 0.1): 0.8, ("ccdc", 0.1): 0.79}
    results = {job(*key): result(RV=value) for key, value in dice.items()}
    _, difference = result_tables(load_experiment("figure6"), results)
    found = {(line.row, line.fraction): cells(line)["mean"] for line in difference.lines}
    assert round(found["ccdc", 0.05].value, 6) == 5
    assert round(found["ccdc", 0.1].value, 6) == -1
    assert (found["ccdc", 0.05].published, found["ccdc", 0.1].published) == (1.79, 1.84)


def test_other_classes_have_no_published_numbers():
    dice, *_ = result_tables(load_experiment("table1"), {job("ccdc"): result(tumour=0.5)})
    assert cells(dice.lines[0])["tumour"].published is None


def test_three_forms_of_one_table():
    experiment = load_experiment("table1")
    tables = result_tables(experiment, RESULTS)
    markdown = to_markdown(experiment, tables, "Data set 27.")
    assert "| nnU-Net | **75.00** (80.90) |" in markdown
    assert "published: Chen et al. 2024" in markdown
    latex = to_latex(experiment, tables, "Data set 27.")
    assert r"nnU-Net & \textbf{75.00} (80.90) &" in latex
    rows = list(csv.DictReader(io.StringIO(to_csv(tables))))
    assert len(rows) == 3 * 3 * 4
    assert (rows[0]["row"], rows[0]["class"], rows[0]["rank"], rows[0]["published"]) == (
        "nnunet",
        "RV",
        "1",
        "80.9",
    )


def test_nothing_measured_yet():
    experiment = Experiment.model_validate({"title": "mine", "rows": [{"name": "ccdc"}]})
    assert "| row | patients | seeds | missed |" in to_markdown(experiment, result_tables(experiment, {}), "")
