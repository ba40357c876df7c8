import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ccdcseg.errors import UserError
from ccdcseg.nnunet.checkpoints import FINAL, load_checkpoint
from ccdcseg.nnunet.current import check_predictions
from ccdcseg.nnunet.images import run_images
from ccdcseg.nnunet.outputs import Output
from ccdcseg.nnunet.predict import predict
from ccdcseg.nnunet.rules import write_rules
from ccdcseg.postprocessing import PieceCounts, Postprocessing


def test_what_several_networks_predict_is_kept_as_long_as_they_are_the_same(
    two_runs: list[Path], tmp_path: Path
):
    case, files = next(iter(run_images(two_runs[0], "test").items()))
    output = Output(tmp_path / "ours")
    predict(two_runs, {case: files}, output, "cpu", lambda *_: None)
    before = (tmp_path / "ours" / f"{case}.nii.gz").stat()
    predict(two_runs, {case: files}, output, "cpu", lambda *_: None)
    assert (tmp_path / "ours" / f"{case}.nii.gz").stat() == before
    with pytest.raises(UserError, match="is another model's prediction"):
        predict(two_runs[:1], {case: files}, output, "cpu", lambda *_: None)


@pytest.mark.parametrize("inside", [True, False])
def test_a_prediction_of_another_image_is_made_again(
    predictions, change_volume, tmp_path: Path, inside: bool, caplog: pytest.LogCaptureFixture
):
    place = predictions.folder / "predictions" if inside else tmp_path / "out"
    assert (predictions.go(place), predictions.go(place)) == (1, 1)
    predictions.image.touch()
    assert predictions.go(place) == 1
    before = (place / "a.nii.gz").read_bytes()
    change_volume(predictions.image, lambda array: np.roll(array, 15, axis=2))
    assert (predictions.go(place), predictions.go(place)) == (2, 2)
    assert (place / "a.nii.gz").read_bytes() != before
    assert caplog.text.count("1 predictions in the way are made again") == 1


def test_another_models_prediction_is_neither_kept_nor_lost(predictions, tmp_path: Path):
    place = tmp_path / "out"
    predictions.go(place)
    before = (place / "a.nii.gz").read_bytes()
    other = shutil.copytree(predictions.folder.parent, tmp_path / "other") / "fold_0"
    checkpoint = load_checkpoint(other / FINAL)
    torch.save(checkpoint | {"current_epoch": 99}, other / "checkpoint_final.pth")
    with pytest.raises(UserError, match=r"out/a\.nii\.gz is another model's prediction\. .*another --output"):
        predictions.go(place, other)
    assert (place / "a.nii.gz").read_bytes() == before
    assert predictions.go(other / "predictions", other) == 2  # into the run's own folder
    assert predictions.go(tmp_path / "out") == 2


def test_a_prediction_that_was_cleaned_by_other_rules(predictions, tmp_path: Path):
    place = tmp_path / "out"
    assert (predictions.go(place, RV=1.0), predictions.go(place, RV=1.0)) == (1, 1)
    with pytest.raises(UserError, match=r"out/a\.nii\.gz was cleaned by other rules"):
        predictions.go(place, RV=0.5)
    (place / "a.nii.gz").unlink()
    kept = (place / "plain" / "a.nii.gz").stat().st_mtime_ns
    assert predictions.go(place, RV=0.5) == 2
    assert (place / "plain" / "a.nii.gz").stat().st_mtime_ns == kept
    inside = predictions.folder / "predictions"
    assert (predictions.go(inside, RV=1.0), predictions.go(inside, RV=0.5)) == (3, 4)


def test_a_file_that_somebody_else_put_there_is_neither_taken_nor_lost(predictions, tmp_path: Path):
    place = tmp_path / "out"
    place.mkdir()
    (place / "a.nii.gz").write_text("mine")
    with pytest.raises(
        UserError, match=r"a\.nii\.gz is there already, and nothing says what made it\. Move it"
    ):
        predictions.go(place)
    (place / "a.nii.gz").unlink()
    predictions.go(place)
    (place / "a.nii.gz").write_text("corrected")
    with pytest.raises(
        UserError, match=r"a\.nii\.gz was changed since it was predicted\. Move it away, or give"
    ):
        predictions.go(place)
    assert (place / "a.nii.gz").read_text() == "corrected"


def test_predictions_of_an_earlier_version_are_kept_and_said_to_be(
    predictions, change_volume, caplog: pytest.LogCaptureFixture
):
    place = predictions.folder / "predictions"
    predictions.go(place)
    shutil.rmtree(place / "made_from")
    before = (place / "a.nii.gz").stat().st_mtime_ns
    for _ in range(2):
        assert predictions.go(place) == 1
    assert caplog.text.count("1 predictions of an earlier version") == 1
    assert (place / "a.nii.gz").stat().st_mtime_ns == before
    (place / "a.nii.gz").write_text("corrected")
    with pytest.raises(UserError, match="was changed since"):
        predictions.go(place)


def test_predictions_that_are_out_of_date_are_not_measured(
    predictions, change_volume, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("nnUNet_raw")
    folder, place = predictions.folder, predictions.folder / "predictions"
    record = json.loads((folder / "run.json").read_text())
    changes = {"images": str(predictions.image.parent), "postprocessing": None}
    (folder / "run.json").write_text(json.dumps(record | changes))
    (folder / "postprocessing.json").unlink()
    predictions.go(place)
    check_predictions(folder, place, ["a", "not predicted"])
    original = predictions.image.read_bytes()
    change_volume(predictions.image, lambda array: np.roll(array, 15, axis=2))
    with pytest.raises(
        UserError,
        match=r"a\.nii\.gz is out of date: its images changed since it was predicted.*ccdcseg predict \S+fold_0$",
    ):
        check_predictions(folder, place, ["a"])
    predictions.image.write_bytes(original)
    check_predictions(folder, place, ["a"])
    write_rules(Postprocessing({"RV": 1.0}, {"RV": PieceCounts(1, 1, 1.0)}, 1), {"RV": 1}, folder)
    with pytest.raises(UserError, match="its rules changed"):
        check_predictions(folder, place, ["a"])
    (folder / "postprocessing.json").unlink()
    checkpoint = folder / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes() + b"0")
    with pytest.raises(UserError, match="its model changed"):
        check_predictions(folder, place, ["a"])
    checkpoint.unlink()
    predictions.image.unlink()
    check_predictions(folder, place, ["a"])  # nothing to compare
    (place / "a.nii.gz").write_text("corrected")
    with pytest.raises(UserError, match=r"was changed since it was predicted\. Move it away"):
        check_predictions(folder, place, ["a"])
    (place / "a.nii.gz").unlink()
    check_predictions(folder, place, ["a"])  # whoever reads it says that it is missing
