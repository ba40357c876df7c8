"""Class confidence and class confusion (Eq. 1 and 4)."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ccdcseg.losses.parts.settings import StatisticsScope

_CHUNK = 2**14
"""Pixels summed in one go; single precision would drift over the millions of a volume."""


@dataclass(frozen=True)
class ClassStatistics:
    """What the model thinks of the pixels of each class.

    Attributes:
        matrix: (C, C) float32; ``matrix[A, c]`` is the mean probability of class ``c`` over the pixels labelled
            ``A``. Its diagonal is the class confidence D_A, the rest of a row the confusion of A. A class that
            was never seen has a row of zeros.
        counts: (C,) int64, pixels of each class in the batch.
    """

    matrix: Tensor
    counts: Tensor

    @property
    def confidence(self) -> Tensor:
        """(C,) class confidence D_A, 0 where the class was never seen."""
        return self.matrix.diagonal()


def sum_over_ranks(*tensors: Tensor) -> None:
    """Add each tensor over all ranks of the default process group, in place; one process: nothing."""
    if dist.is_available() and dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def class_statistics(
    probabilities: Tensor,
    labels: Tensor,
    scope: StatisticsScope = StatisticsScope.RANK,
    annotated: int | None = None,
) -> ClassStatistics:
    """Confidence and confusion of every class over a batch.

    ``M[A, c] = mean over i in I_A of p_i^c`` (Eq. 1 for c = A, Eq. 4 for c != A).

    Args:
        probabilities: (B, C, N) softmax probabilities, N pixels an image.
        labels: (B, N) integer labels; pixels outside [0, C) are left out.
        scope: the pixels of this rank or of all ranks.
        annotated: the first so many images alone; None: all.

    Returns:
        The statistics; rows of classes without pixels are zero. All are NaN where an image that is left out
        holds what is not finite.
    """
    classes = torch.arange(probabilities.shape[1], device=labels.device)
    members = (labels[:annotated, None] == classes[:, None]).to(probabilities.dtype)
    seen = probabilities[:annotated]
    parts = zip(torch.split(members, _CHUNK, 2), torch.split(seen, _CHUNK, 2), strict=True)
    sums = torch.stack([torch.bmm(m, p.transpose(1, 2)).sum(0) for m, p in parts]).sum(0)
    counts = members.sum(2).long().sum(0)
    if annotated is not None:
        sums += 0 * probabilities[annotated:].sum()
    if scope is StatisticsScope.GLOBAL:
        sum_over_ranks(sums, counts)
    return ClassStatistics(sums / counts.clamp(min=1)[:, None], counts)
