"""Whether a training is one of today: of the same split, scans, labels, channels, settings, plans and teachers."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ccdcseg.datasets.cases import read_channels
from ccdcseg.datasets.raw_folder import case_files
from ccdcseg.datasets.splits import SPLITS_FILE, unlabelled_images
from ccdcseg.errors import UserError
from ccdcseg.files import content_hash, file_hash, read_json
from ccdcseg.nnunet.checkpoints import FINAL
from ccdcseg.nnunet.plans import normalisations, plans_hash
from ccdcseg.nnunet.preset import identity, preset_of_plans
from ccdcseg.nnunet.runs import Run
from ccdcseg.runs.record import Known, read_record

WITHOUT_MASKS = "unlabelled"
"""In place of a folder's name, which may be that of the annotated scans, before names of scans without masks."""
REMEDY = "Move what lies there out of nnUNet_results to train again, or put back what was changed."


def check_trained(run: Run) -> None:
    """See that a finished training is one of today.

    Raises:
        UserError: as `check_same`.
    """
    check_same(run, read_record(run.folder), "was trained")


def check_same(run: Run, record: Known, what: str) -> None:
    """Refuse a training of something else than today's.

    Args:
        run: as it would be trained today.
        record: what is written down of it.
        what: "was trained" or "was begun".

    Raises:
        UserError: it is of other splits, scans, labels, channels, settings, plans or teachers.
    """
    if changed := changed_since(run, record):
        raise UserError(f"{run.folder} {what} {changed}.", REMEDY)


def changed_since(run: Run, record: Known) -> str:
    """What a training is of that is another today; empty where nothing is. Scans that are gone are not compared.

    Args:
        run: as it would be trained today.
        record: what is written down of it; old ones name neither their scans one by one nor their plans.

    Returns:
        Such as "on other scans: labelsTr/a.nii.gz was changed since".
    """
    return next(_changes(run, record), "")


def _changes(run: Run, record: Known) -> Iterator[str]:
    if changed := record.changed_since(run.raw, run.split["hash"]):
        yield changed
    if changed := _changed_scan(run, record):
        yield f"on other scans: {changed} was changed since"
    if _other_channels(run):
        yield f"with other channels: {run.raw / 'dataset.json'} was changed since"
    if has_other_settings(run):
        yield "with other settings under the same name"
    plans = run.preprocessed / f"{run.plans_name}.json"
    if record.plans_hash and plans.exists() and plans_hash(read_json(plans)) != record.plans_hash:
        yield "with other plans: nnU-Net planned anew since"
    for name, digest in record.teachers.items():
        if (network := run.results / name / FINAL).exists() and file_hash(network) != digest:
            yield f"with other teachers: {name} was trained anew since"


def has_other_settings(run: Run) -> bool:
    """Whether a model of the run's name was trained with other settings, as by a preset that was another before."""
    stored = run.model / "plans.json"
    return stored.exists() and identity(preset_of_plans(read_json(stored))) != identity(run.preset)


def _other_channels(run: Run) -> bool:
    """Whether nnU-Net would normalise a channel otherwise than it did for the model: by its name alone."""
    if not (run.model / "dataset.json").exists():
        return False
    before, today = _as_listed(run.model), _as_listed(run.raw)
    return before != today and normalisations(before) != normalisations(today)


def _as_listed(folder: Path) -> tuple[str, ...]:
    """Names of the channels in the order of the text, in which nnU-Net normalises them; earlier versions let it."""
    names = read_channels(folder)
    return tuple(names[int(number)] for number in read_json(folder / "dataset.json")["channel_names"])


def training_scans(run: Run) -> dict[str, Path]:
    """Images and masks that a run is trained on, by folder and name; those without masks: ``unlabelled/NAME``."""
    annotated = [file for case in run.split["train"] for file in case_files(run.raw, case)]
    others = [file for files in scans_without_masks(run).values() for file in files]
    return _by_folder(annotated) | {f"{WITHOUT_MASKS}/{file.name}": file for file in others}


def scans_without_masks(run: Run) -> dict[str, list[Path]]:
    """Images of those that a run is trained on, by name; none where they take no part."""
    if not run.preset.unlabelled.use:
        return {}
    return unlabelled_images(run.raw, run.raw / SPLITS_FILE, run.fold)


def _by_folder(files: Iterable[Path]) -> dict[str, Path]:
    return {f"{file.parent.name}/{file.name}": file for file in files}


def _changed_scan(run: Run, record: Known) -> str:
    scans = training_scans(run)
    if record.scans and record.scans.keys() == (before := _by_folder(scans.values())).keys():
        scans = before  # records of earlier versions name all by their folders
    there = {name: file for name, file in scans.items() if file.exists()}
    if record.scans is None:
        same = len(there) < len(scans) or content_hash(scans.values()) == record.data_hash
        return "" if same else "one of them"
    if other := scans.keys() ^ record.scans.keys():
        return min(other)
    return next((name for name, file in there.items() if file_hash(file) != record.scans[name]), "")
