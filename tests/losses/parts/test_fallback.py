"""A device that lacks an operation, pretended."""

import warnings
from typing import Any

import pytest
import torch
from batches import Batch
from remote import DEVICE, RemoteDevice, move, remote
from rivals import CONTRASTIVE, IGNORED, banks, double_batch, made

from ccdcseg.losses import CCDCLoss, ContrastiveSegLoss, ReCoLoss, RegionContrastLoss
from ccdcseg.losses.parts.base import ContrastiveLoss

OPERATIONS = {"searchsorted": "forward", "threshold_backward": "backward"}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", CONTRASTIVE)
def test_a_term_falls_back_to_the_cpu_and_says_so_once(name: str, operation: str) -> None:
    """Losses, gradients and memory are those of a term on the CPU."""
    here, there = made(name, ignore=IGNORED), made(name, ignore=IGNORED)
    move(there)
    told = []
    for call in range(4):
        batch = double_batch((12, 13), seed=call, ignored=9)
        moved = Batch(*(remote(maps) for maps in batch))
        expected = here(*batch)
        expected.backward()
        with RemoteDevice(operation), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loss = there(*moved)
            loss.backward()
        told += [str(one.message) for one in caught]
        assert torch.equal(loss.held, expected)
        assert torch.equal(moved.features.grad.held, batch.features.grad)
    assert len(told) == 1
    assert "is computed on the CPU, since meta lacks something" in told[0]
    assert operation in told[0]
    for one, other in zip(there.parameters(), here.parameters(), strict=True):
        assert torch.equal(one.grad.held, other.grad)
    kept = {key: value.held for key, value in banks(there).items()}
    torch.testing.assert_close(kept, banks(here), rtol=0, atol=0)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_a_device_that_lacks_nothing_is_used(name: str) -> None:
    criterion = made(name)
    move(criterion)
    state = criterion.generator.get_state()
    batch = Batch(*(remote(maps) for maps in double_batch()))
    with RemoteDevice() as device, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not criterion._needs_cpu(batch.features.device)
        assert torch.equal(criterion.generator.get_state(), state)
        tried = device.to_host.total()
        criterion(*batch)
        assert criterion.diagnostics.class_loss.device == batch.features.device
        assert device.to_host.total() > tried > 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", CONTRASTIVE)
def test_a_first_call_in_an_evaluation_tries_what_a_training_needs(name: str, mode: Any) -> None:
    whole, lacking = (made(name).eval() for _ in range(2))
    move(whole)
    move(lacking)
    with RemoteDevice(), warnings.catch_warnings(), mode():
        warnings.simplefilter("error")
        assert not whole._needs_cpu(DEVICE)
    with RemoteDevice("threshold_backward"), pytest.warns(match="threshold_backward"), mode():
        assert lacking._needs_cpu(DEVICE)


@pytest.mark.parametrize("classes", [2, 3, 20])
@pytest.mark.parametrize(
    ("loss", "operation"),
    [
        (CCDCLoss, "logsumexp"),
        (ReCoLoss, "logsumexp"),
        (ReCoLoss, "scatter_add"),
        (ContrastiveSegLoss, "logsumexp"),
        (ContrastiveSegLoss, "softplus"),
        (RegionContrastLoss, "logsumexp"),
    ],
)
def test_what_pixels_are_contrasted_with_is_tried_at_the_usual_settings(
    loss: type[ContrastiveLoss[Any]], operation: str, classes: int
) -> None:
    criterion = loss(8, classes)
    move(criterion)
    with RemoteDevice(operation), pytest.warns(match=operation):
        assert criterion._needs_cpu(DEVICE)


def test_cpu_and_cuda_are_not_tried() -> None:
    assert not made("ccdc")._needs_cpu(torch.device("cuda"))
    assert not made("ccdc")._needs_cpu(torch.device("cpu"))
