import math
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from batches import Batch, drawing, random_batch, seeded
from hypothesis import given
from hypothesis import strategies as st
from rivals import (
    IGNORED,
    SIZES,
    banks,
    by_class,
    centres_of,
    double_batch,
    embeddings,
    few,
    filled,
    made,
    supervised,
    unit,
)
from torch import Tensor

from ccdcseg.losses import ContrastiveSegLoss, ContrastiveSegSettings
from ccdcseg.losses.parts import base
from ccdcseg.losses.parts.pixel_sets import PixelSets, of_classes
from ccdcseg.losses.parts.regions import draw_by_image

SCALE = 0.1 / 0.07
"""Temperature over base temperature."""


def anchors_of(criterion: ContrastiveSegLoss, batch: Batch) -> list[tuple[int, np.ndarray]]:
    """Class and embedding of every anchor last drawn."""
    vectors = [unit(v) for v in embeddings(criterion.head, batch.features)]
    drawn = criterion.selection.queries.items()
    return [(c, vectors[pixel]) for c, queries in drawn for pixel in queries.pixels.tolist()]


def in_batch(criterion: ContrastiveSegLoss, batch: Batch) -> float:
    """The formula among the anchors last drawn."""
    anchors, losses = anchors_of(criterion, batch), []
    for i, (c, anchor) in enumerate(anchors):
        positives = [v for j, (k, v) in enumerate(anchors) if k == c and j != i]
        negatives = [v for k, v in anchors if k != c]
        losses.append(supervised(anchor, positives, negatives, criterion.settings.temperature))
    return sum(losses) / len(losses)


def against(criterion: ContrastiveSegLoss, batch: Batch, memory: dict[str, Tensor]) -> float:
    """The formula against pixels and regions as they were before the call."""
    kept = by_class(memory["pixels.keys"], memory["pixels.written"])
    regions = by_class(memory["regions.keys"], memory["regions.written"])
    keys = {c: kept[c] + regions[c] for c in kept}
    losses = [
        supervised(
            v, keys[c], [key for k in keys if k != c for key in keys[k]], criterion.settings.temperature
        )
        for c, v in anchors_of(criterion, batch)
        if keys[c]
    ]
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_in_the_batch_the_loss_is_the_formula_on_the_anchors_drawn(
    spatial: tuple[int, ...], seed: int, temperature: float
) -> None:
    batch = double_batch(spatial, seed=seed, ignored=8)
    criterion = made("batch", ignore=IGNORED, temperature=temperature)
    loss = criterion(*batch).item()
    assert loss == pytest.approx(temperature / 0.07 * in_batch(criterion, batch), rel=1e-6)
    assert len(criterion.selection.queries) == 4


@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("length", [2, 12])
def test_with_memory_the_loss_is_the_formula_against_its_keys(
    spatial: tuple[int, ...], seed: int, length: int
) -> None:
    """All keys take part, since there are fewer than may be drawn."""
    criterion = made("memory", ignore=IGNORED, memory_length=length)
    for call in range(3):
        batch, memory = double_batch(spatial, seed=10 * seed + call, ignored=8), banks(criterion)
        loss = criterion(*batch).item()
        assert loss == pytest.approx(SCALE * against(criterion, batch, memory), rel=1e-6)
        assert loss > 0 or call == 0


