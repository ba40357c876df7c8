"""Every place where a name in a file becomes an import, and that a stranger's name there is refused."""

import ast
import json
import re
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import dynamic_network_architectures
import nnunetv2
import pytest
import torch

import ccdcseg
from ccdcseg.errors import UserError
from ccdcseg.nnunet import allowed
from ccdcseg.nnunet.allowed import check_dataset, check_plans
from ccdcseg.nnunet.checkpoints import load_checkpoint
from ccdcseg.nnunet.models import build_predictor
from ccdcseg.nnunet.plans import base_plans

PLANS: dict[str, Any] = {
    "image_reader_writer": "SimpleITKIO",
    "label_manager": "LabelManager",
    "experiment_planner_used": "PlannerOfSomebody",
    "configurations": {
        "2d": {
            "preprocessor_name": "DefaultPreprocessor",
            "normalization_schemes": ["ZScoreNormalization"],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "conv_op": "torch.nn.modules.conv.Conv2d",
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                    "dropout_op": None,
                    "nonlin": "torch.nn.LeakyReLU",
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    },
}
CONFIGURATION = ("configurations", "2d")
NETWORK = (*CONFIGURATION, "architecture")
PLACES = {
    ("image_reader_writer",): "imageio",
    ("label_manager",): "utilities/label_handling",
    (*CONFIGURATION, "preprocessor_name"): "preprocessing/preprocessors",
    (*CONFIGURATION, "normalization_schemes", 0): "preprocessing/normalization",
    (*CONFIGURATION, "resampling_fn_data"): "preprocessing/resampling",
    (*CONFIGURATION, "resampling_fn_seg"): "preprocessing/resampling",
    (*CONFIGURATION, "resampling_fn_probabilities"): "preprocessing/resampling",
    (*CONFIGURATION, "UNet_class_name"): "",
    (*NETWORK, "network_class_name"): "",
    **{(*NETWORK, "arch_kwargs", name): "" for name in ("conv_op", "norm_op", "dropout_op", "nonlin")},
}
"""Keys of plans that become imports; in which folder of nnU-Net those are searched that are bare names."""
IMPORTERS = {
    "imageio/reader_writer_registry.py": "image_reader_writer, overwrite_image_reader_writer",
    "utilities/label_handling/label_handling.py": "label_manager",
    "utilities/plans_handling/plans_handler.py": "preprocessor_name; experiment_planner_used if asked for it",
    "preprocessing/preprocessors/default_preprocessor.py": "normalization_schemes",
    "preprocessing/resampling/utils.py": "resampling_fn_*",
    "utilities/get_network_from_plans.py": "network_class_name, arch_kwargs",
    "utilities/find_class_by_name.py": "the search itself",
    "utilities/find_objects.py": "trainers; ours come from `METHODS` and from the list of our own",
    "experiment_planning/plan_and_preprocess_api.py": "planner and fingerprint extractor, by our call",
    "training/nnUNetTrainer/nnUNetTrainer.py": "checkpoints, after `load_checkpoint` took them for harmless",
    "training/nnUNetTrainer/variants/network_architecture/nnUNetTrainerBN.py": "as the trainer does",
    "inference/predict_from_raw_data.py": "the trainer of a checkpoint, in nnU-Net's own command",
    "inference/JHU_inference.py": "as before",
    "ensembling/ensemble.py": "nnU-Net's own command",
    "run/run_training.py": "the trainer, from nnU-Net's command line",
    "run/load_pretrained_weights.py": "nnU-Net's own command",
    "postprocessing/remove_connected_components.py": "nnU-Net's own command",
}
"""Modules of nnU-Net that import by name or read pickles, and which names those are."""
DATASET = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "heart": 1}, "file_ending": ".nii.gz"}
STRANGER = "import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()\nclass Network: pass\n"


