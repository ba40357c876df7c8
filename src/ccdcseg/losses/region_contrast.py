"""RegionContrast: the centres of a batch's regions against a memory of centres."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ccdcseg.losses.parts.base import ContrastiveLoss, PixelBatch, Read, no_pixels
from ccdcseg.losses.parts.memory_bank import MemoryBank
from ccdcseg.losses.parts.pixel_sets import PixelSets, of_classes
from ccdcseg.losses.parts.regions import draw_by_image, present, region_centres
from ccdcseg.losses.parts.selection import Selection, diagnose
from ccdcseg.losses.parts.settings import ContrastiveSettings
from ccdcseg.losses.parts.supervised import consecutive, supervised_losses, supervised_result


@dataclass(frozen=True, kw_only=True)
class RegionContrastSettings(ContrastiveSettings):
    """Settings of `RegionContrastLoss`, beside those of all contrastive losses.

    Attributes:
        memory_length: centres kept of each class: the paper takes the number of training images.
        region_pixels: at most so many pixels of a region, drawn at random, enter its centre (None: all of them, as
            in the paper).
    """

    temperature: float = 0.2
    memory_length: int = 200
    region_pixels: int | None = 512

    _at_least_one: ClassVar[tuple[str, ...]] = (
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
        in_channels: Channels of the decoder features.
        num_classes: C, background among them.
        ignore_index: Pixels with this label take no part; None: all do.
        **settings: Of `RegionContrastSettings`, by keyword.

    Example:
        >>> criterion = RegionContrastLoss(8, 3, memory_length=50)
        >>> features, logits = torch.randn(2, 8, 16, 16), torch.randn(2, 3, 16, 16)
        >>> criterion(features, logits, torch.randint(3, (2, 16, 16))).ndim
        0
    """

    settings_type = RegionContrastSettings

    def _add_modules(self) -> None:
        settings = self.settings
        self.memory = MemoryBank(self.num_classes, settings.memory_length, settings.embedding_channels)

    def _sets(self, batch: PixelBatch) -> dict[str, Tensor]:
        return {"class": of_classes(batch.labels, self.num_classes)}

    def _ask(self, sets: PixelSets) -> list[Tensor]:
        """Keys that were written into the memory."""
        del sets
        return [self.memory.written]

    def _term(self, batch: PixelBatch, read: Read) -> tuple[Tensor, bool]:
        members, kept = read.numbers["class"], self.memory.sizes(*read.more)
        there, held = present(members), torch.tensor(kept, device="cpu")
        classes = torch.arange(self.num_classes, device="cpu")
        of_centres, of_keys = there % self.num_classes, classes.repeat_interleave(held)
        seen = ((held > 0) & (held < held.sum()))[of_centres].nonzero()[:, 0]
        rows = {c: (of_centres == c).nonzero()[:, 0] for c in torch.unique(of_centres[seen]).tolist()}
        (pixels,), sent = read.sets.find(
            [draw_by_image(members, self.settings.region_pixels, batch.generator)],
            [there, of_keys, seen, *rows.values()],
        )
        centres, classes = region_centres(self.head, batch, pixels, sent[0])
        keys = torch.cat([self.memory.first(c, size) for c, size in enumerate(kept)])
        similarity, same = centres @ keys.T, (classes[:, None] == sent[1]).long()
        losses, columns = supervised_losses(similarity, same, self.settings.temperature), consecutive(kept)
        results = {
            c: supervised_result(losses[own], similarity[own], columns[c])
            for c, own in zip(rows, sent[3:], strict=True)
        }
        self.selection = Selection(batch.shape, {}, {}, {}, {})
        self.diagnostics = diagnose(read.statistics, self.selection, results, centres.device)
        if self._learning:
            self.memory.push(centres, classes)
        return (losses[sent[2]].mean(), False) if results else (self._nothing(batch.features, centres), True)

    def _idle(self, features: Tensor) -> None:
        if self._learning:
            none = self._project(features, no_pixels(features), gradient=False)
            self.memory.push(none, no_pixels(features))
