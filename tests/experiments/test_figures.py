from pathlib import Path

import pytest

from ccdcseg.errors import UserError
from ccdcseg.experiments.experiment import load_experiment
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


def test_no_figure_where_none_is_declared_or_nothing_is_measured(measured, tmp_path: Path):
    assert draw(load_experiment("table1"), measured, tmp_path / "a").files == []
    assert draw(load_experiment("figure6"), {}, tmp_path / "a").files == []
    assert list(tmp_path.iterdir()) == []


def test_cases_of_trainings_that_are_not_here_say_so(job, result, tmp_path: Path):
    experiment = load_experiment("figure7")
    measured = measured_rows(experiment, {job("ccdc"): result(RV=0.5)})
    with pytest.raises(UserError, match="no prediction of"):
        draw(experiment, measured, tmp_path / "figure7")
