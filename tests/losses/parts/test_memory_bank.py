"""The ring buffer on one process; `test_distributed` has two."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rivals import few
from torch import Tensor

from ccdcseg.losses import MemoryBank
from ccdcseg.losses.parts.memory_bank import gather_over_ranks


def known(values: list[float], c: int) -> tuple[Tensor, Tensor]:
    """Keys (value, class) that say what they are."""
    keys = torch.tensor([[value, float(c)] for value in values]).reshape(-1, 2)
    return keys, torch.full((len(values),), c)


def values(bank: MemoryBank, c: int) -> list[float]:
    """Of the keys kept of a class, all of which must be keys of the class."""
    kept = bank.of_class(c)
    assert (kept[:, 1] == c).all()
    return kept[:, 0].tolist()


def test_an_empty_bank_hands_out_nothing() -> None:
    bank = MemoryBank(3, 4, 2)
    assert [bank.of_class(c).shape for c in range(3)] == [(0, 2)] * 3


def test_only_what_was_written_is_handed_out() -> None:
    bank = MemoryBank(3, 4, 2)
    bank.push(*known([5, 6], 1))
    assert [values(bank, c) for c in range(3)] == [[], [5, 6], []]
    bank.push(*known([7], 1))
    assert values(bank, 1) == [5, 6, 7]


def test_the_pointer_moves_by_the_number_of_keys_and_wraps() -> None:
    bank = MemoryBank(2, 4, 2)
    bank.push(*known([1, 2, 3], 0))
    assert bank.written.tolist() == [3, 0]
    bank.push(*known([4, 5, 6], 0))
    assert bank.written.tolist() == [6, 0]
    assert values(bank, 0) == [5, 6, 3, 4]  # 1 and 2 gave way
    bank.push(*known([7], 0))
    assert values(bank, 0) == [5, 6, 7, 4]


@pytest.mark.parametrize("before", [0, 1, 4, 6])
def test_of_more_keys_than_fit_the_last_stay(before: int) -> None:
    bank = MemoryBank(2, 4, 2)
    bank.push(*known([float(-i) for i in range(before)], 1))
    bank.push(*known([1, 2, 3, 4, 5, 6, 7, 8, 9], 1))
    assert sorted(values(bank, 1)) == [6, 7, 8, 9]
    assert bank.written.tolist() == [0, before + 9]
    bank.push(*known([10], 1))
    assert sorted(values(bank, 1)) == [7, 8, 9, 10]


def test_keys_of_mixed_classes_go_where_they_belong() -> None:
    bank = MemoryBank(4, 3, 2)
    classes = torch.tensor([2, 0, 2, 3, 2, 2, 0])
    bank.push(torch.stack((torch.arange(7.0), classes.float()), 1), classes)
    assert sorted(values(bank, 2)) == [2, 4, 5]
    assert [values(bank, c) for c in (0, 1, 3)] == [[1, 6], [], [3]]
    assert bank.written.tolist() == [2, 0, 4, 1]


def test_no_keys_change_nothing() -> None:
    bank = MemoryBank(2, 3, 2)
    bank.push(*known([1], 1))
    bank.push(*known([], 0))
    assert bank.written.tolist() == [0, 1]
    assert values(bank, 1) == [1]


def test_keys_carry_no_graph() -> None:
    bank, keys = MemoryBank(2, 3, 2), torch.ones(2, 2, requires_grad=True)
    bank.push(2 * keys, torch.tensor([0, 1]))
    assert not bank.keys.requires_grad
    assert not bank.of_class(1).requires_grad


def test_keys_take_the_precision_of_the_bank() -> None:
    bank = MemoryBank(2, 3, 2)
    keys, classes = known([0.5], 0)
    bank.push(keys.bfloat16(), classes)
    bank.push(keys.double(), classes)
    assert bank.keys.dtype == torch.float32
    assert values(bank, 0) == [0.5, 0.5]


def test_the_state_is_saved() -> None:
    bank, other = MemoryBank(2, 3, 2), MemoryBank(2, 3, 2)
    bank.push(*known([1, 2, 3, 4], 1))
    other.load_state_dict(bank.state_dict())
    for one in (bank, other):
        one.push(*known([5], 1))
    assert values(bank, 1) == values(other, 1) == [4, 5, 3]


def test_one_process_gathers_its_own() -> None:
    keys, classes = known([1, 2], 1)
    found = gather_over_ranks(keys, classes)
    assert found[0] is keys
    assert found[1] is classes


@given(
    st.integers(1, 5),
    st.lists(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=9), max_size=9),
)
@settings(few, max_examples=40)
def test_the_bank_is_the_last_keys_of_each_class(length: int, pushes: list[list[tuple[int, bool]]]) -> None:
    """Among keys that are not finite."""
    bank, history, count = MemoryBank(3, length, 2), {c: [] for c in range(3)}, 0.0
    for keys in pushes:
        rows = []
        for c, sound in keys:
            count += 1
            rows.append([count if sound else torch.nan, float(c)])
            history[c] += [count] * sound
        bank.push(torch.tensor(rows).reshape(-1, 2), torch.tensor([c for c, _ in keys], dtype=torch.int64))
    for c, seen in history.items():
        assert sorted(values(bank, c)) == seen[-length:]
        assert bank.written[c] == len(seen)


def test_keys_that_are_not_finite_are_left_out() -> None:
    bank = MemoryBank(2, 4, 2)
    keys = torch.tensor([[1.0, 2], [torch.nan, 0], [3, torch.inf], [5, 6]])
    bank.push(keys, torch.tensor([0, 0, 1, 1]))
    assert bank.written.tolist() == [1, 1]
    assert bank.of_class(0).tolist() == [[1, 2]]
    assert bank.of_class(1).tolist() == [[5, 6]]
