from dataclasses import FrozenInstanceError, asdict
from enum import StrEnum
from typing import Any

import pytest
from batches import ENUMS
from pydantic import TypeAdapter, ValidationError

from ccdcseg.losses import CCDCSettings

MEMBERS = [(name, member) for name, enum in ENUMS.items() for member in enum]

WHOLE_FROM_ONE = [
    "queries",
    "negatives",
    "core_pixels",
    "total_iterations",
    "region_stride",
    "hidden_channels",
    "embedding_channels",
]
WHOLE_FROM_ZERO = ["start_iteration", "warmup_iterations"]
SHARES = ["core_threshold", "fixed_threshold", "fixed_hard_share"]
SWITCHES = ["core_gradient", "core_as_queries", "background_queries", "negative_gradient"]
NUMBERS = ["weight", "temperature", "statistics_momentum", *SHARES]

WRONG = [
    *((name, value) for name in ENUMS for value in ("no such choice", None, 1)),
    *((name, value) for name in WHOLE_FROM_ONE for value in (0, -1, 1.5, True, "1")),
    *((name, value) for name in WHOLE_FROM_ZERO for value in (-1, 1.5, True, None)),
    *((name, value) for name in SHARES for value in (-0.01, 1.01)),
    *((name, value) for name in SWITCHES for value in (1, "yes", None)),
    *((name, value) for name in NUMBERS for value in ("0.5", True, float("nan"), float("inf"))),
    ("weight", -0.1),
    ("weight", None),
    ("temperature", 0),
    ("temperature", -1.0),
    ("statistics_momentum", 1.0),
    ("statistics_momentum", -0.1),
    ("queries", None),
    *(("end_iteration", value) for value in (0, -1, 1.5, True, "1")),
]
STILL_RIGHT = [
    *((name, 1) for name in WHOLE_FROM_ONE),
    *((name, 0) for name in WHOLE_FROM_ZERO),
    *((name, value) for name in SHARES for value in (0, 0.0, 1, 1.0)),
    *((name, value) for name in SWITCHES for value in (True, False)),
    ("weight", 0),
    ("temperature", 1e-6),
    ("core_pixels", None),
    ("total_iterations", None),
    ("end_iteration", None),
    ("end_iteration", 1),
]


def made(name: str, value: Any) -> CCDCSettings:
    needed = {"total_iterations": 10} if value == "easy_to_hard" else {}
    return CCDCSettings(**{name: value}, **needed)


def test_the_defaults_are_the_specification() -> None:
    assert asdict(CCDCSettings()) == {
        "weight": 1.0,
        "start_iteration": 0,
        "warmup_iterations": 0,
        "end_iteration": None,
        "temperature": 0.5,
        "queries": 256,
        "negatives": 256,
        "core_threshold": 0.97,
        "core_pixels": 2048,
        "core_gradient": False,
        "core_as_queries": True,
        "background_queries": True,
        "threshold": "adaptive",
        "fixed_threshold": 0.5,
        "query_strategy": "dynamic",
        "fixed_hard_share": 0.5,
        "total_iterations": None,
        "shortage": "fill",
        "negative_strategy": "dynamic",
        "negative_sharing": "per_class",
        "negative_gradient": False,
        "region": "block",
        "region_stride": 1,
        "region_combination": "mean",
        "denominator": "pixel",
        "query_reduction": "mean",
        "class_average": "query_classes",
        "statistics_momentum": None,
        "statistics_scope": "rank",
        "hidden_channels": 256,
        "embedding_channels": 128,
        "head_normalisation": "none",
    }


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_and_the_message_names_the_setting(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .*, not {value!r}$"):
        CCDCSettings(**{name: value})


@pytest.mark.parametrize(("name", "value"), STILL_RIGHT)
def test_the_ends_of_a_range_are_allowed(name: str, value: Any) -> None:
    assert getattr(CCDCSettings(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "member"), MEMBERS)
def test_a_choice_may_be_given_as_text(name: str, member: StrEnum) -> None:
    settings = made(name, str(member))
    assert getattr(settings, name) is member
    assert settings == made(name, member)


@pytest.mark.parametrize("name", ENUMS)
def test_a_wrong_choice_is_answered_with_the_right_ones(name: str) -> None:
    with pytest.raises(ValueError, match=", ".join(ENUMS[name])):
        CCDCSettings(**{name: "no such choice"})


def test_the_end_is_after_the_start() -> None:
    assert CCDCSettings(start_iteration=5, end_iteration=6).end_iteration == 6
    with pytest.raises(ValueError, match=r"^end_iteration must be above start_iteration, 5, not 5$"):
        CCDCSettings(start_iteration=5, end_iteration=5)


def test_easy_to_hard_needs_the_length_of_the_training() -> None:
    with pytest.raises(ValueError, match="total_iterations"):
        CCDCSettings(query_strategy="easy_to_hard")
    assert CCDCSettings(query_strategy="easy_to_hard", total_iterations=5).total_iterations == 5


def test_a_moving_average_needs_statistics_that_all_ranks_share() -> None:
    with pytest.raises(ValueError, match=r"statistics_momentum needs statistics_scope"):
        CCDCSettings(statistics_momentum=0.9)
    assert CCDCSettings(statistics_momentum=0.9, statistics_scope="global").statistics_momentum == 0.9


def test_settings_are_frozen_and_compare_by_value() -> None:
    settings = CCDCSettings(queries=8)
    with pytest.raises(FrozenInstanceError):
        settings.queries = 9  # type: ignore[misc]
    assert settings == CCDCSettings(queries=8)
    assert settings != CCDCSettings(queries=9)
    assert hash(settings) == hash(CCDCSettings(queries=8))


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="querries"):
        CCDCSettings(querries=8)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="querries"):
        TypeAdapter(CCDCSettings).validate_python({"querries": 8})


def test_settings_read_from_a_file_keep_the_same_rules() -> None:
    read = TypeAdapter(CCDCSettings).validate_python
    assert read({"region": "pair", "queries": 8}) == CCDCSettings(region="pair", queries=8)
    with pytest.raises(ValidationError, match="queries must be at least 1"):
        read({"queries": 0})
