import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from nnunetv2.model_sharing import model_export
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN
from nnunetv2.utilities import file_path_utilities
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from predicted import change_checkpoint, change_plans

from ccdcseg import workflow
from ccdcseg.errors import UserError
from ccdcseg.files import read_json
from ccdcseg.nnunet.models import build_predictor, check_alike, check_model
from ccdcseg.nnunet.runs import Run


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
