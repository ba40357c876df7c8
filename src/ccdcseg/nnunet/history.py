"""What the steps of an epoch were like, as numbers that JSON knows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch

from ccdcseg.losses import Diagnostics


def finite(value: Any) -> Any:
    """The value for JSON: NaN and infinity become null, tensors and arrays become lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def mean_diagnostics(steps: Sequence[Diagnostics], classes: Sequence[str]) -> dict[str, Any] | None:
    """Mean over the steps of an epoch, by class, over the steps in which a class had a value."""
    if not steps:
        return None
    means = {
        field.name: torch.stack([getattr(step, field.name) for step in steps]).nanmean(0)
        for field in fields(Diagnostics)
    }
    return {"classes": list(classes), **finite(means)}
