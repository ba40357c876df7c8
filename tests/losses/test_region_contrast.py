import math
from typing import Any

import pytest
import torch
from batches import Batch, random_batch, seeded
from hypothesis import given
from hypothesis import strategies as st
from rivals import IGNORED, banks, by_class, centres_of, double_batch, few, filled, made, supervised
from torch import Tensor

from ccdcseg.losses import RegionContrastLoss, RegionContrastSettings


def plain(criterion: RegionContrastLoss, batch: Batch, memory: dict[str, Tensor]) -> float:
    """The formula against the memory as it was before the call."""
    kept = by_class(memory["memory.keys"], memory["memory.written"])
    losses = [
        supervised(
            r, kept[c], [key for k in kept if k != c for key in kept[k]], criterion.settings.temperature
        )
        for c, r in centres_of(criterion.head, batch, len(kept))
        if kept[c]
    ]
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("changes", [{}, {"temperature": 0.07, "memory_length": 1}])
def test_the_loss_is_the_formula_against_the_memory(
    spatial: tuple[int, ...], seed: int, changes: dict[str, Any]
) -> None:
    criterion = made("region", ignore=IGNORED, **changes)
    for call in range(4):
        batch, memory = double_batch(spatial, seed=10 * seed + call, ignored=8), banks(criterion)
        expected = plain(criterion, batch, memory)
        assert criterion(*batch).item() == pytest.approx(expected, rel=1e-6)
        assert expected > 0 or call == 0


@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
def test_the_memory_takes_the_centres_of_the_batch(spatial: tuple[int, ...]) -> None:
    criterion = made("region", ignore=IGNORED)
    history: dict[int, list[Tensor]] = {c: [] for c in range(4)}
    for seed in range(4):
        batch = double_batch(spatial, seed=seed, ignored=8)
        batch.target[batch.target == seed] = (seed + 1) % 4
        criterion(*batch)
        for c, r in centres_of(criterion.head, batch, 4):
            history[c].append(torch.from_numpy(r))
    for c, centres in history.items():
        assert criterion.memory.written[c] == len(centres) == 6
        kept = criterion.memory.of_class(c)
        torch.testing.assert_close(kept.norm(dim=1), torch.ones(5).double())
        expected = torch.stack(centres[5:] + centres[1:5])  # the sixth in place of the first
        torch.testing.assert_close(kept, expected)


def with_identity_head(**changes: Any) -> RegionContrastLoss:
    """Embeddings are the two features, which must not be negative."""
    criterion = RegionContrastLoss(
        2, 2, hidden_channels=2, embedding_channels=2, **{"temperature": 1.0, **changes}
    )
    for layer in (criterion.head.hidden, criterion.head.output):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return criterion


def test_a_number_by_hand() -> None:
    """Class 0 at (1, 0), class 1 at (0, 1); the memory holds the same twice, so each centre has two and two."""
    features = torch.tensor([[2.0, 4, 0, 0], [0, 0, 1, 3]])[None, :, None]
    batch = Batch(features, torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))
    criterion = with_identity_head()
    assert criterion(*batch).item() == 0
    assert criterion(*batch).item() == pytest.approx(math.log(math.e + 1) - 1)
    assert criterion(*batch).item() == pytest.approx(math.log(math.e + 2) - 1)
    seen = criterion.diagnostics
    assert seen.positive_similarity.tolist() == [1, 1]
    assert seen.negative_similarity.tolist() == [0, 0]
    assert seen.class_loss.tolist() == pytest.approx([math.log(math.e + 2) - 1] * 2)


def test_a_centre_is_the_mean_before_normalisation() -> None:
    features = torch.tensor([[3.0, 0, 1], [0, 1, 0]])[None, :, None]
    criterion = with_identity_head()
    criterion(features, torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 0, 1]]]))
    expected = torch.tensor([3.0, 1]) / math.sqrt(10)
    torch.testing.assert_close(criterion.memory.of_class(0), expected[None])


def test_at_an_infinite_temperature_only_the_number_of_negatives_counts() -> None:
    """One batch of two images in the memory: six centres of other classes."""
    loss = filled("region", temperature=1e9)(*double_batch())
    assert loss.item() == pytest.approx(math.log(7))


def test_when_classes_are_apart_a_low_temperature_gives_nothing() -> None:
    features = torch.tensor([[1.0, 0], [0, 1]])[None, :, None]
    batch = Batch(features, torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
    criterion = with_identity_head(temperature=0.01)
    criterion(*batch)
    assert criterion(*batch).item() == pytest.approx(0, abs=1e-6)


def test_a_class_the_memory_does_not_know_is_left_out() -> None:
    """Its centre enters the memory, but has nothing to be pulled to."""
    criterion, first, batch = made("region"), double_batch(seed=1), double_batch()
    first.target[first.target == 3] = 0
    criterion(*first)
    memory = banks(criterion)
    assert criterion(*batch).item() == pytest.approx(plain(criterion, batch, memory), rel=1e-6)
    assert criterion.diagnostics.class_loss[3].isnan()
    assert criterion.diagnostics.class_loss[:3].isfinite().all()
    assert criterion.memory.written.tolist() == [4, 4, 4, 2]


def test_nothing_is_drawn() -> None:
    criterion = filled("region")
    state = torch.get_rng_state()
    criterion(*double_batch())
    assert torch.equal(torch.get_rng_state(), state)
    drawn = criterion.selection
    assert drawn.shape == (2, 6, 7)
    assert [len(part) for part in (drawn.queries, drawn.negatives, drawn.core)] == [0, 0, 0]


def two_calls(permuted: list[int], order: Tensor | None = None, seed: int = 0) -> list[Tensor]:
    """Losses of two calls, the classes renamed and the pixels in another order."""
    criterion, losses = made("region"), []
    for call in range(2):
        features, logits, target = random_batch(seed=seed + call)
        batch = Batch(features.double(), logits[:, torch.tensor(permuted).argsort()],
                      torch.tensor(permuted)[target])  # fmt: skip
        if order is not None:
            batch = Batch(*(m.flatten(-2)[..., order].unflatten(-1, (6, 7)) for m in batch))
        losses.append(criterion(*batch))
    return losses


@given(st.permutations(range(4)), st.integers(0, 1000))
@few
def test_the_names_of_the_classes_make_no_difference(permuted: list[int], seed: int) -> None:
    torch.testing.assert_close(two_calls(permuted, seed=seed), two_calls([0, 1, 2, 3], seed=seed))


@given(st.integers(0, 1000))
@few
def test_the_order_of_the_pixels_makes_no_difference(seed: int) -> None:
    order = torch.randperm(42, generator=seeded(seed))
    torch.testing.assert_close(two_calls([0, 1, 2, 3], order, seed), two_calls([0, 1, 2, 3], seed=seed))


def test_the_defaults_are_the_papers() -> None:
    assert RegionContrastSettings().temperature == 0.2
