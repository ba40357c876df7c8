import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2

from ccdcseg import files
from ccdcseg.errors import UserError
from ccdcseg.files import locked
from ccdcseg.nnunet import plans as plans_module
from ccdcseg.nnunet.allowed import check_plans
from ccdcseg.nnunet.plans import (
    base_plans,
    check_stored,
    normalisations,
    plans_hash,
    preprocess_scans,
    preset_plans,
    store_plans,
)
from ccdcseg.nnunet.preset import load_preset, preset_of_plans
from ccdcseg.provenance import PLACE, write_origin

BASE = {
    "dataset_name": "Dataset027_ACDC",
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 48,
            "patch_size": [256, 224],
            "spacing": [1.5625, 1.5625],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 6,
                    "features_per_stage": [32, 64, 128, 256, 512, 512],
                    "kernel_sizes": [[3, 3]] * 6,
                    "strides": [[1, 1]] + [[2, 2]] * 5,
                    "n_conv_per_stage": [2] * 6,
                    "n_conv_per_stage_decoder": [2] * 5,
                },
            },
        }
    },
}


def plans_of(*changes: str, preset: str = "cpu", base: dict = BASE) -> dict:
    label, resolved = load_preset(preset, changes)
    return preset_plans(base, label, resolved)


def test_cpu_preset():
    before = deepcopy(BASE)
    plans = plans_of()
    assert before == BASE
    configuration = plans["configurations"]["2d"]
    network = configuration["architecture"]["arch_kwargs"]
    assert plans["plans_name"] == "cpu"
    assert preset_of_plans(json.loads(json.dumps(plans))) == load_preset("cpu")[1]
    assert (configuration["batch_size"], configuration["patch_size"]) == (8, [128, 128])
    assert configuration["spacing"] == [1.75, 1.75]
    assert network["features_per_stage"] == [16, 32, 64, 128, 128]
    assert network["n_stages"] == 5
    assert network["strides"] == [[1, 1]] + [[2, 2]] * 4
    assert (len(network["n_conv_per_stage"]), len(network["n_conv_per_stage_decoder"])) == (5, 4)


def test_paper_preset_is_nnunets_network_for_acdc():
    configuration = plans_of(preset="paper")["configurations"]["2d"]
    assert configuration["architecture"] == BASE["configurations"]["2d"]["architecture"]
    assert (configuration["batch_size"], configuration["patch_size"]) == (56, [256, 224])
    assert configuration["spacing"] == [1.5625, 1.5625]


def test_gpu_preset_is_nnunets_plan_with_a_batch_of_its_own():
    planned, configuration = BASE["configurations"]["2d"], plans_of(preset="gpu")["configurations"]["2d"]
    assert configuration["batch_size"] == 32
    for kept in ("patch_size", "spacing", "architecture"):
        assert configuration[kept] == planned[kept]


@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_plans_of_nnunets_first_versions(preset: str):
    base = deepcopy(BASE)
    network = base["configurations"]["2d"].pop("architecture")["arch_kwargs"]
    base["configurations"]["2d"] |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 32,
        "unet_max_num_features": 512,
        "num_pool_per_axis": [5, 5],
        "pool_op_kernel_sizes": network["strides"],
        "conv_kernel_sizes": network["kernel_sizes"],
        "n_conv_per_stage_encoder": network["n_conv_per_stage"],
        "n_conv_per_stage_decoder": network["n_conv_per_stage_decoder"],
    }
    check_plans(base, Path("nnUNetPlans.json"))
    converted, today = (plans_of(preset=preset, base=plans)["configurations"]["2d"] for plans in (base, BASE))
    network, expected = (plans.pop("architecture")["arch_kwargs"] for plans in (converted, today))
    assert converted == today
    assert {key: network[key] for key in expected} == expected


def test_configurations_may_inherit_from_others():
    own = {"inherits_from": "planned", "batch_size": 12}
    base = BASE | {"configurations": {"planned": BASE["configurations"]["2d"], "2d": own}}
    inherited, plain = (
        plans_of("network.batch_size=null", base=plans)["configurations"] for plans in (base, BASE)
    )
    assert inherited == {"2d": plain["2d"] | {"batch_size": 12}}


def test_preprocessed_data_are_shared_only_by_plans_that_preprocess_alike():
    def identifier(*changes: str) -> str:
        return plans_of(*changes)["configurations"]["2d"]["data_identifier"]

    assert identifier() == identifier("ccdc.weight=0.1", "network.batch_size=2")
    assert identifier() != identifier("network.spacing_mm=[1.5,1.5]")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("network.configuration=3d_fullres", "no 3d_fullres configuration"),
        ("network.patch_size=[128,128,16]", "network.patch_size has 3 numbers, 2d needs 2"),
        ("network.spacing_mm=[1.75]", "network.spacing_mm has 1 number"),
        ("network.patch_size=[120,128]", "make 120 a multiple of 16"),
        ("network.features_per_stage=[8,8,8,8,8,8,8,8]", "8 stages"),
        ("network.features_per_stage=[8,8]", "2 stages"),
    ],
)
def test_what_does_not_fit(change: str, words: str):
    with pytest.raises(UserError) as error:
        plans_of(change)
    assert words.lower() in str(error.value).lower()


