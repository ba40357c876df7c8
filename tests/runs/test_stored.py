"""A stored record is read as it was written, or refused in one sentence that names file and field."""

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scored import STORED

from ccdcseg.errors import UserError
from ccdcseg.runs.evaluation import read_evaluation, write_evaluation
from ccdcseg.runs.history import read_history, write_history
from ccdcseg.runs.record import read_record, write_record

READERS = {
    "run.json": read_record,
    "evaluation.json": lambda folder: read_evaluation(folder / "evaluation.json"),
    "history.jsonl": read_history,
}
WRONG = [None, [], {}, "x", "", -5, -5.0, math.nan, math.inf, True]
FREE = ("settings", "labels", "versions", "pseudo_dice", "summary")
"""Their entries have names of their own."""
TEXTS = ("format", "split_hash", "data_hash", "started", "status", "class", "classes", "case", "patient")
"""Texts that cannot be any other."""
LOSSES = ("train_loss", "segmentation_loss", "contrastive_loss", "validation_loss")
TELEMETRY = (
    "confidence", "confusion", "threshold", "core", "easy", "hard", "queries_easy", "queries_hard",
    "positive_similarity", "negative_similarity", "class_loss", "hard_share_wanted", "hard_share_drawn",
)  # fmt: skip
MAY_BE_ABSENT = ("changes", "precision", "images", "reference", *TELEMETRY)
MAY_BE_NULL = ("precision", "images", "reference", "pseudo_dice", "diagnostics", *LOSSES, *TELEMETRY)
MAY_BE_NEGATIVE = (*LOSSES, *TELEMETRY)


def content(name: str) -> Any:
    text = (STORED / name).read_text()
    return [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every field and entry, but for those of the settings."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    deeper = [found for key, item in inner for found in places(item, (*place, key))]
    return [place, *([] if place[-1:] == ("settings",) else deeper)]


PLACES = {name: [place for place in places(content(name)) if place] for name in READERS}


def read(name: str, changed: Any, folder: Path) -> Any:
    lines = changed if name.endswith("l") else [changed]
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return READERS[name](folder)


def read_or_refused(name: str, changed: Any, folder: Path) -> Any:
    try:
        return read(name, changed, folder)
    except UserError as error:
        return error


def is_harmless(place: tuple[Any, ...], before: Any, after: Any) -> bool:
    """Whether the file is still one that could have been written, though another."""
    names = [key for key in place if isinstance(key, str)]
    nearest = names[-2] if len(names) > 1 and names[-2] in FREE else names[-1] if names else ""
    if after is None:
        return nearest in MAY_BE_NULL and place[-1] != "pseudo_dice"
    if isinstance(before, str):
        return isinstance(after, str) and nearest not in TEXTS and (after != "" or nearest == "changes")
    if nearest in MAY_BE_NEGATIVE and isinstance(before, float):
        return after in (-5, -5.0) and after is not True
    emptied = before != after and type(before) is type(after) and not after
    return emptied and nearest in (
        "changes",
        "settings",
        "versions",
        "pseudo_dice",
        "train",
        "validation",
        "test",
    )


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_wrong_field_is_one_clear_error(tmp_path: Path, data):
    name = data.draw(st.sampled_from(sorted(READERS)))
    place = data.draw(st.sampled_from(PLACES[name]))
    wrong = data.draw(st.sampled_from(WRONG))
    changed = copy.deepcopy(content(name))
    *path, last = place
    parent = changed
    for key in path:
        parent = parent[key]
    before, parent[last] = parent[last], wrong
    found = read_or_refused(name, changed, tmp_path)
    if isinstance(found, UserError):
        assert name in found.problem
        assert len(str(found)) < 500
        assert found.remedy
    else:
        assert found == READERS[name](STORED) or is_harmless(place, before, wrong), place


@pytest.mark.parametrize("name", READERS)
def test_a_field_that_is_missing_is_named(tmp_path: Path, name: str):
    for place in PLACES[name]:
        *path, last = place
        if not isinstance(last, str) or (path and path[-1] in FREE):
            continue
        changed = copy.deepcopy(content(name))
        parent = changed
        for key in path:
            parent = parent[key]
        del parent[last]
        if last in MAY_BE_ABSENT:
            read(name, changed, tmp_path)
            continue
        with pytest.raises(UserError, match=rf"{name}.*{last}"):
            read(name, changed, tmp_path)


def test_a_folder_of_version_0_1_is_read_and_written_again_as_it_was(tmp_path: Path):
    write_record(tmp_path, read_record(STORED))
    write_history(tmp_path, read_history(STORED))
    write_evaluation(read_evaluation(STORED / "evaluation.json"), tmp_path)
    for path in STORED.iterdir():
        if path.name == "run.json":  # its fields are in another order now
            assert json.loads((tmp_path / path.name).read_text()) == json.loads(path.read_text())
        else:
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", READERS)
def test_a_field_of_a_later_version_is_kept_and_not_looked_at(tmp_path: Path, name: str):
    changed = content(name)
    (changed[0] if isinstance(changed, list) else changed)["new"] = {"a": [1, "b"]}
    found = read(name, changed, tmp_path)
    assert (found[0] if isinstance(found, list) else found).content["new"] == {"a": [1, "b"]}


@pytest.mark.parametrize(
    "text", ["", "[", "null", "[]", "3", '"x"', "{}", '{"format": "ccdcseg-run/2"}', "\xff"]
)
@pytest.mark.parametrize("name", ["run.json", "evaluation.json"])
def test_another_file_is_no_record(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=name):
        READERS[name](tmp_path)


def test_the_message_says_file_field_value_and_what_is_right(tmp_path: Path):
    shutil.copytree(STORED, tmp_path / "run")
    changed = content("evaluation.json")
    changed["cases"][3]["dice"] = -5
    with pytest.raises(UserError) as error:
        read("evaluation.json", changed, tmp_path / "run")
    assert str(error.value) == (
        f"{tmp_path}/run/evaluation.json: cases.3.dice is -5: it should be greater than or equal to 0. "
        f"Make it anew: ccdcseg evaluate {tmp_path}/run"
    )
