"""Predicting with a trained run, through nnU-Net's own predictor."""

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from ccdcseg.datasets.splits import part_cases
from ccdcseg.datasets.volumes import read_mask
from ccdcseg.errors import UserError
from ccdcseg.files import locked, read_json
from ccdcseg.nnunet.checkpoints import load_checkpoint
from ccdcseg.nnunet.preset import preset_of_plans


def build_predictor(folder: Path, device: str) -> Any:
    """nnU-Net's predictor with the final checkpoint of a run, loaded without running foreign code.

    nnU-Net's messages are kept off the screen.

    Args:
        folder: ``fold_N`` of a trained model.
        device: "cpu", "cuda" or "mps".
    """
    with contextlib.redirect_stdout(StringIO()):
        return _build_predictor(folder, device)


def _build_predictor(folder: Path, device: str) -> Any:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415 - slow
    from nnunetv2.utilities.label_handling.label_handling import (  # noqa: PLC0415 - slow
        determine_num_input_channels,
    )
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: PLC0415 - slow

    checkpoint = load_checkpoint(folder / "checkpoint_final.pth")
    plans = PlansManager(read_json(folder.parent / "plans.json"))
    dataset = read_json(folder.parent / "dataset.json")
    configuration = plans.get_configuration(checkpoint["init_args"]["configuration"])
    network = _network_builder(checkpoint["trainer_name"])(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, dataset),
        plans.get_label_manager(dataset).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    network.load_state_dict(checkpoint["network_weights"])
    settings = preset_of_plans(plans.plans).prediction
    predictor = nnUNetPredictor(
        tile_step_size=settings.tile_step_size,
        use_mirroring=settings.mirroring,
        device=torch.device(device),
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        network,
        plans,
        configuration,
        [checkpoint["network_weights"]],
        dataset,
        checkpoint["trainer_name"],
        checkpoint["inference_allowed_mirroring_axes"],
    )
    return predictor


def _network_builder(trainer: str) -> Any:
    """What builds the network of a checkpoint: nnU-Net itself, unless a trainer of ours has another network."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: PLC0415 - slow

    from ccdcseg.nnunet.discovery import ccdcseg_trainers  # noqa: PLC0415 - slow

    ours = trainer in ccdcseg_trainers.__all__
    return (getattr(ccdcseg_trainers, trainer) if ours else nnUNetTrainer).build_network_architecture


def run_images(folder: Path, part: str) -> dict[str, list[Path]]:
    """Images of the "test" or "validation" cases of a run, by case.

    Raises:
        UserError: an image is missing, or there are no patients for validation.
    """
    run = read_json(folder / "run.json")
    images = Path(run["images"])
    dataset = read_json(images.parent / "dataset.json")
    return {case: _channels(images, case, dataset) for case in part_cases(images.parent, run["fold"], part)}


def folder_images(folder: Path, model: Path) -> dict[str, list[Path]]:
    """Images of any folder, named as nnU-Net wants them (``CASE_0000.nii.gz``), by case.

    Raises:
        UserError: no such folder, or no image in it.
    """
    dataset = read_json(model / "dataset.json")
    ending = f"_0000{dataset['file_ending']}"
    cases = sorted(file.name.removesuffix(ending) for file in folder.glob(f"*{ending}"))
    if not cases:
        raise UserError(
            f"{folder} holds no image named like CASE{ending}.",
            "Name images as nnU-Net's imagesTs wants them.",
        )
    return {case: _channels(folder, case, dataset) for case in cases}


def _channels(folder: Path, case: str, dataset: Mapping[str, Any]) -> list[Path]:
    files = [folder / f"{case}_{c:04d}{dataset['file_ending']}" for c in range(len(dataset["channel_names"]))]
    for file in files:
        if not file.exists():
            raise UserError(f"{file} does not exist.", "Restore the image, or prepare the dataset again.")
    return files


def predict(
    folder: Path,
    images: Mapping[str, Sequence[Path]],
    output: Path,
    device: str,
    progress: Callable[[int, int], None],
) -> Path:
    """Predict cases that are not predicted yet; the output equals that of ``nnUNetv2_predict`` bit for bit.

    A run into whose folder is written is held meanwhile, as `ccdcseg.nnunet.train.train` does.

    Args:
        folder: ``fold_N`` of a trained model.
        images: image files of each case, one a channel.
        output: where ``CASE.nii.gz`` are written, each atomically.
        device: "cpu", "cuda" or "mps".
        progress: called with cases done and cases in all.

    Raises:
        UserError: the disk is full, or another process works on the run.
    """
    if not _missing(folder, images, output):
        return output
    ours = output.resolve().is_relative_to(folder.resolve())
    with locked(folder, "predict") if ours else contextlib.nullcontext():
        _predict(folder, images, output, device, progress)
    return output


def _missing(folder: Path, images: Mapping[str, Sequence[Path]], output: Path) -> list[str]:
    """Cases that are not predicted yet."""
    ending = read_json(folder.parent / "dataset.json")["file_ending"]
    return [case for case in images if not (output / f"{case}{ending}").exists()]


def _predict(
    folder: Path,
    images: Mapping[str, Sequence[Path]],
    output: Path,
    device: str,
    progress: Callable[[int, int], None],
) -> None:
    dataset = read_json(folder.parent / "dataset.json")
    ending, labels = dataset["file_ending"], dataset["labels"]
    output.mkdir(parents=True, exist_ok=True)
    missing = _missing(folder, images, output)
    scratch = output / ".partial"
    predictor = build_predictor(folder, device)
    try:
        for done, case in enumerate(missing, len(images) - len(missing)):
            progress(done, len(images))
            scratch.mkdir(exist_ok=True)
            with contextlib.redirect_stdout(StringIO()):
                predictor.predict_from_files_sequential(
                    [[str(f) for f in images[case]]], [str(scratch / case)]
                )
            _check_written(scratch / f"{case}{ending}", labels)
            (scratch / f"{case}{ending}").replace(output / f"{case}{ending}")
        progress(len(images), len(images))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_written(path: Path, labels: Mapping[str, int]) -> None:
    """Read a prediction back: on a full disk ITK cuts the file short and reports success.

    Raises:
        UserError: the file is not whole.
    """
    try:
        read_mask(path, labels)
    except UserError as error:
        raise UserError(
            f"The prediction {path.name} could not be written whole to {path.parent.parent}.",
            "Free space on that disk and run the command again; finished cases are kept.",
        ) from error
