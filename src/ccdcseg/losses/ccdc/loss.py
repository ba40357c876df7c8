"""CCDC: contrastive learning guided by class confidence and confusion degree."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ccdcseg.losses.ccdc.contrast import average_classes, class_results
from ccdcseg.losses.ccdc.core import core_representations
from ccdcseg.losses.ccdc.neighbourhood import neighbour_offsets, with_neighbours
from ccdcseg.losses.ccdc.queries import easy_thresholds
from ccdcseg.losses.ccdc.sampling import class_sets, draw_pixels
from ccdcseg.losses.ccdc.settings import CCDCSettings, QueryStrategy, RegionCombination
from ccdcseg.losses.parts.base import ContrastiveLoss, PixelBatch, Read, no_pixels
from ccdcseg.losses.parts.class_statistics import ClassStatistics, sum_over_ranks
from ccdcseg.losses.parts.pixel_sets import PixelSets
from ccdcseg.losses.parts.selection import Selection, diagnose, located
from ccdcseg.losses.parts.settings import StatisticsScope


class CCDCLoss(ContrastiveLoss[CCDCSettings]):
    """Pixel-contrastive loss whose sampling follows the model's own class confidence and confusion.

    For query q of class A with core k_A and negatives n_j (Eq. 5 to 7, as read in ``docs/method.md``):

        l(q)   = -log( exp(q.k_A / tau) / (exp(q.k_A / tau) + sum_{c != A} S_c(q)) )
        L_A    = mean over the queries of A of l(q)
        L_CCDC = mean of L_A over the classes that have queries

    Of state it has its projection head alone: see `ContrastiveLoss` for its parameters, its call, its draws and its
    attributes.

    Source: Chen et al., Pattern Recognition 145 (2024) 109881. The paper leaves much open; most choices
    are settings of `CCDCSettings`, and ``docs/method.md`` names all.

    Args:
        in_channels: Channels of the decoder features.
        num_classes: C, background among them.
        ignore_index: Pixels with this label take no part; None: all do.
        **settings: Of `CCDCSettings`, by keyword.

    Example:
        >>> criterion = CCDCLoss(8, 3, temperature=0.1, ignore_index=255)
        >>> features = torch.randn(2, 8, 16, 16, requires_grad=True)
        >>> logits = torch.randn(2, 3, 16, 16)
        >>> target = torch.randint(3, (2, 1, 16, 16))
        >>> criterion(features, logits, target).ndim
        0
    """

    settings_type = CCDCSettings
    _idle_because = (
        "the batches held one class only, or no query class had a core, pixels with a probability above "
        "core_threshold; lower it, let the term start later (start_iteration), or look whether logits and target "
        "belong together"
    )

    @property
    def _goes_by_progress(self) -> bool:
        return self.settings.query_strategy is QueryStrategy.EASY_TO_HARD

    @property
    def _scope(self) -> StatisticsScope:
        return self.settings.statistics_scope if self._learning else StatisticsScope.RANK

    def _sets(self, batch: PixelBatch) -> dict[str, Tensor]:
        return class_sets(batch.probabilities, batch.labels, batch.statistics, self.settings)

    def _ask(self, sets: PixelSets) -> list[Tensor]:
        """Core pixels of each class, over the scope of the statistics."""
        cores = sets.sizes["core"].clone()
        if self._scope is StatisticsScope.GLOBAL:
            sum_over_ranks(cores)
        return [cores]

    def _term(self, batch: PixelBatch, read: Read) -> tuple[Tensor, bool]:
        drawn = draw_pixels(
            read.numbers,
            batch.shape,
            read.statistics.matrix.tolist(),
            read.more[0].tolist(),
            batch.progress,
            self.settings,
            batch.generator,
        )
        self.selection = located(drawn, read.sets)
        idle = not any(len(negatives.classes) for negatives in drawn.negatives.values())
        return self._contrast(batch, read.statistics, self.selection), idle

    def _contrast(self, batch: PixelBatch, statistics: ClassStatistics, selection: Selection) -> Tensor:
        """Project what was drawn and contrast it, class by class (Eq. 5 to 7)."""
        settings = self.settings
        cores, drawn = self._cores(batch, selection), selection.negatives
        queries = self._represent(batch, {c: q.pixels for c, q in selection.queries.items()}, gradient=True)
        negatives = self._represent(
            batch, {c: drawn[c].pixels for c in queries}, gradient=settings.negative_gradient
        )
        results = class_results(
            queries,
            cores,
            {c: (negatives[c], drawn[c].classes) for c in queries},
            settings.temperature,
            settings.denominator,
            settings.query_reduction,
        )
        thresholds = easy_thresholds(statistics.confidence, settings)
        self.diagnostics = diagnose(statistics, selection, results, cores.device, thresholds)
        if not results:
            return self._nothing(batch.features, cores)
        return average_classes(results, self.num_classes, settings.class_average)

    def _cores(self, batch: PixelBatch, selection: Selection) -> Tensor:
        """(C, d) unit cores, zero where a class has none."""
        none = no_pixels(batch.labels)
        groups = {c: selection.core.get(c, none) for c in range(self.num_classes)}
        parts = self._represent(batch, groups, gradient=self.settings.core_gradient)
        available = [selection.core_available[c] for c in groups]
        return core_representations([*parts.values()], available, self._scope)

    def _represent(
        self, batch: PixelBatch, groups: Mapping[int, Tensor], *, gradient: bool
    ) -> dict[int, Tensor]:
        """Unit representations of groups of pixels, projected together (Sect. 3.5)."""
        features, shape, settings = batch.features, batch.features.shape[2:], self.settings
        offsets = neighbour_offsets(settings.region, settings.region_stride, len(shape))
        pixels = torch.cat([no_pixels(batch.labels), *groups.values()])
        regions = with_neighbours(pixels, batch.labels, shape, offsets)
        concatenate = settings.region_combination is RegionCombination.CONCATENATE
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            vectors: Tensor = self.head(features, regions, concatenate=concatenate)
        parts = torch.split(vectors, [len(group) for group in groups.values()])
        return dict(zip(groups, parts, strict=True))
