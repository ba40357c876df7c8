import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from ccdcseg.errors import UserError
from ccdcseg.nnunet.images import folder_images, run_images, warn_of_axes
from ccdcseg.nnunet.runs import Run
from ccdcseg.runs.record import read_record


def test_any_folder_of_images(tiny_run, train_run, workspace, tmp_path: Path):
    folder = train_run(tiny_run())
    cases = folder_images(workspace.raw / "imagesTr", folder.parent)
    assert len(cases) == 10
    with pytest.raises(UserError, match="holds no image named like CASE_0000"):
        folder_images(tmp_path, folder.parent)


def test_an_image_of_no_case_is_not_predicted(tmp_path: Path):
    """Its prediction would be a hidden file."""
    description = {"file_ending": ".nii.gz", "channel_names": {"0": "MRI"}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "_0000.nii.gz").touch()
    with pytest.raises(UserError, match=r"holds no image named like CASE_0000\.nii\.gz, but _0000\.nii\.gz"):
        folder_images(tmp_path / "images", tmp_path)


def test_a_scan_of_ones_own_that_lacks_a_channel(tmp_path: Path):
    """Nothing was prepared that could be again."""
    description = {"file_ending": ".nii.gz", "channel_names": {"0": "T1", "1": "T2"}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bert_0000.nii.gz").touch()
    with pytest.raises(UserError, match=r"bert_0001\.nii\.gz does not exist\. Add that channel"):
        folder_images(tmp_path / "images", tmp_path)


def test_a_channel_that_the_model_does_not_take(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    description = {"file_ending": ".nii.gz", "channel_names": {"0": "T1", "1": "T2"}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a_0000", "a_0001", "a_0002", "b_0002"):
        (images / f"{name}.nii.gz").touch()
    assert list(folder_images(images, tmp_path)) == ["a"]
    assert "holds 1 files for which the model has no channel (it takes 2: T1, T2): a_0002" in caplog.text
    assert "holds 1 files that are not named like CASE_0000.nii.gz, as" in caplog.text
    assert "not predicted: b_0002" in caplog.text


def test_scans_along_other_axes_are_named(
    finished_run: Run, workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    assert read_record(finished_run.folder).axes == ("LPS",)
    images = {path.name: [path] for path in sorted((workspace.raw / "imagesTr").glob("*.nii.gz"))}
    warn_of_axes([finished_run.folder], images)
    assert not caplog.messages
    turned = tmp_path / "turned_0000.nii.gz"
    scan = nibabel.load(next(iter(images.values()))[0])
    nibabel.save(scan.as_reoriented(np.array([[1, 1], [0, 1], [2, -1]])), turned)
    warn_of_axes([finished_run.folder], images | {"turned": [turned]})
    (message,) = caplog.messages
    assert message.startswith(f"1 of {len(images) + 1} scans are stored along other axes than those that")
    assert "such as turned (PLI, not LPS), and nnU-Net does not turn scans" in message


def test_missing_image_is_named(tiny_run, train_run, monkeypatch: pytest.MonkeyPatch):
    folder = train_run(tiny_run())
    monkeypatch.delenv("nnUNet_raw")
    run = json.loads((folder / "run.json").read_text())
    elsewhere = Path(run["images"]).parent.parent.parent / "moved"
    (elsewhere / "imagesTr").mkdir(parents=True, exist_ok=True)
    for name in ("dataset.json", "splits_final.json"):
        shutil.copy(Path(run["images"]).parent / name, elsewhere)
    (folder / "run.json").write_text(json.dumps(run | {"images": str(elsewhere / "imagesTr")}))
    with pytest.raises(UserError, match=r"imagesTr.*_0000\.nii\.gz does not exist"):
        run_images(folder, "test")
