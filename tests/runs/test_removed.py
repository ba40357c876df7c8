"""Settings of earlier versions in what they stored."""

import json
from pathlib import Path
from typing import Any

import pytest

from ccdcseg.errors import UserError
from ccdcseg.runs.removed import refuse_removed, without_removed

STORED = json.loads((Path(__file__).with_name("stored") / "run.json").read_text())["settings"]
"""The settings of a run of version 0.1, all of them."""


def test_what_changed_nothing_is_passed_over() -> None:
    kept = without_removed(STORED)
    refuse_removed(kept, "a run")
    gone = {f"{section}.{name}" for section, held in STORED.items() if isinstance(held, dict)
            for name in held.keys() - kept[section].keys()}  # fmt: skip
    terms = ("ccdc", "reco", "contrastive_seg", "region_contrast")
    everywhere = ("warmup_iterations", "end_iteration", "head_normalisation")
    alone = ("negative_sharing", "statistics_momentum", "total_iterations")
    assert gone == {
        *(f"{term}.{name}" for term in terms for name in everywhere),
        *(f"ccdc.{n}" for n in alone),
    }
    assert {section: kept[section] for section in ("network", "training", "description")} == {
        section: STORED[section] for section in ("network", "training", "description")
    }


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("ccdc", "head_normalisation", "layer"),
        ("reco", "head_normalisation", "layer"),
        ("ccdc", "warmup_iterations", 100),
        ("contrastive_seg", "end_iteration", 9000),
        ("ccdc", "negative_sharing", "per_query"),
        ("ccdc", "statistics_momentum", 0.9),
        ("ccdc", "statistics_momentum", 0),
        ("ccdc", "region", "cube"),
        ("ccdc", "denominator", "class_max"),
        ("ccdc", "total_iterations", 7),
    ],
)
def test_what_changed_something_is_refused_with_the_version_that_has_it(
    section: str, name: str, value: Any
) -> None:
    settings = STORED | {section: STORED[section] | {name: value}}
    kept = without_removed(settings)
    assert kept[section][name] == value
    with pytest.raises(
        UserError, match=rf"^a run: {section}\.{name}={value} was taken out .*93084b9\.$"
    ) as raised:
        refuse_removed(kept, "a run")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("training", "steps"),
    [
        ({}, 250_000),
        ({"training": {"epochs": 20}}, 5000),
        ({"training": {"epochs": 4, "iterations_per_epoch": 5}}, 20),
        ({"training": {"epochs": "4"}}, None),
        ({"training": "short"}, None),
    ],
)
def test_the_length_of_the_training_need_not_be_told(training: dict[str, Any], steps: int | None) -> None:
    for told in (20, 5000, 250_000):
        kept = without_removed({**training, "ccdc": {"total_iterations": told}})
        assert (kept["ccdc"] == {}) is (told == steps)


def test_sections_that_are_none_are_left_to_others() -> None:
    odd = {"ccdc": None, "reco": 3, "description": "text"}
    assert without_removed(odd) == odd
    refuse_removed(odd, "a file")
