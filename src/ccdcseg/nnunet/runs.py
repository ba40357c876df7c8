"""A run: one method trained with one preset on one split of one dataset, and the folder it lives in."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ccdcseg.datasets.cases import dataset_folder, dataset_names, read_labels
from ccdcseg.datasets.folds import add_folds
from ccdcseg.datasets.sides import UNMIRRORED, sides
from ccdcseg.datasets.splits import SPLITS_FILE, find_fold, only_fraction, unlabelled_images, unlabelled_split
from ccdcseg.datasets.walk import entries, is_hidden
from ccdcseg.errors import UserError
from ccdcseg.files import absolute, check_name, real
from ccdcseg.methods import METHODS
from ccdcseg.networks.nnformer import check_patch
from ccdcseg.nnunet.paths import check_environment, nnunet_folder
from ccdcseg.nnunet.preset import FEW, STRONG, LabelledShare, Preset, Training, load_preset
from ccdcseg.runs.record import RUN_FILE, RunRecord, no_run, read_record
from ccdcseg.texts import listed

TEACHERS = 3
"""Networks that label scans without masks in self-training."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """Everything that tells one training from another.

    Attributes:
        raw: nnU-Net raw folder of the dataset.
        preprocessed: its preprocessed folder.
        results: its results folder.
        method: key of `METHODS`.
        preset_name: as given.
        changes: to the preset, ``key=value``.
        preset: resolved settings; the labelled share is the split's, the preset's own is put back to its default.
        plans_name: name of the plans that hold them; different settings, different name.
        fold: nnU-Net's number of the split.
        split: entry of ``splits_final.json``.
    """

    raw: Path
    preprocessed: Path
    results: Path
    method: str
    preset_name: str
    changes: tuple[str, ...]
    preset: Preset
    plans_name: str
    fold: int
    split: dict[str, Any]

    @property
    def seed(self) -> int:
        """Of weights, batches and draws."""
        seed: int = self.split["seed"] if self.preset.training.seed is None else self.preset.training.seed
        return seed

    @property
    def model(self) -> Path:
        """nnU-Net's folder of the trainer, plans and configuration."""
        trainer = METHODS[self.method].trainer
        return self.results / f"{trainer}__{self.plans_name}__{self.preset.network.configuration}"

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.model / f"fold_{self.fold}"

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return (self.folder / RUN_FILE).exists()


def resolve_run(
    dataset: str,
    method: str,
    fraction: float | None,
    seed: int,
    preset: str,
    changes: Sequence[str] = (),
    *,
    unlabelled: bool = False,
    self_training: bool = False,
) -> Run:
    """Find dataset, split and settings.

    Args:
        dataset: its id or name.
        method: key of `METHODS`.
        fraction: of the split; None: that of all splits there are, or else the preset's first.
        seed: of the split and the training.
        preset: name or path of a preset.
        changes: to it, ``key=value``.
        unlabelled: scans without masks take part, whatever the preset says; with some methods they always do.
        self_training: they take part, and `TEACHERS` other networks label them, unless the preset says how many.

    Raises:
        UserError: whatever of it does not exist, or the method's term would never act.
    """
    if method not in METHODS:
        raise UserError(f"There is no method {method}.", f"Choose one of {', '.join(METHODS)}.")
    raw = dataset_folder(nnunet_folder("nnUNet_raw"), dataset)
    label, settings = load_preset(preset, changes)
    if fraction is None:
        fraction = only_fraction(raw) or settings.labelled.fractions[0]
    fold, split = find_fold(raw, fraction, seed)
    if own := _of_the_data(settings.training, raw, split):
        changes = (*changes, *own)
        label, settings = load_preset(preset, changes)
    unlabelled = unlabelled or METHODS[method].needs_unlabelled
    if self_training and settings.unlabelled.teachers is None:
        label, settings = f"{label}_selftraining", _with(settings, "unlabelled", use=True, teachers=TEACHERS)
    elif (unlabelled or self_training) and not settings.unlabelled.use:
        label, settings = f"{label}_unlabelled", _with(settings, "unlabelled", use=True)
    _check_start(method, settings)
    _check_patch(method, settings)
    for path in (path for part in ("imagesTr", "labelsTr") for path in entries(raw / part)):
        check_name(path)
    run = Run(
        raw=raw,
        preprocessed=nnunet_folder("nnUNet_preprocessed") / raw.name,
        results=nnunet_folder("nnUNet_results") / raw.name,
        method=method,
        preset_name=preset,
        changes=tuple(changes),
        preset=settings.model_copy(update={"labelled": LabelledShare()}),
        plans_name=f"ccdcseg_{label}",
        fold=fold,
        split=split,
    )
    if settings.unlabelled.use:
        (unlabelled_images if run.finished else unlabelled_split)(raw, raw / SPLITS_FILE, fold)
    return run


def _of_the_data(training: Training, raw: Path, split: Mapping[str, Any]) -> list[str]:
    """Changes to settings that a preset leaves to the data: of mirroring, and of augmentation."""
    unmirrored = training.mirroring is None and sides(read_labels(raw))
    strong = training.augmentation is None and len(split["patients"]["train"]) <= FEW
    return [*([UNMIRRORED] if unmirrored else []), *([STRONG] if strong else [])]


def folds_of(run: Run, folds: int) -> list[Run]:
    """The same training on all but a fold of the split's training patients, fold by fold: ordinary runs.

    Raises:
        UserError: as `ccdcseg.datasets.folds.add_folds`, or the training takes scans without masks.
    """
    if run.preset.unlabelled.use:
        raise UserError(
            f"{run.method} with {run.preset_name} trains on scans without masks, which folds have none of.",
            "Take another --method."
            if METHODS[run.method].needs_unlabelled
            else "Give --set unlabelled.use=false.",
        )
    return [replace(run, fold=fold, split=entry) for fold, entry in add_folds(run.raw, run.split, folds)]


