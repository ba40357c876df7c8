import json

import pytest

from ccdcseg.experiments.comparison import declared_family
from ccdcseg.experiments.experiment import load_experiment
from ccdcseg.experiments.measured import measured_rows
from ccdcseg.statistics.compare import holm


@pytest.fixture
def family(job, result):
    def make(name: str, **dice: float):
        experiment = load_experiment(name)
        results = {
            job(row): result(patients=8, less=0.01 * (1 + len(row)), RV=value) for row, value in dice.items()
        }
        return declared_family(experiment, measured_rows(experiment, results))

    return make


def test_the_declared_row_is_compared_with_every_other_in_one_family(family):
    found = family("table1", ccdc=0.9, nnunet=0.8, gdl=0.7)
    pairs = [(o.first, o.second, o.metric) for o in found.outcomes]
    assert pairs == [
        ("CCDC", other, metric) for metric in ("dice", "hd95_pooled_mm") for other in ("nnU-Net", "GDL")
    ]
    assert [o.p_adjusted for o in found.outcomes] == holm([o.comparison.p_value for o in found.outcomes])
    assert [ranks.metric for _, ranks in found.ranks] == ["dice", "hd95_pooled_mm"]
    assert found.grids()[0].title == "Paired comparisons"
    assert len(found.grids()) == 3
    assert len(json.loads(json.dumps(found.record))["comparisons"]) == 4


def test_two_rows_have_no_ranks(family):
    assert family("table6", dynamic=0.9, nnunet=0.8).ranks == ()


@pytest.mark.parametrize("rows", [{"nnunet": 0.8, "random": 0.7}, {"dynamic": 0.8}])
def test_without_the_declared_row_or_without_others_there_is_none(family, rows):
    assert family("table6", **rows) is None


def test_fractions_are_compared_apart_and_named(job, result):
    experiment = load_experiment("figure6")
    results = {
        job(row, fraction): result(patients=5, RV=value + fraction)
        for fraction in (0.05, 0.4)
        for row, value in (("nnunet", 0.5), ("ccdc", 0.55), ("nnformer", 0.45))
    }
    found = declared_family(experiment, measured_rows(experiment, results))
    assert [(o.first, o.second) for o in found.outcomes] == [
        (f"CCDC, {percent} %", f"{other}, {percent} %")
        for percent in (5, 40)
        for other in ("nnU-Net", "nnFormer")
    ]
    assert [grid.title[:12] for grid in found.grids()[1:]] == ["5 % labelled", "40 % labelle"]
