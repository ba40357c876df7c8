"""CCDC: contrastive learning guided by class confidence and confusion degree."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccdcseg.losses.class_statistics import ClassStatistics, MovingAverage, class_statistics
from ccdcseg.losses.contrast import query_losses, reduce_queries
from ccdcseg.losses.core import core_representations
from ccdcseg.losses.projection import ProjectionHead
from ccdcseg.losses.queries import easy_threshold
from ccdcseg.losses.region import region_offsets, region_pixels
from ccdcseg.losses.sampling import select_pixels
from ccdcseg.losses.selection import Diagnostics, Selection
from ccdcseg.losses.settings import CCDCSettings, ClassAverage


class CCDCLoss(nn.Module):
    """Pixel-contrastive loss whose sampling follows the model's own class confidence and confusion.

    For query q of class A with core k_A and negatives n_j (Eq. 5 to 7, as read in ``docs/method.md``)::

        l(q)   = -log( exp(q.k_A / tau) / (exp(q.k_A / tau) + sum_{c != A} S_c(q)) )
        L_A    = mean over the queries of A of l(q)
        L_CCDC = mean of L_A over the classes that have queries

    The module owns its projection head: give ``criterion.parameters()`` to the optimiser, and wrap it in
    ``DistributedDataParallel`` where the network is. In training mode it counts its calls, which the start, the
    warm-up and the strategy "easy_to_hard" go by.

    Source: Chen et al., Pattern Recognition 145 (2024) 109881. The paper leaves much open; each choice is a
    setting of :class:`~ccdcseg.losses.CCDCSettings` and is named there.

    Args:
        in_channels: channels of the decoder features.
        num_classes: C, background among them.
        settings: of the method; None: the defaults.
        ignore_label: pixels with this label take no part.
        generator: CPU source of the draws; None: torch's default. A seed gives the same draws on every device.

    Attributes:
        diagnostics: :class:`~ccdcseg.losses.Diagnostics` of the last call; None before it, and while the term
            waits for ``start_iteration``.
        selection: :class:`~ccdcseg.losses.Selection` of the last call, likewise.

    Raises:
        ValueError: fewer than one channel or two classes.

    Example:
        >>> criterion = CCDCLoss(in_channels=8, num_classes=3)
        >>> features = torch.randn(2, 8, 16, 16, requires_grad=True)
        >>> logits = torch.randn(2, 3, 16, 16)
        >>> target = torch.randint(3, (2, 1, 16, 16))
        >>> criterion(features, logits, target).ndim
        0
    """

    iteration: Tensor

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        settings: CCDCSettings | None = None,
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
        self.settings = settings or CCDCSettings()
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.generator = generator
        self.head = ProjectionHead(
            in_channels,
            self.settings.hidden_channels,
            self.settings.embedding_channels,
            self.settings.head_normalisation,
        )
        self.average = MovingAverage(num_classes, self.settings.statistics_momentum)
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))
        self.diagnostics: Diagnostics | None = None
        self.selection: Selection | None = None

    def forward(self, features: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        """The weighted term of one batch.

        Args:
            features: (B, in_channels, *spatial) decoder features; gradient flows into them.
            logits: (B, C, *spatial) class logits, before softmax; no gradient flows into them.
            target: (B, *spatial) or (B, 1, *spatial) class labels.

        Returns:
            () float32, connected to features and head whatever the batch holds: zero where no class has a
            core, and before ``start_iteration``; NaN, with zero gradients, where the logits have no finite
            softmax.

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
            statistics = class_statistics(probabilities, labels, self.settings.statistics_scope)
            if not statistics.matrix.isfinite().all():
                return self._zero(features) + math.nan
            statistics = self.average(statistics)
            self.selection = select_pixels(
                probabilities,
                labels,
                logits.shape[2:],
                statistics,
                self._progress(iteration),
                self.settings,
                self.generator,
            )
            return weight * self._contrast(features, statistics, self.selection)

    def get_extra_state(self) -> Tensor | None:
        """State of the generator, for checkpoints."""
        return None if self.generator is None else self.generator.get_state()

    def set_extra_state(self, state: Tensor | None) -> None:
        """Restore the generator."""
        if self.generator is not None and state is not None:
            self.generator.set_state(state.cpu())

    def _progress(self, iteration: int) -> float:
        total = self.settings.total_iterations
        return min(1.0, iteration / total) if total else 0.0

    def _contrast(self, features: Tensor, statistics: ClassStatistics, selection: Selection) -> Tensor:
        """Project what was drawn and contrast it, class by class (Eq. 5 to 7)."""
        settings = self.settings
        chosen = [(c, selection.queries[c].pixels, selection.negatives[c]) for c in selection.queries]
        cores = self._cores(features, selection)
        queries = self._represent(features, [pixels for _, pixels, _ in chosen], gradient=True)
        negatives = self._represent(
            features, [negative.pixels for _, _, negative in chosen], gradient=settings.negative_gradient
        )
        results = {}
        for (c, _, drawn), query, negative in zip(chosen, queries, negatives, strict=True):
            similar = query @ negative.T
            shared = drawn.columns.ndim == 1
            repulsion = similar[:, drawn.columns] if shared else similar.gather(1, drawn.columns)
            results[c] = self._class_result(query @ cores[c], repulsion, drawn.classes)
        self.diagnostics = _diagnose(statistics, selection, results, settings)
        if not results:
            return self._zero(features)
        every = settings.class_average is ClassAverage.ALL_CLASSES
        total = torch.stack([result.loss for result in results.values()]).sum()
        return total / (self.num_classes if every else len(results))

    def _class_result(self, attraction: Tensor, repulsion: Tensor, classes: Tensor) -> "_ClassResult":
        settings = self.settings
        losses = query_losses(attraction, repulsion, classes, settings.temperature, settings.denominator)
        return _ClassResult(
            loss=reduce_queries(losses, attraction, settings.query_reduction),
            positive_similarity=attraction.detach().mean(),
            negative_similarity=repulsion.detach().mean(),
        )

    def _cores(self, features: Tensor, selection: Selection) -> Tensor:
        """(C, d) unit cores, zero where a class has none."""
        none = _no_pixels(features)
        groups = [selection.core.get(c, none) for c in range(self.num_classes)]
        parts = self._represent(features, groups, gradient=self.settings.core_gradient)
        available = [selection.core_available[c] for c in range(self.num_classes)]
        return core_representations(parts, available, self.settings.statistics_scope)

    def _represent(self, features: Tensor, groups: Sequence[Tensor], *, gradient: bool) -> Sequence[Tensor]:
        """Unit representations of several groups of pixels, projected together."""
        offsets = region_offsets(self.settings.region, self.settings.region_stride, features.ndim - 2)
        pixels = region_pixels(torch.cat([_no_pixels(features), *groups]), features.shape[2:], offsets)
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            vectors: Tensor = self.head(features, pixels, self.settings.region_combination)
        return torch.split(vectors, [len(group) for group in groups])

    def _zero(self, features: Tensor) -> Tensor:
        """Zero, connected to the features and to every parameter of the head."""
        return self._represent(features, [_no_pixels(features)], gradient=True)[0].sum()