def teachers_of(run: Run) -> list[Run]:
    """The trainings on annotated scans alone whose networks label the others in self-training; else none.

    They are ordinary runs: the first is what ``ccdcseg train`` without further words gives, the others differ from
    it by ``training.seed``.
    """
    if not run.preset.unlabelled.use or run.preset.unlabelled.teachers is None:
        return []
    seeds = [run.seed + 1 + i for i in range(run.preset.unlabelled.teachers - 1)]
    return [_teacher(run, changes) for changes in ([], *([f"training.seed={seed}"] for seed in seeds))]


def _teacher(run: Run, changes: Sequence[str]) -> Run:
    """The run on the same split without scans that have no masks, with changes."""
    own = [change for change in run.changes if not change.startswith("unlabelled.")]
    without = ["unlabelled.use=false"] if load_preset(run.preset_name, own)[1].unlabelled.use else []
    changes = (*own, *without, *changes)
    label, settings = load_preset(run.preset_name, changes)
    return replace(
        run,
        method=METHODS[run.method].section,
        changes=changes,
        preset=settings.model_copy(update={"labelled": LabelledShare()}),
        plans_name=f"ccdcseg_{label}",
    )


def _with(preset: Preset, section: str, **values: Any) -> Preset:
    """A preset with other values in one section."""
    return preset.model_copy(update={section: getattr(preset, section).model_copy(update=values)})


def _check_start(method: str, preset: Preset) -> None:
    """Refuse a contrastive term that sets in when the training is over: that would be plain nnU-Net."""
    section, steps = METHODS[method].section, preset.training.steps
    start: int = getattr(getattr(preset, section, None), "start_iteration", 0)
    if start >= steps:
        raise UserError(
            f"{section}.start_iteration is {start}, and the training has {steps} steps: the term would never act.",
            f"For a start at half time: --set {section}.start_iteration={steps // 2}",
        )


def _check_patch(method: str, preset: Preset) -> None:
    """Refuse a patch that nnFormer cannot take, before anything is planned for it."""
    network = preset.network
    if method == "nnformer" and (network.patch_size or network.configuration == "2d"):
        check_patch(network.patch_size or (), preset.nnformer)


def find_runs(target: str, part: str | None = None) -> list[Path]:
    """Folders of finished runs: one given by its path, or all of a dataset but for folds (`folds_of`).

    Args:
        target: path, id or name.
        part: "test" or "validation": of a dataset, runs without patients for it are left out, and a warning names
            them.

    Raises:
        UserError: there is none, or none that can be read.
    """
    check_environment()
    path = absolute(Path(target))
    if (path / RUN_FILE).exists():
        return [path if (path.parent / "plans.json").exists() else real(path)]  # a link from elsewhere
    raw_root = nnunet_folder("nnUNet_raw")
    if _means_folder(target) and target not in dataset_names(raw_root):
        raise no_run(path)
    raw = dataset_folder(raw_root, target)
    results = nnunet_folder("nnUNet_results") / raw.name
    records = {folder: read_record(folder) for folder in _finished(results)}
    runs = {folder: record for folder, record in records.items() if record.fold_of is None}
    if not runs:
        raise UserError(
            f"{results} holds no finished training.", f"Train first: ccdcseg train {target} --method ccdc"
        )
    found = _with_patients(runs, part) if part else runs
    return sorted(found, key=lambda folder: _order(folder, runs[folder]))


def _finished(results: Path) -> list[Path]:
    """Folders of finished runs, sorted; a warning names those that this user may not look into.

    Raises:
        UserError: there are no others.
    """
    refusals: dict[Path, UserError] = {}
    models = [path for path in entries(results) if not is_hidden(path.name)]
    folds = [path for model in models for path in _inside(model, refusals) if path.name.startswith("fold_")]
    finished = [fold for fold in folds if fold / RUN_FILE in _inside(fold, refusals)]
    if refusals and not finished:
        raise next(iter(refusals.values()))
    if refusals:
        logger.warning("Left out, since they cannot be read: %s.", listed([*refusals]))
    return finished


def _inside(folder: Path, refusals: dict[Path, UserError]) -> list[Path]:
    """What lies in a folder; one that cannot be read is noted down."""
    try:
        return entries(folder)
    except UserError as refusal:
        refusals[folder] = refusal
        return []


def _with_patients(runs: Mapping[Path, RunRecord], part: str) -> list[Path]:
    """Runs whose split has patients for a part; a warning names the others."""
    found = [folder for folder, record in runs.items() if getattr(record.patients, part)]
    others = listed([folder for folder in runs if folder not in found])
    if not found:
        test = " --test N" if part == "validation" else ""
        raise UserError(
            f"The splits of all runs have no patients for {part}: {others}.",
            "Predict other scans, ccdcseg predict RUN --input IMAGES --output FOLDER, or draw and train on a split "
            f"that has some, such as --fraction 0.5{test}.",
        )
    if others:
        logger.warning("Left out, since their splits have no patients for %s: %s.", part, others)
    return found


def _means_folder(target: str) -> bool:
    """Whether a target is a path rather than a data set, unless one has this name."""
    return not target.isdecimal() and (Path(target).name != target or Path(target).is_dir())


def _order(folder: Path, run: RunRecord) -> tuple[Any, ...]:
    return run.fraction, run.preset, run.method != "nnunet", run.method, run.seed, folder.name
