"""ContrastiveSeg: pixel contrast across images, in the batch or against a memory of earlier ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ccdcseg.losses.contrast import ClassResult, supervised_losses
from ccdcseg.losses.draw import without_replacement
from ccdcseg.losses.memory_bank import MemoryBank
from ccdcseg.losses.queries import ClassQueries
from ccdcseg.losses.region_contrast import draw_by_image, region_centres
from ccdcseg.losses.selection import Selection, diagnose
from ccdcseg.losses.settings import ContrastiveSettings
from ccdcseg.losses.subset import PixelSubset
from ccdcseg.losses.term import ContrastiveLoss, PixelBatch, no_pixels


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

    weight: float = 0.1
    start_iteration: int = 5000
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
        *ContrastiveSettings._at_least_one,
        "max_samples",
        "max_views",
        "memory_length",
        "pixel_keys",
        "region_pixels",
        "positives",
        "negatives",
    )
    _at_least_zero: ClassVar[tuple[str, ...]] = (*ContrastiveSettings._at_least_zero, "min_pixels")

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
        in_channels: channels of the decoder features.
        num_classes: C, background among them.
        settings: None: the defaults.
        ignore_label: pixels with this label take no part.
        generator: CPU source of the draws; None: torch's default.
    """

    settings_type = ContrastiveSegSettings
    pixels: MemoryBank | None
    regions: MemoryBank | None

    def _add_modules(self) -> None:
        length, channels = self.settings.memory_length, self.settings.embedding_channels
        self.pixels = MemoryBank(self.num_classes, length, channels) if length else None
        self.regions = MemoryBank(self.num_classes, length, channels) if length else None

    def _term(self, batch: PixelBatch) -> Tensor:
        shape = (len(batch.features), *batch.features.shape[2:])
        queries = draw_anchors(batch, self.settings, self.generator)
        selection = self.selection = Selection(shape, {}, {}, queries, {})
        anchors = self._anchors(batch.features, queries)
        results, losses = self._contrast(anchors)
        self.diagnostics = diagnose(batch.statistics, selection, results)
        if self.training and self.pixels is not None:
            self._remember(batch)
        if not len(losses):
            return self._nothing(batch.features, torch.cat([losses, *anchors.values()]))
        return losses.mean() * self.settings.temperature / self.settings.base_temperature

    def _anchors(self, features: Tensor, queries: Mapping[int, ClassQueries]) -> dict[int, Tensor]:
        """(n, d) embeddings of the anchors of each class, projected together."""
        drawn = [one.pixels for one in queries.values()]
        anchors = self._project(features, torch.cat([no_pixels(features), *drawn]), gradient=True)
        return dict(zip(queries, torch.split(anchors, [len(one) for one in drawn]), strict=True))

    def _contrast(self, anchors: Mapping[int, Tensor]) -> tuple[dict[int, ClassResult], Tensor]:
        """Results by class, and the losses of all anchors that have positives."""
        results, losses = {}, [self.head.output.bias.new_empty(0)]
        for c, part in anchors.items():
            keys, same = self._keys(c, part, anchors)
            similarity = part @ keys.T
            found = supervised_losses(similarity, same, self.settings.temperature)
            found = found[(same == 1).any(1)]
            losses.append(found)
            results[c] = ClassResult(
                found.mean(), similarity[same == 1].detach().mean(), similarity[same == 0].detach().mean()
            )
        return results, torch.cat(losses)

    def _keys(self, c: int, anchors: Tensor, parts: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        """(n, d) keys for the anchors of a class and (A, n): 1 positive, 0 negative, -1 the anchor itself."""
        if self.pixels is None:
            keys = torch.cat(list(parts.values()))
            classes = torch.cat([torch.full((len(part),), k) for k, part in parts.items()])
            same = (classes == c).long().repeat(len(anchors), 1)
            same[:, classes == c] -= 2 * torch.eye(len(anchors), dtype=torch.int64)
            return keys, same.to(keys.device)
        own = self._drawn([c], self.settings.positives)
        other = self._drawn([k for k in range(self.num_classes) if k != c], self.settings.negatives)
        same = torch.cat((own.new_ones(len(own)), other.new_zeros(len(other))))
        return torch.cat((own, other)), same.long().repeat(len(anchors), 1)

    def _drawn(self, classes: Sequence[int], limit: int) -> Tensor:
        """At most ``limit`` keys of the classes, pixels and regions alike, at random."""
        assert self.pixels is not None  # noqa: S101 - only with memory
        assert self.regions is not None  # noqa: S101
        kept = [bank.of_class(c) for c in classes for bank in (self.pixels, self.regions)]
        sizes = [len(keys) for keys in kept]
        if sum(sizes) <= limit:
            return torch.cat(kept)
        drawn = without_replacement(sum(sizes), limit, self.generator, kept[0].device)
        parts, first = [], 0
        for keys, size in zip(kept, sizes, strict=True):
            parts.append(keys[drawn[(drawn >= first) & (drawn < first + size)] - first])
            first += size
        return torch.cat(parts)

    @torch.no_grad()
    def _remember(self, batch: PixelBatch) -> None:
        """Let pixels and regions of the batch into the memory."""
        assert self.pixels is not None  # noqa: S101 - only with memory
        assert self.regions is not None  # noqa: S101
        drawn = draw_by_image(batch.labels, self.num_classes, self.settings.pixel_keys, self.generator)
        classes = batch.labels.flatten()[drawn]
        self.pixels.push(self._project(batch.features, drawn, gradient=False), classes)
        self.regions.push(*region_centres(self.head, batch, self.settings.region_pixels, self.generator))

    def _idle(self, features: Tensor) -> None:
        if self.training and self.pixels is not None and self.regions is not None:
            none = self._project(features, no_pixels(features), gradient=False)
            self.pixels.push(none, no_pixels(features))
            self.regions.push(none, no_pixels(features))


@torch.no_grad()
def draw_anchors(
    batch: PixelBatch, settings: ContrastiveSegSettings, generator: torch.Generator | None
) -> dict[int, ClassQueries]:
    """Anchors by class: of every image half hard (misclassified) and half easy, a shortage filled by the other.

    Each class of an image that has more than ``min_pixels`` there gives ``max_samples`` divided by the number of
    such pairs, at most ``max_views``.
    """
    images, size = batch.labels.shape
    wrong = batch.probabilities.argmax(1) != batch.labels
    pairs = [
        (image, c)
        for image in range(images)
        for c in range(batch.probabilities.shape[1])
        if int((batch.labels[image] == c).sum()) > settings.min_pixels
    ]
    wanted = min(settings.max_samples // max(1, len(pairs)), settings.max_views)
    found: dict[int, list[ClassQueries]] = {}
    for image, c in pairs:
        members = batch.labels[image] == c
        hard, easy = PixelSubset(members & wrong[image]), PixelSubset(members & ~wrong[image])
        n_hard = min(len(hard), max(wanted // 2, wanted - len(easy)))
        n_easy = min(len(easy), wanted - n_hard)
        device = members.device
        found.setdefault(c, []).append(
            ClassQueries(
                image * size + easy.at(without_replacement(len(easy), n_easy, generator, device)),
                image * size + hard.at(without_replacement(len(hard), n_hard, generator, device)),
                len(easy),
                len(hard),
                0.5,
            )
        )
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
