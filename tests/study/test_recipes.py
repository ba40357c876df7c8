"""The lists of the protocol of recipes are read, and each training that they declare can begin."""

from pathlib import Path

import pytest

from ccdcseg.datasets.sides import UNMIRRORED
from ccdcseg.experiments.experiment import Row, load_experiment
from ccdcseg.methods import METHODS
from ccdcseg.nnunet.preset import load_preset, settings_hash

RECIPES = Path(__file__).parents[2] / "study" / "recipes"
LISTS = {path.stem: load_experiment(str(path)) for path in sorted(RECIPES.glob("*.yaml"))}
ROWS = [(name, row) for name, experiment in LISTS.items() for row in experiment.rows]


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{name}-{row.name}" for name, row in ROWS])
def test_a_training_has_settings_and_its_term_acts(name: str, row: Row) -> None:
    _, preset = load_preset(LISTS[name].preset(row, "cpu"), row.changes)
    section = getattr(preset, METHODS[row.method].section, None)
    assert getattr(section, "start_iteration", 0) < preset.training.steps


def trainings(*names: str) -> set[tuple[str, float, int, str, str]]:
    """Each once, though two lists have it: lists of abdomens, whose presets do not mirror, and of hearts."""
    abdomens = {"augmentation", "chaos", "context", "unlabelled_two"}
    found = set()
    for name in names:
        experiment = LISTS[name]
        for row in experiment.rows:
            changes = ([UNMIRRORED] if name in abdomens else []) + [*row.changes]
            _, preset = load_preset(experiment.preset(row, "cpu"), changes)
            for fraction in experiment.fractions:
                for seed in experiment.seeds:
                    body = "abdomen" if name in abdomens else "heart"
                    found.add((body, fraction, seed, row.method, settings_hash(preset)))
    return found


def test_the_trainings_are_within_the_limits() -> None:
    long = {"curve", "hour"}
    assert len(trainings(*LISTS.keys() - long)) <= 40
    assert len(trainings(*long)) <= 24
