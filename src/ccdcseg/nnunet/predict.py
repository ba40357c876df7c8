"""Predicting with a trained run, through nnU-Net's own predictor."""

import contextlib
import inspect
import logging
import shlex
import shutil
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from numpy.typing import NDArray

from ccdcseg.cores import keep_to_cores
from ccdcseg.datasets.cases import CASES_FILE, image_files, read_channels, read_labels, scan_of
from ccdcseg.datasets.release import MASK_SUFFIX
from ccdcseg.datasets.splits import part_cases, part_folder
from ccdcseg.datasets.unicode_names import missing
from ccdcseg.datasets.usable import check_scan
from ccdcseg.datasets.volumes import other_axes, read_mask, stored_axes
from ccdcseg.datasets.walk import is_hidden
from ccdcseg.devices import usable_device
from ccdcseg.errors import UserError
from ccdcseg.files import (
    check_name,
    explain_failure,
    keep_rights,
    locked,
    making,
    read_json,
    real,
    scratch_folder,
)
from ccdcseg.nnunet.allowed import TURNING, check_dataset, check_plans
from ccdcseg.nnunet.checkpoints import FINAL, STOCK_TRAINER, load_checkpoint
from ccdcseg.nnunet.memory import device_full, if_it_fits, within_memory
from ccdcseg.nnunet.plans import check_size, plans_hash
from ccdcseg.nnunet.preset import preset_of_plans
from ccdcseg.nnunet.rules import read_rules
from ccdcseg.postprocessing import Shares, in_words, keep_pieces, mildest, override, removed_shares
from ccdcseg.provenance import Origin, Source, Sources, Stamp, origin_file, read_origin, stamp, write_origin
from ccdcseg.runs.record import PLAIN_PREDICTIONS, PREDICTIONS, RUN_FILE, RunRecord, read_record
from ccdcseg.texts import listed

logger = logging.getLogger(__name__)
SCRATCH = ".partial."
"""Begin of the names of hidden folders that predictions are written into before they are moved to their place."""
MUCH = 0.1
"""Share of a class from which on it is said that post-processing removed it."""
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


def run_images(folder: Path, part: str) -> dict[str, list[Path]]:
    """Images of the "test" or "validation" cases of a run, by case.

    Raises:
        UserError: an image is missing, there are no patients for validation; or as `RunRecord.local` and
            `check_fits`.
    """
    record = read_record(folder)
    images = record.local("images", folder)
    check_fits(folder, images.parent)
    dataset = read_json(images.parent / "dataset.json")
    remedy = f"Restore the image; if its patient withdrew, remove the row of {CASES_FILE}, too."
    cases = part_cases(images.parent, record.fold, part)
    return {case: _channels(images, case, dataset, remedy) for case in cases}


def folder_images(folder: Path, model: Path) -> dict[str, list[Path]]:
    """Images of any folder, named as nnU-Net wants them (``CASE_0000.nii.gz``), by case.

    Hidden files are passed over; warnings name all others.

    Raises:
        UserError: no such folder, no image in it, or an image lacks a channel.
    """
    dataset = read_json(model / "dataset.json")
    ending = f"_0000{dataset['file_ending']}"
    names = sorted(path.name for path in _entries(folder) if not is_hidden(path.name))
    cases = [case for name in names if name.endswith(ending) and (case := name.removesuffix(ending))]
    if not cases:
        raise UserError(
            f"{folder} holds no image named like CASE{ending}"
            + (f", but {names[0]} ({len(names)} such files)." if names else "."),
            "Name images as nnU-Net's imagesTs wants them.",
        )
    remedy = "Add that channel, or move the others of its scan away."
    images = {case: _channels(folder, case, dataset, remedy) for case in cases}
    used = {path.name for paths in images.values() for path in paths}
    _warn_of_spare(folder, [name for name in names if name not in used], images, dataset)
    return images


def warn_of_axes(folders: Sequence[Path], images: Mapping[str, Sequence[Path]]) -> None:
    """Say which scans are stored along other axes than those that networks were trained on: none turns scans.

    Args:
        folders: ``fold_N`` of trained models; of one without a record, or with one of an earlier version, nothing
            is known.
        images: image files of each case, one a channel.
    """
    records = {folder: read_record(folder) for folder in folders if (folder / RUN_FILE).exists()}
    known = {folder: record.axes for folder, record in records.items() if record.axes}
    axes = {case: stored_axes(files[0]) for case, files in images.items()} if known else {}
    for folder, theirs in known.items():
        if told := other_axes(axes, theirs, "scans", f"those that {folder} was trained on"):
            logger.warning("%s: look at their predictions, or reorient them.", told)


