"""ReCo: regional contrast, with negatives from the classes whose prototypes are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ccdcseg.losses.class_statistics import ClassStatistics
from ccdcseg.losses.contrast import ClassResult, query_losses
from ccdcseg.losses.core import draw_core
from ccdcseg.losses.draw import with_replacement
from ccdcseg.losses.negatives import ClassNegatives, draw_negative_classes
from ccdcseg.losses.queries import ClassQueries
from ccdcseg.losses.selection import Selection, diagnose
from ccdcseg.losses.settings import ContrastiveSettings, Denominator
from ccdcseg.losses.subset import PixelSubset
from ccdcseg.losses.term import ContrastiveLoss, PixelBatch, no_pixels


@dataclass(frozen=True, kw_only=True)
class ReCoSettings(ContrastiveSettings):
    """Settings of `ReCoLoss`, beside those of all contrastive losses.

    Attributes:
        queries: queries a class and iteration.
        negatives: negatives a query.
        class_pixels: at most so many pixels of a class, drawn at random, form its prototype and may be negatives
            (None: all of them, as in the paper).
        hard_threshold: delta_s; pixels whose own class has less probability are hard, and may be queries.
    """

    queries: int = 256
    negatives: int = 256
    class_pixels: int | None = 2048
    hard_threshold: float = 0.97

    _at_least_one: ClassVar[tuple[str, ...]] = (
        *ContrastiveSettings._at_least_one,
        "queries",
        "negatives",
        "class_pixels",
    )
    _shares: ClassVar[tuple[str, ...]] = ("hard_threshold",)


class ReCoLoss(ContrastiveLoss[ReCoSettings]):
    """Hard pixels are pulled to the mean of their class and pushed from pixels of classes that resemble it.

    For class c with prototype mu_c (the normalised mean embedding of all its pixels), query q (a pixel of c with
    ``p_c < delta_s``) and its negatives n_j:

        l(q) = -log( exp(q.mu_c / tau) / (exp(q.mu_c / tau) + sum_j exp(q.n_j / tau)) )
        L    = (1 / present classes) sum_c mean_q l(q)

    Each negative's class k is drawn by softmax over k != c of mu_c.mu_k / tau, its pixel uniformly within k.
    Prototypes and negatives carry no gradient.

    Source: Liu, Zhi, Johns, Davison, *Bootstrapping semantic segmentation with regional contrast*, ICLR 2022.
    Deviation: a pointwise head in place of a 3x3 convolution with batch normalisation; embeddings are
    normalised before the dot product, which is the cosine of the paper; prototype and negatives of a class
    are of ``class_pixels`` of its pixels, drawn anew in each call, by default (the same expectation); volumes as
    well as images; a batch of one class, or without hard pixels, gives a zero that is connected to everything.

    Args:
        in_channels: channels of the decoder features.
        num_classes: C, background among them.
        settings: None: the defaults.
        ignore_label: pixels with this label take no part.
        generator: CPU source of the draws; None: torch's default.
    """

    settings_type = ReCoSettings
    _idle_because = (
        "the batches held one class only, or no pixel whose class has a probability below hard_threshold"
    )

    def _term(self, batch: PixelBatch) -> Tensor:
        drawn = self._draw_classes(batch.labels.flatten())
        embeddings = self._embeddings(batch.features, drawn)
        prototypes = torch.stack([F.normalize(part.sum(0), dim=0) for part in embeddings])
        self.selection = self._select(batch, drawn, prototypes)
        keys = _Keys(torch.cat(drawn), F.normalize(torch.cat(embeddings), dim=1))
        results = self._results(batch.features, prototypes, keys, self.selection)
        thresholds = [self.settings.hard_threshold] * self.num_classes
        self.diagnostics = diagnose(batch.statistics, self.selection, results, thresholds)
        if not results:
            return self._nothing(batch.features, prototypes)
        present = int((batch.statistics.counts > 0).sum())
        return torch.stack([result.loss for result in results.values()]).sum() / present

    def _draw_classes(self, labels: Tensor) -> list[Tensor]:
        """Pixels that stand for each class."""
        classes = [PixelSubset(labels == c) for c in range(self.num_classes)]
        return [draw_core(pixels, self.settings.class_pixels, self.generator) for pixels in classes]

    @torch.no_grad()
    def _embeddings(self, features: Tensor, drawn: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """(n, d) embeddings of each class's pixels: their mean is its prototype, each may be a negative."""
        return torch.split(self.head.vectors(features, torch.cat(list(drawn))), [len(part) for part in drawn])

    @torch.no_grad()
    def _select(self, batch: PixelBatch, drawn: Sequence[Tensor], prototypes: Tensor) -> Selection:
        """Hard queries of every class that has some, and the negatives of each."""
        settings, labels = self.settings, batch.labels.flatten()
        own = batch.probabilities.gather(1, batch.labels.clamp(min=0)[:, None]).flatten()
        counts = batch.statistics.counts.tolist()
        queries, negatives = {}, {}
        for c, count in enumerate(counts):
            hard = PixelSubset((labels == c) & (own < settings.hard_threshold))
            chances = class_chances(prototypes, batch.statistics, c, settings.temperature)
            if not len(hard) or not chances.any():
                continue
            ranks = with_replacement(len(hard), settings.queries, self.generator, labels.device)
            queries[c] = ClassQueries(no_pixels(labels), hard.at(ranks), count - len(hard), len(hard), 1.0)
            negatives[c] = draw_negative_classes(
                drawn, chances, settings.queries, settings.negatives, self.generator
            )
        shape = (len(batch.features), *batch.features.shape[2:])
        return Selection(shape, {}, dict(enumerate(counts)), queries, negatives)

    def _results(
        self, features: Tensor, prototypes: Tensor, keys: "_Keys", selection: Selection
    ) -> dict[int, ClassResult]:
        """Loss of each query class; the queries of all are projected together."""
        if not selection.queries:
            return {}
        groups = [drawn.pixels for drawn in selection.queries.values()]
        queries = torch.split(self._project(features, torch.cat(groups), gradient=True), len(groups[0]))
        return {
            c: self._class_result(query, prototypes[c], keys.of(negatives.pixels), negatives)
            for query, (c, negatives) in zip(queries, selection.negatives.items(), strict=True)
        }

    def _class_result(
        self, query: Tensor, prototype: Tensor, keys: Tensor, negatives: ClassNegatives
    ) -> ClassResult:
        attraction, repulsion = query @ prototype, (query @ keys.T).gather(1, negatives.columns)
        losses = query_losses(
            attraction, repulsion, negatives.classes, self.settings.temperature, Denominator.PIXEL
        )
        return ClassResult(losses.mean(), attraction.detach().mean(), repulsion.detach().mean())


class _Keys:
    """Unit embeddings of pixels, found by the pixel.

    Args:
        pixels: (n,) of them, each once.
        embeddings: (n, d).
    """

    def __init__(self, pixels: Tensor, embeddings: Tensor) -> None:
        self.pixels, self.order = pixels.sort()
        self.embeddings = embeddings

    def of(self, pixels: Tensor) -> Tensor:
        """(m, d) embeddings of the pixels (m,), which must be among them."""
        return self.embeddings[self.order[torch.searchsorted(self.pixels, pixels)]]


def class_chances(
    prototypes: Tensor, statistics: ClassStatistics, query_class: int, temperature: float
) -> Tensor:
    """(C,) chance of each class to give a negative, on the CPU: softmax of mu_c.mu_k / tau over present k != c.

    All zero where there is no other class.
    """
    others = statistics.counts > 0
    others[query_class] = False
    scores = (prototypes @ prototypes[query_class] / temperature).masked_fill(~others, -torch.inf)
    return scores.softmax(0).nan_to_num(0).cpu()