@dataclass(frozen=True)
class _ClassResult:
    loss: Tensor
    positive_similarity: Tensor
    negative_similarity: Tensor


def _no_pixels(features: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.int64, device=features.device)


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
            f"pixels to be left out must carry the ignore_label of CCDCLoss, which is {ignore_label}"
        )
    return labels if ignore_label is None else labels.masked_fill(ignored, -1)


def _weight(settings: CCDCSettings, iteration: int) -> float:
    """Zero before the start, then a linear rise, then the settings' weight."""
    active = iteration - settings.start_iteration
    if active < 0:
        return 0.0
    rise = settings.warmup_iterations
    return settings.weight * (min(1.0, (active + 1) / rise) if rise else 1.0)


def _diagnose(
    statistics: ClassStatistics,
    selection: Selection,
    results: Mapping[int, _ClassResult],
    settings: CCDCSettings,
) -> Diagnostics:
    """Collect what the call saw, on the CPU."""
    counts, matrix = statistics.counts.cpu(), statistics.matrix.cpu()
    confusion = matrix.masked_fill((counts == 0)[:, None], math.nan)
    confidence = confusion.diagonal()
    threshold = [math.nan if math.isnan(d) else easy_threshold(d, settings) for d in confidence.tolist()]

    def by_class(values: Mapping[int, float | Tensor]) -> Tensor:
        return torch.tensor([float(values.get(c, math.nan)) for c in range(len(counts))])

    queries = selection.queries.items()
    return Diagnostics(
        confidence=confidence,
        confusion=confusion,
        threshold=torch.tensor(threshold),
        core=by_class(selection.core_available),
        easy=by_class({c: q.easy_available for c, q in queries}),
        hard=by_class({c: q.hard_available for c, q in queries}),
        queries_easy=by_class({c: len(q.easy) for c, q in queries}),
        queries_hard=by_class({c: len(q.hard) for c, q in queries}),
        positive_similarity=by_class({c: r.positive_similarity for c, r in results.items()}),
        negative_similarity=by_class({c: r.negative_similarity for c, r in results.items()}),
        class_loss=by_class({c: r.loss.detach() for c, r in results.items()}),
    )


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


class CombinedLoss(nn.Module):
    """The sum of a segmentation loss and a contrastive term (Eq. 8).

    Args:
        segmentation: called with (logits, target), such as MONAI's ``DiceCELoss`` or nnU-Net's deep supervision.
        contrastive: a :class:`CCDCLoss`, whose settings hold the weight. Of the lists of deep supervision it
            takes the first entries, those at full resolution.
    """

    def __init__(self, segmentation: nn.Module, contrastive: nn.Module) -> None:
        super().__init__()
        self.segmentation = segmentation
        self.contrastive = contrastive

    def forward(
        self, features: Tensor, logits: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]
    ) -> Tensor:
        """``L = L_CE + L_Dice + L_CCDC``; arguments as in :meth:`CCDCLoss.forward`."""
        full_logits = logits if isinstance(logits, Tensor) else logits[0]
        full_target = target if isinstance(target, Tensor) else target[0]
        total: Tensor = self.segmentation(logits, target) + self.contrastive(
            features, full_logits, full_target
        )
        return total
