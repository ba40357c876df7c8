"""How the loss behaves as a module: edge cases, schedule, state, precision, errors, and its sum with others."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from batches import Batch, random_batch, seeded
from monai.losses import DiceCELoss
from torch import Tensor, nn

from ccdcseg.losses import CCDCLoss, CCDCSettings, CombinedLoss, Denominator, nearest_to, selection_map

SMALL = CCDCSettings(queries=12, negatives=9, core_threshold=0.8, hidden_channels=6, embedding_channels=4)
CLASSES = 4


def made_loss(settings: CCDCSettings = SMALL, seed: int = 0, **options: Any) -> CCDCLoss:
    torch.manual_seed(0)
    return CCDCLoss(3, CLASSES, settings, generator=seeded(seed), **options)


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


@pytest.mark.parametrize("sharing", ["per_class", "per_query"])
@pytest.mark.parametrize("denominator", Denominator)
@pytest.mark.parametrize("name", EDGE_CASES)
def test_the_loss_is_finite_and_connected(name: str, denominator: str, sharing: str) -> None:
    (features, logits, target), changes, learns = EDGE_CASES[name]
    settings = replace(SMALL, denominator=denominator, negative_sharing=sharing, **changes)
    criterion = made_loss(settings, ignore_label=9)
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
    settings = replace(SMALL, statistics_momentum=0.9, statistics_scope="global")
    criterion = made_loss(settings)
    criterion(*batch)
    before, draws = criterion.average.matrix.clone(), criterion.generator.get_state()
    assert before.any()
    broken, features = batch.logits.clone(), batch.features.clone().requires_grad_()
    broken[1, 2, 3, 4] = value
    loss = criterion(features, broken, batch.target)
    assert loss.isnan()
    assert criterion.diagnostics is None
    assert criterion.selection is None
    loss.backward()
    assert features.grad is not None
    assert torch.equal(criterion.average.matrix, before)
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
    criterion = made_loss(ignore_label=255)
    batch.target[:, 2:4] = 255
    loss = criterion(*batch)
    batch.logits[:, :, 2:4] = 100 * torch.randn(2, CLASSES, 2, 7, generator=seeded(5))
    again = made_loss(ignore_label=255)
    assert again(*batch).item() == loss.item() > 0
    torch.testing.assert_close(again.diagnostics.confusion, criterion.diagnostics.confusion)
    assert not selection_map(criterion.selection)[:, 2:4].any()


@pytest.mark.parametrize("label", [-1, 0, 255])
def test_any_label_can_be_the_ignored_one(batch: Batch, label: int) -> None:
    batch.target[batch.target == 0] = label
    criterion = made_loss(ignore_label=label)
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
@pytest.mark.parametrize("ignore_label", [None, 9])
def test_labels_outside_the_range_are_refused(batch: Batch, label: int, ignore_label: int | None) -> None:
    batch.target[0, 0, 0] = label
    with pytest.raises(ValueError, match=rf"outside 0 to 3; .* ignore_label .* is {ignore_label}$"):
        made_loss(ignore_label=ignore_label)(*batch)


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
    assert criterion.iteration.item() == 0


@pytest.mark.parametrize(("channels", "classes"), [(0, 4), (3, 1), (3, 0)])
def test_a_loss_needs_channels_and_two_classes(channels: int, classes: int) -> None:
    with pytest.raises(ValueError, match=f"not {channels} and {classes}"):
        CCDCLoss(channels, classes)


def test_a_cube_needs_a_volume(batch: Batch) -> None:
    with pytest.raises(ValueError, match="region 'cube' needs 3 spatial axes"):
        made_loss(replace(SMALL, region="cube"))(*batch)


# Schedule


def test_the_term_waits_for_its_start_and_then_warms_up(batch: Batch) -> None:
    full = made_loss()(*batch).item()
    criterion = made_loss(replace(SMALL, weight=0.5, start_iteration=2, warmup_iterations=4))
    for expected in (0, 0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 4 / 8):
        features = batch.features.clone().requires_grad_()
        waiting = expected == 0
        if not waiting:
            criterion.generator.manual_seed(0)
        draws = criterion.generator.get_state()
        loss = criterion(features, *batch[1:])
        assert loss.item() == pytest.approx(expected * full)
        assert (criterion.selection is None) is (criterion.diagnostics is None) is waiting
        assert torch.equal(criterion.generator.get_state(), draws) is waiting
        loss.backward()
        assert bool(features.grad.any()) is not waiting
        assert all(parameter.grad is not None for parameter in criterion.parameters())


def test_only_training_counts_as_progress(batch: Batch) -> None:
    criterion = made_loss(replace(SMALL, start_iteration=2))
    criterion.eval()
    assert [criterion(*batch).item() for _ in range(4)] == [0] * 4
    assert criterion.iteration.item() == 0
    criterion.train()
    losses = [criterion(*batch).item() for _ in range(3)]
    assert losses[:2] == [0, 0]
    assert losses[2] > 0
    assert criterion.iteration.item() == 3
    assert criterion.eval()(*batch).item() > 0


def test_easy_to_hard_follows_the_training(batch: Batch) -> None:
    settings = replace(
        SMALL, query_strategy="easy_to_hard", total_iterations=4, queries=10, shortage="replace"
    )
    criterion = made_loss(settings)
    hard = []
    for _ in range(6):
        criterion(*batch)
        hard.append(criterion.diagnostics.queries_hard[1].item())
        assert criterion.diagnostics.queries_easy[1].item() == 10 - hard[-1]
    assert hard == [0, 3, 5, 8, 10, 10]


# Draws and state


def test_a_seed_repeats_the_loss(batch: Batch) -> None:
    first, again, other = made_loss(seed=3), made_loss(seed=3), made_loss(seed=4)
    losses = [criterion(*batch).item() for criterion in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]
    assert first(*batch).item() != losses[0]  # the next draw is another one


def test_without_generator_the_default_one_is_used(batch: Batch) -> None:
    def once() -> float:
        torch.manual_seed(7)
        return CCDCLoss(3, CLASSES, SMALL)(*batch).item()

    assert once() == once()


def saved(criterion: nn.Module) -> dict[str, Any]:
    """The state after a way through a file."""
    file = io.BytesIO()
    torch.save(criterion.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_checkpoint_continues_draws_schedule_and_average(batch: Batch) -> None:
    settings = replace(
        SMALL, statistics_momentum=0.5, statistics_scope="global", warmup_iterations=9, query_strategy="hard"
    )
    original = made_loss(settings)
    for seed in range(3):
        original(*random_batch(seed=seed))
    state = saved(original)
    assert state["iteration"].item() == 3
    assert torch.equal(state["average.matrix"], original.average.matrix)
    assert state["average.seen"].all()

    torch.manual_seed(99)
    restored = CCDCLoss(3, CLASSES, settings, generator=seeded(99))
    restored.load_state_dict(state)
    for _ in range(2):
        assert restored(*batch).item() == original(*batch).item() > 0


def test_a_checkpoint_without_generator(batch: Batch) -> None:
    with_generator, without = made_loss(), CCDCLoss(3, CLASSES, SMALL)
    without.load_state_dict(saved(with_generator))
    with_generator.load_state_dict(saved(without))
    assert with_generator(*batch).item() > 0


def test_the_average_steers_the_draws(batch: Batch) -> None:
    """With momentum 0 it is the batch's own; with a long memory, that of the first batch."""
    unsure = Batch(batch.features, 0.1 * batch.logits, batch.target)
    own = made_loss(replace(SMALL, core_threshold=0.2))
    own(*batch)
    first = own.diagnostics.confusion
    own(*unsure)
    for momentum, expected in ((0.0, own.diagnostics.confusion), (0.999999, first)):
        settings = replace(SMALL, core_threshold=0.2, statistics_momentum=momentum, statistics_scope="global")
        criterion = made_loss(settings)
        criterion(*batch)
        criterion(*unsure)
        torch.testing.assert_close(criterion.diagnostics.confusion, expected, rtol=0, atol=1e-5)


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


