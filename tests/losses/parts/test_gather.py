from collections.abc import Callable

import pytest
import torch
from batches import seeded
from torch import Tensor, nn

from ccdcseg.losses.parts.gather import gather_pixels

SHAPES = [(2, 3, 5, 4), (2, 3, 3, 2, 4)]
PIXELS = torch.tensor([0, 7, 7, 19, 20, 39, 7])


def plain(features: Tensor, pixels: Tensor) -> Tensor:
    """What gathering is, left to autograd."""
    return features.movedim(1, -1).flatten(0, -2)[pixels]


def maps(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=seeded())


def weights(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return maps((len(PIXELS), shape[1]), dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_vectors_are_those_of_the_pixels(shape: tuple[int, ...]) -> None:
    torch.testing.assert_close(gather_pixels(maps(shape), PIXELS), plain(maps(shape), PIXELS))


@pytest.mark.parametrize("shape", SHAPES)
def test_maps_in_channels_last_are_not_copied(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    form = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    features = maps(shape).contiguous(memory_format=form).requires_grad_()
    reference = maps(shape).requires_grad_()
    found = gather_pixels(features, PIXELS)
    torch.testing.assert_close(found, plain(reference, PIXELS))
    (found * weights(shape)).sum().backward()
    (plain(reference, PIXELS) * weights(shape)).sum().backward()
    torch.testing.assert_close(features.grad, reference.grad)
    monkeypatch.setattr(Tensor, "reshape", None)
    gather_pixels(features, PIXELS)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_of_a_leaf_is_dense_and_right(shape: tuple[int, ...]) -> None:
    ours, reference = maps(shape).requires_grad_(), maps(shape).requires_grad_()
    (gather_pixels(ours, PIXELS) * weights(shape)).sum().backward()
    (plain(reference, PIXELS) * weights(shape)).sum().backward()
    assert ours.grad.layout == torch.strided
    torch.testing.assert_close(ours.grad, reference.grad)


@pytest.mark.parametrize("shape", SHAPES)
def test_finite_differences_agree(shape: tuple[int, ...]) -> None:
    assert torch.autograd.gradcheck(lambda f: gather_pixels(f, PIXELS), maps(shape).requires_grad_())


def network_gradients(
    gather: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype, with_segmentation: bool
) -> list[Tensor]:
    """Gradients of an image and of a network's parameters, the features being read by ``gather``."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.InstanceNorm2d(3, affine=True), nn.LeakyReLU(inplace=True)
    ).to(dtype)
    segmentation = nn.Conv2d(3, 4, 1).to(dtype)
    image = maps((2, 2, 5, 4), dtype).requires_grad_()
    features = layers(image)
    loss = (gather(features, PIXELS) * weights((2, 3), dtype)).sum()
    sources = [image, *layers.parameters()]
    if with_segmentation:
        loss = loss + segmentation(features).square().sum()
        sources += segmentation.parameters()
    return list(torch.autograd.grad(loss, sources))


@pytest.mark.parametrize("with_segmentation", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_layers_before_and_beside_get_the_sum(dtype: torch.dtype, with_segmentation: bool) -> None:
    expected = network_gradients(plain, dtype, with_segmentation)
    torch.testing.assert_close(network_gradients(gather_pixels, dtype, with_segmentation), expected)


@pytest.mark.parametrize("with_segmentation", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype, with_segmentation: bool) -> None:
    expected = network_gradients(plain, dtype, with_segmentation)
    found = network_gradients(gather_pixels, dtype, with_segmentation)
    assert all(gradient.dtype == dtype for gradient in found)
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.03)


def test_two_readings_of_one_map_add_up() -> None:
    ours, reference = maps(SHAPES[0]).requires_grad_(), maps(SHAPES[0]).requires_grad_()
    (gather_pixels(ours, PIXELS).sum() + gather_pixels(ours, PIXELS[:3]).square().sum()).backward()
    (plain(reference, PIXELS).sum() + plain(reference, PIXELS[:3]).square().sum()).backward()
    torch.testing.assert_close(ours.grad, reference.grad)


def test_channels_last_maps() -> None:
    leaf = maps(SHAPES[0]).requires_grad_()
    features = (2 * leaf).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(gather_pixels(features, PIXELS), plain(features, PIXELS))
    scores = nn.functional.conv2d(features, maps((4, 3, 1, 1)))
    loss = gather_pixels(features, PIXELS).square().sum() + scores.square().sum()
    expected = plain(features, PIXELS).square().sum() + scores.square().sum()
    gradients = torch.autograd.grad(loss, leaf, retain_graph=True), torch.autograd.grad(expected, leaf)
    torch.testing.assert_close(*gradients)


def test_no_pixels_give_a_zero_gradient() -> None:
    leaf = maps(SHAPES[0]).requires_grad_()
    vectors = gather_pixels(leaf, PIXELS[:0])
    assert vectors.shape == (0, 3)
    vectors.sum().backward()
    assert leaf.grad.shape == leaf.shape
    assert not leaf.grad.any()


def test_without_gradient_nothing_is_tracked() -> None:
    leaf = maps(SHAPES[0]).requires_grad_()
    with torch.no_grad():
        assert not gather_pixels(leaf, PIXELS).requires_grad
    assert not gather_pixels(leaf.detach(), PIXELS).requires_grad
