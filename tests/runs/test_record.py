import hashlib
import json
from pathlib import Path

import pytest
from scored import STORED, record

from ccdcseg.datasets.splits import Split, split_entry
from ccdcseg.errors import UserError
from ccdcseg.runs.record import RunRecord, read_record


def written(folder: Path, **changes: object) -> Path:
    (folder / "run.json").write_text(json.dumps(record(**changes)))
    return folder


def test_a_folder_without_record_is_no_run(tmp_path: Path):
    with pytest.raises(UserError, match=r"is no run folder: it has no run\.json"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fold": -1}, "fold is -1"),
        ({"seed": "0"}, 'seed is "0"'),
        ({"seed": True}, "seed is true"),
        ({"fraction": 0}, "fraction is 0"),
        ({"split_hash": "abc"}, 'split_hash is "abc"'),
        ({"precision": "float8"}, 'precision is "float8"'),
        ({"started": "yesterday"}, "started: Invalid isoformat"),
        ({"settings": {"ccdc": {"weight": float("nan")}}}, "settings: Out of range float"),
        ({"labels": {"background": 0}}, "a class needs a value of its own"),
        ({"labels": {"RV": 1, "LV": 1}}, "a class needs a value of its own"),
        ({"labels": {"mean": 1}}, "another name than mean"),
        ({"patients": {"train": ["a"], "validation": [], "test": ["a"]}}, "the patient a is listed 2 times"),
        ({"format": "ccdcseg-run/2"}, "format is \"ccdcseg-run/2\": it should be 'ccdcseg-run/1'"),
    ],
)
def test_fields_that_no_training_writes(tmp_path: Path, changes: dict[str, object], words: str):
    with pytest.raises(UserError, match=f"run.json: .*{words}"):
        read_record(written(tmp_path, **changes))


def test_what_older_versions_did_not_record_is_absent(tmp_path: Path):
    content = record()
    del content["changes"], content["precision"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    found = read_record(tmp_path)
    assert (found.changes, found.precision) == ((), None)
    assert found.environment == found.versions | {"threads": "2"}  # as "machine" says


def test_a_published_record_names_no_folder(tmp_path: Path):
    found = read_record(STORED)
    published = found.published
    assert set(published.content) == set(found.content) - {"images", "reference"}
    with pytest.raises(UserError, match=r"run\.json names no images"):
        published.local("images", tmp_path)


def test_scans_that_moved_are_found_in_nnunets_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recorded, moved = (tmp_path / place / "Dataset901_Phantom" / "labelsTr" for place in ("old", "new"))
    found = RunRecord.model_validate(record(reference=str(recorded)))
    monkeypatch.delenv("nnUNet_raw", raising=False)
    for raw in (None, moved.parents[1]):
        if raw:
            monkeypatch.setenv("nnUNet_raw", str(raw))
        assert found.here("reference") == recorded
        with pytest.raises(UserError, match=rf"run\.json names the folder {recorded}.*Set nnUNet_raw"):
            found.local("reference", tmp_path)
    moved.mkdir(parents=True)
    assert found.here("reference") == found.local("reference", tmp_path) == moved


def test_scans_in_nnunets_folder_count_where_it_is_the_runs_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It has the run's split, and the images that the run was trained on; else it is another one of the name."""
    recorded, today = (tmp_path / place / "Dataset901_Phantom" / "labelsTr" for place in ("old", "new"))
    monkeypatch.setenv("HOME", str(tmp_path))
    ours, other = (split_entry(Split(0.4, seed, ("a",), (), ("b",)), [], {}) for seed in (0, 1))
    scans = {"imagesTr/a_0000.nii.gz": hashlib.sha256(b"scan").hexdigest(), "labelsTr/a.nii.gz": "0" * 64}
    found = RunRecord.model_validate(record(reference=str(recorded), split_hash=ours["hash"], scans=scans))
    for folder in (recorded, today, today.with_name("imagesTr")):
        folder.mkdir(parents=True)
    for entries in (None, "foreign", [other], [other, ours], [ours, other]):
        if entries:
            (today.parent / "splits_final.json").write_text(json.dumps(entries))
        for content in (b"scan", b"another"):
            (today.parent / "imagesTr" / "a_0000.nii.gz").write_bytes(content)
            counts = (entries, content) == ([ours, other], b"scan")
            for raw in (tmp_path / "new", "~/new", "$HOME/new"):
                monkeypatch.setenv("nnUNet_raw", str(raw))
                assert found.here("reference") == (today if counts else recorded)


def test_the_label_names_plans_that_are_not_the_presets(tmp_path: Path):
    usual = RunRecord.model_validate(record(preset="cpu", plans="ccdcseg_cpu", fraction=0.1, seed=2))
    assert usual.label == "ccdc 0.1, seed 2"
    assert usual.model_copy(update={"plans": "ccdcseg_x"}).label == "ccdc 0.1, seed 2, ccdcseg_x"


def test_the_command_trains_it_again():
    found = RunRecord.model_validate(record(changes=["ccdc.weight=0.1"], preset="my preset.yaml"))
    assert found.command == (
        "ccdcseg train Dataset901_Phantom --method ccdc --fraction 0.4 --seed 0 --preset 'my preset.yaml' "
        "--set ccdc.weight=0.1"
    )


def test_the_command_says_whether_scans_without_masks_were_used():
    settings = record()["settings"] | {"unlabelled": {"use": True}}
    plain, more = (RunRecord.model_validate(record(**changes)) for changes in ({}, {"settings": settings}))
    assert "--unlabelled" not in plain.command
    assert "--unlabelled" in more.command.split()
