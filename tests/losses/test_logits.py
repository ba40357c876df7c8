import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ccdcseg.losses.logits import (
    FocalLoss,
    FocalSettings,
    GDLLoss,
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


def gdl_oracle(
    logits: Tensor, target: Tensor, power: int = 2, first: int = 0, batch_wise: bool = False
) -> float:
    losses, images = [], pixels(logits, target)
    for image in [list(chain(*images))] if batch_wise else images:
        classes = range(first, logits.shape[1])
        size = {c: sum(y == c for _, y in image) for c in classes}
        if not any(size.values()):
            continue
        largest = max(1 / n**power for n in size.values() if n)
        weight = {c: 1 / n**power if n else largest for c, n in size.items()}
        overlap = sum(weight[c] * sum(p[c] for p, y in image if y == c) for c in classes)
        total = sum(weight[c] * (sum(p[c] for p, _ in image) + size[c]) for c in classes)
        losses.append(1 - 2 * overlap / total)
    return sum(losses) / len(losses)


def topk_oracle(logits: Tensor, target: Tensor, percent: float = 10.0) -> float:
    every = sorted((-math.log(p[y]) for image in pixels(logits, target) for p, y in image), reverse=True)
    count = max(1, int(len(every) * percent / 100))
    return sum(every[:count]) / count


def mcc_oracle(logits: Tensor, target: Tensor, first: int = 1) -> float:
    every = [pair for image in pixels(logits, target) for pair in image]
    losses = []
    for c in range(first, logits.shape[1]):
        tp = sum(p[c] for p, y in every if y == c)
        fp = sum(p[c] for p, y in every if y != c)
        fn = sum(1 - p[c] for p, y in every if y == c)
        tn = sum(1 - p[c] for p, y in every if y != c)
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        if 0 < sum(y == c for _, y in every) < len(every):
            losses.append(1 - (tp * tn - fp * fn) / math.sqrt(product))
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
        found = loss(ignore_index=9)(logits, target)
        assert found.item() == pytest.approx(oracle(logits, target), rel=1e-6)


def test_by_hand():
    """Two pixels: the first of class 1 with probability 3/4, the second of class 0 with probability 1/2."""
    logits = torch.tensor([[[[0.0, 0.0]], [[math.log(3), 0.0]]]], dtype=torch.float64)
    target = torch.tensor([[[1, 0]]])
    easy, hard = -math.log(3 / 4), math.log(2)
    assert FocalLoss()(logits, target).item() == pytest.approx((easy / 16 + hard / 4) / 2)
    assert TopKLoss()(logits, target).item() == pytest.approx(hard)
    assert TopKLoss(k_percent=100)(logits, target).item() == pytest.approx((easy + hard) / 2)
    assert GDLLoss()(logits, target).item() == pytest.approx(1 - 2 * (0.75 + 0.5) / (0.75 + 2 + 1.25))
    tp, fp, fn, tn = 0.75, 0.5, 0.25, 0.5
    root = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert MCCLoss()(logits, target).item() == pytest.approx(1 - (tp * tn - fp * fn) / root)


def test_limits_are_cross_entropy():
    logits, target = batch()
    expected = torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(FocalLoss(gamma=0)(logits, target), expected)
    torch.testing.assert_close(TopKLoss(k_percent=100)(logits, target), expected)


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
    FocalLoss(gamma=0.5)(logits, torch.zeros(1, 1, 1, dtype=torch.int64)).backward()
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
    value = loss(ignore_index=9)(logits, torch.full_like(target, 9))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_an_ignored_image_changes_nothing(loss):
    logits, target = batch(shape=(3, 3, 6, 5))
    target[2] = 9
    torch.testing.assert_close(loss(ignore_index=9)(logits, target), loss()(logits[:2], target[:2]))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient(loss):
    logits, target = batch(ignored=True)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(ignore_index=9)(x, target), logits)


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


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (FocalSettings, {"gamma": -1}, "gamma must be at least 0"),
        (FocalSettings, {"gamma": "2"}, "gamma must be a finite number"),
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
    for few in ((), (4,), (4, 2)):
        with pytest.raises(ValueError, match="logits must be"):
            FocalLoss()(torch.zeros(few), torch.zeros(few))
    target[0, 0, 0] = 7
    with pytest.raises(
        ValueError, match=r"labels from 0 to 7, outside 0 to 2.*ignore_index of the loss, which is None"
    ):
        FocalLoss()(logits, target)


@pytest.mark.parametrize("ignored", [False, True])
def test_nnunets_first_version_of_gdl(ignored: bool):
    """CE + GDL there: weight 1 / V, all images together, no background."""
    for power, first, batch_wise in ((1, 0, False), (2, 1, False), (2, 0, True), (1, 1, True)):
        weight = {1: "inverse", 2: "inverse_square"}[power]
        own = {"volume_weight": weight, "background": first == 0, "batch_wise": batch_wise}
        logits, target = batch(ignored=ignored)
        target[1][target[1] == 2] = 0
        expected = gdl_oracle(logits, target, power, first, batch_wise)
        assert GDLLoss(ignore_index=9, **own)(logits, target).item() == pytest.approx(expected)


