import pytest
import torch
from torch import Tensor

from ccdcseg.losses import Role, Selection, selection_map
from ccdcseg.losses.parts.selection import ClassNegatives, ClassQueries


def indices(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def queries(easy: Tensor, hard: Tensor) -> ClassQueries:
    return ClassQueries(easy, hard, len(easy), len(hard), 0.25)


def negatives(*pixels: int) -> ClassNegatives:
    return ClassNegatives(indices(*pixels), torch.arange(len(pixels)), torch.zeros(len(pixels)).long())


# Pixels 0 to 3 are drawn in every role that the precedence lets meet, 4 to 7 in one role each.
SELECTION = Selection(
    shape=(1, 2, 6),
    core={0: indices(0, 1, 2, 4), 1: indices(3, 8), 2: indices(9)},
    core_available={0: 4, 1: 2, 2: 1, 3: 0},
    queries={0: queries(indices(0, 1, 5), indices(6)), 1: queries(indices(3), indices(0))},
    negatives={0: negatives(3, 8, 7), 1: negatives(0, 1, 2, 5, 6)},
)
N, C, E, H, X = Role.NONE, Role.CORE, Role.EASY, Role.HARD, Role.NEGATIVE


def test_hard_comes_before_easy_before_core_before_negative() -> None:
    expected = [H, E, C, E, C, E, H, X, C, C, N, N]
    assert selection_map(SELECTION).flatten().tolist() == expected


@pytest.mark.parametrize(
    ("query_class", "expected"),
    [
        (0, [E, E, C, X, C, E, H, X, X, N, N, N]),
        (1, [H, X, X, E, N, X, X, N, C, N, N, N]),
        (2, [N, N, N, N, N, N, N, N, N, C, N, N]),  # core, but no query
        (3, [N] * 12),
    ],
)
def test_the_map_of_one_class(query_class: int, expected: list[Role]) -> None:
    assert selection_map(SELECTION, query_class).flatten().tolist() == expected


def test_the_map_has_the_shape_of_the_batch() -> None:
    roles = selection_map(SELECTION)
    assert roles.shape == (1, 2, 6)
    assert roles.dtype == torch.uint8
    volume = Selection((2, 1, 2, 3), {}, {}, {}, {})
    assert selection_map(volume).shape == (2, 1, 2, 3)
    assert not selection_map(volume).any()
