"""The contrastive loss of one class, given its queries, core and negatives (Eq. 5 and 6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from ccdcseg.losses.settings import Denominator, QueryReduction


def consecutive(sizes: Sequence[int]) -> list[slice]:
    """Where parts of these sizes lie, one after the other."""
    return [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


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
        classes: (n,) class of the negative in each column, one class after the other; on the CPU.
        temperature: tau.
        denominator: form of S_c.

    Returns:
        (Q,) losses; zero without negatives.
    """
    attraction = positive[:, None] / temperature
    repulsion = negative / temperature
    if denominator is Denominator.CLASS_MEAN:
        repulsion = _class_means(repulsion, classes)
    return torch.logsumexp(torch.cat((attraction, repulsion), 1), 1) - attraction[:, 0]


def _class_means(similarity: Tensor, classes: Tensor) -> Tensor:
    """(Q, n) similarities to (Q, K), one column for each class among the negatives."""
    _, sizes = torch.unique_consecutive(classes, return_counts=True)
    parts = torch.split(similarity, sizes.tolist(), 1)
    return torch.stack([part.mean(1) for part in parts], 1) if parts else similarity


def reduce_queries(losses: Tensor, positive: Tensor, reduction: QueryReduction) -> Tensor:
    """Loss of the class: the mean over its queries, or that of the query farthest from the core."""
    if reduction is QueryReduction.MEAN:
        return losses.mean()
    return losses.gather(0, positive.argmin(0, keepdim=True))[0]


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


def supervised_result(losses: Tensor, similarity: Tensor, own: slice, *, itself: bool = False) -> ClassResult:
    """Result of the anchors of one class.

    Args:
        losses: (A,) of those that have positives.
        similarity: (A, n) dot products of anchors and keys.
        own: the keys of the class; all others are negatives.
        itself: whether these keys are the anchors.
    """
    known = similarity.detach()
    positive, others = known[:, own], torch.cat((known[:, : own.start], known[:, own.stop :]), 1)
    if itself:  # without the diagonal
        positive = positive.flatten()[1:].view(len(known) - 1, len(known) + 1)[:, :-1]
    return ClassResult(losses.mean(), positive.flatten().mean(), others.flatten().mean())
