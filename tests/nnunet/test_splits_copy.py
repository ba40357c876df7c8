import json
import logging
import shutil
from pathlib import Path

import pytest
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    _maybe_copy_splits_file as compare_splits,
)

from ccdcseg.files import read_json
from ccdcseg.nnunet.splits_copy import renew_copy
from ccdcseg.provenance import put_json, read_origin
from ccdcseg.workflow import split


@pytest.fixture
def copy(raw_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nnU-Net looks for the splits of ``raw_folder``; nothing is there."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(name, str(raw_folder.parent.parent / name))
    place = raw_folder.parent.parent / "nnUNet_preprocessed" / raw_folder.name
    place.mkdir(parents=True)
    return place / "splits_final.json"


def draw(seed: int) -> None:
    split(7, [0.4], [seed])


@pytest.mark.parametrize("by_hand", [False, True])
def test_nnunet_plans_on_after_further_splits(
    raw_folder: Path, copy: Path, caplog: pytest.LogCaptureFixture, by_hand: bool
):
    ours = raw_folder / copy.name
    draw(0)
    assert not copy.exists()
    if by_hand:
        shutil.copy(ours, copy)
    else:
        put_json(copy, read_json(ours))
    draw(1)
    compare_splits(str(ours), str(copy))
    assert len(read_json(copy)) == 2
    origin = read_origin(copy, {})
    assert origin is not None
    assert origin.intact
    assert not caplog.records


@pytest.mark.parametrize("content", [[{"train": ["p1_ED"], "val": ["p2_ED"]}], "{", None])
def test_folds_of_somebody_else_stay_and_are_named(
    raw_folder: Path, copy: Path, caplog: pytest.LogCaptureFixture, content: object
):
    draw(0)
    if content is None:  # ours, changed by hand
        put_json(copy, read_json(raw_folder / copy.name))
        content = [read_json(copy)[0] | {"train": ["p1_ED"]}]
    copy.write_text(json.dumps(content))
    before = copy.read_text()
    with caplog.at_level(logging.WARNING):
        draw(1)
    assert copy.read_text() == before
    (record,) = caplog.records
    assert f"{copy} was not made by ccdcseg" in record.getMessage()
    assert "copy the data set under another number" in record.getMessage()


def test_without_nnunets_folder_nothing_is_looked_for(
    raw_folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
):
    draw(0)
    put_json(copy, [])
    monkeypatch.delenv("nnUNet_preprocessed")
    renew_copy(raw_folder)
    assert read_json(copy) == []
