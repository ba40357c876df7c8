"""Training, prediction and measurement are run as docs/python.md shows them: test_pages.py."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from ccdcseg.datasets import splits
from ccdcseg.datasets.own import Layout, OwnData, prepare_own
from ccdcseg.datasets.volumes import read_mask
from ccdcseg.errors import UserError
from ccdcseg.workflow import Prepared, choose, evaluate, predict, prepare, split

DATA = OwnData("Hearts", {"heart": 1}, ["MRI"])
FOUND = Layout(("{patient}/scan.nii.gz",), "{patient}/mask.nii.gz")


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name).mkdir()
    generator = np.random.default_rng(0)
    for patient in "abcd":
        folder = tmp_path / "SCANS" / patient
        folder.mkdir(parents=True)
        image = generator.integers(1, 200, (12, 12, 4)).astype(np.int16)
        for name, array in (("scan", image), ("mask", (image > 100).astype(np.int16))):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([2, 2, 8, 1])), folder / f"{name}.nii.gz")
    return tmp_path / "SCANS"


def test_scans_become_a_run_that_can_be_trained(scans: Path):
    stages: list[str] = []
    made = prepare(
        prepare_own, str(scans), 61, data=DATA, found_by=FOUND, workers=1,
        progress=lambda stage, *_: stages.append(stage),
    )  # fmt: skip
    assert made == Prepared(scans.parent / "nnUNet_raw" / "Dataset061_Hearts", True)
    assert set(stages) == {"convert"}
    again = prepare(prepare_own, scans, 61, data=DATA, found_by=FOUND, workers=1)
    assert again == Prepared(made.folder, False)
    data, found = replace(DATA, channels=("MRI",)), replace(FOUND, images=[*FOUND.images])
    assert prepare(prepare_own, scans, 61, data=data, found_by=found) == again

    entries = split(61, [0.5, 0.25], seeds=[0, 1])
    assert [(entry["fraction"], entry["seed"]) for entry in entries] == [
        (0.5, 0),
        (0.25, 0),
        (0.5, 1),
        (0.25, 1),
    ]
    run = choose("Dataset061_Hearts", "nnunet", fraction=0.25, seed=1, changes=["training.epochs=3"])
    assert run.split == entries[3]
    assert run.preset.training.epochs == 3
    assert not run.finished


def test_masks_are_read_once_for_all_seeds(scans: Path, monkeypatch: pytest.MonkeyPatch):
    prepare(prepare_own, scans, 61, data=DATA, found_by=FOUND, workers=1)
    read: list[str] = []
    monkeypatch.setattr(
        splits, "read_mask", lambda path, *rest: read.append(path.name) or read_mask(path, *rest)
    )
    entries = split(61, [0.25], range(4), unlabelled=1)
    assert sorted(read) == [f"{patient}.nii.gz" for patient in "abcd"]
    assert entries == [split(61, [0.25], [seed], unlabelled=1, redraw=True)[0] for seed in range(4)]


def test_a_mask_elsewhere_that_was_corrected_is_told(scans: Path):
    mask, table = scans.parent / "a.nii.gz", scans.parent / "t.csv"
    (scans / "a" / "mask.nii.gz").rename(mask)
    table.write_text("image,mask,patient\na/scan.nii.gz,../a.nii.gz,a\n")
    steps = [prepare(prepare_own, scans, 61, data=DATA, found_by=table, workers=1).is_new for _ in range(2)]
    assert steps == [True, False]
    os.utime(mask, ns=(1, 1))
    with pytest.raises(UserError, match="changed since"):
        prepare(prepare_own, scans, 61, data=DATA, found_by=table)


def test_a_table_named_by_a_string_is_the_table(scans: Path):
    mask, table = scans.parent / "a.nii.gz", scans.parent / "t.csv"
    (scans / "a" / "mask.nii.gz").rename(mask)
    table.write_text("image,mask,patient\na/scan.nii.gz,../a.nii.gz,a\n")
    for found_by, is_new in ((str(table), True), (table, False)):
        assert prepare(prepare_own, scans, 61, data=DATA, found_by=found_by, workers=1).is_new is is_new
    os.utime(mask, ns=(1, 1))
    with pytest.raises(UserError, match="changed since"):
        prepare(prepare_own, scans, 61, data=DATA, found_by=str(table))


def test_a_data_set_below_its_source_is_found(scans: Path):
    found = replace(FOUND, images=["SCANS/{patient}/scan.nii.gz"], mask="SCANS/{patient}/mask.nii.gz")
    for is_new in (True, False):
        made = prepare(prepare_own, scans.parent, 62, data=DATA, found_by=found, workers=1)
        assert made.is_new is is_new


def test_a_mistake_is_a_user_error(scans: Path):
    with pytest.raises(UserError, match="61"):
        split(61, [0.5])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"run": ["a", "b"]}, "those of one run"),
        ({"run": "a", "images": "scans"}, "needs an --output"),
        ({"run": ["a", "b"], "images": "scans"}, "needs an --output"),
        ({"run": "a", "images": "scans", "output": "out", "part": "validation"}, "exclude each other"),
        ({"run": ["a", "b"], "images": "scans", "output": "out"}, "a lies outside of the model folder"),
        ({"run": "a", "postprocessing": False}, "are for --input"),
        ({"run": "a", "output": "out", "keep": ["RV=0"]}, "are for --input"),
    ],
)
def test_what_is_predicted_where_is_said(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        predict(**given)


def test_folders_may_be_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccdcseg.nnunet.images.run_images", lambda *_: {})
    monkeypatch.setattr("ccdcseg.nnunet.predict.predict", lambda *_: None)
    run, output = tmp_path / "run", tmp_path / "out"
    assert predict(str(run), output=str(output)) == predict(run, output=output)
    with pytest.raises(UserError, match=r"has no run\.json"):
        evaluate(str(run), output=str(output))
