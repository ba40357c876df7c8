"""CCDC: contrastive learning guided by class confidence and confusion degree."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ccdcseg.losses.class_statistics import (
    ClassStatistics,
    MovingAverage,
    class_statistics,
    sum_over_ranks,
)
from ccdcseg.losses.contrast import ClassResult, query_losses, reduce_queries
from ccdcseg.losses.core import core_representations
from ccdcseg.losses.negatives import in_order
from ccdcseg.losses.pixel_sets import PixelSets
from ccdcseg.losses.queries import easy_thresholds
from ccdcseg.losses.region import region_offsets, region_pixels
from ccdcseg.losses.sampling import class_sets, draw_pixels, located
from ccdcseg.losses.selection import Selection, diagnose
from ccdcseg.losses.settings import CCDCSettings, ClassAverage, NegativeSharing, StatisticsScope
from ccdcseg.losses.term import ContrastiveLoss, PixelBatch, Read, no_pixels


class CCDCLoss(ContrastiveLoss[CCDCSettings]):
    """Pixel-contrastive loss whose sampling follows the model's own class confidence and confusion.

    For query q of class A with core k_A and negatives n_j (Eq. 5 to 7, as read in ``docs/method.md``):

        l(q)   = -log( exp(q.k_A / tau) / (exp(q.k_A / tau) + sum_{c != A} S_c(q)) )
        L_A    = mean over the queries of A of l(q)
        L_CCDC = mean of L_A over the classes that have queries

    The module owns its projection head: give ``criterion.parameters()`` to the optimiser, and wrap it in
    ``DistributedDataParallel`` where the network is. In training mode it counts its calls, which the start, the
    warm-up, the end and the strategy "easy_to_hard" go by.

    Source: Chen et al., Pattern Recognition 145 (2024) 109881. The paper leaves much open; each choice is a
    setting of `CCDCSettings` and is named there.

    Args:
        in_channels: channels of the decoder features.
        num_classes: C, background among them.
        settings: of the method; None: the defaults.
        ignore_label: pixels with this label take no part.
        generator: CPU source of the draws; None: torch's default. A seed gives the same draws on every device.

    Attributes:
        diagnostics: `Diagnostics` of the last call; None before it, and while the term
            waits for ``start_iteration`` or is over.
        selection: `Selection` of the last call, likewise.

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

    settings_type = CCDCSettings
    _idle_because = (
        "no query class had a core, pixels with a probability above core_threshold; lower it, let the term "
        "start later (start_iteration), or look whether logits and target belong together"
    )

    def _add_modules(self) -> None:
        self.average = MovingAverage(self.num_classes, self.settings.statistics_momentum)

    def _statistics(self, probabilities: Tensor, labels: Tensor) -> ClassStatistics:
        averaged: ClassStatistics = self.average(
            class_statistics(probabilities, labels, self.settings.statistics_scope)
        )
        return averaged

    def _sets(self, batch: PixelBatch) -> dict[str, Tensor]:
        return class_sets(batch.probabilities, batch.labels, batch.statistics, self.settings)

    def _ask(self, sets: PixelSets) -> list[Tensor]:
        """Core pixels of each class, over the scope of the statistics."""
        cores = sets.sizes["core"].clone()
        if self.settings.statistics_scope is StatisticsScope.GLOBAL:
            sum_over_ranks(cores)
        return [cores]

    def _term(self, batch: PixelBatch, read: Read) -> tuple[Tensor, bool]:
        self.average.keep(batch.statistics)
        drawn = draw_pixels(
            read.numbers,
            batch.shape,
            read.statistics.matrix.tolist(),
            read.more[0].tolist(),
            self._progress(batch.iteration),
            self.settings,
            self.generator,
        )
        self.selection = located(drawn, read.sets)
        if self.settings.negative_sharing is NegativeSharing.PER_QUERY:
            ordered = {c: in_order(negatives) for c, negatives in self.selection.negatives.items()}
            self.selection = replace(self.selection, negatives=ordered)
        return self._contrast(batch, read.statistics, self.selection), not drawn.queries

    def _progress(self, iteration: int) -> float:
        total = self.settings.total_iterations
        return min(1.0, iteration / total) if total else 0.0

    def _contrast(self, batch: PixelBatch, statistics: ClassStatistics, selection: Selection) -> Tensor:
        """Project what was drawn and contrast it, class by class (Eq. 5 to 7)."""
        settings = self.settings
        chosen = [(c, selection.queries[c].pixels, selection.negatives[c]) for c in selection.queries]
        cores = self._cores(batch, selection)
        queries = self._represent(batch, [pixels for _, pixels, _ in chosen], gradient=True)
        negatives = self._represent(
            batch, [negative.pixels for _, _, negative in chosen], gradient=settings.negative_gradient
        )
        results = {}
        for (c, _, drawn), query, negative in zip(chosen, queries, negatives, strict=True):
            similar = query @ negative.T
            shared = drawn.columns.ndim == 1
            repulsion = similar if shared else similar.gather(1, drawn.columns)
            results[c] = self._class_result(query @ cores[c], repulsion, drawn.classes)
        thresholds = easy_thresholds(statistics.confidence, settings)
        self.diagnostics = diagnose(statistics, selection, results, cores.device, thresholds)
        if not results:
            return self._nothing(batch.features, cores)
        every = settings.class_average is ClassAverage.ALL_CLASSES
        total = torch.stack([result.loss for result in results.values()]).sum()
        return total / (self.num_classes if every else len(results))

    def _class_result(self, attraction: Tensor, repulsion: Tensor, classes: Tensor) -> ClassResult:
        settings = self.settings
        losses = query_losses(attraction, repulsion, classes, settings.temperature, settings.denominator)
        return ClassResult(
            loss=reduce_queries(losses, attraction, settings.query_reduction),
            positive_similarity=attraction.detach().mean(),
            negative_similarity=repulsion.detach().mean(),
        )

    def _cores(self, batch: PixelBatch, selection: Selection) -> Tensor:
        """(C, d) unit cores, zero where a class has none."""
        none = no_pixels(batch.labels)
        groups = [selection.core.get(c, none) for c in range(self.num_classes)]
        parts = self._represent(batch, groups, gradient=self.settings.core_gradient)
        available = [selection.core_available[c] for c in range(self.num_classes)]
        return core_representations(parts, available, self.settings.statistics_scope)

    def _represent(self, batch: PixelBatch, groups: Sequence[Tensor], *, gradient: bool) -> Sequence[Tensor]:
        """Unit representations of several groups of pixels, projected together."""
        features, shape = batch.features, batch.features.shape[2:]
        offsets = region_offsets(self.settings.region, self.settings.region_stride, len(shape))
        pixels = torch.cat([no_pixels(batch.labels), *groups])
        regions = region_pixels(pixels, batch.labels, shape, offsets)
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            vectors: Tensor = self.head(features, regions, self.settings.region_combination)
        return torch.split(vectors, [len(group) for group in groups])


