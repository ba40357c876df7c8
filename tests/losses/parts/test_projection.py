import oracle
import pytest
import torch
from batches import seeded
from torch import Tensor

from ccdcseg.losses.ccdc.neighbourhood import neighbour_offsets, with_neighbours
from ccdcseg.losses.ccdc.settings import Region, RegionCombination
from ccdcseg.losses.parts.projection import ProjectionHead, unit

SHAPE = (2, 4, 5)


def made_head() -> ProjectionHead:
    torch.manual_seed(0)
    return ProjectionHead(3, 6, 4).double()


def features() -> Tensor:
    return torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=seeded())


def regions(pixels: Tensor) -> Tensor:
    return with_neighbours(pixels, torch.zeros(SHAPE), SHAPE[1:], neighbour_offsets(Region.BLOCK, 1, 2))


@pytest.mark.parametrize("combination", RegionCombination)
def test_representations_are_the_oracles(combination: RegionCombination) -> None:
    head, maps = made_head(), features()
    parameters = [p.tolist() for p in (*head.hidden.parameters(), *head.output.parameters())]
    concatenate = combination is RegionCombination.CONCATENATE
    got = head(maps, regions(torch.arange(40)), concatenate=concatenate).tolist()
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


@pytest.mark.parametrize(("combination", "length"), [("mean", 4), ("concatenate", 16)])
def test_representations_have_unit_length(combination: str, length: int) -> None:
    vectors = made_head()(features(), regions(torch.arange(40)), concatenate=combination == "concatenate")
    assert vectors.shape == (40, length)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(40, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_vectors_are_those_of_torch_where_there_is_a_direction(dtype: torch.dtype) -> None:
    given = [torch.randn(9, 4, dtype=dtype, generator=seeded()).requires_grad_() for _ in "ab"]
    found, expected = unit(given[0]), torch.nn.functional.normalize(given[1], dim=1)
    assert torch.equal(found, expected)
    for result in (found, expected):
        (result**3).sum().backward()
    assert torch.equal(given[0].grad, given[1].grad)


def test_a_vector_without_direction_stays_and_its_gradient_is_no_larger_than_it_came() -> None:
    vectors = torch.zeros(2, 4, requires_grad=True)
    found = unit(vectors)
    (3 * found).sum().backward()
    assert not found.any()
    assert vectors.grad.eq(3).all()


def test_a_head_without_biases_on_pixels_without_features_keeps_its_gradients_small() -> None:
    head, maps = made_head(), torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    for layer in (head.hidden, head.output):
        torch.nn.init.zeros_(layer.bias)
    (head(maps, regions(torch.arange(40))) * torch.ones(4)).sum().backward()
    assert max(parameter.grad.abs().max().item() for parameter in head.parameters()) <= 40


def test_a_pixel_does_not_depend_on_what_else_is_sampled() -> None:
    head, maps = made_head(), features()
    together = head(maps, regions(torch.arange(40)))
    alone = head(maps, regions(torch.tensor([17])))
    torch.testing.assert_close(together[17:18], alone)


def test_no_pixels_give_no_vectors_that_still_know_the_parameters() -> None:
    head, maps = made_head(), features().requires_grad_()
    vectors = head(maps, regions(torch.empty(0, dtype=torch.int64)))
    assert vectors.shape == (0, 4)
    vectors.sum().backward()
    assert not any(p.grad.any() for p in (maps, *head.parameters()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_head_keeps_its_own_precision(dtype: torch.dtype) -> None:
    vectors = made_head().float()(features().to(dtype), regions(torch.arange(5)))
    assert vectors.dtype == torch.float32


def labels(spatial: tuple[int, ...]) -> Tensor:
    """(2, 1, N) of three classes; class 2 is absent from the second image, -1 is ignored."""
    found = torch.randint(-1, 3, (2, *spatial), generator=seeded(3)).flatten(1)
    found[1][found[1] == 2] = -1
    return found[:, None]


def members_of(spatial: tuple[int, ...]) -> Tensor:
    return labels(spatial) == torch.arange(3)[:, None]


def means_of(head: ProjectionHead, maps: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """(2, 3, d) means of the classes of each image, over all their pixels."""
    flat = labels(spatial).flatten()
    pixels = (flat >= 0).nonzero()[:, 0].flip(0)
    groups = pixels // (len(flat) // 2) * 3 + flat[pixels]
    return head.group_means(maps, pixels, groups, 6).view(2, 3, -1)


def every_pixel(head: ProjectionHead, maps: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """The means over a map that is projected whole; for an absent class the bias."""
    z = head.output(torch.relu(head.hidden(maps.flatten(2).transpose(1, 2))))
    found = [
        z[image][own].mean(0) if own.any() else head.output.bias
        for image, of_image in enumerate(members_of(spatial))
        for own in of_image
    ]
    return torch.stack(found).view(2, 3, -1)


@pytest.mark.parametrize("spatial", [(4, 5), (2, 3, 4)])
def test_group_means_are_those_of_a_map_projected_whole(spatial: tuple[int, ...]) -> None:
    """And so are the gradients."""
    head = made_head()
    maps = torch.randn(2, 3, *spatial, dtype=torch.float64, generator=seeded()).requires_grad_()
    found, expected = means_of(head, maps, spatial), every_pixel(head, maps, spatial)
    torch.testing.assert_close(found, expected)
    weights, inputs = (
        torch.randn(2, 3, 4, dtype=torch.float64, generator=seeded()),
        [maps, *head.parameters()],
    )
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
    )


def test_group_means_are_those_of_single_unit_vectors_up_to_length() -> None:
    """A class of one pixel has the direction that the pixel has by itself."""
    head, maps = made_head(), features()
    means = torch.nn.functional.normalize(
        head.group_means(maps, torch.tensor([7, 23]), torch.tensor([0, 1]), 2), dim=1
    )
    torch.testing.assert_close(means, head(maps, torch.tensor([[7], [23]])))


def test_finite_differences_agree_with_group_means() -> None:
    head, maps = made_head(), features().requires_grad_()
    assert torch.autograd.gradcheck(lambda given: means_of(head, given, (4, 5)), maps)


def test_an_absent_class_has_the_bias_and_gives_the_features_no_gradient() -> None:
    head, maps = made_head(), features().requires_grad_()
    means = means_of(head, maps, (4, 5))
    torch.testing.assert_close(means[1, 2], head.output.bias)
    means[1, 2].sum().backward()
    assert not maps.grad.any()
    assert not head.hidden.weight.grad.any()


def test_ignored_pixels_do_not_enter_group_means() -> None:
    head, maps = made_head(), features()
    ignored = (labels((4, 5)) == -1).expand(2, 3, 20).unflatten(2, (4, 5))
    expected = means_of(head, maps, (4, 5))
    torch.testing.assert_close(means_of(head, maps.masked_fill(ignored, 99), (4, 5)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_group_means_keep_the_heads_precision(dtype: torch.dtype) -> None:
    head, maps = made_head().float(), features().to(dtype).requires_grad_()
    means = means_of(head, maps, (4, 5))
    assert means.dtype == torch.float32
    means.sum().backward()
    assert maps.grad.dtype == dtype


def test_vectors_have_the_direction_of_single_pixels() -> None:
    head, maps = made_head(), features()
    pixels = torch.tensor([7, 23, 7, 0])
    found = torch.nn.functional.normalize(head.vectors(maps, pixels), dim=1)
    torch.testing.assert_close(found, head(maps, pixels[:, None]))
