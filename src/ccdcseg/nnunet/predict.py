"""Predicting with a trained run, through nnU-Net's own predictor."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from numpy.typing import NDArray

from ccdcseg.datasets.splits import part_cases
from ccdcseg.datasets.volumes import read_mask
from ccdcseg.errors import UserError
from ccdcseg.files import locked, read_json
from ccdcseg.nnunet.checkpoints import load_checkpoint
from ccdcseg.nnunet.preset import preset_of_plans
from ccdcseg.nnunet.rules import read_rules
from ccdcseg.postprocessing import Postprocessing, Shares, keep_pieces, override

PREDICTIONS = "predictions"
PLAIN_PREDICTIONS = "predictions_plain"
"""Folder of what the network predicts, with every piece, beside `PREDICTIONS`."""


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


@dataclass(frozen=True)
class Output:
    """Where predictions go.

    Attributes:
        folder: ``CASE.nii.gz`` with the pieces that the rules keep.
        shares: the rules (see `ccdcseg.postprocessing.Shares`); none: every piece is kept.
        plain: another folder for what the network predicts, every piece kept; None: it is not wanted.
    """

    folder: Path
    shares: Shares = field(default_factory=dict)
    plain: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """All of them."""
        return [self.folder, *([self.plain] if self.plain else [])]

    @property
    def description(self) -> str:
        """What was done to the predictions, for people."""
        rules = [f"{name} {_in_words(share)}" for name, share in self.shares.items() if share > 0]
        if not rules:
            return "every piece as the network predicts it"
        also = f"; as the network predicts them: {self.plain}" if self.plain else ""
        return f"pieces kept: {', '.join(rules)}{also}"


def _in_words(share: float) -> str:
    return "one" if share == 1 else f"from {share:.2g} of it on"


def input_output(folder: Path, output: Path, postprocessing: bool, keep: Sequence[str]) -> Output:
    """Where predictions of any images go, and what is done to them.

    Args:
        folder: of the run.
        output: of the predictions.
        postprocessing: by the rules of the run.
        keep: what a user says otherwise, see `ccdcseg.postprocessing.override`.

    Raises:
        UserError: ``keep`` names no class or no share, or is given without post-processing.
    """
    if not postprocessing:
        if keep:
            raise UserError("--keep and --no-postprocessing exclude each other.", "Leave one of them out.")
        return Output(output)
    rules = read_rules(folder) or Postprocessing({}, {}, 0)
    labels = class_values(read_json(folder.parent / "dataset.json"))
    return Output(output, override(rules, keep, labels).shares)


def run_output(folder: Path, place: Path) -> Output:
    """Where predictions of a run's own cases go: into ``predictions`` by its rules, as predicted beside it.

    Args:
        folder: of the run.
        place: the folder in it for a part of the split.
    """
    rules = read_rules(folder)
    if rules is None:
        return Output(place / PREDICTIONS)
    return Output(place / PREDICTIONS, rules.shares, place / PLAIN_PREDICTIONS)


def predict(
    folder: Path,
    images: Mapping[str, Sequence[Path]],
    output: Output,
    device: str,
    progress: Callable[[int, int], None],
) -> None:
    """Predict cases that are not predicted yet.

    What every piece is kept of equals the output of ``nnUNetv2_predict`` bit for bit. A run into whose folder is
    written is held meanwhile, as `ccdcseg.nnunet.train.train` does.

    Args:
        folder: ``fold_N`` of a trained model.
        images: image files of each case, one a channel.
        output: where predictions are written, each atomically.
        device: "cpu", "cuda" or "mps".
        progress: called with cases done and cases in all.

    Raises:
        UserError: the disk is full, or another process works on the run.
    """
    if not _missing(folder, images, output):
        return
    ours = output.folder.resolve().is_relative_to(folder.resolve())
    with locked(folder, "predict") if ours else contextlib.nullcontext():
        _predict(folder, images, output, device, progress)


def _missing(folder: Path, images: Mapping[str, Sequence[Path]], output: Output) -> list[str]:
    """Cases that are not predicted yet."""
    ending = read_json(folder.parent / "dataset.json")["file_ending"]
    return [
        case for case in images if not all((place / f"{case}{ending}").exists() for place in output.folders)
    ]


def _predict(
    folder: Path,
    images: Mapping[str, Sequence[Path]],
    output: Output,
    device: str,
    progress: Callable[[int, int], None],
) -> None:
    missing = _missing(folder, images, output)
    predictor = build_predictor(folder, device)
    for done, case in enumerate(missing, len(images) - len(missing)):
        progress(done, len(images))
        with contextlib.redirect_stdout(StringIO()):
            found = segment(predictor, images[case], probabilities=bool(output.shares))
        if output.plain:
            _write(predictor, found, found.labels, output.plain, case)
        kept = keep_pieces(
            found.labels, found.probabilities, class_values(predictor.dataset_json), output.shares
        )
        _write(predictor, found, kept, output.folder, case)
    progress(len(images), len(images))


@dataclass(frozen=True)
class Segmentation:
    """What a network says of a scan, on the scan's own voxels within the box that holds more than zeros.

    Attributes:
        labels: (Z, Y, X) class values, axes as the plans order them.
        probabilities: (C, Z, Y, X) of the classes, or None where they were not asked for.
        properties: of the scan, from nnU-Net's reader and preprocessor.
    """

    labels: NDArray[Any]
    probabilities: NDArray[Any] | None
    properties: dict[str, Any]


def segment(predictor: Any, files: Sequence[Path], *, probabilities: bool) -> Segmentation:
    """Predict one scan with nnU-Net's predictor and its own steps.

    Args:
        predictor: see `build_predictor`.
        files: images, one a channel.
        probabilities: whether they are wanted too.
    """
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case(
        [str(file) for file in files], None, plans, configuration, predictor.dataset_json
    )
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    slices = [spacing[0]] if len(configuration.spacing) < len(shape) else []
    logits = configuration.resampling_fn_probabilities(
        logits, shape, [*slices, *configuration.spacing], spacing
    )
    manager = plans.get_label_manager(predictor.dataset_json)
    return Segmentation(
        np.asarray(manager.convert_logits_to_segmentation(logits)),
        np.asarray(manager.apply_inference_nonlin(logits)) if probabilities else None,
        properties,
    )


def class_values(dataset: Mapping[str, Any]) -> dict[str, int]:
    """Value of each foreground class by name; none where labels are regions.

    Args:
        dataset: content of ``dataset.json``.
    """
    labels: dict[str, Any] = dataset["labels"]
    if not all(isinstance(value, int) for value in labels.values()):
        return {}
    return {name: value for name, value in labels.items() if name not in ("background", "ignore")}


def _write(predictor: Any, found: Segmentation, labels: NDArray[Any], folder: Path, case: str) -> None:
    """Write labels of a scan on all of its voxels."""
    folder.mkdir(parents=True, exist_ok=True)
    plans, ending = predictor.plans_manager, predictor.dataset_json["file_ending"]
    kind = np.uint8 if labels.max() < 255 else np.uint16
    whole = insert_crop_into_image(
        np.zeros(found.properties["shape_before_cropping"], kind),
        labels.astype(kind),
        found.properties["bbox_used_for_cropping"],
    )
    with tempfile.TemporaryDirectory(prefix=".partial.", dir=folder) as scratch:
        file = Path(scratch) / f"{case}{ending}"
        plans.image_reader_writer_class().write_seg(
            whole.transpose(plans.transpose_backward), str(file), found.properties
        )
        _check_written(file, predictor.dataset_json["labels"])
        file.replace(folder / file.name)


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
