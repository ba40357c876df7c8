import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from batches import Batch, drawing, seeded
from hypothesis import given
from hypothesis import strategies as st
from rivals import IGNORED, SIZES, centre, double_batch, embeddings, few, info_nce, made, unit
from scipy.stats import chisquare
from torch import Tensor

from ccdcseg.losses import ReCoLoss, ReCoSettings
from ccdcseg.losses.reco import class_chances, draw_negative_classes


def hard_pixels(batch: Batch, c: int, threshold: float = 0.97) -> set[int]:
    own = batch.logits.softmax(1)[:, c].flatten()
    labels = batch.target.flatten()
    return {i for i in range(len(labels)) if labels[i] == c and own[i] < threshold}


def prototypes(criterion: ReCoLoss, batch: Batch) -> dict[int, np.ndarray]:
    vectors, labels = embeddings(criterion.head, batch.features), batch.target.flatten().tolist()
    of = {c: [v for v, label in zip(vectors, labels, strict=True) if label == c] for c in set(labels)}
    return {c: centre(own) for c, own in of.items() if c != IGNORED}


def plain(criterion: ReCoLoss, batch: Batch) -> float:
    """The formula on the pixels last drawn."""
    vectors = [unit(v) for v in embeddings(criterion.head, batch.features)]
    centres, temperature, total = prototypes(criterion, batch), criterion.settings.temperature, 0.0
    for c, queries in criterion.selection.queries.items():
        drawn = criterion.selection.negatives[c]
        losses = [
            info_nce(vectors[pixel], centres[c], [vectors[int(i)] for i in drawn.pixels[own]], temperature)
            for pixel, own in zip(queries.pixels.tolist(), drawn.columns, strict=True)
        ]
        total += sum(losses) / len(losses)
    return total / len(centres)


@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("changes", [{}, {"temperature": 0.1, "hard_threshold": 0.5, "queries": 33}])
def test_the_loss_is_the_formula_on_the_pixels_drawn(
    spatial: tuple[int, ...], seed: int, changes: dict[str, Any]
) -> None:
    batch, criterion = double_batch(spatial, seed=seed, ignored=8), made("reco", ignore=IGNORED, **changes)
    assert criterion(*batch).item() == pytest.approx(plain(criterion, batch), rel=1e-6)
    assert list(criterion.selection.queries) == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.97, 0.6])
def test_queries_are_hard_pixels_of_their_class(seed: int, threshold: float) -> None:
    batch = double_batch((12, 13), seed=seed, ignored=30)
    criterion = made("reco", ignore=IGNORED, hard_threshold=threshold)
    criterion(*batch)
    for c, queries in criterion.selection.queries.items():
        hard = hard_pixels(batch, c, threshold)
        members = int((batch.target == c).sum())
        assert len(queries.easy) == 0
        assert len(queries.hard) == criterion.settings.queries
        assert set(queries.hard.tolist()) <= hard
        assert (queries.hard_available, queries.easy_available) == (len(hard), members - len(hard))
        assert criterion.selection.core_available[c] == members
    assert criterion.diagnostics.threshold.tolist() == pytest.approx([threshold] * 4)


def test_queries_are_uniform_over_the_hard_pixels_with_replacement() -> None:
    batch, criterion = double_batch(), made("reco", queries=20_000, negatives=1)
    criterion(*batch)
    queries, hard = criterion.selection.queries[1].hard, sorted(hard_pixels(batch, 1))
    counts = queries.bincount(minlength=84)[hard]
    assert counts.sum() == 20_000
    assert chisquare(counts).pvalue > 0.001


def test_negatives_are_of_other_present_classes() -> None:
    batch, criterion = double_batch(ignored=9), made("reco", ignore=IGNORED)
    batch.target[batch.target == 2] = 0
    criterion(*batch)
    assert list(criterion.selection.negatives) == [0, 1, 3]
    labels = batch.target.flatten()
    for c, drawn in criterion.selection.negatives.items():
        assert drawn.columns.shape == drawn.classes.shape == (9, 5)
        assert torch.equal(labels[drawn.pixels[drawn.columns]], drawn.classes)
        assert set(drawn.classes.unique().tolist()) <= {0, 1, 3} - {c}
    assert criterion.diagnostics.class_loss[2].isnan()


