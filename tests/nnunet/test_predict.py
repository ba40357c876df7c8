import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from ccdcseg.errors import UserError
from ccdcseg.nnunet.predict import Output, folder_images, predict, run_images

pytestmark = pytest.mark.filterwarnings("default")

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
    predict(folder, cases, Output(ours), "cpu", lambda *_: None)
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
        predict(folder, cases, Output(output), "cpu", interrupt)
    (first,) = output.iterdir()
    time = first.stat().st_mtime_ns
    predict(folder, cases, Output(output), "cpu", lambda *_: None)
    assert first.stat().st_mtime_ns == time
    assert sorted(p.name for p in output.iterdir()) == sorted(f"{c}.nii.gz" for c in cases)


def test_a_prediction_cut_short_by_a_full_disk_is_refused(
    tiny_run, train_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """ITK reports success on a full disk; the file is read back."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    folder = train_run(tiny_run())
    cases = dict(list(run_images(folder, "test").items())[:1])
    write = SimpleITKIO.write_seg

    def cut(self, labels, path, properties):
        write(self, labels, path, properties)
        Path(path).write_bytes(Path(path).read_bytes()[:100])

    monkeypatch.setattr(SimpleITKIO, "write_seg", cut)
    with pytest.raises(UserError, match="could not be written whole"):
        predict(folder, cases, Output(tmp_path / "predictions"), "cpu", lambda *_: None)
    assert list((tmp_path / "predictions").iterdir()) == []


def test_any_folder_of_images(tiny_run, train_run, workspace, tmp_path: Path):
    folder = train_run(tiny_run())
    cases = folder_images(workspace.raw / "imagesTr", folder.parent)
    assert len(cases) == 10
    with pytest.raises(UserError, match="holds no image named like CASE_0000"):
        folder_images(tmp_path, folder.parent)


def test_missing_image_is_named(tiny_run, train_run):
    folder = train_run(tiny_run())
    run = json.loads((folder / "run.json").read_text())
    elsewhere = Path(run["images"]).parent.parent.parent / "moved"
    elsewhere.mkdir(exist_ok=True)
    for name in ("dataset.json", "splits_final.json"):
        shutil.copy(Path(run["images"]).parent / name, elsewhere)
    (folder / "run.json").write_text(json.dumps(run | {"images": str(elsewhere / "imagesTr")}))
    with pytest.raises(UserError, match=r"imagesTr.*_0000\.nii\.gz does not exist"):
        run_images(folder, "test")
