"""Training a run, from the splits to ``run.json``."""

import contextlib
import datetime
import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from ccdcseg import __version__
from ccdcseg.datasets.cases import read_labels
from ccdcseg.datasets.raw_folder import case_files
from ccdcseg.errors import UserError
from ccdcseg.files import LOCK_FILE, content_hash, locked, read_json, write_json
from ccdcseg.methods import METHODS
from ccdcseg.nnunet.history import read_history
from ccdcseg.nnunet.plans import base_plans, preprocess, preset_plans, store_plans
from ccdcseg.nnunet.preset import preset_of_plans
from ccdcseg.nnunet.runs import Run
from ccdcseg.nnunet.seeding import VARIABLE

Progress = Callable[[str, int, int], None]
LATEST = "checkpoint_latest.pth"


def train(run: Run, *, resume: bool, device: str, processes: int, progress: Progress) -> Path:
    """Plan and preprocess what is not there yet, then train.

    Args:
        run: what to train.
        resume: continue an interrupted training.
        device: "cpu", "cuda" or "mps".
        processes: of planning and preprocessing.
        progress: called with a stage's name, steps done and steps in all.

    Returns:
        The run's folder, with nnU-Net's checkpoints, ``history.jsonl`` and ``run.json``.

    Raises:
        UserError: an interrupted training lies there and ``resume`` is not set, one with other settings, or another
            process works on it.
    """
    _check_settings(run)
    with locked(run.folder, "train"):
        if not run.finished:
            _clear_leftovers(run, resume)
            _train(run, device, processes, progress)
    return run.folder


def _train(run: Run, device: str, processes: int, progress: Progress) -> None:
    plans = prepare(run, processes, progress)
    started = datetime.datetime.now(datetime.UTC)
    trainer = _trainer(run, plans, device)
    with _quiet():
        trainer.initialize()
        if (run.folder / LATEST).exists():
            trainer.load_checkpoint(str(run.folder / LATEST))
        _report_steps(trainer, progress)
        trainer.run_training()
    write_json(run.folder / "run.json", _record(run, plans, started, trainer))


def prepare(run: Run, processes: int, progress: Progress) -> dict[str, Any]:
    """Plans and preprocessed data of a run; what exists is kept.

    Trainings started side by side share the folder of preprocessed data, so only one of them prepares at a time.
    """
    run.preprocessed.mkdir(parents=True, exist_ok=True)
    with FileLock(run.preprocessed / ".ccdcseg.lock"):
        return _prepare(run, processes, progress)


def _prepare(run: Run, processes: int, progress: Progress) -> dict[str, Any]:
    progress("plan", 0, 1)
    with _quiet():
        plans = preset_plans(base_plans(run.raw, run.preprocessed, processes), run.plans_name, run.preset)
        store_plans(plans, run.raw, run.preprocessed)
    progress("plan", 1, 1)
    cases = sorted({*run.split["train"], *run.split["val"]})
    preprocess(
        cases,
        run.raw,
        run.preprocessed,
        plans,
        processes,
        lambda done, all_: progress("preprocess", done, all_),
    )
    return plans


def _check_settings(run: Run) -> None:
    """Refuse a folder of other settings."""
    stored = run.model / "plans.json"
    if stored.exists() and preset_of_plans(read_json(stored)) != run.preset:
        raise UserError(
            f"{run.model} was trained with other settings under the same name.",
            "Move that folder away, or give your preset another name.",
        )


def _clear_leftovers(run: Run, resume: bool) -> None:
    """Refuse to overwrite; clear away a training that never reached a checkpoint."""
    if (run.folder / LATEST).exists():
        if not resume:
            raise UserError(
                f"{run.folder} holds an interrupted training.",
                "Continue it with --resume, or remove the folder.",
            )
        return
    for entry in run.folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK_FILE:
            entry.unlink()


def _trainer(run: Run, plans: dict[str, Any], device: str) -> Any:
    from ccdcseg.nnunet.discovery import ccdcseg_trainers  # noqa: PLC0415 - slow

    os.environ[VARIABLE] = str(run.split["seed"])
    trainer_class = getattr(ccdcseg_trainers, METHODS[run.method].trainer)
    with _quiet():
        return trainer_class(
            plans={**plans, "continue_training": (run.folder / LATEST).exists()},
            configuration=run.preset.network.configuration,
            fold=run.fold,
            dataset_json=read_json(run.preprocessed / "dataset.json"),
            device=torch.device(device),
        )


def _report_steps(trainer: Any, progress: Progress) -> None:
    """Call ``progress`` after every optimiser step."""
    step, every = trainer.train_step, trainer.num_iterations_per_epoch
    done = trainer.current_epoch * every

    def counted(batch: Any) -> Any:
        nonlocal done
        result = step(batch)
        done += 1
        progress("train", done, trainer.num_epochs * every)
        return result

    trainer.train_step = counted


def _record(run: Run, plans: dict[str, Any], started: datetime.datetime, trainer: Any) -> dict[str, Any]:
    """What a reader needs to believe, and repeat, the run."""
    epochs = read_history(run.folder)
    dataset = read_json(run.raw / "dataset.json")
    files = [f for case in run.split["train"] for f in case_files(run.raw, case)]
    packages = ("torch", "nnunetv2", "batchgeneratorsv2", "numpy", "SimpleITK", "monai")
    return {
        "format": "ccdcseg-run/1",
        "method": run.method,
        "trainer": METHODS[run.method].trainer,
        "dataset": run.raw.name,
        "synthetic": bool(dataset.get("synthetic", False)),
        "preset": run.preset_name,
        "changes": list(run.changes),
        "plans": plans["plans_name"],
        "fraction": run.split["fraction"],
        "seed": run.split["seed"],
        "fold": run.fold,
        "settings": run.preset.model_dump(mode="json"),
        "patients": run.split["patients"],
        "split_hash": run.split["hash"],
        "labels": read_labels(run.raw),
        "data_hash": content_hash(files),
        "versions": {"ccdcseg": __version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "device": trainer.device.type,
        "precision": trainer.precision,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(sum(epoch["seconds"] for epoch in epochs), 1),
        "iterations": epochs[-1]["iteration"],
        "images": str(run.raw / "imagesTr"),
        "reference": str(run.raw / "labelsTr"),
    }


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep nnU-Net's messages and bars off the screen; its log file in the run's folder has them."""
    with contextlib.redirect_stdout(StringIO()), contextlib.redirect_stderr(StringIO()):
        yield
