from pathlib import Path

import numpy as np
import pytest

from ccdcseg.errors import UserError
from ccdcseg.nnunet import masks
from ccdcseg.nnunet.images import run_images
from ccdcseg.nnunet.outputs import Output
from ccdcseg.nnunet.predict import predict


def test_a_prediction_is_as_open_as_the_one_whose_place_it_takes(tmp_path: Path):
    made, target = tmp_path / "made", tmp_path / "a.nii.gz"
    for path, rights in ((made, 0o600), (target, 0o664)):
        path.write_text(path.name)
        path.chmod(rights)
    masks._put(made, target, {})
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("made", 0o664)


@pytest.mark.parametrize("step", ["unlink", "write_origin", "replace"])
def test_killed_while_a_prediction_is_put_into_place(
    predictions, tmp_path: Path, change_volume, monkeypatch: pytest.MonkeyPatch, step: str
):
    """Before each step: what is there is whole, and the same command goes on."""
    place = tmp_path / "out"
    predictions.go(place)
    change_volume(predictions.image, lambda array: np.roll(array, 15, axis=2))
    with monkeypatch.context() as patch:
        target = masks if step == "write_origin" else Path
        patch.setattr(target, step, lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predictions.go(place)
    predictions.go(place)
    fresh = tmp_path / "fresh"
    predictions.go(fresh)
    assert (place / "a.nii.gz").read_bytes() == (fresh / "a.nii.gz").read_bytes()


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
        predict([folder], cases, Output(tmp_path / "predictions"), "cpu", lambda *_: None)
    assert not (tmp_path / "predictions").exists()
