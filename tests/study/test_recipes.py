"""The lists of the protocol of recipes are read, and each training that they declare can begin."""

import math
from itertools import product
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


ABDOMENS = {"augmentation", "chaos", "context", "unlabelled_two", "volumes"}
"""Lists of CHAOS, whose classes have two sides, so that its presets do not mirror."""


def trainings(name: str) -> set[tuple[bool, bool, float, int, str, str]]:
    """Of a list, those of an hour marked first; what another list has, too, is equal."""
    experiment, is_abdomen = LISTS[name], name in ABDOMENS
    found = set()
    for row, fraction, seed in product(experiment.rows, experiment.fractions, experiment.seeds):
        name_of_preset = experiment.preset(row, "cpu")
        changes = [UNMIRRORED, *row.changes] if is_abdomen else row.changes
        _, preset = load_preset(name_of_preset, changes)
        is_hour = name_of_preset == "cpu_long"
        found.add((is_hour, is_abdomen, fraction, seed, row.method, settings_hash(preset)))
    return found


def test_the_trainings_are_within_the_limits() -> None:
    hearts = {"batch", "ceiling", "curve", "hearts_two", "hour", "printed", "ten_minutes"}
    assert set(LISTS) == hearts | ABDOMENS
    declared = set.union(*map(trainings, LISTS))
    hours = sum(is_hour for is_hour, *_ in declared)
    beyond = max(0, len(declared) - hours - 40)
    assert hours + math.ceil(beyond / 3) <= 24  # three short trainings are one of an hour
