import pytest
import torch
from batches import repeatable, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ccdcseg.losses.subset import PixelSubset


def mask(size: int, share: float, seed: int = 0) -> Tensor:
    return torch.rand(size, generator=seeded(seed)) < share


@given(st.integers(1, 700), st.sampled_from([0.0, 0.003, 0.1, 0.5, 0.99, 1.0]), st.integers(0, 100))
@repeatable
def test_members_are_found_by_rank(size: int, share: float, seed: int) -> None:
    chosen = mask(size, share, seed)
    subset, expected = PixelSubset(chosen), chosen.nonzero()[:, 0]
    assert len(subset) == len(expected)
    assert torch.equal(subset.members(), expected)
    assert torch.equal(subset.at(torch.arange(len(expected))), expected)


@pytest.mark.parametrize("size", [1, 127, 128, 129, 255, 256, 257, 128 * 300])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all(size: int, share: float) -> None:
    subset = PixelSubset(mask(size, share))
    assert len(subset) == size * share
    assert torch.equal(subset.at(torch.arange(len(subset))), torch.arange(int(size * share)))


def test_ranks_come_in_any_order_and_repeat() -> None:
    subset = PixelSubset(mask(1000, 0.3))
    ranks = torch.randint(len(subset), (500,), generator=seeded())
    assert torch.equal(subset.at(ranks), subset.members()[ranks])


def test_a_part_of_a_mask() -> None:
    """Masks that do not begin where their memory does."""
    whole = mask(1000, 0.3)
    for start in range(1, 10):
        part = whole[start : start + 256]
        assert torch.equal(PixelSubset(part).at(torch.tensor([0])), part.nonzero()[0])
