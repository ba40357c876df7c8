import itertools

import numpy as np
import pytest
import scored
from hypothesis import given, settings
from hypothesis import strategies as st

from ccdcseg.errors import UserError
from ccdcseg.statistics.compare import (
    compare,
    hierarchical_interval,
    holm,
    patient_differences,
    rank_biserial,
    wilcoxon_p,
)
from ccdcseg.statistics.family import rank_frequencies


def evaluation(values):
    """An evaluation with one class and two scans a patient, 0.02 apart."""
    return scored.evaluation(
        scored.scores(f"{patient}{step}", patient, "LV", value + step)
        for patient, value in values.items()
        for step in (-0.01, 0.01)
    )


OURS = evaluation({"A": 0.9, "B": 0.8, "C": 0.7, "D": 0.95})
THEIRS = evaluation({"A": 0.8, "B": 0.6, "C": 0.8, "E": 0.1})


def test_differences_are_of_patients_tested_with_both():
    result = compare({0: OURS}, {0: THEIRS}, "dice")
    assert result.differences == pytest.approx({"A": 0.1, "B": 0.2, "C": -0.1})
    assert result.n == 3
    assert result.mean_difference == pytest.approx(0.2 / 3)
    assert result.interval[0] <= result.mean_difference <= result.interval[1]


def test_one_seed_has_no_spread():
    result = compare({0: OURS}, {0: THEIRS}, "dice")
    assert result.per_seed == pytest.approx({0: 0.2 / 3})
    assert (result.seed_sd, result.interval_seeds) == (None, None)


def test_one_patient_has_no_interval_whatever_the_seeds():
    one = {seed: evaluation({"A": 0.9 + seed / 100}) for seed in (0, 1)}
    result = compare(one, {0: THEIRS, 1: THEIRS}, "dice")
    assert (result.n, result.interval, result.interval_seeds) == (1, None, None)
    assert len(result.per_seed) == 2


@pytest.mark.parametrize("other", [scored.evaluation([scored.scores("A0", "A", "RV", 0.5)]), THEIRS])
def test_what_is_not_known_is_named(other):
    for class_name in ("RV", "Lv"):
        with pytest.raises(UserError, match=f"no class {class_name} in an evaluation. Choose among LV, mean"):
            compare({0: OURS}, {0: other}, "dice", class_name)
    with pytest.raises(UserError, match=r"no metric hd95\. Choose among dice, hd95_pooled_mm"):
        compare({0: OURS}, {0: other}, "hd95")
    with pytest.raises(UserError, match="no metric dsc"):
        OURS.values("dsc")


def test_seeds_are_averaged_within_a_patient():
    ours = {0: evaluation({"A": 0.9, "B": 0.8}), 1: evaluation({"A": 0.7, "B": 0.8})}
    theirs = {0: evaluation({"A": 0.5, "B": 0.5}), 1: evaluation({"A": 0.5, "B": 0.5})}
    result = compare(ours, theirs, "dice", "LV")
    assert result.differences == pytest.approx({"A": 0.3, "B": 0.3})
    assert result.per_seed == pytest.approx({0: 0.35, 1: 0.25})
    assert result.seed_sd == pytest.approx(0.1 / 2**0.5)
    low, high = result.interval_seeds
    assert low < 0.3 < high


def test_seeds_that_only_one_method_has_do_not_count():
    """Such a seed draws other patients to train on, which says nothing about the method."""
    worse = evaluation({"A": 0.5, "B": 0.4, "C": 0.3, "D": 0.5})
    result = compare({0: OURS, 7: worse}, {0: THEIRS}, "dice")
    assert result == compare({0: OURS}, {0: THEIRS}, "dice")
    assert compare({0: OURS, 1: OURS, 7: worse}, {0: OURS, 1: OURS}, "dice").p_value == 1


