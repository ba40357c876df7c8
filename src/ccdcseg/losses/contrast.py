"""The contrastive loss of one class, given its queries, core and negatives (Eq. 5 and 6)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ccdcseg.losses.settings import Denominator, QueryReduction


@dataclass(frozen=True)
class ClassResult:
    """What contrasting one class gave: () each.

    Attributes:
        loss: of the class.
        positive_similarity: mean dot product of its queries and what they are pulled to.
        negative_similarity: mean dot product of its queries and what they are pushed from.
    """

    loss: Tensor
    positive_similarity: Tensor
    negative_similarity: Tensor


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


def supervised_losses(similarity: Tensor, same: Tensor, temperature: float) -> Tensor:
    """Loss of each anchor against positives and negatives of known class.

    ``l(i) = mean over positives j of -log( e^{s_ij/tau} / (e^{s_ij/tau} + sum_k e^{s_ik/tau}) )``, k over the
    negatives.

    Args:
        similarity: (A, n) dot products of anchors and keys.
        same: (A, n) 1 for a positive, 0 for a negative, -1 for a key that takes no part (the anchor itself).
        temperature: tau.

    Returns:
        (A,) losses; 0 for an anchor without positives or without negatives.
    """
    scores = similarity / temperature
    negatives = scores.masked_fill(same != 0, -1e9).logsumexp(1, keepdim=True)
    each = F.softplus(negatives - scores) * (same == 1)
    losses: Tensor = each.sum(1) / (same == 1).sum(1).clamp(min=1)
    return losses
