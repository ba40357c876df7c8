"""A whole step under ``torch.compile`` with inductor: the network in one graph, the term outside of it."""

import shutil
from typing import Any

import pytest
import torch
from rivals import double_batch, made
from torch import nn
from torch._inductor.compile_fx import compile_fx

COMPILERS = ("g++", "clang++", "cl")


def step_losses(compiled: Any) -> list[float]:
    """Losses of three training steps of a network, a loss on its logits, and the term."""
    torch.manual_seed(1)
    body, segmentation = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()), nn.Conv2d(3, 4, 1)
    criterion = made("ccdc").float()
    optimizer = torch.optim.SGD(
        [*body.parameters(), *segmentation.parameters(), *criterion.parameters()], 0.1
    )

    @compiled
    def loss_of(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        features = body(image)
        logits = segmentation(features)
        return logits.square().mean() + criterion(features, logits, target)

    found = []
    for seed in range(3):
        image, _, target = double_batch(seed=seed)
        optimizer.zero_grad()
        loss = loss_of(image.detach().float(), target)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def is_convolution(graph: torch.fx.GraphModule, node: torch.fx.Node) -> bool:
    if node.op == "call_module":  # before torch 2.6
        return isinstance(graph.get_submodule(node.target), nn.Conv2d)
    return "conv2d" in str(node.target)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="inductor needs a C++ compiler on the CPU")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler itself
def test_inductor_gives_the_same_losses_and_keeps_the_network_in_one_graph() -> None:
    torch.compiler.reset()
    convolutions: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        convolutions.append(sum(is_convolution(graph, node) for node in graph.graph.nodes))
        return compile_fx(graph, inputs)

    found = step_losses(lambda function: torch.compile(function, backend=counting))
    assert convolutions == [2, 0]  # the network; what follows the term
    assert found == pytest.approx(step_losses(lambda function: function), rel=1e-5)