@pytest.fixture
def plan(raw_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Plan as a training does; how often nnU-Net planned so far."""
    preprocessed = raw_folder.parent / "preprocessed"
    calls = []

    def write(number: int, processes: int) -> None:
        assert not (preprocessed / "nnUNetPlans.json").exists()  # nnU-Net would keep a part of it
        calls.append(number)
        plans = {"configurations": {}, "call": len(calls)}
        plans |= {f"original_median_{what}_after_transp": [10, 8, 8] for what in ("shape", "spacing")}
        (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))

    monkeypatch.setattr(plans_module, "_plan", write)

    def go() -> int:
        base_plans(raw_folder, preprocessed)
        return len(calls)

    return go


@pytest.mark.parametrize("name", ["imagesTr/p2_ES_0000.nii.gz", "labelsTr/p1_ED.nii.gz", "dataset.json"])
def test_a_changed_scan_is_planned_anew(plan, raw_folder: Path, describe_dataset, change_volume, name: str):
    assert (plan(), plan()) == (1, 1)
    if name == "dataset.json":
        describe_dataset(raw_folder, channel_names={"0": "CT"})
    else:
        change_volume(raw_folder / name, lambda array: array[:, ::-1])
    assert (plan(), plan()) == (2, 2)
    (raw_folder / "labelsTr" / "p1_ED.nii.gz").unlink()
    assert plan() == 3


def test_plans_of_channels_in_another_order_are_made_again(
    plan, raw_folder: Path, describe_dataset, monkeypatch: pytest.MonkeyPatch
):
    """Those of an earlier version, which took "dataset.json" as it was; one of the same order is kept."""
    schemes, write = ["CTNormalization", "ZScoreNormalization"], plans_module._plan

    def write_schemes(raw: Path, processes: int) -> None:
        write(raw, processes)
        path = raw_folder.parent / "preprocessed" / "nnUNetPlans.json"
        content = json.loads(path.read_text()) | {
            "configurations": {"2d": {"normalization_schemes": schemes}}
        }
        path.write_text(json.dumps(content))

    monkeypatch.setattr(plans_module, "_plan", write_schemes)
    describe_dataset(raw_folder, channel_names={"1": "CT", "0": "MRI"})
    assert plan() == 1
    describe_dataset(raw_folder, channel_names={"0": "MRI", "1": "CT"})
    schemes.reverse()
    assert (plan(), plan()) == (2, 2)


def test_folders_among_the_scans_are_passed_over(plan, raw_folder: Path):
    """Such as those that a NAS makes."""
    (raw_folder / "imagesTr" / "@eaDir").mkdir()
    assert plan() == 1


def test_plans_of_nnunets_own_commands_are_kept(plan, raw_folder: Path, change_volume):
    path = raw_folder.parent / "preprocessed" / "nnUNetPlans.json"
    plan()
    path.write_text('{"configurations": {}, "mine": 1}')
    change_volume(raw_folder / "labelsTr/p1_ED.nii.gz", lambda array: array[:, ::-1])
    assert plan() == 1
    assert path.read_text() == '{"configurations": {}, "mine": 1}'


@pytest.mark.parametrize(
    ("planned", "today", "refused"),
    [
        (["CT"], ["CT", "MRI"], True),
        (["CT", "MRI"], ["MRI"], True),
        (["CT"], ["MRI"], True),
        (["MRI", "CT"], ["CT", "MRI"], True),
        (["T1"], ["T2"], False),
    ],
)
def test_plans_that_nnunet_made_for_other_channels(
    plan, raw_folder: Path, describe_dataset, planned: list[str], today: list[str], refused: bool
):
    """The network would get one normalised as another, or nnU-Net end in a traceback."""
    preprocessed = raw_folder.parent / "preprocessed"
    describe_dataset(raw_folder, channel_names=dict(enumerate(planned)))
    as_nnunet_plans(raw_folder, preprocessed, normalisations(planned))
    assert plan() == 0
    describe_dataset(raw_folder, channel_names=dict(enumerate(today)))
    if not refused:
        assert plan() == 0
        return
    with pytest.raises(
        UserError,
        match=r"nnUNetPlans\.json was made for other channels .*: nnUNetv2_plan_and_preprocess -d 7 ",
    ):
        plan()
    assert (preprocessed / "nnUNetPlans.json").exists()


def test_normalisations_that_somebody_chose_are_kept(plan, raw_folder: Path):
    as_nnunet_plans(raw_folder, raw_folder.parent / "preprocessed", ["NoNormalization"])
    assert plan() == 0


def as_nnunet_plans(raw: Path, preprocessed: Path, schemes: list[str]) -> None:
    """Plans as nnU-Net's command leaves them, beside the description that they were made by."""
    preprocessed.mkdir()
    plans = {
        "configurations": {"2d": {"normalization_schemes": schemes}, "small": {"inherits_from": "2d"}},
        **{f"original_median_{what}_after_transp": [10, 8, 8] for what in ("shape", "spacing")},
    }
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    shutil.copy(raw / "dataset.json", preprocessed)


def test_planning_that_was_killed_begins_anew(
    plan, raw_folder: Path, monkeypatch: pytest.MonkeyPatch, change_volume
):
    plan()
    change_volume(raw_folder / "labelsTr/p1_ED.nii.gz", lambda array: array[:, ::-1])
    with monkeypatch.context() as patch:
        patch.setattr(plans_module, "_plan", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            plan()
    assert (plan(), plan()) == (2, 2)


def test_what_makes_plans_others():
    plans = plans_of()
    informative = deepcopy(plans)
    informative["configurations"]["2d"]["median_image_size_in_voxels"] = [3, 4]
    informative["foreground_intensity_properties_per_channel"] = {"0": {"mean": 3.0}}
    assert plans_hash(informative) == plans_hash(plans)
    assert plans_hash(plans_of("training.epochs=3", "ccdc.weight=2")) == plans_hash(plans)
    assert plans_hash(plans_of("network.batch_size=2")) != plans_hash(plans)
    for ct in (plans, informative):
        ct["configurations"]["2d"]["normalization_schemes"] = ["CTNormalization"]
        ct.setdefault("foreground_intensity_properties_per_channel", {})
    assert plans_hash(informative) != plans_hash(plans)
    name = "foreground_intensity_properties_"
    informative[f"{name}by_modality"] = informative[f"{name}per_channel"]
    same = plans_hash(informative)
    del informative[f"{name}per_channel"]
    assert plans_hash(informative) == same


@pytest.fixture
def stored(raw_folder: Path) -> Path:
    """A preprocessed folder with plans and splits of ours."""
    (raw_folder / "splits_final.json").write_text("[]")
    store_plans(plans_of(), raw_folder, raw_folder.parent / "preprocessed")
    check_stored("cpu", raw_folder, raw_folder.parent / "preprocessed")
    return raw_folder.parent / "preprocessed"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cpu.json", '{"configurations": {}}', "was not made by ccdcseg"),
        ("cpu.json", '{"ccdcseg": {}}', "was changed since"),
        ("splits_final.json", '[{"train": [], "val": []}]', "was not made by ccdcseg"),
        ("splits_final.json", "[ ]", "was changed since"),
    ],
)
def test_what_somebody_else_put_there_is_not_overwritten(
    stored: Path, raw_folder: Path, name: str, content: str, words: str
):
    (stored / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name} {words}"):
        check_stored("cpu", raw_folder, stored)


