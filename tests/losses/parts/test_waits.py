"""How often a step waits for the device, on a pretended one; and that it computes there what it computes here."""

from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from batches import Batch
from remote import RemoteDevice, move, remote
from rivals import CONTRASTIVE, IGNORED, banks, double_batch, made
from torch import Tensor

from ccdcseg.losses import Diagnostics

ROUNDS = {name: 2 if name == "reco" else 1 for name in CONTRASTIVE}
"""Times that the host reads, and that it sends: ReCo draws negatives by the embeddings of pixels drawn before."""


def on_device(criterion: Any, batch: Batch) -> tuple[Any, Batch]:
    """Both, moved to the pretended device."""
    move(criterion)
    return criterion, Batch(*(remote(maps) for maps in batch))


def step(criterion: Any, batch: Batch) -> Tensor:
    """Term, a loss beside it and backward pass."""
    features = batch.features * 1
    loss = criterion(features, *batch[1:])
    (loss + features.square().mean()).backward()
    return loss


def counted(criterion: Any, batch: Batch) -> tuple[Counter[str], int]:
    """Waits of a step and copies to the device; of the second, since the first looks whether logits are logits."""
    for _ in range(2):
        with RemoteDevice() as device:
            step(criterion, batch)
    return device.to_host, device.to_device


@pytest.mark.parametrize("name", CONTRASTIVE)
@pytest.mark.parametrize("training", [True, False])
def test_a_step_reads_once_and_sends_once(name: str, training: bool) -> None:
    criterion, batch = on_device(made(name, ignore=IGNORED), double_batch((12, 13), ignored=9))
    read, sent = counted(criterion.train(training), batch)
    assert read == {"_to_copy": ROUNDS[name]}
    assert sent == ROUNDS[name]


SETTINGS = [
    {"core_pixels": None},
    {"denominator": "class_mean", "query_reduction": "hardest", "threshold": "fixed", "shortage": "replace"},
    {"query_reduction": "set"},
    {"statistics_scope": "global", "core_gradient": True, "negative_gradient": True},
    {"core_threshold": 1.0},  # nothing to contrast
]


@pytest.mark.parametrize("changes", SETTINGS)
def test_no_setting_of_ccdc_reads_more(changes: dict[str, Any]) -> None:
    read, sent = counted(*on_device(made("ccdc", **changes), double_batch((3, 12, 13))))
    assert (read, sent) == ({"_to_copy": 1}, 1)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_the_device_computes_what_the_host_does(name: str) -> None:
    here, batch = made(name, ignore=IGNORED), double_batch((12, 13), ignored=9)
    there, moved = on_device(made(name, ignore=IGNORED), batch)
    for _ in range(2):
        expected = step(here, batch)
        with RemoteDevice():
            found = step(there, moved)
        assert torch.equal(found.held, expected)
    assert torch.equal(moved.features.grad.held, batch.features.grad)
    for one, other in zip(there.parameters(), here.parameters(), strict=True):
        assert torch.equal(one.grad.held, other.grad)
    with RemoteDevice():
        kept = {key: value.cpu() for key, value in banks(there).items()}
    torch.testing.assert_close(kept, banks(here), rtol=0, atol=0)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_diagnostics_wait_when_they_are_looked_at(name: str) -> None:
    criterion, batch = on_device(made(name), double_batch())
    with RemoteDevice() as device:
        step(criterion, batch)
        before = sum(device.to_host.values())
        values = {field.name: getattr(criterion.diagnostics, field.name) for field in fields(Diagnostics)}
        remote_ones = {key for key, value in values.items() if value.device != torch.device("cpu")}
        assert sum(device.to_host.values()) == before
        values["class_loss"].cpu().tolist()
        assert sum(device.to_host.values()) == before + 1
    assert remote_ones == {"class_loss", "positive_similarity", "negative_similarity"}


def waits_of(action: Callable[[Tensor], object]) -> int:
    with RemoteDevice() as device:
        action(remote(torch.tensor([[1.0, 0.0], [2.0, 3.0]])))
    return sum(device.to_host.values()) + device.to_device


@pytest.mark.parametrize(
    ("action", "waits"),
    [
        (lambda x: x @ x + 1, 0),
        (lambda x: x[x.argmax(1)], 0),
        (lambda x: x[:, 0].item(), None),
        (lambda x: x.sum().item(), 1),
        (lambda x: bool(x.any()), 1),
        (lambda x: int(x[0, 0]), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.to("cpu"), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x.unique(), 1),
        (lambda x: torch.unique(x, return_inverse=True), 1),
        (lambda x: x.masked_select(x > 0), 1),
        (lambda x: torch.equal(x, x + 1), 1),
        (lambda x: x.flatten().long().bincount(), 1),
        (lambda x: torch.repeat_interleave(x[0].long()), 1),
        (lambda x: x + torch.ones(2).to(x.device), 1),
        (lambda x: x + torch.arange(2, device=x.device), 0),
        (lambda x: x.index_put_((x > 1,), x.sum()), 1),
    ],
)
def test_the_pretended_device_counts(action: Callable[[Tensor], object], waits: int | None) -> None:
    if waits is None:
        with pytest.raises(RuntimeError):
            waits_of(action)
    else:
        assert waits_of(action) == waits


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_host_and_device_do_not_mix(device: str) -> None:
    with pytest.raises(AssertionError, match="host and device"):
        waits_of(lambda x: x + torch.tensor([1.0, 2.0], device=device))