def _warn_of_spare(
    folder: Path, spare: Sequence[str], images: Collection[str], dataset: Mapping[str, Any]
) -> None:
    """Name files that are not predicted: further channels of the scans, and others."""
    ending, channels = dataset["file_ending"], [str(name) for name in dataset["channel_names"].values()]
    further = [name for name in spare if scan_of(name, ending) in images]
    takes = f"for which the model has no channel (it takes {len(channels)}: {', '.join(channels)})"
    misnamed = f"that are not named like CASE_0000{ending}, as nnU-Net wants it, and are not predicted"
    for kind, names in ((takes, further), (misnamed, [name for name in spare if name not in further])):
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            logger.warning("%s holds %d files %s: %s.", folder, len(names), kind, shown)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}).", "Give a folder of images.") from error


def _channels(folder: Path, case: str, dataset: Mapping[str, Any], remedy: str) -> list[Path]:
    files = _channel_names(folder, case, dataset)
    for file in files:
        check_name(file)
        if not file.exists():
            raise missing(file, remedy)
    return files


def _channel_names(folder: Path, case: str, dataset: Mapping[str, Any]) -> list[Path]:
    return image_files(folder, case, dataset["file_ending"], len(dataset["channel_names"]))


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
        rules = in_words(self.shares)
        also = f"; as the network predicts them: {self.plain}" if rules and self.plain else ""
        return f"pieces kept: {rules}{also}" if rules else "every piece as the network predicts it"


def input_output(folders: Sequence[Path], output: Path, postprocessing: bool, keep: Sequence[str]) -> Output:
    """Where predictions of any images go, and what is done to them.

    Args:
        folders: of the run, or of several that predict together.
        output: of the predictions.
        postprocessing: by the rules of the run; of several, a piece is kept that one of them keeps.
        keep: what a user says otherwise, see `ccdcseg.postprocessing.override`.

    Raises:
        UserError: ``keep`` names no class or no share, or is given without post-processing or for regions.
    """
    if not postprocessing:
        if keep:
            raise UserError("--keep and --no-postprocessing exclude each other.", "Leave one of them out.")
        return Output(output)
    rules = [read_rules(folder) for folder in folders]
    labels = class_values(read_json(folders[0].parent / "dataset.json"))
    if keep and not labels:
        raise UserError(
            f"{folders[0]} predicts regions, which may overlap, and drops no piece of them.",
            "Leave --keep out.",
        )
    return Output(output, override(mildest([found.shares if found else {} for found in rules]), keep, labels))


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
    folders: Sequence[Path],
    images: Mapping[str, Sequence[Path]],
    output: Output,
    device: str,
    progress: Callable[[int, int], None],
) -> None:
    """Predict cases that are not predicted yet.

    A prediction that is there is kept if it is this model's and its images are those of today. One of other images
    is made again; whatever else is in the way is refused.

    What every piece is kept of equals the output of ``nnUNetv2_predict`` bit for bit. Several networks speak by the
    mean of their probabilities, as in ``nnUNetv2_ensemble``. The folder of the output is held meanwhile, or the run
    that it lies in, as `ccdcseg.nnunet.train.train` does.

    Args:
        folders: ``fold_N`` of trained models; see `check_alike` of several.
        images: image files of each case, one a channel.
        output: where predictions are written, each atomically.
        device: "cpu", "cuda", "mps" or "auto"; see `usable_device`.
        progress: called with cases done and cases in all.

    Raises:
        UserError: the disk is full, another process works on the folder that is to be held, or a file is in the way
            that another model or somebody else made; or, once all others are predicted, a scan cannot be used (see
            `check_scan` and `check_size`).
        OSError: that folder cannot be written to; this is found out before anything is predicted.
    """
    device = usable_device(device)
    if not _outdated(folders, images, output):
        return
    with locked(_run_of(output.folder, folders) or output.folder, "predict"):
        for leftover in (path for place in output.folders for path in place.glob(f"{SCRATCH}*")):
            shutil.rmtree(leftover, ignore_errors=True)  # another user's stays, in nobody's way
        _predict(folders, images, output, device, progress)


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


def prediction_sources(folders: Sequence[Path], images: Sequence[Path], shares: Shares) -> Sources:
    """What a prediction is made from: the images, the models with their settings of prediction, and rules.

    Args:
        folders: ``fold_N`` of trained models.
        images: of the case, one a channel.
        shares: rules of post-processing.
    """
    settings = [_prediction_settings(folder) for folder in folders]
    files = tuple(folder / FINAL for folder in folders)
    return {
        "images": Source(tuple(images)),
        "model": Source(files, settings[0] if len(settings) == 1 else settings),
        "rules": Source(settings=dict(shares)),
    }