@pytest.mark.parametrize("temperature", [0.5, 0.15])
def test_classes_that_resemble_the_query_class_give_more_negatives(temperature: float) -> None:
    batch = double_batch()
    for c in range(4):  # classes apart, so that the chances differ
        batch.features.data.movedim(1, -1)[batch.target == c] += 2 * torch.randn(3, generator=seeded(c))
    criterion = made("reco", queries=100, negatives=200, temperature=temperature)
    criterion(*batch)
    centres = prototypes(criterion, batch)
    for c, drawn in criterion.selection.negatives.items():
        others = [k for k in range(4) if k != c]
        scores = np.exp([centres[c] @ centres[k] / temperature for k in others])
        counts = drawn.classes.flatten().bincount(minlength=4)[others].numpy()
        assert chisquare(counts, 20_000 * scores / scores.sum()).pvalue > 0.001


def test_chances_by_hand() -> None:
    units = torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 0]])
    counts = torch.tensor([5, 3, 2, 0])
    expected = [0, 1 / (1 + math.exp(2)), math.exp(2) / (1 + math.exp(2)), 0]
    assert class_chances(units, counts, 0.5)[0].tolist() == pytest.approx(expected)
    assert class_chances(units, counts, 1e9)[3].tolist() == pytest.approx([1 / 3] * 3 + [0])
    assert class_chances(units, counts, 1e-4)[0].tolist() == [0, 0, 1, 0]
    assert class_chances(units, torch.tensor([5, 0, 0, 0]), 0.5)[0].tolist() == [0, 0, 0, 0]


def with_identity_head(classes: int = 2, **changes: Any) -> ReCoLoss:
    """Embeddings are the two features, which must not be negative."""
    sizes = {**SIZES, "hidden_channels": 2, "embedding_channels": 2}
    criterion = drawing(ReCoLoss(2, classes, **{**sizes, **changes}))
    for layer in (criterion.head.hidden, criterion.head.output):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return criterion


def test_a_number_by_hand() -> None:
    """Class 0 at (1, 0) and hard, class 1 at (0, 3) and sure: only class 0 has queries, two are present."""
    features = torch.tensor([[1.0, 0, 0], [0, 3, 3]])[None, :, None]
    logits = torch.tensor([[0.0, -9, -9], [0, 9, 9]])[None, :, None]
    criterion = with_identity_head(queries=4, negatives=6, temperature=0.5)
    loss = criterion(features, logits, torch.tensor([[[0, 1, 1]]]))
    of_class = math.log(math.exp(2) + 6) - 2
    assert loss.item() == pytest.approx(of_class / 2)
    seen = criterion.diagnostics
    assert seen.class_loss[0].item() == pytest.approx(of_class)
    assert seen.class_loss[1].isnan()
    assert (seen.positive_similarity[0].item(), seen.negative_similarity[0].item()) == (1, 0)
    assert (seen.hard.tolist()[0], seen.queries_hard.tolist()[0]) == (1, 4)
    assert (seen.hard_share_wanted.tolist()[0], seen.hard_share_drawn.tolist()[0]) == (1, 1)


def test_the_prototype_is_the_mean_over_all_images_and_easy_pixels_too() -> None:
    """Three easy pixels at (0, 1) in one image pull the prototype away from the hard one at (1, 0)."""
    features = torch.tensor([[[[1.0, 1]], [[0, 0]]], [[[0, 0]], [[1, 1]]]])
    logits = torch.tensor([[[[0.0, -9]], [[0, 9]]], [[[9, 9]], [[-9, -9]]]])
    target = torch.tensor([[[0, 1]], [[0, 0]]])
    criterion = with_identity_head(queries=4, negatives=6, temperature=1)
    criterion(features, logits, target)
    assert criterion.diagnostics.positive_similarity[0].item() == pytest.approx(1 / math.sqrt(5))


def test_at_an_infinite_temperature_only_the_number_of_negatives_counts() -> None:
    loss = made("reco", temperature=1e9)(*double_batch())
    assert loss.item() == pytest.approx(math.log(6))


def test_when_all_embeddings_agree_the_loss_is_the_log_of_the_number_of_terms() -> None:
    criterion, batch = made("reco"), double_batch()
    loss = criterion(torch.ones_like(batch.features), batch.logits, batch.target)
    assert loss.item() == pytest.approx(math.log(6))


def test_when_classes_are_apart_a_low_temperature_gives_nothing() -> None:
    features = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])[None, :, None]
    criterion = with_identity_head(temperature=0.02)
    loss = criterion(features, torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))
    assert loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("sure", [True, False])