# The sum with other losses, and coarser stages


class Supervised(nn.Module):
    """A stand-in for deep supervision: one loss over lists."""

    def forward(self, logits: list[Tensor], target: list[Tensor]) -> Tensor:
        return torch.stack([F.cross_entropy(a, b[:, 0]) for a, b in zip(logits, target, strict=True)]).sum()


def test_the_sum_with_dice_and_cross_entropy(batch: Batch) -> None:
    segmentation, target = DiceCELoss(to_onehot_y=True, softmax=True), batch.target[:, None]
    loss = CombinedLoss(segmentation, made_loss(replace(SMALL, weight=0.3)))
    expected = segmentation(batch.logits, target) + 0.3 * made_loss()(*batch)
    torch.testing.assert_close(loss(batch.features, batch.logits, target), expected)


def test_deep_supervision_contrasts_the_first_of_its_lists(batch: Batch) -> None:
    logits = [batch.logits, resized(batch.logits)]
    target = [batch.target[:, None], resized(batch.target[:, None])]
    loss = CombinedLoss(Supervised(), made_loss())(batch.features, logits, target)
    torch.testing.assert_close(loss, Supervised()(logits, target) + made_loss()(*batch))


def test_the_sum_owns_the_parameters_of_the_head() -> None:
    loss = CombinedLoss(nn.CrossEntropyLoss(), made_loss())
    assert len(list(loss.parameters())) == 4


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
