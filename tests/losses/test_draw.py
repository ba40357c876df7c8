from collections import Counter
from collections.abc import Callable
from itertools import combinations, permutations

import pytest
import torch
from batches import repeatable, seeded
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from ccdcseg.losses.draw import with_replacement, without_replacement

CPU = torch.device("cpu")
DRAWS = 6000


def p_value(outcomes: list[tuple[int, ...]], possible: list[tuple[int, ...]]) -> float:
    """Of a chi-square test that all possible outcomes are equally likely."""
    counts = Counter(outcomes)
    assert counts.keys() <= set(possible)
    return float(chisquare([counts[outcome] for outcome in possible]).pvalue)


@given(st.integers(0, 300), st.data())
@repeatable
def test_without_replacement_draws_different_indices(size: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, size))
    drawn = without_replacement(size, count, seeded(size), CPU)
    assert drawn.dtype == torch.int64
    assert len(drawn) == count == len(set(drawn.tolist()))
    assert all(0 <= index < size for index in drawn.tolist())


# The first two shuffle all indices, the others (fewer than a quarter wanted) strike out repeats.
@pytest.mark.parametrize(("size", "count"), [(5, 2), (6, 3), (8, 2), (12, 3), (9, 1)])
def test_without_replacement_every_subset_is_equally_likely(size: int, count: int) -> None:
    generator = seeded()
    drawn = [without_replacement(size, count, generator, CPU).tolist() for _ in range(DRAWS)]
    assert p_value([tuple(sorted(d)) for d in drawn], list(combinations(range(size), count))) > 0.01


@pytest.mark.parametrize(("size", "count"), [(4, 2), (8, 2)])
def test_without_replacement_comes_in_random_order(size: int, count: int) -> None:
    generator = seeded()
    drawn = [tuple(without_replacement(size, count, generator, CPU).tolist()) for _ in range(DRAWS)]
    assert p_value(drawn, list(permutations(range(size), count))) > 0.01


def test_with_replacement_is_uniform_and_independent() -> None:
    drawn = with_replacement(7, 2 * DRAWS, seeded(), CPU).view(DRAWS, 2).tolist()
    assert p_value([tuple(d) for d in drawn], [(a, b) for a in range(7) for b in range(7)]) > 0.01


def test_all_of_all_is_a_permutation() -> None:
    assert sorted(without_replacement(50, 50, seeded(), CPU).tolist()) == list(range(50))


def test_more_than_there_are_cannot_be_drawn_without_replacement() -> None:
    with pytest.raises(ValueError, match="cannot draw 4 different indices of 3"):
        without_replacement(3, 4, None, CPU)
    assert len(with_replacement(3, 40, None, CPU)) == 40


@pytest.mark.parametrize("draw", [with_replacement, without_replacement])
@pytest.mark.parametrize("size", [40, 4000])
def test_a_seed_repeats_a_draw(draw: Callable[..., Tensor], size: int) -> None:
    first = draw(size, 20, seeded(3), CPU)
    assert torch.equal(first, draw(size, 20, seeded(3), CPU))
    assert not torch.equal(first, draw(size, 20, seeded(4), CPU))


@pytest.mark.parametrize("draw", [with_replacement, without_replacement])
def test_without_generator_the_default_one_is_used(draw: Callable[..., Tensor]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = draw(4000, 20, None, CPU)
        torch.manual_seed(5)
        assert torch.equal(first, draw(4000, 20, None, CPU))
