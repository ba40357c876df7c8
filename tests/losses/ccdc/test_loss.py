"""How the loss behaves as a module: edge cases, draws, state, precision and errors."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from batches import Batch, drawing, random_batch, seeded
from torch import Tensor, nn

from ccdcseg.losses import CCDCLoss, CCDCSettings, Denominator, nearest_to, selection_map

SMALL = CCDCSettings(queries=12, negatives=9, core_threshold=0.8, hidden_channels=6, embedding_channels=4)
CLASSES = 4


def made_loss(settings: CCDCSettings = SMALL, seed: int = 0, **options: Any) -> CCDCLoss:
    torch.manual_seed(0)
    return drawing(CCDCLoss(3, CLASSES, **asdict(settings), **options), seed)


@pytest.fixture
def batch() -> Batch:
    return random_batch()


# Whatever the batch holds


def sure_of(labels: Tensor, margin: float) -> Tensor:
    """Logits that exceed the others' by a margin at the label."""
    return margin * F.one_hot(labels.clamp(0, CLASSES - 1), CLASSES).movedim(-1, 1).float()


def labelled(change: Callable[[Tensor], Tensor], margin: float | None = None) -> Batch:
    features, logits, target = random_batch()
    target = change(target)
    return Batch(features, logits if margin is None else sure_of(target, margin), target)


def same(target: Tensor) -> Tensor:
    return target


EDGE_CASES: dict[str, tuple[Batch, dict[str, Any], bool]] = {
    # name: batch, settings, whether there is something to learn
    "absent class": (labelled(lambda t: t.masked_fill(t == 2, 1)), {}, True),
    "no core": (labelled(same, margin=1.0), {"core_threshold": 0.97}, False),
    "all easy": (labelled(same, margin=9.0), {}, True),
    "all hard": (labelled(same, margin=0.1), {"core_threshold": 0.2}, True),
    "all wrong": (labelled(same, margin=-30.0), {}, False),
    "only hard wanted, all easy": (labelled(same, margin=9.0), {"query_strategy": "hard"}, False),
    "only easy wanted, all hard": (
        labelled(same, margin=0.1),
        {"query_strategy": "easy", "core_threshold": 0.2},
        False,
    ),
    "all core, and core not asked": (labelled(same, margin=9.0), {"core_as_queries": False}, False),
    "all ignored": (labelled(lambda t: torch.full_like(t, 9)), {}, False),
    "all but one pixel ignored": (
        labelled(lambda t: torch.full_like(t, 9).put_(torch.tensor(5), torch.tensor(2)), margin=9.0),
        {},
        False,
    ),
    "one class only": (labelled(torch.zeros_like), {}, False),
    "certain to the last digit": (labelled(same, margin=1e4), {}, True),
}


