import random

import numpy as np
import pytest
import torch

from ccdcseg.errors import UserError
from ccdcseg.nnunet.seeding import VARIABLE, derived_seed, seed_everything, seed_from_environment


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_every_source_repeats():
    seed_everything(3)
    first = draw()
    assert draw() != first
    seed_everything(3)
    assert draw() == first
    seed_everything(4)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_purposes_differ_and_repeat():
    seeds = {derived_seed(s, *p) for s in (0, 1) for p in [("weights",), ("epoch", 0), ("epoch", 1)]}
    assert len(seeds) == 6
    assert derived_seed(0, "epoch", 1) == derived_seed(0, "epoch", 1)


def test_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert seed_from_environment() is None
    monkeypatch.setenv(VARIABLE, "12")
    assert seed_from_environment() == 12
    monkeypatch.setenv(VARIABLE, "twelve")
    with pytest.raises(UserError, match="twelve"):
        seed_from_environment()
