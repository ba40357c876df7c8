import pytest

from ccdcseg.evaluation.patients import (
    WITH_MISSES,
    average,
    bootstrap_interval,
    describe,
    patient_values,
    score,
)


def row(patient, name, dice, distance=None, status="ok"):
    return {
        "patient": patient,
        "class": name,
        "status": status,
        "dice": dice,
        "hd95_pooled_mm": distance,
        "diagonal_mm": 300.0,
    }


ROWS = [
    row("A", "RV", 0.8, 2.0),
    row("A", "RV", 0.6, 4.0),
    row("A", "LV", 0.9, 1.0),
    row("A", "LV", 0.9, 1.0),
    row("B", "RV", 0.0, None, "missed"),
    row("B", "LV", 0.5, 7.0),
    row("C", "RV", None, None, "absent"),
]


def test_scans_are_averaged_within_a_patient():
    assert patient_values(ROWS, ["RV", "LV"], "dice", "RV") == pytest.approx({"A": 0.7, "B": 0.0})


def test_the_mean_is_over_classes_then_patients():
    assert patient_values(ROWS, ["RV", "LV"], "dice") == pytest.approx({"A": 0.8, "B": 0.25})


def test_undefined_distances_are_left_out():
    assert patient_values(ROWS, ["RV", "LV"], "hd95_pooled_mm") == pytest.approx({"A": 2.0, "B": 7.0})


def test_a_missed_structure_costs_the_diagonal():
    values = patient_values(ROWS, ["RV", "LV"], WITH_MISSES, "RV")
    assert values == pytest.approx({"A": 3.0, "B": 300.0})
    assert score(row("D", "RV", 0.0, None, "spurious"), WITH_MISSES) is None


def test_average_over_seeds_takes_the_seeds_a_patient_was_tested_with():
    assert average([{"A": 1.0, "B": 3.0}, {"B": 5.0}]) == {"A": 1.0, "B": 4.0}


def test_describe_of_nothing_is_nothing():
    assert describe({}) == {"value": None, "n_patients": 0, "interval": None}


def test_the_interval_is_repeatable_holds_the_mean_and_narrows_with_patients():
    few, many = [0.1, 0.5, 0.9, 0.7] * 2, [0.1, 0.5, 0.9, 0.7] * 20
    low, high = bootstrap_interval(few)
    assert bootstrap_interval(few) == [low, high]
    assert 0.1 < low < 0.55 < high < 0.9
    narrow = bootstrap_interval(many)
    assert narrow[1] - narrow[0] < (high - low) / 2


def test_the_interval_matches_the_normal_approximation():
    values = [float(value) for value in range(100)]
    half_width = 1.96 * 28.87 / 10
    assert bootstrap_interval(values) == pytest.approx([49.5 - half_width, 49.5 + half_width], abs=0.6)


def test_one_patient_has_no_interval():
    assert bootstrap_interval([0.5]) is None
