"""Losses of the logits: Focal, generalised Dice, top-k cross-entropy and Matthews' correlation coefficient.

Each reads class logits and labels alone, in 2-D and 3-D, in float32 whatever the network's precision.
Ignored pixels take no part in anything.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ccdcseg.losses.parts.inputs import (
    class_labels,
    ignored_label,
    refuse_labels,
    refuse_others,
    refuse_probabilities,
)
from ccdcseg.losses.parts.settings import Settings, StatisticsScope


class VolumeWeight(StrEnum):
    """How much a class counts in the generalised Dice loss, V being its number of pixels."""

    INVERSE_SQUARE = "inverse_square"
    """``1 / V^2``, as published."""
    INVERSE = "inverse"
    """``1 / V``, as in nnU-Net's first version."""


@dataclass(frozen=True, kw_only=True)
class FocalSettings(Settings):
    """Settings of `FocalLoss`.

    Attributes:
        gamma: how much less an easy pixel counts, at least 0; 0 is cross-entropy.
    """

    gamma: float = 2.0

    _at_least_zero: ClassVar[tuple[str, ...]] = ("gamma",)


@dataclass(frozen=True, kw_only=True)
class GDLSettings(Settings):
    """Settings of `GDLLoss`.

    Attributes:
        volume_weight: see `VolumeWeight`.
        background: whether class 0 takes part.
        batch_wise: whether the pixels of all images count together, not image by image.
    """

    volume_weight: VolumeWeight = VolumeWeight.INVERSE_SQUARE
    background: bool = True
    batch_wise: bool = False


@dataclass(frozen=True, kw_only=True)
class TopKSettings(Settings):
    """Settings of `TopKLoss`.

    Attributes:
        k_percent: share of the pixels that count, above 0 and at most 100.
    """

    k_percent: float = 10.0

    def __post_init__(self) -> None:
        """As the base, and a share."""
        super().__post_init__()
        self._require("k_percent", 0 < self.k_percent <= 100, "above 0 and at most 100")


@dataclass(frozen=True, kw_only=True)
class MCCSettings(Settings):
    """Settings of `MCCLoss`.

    Attributes:
        scope: whether the counts are of this rank's batch or of all ranks'.
        background: whether class 0 is one of the classes.
    """

    scope: StatisticsScope = StatisticsScope.RANK
    background: bool = False


S = TypeVar("S", bound=Settings)


