"""What all contrastive losses have in common."""

import copy
import io
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from batches import Batch, random_batch
from rivals import CONTRASTIVE, IGNORED, banks, double_batch, filled, made
from torch import Tensor, nn

from ccdcseg.losses.parts import base

NAMES = list(CONTRASTIVE)
MEMORIES = ["memory", "region"]


def gradients(criterion: Any, features: Tensor, loss: Tensor) -> list[Tensor]:
    """At the features and every parameter of the head; all of them must be connected."""
    return list(torch.autograd.grad(loss, [features, *criterion.head.parameters()]))


def is_a_connected_zero(criterion: Any, batch: Batch) -> bool:
    loss = criterion(*batch)
    found = gradients(criterion, batch.features, loss)
    return loss.item() == 0 and not any(gradient.any() for gradient in found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
def test_there_is_a_loss_with_gradient_everywhere(name: str, spatial: tuple[int, ...]) -> None:
    criterion, batch = filled(name), double_batch(spatial)
    loss = criterion(*batch)
    assert loss.shape == ()
    assert loss.item() > 0
    for gradient in gradients(criterion, batch.features, loss):
        assert gradient.isfinite().all()
        assert gradient.any()


@pytest.mark.parametrize("name", NAMES)
def test_statistics_of_annotated_images_alone(name: str) -> None:
    batch = double_batch()
    seen = []
    for count in (None, len(batch.features), 1):
        criterion = filled(name)
        seen.append((criterion(*batch, annotated=count).item(), criterion.diagnostics))
    (every, first), (same, second), (_, third) = seen
    assert every == same
    assert torch.equal(first.confusion, second.confusion)
    alone = filled(name)
    alone(*(part[:1] for part in batch))
    torch.testing.assert_close(third.confusion, alone.diagnostics.confusion, equal_nan=True)
    assert not torch.equal(third.confusion, first.confusion)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_ignored_pixels(name: str) -> None:
    criterion, batch = made(name, ignore=IGNORED), double_batch()
    batch.target.fill_(IGNORED)
    assert is_a_connected_zero(criterion, batch)
    assert not any(value.any() for value in banks(criterion).values())
    assert criterion.diagnostics.class_loss.isnan().all()


@pytest.mark.parametrize("name", NAMES)
def test_one_class_alone(name: str) -> None:
    """No negatives: for ReCo no queries; for the others every loss is zero."""
    criterion, batch = made(name), double_batch()
    batch.target.fill_(2)
    for _ in range(2):
        loss = criterion(*batch)
        assert loss.item() == 0
        for gradient in gradients(criterion, batch.features, loss):
            assert not gradient.any()


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_class_and_ignored_pixels_change_nothing_for_the_others(name: str) -> None:
    """Class 4 of five is nowhere; ignored pixels may hold anything."""
    batch = double_batch(ignored=9)
    plain = made(name, ignore=IGNORED)
    first = [plain(*batch) for _ in range(2)]
    changed = Batch(*(maps.detach().clone() for maps in batch))
    changed.features[0].flatten(1)[:, -9:] = 50
    changed.logits[0].flatten(1)[:, -9:] = torch.tensor([9.0, -9, 0, 3])[:, None]
    extra = Batch(changed.features, torch.cat((changed.logits, -1e9 * changed.logits[:, :1] ** 0), 1),
                  changed.target)  # fmt: skip
    wider = made(name, classes=5, ignore=IGNORED)
    torch.testing.assert_close([wider(*extra) for _ in range(2)], first)
    assert wider.diagnostics.class_loss[4].isnan()
    assert first[1].item() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_volume_of_one_slice_is_the_image(name: str) -> None:
    batch = double_batch()
    volume = Batch(*(maps.unsqueeze(-3) for maps in batch))
    image = filled(name)(*batch)
    torch.testing.assert_close(filled(name)(*volume), image)
    assert image.item() > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_channel_axis_of_the_target_is_allowed(name: str) -> None:
    batch = double_batch()
    with_channel = batch._replace(target=batch.target[:, None])
    torch.testing.assert_close(filled(name)(*with_channel), filled(name)(*batch))


@pytest.mark.parametrize("name", ["reco", "batch", "memory"])
def test_a_seed_repeats_the_draws(name: str) -> None:
    def pixels(seed: int) -> list[list[int]]:
        criterion = made(name, seed=seed)
        criterion(*double_batch((12, 13)))
        return [queries.pixels.tolist() for queries in criterion.selection.queries.values()]

    assert pixels(1) == pixels(1)
    assert pixels(1) != pixels(2)


@pytest.mark.parametrize("name", NAMES)
def test_low_precision_gives_a_term_in_float32(name: str) -> None:
    """Close to the one of the same rounded features in float32."""
    features, logits, target = random_batch()
    found = []
    for given in (features.bfloat16(), features.bfloat16().float()):
        criterion = filled(name).float()
        given.requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = criterion(given, logits, target)
        loss.backward()
        assert loss.dtype == torch.float32
        assert given.grad.dtype == given.dtype
        assert all(p.grad.dtype == torch.float32 for p in criterion.parameters())
        found.append((loss.detach(), given.grad.float()))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0.05, atol=1e-3)
    assert found[1][1].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_without_softmax_give_nan_and_no_gradient(name: str, value: float) -> None:
    batch, criterion = double_batch(), made(name)
    criterion(*double_batch(seed=1))
    before = banks(criterion)
    batch.logits[1, 2] = value
    loss = criterion(*batch)
    assert loss.isnan()
    assert criterion.selection is criterion.diagnostics is None
    assert not any(gradient.any() for gradient in gradients(criterion, batch.features, loss))
    assert all(torch.equal(value, before[name]) for name, value in banks(criterion).items())


