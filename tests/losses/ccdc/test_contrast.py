import math

import oracle
import pytest
import torch
import torch.nn.functional as F
from batches import seeded
from torch import Tensor

from ccdcseg.losses import ccdc_loss
from ccdcseg.losses.ccdc.contrast import class_loss, query_losses
from ccdcseg.losses.ccdc.settings import ClassAverage, Denominator, QueryReduction

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
    positive, negative = torch.tensor([0.9, 0.2, -0.4]), torch.tensor([[0.0], [0.9], [-0.9]])
    arguments = positive, negative, torch.tensor([1]), 1.0, Denominator.PIXEL
    losses = query_losses(*arguments)
    assert losses.argmax() == 1
    assert class_loss(*arguments, QueryReduction.MEAN) == losses.mean()
    # The smallest similarity to the core decides, not the largest loss.
    assert class_loss(*arguments, QueryReduction.HARDEST) == losses[2]


def test_the_set_has_the_smallest_similarity_to_the_core_and_the_mean_one_to_a_negative() -> None:
    positive, negative = torch.tensor([0.9, -0.4]), torch.tensor([[0.0, 0.6], [0.8, 0.2]])
    found = class_loss(positive, negative, torch.tensor([1, 2]), 1.0, Denominator.PIXEL, QueryReduction.SET)
    # Two negatives of 0.4 each: log(1 + 2 e^(0.4 - -0.4)).
    assert found.item() == pytest.approx(math.log(1 + 2 * math.exp(0.8)))


@pytest.mark.parametrize("reduction", QueryReduction)
def test_of_one_query_every_reduction_is_its_loss(reduction: QueryReduction) -> None:
    positive, negative = torch.tensor([0.3]), torch.linspace(-1, 1, 6)[None]
    losses = query_losses(positive, negative, CLASSES, 0.5, Denominator.CLASS_MEAN)
    found = class_loss(positive, negative, CLASSES, 0.5, Denominator.CLASS_MEAN, reduction)
    torch.testing.assert_close(found, losses[0])


NEGATIVES = {0: [1] * 4 + [2] * 3, 2: [0] * 2 + [1] * 5}
"""By query class, the classes of its negatives; class 1 has no queries."""


@pytest.mark.parametrize("average", ClassAverage)
@pytest.mark.parametrize("reduction", QueryReduction)
@pytest.mark.parametrize("denominator", Denominator)
def test_the_loss_of_given_representations_is_the_oracles(
    denominator: str, reduction: str, average: str
) -> None:
    vectors, cores = units(19, 3), units(3, 4)
    queries = {0: vectors[:3], 2: vectors[3:5]}
    negatives = {0: vectors[5:12], 2: vectors[12:]}
    given = {c: (negatives[c], torch.tensor(NEGATIVES[c])) for c in queries}
    found = ccdc_loss(
        queries,
        cores,
        given,
        temperature=0.3,
        denominator=str(denominator),
        query_reduction=str(reduction),
        class_average=str(average),
    )
    losses = []
    for c, query in queries.items():
        by_class: dict[int, list[oracle.Vector]] = {}
        for k, vector in zip(NEGATIVES[c], negatives[c].tolist(), strict=True):
            by_class.setdefault(k, []).append(vector)
        losses.append(
            oracle.class_loss(
                query.tolist(), cores[c].tolist(), by_class, 0.3, str(denominator), str(reduction)
            )
        )
    divisor = 3 if average == "all_classes" else 2
    assert found.item() == pytest.approx(sum(losses) / divisor, rel=1e-12)


@pytest.mark.parametrize("denominator", Denominator)
def test_the_order_of_the_negatives_makes_no_difference(denominator: Denominator) -> None:
    queries, cores, negatives = {1: units(3, 0)}, units(6, 1), units(6, 2)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    first, other = (
        ccdc_loss(queries, cores, {1: (negatives[own], CLASSES[own])}, denominator=denominator)
        for own in (torch.arange(6), order)
    )
    torch.testing.assert_close(other, first)


@pytest.mark.parametrize(("own", "count"), [(1, 5), (2, 6)])
def test_negatives_without_a_class_or_of_the_own_one_are_refused(own: int, count: int) -> None:
    negatives = {own: (units(6, 2), CLASSES[:count])}
    with pytest.raises(ValueError, match=rf"negatives\[{own}\] must be .* classes other than {own}"):
        ccdc_loss({own: units(3, 0)}, units(6, 1), negatives)


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_autocast_makes_no_difference(given: torch.dtype) -> None:
    queries, cores, negatives = (units(count, seed).to(given) for seed, count in enumerate((3, 6, 6)))
    arguments = {1: queries}, cores, {1: (negatives, CLASSES)}
    with torch.autocast("cpu", torch.bfloat16):
        found = ccdc_loss(*arguments)
    assert found.dtype == torch.float32
    assert torch.equal(found, ccdc_loss(*arguments))


def test_without_queries_the_loss_is_a_connected_zero() -> None:
    cores = units(3, 0).requires_grad_()
    loss = ccdc_loss({}, cores, {})
    loss.backward()
    assert loss.item() == 0
    assert not cores.grad.any()


def test_a_class_whose_queries_are_none_takes_no_part() -> None:
    cores, negatives = torch.eye(2), (torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    both = {0: cores[:1], 1: torch.empty(0, 2)}
    for reduction in QueryReduction:
        found = ccdc_loss(both, cores, {0: negatives, 1: negatives}, query_reduction=reduction)
        torch.testing.assert_close(found, ccdc_loss({0: cores[:1]}, cores, {0: negatives}))


def test_a_choice_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="class_max"):
        ccdc_loss({}, units(3, 0), {}, denominator="class_max")


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    cores, negatives = torch.eye(2), (torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        ccdc_loss({0: cores[:1]}, cores, {0: negatives}, temperature=temperature)


@pytest.mark.parametrize(
    ("own", "classes", "words"),
    [
        (0, torch.tensor([9]), "from 0 to 1"),
        (0, torch.tensor([-1]), "from 0 to 1"),
        (0, torch.tensor([1.0]), "from 0 to 1"),
        (7, torch.tensor([1]), "class 7 has queries, but no core or no negatives"),
        (1, torch.tensor([1]), "class 1 has queries, but no core or no negatives"),
    ],
)
def test_classes_that_there_are_not_are_refused(own: int, classes: Tensor, words: str) -> None:
    cores, vectors = torch.eye(2), torch.tensor([[0.0, 1.0]])
    with pytest.raises(ValueError, match=words):
        ccdc_loss({own: vectors}, cores, {7 if own == 7 else 0: (vectors, classes)})
