"""Eq. 5 to 7: the loss of a query, of a class, and of all classes, on tensors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ccdcseg.losses.ccdc.settings import ClassAverage, Denominator, QueryReduction
from ccdcseg.losses.parts.info_nce import info_nce
from ccdcseg.losses.parts.projection import at_least_single
from ccdcseg.losses.parts.selection import ClassResult


def ccdc_loss(
    queries: Mapping[int, Tensor],
    cores: Tensor,
    negatives: Mapping[int, tuple[Tensor, Tensor]],
    *,
    temperature: float = 0.5,
    denominator: Denominator | str = Denominator.PIXEL,
    query_reduction: QueryReduction | str = QueryReduction.MEAN,
    class_average: ClassAverage | str = ClassAverage.QUERY_CLASSES,
) -> Tensor:
    """CCDC's loss of representations that were drawn already (Eq. 5 to 7); `CCDCLoss` draws and projects them.

        l(q)   = -log( exp(q.k_A / tau) / (exp(q.k_A / tau) + sum_{c != A} S_c(q)) )
        L_A    = mean over the queries of A of l(q)
        L_CCDC = mean of L_A over the classes that have queries

    Args:
        queries: By query class A, (Q, d) unit vectors.
        cores: (C, d) unit vectors k_A.
        negatives: By query class, (n, d) unit vectors, and (n,) int64 the class of each, none of them its own.
        temperature: tau.
        denominator: Form of S_c, see `Denominator`.
        query_reduction: From the queries of a class to its loss, see `QueryReduction`.
        class_average: By what the sum over classes is divided, see `ClassAverage`.

    Returns:
        () the loss, in float32, or float64 for such vectors, under autocast too; zero without queries.

    Raises:
        ValueError: A choice that there is not, a temperature that is not above 0, a query class without core or
            negatives, or negatives of the query's class, of none that there is, or not of as many classes.

    Example:
        >>> cores = torch.eye(2)  # of two classes
        >>> negatives = torch.tensor([[0.0, 1.0]]), torch.tensor([1])
        >>> print(f"{ccdc_loss({0: cores[:1]}, cores, {0: negatives}):.4f}")
        0.1269
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    queries = {c: at_least_single(vectors) for c, vectors in queries.items() if len(vectors)}
    if strange := queries.keys() - (negatives.keys() & {*range(len(cores))}):
        raise ValueError(f"class {min(strange)} has queries, but no core or no negatives")
    cores, others = at_least_single(cores), {c: _by_class(c, len(cores), *negatives[c]) for c in queries}
    with torch.autocast(cores.device.type, enabled=False):
        results = class_results(
            queries, cores, others, temperature, Denominator(denominator), QueryReduction(query_reduction)
        )
        return (
            average_classes(results, len(cores), ClassAverage(class_average)) if results else 0 * cores.sum()
        )


def _by_class(own: int, count: int, vectors: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The negatives of a query class, one class after the other."""
    whole = not (classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool)
    known = whole and not ((classes == own) | (classes < 0) | (classes >= count)).any()
    if len(vectors) != len(classes) or not known:
        raise ValueError(
            f"negatives[{own}] must be (n, d) vectors and (n,) classes other than {own}, from 0 to {count - 1}; not"
            f" {len(vectors)} vectors of the classes {classes.tolist()}"
        )
    order = classes.argsort(stable=True)
    return at_least_single(vectors[order.to(vectors.device)]), classes[order]


def class_results(
    queries: Mapping[int, Tensor],
    cores: Tensor,
    negatives: Mapping[int, tuple[Tensor, Tensor]],
    temperature: float,
    denominator: Denominator,
    query_reduction: QueryReduction,
) -> dict[int, ClassResult]:
    """Loss of each query class (Eq. 5 and 6), with the similarities it is made of; see `ccdc_loss`."""
    found = {}
    for c, query in queries.items():
        vectors, classes = negatives[c]
        attraction, repulsion = query @ cores[c], query @ vectors.T
        found[c] = ClassResult(
            loss=class_loss(attraction, repulsion, classes, temperature, denominator, query_reduction),
            positive_similarity=attraction.detach().mean(),
            negative_similarity=repulsion.detach().mean(),
        )
    return found


def average_classes(results: Mapping[int, ClassResult], classes: int, average: ClassAverage) -> Tensor:
    """The sum over the query classes by their number, or by the number of all classes (Eq. 7)."""
    total = torch.stack([result.loss for result in results.values()]).sum()
    return total / (classes if average is ClassAverage.ALL_CLASSES else len(results))


def class_loss(
    positive: Tensor,
    negative: Tensor,
    classes: Tensor,
    temperature: float,
    denominator: Denominator,
    reduction: QueryReduction,
) -> Tensor:
    """Loss of a class (Eq. 6), from the similarities of its queries; arguments as of `query_losses`."""
    if reduction is QueryReduction.SET:
        positive, negative = positive.amin(0, keepdim=True), negative.mean(0, keepdim=True)
    losses = query_losses(positive, negative, classes, temperature, denominator)
    if reduction is QueryReduction.HARDEST:
        return losses.gather(0, positive.argmin(0, keepdim=True))[0]
    return losses.mean()


def query_losses(
    positive: Tensor, negative: Tensor, classes: Tensor, temperature: float, denominator: Denominator
) -> Tensor:
    """Loss of each query.

    ``l(q) = -log( exp(q.k/tau) / (exp(q.k/tau) + sum_c S_c(q)) )``, with S_c as
    `Denominator` says. Deviation: the paper prints ``exp(-s)`` and calls s a
    similarity, which would push queries from their core; here s is minus the dot product, as its text needs.

    Args:
        positive: (Q,) dot products of the queries with their core.
        negative: (Q, n) dot products with the negatives.
        classes: (n,) class of the negative in each column, one class after the other; on the CPU.
        temperature: tau.
        denominator: form of S_c.

    Returns:
        (Q,) losses; zero without negatives.
    """
    scores = negative / temperature
    if denominator is Denominator.CLASS_MEAN:
        scores = _class_means(scores, classes)
    return info_nce(positive / temperature, scores)


def _class_means(similarity: Tensor, classes: Tensor) -> Tensor:
    """(Q, n) similarities to (Q, K), one column for each class among the negatives."""
    _, sizes = torch.unique_consecutive(classes, return_counts=True)
    parts = torch.split(similarity, sizes.tolist(), 1)
    return torch.stack([part.mean(1) for part in parts], 1) if parts else similarity
