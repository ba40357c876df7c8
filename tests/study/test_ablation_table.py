"""A setting is compared with nnU-Net's trainings of its own seed, number of steps, precision and processor."""

from pathlib import Path

import pytest
import scored

import ablation_table
from ccdcseg.runs.record import RunRecord

CHAOS = Path(__file__).parents[2] / "study" / "data" / "chaos"


def evaluation(*dice):
    return scored.evaluation(scored.scores(f"p{i}_1", f"p{i}", "RV", value) for i, value in enumerate(dice))


def training(evaluation, first_loss=0.5, method="nnunet", weight=1.0, precision="bfloat16"):
    changes = {"method": method, "settings": {"ccdc": {"weight": weight}}, "precision": precision}
    record = RunRecord.model_validate(scored.record(**changes))
    return ablation_table.Training(record, evaluation, first_loss)


def dice(settings, name, steps=10):
    found = ablation_table.nnunet_of(settings, (name, steps))
    return {seed: [row.dice for row in evaluation.cases] for seed, evaluation in found.items()}


RUNS = {
    ("nnunet", 10): {0: training(evaluation(0.5, 0.7)), 1: training(evaluation(0.1, 0.1))},
    ("nnunet_again", 10): {0: training(evaluation(0.7, 0.9), 0.4)},
    ("weight_0", 10): {2: training(evaluation(0.2, 0.4), method="ccdc", weight=0.0)},
    ("nnunet_float32", 10): {
        0: training(evaluation(0.0, 0.1), 0.3, precision="float32"),
        3: training(evaluation(0.0, 0.1), 0.3, precision="float32"),
    },
    ("nnunet_4x", 40): {0: training(evaluation(0.8, 0.8))},
    ("literal", 10): {seed: training(evaluation(0.0, 0.0), 0.9, "ccdc") for seed in range(4)},
    ("half_time", 10): {0: training(evaluation(0.0, 0.0), 0.4, "ccdc")},
    ("literal", 40): {0: training(evaluation(0.0, 0.0), 0.9, "ccdc")},
}


def test_nnunets_of_one_seed_and_length_are_averaged():
    found = dice(RUNS, "literal")
    assert found[0] == pytest.approx([0.6, 0.8])
    assert found[1] == [0.1, 0.1]
    assert found[2] == [0.2, 0.4]
    assert set(found) == {0, 1, 2}
    assert dice(RUNS, "literal", 40) == {0: [0.8, 0.8]}
    ours, theirs = (
        {0: RUNS["literal", 10][0].evaluation},
        {0: ablation_table.nnunet_of(RUNS, ("literal", 10))[0]},
    )
    mean, middle, without, *each = ablation_table.differences(ours, theirs)
    assert mean.startswith("-70.00 [")
    assert middle == "-70.00"
    assert without == "-60.00 (p1)"
    assert each == ["-70.00"]


def test_a_run_that_begins_as_one_nnunet_is_compared_with_that_one():
    assert dice(RUNS, "half_time") == {0: [0.7, 0.9]}


def test_another_precision_is_no_baseline():
    assert 3 not in dice(RUNS, "literal")
    in_float32 = {0: training(evaluation(0.0, 0.0), 0.9, "ccdc", precision="float32")}
    assert dice({**RUNS, ("float32", 10): in_float32}, "float32") == {0: [0.0, 0.1]}
    unknown = {3: training(evaluation(0.0, 0.0), 0.9, "ccdc", precision=None)}
    assert dice({**RUNS, ("unknown", 10): unknown}, "unknown") == {3: [0.0, 0.1]}


def test_the_patient_who_differs_most_is_left_out_whatever_the_sign():
    assert ablation_table.without_one({"a": 0.01, "b": -0.2, "c": 0.03}) == "+2.00 (b)"
    assert ablation_table.without_one({"a": 0.01}) == ""


def test_evaluations_of_other_cases_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        ablation_table.averaged([evaluation(0.1, 0.2), evaluation(0.1)])


def test_runs_of_a_setting_count_as_those_of_another():
    places = [CHAOS / "half_resolution_seed1", CHAOS / "nnunet_seed0"]
    assert {key: list(found) for key, found in ablation_table.load(places, {"nnunet": "plain"}).items()} == {
        ("half_resolution", 2400): [1],
        ("plain", 2400): [0],
    }
