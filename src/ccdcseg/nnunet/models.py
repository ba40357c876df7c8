"""Folders of trained networks: nnU-Net's predictor for them, and whether they are what they seem."""

import contextlib
import inspect
import shlex
import warnings
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from ccdcseg.cores import keep_to_cores
from ccdcseg.datasets.cases import read_channels, read_labels
from ccdcseg.datasets.release import MASK_SUFFIX
from ccdcseg.errors import UserError
from ccdcseg.files import read_json, real
from ccdcseg.nnunet.allowed import TURNING, check_dataset, check_plans
from ccdcseg.nnunet.checkpoints import FINAL, STOCK_TRAINER, load_checkpoint
from ccdcseg.nnunet.memory import within_memory
from ccdcseg.nnunet.plans import plans_hash
from ccdcseg.nnunet.preset import preset_of_plans
from ccdcseg.runs.record import RUN_FILE, RunRecord, read_record

_WHOLE_MODEL = "Copy the whole model folder that it was trained in, into a folder of its own."


def build_predictor(folder: Path, device: str) -> Any:
    """nnU-Net's predictor with the final checkpoint of a run on its device, loaded without foreign code.

    nnU-Net's messages are kept off the screen.

    Args:
        folder: ``fold_N`` of a trained model.
        device: "cpu", "cuda" or "mps".

    Raises:
        UserError: the checkpoint is missing or damaged, or it, the plans or ``dataset.json`` name code that is not
            nnU-Net's; the network is another's than of these plans, takes more than the scan, or does not fit into
            the device's memory.
    """
    with contextlib.redirect_stdout(StringIO()), within_memory(folder, device):
        keep_to_cores()
        return _build_predictor(folder, device)


def _build_predictor(folder: Path, device: str) -> Any:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415 - slow
    from nnunetv2.utilities.label_handling.label_handling import (  # noqa: PLC0415 - slow
        determine_num_input_channels,
    )
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: PLC0415 - slow

    checkpoint = load_checkpoint(folder / FINAL)
    plans_file, dataset_file = (folder.parent / name for name in ("plans.json", "dataset.json"))
    content, dataset = read_json(plans_file), read_json(dataset_file)
    check_plans(content, plans_file)
    check_dataset(dataset, dataset_file)
    plans = PlansManager(content)
    configuration = plans.get_configuration(checkpoint["init_args"]["configuration"])
    _check_first(configuration.previous_stage_name, folder)
    network = _network_builder(checkpoint["trainer_name"], folder)(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, dataset),
        plans.get_label_manager(dataset).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    try:
        network.load_state_dict(checkpoint["network_weights"])
    except RuntimeError as error:
        raise UserError(
            f"{folder / FINAL} holds the weights of another network than {plans_file} describes.",
            _WHOLE_MODEL,
        ) from error
    settings = preset_of_plans(plans.plans).prediction
    predictor = nnUNetPredictor(
        tile_step_size=settings.tile_step_size,
        use_mirroring=settings.mirroring,
        device=torch.device(device),
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        network.to(predictor.device),
        plans,
        configuration,
        [checkpoint["network_weights"]],
        dataset,
        checkpoint["trainer_name"],
        checkpoint["inference_allowed_mirroring_axes"],
    )
    return predictor


def _check_first(previous: str | None, folder: Path) -> None:
    """Refuse the second network of a cascade."""
    if previous is not None:
        raise UserError(
            f"{folder} is the second network of a cascade: it takes what {previous} predicts beside the scan.",
            f"Name a run of {previous}; or predict by nnU-Net: {_stock_command(folder)} -prev_stage_predictions "
            "FOLDER",
        )


def _network_builder(trainer: str, folder: Path) -> Any:
    """What builds the network of a checkpoint: the trainer that wrote it, where it is nnU-Net's or ours.

    Raises:
        UserError: it is somebody else's, whose network is not known.
    """
    from ccdcseg.nnunet.discovery import ccdcseg_trainers  # noqa: PLC0415 - slow

    ours = trainer in ccdcseg_trainers.__all__
    found = getattr(ccdcseg_trainers, trainer) if ours else _stock_trainer(trainer)
    if found is None:
        raise UserError(
            f"{folder / FINAL} was written by {trainer}, which is not nnU-Net's: its network is not known.",
            f"If you trust that trainer, predict by nnU-Net: {_stock_command(folder)}",
        )
    return found.build_network_architecture