def _prediction_settings(folder: Path) -> list[Any]:
    plans, dataset = (read_json(folder.parent / name) for name in ("plans.json", "dataset.json"))
    return [
        plans_hash(plans),
        preset_of_plans(plans).prediction.model_dump(mode="json"),
        dataset["labels"],
    ]


def check_predictions(folder: Path, place: Path, cases: Iterable[str]) -> None:
    """See that predictions of a run's own cases are what it would predict today.

    Those of which nothing is known, such as an earlier version's, are taken as they are, and so are those whose
    images, model or rules are gone.

    Args:
        folder: ``fold_N`` of a trained model.
        place: `PREDICTIONS` or `PLAIN_PREDICTIONS` of a part of its split.
        cases: which; one without a prediction is passed over.

    Raises:
        UserError: one was changed, or its images, the model or the rules were since it was predicted; or as
            `RunRecord.here`.
    """
    targets = {case: place / f"{case}{MASK_SUFFIX}" for case in cases}
    known = {
        case: target for case, target in targets.items() if target.exists() and origin_file(target).exists()
    }
    images = read_record(folder).here("images", folder)
    if not known or images is None or not (folder.parent / "plans.json").exists():
        return
    dataset = read_json(folder.parent / "dataset.json")
    rules = read_rules(folder) if place.name == PREDICTIONS else None
    for case, target in known.items():
        files = _channel_names(images, case, dataset)
        origin = read_origin(target, prediction_sources([folder], files, rules.shares if rules else {}))
        if origin and not origin.current:
            raise _stale(target, origin, folder)


def _stale(target: Path, origin: Origin, run: Path) -> UserError:
    if origin.changed:
        changed = f"its {origin.changed[0]} changed since it was predicted"
        part = ["--part", "validation"] if part_folder(run, "validation") in target.parents else []
        again = shlex.join(["ccdcseg", "predict", str(run), *part])
        return UserError(f"{target} is out of date: {changed}.", f"Predict again: {again}")
    return UserError(f"{target} {_problem(origin, ours=True)}.", "Move it away, then predict again.")


def _outdated(
    folders: Sequence[Path], images: Mapping[str, Sequence[Path]], output: Output
) -> dict[str, dict[Path, Sources]]:
    """What is to be predicted of which cases, with what it is made from: what is not there, or of other images."""
    ending = read_json(folders[0].parent / "dataset.json")["file_ending"]
    outdated: dict[str, dict[Path, Sources]] = {}
    for place in output.folders:
        targets = {case: place / f"{case}{ending}" for case in images}
        ours = _run_of(place, folders) is not None
        if ours:
            _adopt(targets.values())
        shares = {} if place == output.plain else output.shares
        for case, target in targets.items():
            sources = prediction_sources(folders, images[case], shares)
            if _is_outdated(target, sources, ours=ours):
                outdated.setdefault(case, {})[target] = sources
    return outdated


def _run_of(path: Path, folders: Sequence[Path]) -> Path | None:
    """The run that a folder is part of, where nobody else puts files, be it by a link."""
    return next((f for f in folders if path.is_relative_to(f) or real(path).is_relative_to(real(f))), None)


def _is_outdated(target: Path, sources: Sources, *, ours: bool) -> bool:
    """Whether a prediction is to be made, maybe again.

    Raises:
        UserError: there is a file that this model did not predict by these rules.
    """
    if not target.exists():
        return True
    origin = read_origin(target, sources)
    if (problem := _problem(origin, ours)) or origin is None:
        remedy = "Move it away, then predict again." if ours else "Move it away, or give another --output."
        raise UserError(f"{target} {problem}.", remedy)
    return bool(origin.changed)


def _problem(origin: Origin | None, ours: bool) -> str:
    """Why a prediction that is there can neither be kept nor be made again."""
    if origin is None:
        return "is there already, and nothing says what made it"
    if not origin.intact:
        return "was changed since it was predicted"
    if "model" in origin.changed and not ours:
        return "is another model's prediction"
    return "was cleaned by other rules" if "rules" in origin.changed and not ours else ""


def _adopt(targets: Iterable[Path]) -> None:
    """Keep predictions of an earlier version, of which nothing is known, and say so once."""
    unknown = [target for target in targets if target.exists() and not origin_file(target).exists()]
    for target in unknown:
        write_origin(target, None, target)
    if unknown:
        logger.warning(
            "%s holds %d predictions of an earlier version, which are kept: whether this model made them from the "
            "images of today is not known. Move them away to predict again.",
            unknown[0].parent,
            len(unknown),
        )