@pytest.mark.parametrize(
    ("max_samples", "max_views", "each"),
    [(60, 8, 7), (1024, 100, 100), (1024, 8, 8), (8, 100, 1), (79, 100, 9), (7, 100, 0)],
)
def test_the_number_of_anchors(max_samples: int, max_views: int, each: int) -> None:
    """Two images of four classes: eight pairs, of which each gives as many or all it has."""
    batch = double_batch((12, 13))
    criterion = made("batch", max_samples=max_samples, max_views=max_views)
    loss = criterion(*batch)
    size, labels = 156, batch.target.flatten()
    counted = Counter(
        (pixel // size, c) for c, q in criterion.selection.queries.items() for pixel in q.pixels.tolist()
    )
    for image in range(2):
        for c in range(4):
            members = int((batch.target[image] == c).sum())
            assert counted[image, c] == min(each, members)
    for c, queries in criterion.selection.queries.items():
        assert (labels[queries.pixels] == c).all()
        assert len(queries.pixels.unique()) == len(queries.pixels)
    assert loss.item() == 0 if each == 0 else loss.item() > 0


@pytest.mark.parametrize(
    ("hard", "easy", "drawn"),
    [
        (20, 20, (4, 4)),
        (2, 20, (2, 6)),
        (20, 2, (6, 2)),
        (0, 20, (0, 8)),
        (20, 0, (8, 0)),
        (3, 2, (3, 2)),
        (4, 4, (4, 4)),
        (5, 3, (5, 3)),
    ],
)
def test_half_of_the_anchors_are_hard_and_a_shortage_is_filled(
    hard: int, easy: int, drawn: tuple[int, int]
) -> None:
    """Hard: the greatest probability is another class's."""
    target = torch.tensor([1] * (hard + easy) + [0] * 30)[None, None]
    logits = torch.zeros(1, 2, 1, hard + easy + 30)
    logits[0, 0] += 1
    logits[0, 1, 0, hard : hard + easy] = 2
    criterion = made("batch", classes=2, max_samples=1024)
    criterion(torch.randn(1, 3, 1, hard + easy + 30, generator=seeded()).double(), logits, target)
    found = criterion.selection.queries[1]
    assert (len(found.hard), len(found.easy)) == drawn
    assert (found.hard_available, found.easy_available) == (hard, easy)
    assert set(found.hard.tolist()) <= set(range(hard))
    assert set(found.easy.tolist()) <= set(range(hard, hard + easy))


def small_foreground() -> Batch:
    """64 pixels of class 1 in one image of 16x16."""
    features, logits, target = random_batch((16, 16), images=1, classes=2)
    target[:] = 0
    target[0, 4:12, 4:12] = 1
    return Batch(features.double().requires_grad_(), logits, target)


@pytest.mark.parametrize("name", ["batch", "memory"])
@pytest.mark.parametrize(
    ("min_pixels", "classes"), [(100, [0]), (64, [0]), (63, [0, 1]), (10, [0, 1]), (500, [])]
)
def test_a_small_foreground(name: str, min_pixels: int, classes: list[int]) -> None:
    batch = small_foreground()
    criterion = made(name, classes=2, min_pixels=min_pixels)
    for _ in range(2):
        loss = criterion(*batch)
        loss.backward()
        assert list(criterion.selection.queries) == classes
    assert batch.features.grad.isfinite().all()
    contrasted = len(classes) == 2 or (name == "memory" and classes)  # the memory holds what has no anchors
    assert (loss.item() > 0) is bool(contrasted)


@pytest.mark.parametrize(
    "nothing", [{"memory_length": None, "min_pixels": 64}, {"max_samples": 1, "min_pixels": 0}]
)
def test_what_leaves_nothing_to_contrast_is_named(nothing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PATIENCE", 1)
    (setting,) = nothing.keys() - {"memory_length", "min_pixels"} or {"min_pixels"}
    with pytest.warns(UserWarning, match=rf"zero in 1 calls.*{setting}"):
        assert made("memory", classes=2, **nothing)(*small_foreground()).item() == 0


def test_without_anchors_the_memory_still_grows() -> None:
    criterion = made("memory", min_pixels=1000)
    assert criterion(*double_batch()).item() == 0
    assert criterion.pixels.written.tolist() == [6, 6, 6, 6]
    assert criterion.regions.written.tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
def test_the_memory_takes_pixels_and_regions_of_their_class(spatial: tuple[int, ...]) -> None:
    criterion, batch = made("memory", ignore=IGNORED), double_batch(spatial, ignored=8)
    criterion(*batch)
    vectors = [unit(v) for v in embeddings(criterion.head, batch.features)]
    labels, size = batch.target.flatten().tolist(), batch.target[0].numel()
    regions = centres_of(criterion.head, batch, 4)
    for c in range(4):
        places = [
            [i for i, v in enumerate(vectors) if np.allclose(v, key)]
            for key in criterion.pixels.of_class(c).numpy()
        ]
        assert all(len(place) == 1 for place in places)
        pixels = [place[0] for place in places]
        assert [labels[pixel] for pixel in pixels] == [c] * 6
        assert len(set(pixels)) == 6
        assert [pixel // size for pixel in pixels] == [0, 0, 0, 1, 1, 1]
        expected = torch.stack([torch.from_numpy(r) for k, r in regions if k == c])
        torch.testing.assert_close(criterion.regions.of_class(c), expected)


def test_a_queue_shorter_than_the_anchors() -> None:
    criterion = made("memory", memory_length=1, max_views=50, max_samples=1000)
    for seed in range(3):
        batch, memory = double_batch((12, 13), seed=seed), banks(criterion)
        loss = criterion(*batch).item()
        assert loss == pytest.approx(SCALE * against(criterion, batch, memory), rel=1e-6)
    assert all(len(criterion.pixels.of_class(c)) == 1 for c in range(4))
    assert min(len(q.pixels) for q in criterion.selection.queries.values()) > 20


def test_a_class_the_memory_does_not_know_is_left_out() -> None:
    criterion, first, batch = made("memory"), double_batch(seed=1), double_batch()
    first.target[first.target == 3] = 0
    criterion(*first)
    memory = banks(criterion)
    loss = criterion(*batch).item()
    assert loss == pytest.approx(SCALE * against(criterion, batch, memory), rel=1e-6)
    assert len(criterion.selection.queries[3].pixels) > 0
    assert criterion.diagnostics.class_loss[3].isnan()


def test_at_most_so_many_keys_are_drawn() -> None:
    """At an infinite temperature every positive stands against all negatives alike."""
    changes: dict[str, Any] = {"temperature": 1e9, "base_temperature": 1e9}
    for negatives, terms in ((1, 2), (5, 6), (24, 25), (2048, 25)):  # 3 classes of 6 pixels and 2 regions
        criterion = filled("memory", positives=2, negatives=negatives, **changes)
        assert criterion(*double_batch()).item() == pytest.approx(math.log(terms))


def test_drawn_keys_are_the_memorys() -> None:
    """With one key of either kind, each class's similarities are those with one pair of keys."""
    criterion, batch = filled("memory", positives=1, negatives=1), double_batch()
    criterion(*batch)
    memory, anchors = banks(criterion), anchors_of(criterion, batch)
    kept = by_class(memory["pixels.keys"], memory["pixels.written"])
    regions = by_class(memory["regions.keys"], memory["regions.written"])
    for c in range(4):
        mean = sum(v for k, v in anchors if k == c) / sum(k == c for k, _ in anchors)
        own = [mean @ key for key in kept[c] + regions[c]]
        others = [mean @ key for k in kept if k != c for key in kept[k] + regions[k]]
        seen = criterion.diagnostics
        assert np.isclose(seen.positive_similarity[c].item(), own, atol=1e-6).any()
        assert np.isclose(seen.negative_similarity[c].item(), others, atol=1e-6).any()


def with_identity_head(**changes: Any) -> ContrastiveSegLoss:
    """Embeddings are the two features, which must not be negative."""
    plain = {
        "min_pixels": 0,
        "temperature": 1.0,
        "base_temperature": 1.0,
    }
    sizes = {**SIZES, "hidden_channels": 2, "embedding_channels": 2}
    criterion = drawing(ContrastiveSegLoss(2, 2, **{**sizes, **plain, **changes}))
    for layer in (criterion.head.hidden, criterion.head.output):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return criterion


def corners() -> Batch:
    """Class 0 twice at (1, 0), class 1 three times at (0, 1)."""
    features = torch.tensor([[1.0, 2, 0, 0, 0], [0, 0, 1, 2, 3]])[None, :, None]
    return Batch(features, torch.zeros(1, 2, 1, 5), torch.tensor([[[0, 0, 1, 1, 1]]]))


def test_a_number_by_hand() -> None:
    """Anchors of class 0 have three negatives, those of class 1 two."""
    first, second = (math.log(math.e + n) - 1 for n in (3, 2))
    loss = with_identity_head(memory_length=None)(*corners())
    assert loss.item() == pytest.approx((2 * first + 3 * second) / 5)
    scaled = with_identity_head(memory_length=None, base_temperature=4)(*corners())
    assert scaled.item() == pytest.approx(loss.item() / 4)


def test_a_number_by_hand_with_memory() -> None:
    """Two pixels and a region of class 0, three and one of class 1."""
    criterion = with_identity_head(memory_length=9)
    assert criterion(*corners()).item() == 0
    first, second = (math.log(math.e + n) - 1 for n in (4, 3))
    assert criterion(*corners()).item() == pytest.approx((2 * first + 3 * second) / 5)
    assert criterion.diagnostics.class_loss.tolist() == pytest.approx([first, second])


def test_one_anchor_of_a_class_has_no_positives_in_the_batch() -> None:
    features, logits, target = corners()
    target[0, 0, 1] = 1
    criterion = with_identity_head(memory_length=None)
    criterion(features, logits, target)
    assert len(criterion.selection.queries[0].pixels) == 1
    assert criterion.diagnostics.class_loss[0].isnan()
    assert criterion.diagnostics.class_loss[1].isfinite()


@pytest.mark.parametrize("name", ["batch", "memory"])
def test_with_nothing_but_single_anchors_there_is_a_connected_zero(name: str) -> None:
    criterion = made(name, max_views=1)
    features, logits, target = double_batch(images=1)
    loss = criterion(features, logits, target)
    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, [features, *criterion.head.parameters()]):
        assert not gradient.any()


def test_at_an_infinite_temperature_only_the_number_of_negatives_counts() -> None:
    """Seven anchors from each of eight pairs: 42 of other classes."""
    criterion = made("batch", temperature=1e9, base_temperature=1e9)
    loss = criterion(*double_batch((12, 13)))
    assert loss.item() == pytest.approx(math.log(43))


@pytest.mark.parametrize("name", ["batch", "memory"])
def test_gradient_reaches_the_anchors_alone(name: str) -> None:
    criterion, batch = filled(name), double_batch((12, 13))
    (found,) = torch.autograd.grad(criterion(*batch), batch.features)
    touched = set(found.abs().sum(1).flatten().nonzero()[:, 0].tolist())
    drawn = criterion.selection.queries.values()
    assert touched == {pixel for queries in drawn for pixel in queries.pixels.tolist()}


@given(st.integers(0, 1000), st.permutations(range(4)))
@few
def test_when_all_pixels_are_anchors_names_and_order_make_no_difference(
    seed: int, permuted: list[int]
) -> None:
    features, logits, target = double_batch(seed=seed)
    order, names = torch.randperm(42, generator=seeded(seed)), torch.tensor(permuted)
    moved = Batch(*(m.flatten(-2)[..., order].unflatten(-1, (6, 7)) for m in (
        features, logits[:, names.argsort()], names[target])))  # fmt: skip
    everything = {"max_views": 100, "max_samples": 2000, "min_pixels": 0}
    torch.testing.assert_close(
        made("batch", **everything)(*moved), made("batch", **everything)(features, logits, target)
    )


@given(st.integers(0, 1000), st.integers(1, 12))
@few
def test_pixels_are_drawn_by_image_and_class_without_repeats(seed: int, count: int) -> None:
    labels = torch.randint(-1, 3, (2, 20), generator=seeded(seed))
    sets = PixelSets({"class": of_classes(labels, 4)})
    regions = sets.numbers(list(sets.sizes.values()))["class"]
    drawn = sets.find([draw_by_image(regions, count, seeded(seed))])[0][0].tolist()
    assert len(set(drawn)) == len(drawn)
    counted = Counter((pixel // 20, int(labels.flatten()[pixel])) for pixel in drawn)
    for image in range(2):
        assert counted[image, -1] == 0
        for c in range(4):
            assert counted[image, c] == min(count, int((labels[image] == c).sum()))


def test_steps_on_the_features_pull_classes_together() -> None:
    """All pixels are anchors, and the head stays as it is."""
    batch = double_batch((4, 5))
    criterion = made("batch", max_views=100, max_samples=2000, min_pixels=0)
    optimizer = torch.optim.Adam([batch.features], 0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = criterion(*batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    seen = criterion.diagnostics
    assert (seen.positive_similarity > seen.negative_similarity + 0.2).all()


def test_the_defaults_are_the_papers() -> None:
    found = asdict(ContrastiveSegSettings())
    expected = {"temperature": 0.1, "base_temperature": 0.07,
                "max_samples": 1024, "max_views": 100, "min_pixels": 100, "memory_length": 5000}  # fmt: skip
    assert {name: found[name] for name in expected} == expected
