import math

import oracle
import pytest
import torch
import torch.nn.functional as F
from batches import seeded
from torch import Tensor

from ccdcseg.losses.contrast import query_losses, reduce_queries, supervised_losses
from ccdcseg.losses.settings import Denominator, QueryReduction

CLASSES = torch.tensor([0, 0, 0, 2, 2, 5])


def units(count: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, 4, dtype=torch.float64, generator=seeded(seed)), dim=1)


@pytest.mark.parametrize("denominator", Denominator)
@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
def test_losses_are_the_oracles(denominator: Denominator, temperature: float) -> None:
    queries, core, negatives = units(7, 0), units(1, 1)[0], units(6, 2)
    got = query_losses(queries @ core, queries @ negatives.T, CLASSES, temperature, denominator)
    by_class = {c: negatives[c == CLASSES].tolist() for c in (0, 2, 5)}
    for query, loss in zip(queries.tolist(), got.tolist(), strict=True):
        expected = oracle.query_loss(query, core.tolist(), by_class, temperature, denominator.value)
        assert loss == pytest.approx(expected, rel=1e-12)


def test_a_number_by_hand() -> None:
    # exp(1) against two negatives with exp(0) and exp(-1), temperature 1.
    loss = query_losses(torch.ones(1), torch.tensor([[0.0, -1.0]]), CLASSES[:2], 1.0, Denominator.PIXEL)
    assert loss.item() == pytest.approx(-math.log(math.e / (math.e + 1 + 1 / math.e)))


@pytest.mark.parametrize(("denominator", "terms"), [("pixel", 6), ("class_mean", 3)])
def test_at_an_infinite_temperature_only_the_number_of_terms_counts(denominator: str, terms: int) -> None:
    queries, negatives = units(7, 0), units(6, 2)
    losses = query_losses(queries[:, 0], queries @ negatives.T, CLASSES, 1e12, Denominator(denominator))
    torch.testing.assert_close(losses, torch.full((7,), math.log(1 + terms), dtype=torch.float64))


@pytest.mark.parametrize("denominator", Denominator)
def test_without_negatives_the_loss_is_zero(denominator: Denominator) -> None:
    positive = torch.tensor([0.3, -1.0], requires_grad=True)
    losses = query_losses(positive, torch.empty(2, 0), CLASSES[:0], 0.5, denominator)
    assert losses.tolist() == [0.0, 0.0]
    losses.sum().backward()
    assert positive.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("denominator", Denominator)
def test_a_tiny_temperature_does_not_overflow(denominator: Denominator) -> None:
    positive, negative = torch.tensor([-1.0, 1.0]), torch.ones(2, 6).neg()
    negative[0] = 1
    losses = query_losses(positive, negative, CLASSES, 1e-4, denominator)
    assert losses[0].item() == pytest.approx(2e4, rel=1e-3)
    assert losses[1].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("denominator", Denominator)
def test_the_loss_falls_towards_the_core_and_away_from_negatives(denominator: Denominator) -> None:
    positive = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    negative = torch.zeros(3, 6, dtype=torch.float64, requires_grad=True)
    query_losses(positive, negative, CLASSES, 0.5, denominator).sum().backward()
    assert (positive.grad < 0).all()
    assert (negative.grad.sum(1) > 0).all()
    assert (negative.grad >= 0).all()


def test_the_mean_counts_all_queries_and_the_hardest_only_the_farthest_from_the_core() -> None:
    losses, positive = torch.tensor([1.0, 5.0, 3.0]), torch.tensor([0.9, 0.2, -0.4])
    assert reduce_queries(losses, positive, QueryReduction.MEAN).item() == 3.0
    # The smallest similarity decides, not the largest loss.
    assert reduce_queries(losses, positive, QueryReduction.HARDEST).item() == 3.0
    assert reduce_queries(losses * 2, positive.flip(0), QueryReduction.HARDEST).item() == 2.0


