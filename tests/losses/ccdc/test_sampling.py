from typing import Any

import oracle
import pytest
import torch
from batches import Batch, logits_of, random_batch, seeded
from torch import Tensor

from ccdcseg.losses import CCDCSettings, Selection
from ccdcseg.losses.ccdc.sampling import class_sets, draw_pixels
from ccdcseg.losses.parts.class_statistics import ClassStatistics, class_statistics
from ccdcseg.losses.parts.pixel_sets import PixelSets
from ccdcseg.losses.parts.selection import located


def selected(
    logits: Tensor, target: Tensor, *, progress: float = 0.0, seed: int = 0, **settings: Any
) -> Selection:
    probabilities, labels = logits.softmax(1).flatten(2), target.flatten(1)
    statistics, of = class_statistics(probabilities, labels), CCDCSettings(**settings)
    sets = PixelSets(class_sets(probabilities, labels, statistics, of))
    drawn = draw_pixels(
        sets.numbers(list(sets.sizes.values())),
        (len(logits), *logits.shape[2:]),
        statistics.matrix.tolist(),
        sets.sizes["core"].tolist(),
        progress,
        of,
        seeded(seed),
    )
    return located(drawn, sets)


def everything(selection: Selection) -> list[Tensor]:
    queries = [q.pixels for q in selection.queries.values()]
    return [*selection.core.values(), *queries, *(n.pixels for n in selection.negatives.values())]


@pytest.fixture
def batch() -> Batch:
    return random_batch((12, 12), seed=1)


def test_core_and_queries_lie_in_their_class_and_negatives_in_others(batch: Batch) -> None:
    selection = selected(batch.logits, batch.target, queries=20, negatives=15, core_pixels=6)
    labels = batch.target.flatten()
    assert selection.shape == (2, 12, 12)
    assert selection.queries.keys() == selection.negatives.keys() == {0, 1, 2, 3}
    for c in range(4):
        assert (labels[selection.core[c]] == c).all()
        assert (labels[selection.queries[c].pixels] == c).all()
        assert len(selection.queries[c].pixels) == 20
        drawn = selection.negatives[c]
        assert torch.equal(labels[drawn.pixels[drawn.columns]], drawn.classes)
        assert len(drawn.classes) == 15
        assert c not in drawn.classes


def test_the_core_is_counted_whole_and_drawn_up_to_the_limit(batch: Batch) -> None:
    whole = selected(batch.logits, batch.target, core_pixels=None)
    limited = selected(batch.logits, batch.target, core_pixels=6)
    _, probabilities, labels = oracle.valid_pixels(batch.logits.tolist(), batch.target.tolist(), (2, 12, 12))
    for c in range(4):
        expected = oracle.core_pixels(probabilities, labels, c, 0.97)
        assert whole.core[c].tolist() == expected
        assert limited.core_available[c] == whole.core_available[c] == len(expected) > 6
        assert len(limited.core[c]) == 6
        assert set(limited.core[c].tolist()) <= set(expected)


@pytest.mark.parametrize(("threshold", "core"), [(0.49, 4), (0.5, 0), (0.51, 0)])
def test_core_pixels_lie_strictly_above_the_threshold(threshold: float, core: int) -> None:
    even = selected(torch.zeros(1, 2, 1, 6), torch.tensor([[[0, 0, 0, 0, 1, 1]]]), core_threshold=threshold)
    assert even.core_available[0] == core


# Two classes; class 0 with core, class 1 without.
HALF_SURE = torch.tensor([[0.99, 0.01], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
LABELS = torch.tensor([[[0, 0, 1, 1]]])


def test_a_class_without_core_is_no_query_class_but_gives_negatives() -> None:
    selection = selected(logits_of(HALF_SURE), LABELS)
    assert selection.queries.keys() == selection.core.keys() == {0}
    assert selection.core_available == {0: 1, 1: 0}
    assert set(selection.negatives[0].pixels.tolist()) == {2, 3}


def test_the_background_may_give_negatives_alone() -> None:
    both = selected(logits_of(HALF_SURE), LABELS, core_threshold=0.1)
    foreground = selected(logits_of(HALF_SURE), LABELS, core_threshold=0.1, background_queries=False)
    assert both.queries.keys() == {0, 1}
    assert foreground.queries.keys() == {1}
    assert set(foreground.negatives[1].pixels.tolist()) == {0, 1}
    assert foreground.core_available == both.core_available


def test_a_class_whose_every_pixel_is_excluded_is_no_query_class() -> None:
    selection = selected(logits_of(HALF_SURE), LABELS, core_threshold=0.1, core_as_queries=False)
    assert selection.core.keys() == {0, 1}
    assert not selection.queries
    assert not selection.negatives


def test_left_out_pixels_are_never_drawn(batch: Batch) -> None:
    batch.target[:, 3:7] = -1
    selection = selected(batch.logits, batch.target)
    assert all((batch.target.flatten()[pixels] >= 0).all() for pixels in everything(selection))


def test_an_absent_class_is_nowhere(batch: Batch) -> None:
    batch.target[batch.target == 2] = 1
    selection = selected(batch.logits, batch.target)
    assert selection.queries.keys() == {0, 1, 3}
    assert selection.core_available[2] == 0
    assert not any((drawn.classes == 2).any() for drawn in selection.negatives.values())


@pytest.mark.parametrize(("progress", "hard"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_progress_decides_the_share_of_easy_to_hard(batch: Batch, progress: float, hard: int) -> None:
    selection = selected(
        batch.logits,
        batch.target,
        progress=progress,
        query_strategy="easy_to_hard",
        queries=8,
        shortage="replace",
        threshold="fixed",
        fixed_threshold=0.9,
    )
    assert [len(q.hard) for q in selection.queries.values()] == [hard] * 4


def test_a_seed_repeats_the_selection(batch: Batch) -> None:
    few = {"queries": 8, "negatives": 8, "core_pixels": 8}
    first = everything(selected(batch.logits, batch.target, **few))
    again = everything(selected(batch.logits, batch.target, **few))
    other = everything(selected(batch.logits, batch.target, seed=1, **few))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("confidence", "easy"), [(0.5, [2, 3]), (0.7, [1, 2, 3]), (0.0, [])])
def test_a_pixel_on_the_threshold_is_hard(confidence: float, easy: list[int]) -> None:
    """Class 0 has the probabilities 0.25, 0.5, 0.75, 1."""
    own = torch.tensor([0.25, 0.5, 0.75, 1.0, 0.9])
    statistics = ClassStatistics(torch.tensor([[confidence, 0.1], [0.1, 0.9]]), torch.tensor([4, 1]))
    labels = torch.tensor([[0, 0, 0, 0, 1]])
    probabilities = torch.stack(
        (torch.where(labels[0] == 0, own, 1 - own), torch.where(labels[0] == 1, own, 1 - own))
    )
    sets = class_sets(probabilities[None], labels, statistics, CCDCSettings(core_threshold=0.6))
    assert sets["class"][0, 0].nonzero()[:, 0].tolist() == [0, 1, 2, 3]
    assert sets["easy"][0, 0].nonzero()[:, 0].tolist() == easy
    assert sets["hard"][0, 0].nonzero()[:, 0].tolist() == [i for i in range(4) if i not in easy]
    assert sets["core"][0, 0].nonzero()[:, 0].tolist() == [2, 3]
    without = class_sets(
        probabilities[None], labels, statistics, CCDCSettings(core_threshold=0.6, core_as_queries=False)
    )
    assert (without["easy"] | without["hard"])[0, 0].nonzero()[:, 0].tolist() == [0, 1]
