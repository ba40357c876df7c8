"""The contrastive loss of one class, given its queries, core and negatives (Eq. 5 and 6)."""

import torch
from torch import Tensor

from ccdcseg.losses.settings import Denominator, QueryReduction


def query_losses(
    positive: Tensor, negative: Tensor, classes: Tensor, temperature: float, denominator: Denominator
) -> Tensor:
    """Loss of each query.

    ``l(q) = -log( exp(q.k/tau) / (exp(q.k/tau) + sum_c S_c(q)) )``, with S_c as
    :class:`~ccdcseg.losses.settings.Denominator` says. Deviation: the paper prints ``exp(-s)`` and calls s a
    similarity, which would push queries from their core; here s is minus the dot product, as its text needs.

    Args:
        positive: (Q,) dot products of the queries with their core.
        negative: (Q, n) dot products with the negatives.
        classes: (n,) class of the negative in each column.
        temperature: tau.
        denominator: form of S_c.

    Returns:
        (Q,) losses; zero without negatives.
    """
    attraction = positive[:, None] / temperature
    repulsion = negative / temperature
    if denominator is not Denominator.PIXEL:
        repulsion = _by_class(repulsion, classes, denominator)
    return torch.logsumexp(torch.cat((attraction, repulsion), 1), 1) - attraction[:, 0]


def _by_class(similarity: Tensor, classes: Tensor, denominator: Denominator) -> Tensor:
    """(Q, n) similarities to (Q, K), one column for each class among the negatives."""
    parts = [similarity[:, classes == c] for c in torch.unique(classes)]
    reduced = [p.mean(1) if denominator is Denominator.CLASS_MEAN else p.amax(1) for p in parts]
    return torch.stack(reduced, 1) if reduced else similarity


def reduce_queries(losses: Tensor, positive: Tensor, reduction: QueryReduction) -> Tensor:
    """Loss of the class: the mean over its queries, or that of the query farthest from the core."""
    if reduction is QueryReduction.MEAN:
        return losses.mean()
    return losses[positive.argmin()]