def test_gdl_without_any_foreground_is_zero_and_connected():
    logits, target = batch()
    value = GDLLoss(background=False)(logits.requires_grad_(), torch.zeros_like(target))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


def test_gdl_of_a_batch_with_a_broken_image_is_not_a_number_though_that_image_is_left_out():
    logits, target = batch()
    target[1], logits[1, 0, 0, 0] = 0, torch.inf
    assert GDLLoss(background=False)(logits, target).isnan()


def test_mcc_with_the_background_as_a_class():
    logits, target = batch()
    expected = mcc_oracle(logits, target, first=0)
    assert MCCLoss(background=True)(logits, target).item() == pytest.approx(expected)


SIDE = 64


@given(st.integers(0, SIDE**2), st.floats(20, 60), st.booleans())
@settings(deadline=None, max_examples=30)
def test_mcc_is_zero_for_a_perfect_prediction_of_any_size(size: int, margin: float, background: bool):
    target = (torch.arange(SIDE**2) < size).long().view(1, SIDE, SIDE)
    logits = margin * (torch.nn.functional.one_hot(target, 2).movedim(-1, 1).float() - 0.5)
    assert MCCLoss(background=background)(logits, target).item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("size", [1, 16, 2**18, 2**19 - 1, 2**20 - 1])
def test_mcc_of_a_structure_in_many_pixels(size: int):
    """In single precision: perfect, and half of the structure found (the coefficient is then sqrt(1/2) or so)."""
    pixels = 2**20
    target = (torch.arange(pixels) < size).long().view(1, 1024, 1024)
    logits = 40.0 * torch.nn.functional.one_hot(target, 2).movedim(-1, 1)
    assert MCCLoss()(logits, target).item() == pytest.approx(0, abs=1e-5)
    if size > 1 and size < pixels // 2:
        logits.view(2, -1)[:, : size // 2] = torch.tensor([40.0, 0.0])[:, None]
        tp, fn, tn = size - size // 2, size // 2, pixels - size
        expected = 1 - tp * tn / math.sqrt(tp * size * tn * (tn + fn))
        assert MCCLoss()(logits, target).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_pixel_without_softmax_gives_nan(loss, value: float):
    for only in (None, 0, 1):
        logits, target = batch()
        logits[1, 1, 2, 3] = value
        assert not loss()(logits, target if only is None else torch.full_like(target, only)).isfinite()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("value", [50.0, math.nan, -math.inf])
def test_ignored_pixels_may_hold_anything(loss, value: float):
    found = []
    for filling in (0.0, value):
        logits, target = batch(ignored=True)
        ignored = (target == 9)[:, None]
        logits = logits.masked_fill(ignored, filling).requires_grad_()
        value_ = loss(ignore_index=9)(logits, target)
        (gradient,) = torch.autograd.grad(value_, logits)
        assert not gradient.masked_select(ignored).any()
        found.append((value_, gradient))
        target[:] = 9
        assert loss(ignore_index=9)(logits, target).item() == 0
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_images_is_zero_and_connected(loss):
    logits, target = batch()
    empty = logits[:0].requires_grad_()
    value = loss()(empty, target[:0])
    value.backward()
    assert value.item() == 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float32, torch.float16])
def test_labels_of_any_type(loss, dtype: torch.dtype):
    logits, target = batch()
    assert loss()(logits, target.to(dtype)).item() == loss()(logits, target).item()
    with pytest.raises(ValueError, match="whole numbers"):
        loss()(logits, target + 0.5)


@pytest.mark.parametrize("loss", LOSSES)
def test_probabilities_in_place_of_logits_are_refused(loss):
    logits, target = batch()
    with pytest.raises(ValueError, match="logits hold probabilities"):
        loss()(logits.softmax(1), target)
    loss()(logits.softmax(1).log(), target)


@pytest.mark.parametrize("loss", [TopKLoss, GDLLoss])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler itself
def test_a_compiled_step_is_the_step(loss):
    torch.compiler.reset()
    criterion = loss(ignore_index=9)
    step = torch.compile(lambda scores, labels: criterion(2 * scores, labels), backend="eager")
    for shape in ((2, 3, 6, 5), (2, 3, 4, 8)):
        logits, target = batch(shape=shape, ignored=True)
        logits.requires_grad_()
        losses = [one(logits, target) for one in (step, lambda scores, labels: criterion(2 * scores, labels))]
        gradients = [torch.autograd.grad(value, logits)[0] for value in losses]
        torch.testing.assert_close(losses[0], losses[1])
        torch.testing.assert_close(gradients[0], gradients[1])
