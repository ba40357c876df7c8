import math

import pytest
import torch
from batches import seeded
from torch import Tensor

from ccdcseg.losses.parts.supervised import consecutive, supervised_losses, supervised_result


def test_parts_lie_one_after_the_other() -> None:
    assert consecutive([2, 0, 3]) == [slice(0, 2), slice(2, 2), slice(2, 5)]


@pytest.mark.parametrize("itself", [False, True])
def test_a_result_holds_the_means_of_both_kinds_of_similarities(itself: bool) -> None:
    """Where the keys are the anchors, none is compared with itself."""
    similarity = torch.tensor([[9.0, 2, 3, 4], [5, 9, 6, 7]])
    found = supervised_result(torch.tensor([1.0, 3.0]), similarity, slice(0, 2), itself=itself)
    assert found.loss == 2
    assert found.positive_similarity == ((2 + 5) / 2 if itself else (9 + 2 + 5 + 9) / 4)
    assert found.negative_similarity == (3 + 4 + 6 + 7) / 4


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