def changed(content: Any, keys: tuple[Any, ...], value: Any) -> Any:
    content = deepcopy(content)
    *outer, last = keys
    place = content
    for key in outer:
        place = place[key]
    place[last] = value
    return content


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that can be imported; the file exists once it was."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    return tmp_path / "stranger.ran"


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """A run's folder without weights; none are looked at before the names are."""

    def make(plans: Any = PLANS, dataset: Any = DATASET, **checkpoint: Any) -> Path:
        folder = tmp_path / "model" / "fold_0"
        folder.mkdir(parents=True)
        (folder.parent / "plans.json").write_text(json.dumps(plans))
        (folder.parent / "dataset.json").write_text(json.dumps(dataset))
        content = {
            "network_weights": {},
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "2d"},
        }
        torch.save(content | checkpoint, folder / "checkpoint_final.pth")
        return folder

    return make


@pytest.mark.parametrize("keys", PLACES, ids=lambda keys: str(keys[-1]))
@pytest.mark.parametrize("name", ["stranger.Network", "torch.hub.load", "np", ["x"], 3])
def test_a_name_in_plans(model, stranger: Path, keys: tuple[Any, ...], name: Any):
    with pytest.raises(
        UserError, match=rf"plans\.json names .* as {next(k for k in keys[::-1] if k != 0)}: code"
    ):
        build_predictor(model(changed(PLANS, keys, name)), "cpu")
    assert not stranger.exists()


def test_a_configuration_that_another_inherits_from(model):
    plans = changed(PLANS, ("configurations", "child"), {"inherits_from": "2d"})
    plans = changed(plans, (*CONFIGURATION, "preprocessor_name"), "np")
    with pytest.raises(UserError, match="preprocessor_name"):
        build_predictor(model(plans, init_args={"configuration": "child"}), "cpu")


def test_a_name_in_the_description_of_a_dataset(model, raw_folder: Path, describe_dataset, tmp_path: Path):
    named = {"overwrite_image_reader_writer": "np"}
    with pytest.raises(UserError, match=r"dataset\.json names np as overwrite_image_reader_writer"):
        build_predictor(model(dataset=DATASET | named), "cpu")
    describe_dataset(raw_folder, **named)
    with pytest.raises(UserError, match=r"dataset\.json names np as overwrite_image_reader_writer"):
        base_plans(raw_folder, tmp_path / "preprocessed")
    check_dataset(DATASET, tmp_path)
    check_dataset(DATASET | {"overwrite_image_reader_writer": "NibabelIO"}, tmp_path)


@pytest.mark.parametrize("key", ["channel_names", "labels", "file_ending"])
@pytest.mark.parametrize("value", [None, 3, [], "gone"])
def test_a_description_that_lacks_an_entry(model, key: str, value: Any):
    dataset = {name: entry for name, entry in DATASET.items() if name != key}
    if value != "gone":
        dataset[key] = value
    with pytest.raises(UserError, match=rf'dataset\.json has no "{key}"\. Write it as nnU-Net'):
        build_predictor(model(dataset=dataset), "cpu")


@pytest.mark.parametrize("dataset", [[], None, 3])
def test_what_is_no_description_at_all(model, dataset: Any):
    with pytest.raises(UserError, match=r'dataset\.json has no "channel_names"'):
        build_predictor(model(dataset=dataset), "cpu")


def test_a_name_in_plans_that_lie_where_nnunet_puts_them(raw_folder: Path, tmp_path: Path):
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps(changed(PLANS, ("label_manager",), "np")))
    with pytest.raises(UserError, match="label_manager"):
        base_plans(raw_folder, tmp_path)


class Pickled:
    """An object that is made by a function of a stranger's choice."""

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, ("stranger",)


def test_a_name_in_a_checkpoint(model, stranger: Path):
    with pytest.raises(UserError, match="could run code when loaded"):
        load_checkpoint(model(extra=Pickled()) / "checkpoint_final.pth")
    assert not stranger.exists()