@pytest.mark.parametrize("denominator", Denominator)
@pytest.mark.parametrize("name", EDGE_CASES)
def test_the_loss_is_finite_and_connected(name: str, denominator: str) -> None:
    (features, logits, target), changes, learns = EDGE_CASES[name]
    settings = replace(SMALL, denominator=denominator, **changes)
    criterion = made_loss(settings, ignore_index=9)
    features = features.clone().requires_grad_()
    loss = criterion(features, logits, target)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.device == features.device
    assert loss.isfinite()
    assert (loss.item() > 0) is learns
    loss.backward()
    found = [features.grad, *(parameter.grad for parameter in criterion.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in found)
    assert all(bool(gradient.any()) is learns for gradient in (found[0], found[1], found[3]))
    assert criterion.diagnostics is not None
    assert selection_map(criterion.selection).shape == target.shape


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_logits_give_nan_and_spoil_nothing(batch: Batch, value: float) -> None:
    criterion = made_loss(replace(SMALL, statistics_scope="global"))
    criterion(*batch)
    draws = criterion.generator.get_state()
    broken, features = batch.logits.clone(), batch.features.clone().requires_grad_()
    broken[1, 2, 3, 4] = value
    loss = criterion(features, broken, batch.target)
    assert loss.isnan()
    assert criterion.diagnostics is None
    assert criterion.selection is None
    loss.backward()
    assert features.grad is not None
    assert torch.equal(criterion.generator.get_state(), draws)
    assert criterion(*batch).isfinite()


def test_without_gradient_it_is_a_number(batch: Batch) -> None:
    tracked = made_loss()(batch.features.requires_grad_(), *batch[1:])
    with torch.no_grad():
        plain = made_loss()(*batch)
    with torch.inference_mode():
        inferred = made_loss()(*batch)
    assert tracked.requires_grad
    assert not plain.requires_grad
    assert plain.item() == inferred.item() == pytest.approx(tracked.item())


# Labels


def test_ignored_pixels_take_no_part(batch: Batch) -> None:
    criterion = made_loss(ignore_index=255)
    batch.target[:, 2:4] = 255
    loss = criterion(*batch)
    batch.logits[:, :, 2:4] = 100 * torch.randn(2, CLASSES, 2, 7, generator=seeded(5))
    again = made_loss(ignore_index=255)
    assert again(*batch).item() == loss.item() > 0
    torch.testing.assert_close(again.diagnostics.confusion, criterion.diagnostics.confusion)
    assert not selection_map(criterion.selection)[:, 2:4].any()


@pytest.mark.parametrize("label", [-1, 0, 255])
def test_any_label_can_be_the_ignored_one(batch: Batch, label: int) -> None:
    batch.target[batch.target == 0] = label
    criterion = made_loss(ignore_index=label)
    assert criterion(*batch).item() > 0
    assert sorted(criterion.selection.queries) == [1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float32, torch.float16])
@pytest.mark.parametrize("channel", [False, True])
def test_labels_of_any_type_with_or_without_channel(batch: Batch, dtype: torch.dtype, channel: bool) -> None:
    target = batch.target.to(dtype)
    given = target[:, None] if channel else target
    assert made_loss()(batch.features, batch.logits, given).item() == made_loss()(*batch).item()


@pytest.mark.parametrize("value", [0.5, math.nan, math.inf])
def test_labels_that_are_no_whole_numbers_are_refused(batch: Batch, value: float) -> None:
    target = batch.target.float()
    target[0, 0, 0] = value
    with pytest.raises(ValueError, match="whole numbers"):
        made_loss()(batch.features, batch.logits, target)


@pytest.mark.parametrize("label", [-1, 4, 255])
@pytest.mark.parametrize("ignore_index", [None, 9])
def test_labels_outside_the_range_are_refused(batch: Batch, label: int, ignore_index: int | None) -> None:
    batch.target[0, 0, 0] = label
    with pytest.raises(ValueError, match=rf"outside 0 to 3; .* ignore_index .* is {ignore_index}$"):
        made_loss(ignore_index=ignore_index)(*batch)


# Shapes


def resized(maps: Tensor) -> Tensor:
    return maps[..., ::2, ::2]


