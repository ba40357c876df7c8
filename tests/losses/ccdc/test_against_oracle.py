"""The whole loss against the plain-Python oracle, number by number, on the pixels that it drew."""

import math
from collections import Counter
from dataclasses import asdict, replace
from functools import cache
from itertools import chain, product
from typing import Any

import oracle
import pytest
import torch
from batches import ENUMS, Batch, drawing, random_batch, repeatable
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ccdcseg.losses import CCDCLoss, CCDCSettings, QueryStrategy

IGNORED = 9
SPATIAL = [(5, 6), (2, 4, 5)]
SMALL = CCDCSettings(
    queries=9,
    negatives=8,
    core_threshold=0.8,
    core_pixels=5,
    hidden_channels=5,
    embedding_channels=4,
    fixed_threshold=0.6,
)
OTHERS = {
    "core_as_queries": [False],
    "background_queries": [False],
    "core_pixels": [None, 1],
    "core_gradient": [True],
    "negative_gradient": [True],
    "temperature": [0.07],
    "region_stride": [2],
}
CHANGES = [
    *((name, member) for name, enum in ENUMS.items() for member in enum),
    *((name, value) for name, values in OTHERS.items() for value in values),
]
FILLS: dict[str, oracle.Fill] = {
    "fill": "without_replacement_fill",
    "replace": "with_replacement",
    "short": "short",
}
any_settings = st.fixed_dictionaries(
    {name: st.sampled_from(list(enum)) for name, enum in ENUMS.items()}
    | {name: st.booleans() for name in ("core_as_queries", "background_queries")}
    | {"core_pixels": st.sampled_from([None, 1, 5])}
)


class Reference:
    """What the oracle makes of one batch, and of the pixels drawn from it."""

    def __init__(self, batch: Batch, criterion: CCDCLoss, progress: float) -> None:
        self.settings, self.progress = criterion.settings, progress
        self.classes = batch.logits.shape[1]
        self.shape = tuple(batch.target.shape)
        self.positions, self.probabilities, self.labels = oracle.valid_pixels(
            batch.logits.tolist(), batch.target.tolist(), self.shape, IGNORED
        )
        self.matrix = oracle.confusion_matrix(self.probabilities, self.labels, self.classes)
        self.sizes = [self.labels.count(c) for c in range(self.classes)]
        self.represent = cache(self._representation(batch.features, criterion.head))

    def place(self, indices: list[int]) -> list[oracle.Position]:
        return [self.positions[index] for index in indices]

    def core(self, c: int) -> list[oracle.Position]:
        pixels = oracle.core_pixels(self.probabilities, self.labels, c, self.settings.core_threshold)
        return self.place(pixels)

    def threshold(self, c: int) -> float:
        fixed = self.settings.threshold == "fixed"
        return self.settings.fixed_threshold if fixed else oracle.threshold(self.matrix[c][c])

    def easy_and_hard(self, c: int) -> tuple[list[oracle.Position], list[oracle.Position]]:
        kept_out = [] if self.settings.core_as_queries else self.core(c)
        parts = oracle.split_easy_hard(self.probabilities, self.labels, c, self.threshold(c))
        easy, hard = ([p for p in self.place(part) if p not in kept_out] for part in parts)
        return easy, hard

    def hard_share(self, c: int) -> float:
        return oracle.hard_share(self.settings.query_strategy.value, self.matrix[c][c], self.progress)

    def query_counts(self, c: int) -> tuple[int, int]:
        strategy = self.settings.query_strategy
        easy, hard = map(len, self.easy_and_hard(c))
        if strategy is QueryStrategy.EASY:
            hard = 0
        if strategy is QueryStrategy.HARD:
            easy = 0
        share = self.hard_share(c)
        return oracle.query_counts(share, self.settings.queries, easy, hard, FILLS[self.settings.shortage])

    def negative_counts(self, c: int) -> list[int]:
        strategy = self.settings.negative_strategy.value
        weights = oracle.negative_weights(strategy, c, self.matrix, self.sizes)
        return oracle.negative_counts(weights, self.settings.negatives)

    def query_classes(self) -> list[int]:
        first = 0 if self.settings.background_queries else 1
        return [c for c in range(first, self.classes) if self.core(c) and sum(self.query_counts(c))]

    def _representation(self, features: Tensor, head: torch.nn.Module) -> Any:
        maps = features.tolist()
        w1, b1, w2, b2 = (
            p.tolist() for p in (head.hidden.weight, head.hidden.bias, head.output.weight, head.output.bias)
        )
        everywhere = product(*(range(size) for size in self.shape))
        ignored = frozenset(everywhere) - frozenset(self.positions)
        offsets = oracle.region_offsets(
            {"pixel": 1, "pair": 2, "block": 4}[self.settings.region],
            self.settings.region_stride,
            len(self.shape) - 1,
        )
        return lambda position: oracle.represent(
            position,
            lambda p: oracle.channels_at(maps, p),
            lambda feature: oracle.project(feature, w1, b1, w2, b2),
            offsets,
            self.shape,
            self.settings.region_combination.value,
            ignored,
        )


