from typing import Any

import oracle
import pytest
import torch
from batches import repeatable, seeded
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.losses.ccdc.queries import draw_queries, easy_thresholds, hard_share, is_easy, query_counts
from ccdcseg.losses.ccdc.settings import CCDCSettings, Shortage
from ccdcseg.losses.parts.selection import ClassQueries

FILLS: dict[str, oracle.Fill] = {
    "fill": "without_replacement_fill",
    "replace": "with_replacement",
    "short": "short",
}
shares = st.floats(0, 1)
sizes = st.integers(0, 40)
wanted = st.integers(1, 50)


def drawn(easy: int, hard: int, confidence: float, **settings: Any) -> ClassQueries:
    """Queries among so many easy pixels, with the numbers 100, 101, ..., and hard ones, 200, 201, ..."""
    of = CCDCSettings(**settings)
    return draw_queries(range(100, 100 + easy), range(200, 200 + hard), confidence, 0.0, of, seeded())


def test_the_threshold_of_the_papers_example() -> None:
    found = easy_thresholds(torch.tensor([0.3, 1.0]), CCDCSettings()).tolist()
    assert found == pytest.approx([0.7, 0])
    assert found == pytest.approx([oracle.threshold(0.3), oracle.threshold(1.0)])


def test_without_adaptive_threshold_every_class_has_the_same() -> None:
    settings = CCDCSettings(threshold="fixed", fixed_threshold=0.4)
    assert easy_thresholds(torch.tensor([0.1, 0.9]), settings).tolist() == pytest.approx([0.4, 0.4])


@pytest.mark.parametrize(
    ("strategy", "share"),
    [("dynamic", 0.3), ("fixed", 0.5), ("easy", 0.0), ("hard", 1.0), ("easy_to_hard", 0.8)],
)
def test_the_hard_share_of_every_strategy(strategy: oracle.QueryStrategy, share: float) -> None:
    settings = CCDCSettings(query_strategy=strategy)
    assert hard_share(0.3, 0.8, settings) == share == oracle.hard_share(strategy, 0.3, 0.8)


def test_the_fixed_hard_share_is_a_setting() -> None:
    settings = CCDCSettings(query_strategy="fixed", fixed_hard_share=0.25)
    assert hard_share(0.9, 0.0, settings) == 0.25


@pytest.mark.parametrize(
    ("share", "counts"), [(0.3, (7, 3)), (0.0, (10, 0)), (1.0, (0, 10)), (0.25, (7, 3)), (0.45, (5, 5))]
)
def test_hard_queries_are_the_rounded_share(share: float, counts: tuple[int, int]) -> None:
    for shortage in Shortage:
        assert query_counts(share, 50, 50, CCDCSettings(queries=10, shortage=shortage)) == counts


@pytest.mark.parametrize(
    ("shortage", "easy", "hard", "counts"),
    [
        ("fill", 3, 50, (3, 7)),
        ("fill", 50, 1, (9, 1)),
        ("fill", 2, 3, (2, 3)),
        ("short", 3, 50, (3, 4)),
        ("short", 50, 1, (6, 1)),
        ("replace", 3, 1, (6, 4)),
        ("replace", 0, 1, (0, 10)),
        ("replace", 1, 0, (10, 0)),
        ("replace", 0, 0, (0, 0)),
    ],
)
def test_a_shortage_of_either_kind(shortage: str, easy: int, hard: int, counts: tuple[int, int]) -> None:
    assert query_counts(0.4, easy, hard, CCDCSettings(queries=10, shortage=shortage)) == counts


@given(shares, wanted, sizes, sizes, st.sampled_from(Shortage))
@repeatable
def test_counts_are_the_oracles(share: float, queries: int, easy: int, hard: int, shortage: Shortage) -> None:
    settings = CCDCSettings(queries=queries, shortage=shortage)
    expected = oracle.query_counts(share, queries, easy, hard, FILLS[shortage])
    assert query_counts(share, easy, hard, settings) == expected


@given(shares, wanted, sizes, sizes)
@repeatable
def test_fill_draws_as_many_as_there_are(share: float, queries: int, easy: int, hard: int) -> None:
    n_easy, n_hard = query_counts(share, easy, hard, CCDCSettings(queries=queries))
    assert n_easy + n_hard == min(queries, easy + hard)
    assert 0 <= n_easy <= easy
    assert 0 <= n_hard <= hard


@given(wanted, sizes, sizes, st.sampled_from(Shortage))
@repeatable
def test_the_strategies_of_one_kind_never_turn_to_the_other(
    queries: int, easy: int, hard: int, shortage: Shortage
) -> None:
    limit = (lambda n: queries if n else 0) if shortage is Shortage.REPLACE else (lambda n: min(queries, n))
    only_easy = CCDCSettings(queries=queries, query_strategy="easy", shortage=shortage)
    only_hard = CCDCSettings(queries=queries, query_strategy="hard", shortage=shortage)
    assert query_counts(0.0, easy, hard, only_easy) == (limit(easy), 0)
    assert query_counts(1.0, easy, hard, only_hard) == (0, limit(hard))


@pytest.mark.parametrize("shortage", Shortage)
def test_queries_come_from_their_own_subset(shortage: Shortage) -> None:
    queries = drawn(70, 80, 0.4, queries=50, shortage=shortage)
    assert len(queries.easy) == 30
    assert len(queries.hard) == 20
    assert set(queries.easy.tolist()) <= set(range(100, 170))
    assert set(queries.hard.tolist()) <= set(range(200, 280))
    assert (queries.easy_available, queries.hard_available, queries.hard_share) == (70, 80, 0.4)
    assert queries.pixels.tolist() == queries.easy.tolist() + queries.hard.tolist()


@pytest.mark.parametrize(("shortage", "repeats"), [("fill", False), ("short", False), ("replace", True)])
def test_only_replacement_repeats_a_pixel(shortage: str, repeats: bool) -> None:
    queries = drawn(4, 5, 0.5, queries=40, shortage=shortage)
    assert (len(queries.pixels) > len(set(queries.pixels.tolist()))) is repeats
    assert len(queries.pixels) == (40 if repeats else 9)


@pytest.mark.parametrize("shortage", Shortage)
def test_no_pixel_gives_no_query(shortage: Shortage) -> None:
    queries = drawn(0, 0, 0.0, shortage=shortage)
    assert len(queries.pixels) == queries.easy_available == queries.hard_available == 0


def test_a_seed_repeats_the_queries() -> None:
    assert torch.equal(drawn(70, 80, 0.4, queries=9).pixels, drawn(70, 80, 0.4, queries=9).pixels)


def test_easy_pixels_are_surer_than_the_threshold_of_their_class() -> None:
    own, thresholds = torch.tensor([0.3, 0.7, 0.71]), torch.tensor([0.7, 0.2])
    assert is_easy(own, thresholds).tolist() == [[False, False, True], [True, True, True]]
