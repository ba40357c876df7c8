"""ContrastiveSeg: pixel contrast across images, in the batch or against a memory of earlier ones."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ccdcseg.losses.parts.base import ContrastiveLoss, PixelBatch, Read, no_pixels
from ccdcseg.losses.parts.draw import without_replacement
from ccdcseg.losses.parts.memory_bank import MemoryBank
from ccdcseg.losses.parts.pixel_sets import PixelSets, of_classes
from ccdcseg.losses.parts.projection import at_least_single
from ccdcseg.losses.parts.regions import draw_by_image, present, region_centres
from ccdcseg.losses.parts.selection import ClassQueries, ClassResult, Selection, diagnose
from ccdcseg.losses.parts.settings import ContrastiveSettings
from ccdcseg.losses.parts.supervised import consecutive, supervised_losses, supervised_result


@dataclass(frozen=True, kw_only=True)
class ContrastiveSegSettings(ContrastiveSettings):
    """Settings of `ContrastiveSegLoss`, beside those of all contrastive losses.

    Attributes:
        base_temperature: the loss is multiplied by ``temperature / base_temperature``.
        max_samples: anchors of a batch, at most.
        max_views: anchors of a class of an image, at most.
        min_pixels: a class with no more pixels in an image has no anchors there.
        memory_length: pixel keys, and as many region keys, kept of each class; None: contrast within the batch.
        pixel_keys: pixels of each class of an image whose embeddings enter the memory.
        region_pixels: at most so many pixels of a region, drawn at random, enter its key (None: all of them).
        positives: at most so many keys of its own class are drawn from the memory for a class's anchors.
        negatives: at most so many keys of the other classes.
    """

    temperature: float = 0.1
    base_temperature: float = 0.07
    max_samples: int = 1024
    max_views: int = 100
    min_pixels: int = 100
    memory_length: int | None = 5000
    pixel_keys: int = 10
    region_pixels: int | None = 512
    positives: int = 1024
    negatives: int = 2048

    _at_least_one: ClassVar[tuple[str, ...]] = (
        "max_samples",
        "max_views",
        "memory_length",
        "pixel_keys",
        "region_pixels",
        "positives",
        "negatives",
    )
    _at_least_zero: ClassVar[tuple[str, ...]] = ("min_pixels",)

    def __post_init__(self) -> None:
        """As the base, and a second temperature above 0."""
        super().__post_init__()
        self._require("base_temperature", self.base_temperature > 0, "above 0")


class ContrastiveSegLoss(ContrastiveLoss[ContrastiveSegSettings]):
    """Anchors, half of them misclassified, against pixels and regions of this batch or of earlier ones.

    For anchor i of class c, positives j of class c and negatives k of the others:

        l(i) = mean_j -log( e^{s_ij/tau} / (e^{s_ij/tau} + sum_k e^{s_ik/tau}) ),   L = tau/tau_0 mean_i l(i)

    Anchors are drawn by image and class. Without memory, positives and negatives are the other anchors, and
    gradient flows to all. With memory they are keys: embeddings of pixels and normalised means of the regions
    (the pixels of a class in an image) of earlier batches, without gradient.

    Source: Wang, Zhou, Yu, Dai, Konukoglu, Van Gool, *Exploring cross-image pixel contrast for semantic
    segmentation*, ICCV 2021. Deviation: a pointwise head without batch normalisation; keys are drawn from the
    memory at random (the paper's semi-hard draw among the nearest tenth is left out); a region's mean is
    taken before normalisation; background is a class like the others; a memory that is not full hands out
    only what was written; a batch without anchors gives a connected zero.

    Args:
        in_channels: Channels of the decoder features.
        num_classes: C, background among them.
        ignore_index: Pixels with this label take no part; None: all do.
        **settings: Of `ContrastiveSegSettings`, by keyword.

    Example:
        >>> criterion = ContrastiveSegLoss(8, 3, memory_length=None)
        >>> features, logits = torch.randn(2, 8, 16, 16), torch.randn(2, 3, 16, 16)
        >>> criterion(features, logits, torch.randint(3, (2, 16, 16))).ndim
        0
    """

    settings_type = ContrastiveSegSettings
    _idle_because = (
        "the batches held one class only, or no two classes with more than min_pixels pixels in an image (lower it "
        "for small structures), or more pairs of image and class than max_samples"
    )
    pixels: MemoryBank | None
    regions: MemoryBank | None

    def _add_modules(self) -> None:
        length, channels = self.settings.memory_length, self.settings.embedding_channels
        self.pixels = MemoryBank(self.num_classes, length, channels) if length else None
        self.regions = MemoryBank(self.num_classes, length, channels) if length else None

    def _banks(self) -> list[MemoryBank]:
        """The memories of pixels and of regions; none without memory."""
        return [bank for bank in (self.pixels, self.regions) if bank is not None]

    def _sets(self, batch: PixelBatch) -> dict[str, Tensor]:
        members = of_classes(batch.labels, self.num_classes)
        wrong = (batch.probabilities.argmax(1) != batch.labels)[:, None]
        return {"class": members, "easy": members & ~wrong, "hard": members & wrong}

    def _ask(self, sets: PixelSets) -> list[Tensor]:
        """Keys that were written into the memories."""
        del sets
        return [bank.written for bank in self._banks()]

    def _term(self, batch: PixelBatch, read: Read) -> tuple[Tensor, bool]:
        regions = read.numbers["class"]
        drawn = draw_anchors(read.numbers, self.num_classes, self.settings, batch.generator)
        places = self._draw_places(drawn, read.more, batch.generator)
        new = self._draw_new(regions, batch.generator)
        found, (there, *sent) = read.sets.find(
            [*(part for one in drawn.values() for part in (one.easy, one.hard)), *new],
            [present(regions), *(place for own in places.values() for place in own)],
        )
        pixels, place = iter(found), iter(sent)
        queries = {c: replace(one, easy=next(pixels), hard=next(pixels)) for c, one in drawn.items()}
        self.selection = Selection(batch.shape, {}, {}, queries, {})
        anchors = self._anchors(batch.features, queries)
        results, losses = self._contrast(
            anchors, {c: [next(place) for _ in own] for c, own in places.items()}
        )
        self.diagnostics = diagnose(read.statistics, self.selection, results, losses.device)
        if new:
            self._remember(batch, next(pixels), next(pixels), there)
        if not len(losses):
            return self._nothing(batch.features, torch.cat([losses, *anchors.values()])), True
        return losses.mean() * self.settings.temperature / self.settings.base_temperature, False

    def _draw_places(
        self, anchors: Collection[int], written: Sequence[Tensor], generator: torch.Generator | None
    ) -> dict[int, list[Tensor]]:
        """By class of the anchors, the places of their keys in the memories, as `_keys` takes them."""
        kept = [bank.sizes(own) for bank, own in zip(self._banks(), written, strict=True)]
        found = {}
        for c in anchors if kept else ():
            sizes = [of_bank[k] for k in self._own_first(c) for of_bank in kept]
            own, others = sizes[: len(kept)], sizes[len(kept) :]
            found[c] = draw_from(own, self.settings.positives, generator)
            found[c] += draw_from(others, self.settings.negatives, generator)
        return found

    def _draw_new(self, regions: Sequence[range], generator: torch.Generator | None) -> list[Tensor]:
        """Numbers of the pixels whose embeddings, and whose means, enter the memories; nothing where none does."""
        if not self._learning or not self._banks():
            return []
        limits = (self.settings.pixel_keys, self.settings.region_pixels)
        return [draw_by_image(regions, limit, generator) for limit in limits]

    def _own_first(self, c: int) -> list[int]:
        """All classes, ``c`` before the others."""
        return [c, *(k for k in range(self.num_classes) if k != c)]

    def _anchors(self, features: Tensor, queries: Mapping[int, ClassQueries]) -> dict[int, Tensor]:
        """(n, d) embeddings of the anchors of each class, projected together."""
        drawn = [one.pixels for one in queries.values()]
        anchors = self._project(features, torch.cat([no_pixels(features), *drawn]), gradient=True)
        return dict(zip(queries, torch.split(anchors, [len(one) for one in drawn]), strict=True))

    def _contrast(
        self, anchors: Mapping[int, Tensor], places: Mapping[int, Sequence[Tensor]]
    ) -> tuple[dict[int, ClassResult], Tensor]:
        """Results by class, and the losses of all anchors that have positives and negatives."""
        results, losses, itself = {}, [self.head.output.bias.new_empty(0)], not self._banks()
        in_batch = dict(zip(anchors, consecutive([len(part) for part in anchors.values()]), strict=True))
        for c, part in anchors.items():
            keys, own = (
                self._keys(c, places[c]) if places else (torch.cat(list(anchors.values())), in_batch[c])
            )
            similarity = part @ keys.T
            same = torch.zeros(similarity.shape, dtype=torch.int64, device=keys.device)
            same[:, own] = 1
            if itself:
                same[:, own].fill_diagonal_(-1)
            found = supervised_losses(similarity, same, self.settings.temperature)
            losses.append(found if itself < own.stop - own.start < len(keys) else found[:0])
            results[c] = supervised_result(losses[-1], similarity, own, itself=itself)
        return results, torch.cat(losses)

    def _keys(self, c: int, places: Sequence[Tensor]) -> tuple[Tensor, slice]:
        """(n, d) keys for the anchors of a class, and where those of the class lie among them."""
        sources = [bank.keys[k] for k in self._own_first(c) for bank in self._banks()]
        keys = torch.cat([at_least_single(all_of[own]) for all_of, own in zip(sources, places, strict=True)])
        return keys, slice(0, sum(len(own) for own in places[: len(self._banks())]))

    @torch.no_grad()
    def _remember(self, batch: PixelBatch, pixels: Tensor, of_regions: Tensor, regions: Tensor) -> None:
        """Let embeddings of pixels, and means of the regions over others, into the memories."""
        of_pixels = self._project(batch.features, pixels, gradient=False), batch.labels.flatten()[pixels]
        new = [of_pixels, region_centres(self.head, batch, of_regions, regions)]
        for bank, (keys, classes) in zip(self._banks(), new, strict=True):
            bank.push(keys, classes)

    def _idle(self, features: Tensor) -> None:
        for bank in self._banks() if self._learning else ():
            bank.push(self._project(features, no_pixels(features), gradient=False), no_pixels(features))


def draw_from(sizes: Sequence[int], limit: int, generator: torch.Generator | None) -> list[Tensor]:
    """Places in lists of these sizes: all of them, or ``limit`` at random."""
    if sum(sizes) <= limit:
        return [torch.arange(size, device="cpu") for size in sizes]
    drawn = without_replacement(range(sum(sizes)), limit, generator)
    parts = consecutive(sizes)
    return [drawn[(drawn >= part.start) & (drawn < part.stop)] - part.start for part in parts]


def draw_anchors(
    numbers: Mapping[str, Sequence[range]],
    classes: int,
    settings: ContrastiveSegSettings,
    generator: torch.Generator | None,
) -> dict[int, ClassQueries]:
    """Anchors by class: of every image half hard (misclassified) and half easy, a shortage filled by the other.

    Each class of an image that has more than ``min_pixels`` there gives ``max_samples`` divided by the number of
    such pairs, at most ``max_views``.

    Args:
        numbers: of the pixels of each class, and of the easy and hard ones among them, image by image.
        classes: C.
        settings: of the loss.
        generator: source of randomness.

    Returns:
        The anchors, on the CPU, with numbers in place of pixels.
    """
    pairs = [row for row, own in enumerate(numbers["class"]) if len(own) > settings.min_pixels]
    wanted = min(settings.max_samples // max(1, len(pairs)), settings.max_views)
    found: dict[int, list[ClassQueries]] = {}
    for row in pairs:
        easy, hard = numbers["easy"][row], numbers["hard"][row]
        n_hard = min(len(hard), max(wanted // 2, wanted - len(easy)))
        n_easy = min(len(easy), wanted - n_hard)
        drawn = ClassQueries(
            without_replacement(easy, n_easy, generator),
            without_replacement(hard, n_hard, generator),
            len(easy),
            len(hard),
            0.5,
        )
        found.setdefault(row % classes, []).append(drawn)
    return {c: _joined(parts) for c, parts in sorted(found.items()) if wanted}


def _joined(parts: list[ClassQueries]) -> ClassQueries:
    """The anchors of a class from all images."""
    return ClassQueries(
        torch.cat([part.easy for part in parts]),
        torch.cat([part.hard for part in parts]),
        sum(part.easy_available for part in parts),
        sum(part.hard_available for part in parts),
        parts[0].hard_share,
    )
