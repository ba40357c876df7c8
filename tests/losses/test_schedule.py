"""When a term takes part, and with which weight."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.losses import Schedule


def test_a_term_takes_part_from_the_first_step_on_by_default() -> None:
    assert [Schedule()(step) for step in (0, 1, 10**6)] == [1.0] * 3


@given(st.integers(0, 50), st.floats(0, 10, allow_subnormal=False), st.integers(0, 100))
def test_it_waits_for_its_start(start: int, weight: float, step: int) -> None:
    assert Schedule(weight=weight, start_iteration=start)(step) == (weight if step >= start else 0)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"weight": value} for value in (-0.1, None, "0.5", True, float("nan"), float("inf"))),
        *({"start_iteration": value} for value in (-1, 1.5, True, None)),
    ],
)
def test_a_wrong_value_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be "):
        Schedule(**wrong)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Schedule().weight = 2.0  # type: ignore[misc]