def positions(pixels: Tensor, shape: tuple[int, ...]) -> list[oracle.Position]:
    rows = torch.stack(torch.unravel_index(pixels.flatten(), shape), -1).tolist()
    return [tuple(row) for row in rows]


def assert_drawn_from(drawn: list[oracle.Position], source: list[oracle.Position], count: int) -> None:
    assert len(drawn) == count
    assert set(drawn) <= set(source)


def check_draws(criterion: CCDCLoss, reference: Reference, target: Tensor) -> None:
    """Every pixel drawn comes from the oracle's set, and as many of each as the oracle says."""
    settings, selection = criterion.settings, criterion.selection
    assert selection.shape == reference.shape
    assert sorted(selection.queries) == sorted(selection.negatives) == reference.query_classes()
    for c in range(reference.classes):
        core = reference.core(c)
        assert selection.core_available[c] == len(core)
        assert (c in selection.core) == bool(core)
        if core:
            drawn = positions(selection.core[c], reference.shape)
            assert_drawn_from(drawn, core, min(len(core), settings.core_pixels or len(core)))
            assert len(set(drawn)) == len(drawn)
    for c in reference.query_classes():
        queries, (easy, hard) = selection.queries[c], reference.easy_and_hard(c)
        n_easy, n_hard = reference.query_counts(c)
        assert_drawn_from(positions(queries.easy, reference.shape), easy, n_easy)
        assert_drawn_from(positions(queries.hard, reference.shape), hard, n_hard)
        assert (queries.easy_available, queries.hard_available) == (len(easy), len(hard))
        if settings.shortage != "replace":
            assert len(set(queries.pixels.tolist())) == n_easy + n_hard
        negatives = selection.negatives[c]
        counts = Counter(negatives.classes.tolist())
        assert [counts[k] for k in range(reference.classes)] == reference.negative_counts(c)
        labels = target.flatten()[negatives.pixels][negatives.columns]
        assert (labels == negatives.classes).all()
        assert len(negatives.pixels) == sum(counts.values())


def class_losses(criterion: CCDCLoss, reference: Reference) -> dict[int, tuple[float, float, float]]:
    """By query class: its loss, and the mean similarity of its queries with core and negatives."""
    settings, selection, found = criterion.settings, criterion.selection, {}
    for c, drawn in selection.queries.items():
        at = [reference.represent(p) for p in positions(selection.core[c], reference.shape)]
        core = oracle.core_representation(at)
        queries = [reference.represent(p) for p in positions(drawn.pixels, reference.shape)]
        negatives = selection.negatives[c]
        by_class: dict[int, list[oracle.Vector]] = {}
        drawn_here = positions(negatives.pixels[negatives.columns], reference.shape)
        for k, position in zip(negatives.classes.tolist(), drawn_here, strict=True):
            by_class.setdefault(k, []).append(reference.represent(position))
        attraction = [oracle.dot(query, core) for query in queries]
        vectors = chain.from_iterable(by_class.values())
        repulsion = [oracle.dot(query, vector) for vector in vectors for query in queries]
        found[c] = (
            oracle.class_loss(
                queries,
                core,
                by_class,
                settings.temperature,
                settings.denominator.value,
                settings.query_reduction.value,
            ),
            sum(attraction) / len(attraction),
            sum(repulsion) / len(repulsion),
        )
    return found


def whole_loss(criterion: CCDCLoss, reference: Reference) -> float:
    """The oracle's own sum over classes, for negatives shared by all queries of a class."""
    settings, selection, shape = criterion.settings, criterion.selection, reference.shape
    draws = {
        c: oracle.Draw(
            positions(selection.core[c], shape),
            positions(selection.queries[c].pixels, shape),
            {k: positions(drawn.pixels[drawn.classes == k], shape) for k in set(drawn.classes.tolist())},
        )
        for c, drawn in selection.negatives.items()
    }
    return oracle.ccdc_loss(
        draws,
        reference.classes,
        reference.represent,
        settings.temperature,
        settings.denominator.value,
        settings.query_reduction.value,
        settings.class_average.value,
    )


