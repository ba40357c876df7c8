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

from ccdcseg.losses.parts.draw import at_most, with_replacement, without_replacement

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
    drawn = without_replacement(range(size), count, seeded(size))
    assert drawn.dtype == torch.int64
    assert len(drawn) == count == len(set(drawn.tolist()))
    assert all(0 <= index < size for index in drawn.tolist())


# The first two shuffle all indices, the others (fewer than a quarter wanted) strike out repeats.
@pytest.mark.parametrize(("size", "count"), [(5, 2), (6, 3), (8, 2), (12, 3), (9, 1)])
def test_without_replacement_every_subset_is_equally_likely(size: int, count: int) -> None:
    generator = seeded()
    drawn = [without_replacement(range(size), count, generator).tolist() for _ in range(DRAWS)]
    assert p_value([tuple(sorted(d)) for d in drawn], list(combinations(range(size), count))) > 0.01


@pytest.mark.parametrize(("size", "count"), [(4, 2), (8, 2)])
def test_without_replacement_comes_in_random_order(size: int, count: int) -> None:
    generator = seeded()
    drawn = [tuple(without_replacement(range(size), count, generator).tolist()) for _ in range(DRAWS)]
    assert p_value(drawn, list(permutations(range(size), count))) > 0.01


def test_with_replacement_is_uniform_and_independent() -> None:
    drawn = with_replacement(range(7), 2 * DRAWS, seeded()).view(DRAWS, 2).tolist()
    assert p_value([tuple(d) for d in drawn], [(a, b) for a in range(7) for b in range(7)]) > 0.01


def test_all_of_all_is_a_permutation() -> None:
    assert sorted(without_replacement(range(50), 50, seeded()).tolist()) == list(range(50))


def test_more_than_there_are_cannot_be_drawn_without_replacement() -> None:
    with pytest.raises(ValueError, match="cannot draw 4 different indices of 3"):
        without_replacement(range(3), 4, None)
    assert len(with_replacement(range(3), 40, None)) == 40


@pytest.mark.parametrize("draw", [with_replacement, without_replacement])
@pytest.mark.parametrize("size", [40, 4000])
def test_a_seed_repeats_a_draw(draw: Callable[..., Tensor], size: int) -> None:
    first = draw(range(size), 20, seeded(3))
    assert torch.equal(first, draw(range(size), 20, seeded(3)))
    assert not torch.equal(first, draw(range(size), 20, seeded(4)))


@pytest.mark.parametrize("draw", [with_replacement, without_replacement])
def test_without_generator_the_default_one_is_used(draw: Callable[..., Tensor]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = draw(range(4000), 20, None)
        torch.manual_seed(5)
        assert torch.equal(first, draw(range(4000), 20, None))


@pytest.mark.parametrize("draw", [with_replacement, without_replacement, at_most])
@pytest.mark.parametrize("size", [40, 4000])
def test_members_are_drawn_by_their_numbers(draw: Callable[..., Tensor], size: int) -> None:
    """Those of a set that begins at 100 are the draws of one that begins at 0, and 100 more."""
    assert torch.equal(draw(range(100, 100 + size), 20, seeded()), 100 + draw(range(size), 20, seeded()))


@pytest.mark.parametrize("limit", [None, 6, 7])
def test_a_set_within_the_limit_is_taken_whole(limit: int | None) -> None:
    generator = seeded()
    before = generator.get_state()
    assert at_most(range(40, 46), limit, generator).tolist() == [40, 41, 42, 43, 44, 45]
    assert at_most(range(40, 40), limit, generator).tolist() == []
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("limit", [1, 5, 30, 99])
def test_a_large_set_is_drawn_from_without_repetition(limit: int) -> None:
    drawn = at_most(range(200, 300), limit, seeded())
    assert len(drawn) == limit == len(set(drawn.tolist()))
    assert set(drawn.tolist()) <= set(range(200, 300))
