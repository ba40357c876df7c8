"""Which scans are predicted: those of a run's split, or of any folder."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ccdcseg.datasets.cases import CASES_FILE, image_files, scan_of
from ccdcseg.datasets.splits import part_cases
from ccdcseg.datasets.unicode_names import missing
from ccdcseg.datasets.volumes import other_axes, stored_axes
from ccdcseg.datasets.walk import is_hidden
from ccdcseg.errors import UserError
from ccdcseg.files import check_name, read_json
from ccdcseg.nnunet.models import check_fits
from ccdcseg.runs.record import RUN_FILE, read_record

logger = logging.getLogger(__name__)


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
    files = channel_files(folder, case, dataset)
    for file in files:
        check_name(file)
        if not file.exists():
            raise missing(file, remedy)
    return files


def channel_files(folder: Path, case: str, dataset: Mapping[str, Any]) -> list[Path]:
    """The image files of a case as nnU-Net names them, one a channel, whether they are there or not.

    Args:
        folder: of images.
        case: its name.
        dataset: content of the model's ``dataset.json``.
    """
    return image_files(folder, case, dataset["file_ending"], len(dataset["channel_names"]))