@pytest.mark.parametrize("name", NAMES)
def test_logits_get_no_gradient(name: str) -> None:
    features, logits, target = double_batch()
    logits.requires_grad_()
    loss = filled(name)(features, logits, target)
    assert torch.autograd.grad(loss, logits, allow_unused=True) == (None,)


@pytest.mark.parametrize("name", ["batch", "memory", "region"])
@pytest.mark.parametrize("spatial", [(4, 4), (2, 3, 3)])
def test_finite_differences_agree(name: str, spatial: tuple[int, ...]) -> None:
    """ReCo has its own reference, since what it holds fixed moves with the features."""
    batch, changes = double_batch(spatial, classes=3, images=1), {"max_views": 3}
    criterion = filled(name, 3, **({} if name == "region" else changes))

    def loss_of(features: Tensor) -> Tensor:
        criterion.generator.manual_seed(0)
        return criterion(features, batch.logits, batch.target)

    assert loss_of(batch.features).item() > 0
    assert torch.autograd.gradcheck(loss_of, batch.features, fast_mode=len(spatial) == 3)


@pytest.mark.parametrize("name", MEMORIES)
def test_the_memory_is_saved_and_restored(name: str) -> None:
    criterion, other, batch = made(name), made(name, seed=5), double_batch()
    for seed in (1, 2):
        criterion(*double_batch(seed=seed))
    other.load_state_dict(criterion.state_dict())
    other.generator.set_state(criterion.generator.get_state())
    assert any(value.any() for value in banks(other).values())
    for _ in range(2):
        torch.testing.assert_close(other(*batch), criterion(*batch), rtol=0, atol=0)
    torch.testing.assert_close(banks(other), banks(criterion), rtol=0, atol=0)


@pytest.mark.parametrize("name", MEMORIES)
def test_evaluation_does_not_write(name: str) -> None:
    criterion = filled(name)
    before = banks(criterion)
    criterion(*double_batch())
    torch.testing.assert_close(banks(criterion), before, rtol=0, atol=0)
    criterion.train()(*double_batch())
    assert any(not torch.equal(value, before[name]) for name, value in banks(criterion).items())


