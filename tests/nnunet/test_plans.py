import json
from copy import deepcopy

import pytest

from ccdcseg.errors import UserError
from ccdcseg.nnunet.plans import preset_plans
from ccdcseg.nnunet.preset import load_preset, preset_of_plans

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


def plans_of(*changes: str, preset: str = "cpu") -> dict:
    label, resolved = load_preset(preset, changes)
    return preset_plans(BASE, label, resolved)


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
