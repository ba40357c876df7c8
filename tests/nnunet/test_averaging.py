import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ccdcseg.nnunet.averaging import averaged_copy
from ccdcseg.nnunet.checkpoints import OWN_KEY, load_checkpoint


def followed(decay: float, values: list[float]) -> float:
    """The average of a network with one weight after it has had these values."""
    network = nn.Linear(1, 1, bias=False)
    averaged = averaged_copy(network, decay)
    for value in values:
        nn.init.constant_(network.weight, value)
        averaged.update_parameters(network)
    return averaged.module.weight.item()


@given(st.floats(0, 0.999), st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_against_the_definition(decay, values):
    expected = values[0]
    for updates, value in enumerate(values[1:], 1):
        kept = min(1 - 1 / (updates + 1), decay)
        expected = kept * expected + (1 - kept) * value
    assert followed(decay, values) == pytest.approx(expected, abs=1e-4)


def test_without_memory_it_is_the_network():
    assert followed(0, [3.0, 5.0, -2.0]) == -2


def test_the_first_steps_are_averaged_evenly():
    assert followed(0.99, [1.0, 2.0, 6.0]) == pytest.approx(3)


def test_it_needs_no_gradient_and_leaves_the_network_alone():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = copy.deepcopy(network.state_dict())
    averaged = averaged_copy(network, 0.9)
    network(torch.randn(4, 1, 5, 5))
    averaged.update_parameters(network)
    assert not any(parameter.requires_grad for parameter in averaged.parameters())
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in ("0.weight", "0.bias"))
    assert torch.equal(averaged.module[1].running_mean, network[1].running_mean)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("method", ["nnunet", "ccdc"])
def test_a_continued_training_ends_as_one_that_was_not(tiny_run, train_run, interrupt_run, method):
    """The averaged network is what predicts; the trained one and the count of updates are kept beside it."""
    changes = (
        "training.averaged_weights=0.9",
        "training.optimizer=adamw",
        "training.initial_learning_rate=0.002",
    )
    whole = train_run(tiny_run(method, changes, "whole"))
    broken = tiny_run(method, changes, "broken")
    interrupt_run(broken, 4)
    folders = whole, train_run(broken, resume=True)
    first, second = (load_checkpoint(folder / "checkpoint_final.pth") for folder in folders)
    trained = first[OWN_KEY]["trained_weights"]
    assert any(not torch.equal(trained[name], value) for name, value in first["network_weights"].items())
    for name, value in first["network_weights"].items():
        assert torch.equal(value, second["network_weights"][name])
        assert torch.equal(trained[name], second[OWN_KEY]["trained_weights"][name])
    assert first[OWN_KEY]["updates"] == 6
