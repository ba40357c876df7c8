import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.ensembling.ensemble import merge_files
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.model_sharing import model_export
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN
from nnunetv2.utilities import file_path_utilities
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from alive import Alive
from ccdcseg import workflow
from ccdcseg.errors import UserError
from ccdcseg.files import read_json
from ccdcseg.nnunet import masks, segmentation
from ccdcseg.nnunet import predict as module
from ccdcseg.nnunet.checkpoints import FINAL, load_checkpoint
from ccdcseg.nnunet.current import check_predictions
from ccdcseg.nnunet.images import folder_images, run_images, warn_of_axes
from ccdcseg.nnunet.models import build_predictor, check_alike, check_model
from ccdcseg.nnunet.outputs import Output, input_output
from ccdcseg.nnunet.predict import predict
from ccdcseg.nnunet.rules import write_rules
from ccdcseg.nnunet.runs import Run
from ccdcseg.nnunet.segmentation import Segmentation, scan_probabilities, segment
from ccdcseg.postprocessing import PieceCounts, Postprocessing
from ccdcseg.runs.record import read_record

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


def test_stock_nnunet_exports_a_run(finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As docs/nnunet.md has it."""
    results = finished_run.model.parents[1]
    for place in (model_export, file_path_utilities):
        monkeypatch.setattr(place, "nnUNet_results", str(results))
    (finished_run.folder / "progress.png").touch()  # no test draws it
    (finished_run.folder / "validation").mkdir()
    model_export.export_pretrained_model(
        finished_run.raw.name,
        str(tmp_path / "model.zip"),
        ("2d",),
        "nnUNetTrainerPreset",
        finished_run.plans_name,
        (0,),
        export_crossval_predictions=True,
    )
    with zipfile.ZipFile(tmp_path / "model.zip") as exported:
        names = set(exported.namelist())
    for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
        assert (finished_run.model / name).relative_to(results).as_posix() in names


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


@pytest.fixture
def two_runs(finished_run: Run, tmp_path: Path) -> list[Path]:
    """A run, and another of the same settings whose weights lie beside its own."""
    other = shutil.copytree(finished_run.model, tmp_path / "other") / finished_run.folder.name
    checkpoint = load_checkpoint(other / FINAL)
    generator = torch.Generator().manual_seed(0)
    for weights in checkpoint["network_weights"].values():
        weights.mul_(1 + 0.2 * torch.randn(weights.shape, generator=generator))
    torch.save(checkpoint, other / FINAL)
    return [finished_run.folder, other]


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


def read_voxels(file: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


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


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        ("dataset.json", {"labels": {"background": 0, "heart": 1}}, "their classes differ"),
        ("dataset.json", {"channel_names": {"0": "CT"}}, "their channels differ"),
        ("dataset.json", {"file_ending": ".nrrd"}, "their file endings differ"),
        (
            "plans.json",
            {"image_reader_writer": "NibabelIOWithReorient"},
            "their readers that turn scans differ",
        ),
        (
            "plans.json",
            {"image_reader_writer": "SimpleITKIOWithReorient"},
            "their readers that turn scans differ",
        ),
    ],
)
def test_runs_that_do_not_fit_together(
    two_runs: list[Path], file: str, change: dict[str, object], problem: str
):
    check_alike(two_runs)
    path = two_runs[1].parent / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=problem):
        check_alike(two_runs)
    with pytest.raises(UserError, match="given twice"):
        check_alike([two_runs[0], two_runs[0]])


def test_runs_whose_readers_take_the_same_axes(two_runs: list[Path]):
    """Not every other one turns scans, and those of all folds of a model are the same."""
    change_plans(two_runs[1], image_reader_writer="NibabelIO")
    check_alike(two_runs)
    other = shutil.copytree(two_runs[0].parent, two_runs[1].parents[1] / "third") / two_runs[0].name
    for folder in (two_runs[1], other):
        change_plans(folder, image_reader_writer="NibabelIOWithReorient")
    check_alike([two_runs[1], other])


def change_plans(folder: Path, **entries: object) -> None:
    path = folder.parent / "plans.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


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


def change_checkpoint(folder: Path, **entries: object) -> None:
    torch.save(load_checkpoint(folder / FINAL) | entries, folder / FINAL)


def test_the_network_of_a_labs_own_trainer_is_not_known(two_runs: list[Path], workspace, tmp_path: Path):
    change_checkpoint(two_runs[1], trainer_name="nnUNetTrainerELU")
    with pytest.raises(
        UserError,
        match=r"was written by nnUNetTrainerELU, .* nnUNetv2_predict_from_modelfolder -m \S+ -f 0 -i IMAGES",
    ):
        workflow.predict(two_runs[1], workspace.raw / "imagesTr", tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


def test_a_stock_trainer_with_a_network_of_its_own(finished_run: Run, tmp_path: Path):
    """It is built as ``nnUNetv2_predict`` builds it, and nnU-Net's plain one does not take its weights."""
    (finished_run.folder / "run.json").unlink()
    plans = PlansManager(read_json(finished_run.model / "plans.json"))
    network = nnUNetTrainerBN.build_network_architecture(plans, plans.get_configuration("2d"), 1, 4)
    change_checkpoint(finished_run.folder, network_weights=network.state_dict())
    with pytest.raises(
        UserError, match=r"checkpoint_final\.pth holds the weights of another network than .*plans"
    ):
        build_predictor(finished_run.folder, "cpu")
    change_checkpoint(finished_run.folder, trainer_name="nnUNetTrainerBN")
    found = build_predictor(finished_run.folder, "cpu").network
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in found.modules())


