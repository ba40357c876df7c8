"""Training a run, from the splits to ``run.json``."""

import datetime
import logging
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ccdcseg import __version__
from ccdcseg.cores import keep_to_cores, usable_cores
from ccdcseg.datasets.cases import read_labels
from ccdcseg.datasets.raw_folder import case_files
from ccdcseg.datasets.sides import MIRRORED, UNMIRRORED, in_pairs, sides
from ccdcseg.datasets.splits import FOLD_OF, SPLITS_FILE, read_entries, unlabelled_split
from ccdcseg.datasets.usable import check_description
from ccdcseg.datasets.volumes import other_axes, stored_axes
from ccdcseg.datasets.walk import is_hidden
from ccdcseg.devices import usable_device
from ccdcseg.errors import UserError
from ccdcseg.files import (
    check_writable,
    content_hash,
    file_hash,
    locked,
    read_json,
    remove_leftovers,
    write_json,
)
from ccdcseg.methods import METHODS
from ccdcseg.nnunet.checkpoints import FINAL, OWN_KEY, load_checkpoint
from ccdcseg.nnunet.memory import within_memory
from ccdcseg.nnunet.paths import check_logger, nnunet_folder
from ccdcseg.nnunet.plans import (
    base_plans,
    check_stored,
    plans_hash,
    preprocess,
    preprocess_unlabelled,
    preprocessed_folder,
    preset_plans,
    store_plans,
)
from ccdcseg.nnunet.preset import FEW, STRONG
from ccdcseg.nnunet.rules import read_rules
from ccdcseg.nnunet.runs import Run, teachers_of
from ccdcseg.nnunet.seeding import VARIABLE
from ccdcseg.nnunet.stock import stock_nnunet
from ccdcseg.nnunet.trained import (
    WITHOUT_MASKS,
    check_same,
    check_trained,
    has_other_settings,
    scans_without_masks,
    training_scans,
)
from ccdcseg.processes import end_forks_with_this_process
from ccdcseg.provenance import contents_hash, origin_file
from ccdcseg.runs.history import Epoch, labels_folder, read_history
from ccdcseg.runs.record import (
    BEGUN_FILE,
    Begun,
    FoldOf,
    Known,
    Patients,
    RunRecord,
    read_begun,
    write_record,
)

Progress = Callable[..., None]
"""Called with a stage's name, steps done, steps in all and, in a training, how it goes."""
LATEST = "checkpoint_latest.pth"

logger = logging.getLogger(__name__)


def train(run: Run, *, resume: bool, device: str, processes: int, progress: Progress) -> Path:
    """Plan and preprocess what is not there yet, then train.

    A training that came to its last checkpoint but not to its record gets the record and is not trained again. In
    self-training the teachers (`teachers_of`) are trained first, those interrupted continued, unless others do.

    Args:
        run: what to train.
        resume: continue an interrupted training; where another process works on it, wait until it has ended.
        device: "cpu", "cuda", "mps" or "auto"; see `usable_device`.
        processes: of planning and preprocessing.
        progress: called with a stage's name, steps done and steps in all.

    Returns:
        The run's folder, with nnU-Net's checkpoints, ``history.jsonl`` and ``run.json``.

    Raises:
        UserError: an interrupted training lies there and ``resume`` is not set, one with other settings or one that
            was not begun here, the split was drawn anew since it was chosen, another process works on the folder
            and ``resume`` is not set, there is no such device or its memory is full, or nnU-Net's log cannot be
            kept as the environment says (`check_logger`).
    """
    device = usable_device(device)
    _check_settings(run)
    if not run.finished:
        with locked(run.folder, "train", wait=resume):
            if not run.finished:
                _check_begun(run, resume)
                if not (run.folder / FINAL).exists():
                    _train(run, device, processes, progress)
                _finish(run)
    check_trained(run)
    return run.folder


def _train_teachers(run: Run, device: str, processes: int, progress: Progress) -> None:
    teachers = teachers_of(run)
    if teachers:
        prepare(run, processes, progress)  # refuses what cannot be trained on before hours are spent
    for number, teacher in enumerate(teachers, 1):
        name = f"teacher {number} of {len(teachers)}"
        train(
            teacher,
            resume=True,
            device=device,
            processes=processes,
            progress=lambda stage, *rest, name=name: progress(f"{name}: {stage}", *rest),
        )


