"""What was published is read by the code of today, and comes out of the tables as it went in."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored import STORED, epoch, record

import published
import results
from ccdcseg.errors import UserError
from ccdcseg.runs.history import read_history
from ccdcseg.runs.record import read_record

DATA = Path(__file__).parents[2] / "study" / "data"
FOLDERS = sorted(path.parent for path in DATA.glob(f"*/{published.RECORDS}"))
ROW = dict.fromkeys(published.COLUMNS, "1") | {"case": "a_1", "patient": "a", "status": "ok"}


def run(name: str = "literal_seed0", **changes: object) -> published.Published:
    return published.Published(
        name, record(), [epoch(**changes)], [ROW, {**ROW, "dice": "0.25", "case": "b_1"}]
    )


def test_there_are_as_many_runs_as_were_made():
    """Of the 60 trainings of the ablation two were repetitions, and are not listed again; `next` is not done."""
    there = {folder.name: len(published.runs_in(folder)) for folder in FOLDERS if folder.name != "next"}
    others = {"acdc": 5, "chaos": 10, "chaos_t2": 2, "methods": 8, "methods_short": 6, "paper": 4, "test": 6}
    assert there == {
        "ablation": 58,
        "ceiling": 1,
        "five": 2,
        "hearts": 5,
        "printed": 8,
        "recipes": sum(place.startswith("recipes/") for place in results.RECIPES.values()),
        "sides": 10,
        "ten": 1,
        "turned": 3,
        "two": 15,
        **others,
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_published_run_is_read(folder: Path):
    for found in published.runs_in(folder):
        assert found.record.iterations == found.history[-1].iteration
        measured = {*found.record.patients.validation, *found.record.patients.test}
        assert {row["patient"] for row in found.rows} <= measured
        assert {row.class_name for row in found.scores} == set(found.record.classes)


def test_files_of_a_run_are_read_as_those_of_a_training(tmp_path: Path):
    published.unpack(DATA / "chaos_t2", tmp_path)
    for name, found in published.read_runs(DATA / "chaos_t2").items():
        assert read_record(tmp_path / name) == found.record
        assert read_history(tmp_path / name) == found.history
        again = published.Published(name, found.content, found.epochs, found.rows)
        published.write_runs(tmp_path / "again", [again])
        assert published.runs_in(tmp_path / "again") == [found]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_digits_of_single_precision_are_enough(value: float):
    short = published._shortened(value)
    assert published._restored(short) == value
    assert len(repr(short)) <= len(repr(value))


def test_tables_are_the_same_bytes_and_give_what_was_written(tmp_path: Path):
    loss = float(np.float32(0.1))
    runs = [run(train_loss=loss, seconds=0.1), run("half_time_0.3_seed1"), run("half_time_0.3_seed0")]
    published.write_runs(tmp_path / "one", runs)
    published.write_runs(tmp_path / "other", runs[:1])
    published.add_runs(
        tmp_path / "other", [run("half_time_0.3_seed0"), run("half_time_0.3_seed1", train_loss=0.5)]
    )
    published.add_runs(tmp_path / "other", [run("half_time_0.3_seed1")])
    for name in (published.RECORDS, published.HISTORIES, published.SCORES):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert published.runs_in(tmp_path / "one") == runs[2:0:-1] + runs[:1]


def test_what_labels_were_like_keeps_its_digits(tmp_path: Path):
    labels = {"confident": {"RV": 0.1}}
    published.write_runs(tmp_path, [run(labels_written=labels)])
    assert published.runs_in(tmp_path)[0].epochs[0]["labels_written"] == labels


def test_a_number_with_more_digits_is_not_cut(tmp_path: Path):
    with pytest.raises(ValueError, match=r"0\.1"):
        published.write_runs(tmp_path, [run(train_loss=0.1)])
    assert not list(tmp_path.iterdir())


def test_a_place_is_a_folder_a_run_or_the_seeds_of_a_setting(tmp_path: Path):
    names = ["half_time_0.3_seed0", "half_time_0.3_seed1", "half_time_seed0"]
    published.write_runs(tmp_path, map(run, names))
    assert list(published.read_runs(tmp_path)) == names
    assert list(published.read_runs(tmp_path / "half_time_0.3")) == names[:2]
    assert list(published.read_runs(tmp_path / "half_time_0.3_seed1")) == names[1:2]
    for wrong in (tmp_path / "half", tmp_path / "half_time_seed1", tmp_path / "none" / "half_time"):
        with pytest.raises(UserError, match=wrong.name):
            published.read_runs(wrong)


def test_a_run_is_published_without_paths_and_with_four_decimals(tmp_path: Path):
    shutil.copytree(STORED, tmp_path / "run")
    found = published.from_folder(tmp_path / "run", "test")
    stored = json.loads((STORED / "run.json").read_text())
    assert found.name == f"{stored['method']}_{stored['plans'].removeprefix('ccdcseg_')}_seed{stored['seed']}"
    assert found.content == {
        key: value for key, value in stored.items() if key not in ("images", "reference")
    }
    assert max(len(row["dice"].partition(".")[2]) for row in found.rows) == 4
    assert len(found.scores) == len((STORED / "evaluation.csv").read_text().splitlines()) - 1
