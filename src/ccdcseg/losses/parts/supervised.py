"""Anchors against keys of known class, which ContrastiveSeg and RegionContrast share."""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from ccdcseg.losses.parts.selection import ClassResult


def consecutive(sizes: Sequence[int]) -> list[slice]:
    """Where parts of these sizes lie, one after the other."""
    return [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


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
        losses: (A,) of those that have positives and negatives.
        similarity: (A, n) dot products of anchors and keys.
        own: the keys of the class; all others are negatives.
        itself: whether these keys are the anchors.
    """
    known = similarity.detach()
    positive, others = known[:, own], torch.cat((known[:, : own.start], known[:, own.stop :]), 1)
    if itself:  # without the diagonal
        positive = positive.flatten()[1:].view(len(known) - 1, len(known) + 1)[:, :-1]
    return ClassResult(losses.mean(), positive.flatten().mean(), others.flatten().mean())
