import pytest
import torch
from batches import Batch, seeded
from rivals import IGNORED, centres_of, double_batch, made
from torch import Tensor

from ccdcseg.losses.parts.base import PixelBatch
from ccdcseg.losses.parts.class_statistics import class_statistics
from ccdcseg.losses.parts.pixel_sets import PixelSets, of_classes
from ccdcseg.losses.parts.projection import ProjectionHead
from ccdcseg.losses.parts.regions import draw_by_image, present, region_centres
from ccdcseg.losses.parts.settings import StatisticsScope


@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
def test_centres_are_those_of_the_oracle(spatial: tuple[int, ...]) -> None:
    criterion, batch = made("region"), double_batch(spatial)
    batch.target[0][batch.target[0] == 1] = 3
    centres, classes = centres_by(criterion.head, batch, None, None)
    expected = centres_of(criterion.head, batch, 4)
    assert classes.tolist() == [c for c, _ in expected] == [0, 2, 3, 0, 1, 2, 3]
    torch.testing.assert_close(centres, torch.stack([torch.from_numpy(r) for _, r in expected]))


def centres_by(
    head: ProjectionHead, batch: Batch, limit: int | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Centres over at most so many pixels of each region, and their classes."""
    probabilities, labels = batch.logits.softmax(1).flatten(2), batch.target.flatten(1)
    statistics = class_statistics(probabilities, labels, StatisticsScope.RANK)
    given = PixelBatch(batch.features, probabilities, labels, statistics, 0.0, generator)
    sets, regions = regions_of(labels, probabilities.shape[1])
    (pixels,), (there,) = sets.find([draw_by_image(regions, limit, generator)], [present(regions)])
    return region_centres(head, given, pixels, there)


def regions_of(labels: Tensor, classes: int) -> tuple[PixelSets, list[range]]:
    """The pixels of each class of each image, and their numbers."""
    sets = PixelSets({"class": of_classes(labels, classes)})
    return sets, sets.numbers(list(sets.sizes.values()))["class"]


def test_few_pixels_of_a_region_estimate_its_centre() -> None:
    batch, head = double_batch((12, 13)), made("region").head
    whole, classes = centres_by(head, batch, None, None)
    some = [centres_by(head, batch, 12, seeded(seed)) for seed in range(40)]
    assert all(torch.equal(found, classes) for _, found in some)
    mean = torch.stack([centres for centres, _ in some]).mean(0)
    assert (torch.nn.functional.normalize(mean, dim=1) * whole).sum(1).min() > 0.99
    assert not torch.equal(some[0][0], some[1][0])


@pytest.mark.parametrize("limit", [1, 7, None])
def test_so_many_pixels_of_a_class_of_an_image_are_drawn(limit: int | None) -> None:
    labels = double_batch((12, 13), ignored=9).target.flatten(1).clone()
    labels[labels == IGNORED] = -1
    sets, regions = regions_of(labels, 4)
    (drawn,), _ = sets.find([draw_by_image(regions, limit, seeded())])
    assert len(drawn) == len(set(drawn.tolist()))
    for image in range(2):
        for c in range(4):
            there = int((labels[image] == c).sum())
            own = (drawn // labels.shape[1] == image) & (labels.flatten()[drawn] == c)
            assert int(own.sum()) == (there if limit is None else min(limit, there))
    assert (labels.flatten()[drawn] >= 0).all()