@pytest.mark.parametrize("name", MEMORIES)
def test_steps_do_not_hang_together(name: str) -> None:
    """The keys carry no graph: every step can be taken back, however late."""
    criterion, losses = made(name), []
    for seed in range(4):
        losses.append(criterion(*double_batch(seed=seed)))
        assert not any(buffer.requires_grad for buffer in criterion.buffers())
    for loss in reversed(losses):
        loss.backward()


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_is_asked_for(name: str) -> None:
    criterion = filled(name)
    with torch.no_grad():
        quiet = criterion(*double_batch())
    assert not quiet.requires_grad
    assert quiet.item() > 0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("reco", {"queries": 0}, "queries must be"),
        ("reco", {"negatives": -3}, "negatives must be"),
        ("reco", {"hard_threshold": 1.1}, "hard_threshold must be"),
        ("reco", {"hard_threshold": "0.9"}, "hard_threshold must be"),
        ("reco", {"temperature": 0}, "temperature must be"),
        ("batch", {"base_temperature": 0}, "base_temperature must be"),
        ("batch", {"base_temperature": math.nan}, "base_temperature must be"),
        ("batch", {"max_samples": 0}, "max_samples must be"),
        ("batch", {"max_views": 1.5}, "max_views must be"),
        ("batch", {"min_pixels": -1}, "min_pixels must be"),
        ("memory", {"memory_length": 0}, "memory_length must be"),
        ("memory", {"pixel_keys": 0}, "pixel_keys must be"),
        ("memory", {"positives": None}, "positives must be"),
        ("memory", {"negatives": True}, "negatives must be"),
        ("region", {"memory_length": None}, "memory_length must be"),
        ("region", {"memory_length": 0}, "memory_length must be"),
        ("region", {"hidden_channels": 0}, "hidden_channels must be"),
    ],
)
def test_bad_settings(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(name, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit(name: str) -> None:
    criterion, (features, logits, target) = made(name), double_batch()
    with pytest.raises(ValueError, match="features must be"):
        criterion(features[:, :2], logits, target)
    with pytest.raises(ValueError, match="differ in batch or resolution"):
        criterion(features[..., :3], logits, target)
    with pytest.raises(ValueError, match=r"labels from 0 to 9.*ignore_index of the loss, which is None"):
        criterion(features, logits, double_batch(ignored=1).target)
    with pytest.raises(ValueError, match="num_classes at least 2"):
        made(name, classes=1)
    for count in (-1, 3):
        with pytest.raises(ValueError, match=f"annotated must be between 0 and 2, the images, not {count}"):
            criterion(features, logits, target, annotated=count)


# In ordinary training loops


def three_steps(name: str, compiled: bool) -> list[Tensor]:
    """Losses and gradients of network, term and backward pass, with batches of several sizes."""
    torch.manual_seed(1)
    body, criterion, found = nn.Conv2d(3, 3, 3, padding=1).double(), made(name), []

    def step(image: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        features = body(image)
        return features.square().mean() + criterion(features, logits=logits, target=target)

    called = torch.compile(step, backend="eager") if compiled else step
    for seed, shape in enumerate([(6, 7), (8, 6), (5, 9)]):
        loss = called(*double_batch(shape, seed=seed))
        found += [loss.detach(), *torch.autograd.grad(loss, [*body.parameters(), *criterion.parameters()])]
    return found


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler itself
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_step_is_the_step(name: str) -> None:
    torch.compiler.reset()
    expected = three_steps(name, compiled=False)
    torch.testing.assert_close(three_steps(name, compiled=True), expected)
    assert expected[-1].any()


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_tensors_alone_and_can_be_averaged(name: str) -> None:
    criterion = made(name)
    averaged = copy.deepcopy(criterion)
    criterion(*double_batch())
    for key, value in averaged.state_dict().items():
        assert isinstance(value, Tensor), key
        if value.is_floating_point():
            value.mul_(0.9).add_(criterion.state_dict()[key], alpha=0.1)
    criterion.load_state_dict(averaged.state_dict())
    assert math.isfinite(criterion(*double_batch()).item())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c)), "file"])
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_goes_on_as_the_original(name: str, copied: Any) -> None:
    criterion = made(name)
    criterion(*double_batch(seed=77))
    other = through_a_file(criterion) if copied == "file" else copied(criterion)
    assert other(*double_batch()).item() == criterion(*double_batch()).item() > 0
    assert all(torch.equal(value, banks(other)[key]) for key, value in banks(criterion).items())