def _stock_trainer(name: str) -> Any:
    """The class of a trainer that nnU-Net comes with; None: it has none of that name."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: PLC0415 - slow
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class  # noqa: PLC0415 - slow

    if name == STOCK_TRAINER:
        return nnUNetTrainer
    package, folder = nnUNetTrainer.__module__.rpartition(".")[0], Path(inspect.getfile(nnUNetTrainer)).parent
    with warnings.catch_warnings(action="ignore"):  # those of trainers that are imported on the way
        found = recursive_find_python_class(str(folder), name, package)
    return found if isinstance(found, type) and issubclass(found, nnUNetTrainer) else None


def _stock_command(folder: Path) -> str:
    """nnU-Net's command that predicts with a run, wherever its model folder lies."""
    fold = folder.name.removeprefix("fold_")
    model = shlex.quote(str(folder.parent))
    return f"nnUNetv2_predict_from_modelfolder -m {model} -f {fold} -i IMAGES -o MASKS"


def check_model(folder: Path) -> None:
    """See that a run lies in its model folder.

    Raises:
        UserError: the plans or ``dataset.json`` are not beside it, are none, or another model's; or its scans
            are no NIfTI.
    """
    plans, dataset = (folder.parent / name for name in ("plans.json", "dataset.json"))
    for name in (plans.name, dataset.name):
        if not (folder.parent / name).exists():
            raise UserError(
                f"{folder} lies outside of the model folder that it was trained in: {folder.parent} has no {name}.",
                _WHOLE_MODEL,
            )
    check_plans(read_json(plans), plans)
    content = read_json(dataset)
    check_dataset(content, dataset)
    if not content["file_ending"].endswith((".nii", MASK_SUFFIX)):
        raise UserError(
            f"{folder} was trained on {content['file_ending']} files, and NIfTI alone is read here.",
            f"Predict by nnU-Net: {_stock_command(folder)}",
        )
    if (folder / RUN_FILE).exists() and (other := _another_models(folder, read_record(folder))):
        raise UserError(
            f"{folder.parent / other} is another model's than {folder} was trained with.", _WHOLE_MODEL
        )


def _another_models(folder: Path, record: RunRecord) -> str:
    """The file beside a run that is not of its model, as far as its record tells; empty where all are."""
    plans = read_json(folder.parent / "plans.json")
    if plans.get("plans_name") != record.plans or record.plans_hash not in (None, plans_hash(plans)):
        return "plans.json"
    return "dataset.json" if read_labels(folder.parent) != record.labels else ""


def check_fits(folder: Path, raw_folder: Path) -> None:
    """Refuse a run that has nothing to say of a data set's scans, which it need not have been trained on.

    Raises:
        UserError: it has other classes or channels; or as `check_model`.
    """
    check_model(folder)
    classes = class_values(read_json(folder.parent / "dataset.json")), read_labels(raw_folder)
    channels = read_channels(folder.parent), read_channels(raw_folder)
    for what, theirs, ours in (("classes", *classes), ("channels", *channels)):
        if theirs != ours:
            raise UserError(
                f"{folder} was trained on the {what} {', '.join(theirs)}, not on {', '.join(ours)}.",
                f"Name a run with the {what} of {raw_folder / 'dataset.json'}, or put back what was changed there.",
            )


def check_alike(folders: Sequence[Path]) -> None:
    """See that runs can predict together.

    Raises:
        UserError: one is given twice, or their classes, channels, file endings or readers that turn scans differ.
    """
    if len({real(folder) for folder in folders}) < len(folders):
        raise UserError("A run is given twice.", "Name each once.")
    first, *others = folders
    for other in others:
        ours, theirs = _alike(first), _alike(other)
        for what in ours:
            if ours[what] != theirs[what]:
                raise UserError(
                    f"{first} and {other} cannot predict together: their {what} differ.",
                    "Name runs of one data set.",
                )


def _alike(folder: Path) -> dict[str, Any]:
    """What runs that predict together share."""
    dataset = read_json(folder.parent / "dataset.json")
    return {
        "classes": [dataset["labels"], dataset.get("regions_class_order")],
        "channels": dataset["channel_names"],
        "file endings": dataset["file_ending"],
        "readers that turn scans": turning_reader(folder),
    }


def turning_reader(folder: Path) -> str | None:
    """nnU-Net's reader that turned the scans a network was trained on; None: their axes were those of their files.

    Probabilities of turned scans lie on other voxels than those of the file.
    """
    path = folder.parent / "plans.json"
    plans = read_json(path)
    check_plans(plans, path)
    reader: str | None = plans.get("image_reader_writer")
    return reader if reader in TURNING else None


def class_values(dataset: Mapping[str, Any]) -> dict[str, int]:
    """Value of each foreground class by name; none where labels are regions.

    Args:
        dataset: content of ``dataset.json``.
    """
    labels: dict[str, Any] = dataset["labels"]
    if not all(isinstance(value, int) for value in labels.values()):
        return {}
    return {name: value for name, value in labels.items() if name not in ("background", "ignore")}