class _LogitsLoss(nn.Module, Generic[S]):
    """Checks and precision; a subclass says what is computed from the pixels that take part."""

    settings_type: type[S]
    _saw_logits = False

    def __init__(self, *, ignore_index: int | None = None, **settings: Any) -> None:
        super().__init__()
        self.settings = self.settings_type(**settings)
        self.ignore_index = ignored_label(ignore_index)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of one batch.

        Args:
            logits: (B, C, *spatial) class logits, before softmax.
            target: (B, *spatial) or (B, 1, *spatial) class labels, of an integer or floating type.

        Returns:
            () in float32 (float64 for such logits); zero, connected to the logits, where every pixel is ignored
            or there is none; NaN where the logits of a pixel that takes part have no finite softmax.

        Raises:
            TypeError: what is no tensor.
            ValueError: shapes that do not match, labels that are no class, and, in the first call, probabilities
                in place of logits.
        """
        target = _without_channel(logits, target)
        classes = logits.shape[1]
        labels, findings = class_labels(target, classes, self.ignore_index)
        refuse_labels(findings, classes, self.ignore_index)
        if not self._saw_logits:
            refuse_probabilities(logits)
            self._saw_logits = logits.numel() > 0
        ignored = labels < 0
        with torch.autocast(logits.device.type, enabled=False):
            scores = logits.float() if logits.dtype != torch.float64 else logits
            if self.ignore_index is not None:
                scores = scores.masked_fill(ignored[:, None], 0)
            if ignored.all() and not self._needs_all_ranks():
                return 0 * scores.sum()
            return self._loss(scores, labels)

    def _needs_all_ranks(self) -> bool:
        """Whether every rank must take part in every call."""
        return False

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """() from logits (B, C, *spatial) and labels (B, *spatial), -1 where ignored."""
        raise NotImplementedError


class FocalLoss(_LogitsLoss[FocalSettings]):
    """Cross-entropy in which a pixel counts the less the surer the model is of its class.

    ``L = mean over pixels of -(1 - p_t)^gamma log p_t``, p_t the softmax probability of the pixel's label.

    Source: Lin et al., *Focal loss for dense object detection*, ICCV 2017. Deviation: softmax over all
    classes, where the paper has a sigmoid for each; no class weights (alpha).

    Args:
        ignore_index: Pixels with this label take no part; None: all do.
        **settings: Of `FocalSettings`, by keyword.

    Example:
        >>> criterion = FocalLoss(gamma=2.0)
        >>> print(f"{criterion(torch.zeros(1, 2, 4, 4), torch.eye(4)[None]):.4f}")  # log 2 / 4
        0.1733
    """

    settings_type = FocalSettings

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = -_pixel_cross_entropy(logits, labels)
        doubt = -torch.expm1(log_p).clamp(max=-_EPSILON)  # a root (gamma < 1) has no slope at zero
        return -(doubt**self.settings.gamma * log_p).mean()


class GDLLoss(_LogitsLoss[GDLSettings]):
    """Generalised Dice: classes weigh by the inverse square of their size.

    ``L = 1 - 2 sum_c w_c sum_i p_ic g_ic / sum_c w_c sum_i (p_ic + g_ic)``, ``w_c = 1 / (sum_i g_ic)^2``, by image,
    then the mean over the batch. Images that hold none of the classes are left out.

    Source: Sudre et al., *Generalised Dice overlap as a deep learning loss function for highly unbalanced
    segmentations*, DLMIA 2017. Deviation: a class that an image lacks has the largest weight among the
    present ones, as in MONAI, where the formula has an infinite one. nnU-Net's first version has the weight
    ``1 / V`` over the whole batch, without background: `GDLSettings`.

    Args:
        ignore_index: Pixels with this label take no part; None: all do.
        **settings: Of `GDLSettings`, by keyword.

    Example:
        >>> criterion = GDLLoss(ignore_index=255)
        >>> print(f"{criterion(torch.zeros(1, 2, 4, 4), torch.ones(1, 4, 4)):.4f}")
        0.5000
    """

    settings_type = GDLSettings

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        first, settings = 0 if self.settings.background else 1, self.settings
        probability, truth = (part[:, first:] for part in _by_class(logits, labels))
        hit, found, size = (probability * truth).sum(2), probability.sum(2), truth.sum(2)
        if settings.batch_wise:
            hit, found, size = (part.sum(0, keepdim=True) for part in (hit, found, size))
        power = 1 if settings.volume_weight is VolumeWeight.INVERSE else 2
        inverse = torch.where(size > 0, 1 / size.clamp(min=1) ** power, 0)
        weight = torch.where(size > 0, inverse, inverse.amax(1, keepdim=True))
        overlap, total = (weight * hit).sum(1), (weight * (found + size)).sum(1)
        seen, connected = (size > 0).any(1), 0 * found.sum()
        return connected + (1 - 2 * overlap[seen] / total[seen]).mean() if seen.any() else connected


class TopKLoss(_LogitsLoss[TopKSettings]):
    """Mean cross-entropy of the worst pixels of the batch.

    ``L = mean of the k largest pixel cross-entropies``, k = ``k_percent`` % of the batch's pixels, at least 1.

    Source: Fan et al., *Learning with average top-k loss*, NIPS 2017. Deviation: ignored pixels do not count.

    Args:
        ignore_index: Pixels with this label take no part; None: all do.
        **settings: Of `TopKSettings`, by keyword.

    Example:
        >>> criterion = TopKLoss(k_percent=25.0)
        >>> print(f"{criterion(torch.zeros(1, 2, 4, 4), torch.eye(4)[None]):.4f}")  # log 2
        0.6931
    """

    settings_type = TopKSettings

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = _pixel_cross_entropy(logits, labels)
        count = max(1, int(len(losses) * self.settings.k_percent / 100))
        return losses.topk(count, sorted=False).values.mean()


class MCCLoss(_LogitsLoss[MCCSettings]):
    """One minus Matthews' correlation coefficient of soft counts.

    For each foreground class against the rest, over all pixels of the batch:

        L_c = 1 - (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN) + eps),   L = mean of L_c

    with counts of pixels and eps = 1e-6, far below the smallest product of a structure that was found.

    Source: Abhishek and Hamarneh, *Matthews correlation coefficient loss for deep convolutional networks:
    application to skin lesion segmentation*, ISBI 2021. Deviation: binary in the paper; here the mean over the
    foreground classes for which the coefficient is defined, those that the batch holds beside other pixels;
    zero where there is none.

    Args:
        ignore_index: Pixels with this label take no part; None: all do.
        **settings: Of `MCCSettings`, by keyword.

    Example:
        >>> label = torch.eye(4)[None]
        >>> logits = 9 * torch.stack((1 - label, label), 1)
        >>> print(f"{MCCLoss()(logits, label):.3f}")
        0.000
    """

    settings_type = MCCSettings

    def _needs_all_ranks(self) -> bool:
        learning = self.training and torch.is_grad_enabled()
        return learning and self.settings.scope is StatisticsScope.GLOBAL

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        first = 0 if self.settings.background else 1
        found, there = (part[:, first:] for part in _by_class(logits, labels))
        counted = (labels.flatten(1) >= 0)[:, None].to(found.dtype)
        not_found, not_there = counted - found, counted - there
        pairs = [(found, there), (found, not_there), (not_found, there), (not_found, not_there)]
        counts = torch.stack(
            [*((a * b).sum((0, 2)) for a, b in pairs), there.sum((0, 2)), not_there.sum((0, 2))]
        )
        if self._needs_all_ranks():
            counts = _sum_over_ranks(counts)
        tp, fp, fn, tn, members, others = counts
        variance = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        losses = 1 - (tp * tn - fp * fn) / (variance + _EPSILON).sqrt()
        defined = (members > 0) & (others > 0)
        loss: Tensor = losses[defined].mean() if defined.any() else 0 * losses.sum()
        return loss


_EPSILON = 1e-6


def _sum_over_ranks(counts: Tensor) -> Tensor:
    """Counts of all ranks, through which gradient flows."""
    if dist.is_available() and dist.is_initialized():
        from torch.distributed.nn.functional import all_reduce  # noqa: PLC0415 - absent where distributed is

        counts = all_reduce(counts)  # type: ignore[no-untyped-call]
    return counts


def _without_channel(logits: Tensor, target: Tensor) -> Tensor:
    """(B, *spatial) of a target with or without an axis of length one; say what does not fit."""
    refuse_others(logits=logits, target=target)
    plain, channel = (*logits.shape[:1], *logits.shape[2:]), (*logits.shape[:1], 1, *logits.shape[2:])
    if logits.ndim not in (4, 5) or logits.shape[1] < 2 or tuple(target.shape) not in (plain, channel):
        raise ValueError(
            "logits must be (B, C, H, W) or (B, C, D, H, W) with at least two classes, and target "
            f"(B, *spatial) or (B, 1, *spatial), not {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    return target.reshape(plain)


def _pixel_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(n,) cross-entropy of each pixel that takes part."""
    losses: Tensor = F.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
    return losses[labels >= 0]


def _by_class(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax probabilities and one-hot labels, (B, C, N) each, zero at ignored pixels."""
    flat = labels.flatten(1)[:, None]
    truth = flat == torch.arange(logits.shape[1], device=flat.device)[:, None]
    return logits.flatten(2).softmax(1) * (flat >= 0), truth.to(logits.dtype)
