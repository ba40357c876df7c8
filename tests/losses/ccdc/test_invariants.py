"""What must not change the loss, and what it becomes at the ends of its range."""

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from batches import Batch, drawing, logits_of, random_batch, repeatable, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ccdcseg.losses import CCDCLoss, CCDCSettings, Selection
from ccdcseg.losses.ccdc import loss as module

SMALL = CCDCSettings(
    queries=12, negatives=9, core_threshold=0.8, region="pixel", hidden_channels=6, embedding_channels=4
)
seeds = st.integers(0, 1000)


def made_loss(classes: int = 4, settings: CCDCSettings = SMALL, seed: int = 0, **changes: Any) -> CCDCLoss:
    """In double precision, with one and the same head."""
    torch.manual_seed(0)
    return drawing(CCDCLoss(3, classes, **asdict(settings) | changes), seed).double()


def double_batch(seed: int, spatial: tuple[int, ...] = (6, 7)) -> Batch:
    features, logits, target = random_batch(spatial, seed=seed)
    return Batch(features.double(), logits, target)


def with_selection(criterion: CCDCLoss, batch: Batch, selection: Selection) -> Tensor:
    """The loss of a batch on given pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "located", lambda *_: selection)
        return criterion(*batch)


def moved(selection: Selection, where: Tensor) -> Selection:
    """The same pixels after pixel i has moved to where[i]."""
    queries, negatives = selection.queries.items(), selection.negatives.items()
    return replace(
        selection,
        core={c: where[pixels] for c, pixels in selection.core.items()},
        queries={c: replace(q, easy=where[q.easy], hard=where[q.hard]) for c, q in queries},
        negatives={c: replace(n, pixels=where[n.pixels]) for c, n in negatives},
    )


def renamed(selection: Selection, name: list[int]) -> Selection:
    """The same pixels after class c has become name[c]."""
    negatives = selection.negatives.items()
    return replace(
        selection,
        core={name[c]: pixels for c, pixels in selection.core.items()},
        core_available={name[c]: count for c, count in selection.core_available.items()},
        queries={name[c]: q for c, q in selection.queries.items()},
        negatives={name[c]: replace(n, classes=torch.tensor(name)[n.classes]) for c, n in negatives},
    )


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert expected.nansum() != 0


@given(seeds)
@repeatable
def test_moving_the_pixels_of_the_batch_changes_nothing(seed: int) -> None:
    batch, criterion = double_batch(seed), made_loss(seed=seed)
    loss = criterion(*batch)
    before, selection = criterion.diagnostics, criterion.selection
    order = torch.randperm(84, generator=seeded(seed))

    def shuffle(maps: Tensor) -> Tensor:
        """(B, C, H, W), the pixels of all images mixed."""
        rows = maps.movedim(1, -1).flatten(0, 2)[order]
        return rows.view(2, 6, 7, -1).movedim(-1, 1).contiguous()

    shuffled = Batch(shuffle(batch.features), shuffle(batch.logits), shuffle(batch.target[:, None]))
    assert_same(with_selection(criterion, shuffled, moved(selection, order.argsort())), loss)
    assert_same(criterion.diagnostics.confusion, before.confusion)
    assert_same(criterion.diagnostics.positive_similarity, before.positive_similarity)


@given(st.permutations(range(4)), seeds)
@repeatable
def test_relabelling_the_classes_changes_nothing(order: list[int], seed: int) -> None:
    batch, criterion = double_batch(seed), made_loss(seed=seed)
    loss = criterion(*batch)
    before, selection = criterion.diagnostics, criterion.selection
    name = [order.index(c) for c in range(4)]
    relabelled = Batch(batch.features, batch.logits[:, order], torch.tensor(name)[batch.target])
    assert_same(with_selection(criterion, relabelled, renamed(selection, name)), loss)
    assert_same(criterion.diagnostics.confusion, before.confusion[order][:, order])
    assert_same(criterion.diagnostics.class_loss, before.class_loss[order])


@given(st.floats(1e-3, 1e3), st.sampled_from(["mean", "concatenate"]), seeds)
@repeatable
def test_scaling_the_heads_output_layer_changes_nothing(scale: float, combination: str, seed: int) -> None:
    batch = double_batch(seed)
    criterion = made_loss(seed=seed, region="block", region_combination=combination)
    loss = criterion(*batch)
    with torch.no_grad():
        for parameter in criterion.head.output.parameters():
            parameter.mul_(scale)
    criterion.generator.manual_seed(seed)
    assert_same(criterion(*batch), loss)


@given(st.floats(1e-3, 1e3), seeds)
@repeatable
def test_scaling_the_features_changes_nothing_for_a_head_without_offsets(scale: float, seed: int) -> None:
    batch, criterion = double_batch(seed), made_loss(seed=seed)
    torch.nn.init.zeros_(criterion.head.hidden.bias)
    torch.nn.init.zeros_(criterion.head.output.bias)
    loss = criterion(*batch)
    criterion.generator.manual_seed(seed)
    assert_same(criterion(scale * batch.features, batch.logits, batch.target), loss)


@given(st.floats(-50, 50), seeds)
@repeatable
def test_a_constant_added_to_all_logits_changes_nothing(shift: float, seed: int) -> None:
    batch, criterion = double_batch(seed), made_loss(seed=seed)
    loss = criterion(*batch)
    criterion.generator.manual_seed(seed)
    assert_same(criterion(batch.features, batch.logits.double() + shift, batch.target), loss)


@pytest.mark.parametrize("region", ["pixel", "pair", "block"])
def test_a_volume_of_one_slice_is_an_image(region: str) -> None:
    batch, criterion = double_batch(3), made_loss(region=region)
    flat, deep = batch.features.clone().requires_grad_(), batch.features.clone().requires_grad_()
    image = criterion(flat, batch.logits, batch.target)
    criterion.generator.manual_seed(0)
    volume = criterion(deep[:, :, None], batch.logits[:, :, None], batch.target[:, None, None])
    assert volume.item() == image.item() > 0
    assert criterion.selection.shape == (2, 1, 6, 7)
    gradients = torch.autograd.grad(image, flat)[0], torch.autograd.grad(volume, deep)[0]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("denominator", "terms"), [("pixel", 9), ("class_mean", 3)])
@pytest.mark.parametrize("reduction", ["mean", "hardest", "set"])
def test_at_an_infinite_temperature_only_the_number_of_terms_counts(
    denominator: str, terms: int, reduction: str
) -> None:
    criterion = made_loss(
        temperature=1e12, denominator=denominator, query_reduction=reduction, negative_strategy="uniform"
    )
    assert criterion(*double_batch(0)).item() == pytest.approx(math.log(1 + terms))


def test_identical_features_leave_only_the_number_of_negatives() -> None:
    _, logits, target = random_batch()
    loss = made_loss()(torch.ones(2, 3, 6, 7, dtype=torch.float64), logits, target)
    assert loss.item() == pytest.approx(math.log(1 + 9))


def test_classes_apart_cost_less_than_classes_mixed() -> None:
    """Embeddings that are one-hot in the class, against the same ones for all."""
    _, logits, target = random_batch(channels=4)
    criterion = drawing(CCDCLoss(4, 4, **asdict(SMALL) | {"hidden_channels": 4})).double()
    with torch.no_grad():
        for layer in (criterion.head.hidden, criterion.head.output):
            layer.weight.copy_(torch.eye(4))
            layer.bias.zero_()
    apart = torch.nn.functional.one_hot(target, 4).movedim(-1, 1).double()
    # Positive similarity 1, nine negatives at 0, tau 0.5.
    expected = -math.log(math.exp(2) / (math.exp(2) + 9))
    assert criterion(apart, logits, target).item() == pytest.approx(expected)
    assert expected < math.log(1 + 9)


def flat_batch(*rows: tuple[int, list[float], int]) -> Batch:
    """One image in a row of pixels: (label, probabilities, how many)."""
    probabilities = torch.tensor([row for _, row, count in rows for _ in range(count)])
    target = torch.tensor([label for label, _, count in rows for _ in range(count)])
    features = torch.randn(1, 3, 1, len(target), dtype=torch.float64, generator=seeded())
    return Batch(features, logits_of(probabilities), target[None, None])


def test_negatives_follow_the_papers_example() -> None:
    """Confusion in the proportions 0.6 : 0.25 : 0.15 gives 154, 64 and 38 of 256 negatives."""
    even = [0.25] * 4
    batch = flat_batch((0, [0.98, 0.012, 0.005, 0.003], 5), (1, even, 5), (2, even, 5), (3, even, 5))
    criterion = made_loss(settings=CCDCSettings())
    criterion(*batch)
    assert criterion.selection.queries.keys() == {0}
    assert criterion.selection.negatives[0].classes.bincount().tolist() == [0, 154, 64, 38]


@pytest.mark.parametrize(
    ("shortage", "easy"),
    [("fill", 60), ("short", 2), ("replace", 200)],
)
def test_one_class_confident(shortage: str, easy: int) -> None:
    """D = 0.99: the threshold is 0.01, so its 60 pixels are all easy, though 198 of 200 queries should be hard."""
    batch = flat_batch((0, [0.99, 0.01], 60), (1, [0.6, 0.4], 20))
    criterion = made_loss(2, queries=200, shortage=shortage, core_threshold=0.97)
    assert criterion(*batch).item() > 0
    seen = criterion.diagnostics
    assert seen.confidence.tolist() == pytest.approx([0.99, 0.4])
    assert seen.threshold.tolist() == pytest.approx([0.01, 0.6], abs=1e-5)
    assert criterion.selection.queries.keys() == {0}
    assert seen.easy[0].item() == seen.core[0].item() == 60
    assert [seen.hard[0].item(), seen.queries_hard[0].item(), seen.queries_easy[0].item()] == [0, 0, easy]


@pytest.mark.parametrize(("shortage", "hard"), [("fill", 20), ("short", 3), ("replace", 10)])
def test_all_classes_confused_equally(shortage: str, hard: int) -> None:
    """Four classes at a quarter each: threshold 0.75, all pixels hard, though 3 of 4 queries should be easy."""
    even = [0.25] * 4
    batch = flat_batch(*((c, even, 20) for c in range(4)))
    wanted = 40 if shortage == "fill" else 10
    criterion = made_loss(queries=wanted, shortage=shortage, core_threshold=0.2, negatives=9)
    loss = criterion(*batch)
    seen = criterion.diagnostics
    torch.testing.assert_close(seen.confusion, torch.full((4, 4), 0.25))
    assert seen.threshold.tolist() == pytest.approx([0.75] * 4)
    assert seen.easy.tolist() == seen.queries_easy.tolist() == [0] * 4
    assert seen.queries_hard.tolist() == [hard] * 4
    for c, negatives in criterion.selection.negatives.items():
        assert sorted(negatives.classes.bincount(minlength=4).tolist()) == [0, 3, 3, 3]
        assert c not in negatives.classes
    assert loss.isfinite()


def test_nobody_is_asked_where_all_classes_are_confused_equally_by_default() -> None:
    batch = flat_batch(*((c, [0.25] * 4, 20) for c in range(4)))
    criterion = made_loss(settings=CCDCSettings())
    assert criterion(*batch).item() == 0
    assert not criterion.selection.queries
    assert not criterion.selection.core


@pytest.mark.parametrize(("share", "easy", "hard"), [(0.0, 10, 0), (0.5, 5, 5), (1.0, 0, 10)])
def test_a_fixed_hard_share_from_none_to_all(share: float, easy: int, hard: int) -> None:
    batch = flat_batch((0, [0.99, 0.01], 50), (0, [0.3, 0.7], 50), (1, [0.6, 0.4], 20))
    criterion = made_loss(2, queries=10, query_strategy="fixed", fixed_hard_share=share)
    criterion(*batch)
    seen = criterion.diagnostics
    assert (seen.easy[0].item(), seen.hard[0].item()) == (50, 50)
    assert (seen.queries_easy[0].item(), seen.queries_hard[0].item()) == (easy, hard)


def test_dividing_by_all_classes_counts_those_without_queries() -> None:
    batch = flat_batch((0, [0.99, 0.01], 50), (1, [0.6, 0.4], 20))
    alone = made_loss(2)(*batch)
    of_two = made_loss(2, class_average="all_classes")(*batch)
    assert_same(of_two, alone / 2)
