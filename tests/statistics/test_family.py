import numpy as np
import pytest
import scored
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests

from ccdcseg.statistics.compare import scans_as_patients
from ccdcseg.statistics.family import compare_family, have_common, rank_frequencies


def evaluation(values, scans=1):
    """An evaluation of one class; ``values``: patient to Dice, the scans 0.01 apart."""
    return scored.evaluation(
        scored.scores(f"{patient}_{scan}", patient, "LV", value + scan / 100, hd95_pooled_mm=20 * (1 - value))
        for patient, value in values.items()
        for scan in range(scans)
    )


def drawn(seed, mean, patients=12):
    values = np.random.default_rng(seed).normal(mean, 0.05, patients)
    return {f"p{index}": float(value) for index, value in enumerate(values)}


METHODS = {
    "a": {0: evaluation(drawn(1, 0.80))},
    "b": {0: evaluation(drawn(2, 0.72))},
    "c": {0: evaluation(drawn(3, 0.77))},
}


def test_p_values_are_those_of_scipy_adjusted_as_statsmodels_does():
    outcomes = compare_family(METHODS, [("a", "b"), ("a", "c")])
    assert [(o.first, o.second, o.metric) for o in outcomes] == [
        ("a", "b", "dice"),
        ("a", "c", "dice"),
        ("a", "b", "hd95_pooled_mm"),
        ("a", "c", "hd95_pooled_mm"),
    ]
    expected = [
        wilcoxon(
            [getattr(row, metric) for row in METHODS["a"][0].cases],
            [getattr(row, metric) for row in METHODS[other][0].cases],
        ).pvalue
        for metric in ("dice", "hd95_pooled_mm")
        for other in ("b", "c")
    ]
    assert [o.comparison.p_value for o in outcomes] == pytest.approx(expected)
    adjusted = multipletests(expected, method="holm")[1]
    assert [o.p_adjusted for o in outcomes] == pytest.approx(adjusted)


def test_one_metric_is_a_smaller_family():
    both = compare_family(METHODS, [("a", "c")])
    one = compare_family(METHODS, [("a", "c")], ["dice"])
    assert one[0].p_adjusted == one[0].comparison.p_value
    assert both[0].p_adjusted > one[0].p_adjusted


def test_what_is_named_twice_is_tested_once():
    """Holm's p would be that of twice as many comparisons."""
    once = compare_family(METHODS, [("a", "b"), ("a", "c")], ["dice"])
    assert compare_family(METHODS, [("a", "b"), ("a", "c"), ("a", "b")], ["dice", "dice"]) == once
    assert once[0].p_adjusted < 1


def test_pairs_without_a_common_patient_are_left_out():
    methods = {"a": {0: evaluation({"p": 0.5})}, "b": {0: evaluation({"q": 0.5})}}
    assert not have_common(methods, ("a", "b"), "dice")
    assert compare_family(methods, [("a", "b")]) == []


def test_scans_as_units_are_as_many_and_make_p_smaller():
    methods = {
        name: {0: evaluation(drawn(seed, mean), scans=4)}
        for name, seed, mean in [("a", 1, 0.8), ("b", 2, 0.77)]
    }
    by_patient = compare_family(methods, [("a", "b")], ["dice"])[0].comparison
    apart = {name: scans_as_patients(of_seeds) for name, of_seeds in methods.items()}
    by_case = compare_family(apart, [("a", "b")], ["dice"])[0].comparison
    assert (by_patient.n, by_case.n) == (12, 48)
    assert by_case.mean_difference == pytest.approx(by_patient.mean_difference)
    values = [[row.dice for row in methods[name][0].cases] for name in "ab"]
    assert by_case.p_value == pytest.approx(wilcoxon(*values).pvalue)
    assert by_case.p_value < by_patient.p_value


def test_a_method_that_is_best_for_each_patient_is_always_first():
    base = drawn(5, 0.7)
    methods = {
        name: {0: evaluation({patient: value + step for patient, value in base.items()})}
        for name, step in [("middle", 0.01), ("last", 0.0), ("first", 0.02)]
    }
    for metric in ("dice", "hd95_pooled_mm"):
        ranks = rank_frequencies(methods, metric)
        assert ranks.frequencies == {"middle": [0, 1, 0], "last": [0, 0, 1], "first": [1, 0, 0]}
        assert (ranks.patients, ranks.seeds) == (12, 1)


def test_ranks_agree_with_a_plain_bootstrap_of_patients():
    ranks = rank_frequencies(METHODS, "dice").frequencies
    table = np.array([[row.dice for row in METHODS[name][0].cases] for name in METHODS])
    generator = np.random.default_rng(99)
    first = np.zeros(3)
    for _ in range(4000):
        first[table[:, generator.integers(12, size=12)].mean(axis=1).argmax()] += 1
    assert [shares[0] for shares in ranks.values()] == pytest.approx(list(first / 4000), abs=0.04)
    for place in range(3):
        assert sum(shares[place] for shares in ranks.values()) == pytest.approx(1)


def test_equal_methods_share_the_better_rank():
    methods = dict.fromkeys(("a", "same"), METHODS["a"])
    assert rank_frequencies(methods, "dice").frequencies == {"a": [1, 0], "same": [1, 0]}


def test_the_order_of_classes_is_no_difference():
    """The mean of the same three values in another order is another by a rounding."""
    dice = np.random.default_rng(0).random((12, 3))
    methods = {
        name: {
            0: scored.evaluation(
                scored.scores(f"p{p}", f"p{p}", "ABC"[place], float(dice[p, place]))
                for p in range(12)
                for place in order
            )
        }
        for name, order in (("a", (0, 1, 2)), ("same", (2, 1, 0)))
    }
    values = [seeds[0].values("dice") for seeds in methods.values()]
    assert values[0] != values[1] == pytest.approx(values[0])
    assert rank_frequencies(methods, "dice").frequencies == {"a": [1, 0], "same": [1, 0]}


def test_seeds_that_all_have_are_drawn_too_and_make_ranks_less_sure():
    good, bad = ({"a": drawn(seed, 0.8), "b": drawn(seed, 0.8)} for seed in (1, 2))
    ours = {0: evaluation(good["a"]), 1: evaluation(bad["a"])}
    up = {patient: value + 0.02 for patient, value in good["b"].items()}
    down = {patient: value - 0.01 for patient, value in bad["b"].items()}
    ranks = rank_frequencies({"a": ours, "b": {0: evaluation(up), 1: evaluation(down)}}, "dice")
    assert ranks.seeds == 2
    assert ranks.frequencies["b"][0] == pytest.approx(0.75, abs=0.05)


def test_patients_that_not_all_were_tested_on_do_not_count():
    methods = METHODS | {"d": {0: evaluation({f"p{index}": 0.5 for index in range(4)})}}
    assert rank_frequencies(methods, "dice").patients == 4


@pytest.mark.parametrize(
    "methods", [{}, {"a": METHODS["a"]}, {"a": METHODS["a"], "d": {0: evaluation({"x": 1})}}]
)
def test_nothing_to_rank(methods):
    assert rank_frequencies(methods, "dice") is None
