import math

import pytest
import torch
from batches import seeded

from ccdcseg.losses.parts.info_nce import info_nce


def test_it_is_the_formula() -> None:
    scores = 5 * torch.randn(4, 6, dtype=torch.float64, generator=seeded())
    for loss, (p, *rest) in zip(info_nce(scores[:, 0], scores[:, 1:]).tolist(), scores.tolist(), strict=True):
        assert loss == pytest.approx(-math.log(math.exp(p) / sum(map(math.exp, [p, *rest]))))


def test_it_is_cross_entropy() -> None:
    scores = torch.randn(4, 6, generator=seeded())
    expected = torch.nn.functional.cross_entropy(scores, torch.zeros(4, dtype=torch.int64), reduction="none")
    torch.testing.assert_close(info_nce(scores[:, 0], scores[:, 1:]), expected)


def test_without_negatives_it_is_zero() -> None:
    assert info_nce(torch.tensor([3.0, -1.0]), torch.empty(2, 0)).tolist() == [0, 0]
