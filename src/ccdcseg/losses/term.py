"""What every contrastive loss is: a head of its own, checks, a schedule, and a term computed in float32."""

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccdcseg.losses.class_statistics import ClassStatistics, class_statistics
from ccdcseg.losses.projection import ProjectionHead
from ccdcseg.losses.selection import Diagnostics, Selection
from ccdcseg.losses.settings import ContrastiveSettings, RegionCombination, StatisticsScope

S = TypeVar("S", bound=ContrastiveSettings)


@dataclass(frozen=True)
class PixelBatch:
    """What a contrastive loss looks at in one call.

    Attributes:
        features: (B, in_channels, *spatial), through which gradient flows.
        probabilities: (B, C, N) float32 softmax probabilities, without gradient.
        labels: (B, N) int64 class labels, -1 where ignored.
        statistics: class confidence and confusion.
        iteration: of the training, counted from 0.
    """

    features: Tensor
    probabilities: Tensor
    labels: Tensor
    statistics: ClassStatistics
    iteration: int


class ContrastiveLoss(nn.Module, Generic[S]):
    """A contrastive term beside a segmentation loss; a subclass names its settings and says how it is computed.

    The module owns its projection head: give ``criterion.parameters()`` to the optimiser, and wrap it in
    ``DistributedDataParallel`` where the network is. In training mode it counts its calls, which the start,
    the warm-up and the end go by.

    Args:
        in_channels: channels of the decoder features.
        num_classes: C, background among them.
        settings: of the method; None: the defaults.
        ignore_label: pixels with this label take no part.
        generator: CPU source of the draws; None: torch's default. A seed gives the same draws on every device.

    Attributes:
        settings_type: class of the settings.
        diagnostics: `Diagnostics` of the last call; None before it, and while the term
            waits for ``start_iteration`` or is over.
        selection: `Selection` of the last call, likewise.

    Raises:
        ValueError: fewer than one channel or two classes.
    """

    settings_type: type[S]
    iteration: Tensor

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        settings: S | None = None,
        *,
        ignore_label: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 2:
            raise ValueError(
                "in_channels must be at least 1 and num_classes at least 2, background among them; "
                f"not {in_channels} and {num_classes}"
            )
        self.settings = own = settings or self.settings_type()
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.generator = generator
        self.head = ProjectionHead(
            in_channels, own.hidden_channels, own.embedding_channels, own.head_normalisation
        )
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))
        self.diagnostics: Diagnostics | None = None
        self.selection: Selection | None = None
        self._add_modules()

    def _add_modules(self) -> None:
        """What the method keeps beside its head, where it keeps something."""

    def forward(self, features: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        """The weighted term of one batch.

        Args:
            features: (B, in_channels, *spatial) decoder features; gradient flows into them.
            logits: (B, C, *spatial) class logits, before softmax; no gradient flows into them.
            target: (B, *spatial) or (B, 1, *spatial) class labels.

        Returns:
            () float32, connected to features and head whatever the batch holds: zero where there is nothing to
            contrast, before ``start_iteration`` and from ``end_iteration`` on; NaN, with zero gradients, where
            the logits have no finite softmax.

        Raises:
            ValueError: shapes that do not match, a target of several channels (one-hot or overlapping
                regions), labels outside [0, C) other than the ignore label.
        """
        _check_shapes(features, logits, target, self.head.hidden.in_features, self.num_classes)
        labels = _labels(target, self.num_classes, self.ignore_label)
        iteration = int(self.iteration)
        if self.training:
            self.iteration += 1
        self.selection = self.diagnostics = None
        weight = _weight(self.settings, iteration)
        with torch.autocast(features.device.type, enabled=False):
            if weight == 0:
                return self._zero(features)
            probabilities = logits.detach().float().softmax(1).flatten(2)
            statistics = class_statistics(probabilities, labels, self._statistics_scope())
            if not statistics.matrix.isfinite().all():
                self._idle(features)
                return self._zero(features) + math.nan
            return weight * self._term(PixelBatch(features, probabilities, labels, statistics, iteration))

    def get_extra_state(self) -> Tensor | None:
        """State of the generator, for checkpoints."""
        return None if self.generator is None else self.generator.get_state()

    def set_extra_state(self, state: Tensor | None) -> None:
        """Restore the generator."""
        if self.generator is not None and state is not None:
            self.generator.set_state(state.cpu())

    def _term(self, batch: PixelBatch) -> Tensor:
        """() the term before its weight, connected to the features and to every parameter of the head."""
        raise NotImplementedError

    def _statistics_scope(self) -> StatisticsScope:
        """Over which pixels class confidence and confusion are taken."""
        return StatisticsScope.RANK

    def _idle(self, features: Tensor) -> None:
        """Take part in what all ranks do together, in a call without a term."""

    def _project(self, features: Tensor, pixels: Tensor, *, gradient: bool) -> Tensor:
        """(n, d) unit embeddings of the pixels (n,)."""
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            vectors: Tensor = self.head(features, pixels[:, None], RegionCombination.MEAN)
        return vectors

    def _zero(self, features: Tensor) -> Tensor:
        """Zero, connected to the features and to every parameter of the head."""
        return self._project(features, no_pixels(features), gradient=True).sum()


def no_pixels(like: Tensor) -> Tensor:
    """(0,) int64 on the device of ``like``."""
    return torch.empty(0, dtype=torch.int64, device=like.device)


def _check_shapes(features: Tensor, logits: Tensor, target: Tensor, channels: int, classes: int) -> None:
    """Say what does not fit."""
    if features.ndim not in (4, 5) or features.shape[1] != channels:
        raise ValueError(
            f"features must be (B, {channels}, H, W) or (B, {channels}, D, H, W), not {tuple(features.shape)}"
        )
    if logits.ndim != features.ndim or logits.shape[1] != classes:
        raise ValueError(
            f"logits must be (B, {classes}, *spatial), one channel a class before softmax, "
            f"not {tuple(logits.shape)}"
        )
    if logits.shape[2:] != features.shape[2:] or len(logits) != len(features):
        raise ValueError(
            f"features {tuple(features.shape)} and logits {tuple(logits.shape)} differ in batch or resolution; "
            "for a coarser decoder stage pass logits and target through nearest_to(features, logits, target)"
        )
    plain, channel = (len(logits), *logits.shape[2:]), (len(logits), 1, *logits.shape[2:])
    if tuple(target.shape) not in (plain, channel):
        raise ValueError(
            f"target must hold one class label a pixel, shape {plain} or {channel}, not {tuple(target.shape)}; "
            "one-hot targets and overlapping regions are not supported, since the loss needs one class a pixel"
        )
    if target.dtype == torch.bool:
        raise ValueError("target must hold class labels, not booleans (a mask of one region)")


def _labels(target: Tensor, classes: int, ignore_label: int | None) -> Tensor:
    """(B, N) int64 labels, -1 where ignored; anything else that is no class is an error."""
    labels = target.flatten(1).long()
    if target.is_floating_point() and (target.flatten(1) != labels).any():
        raise ValueError("target must hold whole numbers, the class labels")
    if ignore_label is not None:
        ignored = labels == ignore_label
        labels = labels.masked_fill(ignored, 0)
    lowest, highest = (int(value) for value in labels.aminmax())
    if lowest < 0 or highest >= classes:
        raise ValueError(
            f"target holds labels from {lowest} to {highest}, outside 0 to {classes - 1}; "
            f"pixels to be left out must carry the ignore_label of the loss, which is {ignore_label}"
        )
    return labels if ignore_label is None else labels.masked_fill(ignored, -1)


def _weight(settings: ContrastiveSettings, iteration: int) -> float:
    """Zero before the start, then a linear rise, then the settings' weight, and zero from the end on."""
    active = iteration - settings.start_iteration
    if active < 0 or (settings.end_iteration is not None and iteration >= settings.end_iteration):
        return 0.0
    rise = settings.warmup_iterations
    return settings.weight * (min(1.0, (active + 1) / rise) if rise else 1.0)


def nearest_to(features: Tensor, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Bring logits and target to the resolution of a coarser decoder stage by nearest neighbour.

    Args:
        features: (B, in_channels, *coarse).
        logits: (B, C, *spatial).
        target: (B, *spatial) or (B, 1, *spatial) class labels.

    Returns:
        ``(logits, target)`` at the coarse resolution, (B, C, *coarse) and (B, 1, *coarse).
    """
    size = features.shape[2:]
    labels = target if target.ndim == logits.ndim else target[:, None]
    coarse = F.interpolate(labels.float(), size, mode="nearest-exact").to(target.dtype)
    return F.interpolate(logits.detach(), size, mode="nearest-exact"), coarse