class CombinedLoss(nn.Module):
    """The sum of a segmentation loss and a contrastive term (Eq. 8).

    Args:
        segmentation: called with (logits, target), such as MONAI's ``DiceCELoss`` or nnU-Net's deep supervision.
        contrastive: such as `CCDCLoss`, whose settings hold the weight. Of the lists of deep supervision it
            takes the first entries, those at full resolution.

    Attributes:
        parts: of the last sum, "segmentation" and "contrastive" (with its weight): () each, without gradient;
            empty before the first call.
    """

    def __init__(self, segmentation: nn.Module, contrastive: nn.Module) -> None:
        super().__init__()
        self.segmentation = segmentation
        self.contrastive = contrastive
        self.parts: dict[str, Tensor] = {}

    def forward(
        self, features: Tensor, logits: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]
    ) -> Tensor:
        """``L = L_CE + L_Dice + L_CCDC``; arguments as in the contrastive loss's own call."""
        full_logits = logits if isinstance(logits, Tensor) else logits[0]
        full_target = target if isinstance(target, Tensor) else target[0]
        segmentation: Tensor = self.segmentation(logits, target)
        contrastive: Tensor = self.contrastive(features, full_logits, full_target)
        self.parts = {"segmentation": segmentation.detach(), "contrastive": contrastive.detach()}
        return segmentation + contrastive