def some_similarities(anchors: int = 5, keys: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    """With positives, negatives and keys that take no part for every anchor."""
    generator = seeded(seed)
    same = torch.randint(-1, 2, (anchors, keys), generator=generator)
    same[:, :3] = torch.tensor([-1, 0, 1])
    return 2 * torch.rand(anchors, keys, dtype=torch.float64, generator=generator) - 1, same


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
def test_supervised_losses_are_the_formula(seed: int, temperature: float) -> None:
    similarity, same = some_similarities(seed=seed)
    found = supervised_losses(similarity, same, temperature).tolist()
    for loss, scores, kinds in zip(found, similarity.tolist(), same.tolist(), strict=True):
        push = sum(math.exp(s / temperature) for s, kind in zip(scores, kinds, strict=True) if kind == 0)
        pulls = [math.exp(s / temperature) for s, kind in zip(scores, kinds, strict=True) if kind == 1]
        expected = sum(-math.log(pull / (pull + push)) for pull in pulls) / len(pulls)
        assert loss == pytest.approx(expected, rel=1e-9)


def test_a_supervised_loss_by_hand() -> None:
    """Positives at 1 and 0, negatives at 0 and 0, and one key that takes no part."""
    similarity = torch.tensor([[1.0, 0, 0, 0, 1]])
    loss = supervised_losses(similarity, torch.tensor([[1, 1, 0, 0, -1]]), 1.0)
    assert loss.item() == pytest.approx((math.log((math.e + 2) / math.e) + math.log(3)) / 2)


@pytest.mark.parametrize("kinds", [[1, 1, -1], [0, 0, -1], [-1, -1, -1], []])
def test_without_positives_or_negatives_a_supervised_loss_is_zero(kinds: list[int]) -> None:
    similarity = torch.rand(2, len(kinds), generator=seeded()).requires_grad_()
    losses = supervised_losses(similarity, torch.tensor([kinds, kinds], dtype=torch.int64), 0.1)
    assert losses.tolist() == [0, 0]
    losses.sum().backward()
    assert not similarity.grad.any()


def test_without_anchors_there_are_no_supervised_losses() -> None:
    similarity = torch.empty(0, 4, requires_grad=True)
    losses = supervised_losses(similarity, torch.empty(0, 4, dtype=torch.int64), 0.1)
    assert losses.shape == (0,)
    losses.sum().backward()


@pytest.mark.parametrize("negatives", [1, 4])
def test_at_an_infinite_temperature_a_supervised_loss_counts_the_negatives(negatives: int) -> None:
    same = torch.tensor([[1] * 3 + [0] * negatives + [-1] * 5])
    similarity = torch.rand(1, same.shape[1], generator=seeded())
    assert supervised_losses(similarity, same, 1e9).item() == pytest.approx(math.log(1 + negatives))


def test_a_tiny_temperature_does_not_overflow_a_supervised_loss() -> None:
    similarity = torch.tensor([[-1.0, 1], [1, -1]], requires_grad=True)
    losses = supervised_losses(similarity, torch.tensor([[1, 0], [1, 0]]), 1e-4)
    assert losses.tolist() == pytest.approx([2e4, 0])
    losses.sum().backward()
    torch.testing.assert_close(similarity.grad, torch.tensor([[-1e4, 1e4], [0, 0]]))


def test_finite_differences_agree_with_supervised_losses() -> None:
    similarity, same = some_similarities()
    assert torch.autograd.gradcheck(lambda s: supervised_losses(s, same, 0.2), similarity.requires_grad_())
    (gradient,) = torch.autograd.grad(supervised_losses(similarity, same, 0.2).sum(), similarity)
    assert (gradient[same == 1] < 0).all()
    assert (gradient[same == 0] > 0).all()
    assert not gradient[same == -1].any()


def test_the_order_of_the_keys_makes_no_difference() -> None:
    similarity, same = some_similarities()
    order = torch.randperm(9, generator=seeded(1))
    torch.testing.assert_close(
        supervised_losses(similarity[:, order], same[:, order], 0.2), supervised_losses(similarity, same, 0.2)
    )
