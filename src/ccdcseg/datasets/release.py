"""What converting a raw release to an nnU-Net raw folder has in common, whatever the data set."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from ccdcseg.datasets.cases import (
    EMPTY_MASKS,
    UNLABELLED,
    Case,
    dataset_names,
    id_in_name,
    write_cases,
    write_unlabelled_cases,
)
from ccdcseg.datasets.turning import fitted
from ccdcseg.datasets.volumes import Volume, check_not_empty, is_empty, slice_axis, write_volume
from ccdcseg.datasets.walk import by_number, check_link
from ccdcseg.errors import UserError
from ccdcseg.files import new_folder, read_json, write_json
from ccdcseg.processes import Progress, pool_map

IMAGE_SUFFIX = "_0000.nii.gz"
MASK_SUFFIX = ".nii.gz"
NOTES_FILE = "notes.json"
IGNORE = "ignore"
"""nnU-Net's name for the label of voxels that nobody has labelled."""
_EMPTY_REMEDY = (
    "Annotate the scan or leave it out; if it shows nothing, as a healthy control, give --empty-masks."
)
_EMPTY = "mask holds no class and is taken for a healthy control's"
_IN_PART = "mask is of the slices that the table names, and ignored on all others"
_LIKE_MASK = "has so few values in its middle slice that it may be a mask"
_MASK_VALUES = 20
_TURNED = "had the same voxels in another order of axes and was turned, exactly"

Notes = Sequence[str]
"""What was done to a scan beyond converting it, such as what was left out: half sentences."""


@dataclass(frozen=True)
class Release:
    """What a data set says of itself in ``dataset.json``.

    Args:
        name: the part of the folder's name after the id.
        description: one sentence.
        reference: what whoever uses the data cites.
        licence: under which the data are given.
        labels: value of each foreground class.
        channels: nnU-Net's word for each kind of image, by which it normalises: "MRI", "CT" and so on.
        synthetic: no scan of a real person.
        empty_masks: masks may hold no class, as those of healthy controls.
    """

    name: str
    description: str
    reference: str
    licence: str
    labels: Mapping[str, int]
    channels: tuple[str, ...] = ("MRI",)
    synthetic: bool = False
    empty_masks: bool = False


class Scan(Protocol):
    """Anything that belongs to a case."""

    @property
    def case(self) -> Case:
        """Whose scan it is."""


S = TypeVar("S", bound=Scan)