def through_a_file(criterion: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(criterion, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_loss_in_other_precisions(name: str, dtype: torch.dtype) -> None:
    """Close to the one in single precision; the same pixels are drawn, since the logits are as exact."""
    found = []
    for own in (torch.float32, dtype):
        criterion = made(name).to(own)
        for seed in (77, 78):
            features, logits, target = double_batch(seed=seed)
            logits = logits.bfloat16().half().to(own)
            loss = criterion(features.to(own), logits, target)
        loss.backward()
        assert all(p.grad.dtype == own and p.grad.isfinite().all() for p in criterion.parameters())
        found.append(loss.item())
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found[1] == pytest.approx(found[0], rel=0.05)
    assert found[0] > 0


@pytest.mark.parametrize("name", NAMES)
def test_features_that_are_not_finite_are_noticed_where_nothing_is_annotated(name: str) -> None:
    criterion, (features, logits, target) = filled(name), double_batch()
    features = features.detach()
    features[1, 2, 5, 6] = math.nan
    loss = criterion(features.requires_grad_(), logits, target, annotated=1)
    assert loss.isnan()
    assert not any(gradient.any() for gradient in gradients(criterion, features, loss))


@pytest.mark.parametrize("name", NAMES)
def test_the_default_device_of_tensors_does_not_matter(name: str) -> None:
    """A program may set it ("cuda", here "meta", which nothing can be computed on)."""
    batch = double_batch()
    here, there = filled(name), filled(name)
    expected = here(*batch)
    with torch.device("meta"):
        found = there(*batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("empty", ["no images", "no pixels"])
def test_a_batch_without_pixels_gives_a_connected_zero(name: str, empty: str) -> None:
    criterion = filled(name).train()
    before = banks(criterion)
    features, logits, target = double_batch()
    cut = (slice(0), ...) if empty == "no images" else (..., slice(0))
    batch = Batch(features[cut].detach().requires_grad_(), logits[cut], target[cut])
    assert is_a_connected_zero(criterion, batch)
    assert all(torch.equal(value, before[key]) for key, value in banks(criterion).items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_give_nan(name: str, value: float) -> None:
    """In any pixel that takes part, drawn or not, and without memory as with it."""
    for criterion in (made(name, ignore=IGNORED), filled(name, ignore=IGNORED).train()):
        before = banks(criterion)
        features, logits, target = double_batch(ignored=1)
        features = features.detach()
        features[1, 2, 5, 6] = value
        batch = Batch(features.requires_grad_(), logits, target)
        loss = criterion(*batch)
        assert loss.isnan()
        assert not any(gradient.any() for gradient in gradients(criterion, batch.features, loss))
        assert all(torch.equal(kept, before[key]) for key, kept in banks(criterion).items())


@pytest.mark.parametrize("name", NAMES)
def test_a_head_that_is_not_finite_gives_nan(name: str) -> None:
    criterion = made(name)
    nn.init.constant_(criterion.head.hidden.bias, math.nan)
    for _ in range(2):
        assert criterion(*double_batch()).isnan()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [50.0, math.nan, -math.inf])
def test_ignored_pixels_may_hold_anything(name: str, value: float) -> None:
    """Scattered, so that regions have ignored neighbours; value and gradient are as with other numbers there."""
    found = []
    for filling in (0.0, value):
        features, logits, target = double_batch()
        target.view(-1)[::3] = IGNORED
        ignored = (target == IGNORED)[:, None]
        features = features.detach().masked_fill(ignored, filling).requires_grad_()
        batch = Batch(features, logits.masked_fill(ignored, filling), target)
        criterion = made(name, ignore=IGNORED)
        criterion(*double_batch(seed=77))
        loss = criterion(*batch)
        (gradient,) = torch.autograd.grad(loss, features)
        assert not gradient.masked_select(ignored).any()
        assert gradient.any()
        found.append((loss, gradient))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "laid_out",
    [
        lambda maps: maps.transpose(-1, -2).contiguous().transpose(-1, -2),
        lambda maps: maps.repeat_interleave(2, -1)[..., ::2],
        lambda maps: maps.contiguous(memory_format=torch.channels_last) if maps.ndim == 4 else maps,
        lambda maps: maps.flip(0).contiguous().flip(0),
    ],
    ids=["transposed", "strided", "channels last", "flipped"],
)
def test_the_layout_in_memory_does_not_matter(name: str, laid_out: Callable[[Tensor], Tensor]) -> None:
    batch = double_batch((16, 8))
    other = Batch(*(laid_out(maps.detach()) for maps in batch))
    other.features.requires_grad_()
    losses = [filled(name)(*one) for one in (batch, other)]
    torch.testing.assert_close(losses[1], losses[0])
    one, two = (
        torch.autograd.grad(loss, b.features)[0] for loss, b in zip(losses, (batch, other), strict=True)
    )
    torch.testing.assert_close(two, one)
    assert one.any()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_accumulate_over_calls(name: str) -> None:
    """The sum of two calls, taken back together, is what the two give one by one."""
    batches = [double_batch(seed=seed) for seed in (1, 2)]
    together, apart = filled(name).train(), filled(name).train()
    sum((together(*batch) for batch in batches), torch.zeros(())).backward()
    for batch in batches:
        apart(*batch).backward()
    for one, two in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize("name", NAMES)
def test_features_without_gradient_train_the_head(name: str) -> None:
    batch = double_batch()
    loss = filled(name)(batch.features.detach(), *batch[1:])
    assert all(gradient.any() for gradient in torch.autograd.grad(loss, leaves_of(loss)))


def leaves_of(loss: Tensor) -> list[Tensor]:
    """What the graph of a loss ends at."""
    leaves, todo, seen = [], [loss.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        todo += [following for following, _ in node.next_functions]
    assert len(leaves) >= 2
    return leaves


# A loss that does nothing says so


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_probabilities_in_place_of_logits_are_refused(name: str, dtype: torch.dtype) -> None:
    features, logits, target = double_batch()
    criterion = made(name)
    with pytest.raises(ValueError, match=r"logits hold probabilities.*before softmax"):
        criterion(features, logits.softmax(1).to(dtype), target)
    for fine in (logits, logits.softmax(1).log(), logits.sigmoid(), logits.double()):
        made(name)(features, fine, target)


@pytest.mark.parametrize("name", NAMES)
def test_backward_hooks_on_every_module_are_called(name: str) -> None:
    criterion, batch, seen = made(name), double_batch(), []
    criterion(*double_batch(seed=1))
    for module in criterion.modules():
        module.register_full_backward_hook(lambda own, *_: seen.append(own))
    criterion(*batch).backward()
    assert {criterion.head.hidden, criterion.head.output} <= {*seen}


@pytest.mark.parametrize("name", ["ccdc", "reco", "batch"])
def test_a_term_that_stays_zero_says_so_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PATIENCE", 3)
    nothing = {"ccdc": {"core_threshold": 1.0}, "reco": {"hard_threshold": 0.0}, "batch": {"min_pixels": 999}}
    criterion = made(name, **nothing[name])
    batch, told = double_batch(), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(12):
            criterion(*batch)
            told.append(len(caught))
    assert told == [0] * 2 + [1] * 10
    assert f"{type(criterion).__name__} was zero in 3 calls in a row" in str(caught[0].message)


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_one_class_are_nothing_to_contrast(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PATIENCE", 3)
    criterion, batch = made(name), double_batch()
    batch.target.fill_(2)
    for _ in range(2):
        criterion(*batch)
    with pytest.warns(UserWarning, match="3 calls in a row: the batches held one class only"):
        criterion(*batch)


def test_a_term_that_is_zero_now_and_then_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PATIENCE", 3)
    criterion, unsure = made("ccdc", core_threshold=0.9), double_batch()
    for seed in range(9):
        batch = double_batch(seed=seed)
        criterion(*(batch if seed % 3 == 2 else (batch.features, 0 * batch.logits, batch.target)))
    criterion.eval()
    for _ in range(9):
        criterion(unsure.features, 0 * unsure.logits, unsure.target)


class Tagged(Tensor):
    """Stays what it is in every sum, as MONAI's tensors do."""


@pytest.mark.parametrize("name", MEMORIES)
def test_no_foreign_kind_of_tensor_enters_a_state(name: str) -> None:
    criterion = made(name)
    for seed in range(2):
        criterion(*(part.as_subclass(Tagged) for part in double_batch(seed=seed)))
    assert all(value.any() for value in banks(criterion).values())
    assert {type(value) for value in criterion.state_dict().values()} == {Tensor}


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", NAMES)
def test_a_call_without_gradients_is_an_evaluation(name: str, without: Callable[[], Any]) -> None:
    criterion, (features, *others) = made(name), double_batch()
    criterion(features, *others)
    kept, state = banks(criterion), torch.get_rng_state()
    with without():
        first, second = (criterion(features.detach(), *others, generator=None) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, kept[name]) for name, value in banks(criterion).items())