def test_noise_of_the_last_digits_is_no_difference():
    """The same three values in another order have another sum, by a rounding."""
    values = [0.1, 0.2, 0.3]
    ours, theirs = (
        {seed: evaluation(dict.fromkeys("ABCDEF", value)) for seed, value in enumerate(order)}
        for order in (values, values[::-1])
    )
    result = compare(ours, theirs, "dice")
    assert (result.p_value, result.rank_biserial) == (1, 0)
    assert set(result.differences.values()) == {0}


def test_a_patient_counts_with_the_seeds_that_both_tested_it_with():
    ours = {0: evaluation({"A": 0.9, "B": 0.9}), 1: evaluation({"A": 0.3})}
    theirs = {0: evaluation({"A": 0.9, "B": 0.8}), 1: evaluation({"B": 0.2})}
    assert compare(ours, theirs, "dice").differences == pytest.approx({"A": 0, "B": 0.1})


@pytest.mark.parametrize("other", [{1: THEIRS}, {0: evaluation({"E": 0.1}), 1: THEIRS}])
def test_methods_without_a_seed_in_common_are_averaged_first(other):
    result = compare({0: OURS}, other, "dice")
    assert result.differences == pytest.approx({"A": 0.1, "B": 0.2, "C": -0.1})
    assert (result.per_seed, result.interval_seeds) == ({}, None)


def test_seeds_with_other_test_patients_count_where_tested():
    ours = {0: evaluation({"A": 0.9}), 1: evaluation({"B": 0.8})}
    theirs = {0: evaluation({"A": 0.8}), 1: evaluation({"B": 0.6})}
    result = compare(ours, theirs, "dice")
    assert result.differences == pytest.approx({"A": 0.1, "B": 0.2})


def test_who_misses_hard_structures_does_not_win_in_distance():
    """The first is 1 mm worse wherever it finds something, and misses the structure that is far off in all."""

    def distances(missed, offset):
        return scored.evaluation(
            scored.scores(patient, patient, name, 0.0, status="missed")
            if patient in missed and name == "RV"
            else scored.scores(patient, patient, name, 0.8, hd95_pooled_mm=far + offset + place / 100)
            for place, patient in enumerate("ABCDEFGH")
            for name, far in (("RV", 20), ("LV", 2))
        )

    ours, theirs = distances("ABCD", 1), distances("", 0)
    for first, second in (({0: ours}, {0: theirs}), ({0: ours}, {1: theirs})):
        result = compare(first, second, "hd95_pooled_mm")
        assert list(result.differences.values()) == pytest.approx([1.0] * 8)
        assert compare(first, second, "dice").mean_difference == pytest.approx(-0.2)
    assert compare({0: ours}, {0: theirs}, "hd95_pooled_mm", "RV").n == 4
    frequencies = rank_frequencies({"ours": {0: ours}, "theirs": {0: theirs}}, "hd95_pooled_mm").frequencies
    assert frequencies == {"ours": [0, 1], "theirs": [1, 0]}


def healthy(marked, patients="EFGH"):
    """Four patients with what is looked for and ``patients`` without it, of whom ``marked`` are said to have it."""
    found = [scored.scores(patient, patient, "LV", 0.9) for patient in "ABCD"]
    status = {patient: scored.SPURIOUS if patient in marked else scored.ABSENT for patient in patients}
    return scored.evaluation(found + [scored.scores(p, p, "LV", **fields) for p, fields in status.items()])


def test_who_marks_nothing_where_there_is_nothing_has_a_dice_of_1_where_the_other_marks_it():
    for other in ({0: healthy("")}, {1: healthy("")}):
        result = compare({0: healthy("EFG")}, other, "dice")
        assert result.differences == dict.fromkeys("ABCD", 0) | dict.fromkeys("EFG", -1)
        assert compare({0: healthy("EFG")}, other, "hd95_pooled_mm").n == 4
    assert compare({0: healthy("E")}, {0: healthy("E")}, "dice").differences == dict.fromkeys("ABCDE", 0)
    ranks = rank_frequencies({"sure": {0: healthy("")}, "wild": {0: healthy("EFGH")}}, "dice")
    assert (ranks.frequencies["sure"][0], ranks.patients) == (1, 8)