WRONG_CALLS: dict[str, tuple[Callable[[Batch], tuple[Tensor, ...]], str]] = {
    "feature channels": (lambda b: (b.features[:, :2], *b[1:]), r"features must be \(B, 3, H, W\).*\(2, 2, 6, 7\)"),
    "one spatial axis": (lambda b: tuple(x.flatten(-2) for x in b), r"features must be \(B, 3, H, W\)"),
    "logit channels": (lambda b: (b.features, b.logits[:, :3], b.target), r"logits must be \(B, 4, \*spatial\)"),
    "logits of a volume": (lambda b: (b.features, b.logits[:, :, None], b.target), r"logits must be \(B, 4,"),
    "coarser features": (lambda b: (resized(b.features), *b[1:]), r"resolution; .*nearest_to\(features"),
    "fewer logits": (lambda b: (b.features, b.logits[:1], b.target), r"differ in batch or resolution"),
    "fewer targets": (lambda b: (b.features, b.logits, b.target[:1]), r"shape \(2, 6, 7\) or \(2, 1, 6, 7\)"),
    "coarser target": (lambda b: (b.features, b.logits, resized(b.target)), r"one class label a pixel"),
    "one-hot target": (
        lambda b: (b.features, b.logits, F.one_hot(b.target).movedim(-1, 1)),
        r"one-hot targets and overlapping regions are not supported",
    ),
    "regions": (
        lambda b: (b.features, b.logits, torch.stack((b.target > 0, b.target > 1), 1)),
        r"one-hot targets and overlapping regions are not supported",
    ),
    "one region": (lambda b: (b.features, b.logits, b.target > 0), r"not booleans"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_what_does_not_fit_is_refused(batch: Batch, name: str) -> None:
    spoil, message = WRONG_CALLS[name]
    criterion = made_loss()
    with pytest.raises(ValueError, match=message):
        criterion(*spoil(batch))


@pytest.mark.parametrize(("channels", "classes"), [(0, 4), (3, 1), (3, 0)])
def test_a_loss_needs_channels_and_two_classes(channels: int, classes: int) -> None:
    with pytest.raises(ValueError, match=f"not {channels} and {classes}"):
        CCDCLoss(channels, classes)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
def test_progress_is_a_share(batch: Batch, progress: float) -> None:
    with pytest.raises(ValueError, match=f"progress must be between 0 and 1, not {progress}"):
        made_loss()(*batch, progress=progress)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="tau"):
        CCDCLoss(3, CLASSES, tau=0.1)


def test_a_setting_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
        CCDCLoss(3, CLASSES, temperature=0)


def test_easy_to_hard_follows_the_progress_it_is_told(batch: Batch) -> None:
    criterion = made_loss(replace(SMALL, query_strategy="easy_to_hard", queries=10, shortage="replace"))
    with pytest.raises(ValueError, match=r"needs progress.*progress=step / steps"):
        criterion(*batch)
    for progress, hard in ((0, 0), (0.25, 3), (0.5, 5), (0.75, 8), (1, 10)):
        criterion(*batch, progress=progress)
        assert criterion.diagnostics.queries_hard[1].item() == hard
        assert criterion.diagnostics.queries_easy[1].item() == 10 - hard


# Draws and state


def test_a_seed_repeats_the_loss(batch: Batch) -> None:
    first, again, other = made_loss(seed=3), made_loss(seed=3), made_loss(seed=4)
    losses = [criterion(*batch).item() for criterion in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]
    assert first(*batch).item() != losses[0]  # the next draw is another one


def test_without_generator_the_default_one_is_used(batch: Batch) -> None:
    criterion = CCDCLoss(3, CLASSES, **asdict(SMALL))

    def once(seed: int) -> float:
        torch.manual_seed(seed)
        return criterion(*batch).item()

    assert once(7) == once(7) != once(8)


def test_a_call_is_a_function_of_its_arguments(batch: Batch) -> None:
    """However many came before, and whatever they were of."""
    criterion = CCDCLoss(3, CLASSES, **asdict(SMALL))
    first = criterion(*batch, generator=seeded(5)).item()
    for seed in range(3):
        criterion(*random_batch(seed=seed))
    assert criterion(*batch, generator=seeded(5)).item() == first
    fresh = CCDCLoss(3, CLASSES, **asdict(SMALL))
    fresh.load_state_dict(criterion.state_dict())
    assert fresh(*batch, generator=seeded(5)).item() == first
    assert list(criterion.state_dict()) == [name for name, _ in criterion.named_parameters()]


def test_an_evaluation_repeats_itself_and_disturbs_nothing(batch: Batch) -> None:
    criterion, before = CCDCLoss(3, CLASSES, **asdict(SMALL)).eval(), torch.get_rng_state()
    state = {name: value.clone() for name, value in criterion.state_dict().items()}
    losses = {criterion(*batch).item() for _ in range(3)}
    assert len(losses) == 1
    assert criterion(*batch, generator=seeded(1)).item() not in losses
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(criterion.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_of_version_0_1_is_loaded(batch: Batch, prefix: str) -> None:
    """It had a count of the calls, a generator's state, and an average that was never written to."""
    criterion, other = made_loss(), made_loss()
    torch.nn.init.ones_(other.head.output.bias)
    state = other.state_dict() | {
        "iteration": torch.tensor(7),
        "average.matrix": torch.zeros(CLASSES, CLASSES),
        "average.seen": torch.zeros(CLASSES, dtype=torch.bool),
        "_extra_state": torch.zeros(5056, dtype=torch.uint8),
    }
    whole = nn.ModuleDict({"module": criterion}) if prefix else criterion
    whole.load_state_dict({f"{prefix}{name}": value for name, value in state.items()})
    assert criterion(*batch).item() == other(*batch).item()
    assert "iteration" in state  # what was given stays as it is


# Precision


@pytest.mark.parametrize("cast", ["features", "logits"])
def test_inside_autocast_the_loss_is_computed_in_single_precision(batch: Batch, cast: str) -> None:
    rounded = batch._replace(logits=batch.logits.bfloat16().float())
    expected = made_loss()(*rounded)
    given = rounded._replace(**{cast: getattr(rounded, cast).bfloat16()})
    criterion = made_loss()
    products: list[torch.dtype] = []
    criterion.head.output.register_forward_hook(lambda *args: products.append(args[-1].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = criterion(given.features.requires_grad_(), given.logits, given.target)
    assert loss.dtype == torch.float32
    assert set(products) == {torch.float32}
    tolerance = 1e-6 if cast == "logits" else 1e-2
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    loss.backward()
    assert criterion.head.hidden.weight.grad.dtype == torch.float32


def test_a_network_under_autocast(batch: Batch) -> None:
    torch.manual_seed(0)
    body, segmentation = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, CLASSES, 1)
    criterion = made_loss(replace(SMALL, core_threshold=0.2))
    with torch.autocast("cpu", torch.bfloat16):
        features = body(batch.features)
        logits = segmentation(features)
        loss = F.cross_entropy(logits, batch.target) + criterion(features, logits, batch.target)
    assert features.dtype == torch.bfloat16
    assert criterion.selection.queries
    loss.backward()
    assert all(p.grad.isfinite().all() for p in (*body.parameters(), *criterion.parameters()))


# Coarser stages


@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_nearest_to_a_coarser_stage(channel: bool, dtype: torch.dtype) -> None:
    _, logits, labels = random_batch((8, 12))
    logits.requires_grad_()
    target = labels.to(dtype)
    coarse = torch.randn(2, 3, 4, 6)
    near_logits, near = nearest_to(coarse, logits, target[:, None] if channel else target)
    # Of two pixels the second: the nearest to the coarse pixel's centre, halves upwards.
    assert torch.equal(near, target[:, None, 1::2, 1::2])
    assert torch.equal(near_logits, logits[:, :, 1::2, 1::2])
    assert near.dtype == dtype
    assert not near_logits.requires_grad
    assert made_loss()(coarse, near_logits, near).item() > 0


def test_nearest_to_in_a_volume_and_with_ignored_pixels() -> None:
    _, logits, target = random_batch((2, 6, 9))
    target[:, 0] = 255
    near_logits, near = nearest_to(torch.randn(2, 3, 2, 2, 3), logits, target)
    assert torch.equal(near, target[:, None, :, 1::3, 1::3])
    assert torch.equal(near_logits, logits[:, :, :, 1::3, 1::3])


def test_nearest_to_the_same_resolution_changes_nothing(batch: Batch) -> None:
    logits, target = nearest_to(*batch)
    assert torch.equal(logits, batch.logits)
    assert torch.equal(target[:, 0], batch.target)
