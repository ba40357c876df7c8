import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.ensembling.ensemble import merge_files
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from predicted import read_voxels

from alive import Alive
from ccdcseg.errors import UserError
from ccdcseg.nnunet import predict as module
from ccdcseg.nnunet.images import folder_images, run_images, warn_of_axes
from ccdcseg.nnunet.outputs import Output
from ccdcseg.nnunet.predict import predict
from ccdcseg.nnunet.runs import Run

WITHOUT_CCDCSEG = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ccdcseg":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
for module in [m for m in sys.modules if m.split(".")[0] == "ccdcseg"]:
    del sys.modules[module]
from nnunetv2.inference.predict_from_raw_data import predict_entry_point

if __name__ == "__main__":
    predict_entry_point()
"""


def test_stock_nnunet_predicts_the_same_bit_for_bit(tiny_run, train_run, workspace, tmp_path: Path):
    """``nnUNetv2_predict`` where ccdcseg cannot be imported, against our own prediction."""
    run = tiny_run()
    folder = train_run(run)
    cases = dict(list(run_images(folder, "test").items())[:2])
    ours = tmp_path / "ours"
    predict([folder], cases, Output(ours), "cpu", lambda *_: None)
    images = tmp_path / "images"
    images.mkdir()
    for files in cases.values():
        for file in files:
            shutil.copy(file, images)
    script = tmp_path / "stock.py"
    script.write_text(WITHOUT_CCDCSEG)
    environment = {k: v for k, v in os.environ.items() if k not in ("nnUNet_extTrainer", "PYTHONPATH")}
    arguments = ["-d", "901", "-c", "2d", "-f", "0", "-tr", "nnUNetTrainerCCDC", "-p", run.plans_name]
    arguments += ["-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1"]
    subprocess.run(
        [sys.executable, str(script), "-i", str(images), "-o", str(tmp_path / "stock"), *arguments],
        env=environment,
        check=True,
        capture_output=True,
    )
    for case in cases:
        first, second = (SimpleITK.ReadImage(str(d / f"{case}.nii.gz")) for d in (ours, tmp_path / "stock"))
        assert np.array_equal(SimpleITK.GetArrayFromImage(first), SimpleITK.GetArrayFromImage(second))
        assert first.GetSpacing() == second.GetSpacing()


def test_cases_already_predicted_are_kept_and_interrupts_leave_whole_ones(
    tiny_run, train_run, tmp_path: Path
):
    folder = train_run(tiny_run())
    cases = dict(list(run_images(folder, "test").items())[:3])
    output = tmp_path / "predictions"

    def interrupt(done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict([folder], cases, Output(output), "cpu", interrupt)
    (first,) = output.glob("*.nii.gz")
    time = first.stat().st_mtime_ns
    predict([folder], cases, Output(output), "cpu", lambda *_: None)
    assert first.stat().st_mtime_ns == time
    assert sorted(p.name for p in output.iterdir()) == sorted(["made_from", *(f"{c}.nii.gz" for c in cases)])


def test_several_networks_predict_as_nnunets_ensemble_does(two_runs: list[Path], tmp_path: Path):
    """nnU-Net keeps the probabilities of each on disk, and averages those."""
    case, files = next(iter(run_images(two_runs[0], "test").items()))
    for number, folder in enumerate(two_runs):
        predictor = nnUNetPredictor(
            use_mirroring=False,
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        predictor.initialize_from_trained_model_folder(str(folder.parent), [0])
        predictor.predict_from_files_sequential(
            [[str(file) for file in files]], [str(tmp_path / str(number))], save_probabilities=True
        )
    plans = predictor.plans_manager
    merge_files(
        [str(tmp_path / "0.npz"), str(tmp_path / "1.npz")],
        str(tmp_path / "merged"),
        ".nii.gz",
        plans.image_reader_writer_class(),
        plans.get_label_manager(predictor.dataset_json),
    )
    predict(two_runs, {case: files}, Output(tmp_path / "ours"), "cpu", lambda *_: None)
    ours, merged, first = (
        read_voxels(file)
        for file in (tmp_path / "ours" / f"{case}.nii.gz", tmp_path / "merged.nii.gz", tmp_path / "0.nii.gz")
    )
    np.testing.assert_array_equal(ours, merged)
    assert (ours != first).any()


@pytest.mark.parametrize("usable", [True, False])
def test_nothing_of_a_scan_is_held_while_the_next_is_predicted(
    predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool
):
    """Neither what the network says of it, nor the voxels of one that cannot be used."""
    alive, plain = Alive(), module.segment
    for name in "bc":
        shutil.copy(predictions.image, predictions.image.with_name(f"{name}_0000.nii.gz"))

    def check(_: object) -> None:
        voxels = alive.watch(np.zeros(3))
        raise UserError(f"There are {len(voxels)} voxels.", "Mend them.")

    if usable:
        monkeypatch.setattr(module, "segment", lambda *scan, **options: alive.watch(plain(*scan, **options)))
        assert predictions.go(tmp_path / "out", foreground=1.0) == 3
    else:
        monkeypatch.setattr(module, "check_scan", check)
        with pytest.raises(UserError, match=r"There are 3 voxels\. Neither can b, c be used\. Mend them\."):
            predictions.go(tmp_path / "out")
    assert alive.most == 1


def test_scans_from_which_much_of_a_class_was_removed_are_named(
    predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def none_of_it(labels, probabilities, values, shares):
        return np.zeros_like(labels) if shares else labels.copy()

    monkeypatch.setattr(module, "keep_pieces", none_of_it)
    predictions.go(tmp_path / "out", foreground=1.0)
    assert re.search(r"a tenth or more of a class from 1 of 1 scans: a \(\w+ 100%", caplog.text)
    assert "out/plain has every piece" in caplog.text
    caplog.clear()
    predictions.go(tmp_path / "others")
    assert not caplog.messages


def test_what_another_user_left_half_written_is_in_nobodys_way(
    tmp_path: Path, close, monkeypatch: pytest.MonkeyPatch
):
    theirs, ours = (tmp_path / f".partial.{number}.partial" for number in range(2))
    for folder in (theirs, ours):
        folder.mkdir()
        (folder / "a.nii.gz").write_bytes(b"half")
    close(theirs)
    predicted: list[object] = []
    monkeypatch.setattr(module, "outdated_predictions", lambda *_: {"a": {}})
    monkeypatch.setattr(module, "_predict", lambda *_: predicted.append(_))
    predict([tmp_path / "run"], {"a": []}, Output(tmp_path), "cpu", lambda *_: None)
    assert predicted
    assert list(tmp_path.iterdir()) == [theirs]


def test_scans_that_cannot_be_used_are_named_once_the_others_are_predicted(
    tiny_run, train_run, workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = train_run(tiny_run())
    images = tmp_path / "images"
    images.mkdir()
    whole = sorted((workspace.raw / "imagesTr").iterdir())[0]
    for name in ("a", "z"):
        shutil.copy(whole, images / f"{name}_0000.nii.gz")
    (images / "b_0000.nii.gz").write_bytes(whole.read_bytes()[:-50])
    (images / "c_0000.nii.gz").write_bytes(b"")
    (images / "e_0000.nii.gz").mkdir()
    os.mkfifo(images / "f_0000.nii.gz")
    (images / "._a_0000.nii.gz").write_bytes(b"\0\5\26\7" + bytes(200))
    (images / "d_0000.NII.GZ").touch()
    cases = folder_images(images, folder.parent)
    assert list(cases) == ["a", "b", "c", "e", "f", "z"]
    assert "holds 1 files that are not named like CASE_0000.nii.gz" in caplog.text
    assert "not predicted: d_0000.NII.GZ" in caplog.text
    warn_of_axes([folder], cases)
    with pytest.raises(
        UserError, match=r"b_0000\.nii\.gz is truncated .*Neither can c, e, f be used\. All others are"
    ):
        predict([folder], cases, Output(tmp_path / "out"), "cpu", lambda *_: None)
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {"a.nii.gz", "z.nii.gz"}


def test_of_many_scans_that_cannot_be_used_some_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = {f"s{number}": [tmp_path / f"s{number}_0000.nii.gz"] for number in range(9)}
    for (image,) in images.values():
        image.touch()
    monkeypatch.setattr(module, "outdated_predictions", lambda *_: {case: {} for case in images})
    monkeypatch.setattr(module, "build_predictor", lambda *_: None)
    with pytest.raises(UserError, match=r"Neither can s1, s2, s3, s4, s5 and 3 more be used\."):
        module._predict([tmp_path], images, Output(tmp_path / "out"), "cpu", lambda *_: None)


def test_a_scan_in_another_unit_is_named_once_the_others_are_predicted(
    finished_run: Run, workspace, tmp_path: Path, change_volume
):
    """In metres: no voxel of it is left at the spacing of the network."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a", "z"):
        shutil.copy(min((workspace.raw / "imagesTr").iterdir()), images / f"{name}_0000.nii.gz")
    change_volume(images / "a_0000.nii.gz", spacing_mm=(0.01, 0.0015, 0.0015))
    with pytest.raises(
        UserError,
        match=r"a_0000\.nii\.gz has voxels of 0\.01 x 0\.0015 x 0\.0015 mm.* All others are predicted",
    ):
        predict(
            [finished_run.folder],
            folder_images(images, finished_run.model),
            Output(tmp_path / "out"),
            "cpu",
            lambda *_: None,
        )
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["z.nii.gz"]


@pytest.mark.parametrize(
    ("owner", "full", "named"),
    [
        (torch.nn.Module, "to", "fold_0"),
        (nnUNetPredictor, "predict_logits_from_preprocessed_data", r"a_0000\.nii\.gz"),
    ],
)
def test_a_device_without_enough_memory_is_named(
    predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, full: str, named: str
):
    """For the network, or for a scan."""

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(owner, full, fail)
    with pytest.raises(UserError, match=rf"{named} does not fit into the memory of cpu.*--device cpu"):
        predictions.go(tmp_path / "out")