def _predict(
    folders: Sequence[Path],
    images: Mapping[str, Sequence[Path]],
    output: Output,
    device: str,
    progress: Callable[[int, int], None],
) -> None:
    outdated, unusable = _outdated(folders, images, output), dict[str, UserError]()
    again = [target for targets in outdated.values() for target in targets if target.exists()]
    if again:
        logger.warning(
            "%d predictions in the way are made again, since what they were made from has changed: %s.",
            len(again),
            again[0],
        )
    predictors, removed = [build_predictor(folder, device) for folder in folders], dict[str, list[str]]()
    for done, (case, targets) in enumerate(outdated.items(), len(images) - len(outdated)):
        progress(done, len(images))
        found = _predict_scan(predictors, images[case], targets, output)
        if isinstance(found, UserError):
            unusable[case] = found
        elif much := [f"{name} {share:.0%}" for name, share in found.items() if share >= MUCH]:
            removed[case] = much
    progress(len(images), len(images))
    if removed:
        _warn_of_removed(removed, len(outdated), output)
    if unusable:
        first, *others = unusable
        more = f" Neither can {listed(others)} be used." if others else ""
        rest = " All others are predicted." if len(unusable) < len(images) else ""
        raise UserError(f"{unusable[first].problem}{more}{rest}", unusable[first].remedy)


def _predict_scan(
    predictors: Sequence[Any], files: Sequence[Path], targets: Mapping[Path, Sources], output: Output
) -> dict[str, float] | UserError:
    """Predict and write one scan.

    Returns:
        Which share of each class post-processing removed; or why the scan cannot be used, without a traceback,
        which holds its voxels.
    """
    stamps = {target: stamp(sources) for target, sources in targets.items()}
    try:
        check_scan(files)
        found = segment(predictors, files, probabilities=bool(output.shares))
    except UserError as error:
        return UserError(error.problem, error.remedy)
    labels, removed = class_values(predictors[0].dataset_json), dict[str, float]()
    for target, now in stamps.items():
        shares = {} if target.parent == output.plain else output.shares
        kept = keep_pieces(found.labels, found.probabilities, labels, shares)
        removed |= removed_shares(found.labels, kept, labels)
        _write(predictors[0], found, kept, target, now)
    return removed


def _warn_of_removed(removed: Mapping[str, Sequence[str]], predicted: int, output: Output) -> None:
    """Say of which scans post-processing took much: islands, or a structure that no training mask is like."""
    logger.warning(
        "Post-processing removed a tenth or more of a class from %d of %d scans: %s. Look at them: %s.",
        len(removed),
        predicted,
        listed([f"{case} ({', '.join(much)})" for case, much in removed.items()]),
        f"{output.plain} has every piece" if output.plain else "--keep NAME=0 keeps every piece of a class",
    )


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


def segment(predictors: Sequence[Any], files: Sequence[Path], *, probabilities: bool) -> Segmentation:
    """Predict one scan with nnU-Net's predictors and its own steps; several by the mean of their probabilities.

    Args:
        predictors: see `build_predictor` and `check_alike`.
        files: images, one a channel.
        probabilities: whether they are wanted too.

    Raises:
        UserError: the reader of a network does not take the scan, or the device's memory does not suffice for it;
            or as `check_size`.
    """
    found = if_it_fits(lambda: _segment_together(predictors, files, probabilities=probabilities))
    if found is None:
        raise device_full(files[0], predictors[0].device)
    return found


def _segment_together(
    predictors: Sequence[Any], files: Sequence[Path], *, probabilities: bool
) -> Segmentation:
    first, *others = predictors
    found = _segment(first, files, probabilities=probabilities or bool(others))
    if not others:
        return found
    mean = np.asarray(found.probabilities, np.float32)
    for predictor in others:  # one at a time: those of a large scan fill the memory
        mean = mean + _in_axes_of(first, predictor, _segment(predictor, files, probabilities=True))
    mean /= len(predictors)
    manager = first.plans_manager.get_label_manager(first.dataset_json)
    return Segmentation(manager.convert_probabilities_to_segmentation(mean), mean, found.properties)


def _in_axes_of(first: Any, predictor: Any, found: Segmentation) -> NDArray[Any]:
    """Probabilities of one predictor, axes as the plans of another order them."""
    own = predictor.plans_manager.transpose_backward
    axes = [own[axis] for axis in first.plans_manager.transpose_forward]
    return np.asarray(found.probabilities).transpose(0, *(axis + 1 for axis in axes))


