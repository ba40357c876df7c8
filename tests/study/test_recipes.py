"""The lists of the protocol of recipes are read, and each training that they declare can begin."""

from pathlib import Path

import pytest

from ccdcseg.experiments.experiment import Row, load_experiment
from ccdcseg.methods import METHODS
from ccdcseg.nnunet.preset import load_preset

RECIPES = Path(__file__).parents[2] / "study" / "recipes"
LISTS = {path.stem: load_experiment(str(path)) for path in sorted(RECIPES.glob("*.yaml"))}
ROWS = [(name, row) for name, experiment in LISTS.items() for row in experiment.rows]


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{name}-{row.name}" for name, row in ROWS])
def test_a_training_has_settings_and_its_term_acts(name: str, row: Row) -> None:
    _, preset = load_preset(LISTS[name].preset(row, "cpu"), row.changes)
    section = getattr(preset, METHODS[row.method].section, None)
    assert getattr(section, "start_iteration", 0) < preset.training.steps


def test_the_trainings_are_within_the_limits() -> None:
    rows = {
        name: len(experiment.rows) * len(experiment.fractions) * len(experiment.seeds)
        for name, experiment in LISTS.items()
    }
    assert set(rows) == {"ceiling", "chaos", "curve", "hour", "printed", "ten_minutes"}
    assert rows["ceiling"] + rows["chaos"] + rows["printed"] + rows["ten_minutes"] <= 40
    assert rows["curve"] + rows["hour"] <= 24
