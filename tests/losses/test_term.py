"""What all contrastive losses have in common."""

import math
from typing import Any

import pytest
import torch
from batches import Batch, random_batch
from rivals import IGNORED, KINDS, banks, double_batch, filled, made
from torch import Tensor

NAMES = list(KINDS)
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
def test_the_weight_is_a_factor(name: str) -> None:
    batch = double_batch()
    one, third = (filled(name, weight=weight)(*batch) for weight in (1.0, 0.3))
    torch.testing.assert_close(third, 0.3 * one)
    assert is_a_connected_zero(filled(name, weight=0), batch)


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_and_rises(name: str) -> None:
    """Before the start nothing is drawn and nothing stored."""
    batch = double_batch()
    full = filled(name)(*batch)
    criterion = made(name, start_iteration=2, warmup_iterations=4)
    for _ in range(2):
        assert is_a_connected_zero(criterion, batch)
        assert criterion.selection is criterion.diagnostics is None
    assert not any(value.any() for value in banks(criterion).values())
    criterion(*double_batch(seed=77))
    criterion.eval()  # the same state as `full` was computed in, in the second iteration of four
    torch.testing.assert_close(criterion(*batch), full * 2 / 4)


@pytest.mark.parametrize("name", NAMES)
def test_it_ends(name: str) -> None:
    """In the last iteration it is whole; from the end on it draws nothing and stores nothing."""
    batch = double_batch()
    criterion = made(name, start_iteration=1, end_iteration=3)
    for iteration in range(3):
        criterion(*double_batch(seed=iteration))
        assert (criterion.diagnostics is not None) == (iteration in (1, 2))
    stored = {key: value.clone() for key, value in banks(criterion).items()}
    assert is_a_connected_zero(criterion, batch)
    assert criterion.selection is criterion.diagnostics is None
    assert all(torch.equal(value, stored[key]) for key, value in banks(criterion).items())


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
        if criterion.generator is not None:
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
        ("region", {"weight": -1}, "weight must be"),
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
    with pytest.raises(ValueError, match=r"labels from 0 to 9.*ignore_label of the loss, which is None"):
        criterion(features, logits, double_batch(ignored=1).target)
    with pytest.raises(ValueError, match="num_classes at least 2"):
        made(name, classes=1)
