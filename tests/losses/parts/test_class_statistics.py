import oracle
import pytest
import torch
import torch.nn.functional as F
from batches import random_batch, repeatable, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ccdcseg.losses.parts.class_statistics import class_statistics, sum_over_ranks
from ccdcseg.losses.parts.settings import StatisticsScope


def pixels(classes: int, seed: int, images: int = 2, size: int = 9) -> tuple[Tensor, Tensor]:
    """Probabilities (B, C, N) and labels (B, N), some of them -1, some classes perhaps absent."""
    generator = seeded(seed)
    probabilities = torch.randn(images, classes, size, generator=generator).mul(2).softmax(1)
    return probabilities, torch.randint(-1, classes, (images, size), generator=generator)


@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
def test_confidence_and_confusion_are_the_oracles(spatial: tuple[int, ...]) -> None:
    _, logits, target = random_batch(spatial, classes=5)
    target[target == 3] = 4  # class 3 is absent
    target.view(-1)[10:30] = -1
    got = class_statistics(logits.softmax(1).flatten(2), target.flatten(1))
    _, probabilities, labels = oracle.valid_pixels(logits.tolist(), target.tolist(), tuple(target.shape), -1)
    expected = oracle.confusion_matrix(probabilities, labels, 5)
    for c in (0, 1, 2, 4):
        assert got.matrix[c].tolist() == pytest.approx(expected[c], abs=1e-6)
    assert expected[3] is None
    assert got.matrix[3].tolist() == [0.0] * 5
    assert got.counts.tolist() == [labels.count(c) for c in range(5)]
    assert got.confidence.tolist() == [got.matrix[c, c].item() for c in range(5)]


@given(st.integers(2, 6), st.integers(0, 1000))
@repeatable
def test_rows_sum_to_one_where_a_class_is_present(classes: int, seed: int) -> None:
    statistics = class_statistics(*pixels(classes, seed))
    torch.testing.assert_close(statistics.matrix.sum(1), (statistics.counts > 0).float())


@given(st.integers(0, 1000))
@repeatable
def test_the_order_of_pixels_does_not_matter(seed: int) -> None:
    probabilities, labels = pixels(4, seed)
    order = torch.randperm(18, generator=seeded(seed))
    joined = probabilities.transpose(0, 1).flatten(1)[:, order][None]
    shuffled = class_statistics(joined, labels.flatten()[order][None])
    statistics = class_statistics(probabilities, labels)
    torch.testing.assert_close(shuffled.matrix, statistics.matrix)
    assert torch.equal(shuffled.counts, statistics.counts)


@given(st.permutations(range(4)), st.integers(0, 1000))
@repeatable
def test_relabelling_classes_permutes_rows_and_columns(order: list[int], seed: int) -> None:
    probabilities, labels = pixels(4, seed)
    new_label = torch.tensor([*(order.index(c) for c in range(4)), -1])  # the last stands for -1
    relabelled = class_statistics(probabilities[:, order], new_label[labels])
    statistics = class_statistics(probabilities, labels)
    torch.testing.assert_close(relabelled.matrix, statistics.matrix[order][:, order])
    assert torch.equal(relabelled.counts, statistics.counts[order])


def test_perfect_predictions_have_confidence_one_and_no_confusion() -> None:
    labels = torch.tensor([[0, 1, 2, 2]])
    probabilities = F.one_hot(labels, 3).transpose(1, 2).float()
    assert torch.equal(class_statistics(probabilities, labels).matrix, torch.eye(3))


def test_millions_of_pixels_are_averaged_without_drift() -> None:
    """One running sum in single precision is off by 1e-3 on a volume of 128 x 128 x 128, sums by parts by 3e-5."""
    probabilities = torch.tensor([0.9985, 0.0015])[None, :, None].repeat(1, 1, 128**3)
    statistics = class_statistics(probabilities, torch.zeros(1, 128**3, dtype=torch.int64))
    assert statistics.matrix[0].tolist() == pytest.approx([0.9985, 0.0015], rel=5e-5)


def test_one_process_needs_no_other_ranks() -> None:
    probabilities, labels = pixels(3, 0)
    alone = class_statistics(probabilities, labels, StatisticsScope.RANK)
    assert torch.equal(class_statistics(probabilities, labels, StatisticsScope.GLOBAL).matrix, alone.matrix)
    value = torch.tensor([3.0])
    sum_over_ranks(value)
    assert value.item() == 3.0
