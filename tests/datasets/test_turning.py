import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from ccdcseg.datasets.turning import fitted
from ccdcseg.datasets.volumes import Volume
from ccdcseg.errors import UserError

ORDERS = list(itertools.permutations(range(3)))
FLIPS = list(itertools.product([False, True], repeat=3))


def oblique(shape: tuple[int, int, int] = (3, 4, 5)) -> Volume:
    axes = np.linalg.qr(np.array([[0.9, 0.2, 0.1], [-0.3, 1.0, 0.2], [0.1, -0.1, 1.1]]))[0]
    array = np.random.default_rng(0).integers(0, 9, shape).astype(np.int16)
    return Volume(Path("image"), array, (6.0, 1.5, 1.25), (3.0, -4.0, 5.0), tuple(axes.ravel().tolist()))


def changed(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same voxels as ITK stores them with other axes."""
    image = SimpleITK.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(volume.direction)
    image = SimpleITK.Flip(SimpleITK.PermuteAxes(image, order), flips, flipAboutOrigin=False)
    z, y, x = image.GetSpacing()[::-1]
    array = SimpleITK.GetArrayFromImage(image)
    return Volume(Path("mask"), array, (z, y, x), image.GetOrigin(), image.GetDirection())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("flips", FLIPS)
def test_every_order_of_the_axes(order: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    image = oblique()
    found = fitted(changed(image, order, flips), image)
    np.testing.assert_array_equal(found.array, image.array)
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-6)
    assert found.spacing_mm == pytest.approx(image.spacing_mm)


def test_what_fits_is_left_alone() -> None:
    image = oblique((1, 4, 5))
    assert fitted(image, image) is image
    other_side = changed(image, (0, 1, 2), (False, False, True))
    assert fitted(other_side, image) is other_side


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(oblique(), path=Path("mask"), origin_mm=(3.0, -4.0, 6.0)), r"mask has another geometry"),
        (changed(oblique((3, 4, 6)), (1, 0, 2), (True, False, False)), r"mask has another shape"),
        (replace(oblique(), path=Path("mask"), direction=tuple(np.eye(3).ravel())), r"mask has another geom"),
        (replace(oblique(), path=Path("mask"), direction=(1, 1, 0, 0, 0, 1, 0, 0, 0)), r"another geometry"),
    ],
)
def test_other_voxels_stay_refused(other: Volume, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fitted(other, oblique())
