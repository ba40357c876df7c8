import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from ccdcseg.losses.logits import FocalLoss
from ccdcseg.methods import METHODS
from ccdcseg.nnunet.logits_trainers import SummedLoss

NAMES = ["focal", "gdl", "topk", "mcc"]


@pytest.fixture
def build(make_trainer, tiny_run) -> Callable[..., Any]:
    """The initialised trainer of a method."""
    return lambda name, *changes: make_trainer(tiny_run(name, changes), METHODS[name].trainer)


def planes(size: int = 16) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Outputs and targets of two resolutions."""
    torch.manual_seed(0)
    logits = [torch.randn(2, 4, s, s, requires_grad=True) for s in (size, size // 2)]
    return logits, [torch.randint(4, (2, 1, s, s)).float() for s in (size, size // 2)]


@pytest.mark.parametrize("name", NAMES)
def test_sum_and_alone_weigh_every_output(name: str, build):
    summed, alone = build(name).loss, build(name, f"{name}.combination=alone").loss
    assert isinstance(summed, DeepSupervisionWrapper)
    assert isinstance(summed.loss, SummedLoss)
    assert isinstance(summed.loss.first, DC_and_CE_loss)
    logits, target = planes()
    outputs = len(summed.weight_factors)
    logits, target = (logits * outputs)[:outputs], (target * outputs)[:outputs]
    plain = DeepSupervisionWrapper(summed.loss.first, summed.weight_factors)
    expected = plain(logits, target) + alone(logits, target)
    torch.testing.assert_close(summed(logits, target), expected)
    by_hand = sum(
        w * alone.loss(x, y) for w, x, y in zip(alone.weight_factors, logits, target, strict=True) if w
    )
    torch.testing.assert_close(alone(logits, target), by_hand)


def test_with_cross_entropy_in_place_of_dice(build):
    """As nnU-Net's first version combined it with GDL."""
    changes = ["gdl.volume_weight=inverse", "gdl.background=false", "gdl.batch_wise=true"]
    alone = build("gdl", *changes, "gdl.combination=alone").loss.loss
    loss = build("gdl", *changes, "gdl.combination=cross_entropy").loss.loss
    (logits, *_), (target, *_) = planes()
    expected = torch.nn.functional.cross_entropy(logits, target[:, 0].long()) + alone(logits, target)
    torch.testing.assert_close(loss(logits, target), expected)


def test_one_output_without_deep_supervision(build):
    trainer = build("focal", "focal.combination=alone")
    trainer.enable_deep_supervision = False
    loss = trainer._build_loss()
    assert isinstance(loss, SummedLoss)
    assert loss.first is None
    assert isinstance(loss.second, FocalLoss)


def test_settings_reach_the_loss(build):
    loss = build("focal", "focal.gamma=3.5", "focal.weight=0.5").loss
    assert loss.loss.second.settings.gamma == 3.5
    assert loss.loss.weight == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_a_training_runs_to_its_end(name: str, tiny_run, train_run):
    folder: Path = train_run(tiny_run(name))
    record = json.loads((folder / "run.json").read_text())
    assert (record["method"], record["trainer"]) == (name, METHODS[name].trainer)
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert all(epoch["train_loss"] is not None for epoch in history)


def test_the_weight_is_of_the_term_alone():
    (logits, *_), (target, *_) = planes()
    plain, term = FocalLoss(gamma=0), FocalLoss()
    for first, expected in (
        (None, 0.25 * term(logits, target)),
        (plain, plain(logits, target) + 0.25 * term(logits, target)),
    ):
        torch.testing.assert_close(SummedLoss(first, term, 0.25)(logits, target), expected)