def test_without_hard_pixels_there_is_a_connected_zero(sure: bool) -> None:
    batch = double_batch()
    criterion = made("reco", hard_threshold=0.97 if sure else 0.0)
    logits = 99 * F.one_hot(batch.target, 4).movedim(-1, 1).float() if sure else batch.logits
    loss = criterion(batch.features, logits, batch.target)
    assert loss.item() == 0
    assert not criterion.selection.queries
    assert criterion.diagnostics.class_loss.isnan().all()
    for gradient in torch.autograd.grad(loss, [batch.features, *criterion.head.parameters()]):
        assert not gradient.any()


def test_pixels_and_classes_are_counted_where_they_are_drawn_from() -> None:
    """In all images, though class confidence is of the annotated ones."""
    features, logits, target = double_batch()
    target = target.clone()
    target[:1] = 0
    every, alone = made("reco"), made("reco")
    torch.testing.assert_close(every(features, logits, target), alone(features, logits, target, annotated=1))
    assert (alone.diagnostics.queries_easy.nan_to_num(0) >= 0).all()


def test_a_class_without_hard_pixels_counts_in_the_average() -> None:
    batch = double_batch()
    batch.logits.movedim(1, -1)[batch.target == 0] = torch.tensor([99.0, 0, 0, 0])
    criterion = made("reco")
    loss = criterion(*batch)
    assert list(criterion.selection.queries) == [1, 2, 3]
    assert loss.item() == pytest.approx(criterion.diagnostics.class_loss[1:].sum().item() / 4)


def reference(criterion: ReCoLoss, features: Tensor, target: Tensor, *, fixed: bool) -> Tensor:
    """The loss on the pixels last drawn, the whole map projected; keys with gradient or without."""
    maps = features.movedim(1, -1).flatten(0, -2)
    z = criterion.head.output(F.relu(criterion.head.hidden(maps)))
    keys = z.detach() if fixed else z
    losses = []
    for c, queries in criterion.selection.queries.items():
        drawn = criterion.selection.negatives[c]
        prototype = F.normalize(keys[target.flatten() == c].mean(0), dim=0)
        q, n = F.normalize(z[queries.pixels], dim=1), F.normalize(keys[drawn.pixels[drawn.columns]], dim=-1)
        scores = torch.cat(((q @ prototype)[:, None], torch.einsum("qd,qnd->qn", q, n)), 1)
        losses.append(F.cross_entropy(scores / criterion.settings.temperature, torch.zeros(len(q)).long()))
    return torch.stack(losses).sum() / 4


@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
def test_gradient_flows_through_the_queries_alone(spatial: tuple[int, ...]) -> None:
    batch, criterion = double_batch(spatial), made("reco")
    loss = criterion(*batch)
    inputs = [batch.features, *criterion.head.parameters()]
    found = torch.autograd.grad(loss, inputs)
    expected, flowing = (
        torch.autograd.grad(reference(criterion, batch.features, batch.target, fixed=fixed), inputs)
        for fixed in (True, False)
    )
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found[0], flowing[0])
    touched = found[0].abs().sum(1).flatten().nonzero()[:, 0].tolist()
    queries = {pixel for drawn in criterion.selection.queries.values() for pixel in drawn.hard.tolist()}
    assert set(touched) == queries


@pytest.mark.parametrize("limit", [1, 5, None])
def test_prototype_and_negatives_are_of_so_many_pixels_of_a_class(limit: int | None) -> None:
    batch, criterion = double_batch((12, 13)), made("reco", queries=50, negatives=40, class_pixels=limit)
    criterion(*batch)
    labels = batch.target.flatten()
    drawn = {c: criterion.selection.negatives[c].pixels for c in range(4)}
    for c, pixels in drawn.items():
        for k in {0, 1, 2, 3} - {c}:
            distinct = set(pixels[labels[pixels] == k].tolist())
            assert len(distinct) <= (limit or len(labels))
            assert limit is None or len(distinct) == limit
    shared = [set(pixels[labels[pixels] == 3].tolist()) for c, pixels in drawn.items() if c != 3]
    assert limit is None or shared[0] == shared[1] == shared[2]


