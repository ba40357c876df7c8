"""Small random batches for the tests of the losses."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from hypothesis import settings
from torch import Tensor

from ccdcseg import losses

ENUMS = {
    "threshold": losses.ThresholdRule,
    "query_strategy": losses.QueryStrategy,
    "shortage": losses.Shortage,
    "negative_strategy": losses.NegativeStrategy,
    "region": losses.Region,
    "region_combination": losses.RegionCombination,
    "denominator": losses.Denominator,
    "query_reduction": losses.QueryReduction,
    "class_average": losses.ClassAverage,
    "statistics_scope": losses.StatisticsScope,
}
"""Every setting of CCDC that is a choice."""

repeatable = settings(deadline=None, max_examples=30, derandomize=True)


class Batch(NamedTuple):
    """What a loss is called with."""

    features: Tensor
    logits: Tensor
    target: Tensor


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawing(criterion: Any, seed: int = 0) -> Any:
    """A loss that is given a generator of its own in each call, as a training does."""
    criterion.generator = seeded(seed)
    criterion.register_forward_pre_hook(_with_generator, with_kwargs=True)
    return criterion


def _with_generator(criterion: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return args, {"generator": criterion.generator, **options}


def logits_of(probabilities: Tensor) -> Tensor:
    """Logits (1, C, 1, N) of N pixels given as rows (N, C) of probabilities."""
    return probabilities.log().T[None, :, None]


def random_batch(
    spatial: tuple[int, ...] = (6, 7),
    *,
    images: int = 2,
    channels: int = 3,
    classes: int = 4,
    certainty: float = 7.0,
    seed: int = 0,
) -> Batch:
    """Every class present; its pixels range from confused to certain."""
    generator = seeded(seed)
    target = torch.randint(classes, (images, *spatial), generator=generator)
    target.view(-1)[:classes] = torch.arange(classes)
    towards_label = F.one_hot(target, classes).movedim(-1, 1)
    sureness = certainty * torch.rand(images, 1, *spatial, generator=generator)
    logits = torch.randn(images, classes, *spatial, generator=generator) + sureness * towards_label
    return Batch(torch.randn(images, channels, *spatial, generator=generator), logits, target)