def _train(run: Run, device: str, processes: int, progress: Progress) -> None:
    check_logger()
    end_forks_with_this_process()
    keep_to_cores()
    _train_teachers(run, device, processes, progress)
    _say_unmirrored(run)
    _say_strong(run)
    plans = prepare(run, processes, progress)
    _check_place(run, plans)
    _check_plans(run, plans)
    record = _record(run, plans, device, _preprocessed(run, plans))
    if (run.folder / LATEST).exists() and (run.folder / BEGUN_FILE).exists():
        check_same(run, read_begun(run.folder), "was begun")
        _warn_of_threads(run, record)
    begun = (run.folder / BEGUN_FILE).exists()
    write_json(run.folder / BEGUN_FILE, record.content)
    try:
        trainer = _trainer(run, plans, device)
    except UserError:
        if not begun:
            (run.folder / BEGUN_FILE).unlink()
        raise
    with stock_nnunet(), within_memory(run.folder, device):
        trainer.initialize()
        if (run.folder / LATEST).exists():
            trainer.load_checkpoint(str(run.folder / LATEST))
        _report_steps(trainer, progress)
        trainer.run_training()


def _finish(run: Run) -> None:
    """Write the record of a training whose last checkpoint is there.

    Raises:
        UserError: while it trained, scans were changed and preprocessed again.
    """
    begun, rules = read_begun(run.folder), read_rules(run.folder)
    for case, today in _preprocessed(run, read_json(run.model / "plans.json")).items():
        if today != begun.preprocessed.get(case, today):
            raise UserError(
                f"The scan {case} was changed and preprocessed again while {run.folder} was trained on it.",
                "Move that folder away, then train again.",
            )
    record = RunRecord.model_validate(
        {
            **begun.known,
            "precision": load_checkpoint(run.folder / FINAL)[OWN_KEY]["precision"],
            "seconds": round(sum(epoch.seconds for epoch in read_history(run.folder)), 1),
            "iterations": run.preset.training.steps,
            **({} if rules is None else {"postprocessing": rules}),
        }
    )
    write_record(run.folder, record)
    (run.folder / LATEST).unlink(missing_ok=True)


def prepare(run: Run, processes: int, progress: Progress) -> dict[str, Any]:
    """Plans and preprocessed data of a run; what exists is kept.

    Trainings started side by side share the folder of preprocessed data, so only one of them prepares at a time. A
    folder that cannot be written to serves where it is complete.
    """
    with _held(run.preprocessed):
        return _prepare(run, processes, progress)


def _held(folder: Path) -> AbstractContextManager[None]:
    """Keep others from writing into a folder, where anybody can."""
    try:
        check_writable(folder)
    except OSError:
        return nullcontext()
    return locked(folder, "train", wait=True)


def _prepare(run: Run, processes: int, progress: Progress) -> dict[str, Any]:
    _check_split(run, run.raw)
    check_stored(run.plans_name, run.raw, run.preprocessed)
    check_description(run.raw)
    progress("plan", 0, 1)
    with stock_nnunet():
        plans = preset_plans(base_plans(run.raw, run.preprocessed, processes), run.plans_name, run.preset)
        store_plans(plans, run.raw, run.preprocessed)
    progress("plan", 1, 1)
    cases = sorted({*run.split["train"], *run.split["val"]})
    preprocess(cases, run.raw, run.preprocessed, plans, processes, partial(progress, "preprocess"))
    if run.preset.unlabelled.use:
        _warn_of_axes(run)
        preprocess_unlabelled(
            unlabelled_split(run.raw, run.raw / SPLITS_FILE, run.fold),
            preprocessed_folder(run.preprocessed, plans, unlabelled=True),
            plans,
            read_json(run.raw / "dataset.json"),
            processes,
            partial(progress, "unlabelled"),
        )
    return plans


def _check_split(run: Run, place: Path) -> None:
    """Refuse to train on another split than the run's, which was chosen when the command began."""
    path = place / SPLITS_FILE
    if read_entries(path)[run.fold : run.fold + 1] != [run.split]:
        raise UserError(
            f"Fold {run.fold} of {path} is another split since this command began: it was drawn anew.",
            "Give the command again.",
        )


def _check_settings(run: Run) -> None:
    """Refuse a folder of other settings."""
    if has_other_settings(run):
        raise UserError(
            f"{run.model} was trained with other settings under the same name.",
            "Move that folder away, or give your preset another name.",
        )


def _check_place(run: Run, plans: dict[str, Any]) -> None:
    """Refuse to train where nnU-Net would write into other folders than the run's, maybe over a finished one."""
    for variable, ours in (("nnUNet_preprocessed", run.preprocessed), ("nnUNet_results", run.results)):
        if (place := nnunet_folder(variable) / plans["dataset_name"]) != ours:
            raise UserError(
                f"{variable} was changed since this command began: nnU-Net would work in {place}, not in {ours}.",
                "Give the command again.",
            )


