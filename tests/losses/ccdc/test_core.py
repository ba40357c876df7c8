import oracle
import pytest
import torch
import torch.nn.functional as F
from batches import repeatable, seeded
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.losses.ccdc.core import core_representations, is_core
from ccdcseg.losses.parts.settings import StatisticsScope

RANK = StatisticsScope.RANK


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 1000))
@repeatable
def test_the_core_is_the_oracles_mean(sizes: list[int], seed: int) -> None:
    generator = seeded(seed)
    parts = [F.normalize(torch.randn(n, 5, dtype=torch.float64, generator=generator), dim=1) for n in sizes]
    cores = core_representations(parts, sizes, RANK)
    for core, part in zip(cores, parts, strict=True):
        assert core.tolist() == pytest.approx(oracle.core_representation(part.tolist()), abs=1e-12)


def test_the_number_available_does_not_turn_the_core() -> None:
    part = F.normalize(torch.randn(4, 3, generator=seeded()), dim=1)
    torch.testing.assert_close(
        core_representations([part], [4000], RANK), core_representations([part], [4], RANK)
    )


def test_a_class_without_core_has_a_zero_core() -> None:
    part = torch.tensor([[0.0, 1.0], [1.0, 0.0]], requires_grad=True)
    cores = core_representations([part, part[:0]], [2, 0], RANK)
    torch.testing.assert_close(cores.detach(), torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 0.0]]))
    cores.sum().backward()
    assert part.grad is not None
    assert part.grad.isfinite().all()


def test_one_process_needs_no_other_ranks() -> None:
    part = F.normalize(torch.randn(4, 3, generator=seeded()), dim=1).requires_grad_()
    everywhere = core_representations([part], [4], StatisticsScope.GLOBAL)
    torch.testing.assert_close(everywhere, core_representations([part], [4], RANK))
    (gradient,) = torch.autograd.grad(everywhere[0, 0], part, retain_graph=True)
    (expected,) = torch.autograd.grad(core_representations([part], [4], RANK)[0, 0], part)
    torch.testing.assert_close(gradient, expected)


def test_core_pixels_are_surer_than_the_threshold() -> None:
    assert is_core(torch.tensor([0.96, 0.97, 0.98, 0.0]), 0.97).tolist() == [False, False, True, False]
