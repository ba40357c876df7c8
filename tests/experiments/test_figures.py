from pathlib import Path

import pytest
import scored

from ccdcseg.errors import UserError
from ccdcseg.experiments.experiment import Experiment, load_experiment
from ccdcseg.experiments.figures import draw
from ccdcseg.experiments.measured import measured_rows


@pytest.fixture
def measured(job, result):
    dice = {("nnunet", 0.05): 0.6, ("nnunet", 0.1): 0.7, ("ccdc", 0.05): 0.65, ("ccdc", 0.1): 0.72}
    return measured_rows(
        load_experiment("figure6"), {job(*key): result(RV=value) for key, value in dice.items()}
    )


def test_a_line_for_each_row_over_the_fractions(measured, tmp_path: Path):
    drawn = draw(load_experiment("figure6"), measured, tmp_path / "figure6")
    assert [key.label for key in drawn.keys] == ["nnU-Net", "CCDC"]
    assert [panel.title for panel in drawn.panels] == ["Dice"]
    assert "nnU-Net: 55.0 at 5 %, 65.0 at 10 %; CCDC: 60.0 at 5 %, 67.0 at 10 %." in drawn.panels[0].figure
    assert [path.name for path in drawn.files] == ["figure6.svg", "figure6.pdf"]
    assert all(path.is_file() for path in drawn.files)


def test_the_legend_has_a_method_that_missed_everything(job, result, tmp_path: Path):
    """It has no distance, in the first panel, but a Dice in the second."""
    metrics = [{"name": "hd95_pooled_mm"}, {"name": "dice"}]
    rows = [{"name": "ccdc"}, {"name": "nnunet", "method": "nnunet"}]
    experiment = Experiment.model_validate(
        {"title": "mine", "figure": "fractions", "metrics": metrics, "rows": rows}
    )
    missed = [scored.scores(f"p{p}", f"p{p}", "RV", 0.0, status="missed") for p in range(2)]
    results = {
        job("ccdc"): result(RV=0.5).model_copy(update={"evaluation": scored.evaluation(missed)}),
        job("nnunet"): result(RV=0.7),
    }
    drawn = draw(experiment, measured_rows(experiment, results), tmp_path / "mine")
    assert [key.label for key in drawn.keys] == ["CCDC", "nnU-Net"]
    assert ["CCDC" in panel.figure for panel in drawn.panels] == [False, True]


def test_no_figure_where_none_is_declared_or_nothing_is_measured(measured, tmp_path: Path):
    assert draw(load_experiment("table1"), measured, tmp_path / "a").files == []
    assert draw(load_experiment("figure6"), {}, tmp_path / "a").files == []
    assert list(tmp_path.iterdir()) == []


def test_cases_of_trainings_that_are_not_here_say_so(job, result, tmp_path: Path):
    experiment = load_experiment("figure7")
    measured = measured_rows(experiment, {job("ccdc"): result(RV=0.5)})
    with pytest.raises(UserError, match="no prediction of"):
        draw(experiment, measured, tmp_path / "figure7")