def test_a_trainer_in_a_checkpoint(stranger: Path, tmp_path: Path):
    """It is looked for among nnU-Net's own and ours alone."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from ccdcseg.nnunet.models import _network_builder

    for name in ("stranger", "stranger.Network", "Network", "__doc__", "np", "os", "Path"):
        with pytest.raises(UserError, match=rf"was written by {re.escape(name)}, which is not nnU-Net's"):
            _network_builder(name, tmp_path)
    assert not stranger.exists()
    for name in ("nnUNetTrainer", "nnUNetTrainer_5epochs"):
        assert _network_builder(name, tmp_path) is nnUNetTrainer.build_network_architecture
    assert _network_builder("nnUNetTrainerNNFormer", tmp_path) is not nnUNetTrainer.build_network_architecture


@pytest.mark.parametrize("plans", [{}, [], {"configurations": 3}, {"configurations": {"2d": 3}}])
def test_what_is_no_plans_at_all(model, plans: Any):
    with pytest.raises(UserError, match=r"plans\.json is no file of plans"):
        build_predictor(model(plans), "cpu")


def test_nnunets_own_plans_are_taken(tmp_path: Path):
    check_plans(PLANS, tmp_path)
    old = {"UNet_class_name": "PlainConvUNet", "preprocessor_name": "DefaultPreprocessor"}
    check_plans({"configurations": {"2d": old}}, tmp_path)


def calls(path: Path) -> set[str]:
    """Names of the functions that a module calls."""
    tree = ast.parse(path.read_text())
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    methods = {name.rpartition(".")[2] for name in called if name.endswith((".eval", ".exec"))}
    return {name.rpartition(".")[2] for name in called} - (methods - called)


def modules(package: Any) -> dict[str, Path]:
    root = Path(package.__path__[0])
    return {str(path.relative_to(root)): path for path in root.rglob("*.py") if "tests" not in path.parts}


def test_nnunet_imports_by_name_nowhere_else():
    """A new version with another place must be looked at."""
    by_name = {"import_module", "__import__", "locate", "eval", "exec", "recursive_find_python_class"}
    by_name |= {"recursive_find_trainer_class_by_name", "load_pickle"}
    found = {
        name
        for name, path in modules(nnunetv2).items()
        if calls(path) & by_name or "weights_only=False" in path.read_text()
    }
    preprocessed = {"training/dataloading/nnunet_dataset.py"}  # pickled properties in the user's own folder
    assert found - preprocessed <= IMPORTERS.keys(), found - IMPORTERS.keys()


def test_we_import_by_name_in_one_place():
    by_name = {"import_module", "__import__", "locate", "eval", "exec", "loads"}
    found = {name: calls(path) & by_name for name, path in modules(ccdcseg).items()}
    json_alone = {name for name, path in modules(ccdcseg).items() if "pickle.loads" not in path.read_text()}
    found = {name: names - ({"loads"} if name in json_alone else set()) for name, names in found.items()}
    assert {name: names for name, names in found.items() if names} == {
        "nnunet/stock.py": {"import_module"},
        "processes.py": {"loads"},  # what it has just pickled itself: can an error be sent?
    }


def test_everything_allowed_exists():
    """In a module that nnU-Net searches, or by its full name; only the old home of one network is gone."""
    import pydoc

    for keys, folder in PLACES.items():
        if folder:
            sources = "".join(
                path.read_text() for path in (Path(nnunetv2.__path__[0]) / folder).rglob("*.py")
            )
            collection = next(names for key, _, names in allowed._named_in_plans(PLANS) if key in keys)
            assert all(f"class {name}(" in sources or f"def {name}(" in sources for name in collection)
    missing = {name for name in allowed.NETWORKS | allowed.LAYERS if pydoc.locate(name) is None}
    assert missing == {"dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet"}
    assert dynamic_network_architectures.__name__ in allowed.ARCHITECTURES