def test_few_pixels_of_a_class_estimate_the_loss_of_all() -> None:
    batch = double_batch((12, 13))
    whole = made("reco", queries=500, negatives=50, class_pixels=None)(*batch).item()
    few_pixels = [
        made("reco", seed=s, queries=500, negatives=50, class_pixels=20)(*batch).item() for s in range(20)
    ]
    assert np.mean(few_pixels) == pytest.approx(whole, rel=0.03)
    assert len({round(x, 6) for x in few_pixels}) == 20


@given(st.integers(0, 1000), st.floats(0.1, 50))
@few
def test_the_scale_of_all_embeddings_makes_no_difference(seed: int, scale: float) -> None:
    batch, criterion, other = double_batch(seed=seed), made("reco"), made("reco")
    with torch.no_grad():
        for parameter in other.head.output.parameters():
            parameter.mul_(scale)
    torch.testing.assert_close(other(*batch), criterion(*batch))


def test_steps_pull_queries_to_their_class() -> None:
    batch, criterion = double_batch((8, 9)), made("reco", queries=64, negatives=32)
    optimizer = torch.optim.Adam([batch.features, *criterion.parameters()], 0.05)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = criterion(*batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    seen = criterion.diagnostics
    assert (seen.positive_similarity > seen.negative_similarity + 0.3).all()


def test_the_defaults_are_the_papers() -> None:
    found = asdict(ReCoSettings())
    expected = {"queries": 256, "negatives": 256, "hard_threshold": 0.97, "temperature": 0.5}
    assert {name: found[name] for name in expected} == expected


# The classes of negatives, then their pixels

PIXELS = [range(40), range(40, 45), range(0), range(99, 100)]


def owner(pixel: int) -> int:
    return next(c for c, pixels in enumerate(PIXELS) if pixel in pixels)


POOLS = [torch.tensor(list(pixels), dtype=torch.int64) for pixels in PIXELS]
CHANCES = torch.tensor([0.5, 0.2, 0.0, 0.3])


def test_each_query_draws_negatives_of_its_own() -> None:
    drawn = draw_negative_classes(POOLS, CHANCES, 50, 17, seeded())
    assert drawn.columns.shape == drawn.classes.shape == (50, 17)
    assert len(drawn.pixels) == len(set(drawn.pixels.tolist()))
    pixels = drawn.pixels[drawn.columns]
    assert [owner(pixel) for pixel in pixels.flatten().tolist()] == drawn.classes.flatten().tolist()
    assert set(drawn.columns.flatten().tolist()) == set(range(len(drawn.pixels)))
    assert len({tuple(row) for row in drawn.columns.tolist()}) == 50


@pytest.mark.parametrize("chances", [[0.5, 0.2, 0.0, 0.3], [0.0, 3.0, 0.0, 1.0]])
def test_the_classes_of_negatives_follow_their_chances(chances: list[float]) -> None:
    """Absent ones give none."""
    drawn = draw_negative_classes(POOLS, torch.tensor(chances), 100, 200, seeded())
    counts = drawn.classes.flatten().bincount(minlength=4)
    given = [c for c, chance in enumerate(chances) if chance]
    expected = [20_000 * chances[c] / sum(chances) for c in given]
    assert counts.sum() == counts[given].sum() == 20_000
    assert chisquare(counts[given], expected).pvalue > 0.001


def test_the_classes_of_negatives_do_not_depend_on_their_place() -> None:
    """Each is drawn by itself: first and last query, and neighbours, see the same chances."""
    classes = draw_negative_classes(POOLS, torch.tensor([1.0, 1, 0, 0]), 200, 200, seeded()).classes
    for part in (classes[:20], classes[-20:], classes[:, :20]):
        assert part.double().mean().item() == pytest.approx(0.5, abs=0.03)
    same = (classes[:, 1:] == classes[:, :-1]).double().mean().item()
    assert same == pytest.approx(0.5, abs=0.02)


def test_pixels_of_negatives_are_uniform_within_their_class() -> None:
    drawn = draw_negative_classes(POOLS, CHANCES, 100, 300, seeded())
    counts = drawn.pixels[drawn.columns].flatten().bincount(minlength=120)
    for pixels in PIXELS[:2]:
        assert chisquare(counts[list(pixels)]).pvalue > 0.001


def test_a_seed_repeats_negatives_by_class() -> None:
    def once(seed: int) -> Tensor:
        drawn = draw_negative_classes(POOLS, CHANCES, 4, 9, seeded(seed))
        return drawn.pixels[drawn.columns]

    assert torch.equal(once(1), once(1))
    assert not torch.equal(once(1), once(2))