def test_a_seed_that_marks_nothing_agrees_with_what_is_not_there():
    """Marked with one of five seeds is better than with four."""
    ours, theirs = ({seed: healthy("EFGH" * (seed < count)) for seed in range(5)} for count in (1, 4))
    result = compare(ours, theirs, "dice")
    assert result.differences == pytest.approx(dict.fromkeys("ABCD", 0) | dict.fromkeys("EFGH", 0.6))
    assert result.per_seed == {0: 0, 1: 0.5, 2: 0.5, 3: 0.5, 4: 0}


def test_structures_that_only_one_was_measured_on_do_not_count():
    def measured(classes, phases):
        return scored.evaluation(
            scored.scores(patient + phase, patient, name, 0.9 - 0.1 * (name == "RV") - 0.2 * (phase == "ES"))
            for patient in "ABC"
            for phase in phases
            for name in classes
        )

    whole = measured(["LV", "RV"], ["ED", "ES"])
    for other in (measured(["LV"], ["ED", "ES"]), measured(["LV", "RV"], ["ED"])):
        for first, second in (({0: whole}, {0: other}), ({0: other}, {1: whole})):
            assert compare(first, second, "dice").differences == dict.fromkeys("ABC", 0)
            assert patient_differences(first, second, "dice") == dict.fromkeys("ABC", 0)
    assert rank_frequencies({"a": {0: whole}, "b": {0: other}}, "dice").frequencies == {
        "a": [1, 0],
        "b": [1, 0],
    }


def test_no_common_patient_is_refused():
    with pytest.raises(UserError, match="No patient has dice with both"):
        compare({0: evaluation({"A": 0.9})}, {0: evaluation({"B": 0.9})}, "dice")
    assert patient_differences({0: evaluation({"A": 0.9})}, {0: evaluation({"B": 0.9})}, "dice") == {}


def test_a_method_against_itself_shows_nothing():
    result = compare({0: OURS}, {0: OURS}, "dice")
    assert (result.mean_difference, result.p_value, result.rank_biserial) == (0, 1, 0)


def exact_p(differences):
    """Two-sided signed-rank p by listing all signs; for distinct absolute values."""
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    observed = abs(np.sum(np.sign(differences) * ranks))
    sums = [abs(np.dot(signs, ranks)) for signs in itertools.product((-1, 1), repeat=len(ranks))]
    return np.mean([total >= observed for total in sums])


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=9, unique=True), st.randoms(use_true_random=False)
)
@settings(deadline=None, max_examples=40)
def test_wilcoxon_is_exact_for_few_patients(sizes, random):
    differences = [size * random.choice((-1.0, 1.0)) for size in sizes]
    assert wilcoxon_p(differences) == pytest.approx(exact_p(differences))


@pytest.mark.parametrize("differences", [[0.0] * 5, [0.1, 0.1, -0.1, 0.0], [0.2], [0.1] * 60, [0.5, -0.5]])
def test_wilcoxon_takes_ties_and_zeros_without_a_warning(differences):
    assert 0 < wilcoxon_p(differences) <= 1


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([1, 2, 3], 1), ([-1, -2, -3], -1), ([1, -2, 3], (1 + 3 - 2) / 6), ([0, 5], 1), ([0, 0], 0)],
)
def test_rank_biserial_by_hand(differences, expected):
    assert rank_biserial(differences) == pytest.approx(expected)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_keeps_the_order_and_lies_between_raw_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for raw, value in zip(p_values, adjusted, strict=True):
        assert raw <= value <= min(1, raw * len(p_values)) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_the_interval_over_seeds_is_wider_where_seeds_disagree():
    agree = [dict.fromkeys("ABCD", 0.1), dict.fromkeys("ABCD", 0.1)]
    disagree = [dict.fromkeys("ABCD", 0.3), dict.fromkeys("ABCD", -0.1)]
    assert hierarchical_interval(agree) == pytest.approx([0.1, 0.1])
    assert hierarchical_interval(disagree) == pytest.approx([-0.1, 0.3])
    assert hierarchical_interval(agree[:1]) is None