def check_diagnostics(
    criterion: CCDCLoss, reference: Reference, by_class: dict[int, tuple[float, float, float]]
) -> None:
    seen, nan = criterion.diagnostics, math.nan
    for c, row in enumerate(reference.matrix):
        assert seen.confusion[c].tolist() == pytest.approx(
            row or [nan] * reference.classes, abs=1e-6, nan_ok=True
        )
        assert seen.confidence[c].item() == pytest.approx(row[c] if row else nan, abs=1e-6, nan_ok=True)
        threshold = reference.threshold(c) if row else nan
        assert seen.threshold[c].item() == pytest.approx(threshold, abs=1e-6, nan_ok=True)
        assert seen.core[c].item() == len(reference.core(c))
        active = c in by_class
        counts = [*map(len, reference.easy_and_hard(c)), *reference.query_counts(c)] if active else [nan] * 4
        found = [seen.easy[c], seen.hard[c], seen.queries_easy[c], seen.queries_hard[c]]
        assert [value.item() for value in found] == pytest.approx(counts, nan_ok=True)
        shares = [reference.hard_share(c), counts[3] / (counts[2] + counts[3])] if active else [nan] * 2
        found = [seen.hard_share_wanted[c], seen.hard_share_drawn[c]]
        assert [value.item() for value in found] == pytest.approx(shares, abs=1e-6, nan_ok=True)
        found = [seen.class_loss[c], seen.positive_similarity[c], seen.negative_similarity[c]]
        expected = by_class.get(c, (nan, nan, nan))
        assert [value.item() for value in found] == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)


def check_loss(settings: CCDCSettings, spatial: tuple[int, ...], seed: int) -> None:
    """A call in the middle of a training, on a batch with ignored pixels, one class absent."""
    batch = Batch(*random_batch(spatial, classes=5, certainty=6.0, seed=seed))
    batch.target[batch.target == 3] = 1
    batch.target.view(-1)[7:16] = IGNORED
    torch.manual_seed(seed)
    criterion = drawing(CCDCLoss(3, 5, ignore_index=IGNORED, **asdict(settings)), seed).double()
    double = batch._replace(features=batch.features.double(), logits=batch.logits.double())
    loss = criterion(*double, progress=0.5)

    reference = Reference(double, criterion, progress=0.5)
    check_draws(criterion, reference, batch.target)
    by_class = class_losses(criterion, reference)
    check_diagnostics(criterion, reference, by_class)
    divisor = len(by_class) if settings.class_average == "query_classes" else reference.classes
    total = sum(value for value, *_ in by_class.values()) / max(1, divisor)
    assert total == pytest.approx(whole_loss(criterion, reference), rel=1e-12)
    assert loss.item() == pytest.approx(total, rel=1e-10, abs=1e-12)
    assert loss.dtype == torch.float64


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_every_setting_alone(name: str, value: Any, spatial: tuple[int, ...]) -> None:
    check_loss(replace(SMALL, **{name: value}), spatial, seed=1)


@given(any_settings, st.sampled_from(SPATIAL), st.integers(0, 100))
@repeatable
def test_settings_together(changes: dict[str, Any], spatial: tuple[int, ...], seed: int) -> None:
    check_loss(replace(SMALL, **changes), spatial, seed)


@pytest.mark.parametrize("spatial", SPATIAL)
def test_the_defaults(spatial: tuple[int, ...]) -> None:
    check_loss(CCDCSettings(core_threshold=0.9, hidden_channels=8, embedding_channels=6), spatial, seed=2)


def test_the_batches_of_these_tests_have_something_to_show() -> None:
    """Several query classes, one without core, one absent; easy and hard queries; drawn, not exhausted."""
    batch = random_batch((5, 6), classes=5, certainty=6.0, seed=1)
    batch.target[batch.target == 3] = 1
    criterion = drawing(CCDCLoss(3, 5, **asdict(SMALL)), 1)
    criterion(*batch)
    queries = criterion.selection.queries
    assert len(queries) >= 2
    assert any(len(q.easy) and len(q.hard) for q in queries.values())
    assert any(q.easy_available + q.hard_available > SMALL.queries for q in queries.values())
    assert any(len(core) == SMALL.core_pixels for core in criterion.selection.core.values())
