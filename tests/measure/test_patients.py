import pytest

from ccdcseg.measure.patients import average, bootstrap_interval, describe


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
