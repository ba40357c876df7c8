"""``ccdcseg``, but trainings of CCDC that differ only after the term's start share the steps before it.

    python study/shared_start.py train 27 --seed 0 --set ccdc.start_iteration=1200 --set ccdc.weight=0.3

Until ``start_iteration`` the term is zero, so such trainings are equal bit for bit (on one processor, with one
number of threads). The first one keeps its checkpoint at the start in ``shared_start``, in the dataset's results;
the others begin there, if the start falls on a checkpoint. ``ccdc.weight=0`` is plain nnU-Net this way.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ccdcseg.cli import main
from ccdcseg.files import json_hash
from ccdcseg.nnunet import train, trainers
from ccdcseg.nnunet.preset import Preset
from ccdcseg.nnunet.runs import Run

FILES = ("history.jsonl", train.LATEST)
BEFORE_THE_START = (
    "start_iteration",
    "hidden_channels",
    "embedding_channels",
    "head_normalisation",
    "statistics_momentum",
)
"""Settings of the term that matter before its start."""

plain_check = train._check_begun
plain_save = trainers.nnUNetTrainerCCDC.save_checkpoint
plain_load = trainers.nnUNetTrainerCCDC.load_checkpoint


@contextmanager
def shared_starts() -> Iterator[None]:
    """Trainings of CCDC inside share their starts."""
    ccdc = trainers.nnUNetTrainerCCDC
    with (
        patch.object(train, "_check_begun", check_or_begin),
        patch.object(ccdc, "save_checkpoint", save_and_keep),
        patch.object(ccdc, "load_checkpoint", load_under_own_settings),
    ):
        yield


def check_or_begin(run: Run, resume: bool) -> None:
    """A training that has no checkpoint yet gets the kept one."""
    plain_check(run, resume)
    kept = run.results / "shared_start" / key(run.preset, run.fold)
    if run.method == "ccdc" and kept.is_dir() and not (run.folder / train.LATEST).exists():
        for name in FILES:
            shutil.copyfile(kept / name, run.folder / name)


def save_and_keep(trainer: Any, filename: str) -> None:
    """Keep the checkpoint at the start."""
    plain_save(trainer, filename)
    done = (trainer.current_epoch + 1) * trainer.num_iterations_per_epoch
    folder = Path(trainer.output_folder)
    kept = folder.parents[1] / "shared_start" / key(trainer.preset, trainer.fold)
    if (
        Path(filename).name == train.LATEST
        and done == trainer.preset.ccdc.start_iteration
        and not kept.exists()
    ):
        keep(folder, kept)


def keep(folder: Path, kept: Path) -> None:
    """Whole or not at all; where two trainings pass the start at once, the first one's stays."""
    partial = folder / "shared_start.partial"
    partial.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copyfile(folder / name, partial / name)
    kept.parent.mkdir(exist_ok=True)
    try:
        partial.rename(kept)
    except OSError:
        if not kept.exists():
            raise
        shutil.rmtree(partial)


def load_under_own_settings(trainer: Any, filename: Any) -> None:
    """The checkpoint brings the settings of the training that wrote it."""
    own = trainer.my_init_kwargs
    plain_load(trainer, filename)
    trainer.my_init_kwargs = own


def key(preset: Preset, fold: int) -> str:
    """What trainings with the same steps before the start have in common."""
    settings = preset.model_dump(mode="json", exclude={"description", "ccdc"})
    return json_hash({**settings, "fold": fold, **{n: getattr(preset.ccdc, n) for n in BEFORE_THE_START}})


if __name__ == "__main__":
    with shared_starts():
        main()
