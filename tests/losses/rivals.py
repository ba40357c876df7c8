"""CCDC and its contrastive rivals in small, and the formulas of the rivals in plain loops."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from batches import Batch, drawing, random_batch
from hypothesis import settings as hypothesis_settings
from torch import Tensor

from ccdcseg.losses import (
    CCDCLoss,
    CCDCSettings,
    ContrastiveSegLoss,
    ContrastiveSegSettings,
    ReCoLoss,
    ReCoSettings,
    RegionContrastLoss,
    RegionContrastSettings,
)
from ccdcseg.losses.parts.base import ContrastiveLoss
from ccdcseg.losses.parts.projection import ProjectionHead

IGNORED = 9
SIZES: dict[str, Any] = {"hidden_channels": 6, "embedding_channels": 4}
SEG: dict[str, Any] = {"min_pixels": 3, "max_views": 8, "max_samples": 60, **SIZES}
KINDS: dict[str, tuple[type[ContrastiveLoss], Any]] = {
    "reco": (ReCoLoss, ReCoSettings(queries=9, negatives=5, **SIZES)),
    "batch": (ContrastiveSegLoss, ContrastiveSegSettings(memory_length=None, **SEG)),
    "memory": (ContrastiveSegLoss, ContrastiveSegSettings(memory_length=12, pixel_keys=3, **SEG)),
    "region": (RegionContrastLoss, RegionContrastSettings(memory_length=5, **SIZES)),
}
CONTRASTIVE: dict[str, tuple[type[ContrastiveLoss], Any]] = {
    "ccdc": (CCDCLoss, CCDCSettings(queries=9, negatives=5, core_threshold=0.3, **SIZES)),
    **KINDS,
}
Vector = np.ndarray
few = hypothesis_settings(deadline=None, max_examples=8, derandomize=True)


def made(name: str, classes: int = 4, seed: int = 0, ignore: int | None = None, **changes: Any) -> Any:
    """One of `CONTRASTIVE` in double precision, always with the same head."""
    kind, settings = CONTRASTIVE[name]
    torch.manual_seed(0)
    own = asdict(settings) | changes
    return drawing(kind(3, classes, ignore_index=ignore, **own), seed).double()


def filled(name: str, classes: int = 4, **changes: Any) -> Any:
    """The same after a call on another batch, and then in eval mode, so that a memory stays as it is."""
    criterion = made(name, classes, **changes)
    criterion(*double_batch(seed=77, classes=classes))
    return criterion.eval()


def double_batch(
    spatial: tuple[int, ...] = (6, 7), *, seed: int = 0, classes: int = 4, ignored: int = 0, images: int = 2
) -> Batch:
    """Random; the last ``ignored`` pixels of the first image carry the ignore label."""
    features, logits, target = random_batch(spatial, seed=seed, classes=classes, images=images)
    if ignored:
        target[0].view(-1)[-ignored:] = IGNORED
    return Batch(features.double().requires_grad_(), logits, target)


def banks(criterion: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of the memories of a loss, by the names of their buffers."""
    return {
        name: value.clone() for name, value in criterion.named_buffers() if name.endswith(("keys", "written"))
    }


def rows(maps: Tensor) -> Vector:
    """(B, c, *spatial) to one row of channels a pixel."""
    found = np.moveaxis(maps.detach().double().numpy(), 1, -1)
    return found.reshape(-1, found.shape[-1])


def raw(head: ProjectionHead, feature: Vector) -> Vector:
    """One pixel through the head, by hand."""
    first, second = head.hidden, head.output
    weights = [p.detach().double().numpy() for p in (first.weight, first.bias, second.weight, second.bias)]
    hidden = [max(0.0, sum(w * x for w, x in zip(row, feature, strict=True)) + b)
              for row, b in zip(weights[0], weights[1], strict=True)]  # fmt: skip
    return np.array([sum(w * x for w, x in zip(row, hidden, strict=True)) + b
                     for row, b in zip(weights[2], weights[3], strict=True)])  # fmt: skip


def unit(vector: Vector) -> Vector:
    return vector / math.sqrt(sum(x * x for x in vector))


def embeddings(head: ProjectionHead, features: Tensor) -> list[Vector]:
    """(d,) before normalisation, of every pixel."""
    return [raw(head, row) for row in rows(features)]


def centre(vectors: Sequence[Vector]) -> Vector:
    return unit(sum(vectors) / len(vectors))


def centres_of(head: ProjectionHead, batch: Batch, classes: int) -> list[tuple[int, Vector]]:
    """Class and centre of every region, image by image."""
    vectors, found = embeddings(head, batch.features), []
    for image, labels in enumerate(batch.target.flatten(1).tolist()):
        for c in range(classes):
            own = [vectors[image * len(labels) + i] for i, label in enumerate(labels) if label == c]
            if own:
                found.append((c, centre(own)))
    return found


def info_nce(anchor: Vector, positive: Vector, negatives: Sequence[Vector], temperature: float) -> float:
    """-log( e^{a.p/t} / (e^{a.p/t} + sum_n e^{a.n/t}) )."""
    pull = math.exp(float(anchor @ positive) / temperature)
    push = sum(math.exp(float(anchor @ negative) / temperature) for negative in negatives)
    return -math.log(pull / (pull + push))


def supervised(
    anchor: Vector, positives: Sequence[Vector], negatives: Sequence[Vector], temperature: float
) -> float:
    """The mean over the positives, each against all negatives."""
    return sum(info_nce(anchor, p, negatives, temperature) for p in positives) / len(positives)


def by_class(bank: Tensor, written: Tensor) -> Mapping[int, list[Vector]]:
    """The keys of a memory that were written."""
    return {
        c: [key.numpy() for key in keys[: min(int(written[c]), len(keys))]] for c, keys in enumerate(bank)
    }