def test_what_it_costs_to_move_folds_away_that_nnunet_drew(stored: Path, raw_folder: Path):
    """nnU-Net has one file of folds a data set: the lab's own trainings would follow ours."""
    (stored / "splits_final.json").write_text('[{"train": ["p1_ED"], "val": ["p2_ED"]}]')
    with pytest.raises(
        UserError,
        match=r"copy the data set under another number .* folds of nnUNetv2_train in this data set then",
    ):
        check_stored("cpu", raw_folder, stored)


def test_splits_may_be_copied_by_hand(stored: Path, raw_folder: Path):
    """As docs/nnunet.md advises for nnU-Net's own command."""
    ours = raw_folder / "splits_final.json"
    for content in ("[ ]", "[  ]"):
        ours.write_text(content)
        shutil.copy(ours, stored)
        check_stored("cpu", raw_folder, stored)
        store_plans(plans_of(), raw_folder, stored)
    ours.write_text("[]")
    check_stored("cpu", raw_folder, stored)


def test_scans_that_another_process_preprocesses_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """They need not be preprocessed again then."""
    outdated, made, waiting = {"a": {}}, [], threading.Event()
    monkeypatch.setattr(plans_module, "_outdated", lambda *_: dict(outdated))
    monkeypatch.setattr(plans_module, "pool_map", lambda _, items, *__: made.extend(items))
    monkeypatch.setattr(files, "TOLD_SECONDS", 0)
    monkeypatch.setattr(files.logger, "warning", lambda *_: waiting.set())
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / PLACE, "train"):
            job = pool.submit(preprocess_scans, {"a": ((), None)}, tmp_path, {}, {}, 1, lambda *_: None)
            assert waiting.wait(10)
            outdated.clear()
        job.result()
    assert made == []


def test_nnunet_finds_data_alone_where_scans_are_preprocessed(
    own_run, train_run, monkeypatch: pytest.MonkeyPatch
):
    """A training beside that one, or after it was killed, would end in a traceback over any other file."""
    kinds = []

    def watched(*arguments: Any, **settings: Any) -> Any:
        found = write_origin(*arguments, **settings)
        kinds.append(infer_dataset_class(str(arguments[0].parent)))
        return found

    shutil.rmtree(next(own_run.preprocessed.glob("ccdcseg_2d_*")))
    monkeypatch.setattr(plans_module, "write_origin", watched)
    train_run(own_run)
    assert len(kinds) > 1
    assert set(kinds) == {nnUNetDatasetBlosc2}
