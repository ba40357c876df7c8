import oracle
import pytest
import torch
from batches import seeded
from torch import Tensor

from ccdcseg.losses.projection import ProjectionHead
from ccdcseg.losses.region import region_offsets, region_pixels
from ccdcseg.losses.settings import HeadNormalisation, Region, RegionCombination

SHAPE = (2, 4, 5)


def made_head(normalisation: HeadNormalisation = HeadNormalisation.NONE) -> ProjectionHead:
    torch.manual_seed(0)
    return ProjectionHead(3, 6, 4, normalisation).double()


def features() -> Tensor:
    return torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=seeded())


def regions(pixels: Tensor) -> Tensor:
    return region_pixels(pixels, SHAPE[1:], region_offsets(Region.BLOCK, 1, 2))


@pytest.mark.parametrize("combination", RegionCombination)
def test_representations_are_the_oracles(combination: RegionCombination) -> None:
    head, maps = made_head(), features()
    parameters = [p.tolist() for p in (*head.hidden.parameters(), *head.output.parameters())]
    got = head(maps, regions(torch.arange(40)), combination).tolist()
    for pixel, vector in enumerate(got):
        expected = oracle.represent(
            tuple(int(index) for index in torch.unravel_index(torch.tensor(pixel), SHAPE)),
            lambda position: oracle.channels_at(maps.tolist(), position),
            lambda feature: oracle.project(feature, *parameters),
            oracle.region_offsets(4, 1, 2),
            SHAPE,
            combination.value,
        )
        assert vector == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("normalisation", HeadNormalisation)
@pytest.mark.parametrize(("combination", "length"), [("mean", 4), ("concatenate", 16)])
def test_representations_have_unit_length(
    normalisation: HeadNormalisation, combination: str, length: int
) -> None:
    vectors = made_head(normalisation)(features(), regions(torch.arange(40)), RegionCombination(combination))
    assert vectors.shape == (40, length)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(40, dtype=torch.float64))


@pytest.mark.parametrize("normalisation", HeadNormalisation)
def test_a_pixel_does_not_depend_on_what_else_is_sampled(normalisation: HeadNormalisation) -> None:
    head, maps = made_head(normalisation), features()
    together = head(maps, regions(torch.arange(40)), RegionCombination.MEAN)
    alone = head(maps, regions(torch.tensor([17])), RegionCombination.MEAN)
    torch.testing.assert_close(together[17:18], alone)


def test_layer_normalisation_makes_the_scale_of_features_indifferent() -> None:
    pixels = regions(torch.arange(40))

    def scaled(normalisation: HeadNormalisation) -> Tensor:
        head = made_head(normalisation)
        torch.nn.init.zeros_(head.hidden.bias)
        return head(1000 * features(), pixels, RegionCombination.MEAN) - head(
            features(), pixels, RegionCombination.MEAN
        )

    assert scaled(HeadNormalisation.LAYER).abs().max() < 1e-3  # LayerNorm's epsilon
    assert scaled(HeadNormalisation.NONE).abs().max() > 1e-2


def test_no_pixels_give_no_vectors_that_still_know_the_parameters() -> None:
    head, maps = made_head(HeadNormalisation.LAYER), features().requires_grad_()
    vectors = head(maps, regions(torch.empty(0, dtype=torch.int64)), RegionCombination.MEAN)
    assert vectors.shape == (0, 4)
    vectors.sum().backward()
    assert not any(p.grad.any() for p in (maps, *head.parameters()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_head_keeps_its_own_precision(dtype: torch.dtype) -> None:
    vectors = made_head().float()(features().to(dtype), regions(torch.arange(5)), RegionCombination.MEAN)
    assert vectors.dtype == torch.float32