def test_the_second_network_of_a_cascade(finished_run: Run, workspace, tmp_path: Path):
    (finished_run.folder / "run.json").unlink()
    plans = read_json(finished_run.model / "plans.json")
    plans["configurations"]["first"] = plans["configurations"]["2d"]
    plans["configurations"]["2d"] = {"inherits_from": "first", "previous_stage": "first"}
    (finished_run.model / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(
        UserError, match=r"is the second network of a cascade.* -prev_stage_predictions FOLDER"
    ):
        workflow.predict(finished_run.folder, workspace.raw / "imagesTr", tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


def test_regions_are_predicted(finished_run: Run, predictions, tmp_path: Path):
    path = finished_run.model / "dataset.json"
    labels = {"background": 0, "heart": [1, 2, 3], "left": [2, 3], "cavity": [3]}
    (finished_run.folder / "run.json").unlink()
    (finished_run.folder / "postprocessing.json").unlink()
    weights = load_checkpoint(finished_run.folder / FINAL)["network_weights"]
    heads = {name: value[:3] for name, value in weights.items() if ".seg_layers." in name}
    change_checkpoint(finished_run.folder, network_weights=weights | heads)
    path.write_text(json.dumps(read_json(path) | {"labels": labels, "regions_class_order": [1, 2, 3]}))
    assert predictions.go(tmp_path / "masks") == 1
    assert set(np.unique(read_voxels(tmp_path / "masks" / "a.nii.gz"))) <= {0, 1, 2, 3}
    with pytest.raises(UserError, match=r"fold_0 predicts regions.*Leave --keep out"):
        input_output([finished_run.folder], tmp_path / "masks", True, ["foreground=1"])


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


@pytest.fixture
def predictions(finished_run: Run, workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Predict one case of a folder of images of its own; how often that was done so far."""
    folder, images = finished_run.folder, tmp_path / "images"
    images.mkdir()
    shutil.copy(next((workspace.raw / "imagesTr").glob("*.nii.gz")), images / "a_0000.nii.gz")
    done = []
    plain = module.segment

    def counted(*arguments, **options):
        done.append(arguments)
        return plain(*arguments, **options)

    monkeypatch.setattr(module, "segment", counted)

    def go(place: Path, model: Path = folder, **shares: float) -> int:
        output = Output(place, shares, place / "plain" if shares else None)
        predict([model], folder_images(images, model.parent), output, "cpu", lambda *_: None)
        return len(done)

    return SimpleNamespace(go=go, folder=folder, image=images / "a_0000.nii.gz")


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


def test_any_folder_of_images(tiny_run, train_run, workspace, tmp_path: Path):
    folder = train_run(tiny_run())
    cases = folder_images(workspace.raw / "imagesTr", folder.parent)
    assert len(cases) == 10
    with pytest.raises(UserError, match="holds no image named like CASE_0000"):
        folder_images(tmp_path, folder.parent)


def test_a_run_that_was_taken_out_of_its_model_folder(finished_run: Run, workspace, tmp_path: Path):
    alone = shutil.copytree(finished_run.folder, tmp_path / "laptop" / "mine")
    with pytest.raises(UserError, match=r"laptop has no plans\.json\. Copy the whole model folder"):
        workflow.predict(alone, workspace.raw / "imagesTr", tmp_path / "masks")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("plans.json", lambda plans: plans["configurations"]["2d"].update(spacing=[1.5, 1.5])),
        ("plans.json", lambda plans: plans.update(plans_name="ccdcseg_other")),
        ("dataset.json", lambda dataset: dataset["labels"].update(RV=3, LV=1)),
    ],
)
def test_a_run_beside_the_plans_or_labels_of_another_model_predicts_nothing(
    finished_run: Run, workspace, tmp_path: Path, name: str, change
):
    """As where the folders of two runs were copied into one; without a record there is nothing to tell it by."""
    content = json.loads((finished_run.model / name).read_text())
    change(content)
    (finished_run.model / name).write_text(json.dumps(content))
    for ask in (
        lambda: workflow.predict(finished_run.folder),
        lambda: workflow.predict(finished_run.folder, workspace.raw / "imagesTr", tmp_path / "masks"),
    ):
        with pytest.raises(
            UserError, match=rf"/{name} is another model's than .*fold_0 was trained with\. Copy the"
        ):
            ask()
    assert not (tmp_path / "masks").exists()
    (finished_run.folder / "run.json").unlink()
    check_model(finished_run.folder)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("dataset.json", {"modality": {"0": "MRI"}, "labels": {}}, r"json has no .channel_names."),
        ("dataset.json", [], r'json has no "channel_names"'),
        ("plans.json", {}, r"json is no file of plans"),
    ],
)
def test_a_strangers_model_whose_description_is_of_another_time(
    finished_run: Run, workspace, tmp_path: Path, name: str, content: object, problem: str
):
    (finished_run.folder / "run.json").unlink()
    (finished_run.model / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=problem):
        workflow.predict(finished_run.folder, workspace.raw / "imagesTr", tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("ending", [".nrrd", ".png"])
def test_a_strangers_model_of_other_files_than_nifti(
    finished_run: Run, workspace, tmp_path: Path, ending: str
):
    """nnU-Net reads them; converted, scans would be asked for under the old ending."""
    (finished_run.folder / "run.json").unlink()
    file = finished_run.model / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "file_ending": ending}))
    with pytest.raises(UserError, match=rf"\{ending} files, .*nnUNetv2_predict_from_modelfolder -m .* -f 0"):
        workflow.predict(finished_run.folder, workspace.raw / "imagesTr", tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (
            {"channel_names": {"0": "T1"}},
            r"was trained on the channels MRI, not on T1\. .* put back what was changed",
        ),
        ({"channel_names": {"0": "MRI", "1": "T1"}}, r"was trained on the channels MRI, not on MRI, T1"),
        ({"channel_names": {}}, r'has the "channel_names" {}'),
    ],
)
def test_channels_that_were_changed_since_the_training(
    own_run: Run, trained: Path, describe_dataset, entries: dict[str, object], problem: str
):
    """The network would get one for another."""
    shutil.copytree(trained, own_run.model)
    describe_dataset(own_run.raw, **entries)
    with pytest.raises(UserError, match=problem):
        workflow.predict(own_run.folder)


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