def _check_plans(run: Run, plans: dict[str, Any]) -> None:
    """Refuse a folder whose other folds have another network, input or labels: nnU-Net keeps one file for all."""
    stored = run.model / "plans.json"
    if stored.exists() and plans_hash(read_json(stored)) != plans_hash(plans):
        raise UserError(
            f"{run.model} was trained with other plans: nnU-Net plans otherwise since the scans were changed.",
            "Move that folder away, then train again.",
        )
    if (run.model / "dataset.json").exists() and read_labels(run.model) != read_labels(run.raw):
        raise UserError(
            f"{run.model} was trained with other labels: {run.raw / 'dataset.json'} was changed since.",
            "Move that folder away, then train again.",
        )


def _warn_of_axes(run: Run) -> None:
    """Say which scans without masks are stored along other axes than the annotated ones."""
    axes = {name: stored_axes(files[0]) for name, files in scans_without_masks(run).items()}
    if told := other_axes(axes, _axes(run), "scans without masks", "the annotated ones"):
        logger.warning("%s: reorient them, or move them to another folder.", told)


def _warn_of_threads(run: Run, record: Known) -> None:
    """Say where a training is continued with another number of threads than it was begun with."""
    begun = read_begun(run.folder)
    if record.device == begun.device == "cpu" and record.threads != begun.threads:
        logger.warning(
            "%s was begun with %s threads and goes on with %s: no training with either number ends like it.",
            run.folder,
            begun.threads,
            record.threads,
        )


def _say_unmirrored(run: Run) -> None:
    """Say where a training does not mirror since two classes differ by their side alone."""
    pairs = sides(read_labels(run.raw))
    if pairs and UNMIRRORED in run.changes:
        logger.warning("%s: patches and predictions are not mirrored. %s", in_pairs(pairs), MIRRORED)


def _say_strong(run: Run) -> None:
    """Say where a training changes patches more than nnU-Net does since few patients are annotated."""
    count = len(run.split["patients"]["train"])
    if STRONG in run.changes and count <= FEW:
        logger.warning(
            "%d annotated patient%s: patches are changed as nnU-Net's nnUNetTrainerDA5 does. "
            "--set training.augmentation=nnunet changes them as usual.",
            count,
            "s" if count > 1 else "",
        )


def _axes(run: Run) -> tuple[str, ...]:
    """Where the axes of the annotated scans point, each way once."""
    images = (image for case in run.split["train"] for image in case_files(run.raw, case)[:-1])
    return tuple(sorted({axes for image in images if (axes := stored_axes(image))}))


def _teachers(run: Run) -> dict[str, str]:
    """SHA-256 of the networks of the teachers."""
    return {
        f"{teacher.model.name}/{teacher.folder.name}": file_hash(teacher.folder / FINAL)
        for teacher in teachers_of(run)
    }


def _preprocessed(run: Run, plans: dict[str, Any]) -> dict[str, str]:
    """A hash of what each preprocessed scan that is there was made from."""
    annotated, others = (
        preprocessed_folder(run.preprocessed, plans, unlabelled=one) for one in (False, True)
    )
    scans = {case: annotated / case for case in run.split["train"]} | {
        f"{WITHOUT_MASKS}/{name}": others / name for name in scans_without_masks(run)
    }
    return {case: contents_hash(scan) for case, scan in scans.items() if origin_file(scan).exists()}


def _check_begun(run: Run, resume: bool) -> None:
    """Refuse a training that was not begun here, and one that is to be continued without ``resume``.

    No whole file is removed: a training that begins anew writes over what one without a checkpoint left.
    """
    folder = run.folder
    remove_leftovers(folder)
    remove_leftovers(labels_folder(folder, 0).parent)
    if all(is_hidden(entry.name) for entry in folder.iterdir()):  # locks, and tries of others to have one
        return
    if not (folder / BEGUN_FILE).exists():
        _adopt(run)
    if (folder / LATEST).exists() and not resume and not (folder / FINAL).exists():
        raise UserError(
            f"{folder} holds an interrupted training.",
            "Continue it with --resume, or move the folder away.",
        )


