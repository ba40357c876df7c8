"""Whether nnU-Net can train on a raw folder and read its scans, asked before it does."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from functools import partial
from pathlib import Path

from ccdcseg.datasets.cases import (
    NUMBERING_REMEDY,
    numbering_fault,
    read_channels,
    read_ignore_label,
    read_labels,
)
from ccdcseg.datasets.raw_folder import case_files, case_names
from ccdcseg.datasets.volumes import check_channels, check_pair, read_image, read_mask
from ccdcseg.errors import UserError
from ccdcseg.files import read_json
from ccdcseg.processes import pool_map

READER = "SimpleITKIO"
"""nnU-Net's reader of ``.nii.gz`` where nobody asks for another: it takes all that `check_scan` lets pass."""
READER_KEY = "overwrite_image_reader_writer"
"""By which ``dataset.json`` asks for another; null and "None" ask for none."""


def check_description(raw_folder: Path) -> None:
    """Refuse a raw folder whose files or labels nnU-Net would stumble over, or take otherwise than they are.

    Raises:
        UserError: see `numbering_fault`, `read_labels`, `check_background`, `check_channel_names`, `check_reader`
            and `case_names`.
    """
    if fault := numbering_fault(read_labels(raw_folder), read_ignore_label(raw_folder)):
        raise UserError(f"{raw_folder / 'dataset.json'}: {fault}.", NUMBERING_REMEDY)
    check_background(raw_folder)
    check_channel_names(raw_folder)
    check_reader(raw_folder)
    case_names(raw_folder)


def check_background(raw_folder: Path) -> None:
    """Refuse labels without a background, as nnU-Net does.

    Raises:
        UserError: "background" is not 0.
    """
    if read_json(raw_folder / "dataset.json")["labels"].get("background") != 0:
        raise UserError(
            f"{raw_folder / 'dataset.json'} names no background.", 'Write "background": 0 into "labels".'
        )


def check_channel_names(raw_folder: Path) -> None:
    """Refuse channels that nnU-Net would normalise or count otherwise than "channel_names" says.

    It normalises them in the order of the text, and builds a network for as many as a "modality" beside them has.

    Raises:
        UserError: they are in another order than that of their numbers, or not as many.
    """
    path = raw_folder / "dataset.json"
    count, dataset = len(read_channels(raw_folder)), read_json(path)
    if (order := [*dataset["channel_names"]]) != [str(number) for number in range(count)]:
        raise UserError(
            f"{path} lists the channels {', '.join(order)}: nnU-Net normalises them in that order, not by number.",
            'Write "channel_names" in the order of the numbers, 0 first.',
        )
    counted = dataset.get("modality", order)
    if not isinstance(counted, Sized) or len(counted) != count:
        raise UserError(
            f'{path} has a "modality", by which nnU-Net counts channels: not {count}, as in "channel_names".',
            'Take "modality" out.',
        )


def check_reader(raw_folder: Path) -> None:
    """Refuse a reader of scans that turns them, or does not take all that is taken here.

    Raises:
        UserError: ``dataset.json`` asks for another than `READER`.
    """
    path = raw_folder / "dataset.json"
    if (name := read_json(path).get(READER_KEY)) not in (None, "None", READER):
        raise UserError(
            f"{path} names {str(name)[:100]} as {READER_KEY}: trainings read scans with {READER} alone.",
            f'Take "{READER_KEY}" out.',
        )


def check_cases(raw_folder: Path, cases: Iterable[str], workers: int) -> None:
    """Read every file of cases as nnU-Net would.

    Raises:
        UserError: see `check_scan`.
    """
    files = [case_files(raw_folder, case) for case in cases]
    check = partial(_check_files, read_json(raw_folder / "dataset.json")["labels"])
    pool_map(check, files, workers)


def check_scan(
    images: Sequence[Path], mask: Path | None = None, labels: Mapping[str, int] | None = None
) -> None:
    """Read the images of a scan, one a channel, and its mask.

    Args:
        images: one a channel.
        mask: None: there is none, or it is not to be read.
        labels: of the mask, as in ``dataset.json``.

    Raises:
        UserError: one cannot be used (see `read_image` and `read_mask`), or they do not lie on the same voxels.
    """
    first, *others = (read_image(image) for image in images)
    for other in others:
        check_channels(first, other)
    if mask is not None:
        classes = {name: value for name, value in (labels or {}).items() if value}
        check_pair(first, read_mask(mask, classes))


def _check_files(labels: Mapping[str, int], files: Sequence[Path]) -> None:
    check_scan(files[:-1], files[-1], labels)
