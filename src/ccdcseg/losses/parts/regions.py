"""Regions as ContrastiveSeg and RegionContrast have them: the pixels of a class in an image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ccdcseg.losses.parts.base import PixelBatch
from ccdcseg.losses.parts.draw import at_most
from ccdcseg.losses.parts.pixel_sets import no_numbers
from ccdcseg.losses.parts.projection import ProjectionHead, unit


def region_centres(
    head: ProjectionHead, batch: PixelBatch, pixels: Tensor, regions: Tensor
) -> tuple[Tensor, Tensor]:
    """Centres of the regions of a batch: the pixels of each class of each image.

    Args:
        head: that projects the pixels.
        batch: of the call.
        pixels: (n,) those that stand for their regions.
        regions: (r,) the regions that have some, in ascending order: image * C + class.

    Returns:
        (r, d) unit centres, and (r,) their classes.
    """
    classes, images = batch.probabilities.shape[1], len(batch.labels)
    groups = pixels // batch.labels.shape[1] * classes + batch.labels.flatten()[pixels]
    means = head.group_means(batch.features, pixels, groups, images * classes)
    return unit(means[regions]), regions % classes


def present(regions: Sequence[range]) -> Tensor:
    """(r,) which regions have pixels, in ascending order, on the CPU."""
    found = [region for region, own in enumerate(regions) if own]
    return torch.tensor(found, dtype=torch.int64, device="cpu")


def draw_by_image(regions: Sequence[range], limit: int | None, generator: torch.Generator | None) -> Tensor:
    """(n,) numbers of at most ``limit`` pixels of each region (None: of all), on the CPU."""
    return torch.cat([no_numbers(), *(at_most(own, limit, generator) for own in regions)])