def write_dataset(
    release: Release,
    scans: Sequence[S],
    convert: Callable[[Path, S], Notes],
    target: Path,
    workers: int,
    progress: Progress | None = None,
    unlabelled: Sequence[S] = (),
    beside: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Convert all scans into a new nnU-Net raw folder: ``dataset.json``, ``cases.csv`` and, if any, notes and
    ``unlabelled.csv``.

    Args:
        release: what the data set says of itself.
        scans: scan and mask of every case.
        convert: writes one scan into the folder given to it; see `read_notes` for what it returns.
        target: the new folder, from `free_folder`.
        workers: processes.
        progress: see `Progress`.
        unlabelled: scans without a mask; converted too, but no cases of the data set.
        beside: further notes, with the paths of what was found beside the scans.

    Returns:
        ``target``.

    Raises:
        UserError: what ``convert`` raises.
        OSError: ``target`` cannot be written, or the disk is full. Nothing is left.
    """
    with new_folder(target) as folder:
        everything = [*scans, *unlabelled]
        notes = pool_map(partial(convert, folder), everything, workers, progress)
        _write_notes(folder, everything, notes, beside or {})
        write_json(folder / "dataset.json", _description(release, len(scans)))
        write_cases(folder, [scan.case for scan in scans])
        if unlabelled:
            write_unlabelled_cases(folder, {UNLABELLED: [scan.case for scan in unlabelled]})
    return target


def _write_notes(
    folder: Path, scans: Sequence[Scan], notes: Sequence[Notes], beside: Mapping[str, Sequence[str]]
) -> None:
    cases = {note: [*paths] for note, paths in beside.items()}
    for scan, said in zip(scans, notes, strict=True):
        for note in said:
            cases.setdefault(note, []).append(scan.case.case)
    if cases:
        write_json(folder / NOTES_FILE, cases)


def read_notes(folder: Path) -> dict[str, list[str]]:
    """What was done to scans of a prepared data set beyond converting them, with the cases to which it was done.

    What was found beside them has its paths instead.

    Raises:
        UserError: the notes are damaged.
    """
    path = folder / NOTES_FILE
    return dict(read_json(path)) if path.exists() else {}


def write_pair(
    folder: Path,
    case: str,
    channels: Sequence[Volume],
    mask: Volume,
    release: Release | None = None,
    slices: Sequence[int] | None = None,
) -> Notes:
    """Check that a scan's channels and its mask belong together; write them into ``imagesTr`` and ``labelsTr``.

    Args:
        folder: of the data set.
        case: name of the scan.
        channels: its images.
        mask: with the new labels.
        release: says whether the mask may be empty, and which label is to be ignored; default: no and none.
        slices: that are annotated, see `in_part`; None: all.

    Returns:
        What had to be turned onto the first channel's voxels (see `fitted`), and the notes of each volume.

    Raises:
        UserError: they do not lie on the same voxels, the mask is empty, or as `in_part`.
    """
    ignore = release.labels.get(IGNORE) if release else None
    if release is None:
        check_not_empty(mask)
    elif not release.empty_masks:
        check_not_empty(mask, ignore, _EMPTY_REMEDY)
    placed = fitted(mask, channels[0])
    notes = _write_channels(folder / "imagesTr", case, channels)
    whole = replace(channels[0], path=mask.path, array=placed.array)  # to the last digit, as channels are
    drawn = whole if slices is None or ignore is None else in_part(whole, slices, ignore)
    write_volume(folder / "labelsTr" / f"{case}{MASK_SUFFIX}", drawn)
    empty = [_EMPTY] if is_empty(mask, ignore) else []
    some = [_IN_PART] if ignore is not None and (drawn.array != whole.array).any() else []
    return [*notes, *_notes("mask", mask, placed), *empty, *some]


def in_part(mask: Volume, slices: Sequence[int], ignore: int) -> Volume:
    """A mask of which some slices are annotated; all voxels of the others get the ignore label.

    Args:
        mask: on the voxels of its scan.
        slices: annotated ones, counted from 1 along the axis across the slices (see `slice_axis`).
        ignore: value of voxels that nobody has labelled.

    Raises:
        UserError: there is no such slice, or something is drawn on another one.
    """
    axis = slice_axis(mask.array.shape, mask.spacing_mm)
    size = mask.array.shape[axis]
    if max(slices) > size:
        raise UserError(
            f"{mask.path} has no slice {max(slices)}: there are {size} along the {'zyx'[axis]} axis.",
            "Correct the slices in the table.",
        )
    stack = np.moveaxis(mask.array, axis, 0).copy()
    others = np.setdiff1d(np.arange(size), np.array(slices) - 1)
    drawn = [number for number in others if ((stack[number] != 0) & (stack[number] != ignore)).any()]
    if drawn:
        raise UserError(
            f"{mask.path} has something drawn on slice {drawn[0] + 1} of {size} along the {'zyx'[axis]} axis, not "
            f"among the annotated ones ({' '.join(map(str, slices))}).",
            "Name all annotated slices in the table, counted from 1 in the file, or clear the others.",
        )
    stack[others] = ignore
    return replace(mask, array=np.ascontiguousarray(np.moveaxis(stack, 0, axis)))


def write_unlabelled(folder: Path, case: str, channels: Sequence[Volume]) -> Notes:
    """Write a scan that has no mask into ``imagesTs``, nnU-Net's folder of images for prediction only.

    Returns:
        As `write_pair`, and that a channel may be a mask.

    Raises:
        UserError: the channels do not lie on the same voxels.
    """
    notes = _write_channels(folder / UNLABELLED, case, channels)
    masks = [f"channel {number} {_LIKE_MASK}" for number, image in enumerate(channels) if _like_mask(image)]
    return [*notes, *masks]


def _like_mask(image: Volume) -> bool:
    """Whether a scan has the values of a mask: a pattern of the images may fit masks beside them as well."""
    middle = image.array[len(image.array) // 2]
    return len(np.unique(middle)) <= _MASK_VALUES


def _write_channels(folder: Path, case: str, channels: Sequence[Volume]) -> Notes:
    first = channels[0]
    placed = [fitted(image, first) for image in channels]
    for number, image in enumerate(placed):  # of one grid to the last digit, as nnU-Net wants them
        write_volume(folder / f"{case}_{number:04d}{MASK_SUFFIX}", replace(first, array=image.array))
    pairs = enumerate(zip(channels, placed, strict=True))
    return [note for number, pair in pairs for note in _notes(f"channel {number}", *pair)]


def _notes(name: str, given: Volume, placed: Volume) -> list[str]:
    said = given.notes if placed is given else (*given.notes, _TURNED)
    return [f"{name} {note}" for note in said]


def unlabelled_scans(folder: Path) -> list[str]:
    """Names of the scans in ``imagesTs``, sorted."""
    return sorted(
        path.name.removesuffix(IMAGE_SUFFIX) for path in (folder / UNLABELLED).glob(f"*{IMAGE_SUFFIX}")
    )


def free_folder(raw_root: Path, dataset_id: int, name: str) -> Path:
    """Where a new data set goes.

    Raises:
        UserError: the id is not from 1 to 999, or another data set has it.
    """
    if not 1 <= dataset_id <= 999:
        raise UserError(f"The data set id {dataset_id} is out of range.", "Choose one from 1 to 999.")
    names = dataset_names(raw_root) if raw_root.exists() else []
    taken = [name for name in names if id_in_name(name) == dataset_id]
    if taken:
        raise UserError(
            f"The data set id {dataset_id} is taken by {raw_root / taken[0]}.",
            "Choose another id, or remove it.",
        )
    return raw_root / f"Dataset{dataset_id:03d}_{name}"


def patient_folders(places: Iterable[Path], name: re.Pattern[str], content: Iterable[str]) -> list[Path]:
    """The folders in ``places`` whose name matches, sorted; places that do not exist are passed over.

    Args:
        places: where patients lie.
        name: of a patient's folder.
        content: what such a folder holds, any of it.

    Raises:
        UserError: two places hold the same patient, a patient is a link that leads nowhere, or a folder has a
            patient's content and another name.
    """
    found: dict[str, Path] = {}
    for entry in (entry for place in places if place.is_dir() for entry in place.iterdir()):
        if not name.fullmatch(entry.name):
            if any((entry / part).exists() for part in content):
                raise UserError(
                    f"{entry} holds a patient and is not named as one of the release.",
                    "Give it its name in the release, or move it away.",
                )
            continue
        check_link(entry)
        if entry.is_dir():
            if entry.name in found:
                raise UserError(
                    f"{entry} and {found[entry.name]} are the same patient.", "Remove one of them."
                )
            found[entry.name] = entry
    return [found[name] for name in sorted(found, key=by_number)]


def _description(release: Release, scans: int) -> dict[str, object]:
    empty = {EMPTY_MASKS: True} if release.empty_masks else {}
    return {
        "channel_names": {str(number): name for number, name in enumerate(release.channels)},
        "labels": {"background": 0, **release.labels},
        "numTraining": scans,
        "file_ending": MASK_SUFFIX,
        "name": release.name,
        "description": release.description,
        "reference": release.reference,
        "licence": release.licence,
        "synthetic": release.synthetic,
        **empty,
    }
