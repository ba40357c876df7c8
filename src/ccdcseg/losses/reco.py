"""ReCo: regional contrast, with negatives from the classes whose prototypes are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ccdcseg.losses.parts.base import ContrastiveLoss, PixelBatch, Read
from ccdcseg.losses.parts.draw import at_most, with_replacement
from ccdcseg.losses.parts.info_nce import info_nce
from ccdcseg.losses.parts.pixel_sets import no_numbers, of_classes
from ccdcseg.losses.parts.projection import unit
from ccdcseg.losses.parts.selection import (
    ClassNegatives,
    ClassQueries,
    ClassResult,
    Selection,
    diagnose,
    located,
)
from ccdcseg.losses.parts.settings import ContrastiveSettings
from ccdcseg.losses.parts.transfer import to_host


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
        in_channels: Channels of the decoder features.
        num_classes: C, background among them.
        ignore_index: Pixels with this label take no part; None: all do.
        **settings: Of `ReCoSettings`, by keyword.

    Example:
        >>> criterion = ReCoLoss(8, 3, hard_threshold=0.9)
        >>> features, logits = torch.randn(2, 8, 16, 16), torch.randn(2, 3, 16, 16)
        >>> criterion(features, logits, torch.randint(3, (2, 16, 16))).ndim
        0
    """

    settings_type = ReCoSettings
    _idle_because = (
        "the batches held one class only, or no pixel whose class has a probability below hard_threshold"
    )

    def _sets(self, batch: PixelBatch) -> dict[str, Tensor]:
        own = batch.probabilities.gather(1, batch.labels.clamp(min=0)[:, None]).flatten()
        members = of_classes(batch.labels.flatten()[None], self.num_classes)
        return {"class": members, "hard": members & (own < self.settings.hard_threshold)}

    def _term(self, batch: PixelBatch, read: Read) -> tuple[Tensor, bool]:
        settings, pools = self.settings, read.numbers["class"]
        numbers = [at_most(pool, settings.class_pixels, batch.generator) for pool in pools]
        pixels, _ = read.sets.find(numbers)
        embeddings = self._embeddings(batch.features, pixels)
        prototypes = unit(torch.stack([part.sum(0) for part in embeddings]))
        chances = class_chances(prototypes, read.sets.sizes["class"], settings.temperature)
        self.selection = located(self._draw(batch, read, numbers, *to_host(chances)), read.sets)
        keys = _Keys(torch.cat(pixels), unit(torch.cat(embeddings)))
        results = self._results(batch.features, prototypes, keys, self.selection)
        thresholds = torch.full((self.num_classes,), settings.hard_threshold, device="cpu")
        self.diagnostics = diagnose(read.statistics, self.selection, results, prototypes.device, thresholds)
        if not results:
            return self._nothing(batch.features, prototypes), True
        present = sum(len(pool) > 0 for pool in pools)
        return torch.stack([result.loss for result in results.values()]).sum() / present, False

    @torch.no_grad()
    def _embeddings(self, features: Tensor, drawn: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """(n, d) embeddings of each class's pixels: their mean is its prototype, each may be a negative."""
        return torch.split(self.head.vectors(features, torch.cat(list(drawn))), [len(part) for part in drawn])

    def _draw(self, batch: PixelBatch, read: Read, pools: Sequence[Tensor], chances: Tensor) -> Selection:
        """Hard queries of every class that has some, and the negatives of each, by their numbers.

        The classes of the negatives depend on the prototypes: ``chances`` are a second thing to wait for.
        """
        settings, counts = self.settings, [len(own) for own in read.numbers["class"]]
        queries, negatives = {}, {}
        for c, hard in enumerate(read.numbers["hard"]):
            if hard and chances[c].any():
                drawn = with_replacement(hard, settings.queries, batch.generator)
                queries[c] = ClassQueries(no_numbers(), drawn, counts[c] - len(hard), len(hard), 1.0)
                negatives[c] = draw_negative_classes(
                    pools, chances[c], settings.queries, settings.negatives, batch.generator
                )
        return Selection(batch.shape, {}, dict(enumerate(counts)), queries, negatives)

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
        temperature = self.settings.temperature
        losses = info_nce(attraction / temperature, repulsion / temperature)
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


def class_chances(prototypes: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """(C, C) chance of each class k to give a negative of c: softmax of mu_c.mu_k / tau over present k != c.

    All zero where there is no other class.
    """
    scores = torch.stack([prototypes @ prototype for prototype in prototypes]) / temperature
    itself = torch.eye(len(counts), dtype=torch.bool, device=counts.device)
    return scores.masked_fill(itself | (counts == 0), -torch.inf).softmax(1).nan_to_num(0)


def draw_negative_classes(
    members: Sequence[Tensor],
    probabilities: Tensor,
    queries: int,
    negatives: int,
    generator: torch.Generator | None,
) -> ClassNegatives:
    """Draw negatives for each query by itself: the class of each first, then a pixel of the class.

    Args:
        members: C tensors of numbers of the pixels to draw from, one a class, on the CPU.
        probabilities: (C,) of the classes, on the CPU; 0 where a class has no pixel; one of them above 0.
        queries: Q.
        negatives: n.
        generator: source of randomness.

    Returns:
        The negatives, on the CPU, with numbers in place of pixels.
    """
    pool = torch.cat(list(members))
    sizes = torch.tensor([len(pixels) for pixels in members], device="cpu")
    starts = sizes.cumsum(0) - sizes
    classes = torch.multinomial(probabilities, queries * negatives, replacement=True, generator=generator)
    shares = torch.rand(len(classes), generator=generator, dtype=torch.float64, device="cpu")
    inside = (shares * sizes[classes]).long()
    used = torch.zeros(len(pool), dtype=torch.bool, device="cpu")
    used[starts[classes] + inside] = True
    columns = (used.cumsum(0) - 1)[starts[classes] + inside]
    shape = (queries, negatives)
    return ClassNegatives(pool[used], columns.view(shape), classes.view(shape))
