from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.proposals.slices import even_slices, unsure_slices


def test_the_middle_of_each_part() -> None:
    assert even_slices(9, 3) == (2, 5, 8)
    assert even_slices(10, 1) == (6,)
    assert even_slices(2, 3) == (1, 2)


def test_the_least_sure_slice_of_each_part() -> None:
    sure = [None, None, 0.9, 0.8, 0.9, 0.7, 0.6, 0.9, None, None]
    assert unsure_slices(sure, 2) == (4, 7)
    assert unsure_slices(sure, 1) == (7,)


def test_nothing_is_found() -> None:
    assert unsure_slices([None] * 9, 3) == even_slices(9, 3)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=20), st.integers(1, 25))
def test_slices_are_there_and_different(sure: list[float | None], count: int) -> None:
    for found in (even_slices(len(sure), count), unsure_slices(sure, count)):
        assert 1 <= len(found) <= count
        assert [*found] == sorted({*found})
        assert 1 <= found[0] <= found[-1] <= len(sure)