def _adopt(run: Run) -> None:
    """Take a training of an earlier version, which left no mark, for begun here.

    `ccdcseg train` seeds each training, and nnU-Net notes the seed.
    """
    notes = run.folder / "debug.json"
    if not notes.exists() or read_json(notes).get("seed") != str(run.split["seed"]):
        raise UserError(
            f"{run.folder} holds what `ccdcseg train` did not begin, such as a training by nnUNetv2_train.",
            "Move that folder away, then train again.",
        )
    if (run.folder / LATEST).exists() or (run.folder / FINAL).exists():
        logger.warning(
            "%s was begun by an earlier version: whether with the scans and the split of today is not known.",
            run.folder,
        )
    record = _record(
        run, read_json(run.model / "plans.json"), torch.device(read_json(notes)["device"]).type, {}
    )
    write_json(run.folder / BEGUN_FILE, record.content)


def _trainer(run: Run, plans: dict[str, Any], device: str) -> Any:
    from ccdcseg.nnunet.discovery import ccdcseg_trainers  # noqa: PLC0415 - slow

    os.environ[VARIABLE] = str(run.seed)
    trainer_class = getattr(ccdcseg_trainers, METHODS[run.method].trainer)
    with stock_nnunet():
        trainer = trainer_class(
            plans={**plans, "continue_training": (run.folder / LATEST).exists()},
            configuration=run.preset.network.configuration,
            fold=run.fold,
            dataset_json=read_json(run.preprocessed / "dataset.json"),
            device=torch.device(device),
        )
    trainer.teachers = [teacher.folder for teacher in teachers_of(run)]
    trainer.do_split = partial(_split, run)
    trainer.recorded = True
    return trainer


def _split(run: Run) -> tuple[list[str], list[str]]:
    """Cases for training and validation, which nnU-Net reads from a file that trainings share."""
    _check_split(run, run.preprocessed)
    return run.split["train"], run.split["val"]


def _report_steps(trainer: Any, progress: Progress) -> None:
    """Call ``progress`` after every optimiser step, and for what the trainer reports beside them."""
    step, every = trainer.train_step, trainer.num_iterations_per_epoch
    done = trainer.current_epoch * every

    def counted(batch: Any) -> Any:
        nonlocal done
        result = step(batch)
        done += 1
        progress("train", done, trainer.num_epochs * every, _state(trainer.history))
        return result

    trainer.report = progress
    trainer.train_step = counted


def _state(history: Sequence[Epoch]) -> str:
    """Loss and pseudo-Dice of the last epoch, in words."""
    if not history or history[-1].train_loss is None:
        return ""
    scores = [score for score in history[-1].pseudo_dice.values() if score is not None]
    dice = f", pseudo-Dice {100 * sum(scores) / len(scores):.1f} %" if scores else ""
    return f"loss {history[-1].train_loss:.3f}{dice}"


def _record(run: Run, plans: dict[str, Any], device: str, preprocessed: dict[str, str]) -> Begun:
    """What a reader needs to believe, and repeat, the run, as far as it is known before the training."""
    dataset, scans = read_json(run.raw / "dataset.json"), training_scans(run)
    packages = ("torch", "nnunetv2", "batchgeneratorsv2", "numpy", "SimpleITK")
    return Begun(
        format="ccdcseg-run/1",
        method=run.method,
        trainer=METHODS[run.method].trainer,
        dataset=run.raw.name,
        synthetic=bool(dataset.get("synthetic", False)),
        preset=run.preset_name,
        changes=run.changes,
        plans=run.plans_name,
        fraction=run.split["fraction"],
        seed=run.split["seed"],
        fold=run.fold,
        settings=run.preset.model_dump(mode="json"),
        patients=Patients.model_validate(run.split["patients"]),
        split_hash=run.split["hash"],
        labels=read_labels(run.raw),
        data_hash=content_hash(scans.values()),
        scans={name: file_hash(file) for name, file in scans.items()},
        plans_hash=plans_hash(plans),
        axes=_axes(run),
        versions={"ccdcseg": __version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        device=device,
        machine=f"{platform.machine()}, {usable_cores()} cores, {torch.get_num_threads()} threads",
        started=_started(run),
        images=run.raw / "imagesTr",
        reference=run.raw / "labelsTr",
        teachers=_teachers(run),
        preprocessed=preprocessed,
        **({FOLD_OF: FoldOf.model_validate(run.split[FOLD_OF])} if FOLD_OF in run.split else {}),
    )


def _started(run: Run) -> str:
    """When the training began that a checkpoint continues; else now."""
    if (run.folder / LATEST).exists() and (run.folder / BEGUN_FILE).exists():
        return read_begun(run.folder).started
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