def _segment(predictor: Any, files: Sequence[Path], *, probabilities: bool) -> Segmentation:
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    with contextlib.redirect_stdout(StringIO()):  # nnU-Net's messages
        data, properties = _read(plans.image_reader_writer_class(), files)
        check_size(files[0], data, properties["spacing"], plans, configuration)
        data, _, properties = preprocessor.run_case_npy(
            data, None, properties, plans, configuration, predictor.dataset_json
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


def _read(reader: Any, files: Sequence[Path]) -> tuple[NDArray[Any], dict[str, Any]]:
    """Read the images of a scan with the reader of the plans, which need not take all that `check_scan` does."""
    try:
        data, properties = reader.read_images([str(file) for file in files])
    except MemoryError:
        raise
    except Exception as error:  # each reader has a library of its own
        raise UserError(
            f"{files[0]} cannot be read by {type(reader).__name__}, which this network reads scans with ({error}).",
            "Write the images of that scan as gzipped 3-D NIfTI.",
        ) from error
    return data, properties


def scan_probabilities(predictors: Sequence[Any], images: Sequence[Path]) -> NDArray[np.float32]:
    """Probabilities of the classes on all voxels of a scan, as its file has them, (C, Z, Y, X).

    What lies outside the box that holds more than zeros is background.

    Args:
        predictors: see `segment`; none with a `turning_reader`.
        images: one a channel.
    """
    found = segment(predictors, images, probabilities=True)
    inside = np.asarray(found.probabilities)
    whole = np.zeros((len(inside), *found.properties["shape_before_cropping"]), np.float32)
    whole[0] = 1
    insert_crop_into_image(whole, inside, found.properties["bbox_used_for_cropping"])
    return whole.transpose(0, *(axis + 1 for axis in predictors[0].plans_manager.transpose_backward))


def class_values(dataset: Mapping[str, Any]) -> dict[str, int]:
    """Value of each foreground class by name; none where labels are regions.

    Args:
        dataset: content of ``dataset.json``.
    """
    labels: dict[str, Any] = dataset["labels"]
    if not all(isinstance(value, int) for value in labels.values()):
        return {}
    return {name: value for name, value in labels.items() if name not in ("background", "ignore")}


def _write(predictor: Any, found: Segmentation, labels: NDArray[Any], target: Path, now: Stamp) -> None:
    """Write labels of a scan on all of its voxels, and what they are made from."""
    with making(target.parent), scratch_folder(target.parent, SCRATCH) as scratch:
        file = scratch / target.name
        write_whole(labels, found.properties, predictor.plans_manager, file)
        _check_written(file, _written_values(predictor.dataset_json), target)
        _put(file, target, now)


def _written_values(dataset: Mapping[str, Any]) -> dict[str, int]:
    """Values that a prediction may hold, by name; of regions, which may overlap, those that they are written as."""
    values = dataset.get("regions_class_order") or np.hstack([*dataset["labels"].values()]).tolist()
    return {str(value): value for value in values}


def write_whole(labels: NDArray[Any], properties: dict[str, Any], plans: Any, file: Path) -> None:
    """Write labels on all voxels of their scan, by nnU-Net's writer.

    Args:
        labels: (Z, Y, X) class values within the box that holds more than zeros, axes as the plans order them.
        properties: of the scan, from nnU-Net's reader and preprocessor.
        plans: nnU-Net's manager of the plans.
        file: to write.
    """
    kind = np.uint8 if labels.max() < 255 else np.uint16
    whole = insert_crop_into_image(
        np.zeros(properties["shape_before_cropping"], kind),
        labels.astype(kind),
        properties["bbox_used_for_cropping"],
    )
    plans.image_reader_writer_class().write_seg(
        whole.transpose(plans.transpose_backward), str(file), properties
    )


def _put(made: Path, target: Path, now: Stamp) -> None:
    """Move a prediction into place. Killed in between, it is not there, and never there without its origin."""
    keep_rights(made, target)
    target.unlink(missing_ok=True)
    write_origin(target, now, made)
    made.replace(target)


def _check_written(path: Path, labels: Mapping[str, int], target: Path) -> None:
    """Read a prediction back: on a full disk ITK cuts the file short and reports success.

    Args:
        path: of the file.
        labels: that it may hold.
        target: where it is to go.

    Raises:
        OSError: the file is not whole, and neither would a file of ours be.
        UserError: the file is not whole, for no known reason.
    """
    try:
        read_mask(path, labels)
    except UserError as error:
        explain_failure(target)
        raise UserError(
            f"The prediction {path.name} could not be written whole to {target.parent}.",
            "Check that disk and run the command again; finished cases are kept.",
        ) from error
