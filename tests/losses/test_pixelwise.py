import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ccdcseg.losses.pixelwise import (
    Combination,
    FocalLoss,
    FocalSettings,
    GDLLoss,
    GDLSettings,
    MCCLoss,
    MCCSettings,
    TopKLoss,
    TopKSettings,
)

LOSSES = [FocalLoss, GDLLoss, TopKLoss, MCCLoss]


def batch(
    seed: int = 0, shape: tuple[int, ...] = (2, 3, 6, 5), ignored: bool = False
) -> tuple[Tensor, Tensor]:
    """Double-precision logits and labels; 9 is to be ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    if ignored:
        target[torch.rand(target.shape, generator=generator) < 0.3] = 9
    return logits, target


def pixels(logits: Tensor, target: Tensor) -> list[list[tuple[np.ndarray, int]]]:
    """Softmax probabilities and label of every pixel that is not ignored, image by image."""
    images = []
    for scores, labels in zip(logits.numpy(), target.numpy(), strict=True):
        image = []
        for place in np.ndindex(labels.shape):
            if labels[place] != 9:
                e = np.exp(scores[(slice(None), *place)])
                image.append((e / e.sum(), int(labels[place])))
        images.append(image)
    return images


def focal_oracle(logits: Tensor, target: Tensor, gamma: float = 2.0) -> float:
    every = [p[y] for image in pixels(logits, target) for p, y in image]
    return sum(-((1 - p) ** gamma) * math.log(p) for p in every) / len(every)


def gdl_oracle(logits: Tensor, target: Tensor) -> float:
    losses = []
    for image in pixels(logits, target):
        classes = range(logits.shape[1])
        size = [sum(y == c for _, y in image) for c in classes]
        largest = max(1 / n**2 for n in size if n)
        weight = [1 / n**2 if n else largest for n in size]
        overlap = sum(weight[c] * sum(p[c] for p, y in image if y == c) for c in classes)
        total = sum(weight[c] * (sum(p[c] for p, _ in image) + size[c]) for c in classes)
        losses.append(1 - 2 * overlap / total)
    return sum(losses) / len(losses)


def topk_oracle(logits: Tensor, target: Tensor, percent: float = 10.0) -> float:
    every = sorted((-math.log(p[y]) for image in pixels(logits, target) for p, y in image), reverse=True)
    count = max(1, int(len(every) * percent / 100))
    return sum(every[:count]) / count


def mcc_oracle(logits: Tensor, target: Tensor) -> float:
    every = [pair for image in pixels(logits, target) for pair in image]
    losses = []
    for c in range(1, logits.shape[1]):
        tp = sum(p[c] for p, y in every if y == c) / len(every)
        fp = sum(p[c] for p, y in every if y != c) / len(every)
        fn = sum(1 - p[c] for p, y in every if y == c) / len(every)
        tn = sum(1 - p[c] for p, y in every if y != c) / len(every)
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        if any(y == c for _, y in every):
            losses.append(1 - (tp * tn - fp * fn) / math.sqrt(product + 1e-6))
    return sum(losses) / len(losses)


ORACLES: list[tuple[Any, Callable[[Tensor, Tensor], float]]] = [
    (FocalLoss, focal_oracle),
    (GDLLoss, gdl_oracle),
    (TopKLoss, topk_oracle),
    (MCCLoss, mcc_oracle),
]


@pytest.mark.parametrize(("loss", "oracle"), ORACLES)
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (2, 4, 3, 4, 5)])
def test_equals_a_naive_loop(loss, oracle, ignored: bool, shape: tuple[int, ...]):
    for seed in range(3):
        logits, target = batch(seed, shape, ignored)
        found = loss(ignore_label=9)(logits, target)
        assert found.item() == pytest.approx(oracle(logits, target), rel=1e-6)


def test_by_hand():
    """Two pixels: the first of class 1 with probability 3/4, the second of class 0 with probability 1/2."""
    logits = torch.tensor([[[[0.0, 0.0]], [[math.log(3), 0.0]]]], dtype=torch.float64)
    target = torch.tensor([[[1, 0]]])
    easy, hard = -math.log(3 / 4), math.log(2)
    assert FocalLoss()(logits, target).item() == pytest.approx((easy / 16 + hard / 4) / 2)
    assert TopKLoss()(logits, target).item() == pytest.approx(hard)
    assert TopKLoss(TopKSettings(k_percent=100))(logits, target).item() == pytest.approx((easy + hard) / 2)
    assert GDLLoss()(logits, target).item() == pytest.approx(1 - 2 * (0.75 + 0.5) / (0.75 + 2 + 1.25))
    tp, fp, fn, tn = 0.375, 0.25, 0.125, 0.25
    root = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn) + 1e-6)
    assert MCCLoss()(logits, target).item() == pytest.approx(1 - (tp * tn - fp * fn) / root)


def test_limits_are_cross_entropy():
    logits, target = batch()
    expected = torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(FocalLoss(FocalSettings(gamma=0))(logits, target), expected)
    torch.testing.assert_close(TopKLoss(TopKSettings(k_percent=100))(logits, target), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_perfect_prediction_costs_nothing_and_the_opposite_much(loss):
    _, target = batch()
    right = 40 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    assert loss()(right, target).item() == pytest.approx(0, abs=2e-5)
    assert loss()(-right, target).item() > 0.5


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("only", [0, 1])
def test_one_class_alone_gives_finite_loss_and_gradient(loss, only: int):
    logits, target = batch()
    logits.requires_grad_()
    value = loss()(logits, torch.full_like(target, only))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max() < 10


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [0.0, 100.0])
def test_saturated_logits_give_finite_gradients(loss, scale: float):
    _, target = batch()
    logits = (scale * torch.nn.functional.one_hot(target, 3).movedim(-1, 1)).float().requires_grad_()
    loss()(logits, target).backward()
    assert logits.grad.isfinite().all()


def test_a_root_of_doubt_has_a_finite_gradient():
    logits = torch.tensor([[[[100.0]], [[0.0]]]], requires_grad=True)
    FocalLoss(FocalSettings(gamma=0.5))(logits, torch.zeros(1, 1, 1, dtype=torch.int64)).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_foreground_of_64_pixels(loss):
    logits = torch.zeros(1, 2, 64, 64, requires_grad=True)
    target = torch.zeros(1, 64, 64, dtype=torch.int64)
    target[:, :8, :8] = 1
    loss()(logits, target).backward()
    assert logits.grad.abs().max() > 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_everything_ignored_is_zero_and_connected(loss):
    logits, target = batch()
    logits.requires_grad_()
    value = loss(ignore_label=9)(logits, torch.full_like(target, 9))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_an_ignored_image_changes_nothing(loss):
    logits, target = batch(shape=(3, 3, 6, 5))
    target[2] = 9
    torch.testing.assert_close(loss(ignore_label=9)(logits, target), loss()(logits[:2], target[:2]))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient(loss):
    logits, target = batch(ignored=True)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(ignore_label=9)(x, target), logits)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_volume_of_one_slice_is_the_image(loss):
    logits, target = batch()
    volume = loss()(logits[:, :, None], target[:, None, None])
    torch.testing.assert_close(volume, loss()(logits, target[:, None]))


@given(st.integers(0, 2**31), st.sampled_from(LOSSES))
@settings(deadline=None, max_examples=30)
def test_the_order_of_the_pixels_does_not_matter(seed: int, loss):
    logits, target = batch(seed % 1000)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    mixed = logits.flatten(2)[:, :, order].view_as(logits), target.flatten(1)[:, order].view_as(target)
    torch.testing.assert_close(loss()(*mixed), loss()(logits, target))


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_float32(loss):
    logits, target = (x.repeat(1, *[1] * (x.ndim - 3), 40, 40) for x in batch())
    half = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss()(half, target)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, loss()(half.float(), target))


@pytest.mark.parametrize(("loss", "kind"), [
    (FocalLoss, FocalSettings), (GDLLoss, GDLSettings), (TopKLoss, TopKSettings), (MCCLoss, MCCSettings)
])  # fmt: skip
def test_the_weight_is_a_factor(loss, kind):
    logits, target = batch()
    torch.testing.assert_close(loss(kind(weight=0.25))(logits, target), loss()(logits, target) / 4)
    assert kind(combination="alone").combination is Combination.ALONE


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (FocalSettings, {"gamma": -1}, "gamma must be at least 0"),
        (FocalSettings, {"gamma": "2"}, "gamma must be a finite number"),
        (FocalSettings, {"weight": math.nan}, "weight must be a finite number"),
        (GDLSettings, {"weight": True}, "weight must be a finite number"),
        (GDLSettings, {"combination": "both"}, "combination must be one of sum, alone"),
        (TopKSettings, {"k_percent": 0}, "k_percent must be above 0"),
        (TopKSettings, {"k_percent": 101}, "k_percent must be above 0"),
        (MCCSettings, {"scope": "world"}, "scope must be one of rank, global"),
    ],
)
def test_bad_settings(kind, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        kind(**changes)


def test_what_does_not_fit():
    logits, target = batch()
    for wrong in (target[:1], target[:, :3], torch.zeros(2, 3, 6, 5, dtype=torch.int64)):
        with pytest.raises(ValueError, match="logits must be"):
            FocalLoss()(logits, wrong)
    with pytest.raises(ValueError, match="at least two classes"):
        FocalLoss()(logits[:, :1], target)
    target[0, 0, 0] = 7
    with pytest.raises(ValueError, match=r"the label 7, outside 0 to 2.*ignore_label, which is None"):
        FocalLoss()(logits, target)
