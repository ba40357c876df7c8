"""RegionContrast: the centres of a batch's regions against a memory of centres."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ccdcseg.losses.contrast import ClassResult, supervised_losses
from ccdcseg.losses.core import draw_core
from ccdcseg.losses.memory_bank import MemoryBank
from ccdcseg.losses.projection import ProjectionHead
from ccdcseg.losses.selection import Selection, diagnose
from ccdcseg.losses.settings import ContrastiveSettings
from ccdcseg.losses.subset import PixelSubset
from ccdcseg.losses.term import ContrastiveLoss, PixelBatch, no_pixels


@dataclass(frozen=True, kw_only=True)
class RegionContrastSettings(ContrastiveSettings):
    """Settings of `RegionContrastLoss`, beside those of all contrastive losses.

    Attributes:
        memory_length: centres kept of each class: the paper takes the number of training images.
        region_pixels: at most so many pixels of a region, drawn at random, enter its centre (None: all of them, as
            in the paper).
    """

    weight: float = 0.1
    temperature: float = 0.2
    memory_length: int = 200
    region_pixels: int | None = 512

    _at_least_one: ClassVar[tuple[str, ...]] = (
        *ContrastiveSettings._at_least_one,
        "memory_length",
        "region_pixels",
    )


class RegionContrastLoss(ContrastiveLoss[RegionContrastSettings]):
    """Region centres are pulled to earlier centres of their class and pushed from those of the others.

    The centre r of a region (the pixels of class c in an image) is the normalised mean of their embeddings. With
    the memory's centres m_j of class c and m_k of the others:

        l(r) = mean_j -log( e^{r.m_j/tau} / (e^{r.m_j/tau} + sum_k e^{r.m_k/tau}) ),   L = mean over centres

    The memory holds no gradient; the batch's centres enter it afterwards.

    Source: Hu, Cui, Wang, *Region-aware contrastive learning for semantic segmentation*, ICCV 2021. Deviation from
    the released code, which departs from the paper: dot products, not element-wise ones; keys detached; any
    number of classes; regions by label and image, not by prediction over the batch. Ours: the mean is taken
    before normalisation, over ``region_pixels`` of a region by default (the same expectation), by a pointwise head
    without batch normalisation.

    Args:
        in_channels: channels of the decoder features.
        num_classes: C, background among them.
        settings: None: the defaults.
        ignore_label: pixels with this label take no part.
        generator: CPU source of the draws; None: torch's default.
    """

    settings_type = RegionContrastSettings

    def _add_modules(self) -> None:
        settings = self.settings
        self.memory = MemoryBank(self.num_classes, settings.memory_length, settings.embedding_channels)

    def _term(self, batch: PixelBatch) -> Tensor:
        centres, classes = region_centres(self.head, batch, self.settings.region_pixels, self.generator)
        kept = [self.memory.of_class(c) for c in range(self.num_classes)]
        keys = torch.cat(kept)
        of_keys = torch.repeat_interleave(torch.tensor([len(part) for part in kept])).to(classes.device)
        similarity, same = centres @ keys.T, (classes[:, None] == of_keys).long()
        losses = supervised_losses(similarity, same, self.settings.temperature)
        seen = (same == 1).any(1)
        shape = (len(batch.features), *batch.features.shape[2:])
        results = {
            c: _result(losses, similarity, same, seen & (classes == c))
            for c in torch.unique(classes[seen]).tolist()
        }
        self.diagnostics = diagnose(batch.statistics, Selection(shape, {}, {}, {}, {}), results)
        if self.training:
            self.memory.push(centres, classes)
        return losses[seen].mean() if seen.any() else self._nothing(batch.features, centres)

    def _idle(self, features: Tensor) -> None:
        if self.training:
            none = self._project(features, no_pixels(features), gradient=False)
            self.memory.push(none, no_pixels(features))


def _result(losses: Tensor, similarity: Tensor, same: Tensor, own: Tensor) -> ClassResult:
    """Result of the centres of one class."""
    found, kind = similarity[own].detach(), same[own]
    return ClassResult(losses[own].mean(), found[kind == 1].mean(), found[kind == 0].mean())


def region_centres(
    head: ProjectionHead, batch: PixelBatch, limit: int | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Centres of the regions of a batch: the pixels of each class of each image.

    Args:
        head: that projects the pixels.
        batch: of the call.
        limit: pixels of a region, at most; None: all.
        generator: source of randomness.

    Returns:
        (n, d) unit centres, image by image, and (n,) their classes.
    """
    classes, images = batch.probabilities.shape[1], len(batch.labels)
    pixels = draw_by_image(batch.labels, classes, limit, generator)
    groups = pixels // batch.labels.shape[1] * classes + batch.labels.flatten()[pixels]
    means = head.group_means(batch.features, pixels, groups, images * classes)
    there = torch.unique(groups)
    return F.normalize(means[there], dim=1), there % classes


def draw_by_image(
    labels: Tensor, num_classes: int, limit: int | None, generator: torch.Generator | None
) -> Tensor:
    """(n,) at most ``limit`` pixels of each class of each image: indices into the flattened batch.

    Args:
        labels: (B, N), -1 where ignored.
        num_classes: C.
        limit: of each class and image; None: all.
        generator: source of randomness.
    """
    drawn = [
        image * labels.shape[1] + draw_core(PixelSubset(own == c), limit, generator)
        for image, own in enumerate(labels)
        for c in range(num_classes)
    ]
    return torch.cat([no_pixels(labels), *drawn])
