"""One seed for everything that is random in a training."""

import os
import random
import zlib

import numpy as np
import torch

from ccdcseg.errors import UserError

VARIABLE = "CCDCSEG_SEED"


def seed_from_environment() -> int | None:
    """The seed that ``ccdcseg train --seed`` hands to the trainer; None: unseeded, as nnU-Net is.

    Raises:
        UserError: the variable holds no integer.
    """
    value = os.environ.get(VARIABLE)
    if value is None:
        return None
    if not value.isdecimal():
        raise UserError(f"{VARIABLE} is {value!r}, not a number.", "Set it to 0 or more, or unset it.")
    return int(value)


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, so that purposes do not disturb each other and epochs can be resumed."""
    return zlib.crc32(repr((seed, *purpose)).encode())


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - nnU-Net and batchgenerators draw from the global state
    torch.manual_seed(seed)
