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


def test_classes_are_those_of_the_labels_by_value_in_whatever_order_they_were_written():
    found = RunRecord.model_validate(record(labels={"LV": 3, "background": 0, "RV": 1, "Myo": 2}))
    assert found.classes == ["RV", "Myo", "LV"]


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
        assert found.here("reference", tmp_path) == recorded
        with pytest.raises(UserError, match=rf"run\.json names the folder {recorded}.*Set nnUNet_raw"):
            found.local("reference", tmp_path)
    moved.mkdir(parents=True)
    assert found.here("reference", tmp_path) == found.local("reference", tmp_path) == moved


def data_set(raw: Path, **contents: bytes) -> Path:
    """A data set's folder with images of these patients; its masks' folder."""
    for name in ("imagesTr", "labelsTr"):
        (raw / "Dataset901_Phantom" / name).mkdir(parents=True)
    for patient, content in contents.items():
        (raw / "Dataset901_Phantom" / "imagesTr" / f"{patient}_0000.nii.gz").write_bytes(content)
    return raw / "Dataset901_Phantom" / "labelsTr"


def trained_on(reference: Path, **changes: object) -> RunRecord:
    """A run of the patient a, whose image was b"scan"."""
    scans = {"imagesTr/a_0000.nii.gz": hashlib.sha256(b"scan").hexdigest(), "labelsTr/a.nii.gz": "0" * 64}
    return RunRecord.model_validate(record(reference=str(reference), scans=scans, **changes))


@pytest.mark.parametrize("raw", ["{}/new", "~/new", "$HOME/new"])
@pytest.mark.parametrize(
    ("there", "counts"),
    [
        ({"a": b"scan", "b": b"other"}, True),
        ({"a": b"scan"}, True),  # patients who were withdrawn
        ({"b": b"tested"}, True),
        ({"a": b"changed", "b": b"tested"}, True),
        ({"a": b"changed", "b": b"other"}, False),
        ({"b": b"scan", "c": b"tested"}, False),
        ({}, False),
    ],
)
def test_scans_in_nnunets_folder_count_where_it_has_an_image_of_the_runs_data_set(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    there: dict[str, bytes],
    counts: bool,
    raw: str,
):
    """By name and content, however little else is as it was; else it is another one of the name, which is said."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("nnUNet_raw", raw.format(tmp_path))
    recorded, today = data_set(tmp_path / "old", a=b"scan", b=b"tested"), data_set(tmp_path / "new", **there)
    found = trained_on(recorded)
    for _ in range(2):
        assert found.here("reference", tmp_path) == (today if counts else recorded)
    said = f"{today.parent} has no image of the data set that was trained on: {recorded.parent} counts"
    assert [said in record.getMessage() for record in caplog.records] == ([] if counts else [True])


def test_the_record_tells_the_data_set_where_the_recorded_folder_has_another_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recorded, today = (
        data_set(tmp_path / "old", a=b"new"),
        data_set(tmp_path / "new", a=b"scan", b=b"changed"),
    )
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "new"))
    assert trained_on(recorded).here("reference", tmp_path) == today


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run among the results of a copy of its data set under a new number, whose image "b" was corrected."""
    for name in ("nnUNet_raw", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    folder = data_set(tmp_path / "nnUNet_raw", a=b"scan", b=b"corrected").parent
    folder.rename(folder.with_name("Dataset902_Copy"))
    return tmp_path / "nnUNet_results" / "Dataset902_Copy" / "model" / "fold_0"


@pytest.mark.parametrize("renumbered", [True, False])
def test_a_run_among_the_results_of_a_copy_of_its_data_set_is_the_copys(
    copied: Path, tmp_path: Path, renumbered: bool
):
    raw = tmp_path / "nnUNet_raw"
    recorded = (
        raw / "Dataset901_Phantom" / "labelsTr" if renumbered else data_set(raw, a=b"scan", b=b"tested")
    )
    found, copy = trained_on(recorded), raw / "Dataset902_Copy" / "labelsTr"
    assert found.here("reference", copied) == found.local("reference", copied) == copy
    assert found.here("reference", copied.parents[2] / "Dataset901_Phantom" / "model" / "fold_0") == recorded
    assert found.here("reference", tmp_path / "elsewhere" / "fold_0") == recorded


def test_a_run_among_the_results_of_a_data_set_without_any_of_its_images_is_refused(
    copied: Path, tmp_path: Path
):
    recorded = data_set(tmp_path / "nnUNet_raw", a=b"scan", b=b"tested")
    copy = tmp_path / "nnUNet_raw" / "Dataset902_Copy"
    (copy / "imagesTr" / "a_0000.nii.gz").write_bytes(b"other")
    with pytest.raises(
        UserError,
        match=r"lies among the results of Dataset902_Copy, which has no image of Dataset901_Phantom",
    ):
        trained_on(recorded).here("reference", copied)
    copy.rename(copy.with_name("moved"))
    assert trained_on(recorded).here("reference", copied) == recorded


def test_a_copy_of_the_data_set_with_other_splits_is_no_other_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whoever was trained on may be for testing there now, though the old folder is as it was."""
    recorded, today = (data_set(tmp_path / place, a=b"scan") for place in ("old", "new"))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "new"))
    ours, other = (split_entry(Split(0.4, seed, ("a",), (), ("b",)), [], {}) for seed in (0, 1))
    found = trained_on(recorded, split_hash=ours["hash"])
    for place in (recorded, today):
        (place.parent / "splits_final.json").write_text(json.dumps([ours, other]))
    assert found.local("reference", tmp_path) == today
    for entries in ([other, ours], []):
        (today.parent / "splits_final.json").write_text(json.dumps(entries))
        with pytest.raises(UserError, match=rf"on another split: {today.parent}.* was drawn anew since"):
            found.local("reference", tmp_path)
    (today.parent / "splits_final.json").write_text('"foreign"')
    with pytest.raises(UserError, match="was not made by ccdcseg"):
        found.local("reference", tmp_path)


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
