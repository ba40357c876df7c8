import oracle
import pytest
import torch
from batches import repeatable, seeded
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from ccdcseg.losses.ccdc.negatives import draw_negatives, largest_remainder, negative_weights
from ccdcseg.losses.ccdc.settings import NegativeStrategy

PIXELS = [range(40), range(40, 45), range(0), range(99, 100)]
weight_lists = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), min_size=1, max_size=8)


def test_the_papers_example() -> None:
    assert largest_remainder([0.6, 0.25, 0.15], 256) == [154, 64, 38]


@pytest.mark.parametrize(
    ("weights", "total", "counts"),
    [
        ([1, 1, 1], 256, [86, 85, 85]),  # equal remainders: the first class first
        ([0, 3, 1], 2, [0, 2, 0]),  # 1.5 and 0.5
        ([0, 0], 5, [0, 0]),
        ([2.0], 7, [7]),
        ([0.1, 0.2, 0.7], 10, [1, 2, 7]),
    ],
)
def test_division_by_largest_remainder(weights: list[float], total: int, counts: list[int]) -> None:
    assert largest_remainder(weights, total) == counts


@given(weight_lists, st.integers(0, 1000))
@repeatable
def test_the_counts_sum_up_and_lie_within_one_of_the_quota(weights: list[float], total: int) -> None:
    counts = largest_remainder(weights, total)
    whole = sum(weights)
    assert sum(counts) == (total if whole else 0)
    for weight, count in zip(weights, counts, strict=True):
        assert abs(count - (weight * total / whole if whole else 0)) < 1 + 1e-9
        assert count == 0 or weight > 0


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=6), st.integers(1, 300))
@repeatable
def test_the_counts_are_the_oracles(weights: list[float], total: int) -> None:
    assert largest_remainder(weights, total) == oracle.negative_counts(weights, total)


@pytest.mark.parametrize(
    ("strategy", "weights"),
    [
        (NegativeStrategy.DYNAMIC, [0.2, 0.0, 0.1, 0.0]),
        (NegativeStrategy.UNIFORM, [1.0, 0.0, 1.0, 0.0]),
        (NegativeStrategy.RANDOM, [30.0, 0.0, 5.0, 0.0]),
    ],
)
def test_neither_the_class_itself_nor_an_absent_one_gives_negatives(
    strategy: NegativeStrategy, weights: list[float]
) -> None:
    confusion, counts = [0.2, 0.6, 0.1, 0.1], [30, 10, 5, 0]
    assert negative_weights(strategy, confusion, counts, 1) == weights
    expected = oracle.negative_weights(strategy.value, 1, [None, confusion, None, None], counts)
    assert weights == [0.0 if weight is None else weight for weight in expected]


def test_without_any_confusion_the_others_count_the_same() -> None:
    assert negative_weights(NegativeStrategy.DYNAMIC, [0, 1, 0], [4, 9, 1], 1) == [1.0, 0.0, 1.0]


def test_a_class_alone_has_no_negatives() -> None:
    for strategy in NegativeStrategy:
        weights = negative_weights(strategy, [0.3, 0.7, 0.0], [0, 5, 0], 1)
        assert largest_remainder(weights, 256) == [0, 0, 0]


def owner(pixel: int) -> int:
    return next(c for c, pixels in enumerate(PIXELS) if pixel in pixels)


def test_negatives_are_as_many_of_each_class_as_wanted() -> None:
    drawn = draw_negatives(PIXELS, [6, 9, 0, 2], seeded())
    assert drawn.classes.tolist() == [0] * 6 + [1] * 9 + [3] * 2
    assert [owner(pixel) for pixel in drawn.pixels.tolist()] == drawn.classes.tolist()


def test_negatives_are_uniform_within_their_class() -> None:
    drawn = draw_negatives(PIXELS, [20_000, 0, 0, 0], seeded())
    assert chisquare(drawn.pixels.bincount(minlength=40)).pvalue > 0.01


def test_no_other_class_gives_no_negatives() -> None:
    drawn = draw_negatives(PIXELS, [0, 0, 0, 0], seeded())
    assert len(drawn.pixels) == len(drawn.classes) == 0


def test_a_seed_repeats_the_negatives() -> None:
    one, again, other = (draw_negatives(PIXELS, [9, 9, 0, 0], seeded(seed)).pixels for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
