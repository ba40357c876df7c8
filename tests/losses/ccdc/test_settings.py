from dataclasses import FrozenInstanceError, asdict
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
from batches import ENUMS
from pydantic import TypeAdapter, ValidationError

from ccdcseg.losses import CCDCSettings

MEMBERS = [(name, member) for name, enum in ENUMS.items() for member in enum]

WHOLE_FROM_ONE = [
    "queries",
    "negatives",
    "core_pixels",
    "region_stride",
    "hidden_channels",
    "embedding_channels",
]
SHARES = ["core_threshold", "fixed_threshold", "fixed_hard_share"]
SWITCHES = ["core_gradient", "core_as_queries", "background_queries", "negative_gradient"]
NUMBERS = ["temperature", *SHARES]

WRONG = [
    *((name, value) for name in ENUMS for value in ("no such choice", None, 1)),
    *((name, value) for name in WHOLE_FROM_ONE for value in (0, -1, 1.5, True, "1")),
    *((name, value) for name in SHARES for value in (-0.01, 1.01)),
    *((name, value) for name in SWITCHES for value in (1, "yes", None)),
    *((name, value) for name in NUMBERS for value in ("0.5", True, float("nan"), float("inf"))),
    ("temperature", 0),
    ("temperature", -1.0),
    ("queries", None),
]
STILL_RIGHT = [
    *((name, 1) for name in WHOLE_FROM_ONE),
    *((name, value) for name in SHARES for value in (0, 0.0, 1, 1.0)),
    *((name, value) for name in SWITCHES for value in (True, False)),
    ("temperature", 1e-6),
    ("core_pixels", None),
]


def test_numbers_of_numpy_become_those_of_python() -> None:
    settings = CCDCSettings(
        queries=np.int64(64), temperature=np.float32(0.25), core_threshold=np.float64(0.9)
    )
    assert repr(settings) == repr(CCDCSettings(queries=64, temperature=0.25, core_threshold=0.9))


def test_the_defaults_are_the_specification() -> None:
    assert asdict(CCDCSettings()) == {
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
        "shortage": "fill",
        "negative_strategy": "dynamic",
        "negative_gradient": False,
        "region": "block",
        "region_stride": 1,
        "region_combination": "mean",
        "denominator": "pixel",
        "query_reduction": "mean",
        "class_average": "query_classes",
        "statistics_scope": "rank",
        "hidden_channels": 256,
        "embedding_channels": 128,
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
    settings = CCDCSettings(**{name: str(member)})
    assert getattr(settings, name) is member
    assert settings == CCDCSettings(**{name: member})


@pytest.mark.parametrize("name", ENUMS)
def test_a_wrong_choice_is_answered_with_the_right_ones(name: str) -> None:
    with pytest.raises(ValueError, match=", ".join(ENUMS[name])):
        CCDCSettings(**{name: "no such choice"})


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
