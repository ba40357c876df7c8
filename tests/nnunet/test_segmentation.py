from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK
from predicted import change_plans

from ccdcseg.errors import UserError
from ccdcseg.nnunet import segmentation
from ccdcseg.nnunet.images import run_images
from ccdcseg.nnunet.models import build_predictor
from ccdcseg.nnunet.outputs import Output
from ccdcseg.nnunet.predict import predict
from ccdcseg.nnunet.runs import Run
from ccdcseg.nnunet.segmentation import Segmentation, scan_probabilities, segment


def test_probabilities_lie_on_the_voxels_of_the_scan(finished_run: Run, tmp_path: Path):
    """The borders of the image hold zeros, so that nnU-Net crops it."""
    (source,) = next(iter(run_images(finished_run.folder, "test").values()))
    image = SimpleITK.ReadImage(str(source))
    array = SimpleITK.GetArrayFromImage(image)
    array[:, :5] = array[:, :, -7:] = 0
    cropped = SimpleITK.GetImageFromArray(array)
    cropped.CopyInformation(image)
    file = tmp_path / "images" / "scan_0000.nii.gz"
    file.parent.mkdir()
    SimpleITK.WriteImage(cropped, str(file))
    predict([finished_run.folder], {"scan": [file]}, Output(tmp_path / "out"), "cpu", lambda *_: None)
    predicted = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "out" / "scan.nii.gz")))
    found = scan_probabilities([build_predictor(finished_run.folder, "cpu")], [file])
    assert found.shape == (4, *array.shape)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-3)
    np.testing.assert_array_equal(found.argmax(0), predicted)
    assert (found[0, :, :5] == 1).all()


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_a_strangers_model_that_turns_scans_predicts_on_the_voxels_of_their_files(
    two_runs: list[Path], tmp_path: Path, reader: str
):
    """As a network of ours does of the scan that somebody turned before."""
    (source,) = next(iter(run_images(two_runs[0], "test").values()))
    turned = tmp_path / "turned_0000.nii.gz"
    nibabel.save(nibabel.as_closest_canonical(nibabel.load(source)), turned)
    output = Output(tmp_path / "out")
    predict(two_runs[1:], {"turned": [turned]}, output, "cpu", lambda *_: None)
    change_plans(two_runs[1], image_reader_writer=reader)
    predict(two_runs[1:], {"scan": [source]}, Output(tmp_path / "theirs"), "cpu", lambda *_: None)
    expected = nibabel.load(output.folder / "turned.nii.gz")
    found = nibabel.load(tmp_path / "theirs" / "scan.nii.gz")
    np.testing.assert_allclose(found.affine, nibabel.load(source).affine, atol=1e-4)
    assert (np.asarray(found.dataobj) != np.asarray(expected.dataobj)).any()
    np.testing.assert_array_equal(
        np.asarray(nibabel.as_closest_canonical(found).dataobj), np.asarray(expected.dataobj)
    )


@pytest.mark.parametrize("reader", ["NibabelIO", "NibabelIOWithReorient", "Tiff3DIO"])
def test_a_scan_that_the_reader_of_a_strangers_model_does_not_take(
    two_runs: list[Path], tmp_path: Path, reader: str
):
    """SimpleITKIO, that of our own, takes a fourth axis of one element. All other scans are predicted."""
    folder, output = two_runs[1], tmp_path / "out"
    (good,) = next(iter(run_images(two_runs[0], "test").values()))
    odd = tmp_path / "odd_0000.nii.gz"
    image = nibabel.load(good)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine), odd)
    predict([folder], {"odd": [odd]}, Output(tmp_path / "ours"), "cpu", lambda *_: None)
    change_plans(folder, image_reader_writer=reader)
    with pytest.raises(UserError, match=rf"odd_0000\.nii\.gz cannot be read by {reader}, .* 3-D NIfTI\.$"):
        predict([folder], {"odd": [odd], "good": [good]}, Output(output), "cpu", lambda *_: None)
    assert (output / "good.nii.gz").exists() == (reader != "Tiff3DIO")


@pytest.mark.parametrize("orders", [([0, 1, 2], [1, 2, 0]), ([2, 0, 1], [1, 2, 0]), ([1, 0, 2], [1, 0, 2])])
def test_networks_whose_plans_order_the_axes_otherwise_are_averaged_voxel_by_voxel(
    orders: tuple[list[int], list[int]], monkeypatch: pytest.MonkeyPatch
):
    """Of a cubic scan no shape would tell."""
    scans = np.random.default_rng(0).random((2, 3, 4, 4, 4), np.float32)

    def in_order(array: np.ndarray, forward: list[int]) -> np.ndarray:
        return array.transpose(0, *(axis + 1 for axis in forward))

    def network(number: int, forward: list[int]) -> SimpleNamespace:
        manager = SimpleNamespace(convert_probabilities_to_segmentation=lambda mean: mean.argmax(0))
        plans = SimpleNamespace(
            transpose_forward=forward,
            transpose_backward=[forward.index(axis) for axis in range(3)],
            get_label_manager=lambda _: manager,
        )
        found = Segmentation(np.empty(0), in_order(scans[number], forward), {})
        return SimpleNamespace(plans_manager=plans, dataset_json={}, found=found)

    monkeypatch.setattr(segmentation, "_segment", lambda one, _, **options: one.found)
    networks = [network(number, forward) for number, forward in enumerate(orders)]
    probabilities = segment(networks, [], probabilities=True).probabilities
    np.testing.assert_allclose(probabilities, in_order(scans.mean(0), orders[0]), rtol=1e-6)
