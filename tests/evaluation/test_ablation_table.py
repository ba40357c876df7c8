"""A setting is compared with the mean of nnU-Net's trainings of its own seed and number of steps."""

import runpy
from pathlib import Path

import pytest

TABLE = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "ablation_table.py"))


def evaluation(*dice):
    rows = [
        {"case": f"p{i}_1", "patient": f"p{i}", "class": "RV", "dice": value} for i, value in enumerate(dice)
    ]
    return {"classes": ["RV"], "cases": rows}


def test_nnunets_of_one_seed_and_length_are_averaged():
    runs = {
        ("nnunet", 10): {0: evaluation(0.5, 0.7), 1: evaluation(0.1, 0.1)},
        ("nnunet_again", 10): {0: evaluation(0.7, 0.9)},
        ("weight_0", 10): {2: evaluation(0.2, 0.4)},
        ("nnunet_4x", 40): {0: evaluation(0.8, 0.8)},
        ("literal", 10): {0: evaluation(0.0, 0.0)},
    }
    weights = {"literal": 1, "weight_0": 0}
    records = {
        key: {
            "method": "ccdc" if key[0] in weights else "nnunet",
            "settings": {"ccdc": {"weight": weights.get(key[0])}},
        }
        for key in runs
    }
    means = TABLE["nnunet_means"](runs, records)
    assert set(means) == {10, 40}
    assert [row["dice"] for row in means[10][0]["cases"]] == pytest.approx([0.6, 0.8])
    assert [row["dice"] for row in means[10][1]["cases"]] == [0.1, 0.1]
    assert [row["dice"] for row in means[10][2]["cases"]] == [0.2, 0.4]
    assert [row["dice"] for row in means[40][0]["cases"]] == [0.8, 0.8]
    mean, middle, without, *each = TABLE["differences"](runs["literal", 10], {0: means[10][0]})
    assert mean.startswith("-70.00 [")
    assert middle == "-70.00"
    assert without == "-60.00 (p1)"
    assert each == ["-70.00"]


def test_the_patient_who_differs_most_is_left_out_whatever_the_sign():
    assert TABLE["without_one"]({"a": 0.01, "b": -0.2, "c": 0.03}) == "+2.00 (b)"
    assert TABLE["without_one"]({"a": 0.01}) == ""


def test_evaluations_of_other_cases_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        TABLE["averaged"]([evaluation(0.1, 0.2), evaluation(0.1)])
