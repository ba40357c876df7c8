from typing import Literal

import oracle
import pytest
import torch
from batches import repeatable
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.losses.ccdc.neighbourhood import neighbour_offsets, with_neighbours
from ccdcseg.losses.ccdc.settings import Region

PIXELS: dict[Region, Literal[1, 2, 4, 8]] = {
    Region.PIXEL: 1,
    Region.PAIR: 2,
    Region.BLOCK: 4,
}


@pytest.mark.parametrize(
    ("region", "dimensions", "offsets"),
    [
        (Region.PIXEL, 2, [(0, 0)]),
        (Region.PAIR, 2, [(0, 0), (0, 2)]),
        (Region.BLOCK, 2, [(0, 0), (0, 2), (2, 0), (2, 2)]),
        (Region.PAIR, 3, [(0, 0, 0), (0, 0, 2)]),
        (Region.BLOCK, 3, [(0, 0, 0), (0, 0, 2), (0, 2, 0), (0, 2, 2)]),
    ],
)
def test_offsets(region: Region, dimensions: int, offsets: list[tuple[int, ...]]) -> None:
    assert neighbour_offsets(region, 2, dimensions) == offsets


def test_beyond_the_border_stands_the_nearest_pixel_inside() -> None:
    offsets = neighbour_offsets(Region.BLOCK, 1, 2)
    # Two images of 2 rows x 3 columns: 0 1 2 / 3 4 5 and 6 7 8 / 9 10 11.
    got = with_neighbours(torch.tensor([0, 2, 5, 6, 11]), torch.zeros(2, 6), (2, 3), offsets)
    assert got.tolist() == [[0, 1, 3, 4], [2, 2, 5, 5], [5, 5, 5, 5], [6, 7, 9, 10], [11, 11, 11, 11]]


@given(st.lists(st.integers(1, 5), min_size=2, max_size=3), st.integers(1, 4), st.sampled_from(Region))
@repeatable
def test_every_pixels_region_is_the_oracles(space: list[int], stride: int, region: Region) -> None:
    shape = (2, *space)
    pixels = torch.arange(torch.Size(shape).numel())
    got = with_neighbours(pixels, torch.zeros(shape), space, neighbour_offsets(region, stride, len(space)))
    expected_offsets = oracle.region_offsets(PIXELS[region], stride, len(space))
    positions = torch.stack(torch.unravel_index(got, shape), -1).tolist()
    for pixel, row in zip(pixels, positions, strict=True):
        position = tuple(int(index) for index in torch.unravel_index(pixel, shape))
        assert [tuple(p) for p in row] == oracle.region(position, expected_offsets, shape)


def test_for_an_ignored_neighbour_stands_the_pixel_itself() -> None:
    offsets = neighbour_offsets(Region.BLOCK, 1, 2)
    labels = torch.tensor([[0, -1, 0, 0, 0, -1]])  # 0 1 2 / 3 4 5
    got = with_neighbours(torch.tensor([0, 2, 4]), labels, (2, 3), offsets)
    assert got.tolist() == [[0, 0, 3, 4], [2, 2, 2, 2], [4, 4, 4, 4]]


def test_no_pixels_have_no_regions() -> None:
    offsets = neighbour_offsets(Region.BLOCK, 1, 2)
    assert with_neighbours(torch.empty(0, dtype=torch.int64), torch.zeros(1, 16), (4, 4), offsets).shape == (
        0,
        4,
    )
