"""Scans with the outlines of reference and predictions, packed for the page's slice viewer (NiiVue).

NiiVue is no part of the repository: ``hatch_build.py`` fetches the pinned release when the package is built.
Where it is not there, the page has its static slices alone.
"""

import base64
import gzip
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from itertools import cycle
from operator import attrgetter
from typing import Any, TypeVar

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, maximum_filter, minimum_filter

from ccdcseg.cores import worker_count
from ccdcseg.errors import UserError
from ccdcseg.processes import Progress, thread_map
from ccdcseg.report.pictures import (
    CLASS_COLOURS,
    Box,
    Labels,
    crop_box,
    grey_window,
    read_scan,
    scores,
    telling_slice,
)
from ccdcseg.runs.finished import Arm

T = TypeVar("T")
NO_VIEWER = (
    "There is no slice viewer: ccdcseg was installed without it, as it is where npm or a network is missing. "
    "With npm, install it again: pip install --force-reinstall --no-deps ."
)
REFERENCE_COLOUR = "#ffffff"
STRAY_MARGIN_MM = 5
MOST_CHARACTERS = 64 * 2**20
"""The most that all scans, or pictures, together may take on a page; browsers become slow beyond."""
TOGETHER = 8
"""Scans that are packed before it is asked whether there is room for more."""


@dataclass(frozen=True)
class Layer:
    """Outlines that can be switched on and off: a gzipped NIfTI of zeros and ones, in base64.

    Attributes:
        scores: Dice of each class in this scan, in words; empty for the reference.
    """

    label: str
    colour: str
    scores: str
    volume: str


@dataclass(frozen=True)
class ViewerCase:
    """A scan (gzipped NIfTI of 8-bit greys, in base64), its slices and what lies over it.

    Attributes:
        focus: where the reference is: left, top, right and bottom, as fractions of a slice.
    """

    case: str
    patient: str
    slices: int
    first_slice: int
    focus: tuple[float, float, float, float]
    image: str
    layers: tuple[Layer, ...]

    @property
    def characters(self) -> int:
        """What the volumes take on a page."""
        return len(self.image) + sum(len(layer.volume) for layer in self.layers)


@dataclass(frozen=True)
class Gallery:
    """The scans of the viewer, sorted by patient.

    Attributes:
        unread: evaluated scans of which an image, a reference or a prediction cannot be read.
        left_out: scans for which there was no room.
    """

    cases: tuple[ViewerCase, ...] = ()
    unread: int = 0
    left_out: int = 0

    def of_patient(self, patient: str) -> dict[str, int]:
        """The patient's scans and their places among ``cases``."""
        return {shown.case: place for place, shown in enumerate(self.cases) if shown.patient == patient}


def niivue_script() -> str | None:
    """NiiVue's script as it was fetched when the package was built; None where it was not."""
    path = resources.files("ccdcseg.report").joinpath("vendor", "niivue.umd.js")
    return path.read_text(encoding="utf-8") if path.is_file() else None


def gallery(
    arms: Sequence[Arm],
    first: Collection[str],
    most: int = MOST_CHARACTERS,
    progress: Progress | None = None,
) -> Gallery:
    """Pack the evaluated scans that can be read, until most of some that were packed together find no room.

    Args:
        arms: the methods, evaluated.
        first: scans that are packed before others.
        most: characters that all scans together may take.
        progress: called with the number of scans read and to be read.
    """
    rows = [row for arm in arms for evaluation in arm.evaluations.values() for row in evaluation.cases]
    patients = {row.case: row.patient for row in rows}
    names = sorted(patients, key=lambda case: (case not in first, patients[case], case))
    kept: list[ViewerCase] = []
    unread = 0
    for start in range(0, len(names), TOGETHER):
        some = names[start : start + TOGETHER]
        tell = progress and partial(_tell, progress, start, len(names))
        found = thread_map(lambda case: viewer_case(case, patients[case], arms), some, worker_count(), tell)
        read = [shown for shown in found if shown]
        unread += len(some) - len(read)
        before, kept = len(kept), within([*kept, *read], attrgetter("characters"), most)
        if len(kept) - before < len(read) / 2:
            break
    shown = sorted(kept, key=lambda shown: (shown.patient, shown.case))
    return Gallery(tuple(shown), unread, len(names) - unread - len(shown))


def _tell(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def within(things: Sequence[T], characters: Callable[[T], int], most: int) -> list[T]:
    """Those that find room one after the other; one that is too large takes none."""
    kept, room = [], most
    for thing in things:
        if (size := characters(thing)) <= room:
            kept.append(thing)
            room -= size
    return kept


def viewer_case(case: str, patient: str, arms: Sequence[Arm]) -> ViewerCase | None:
    """Pack a scan, its reference and every arm's prediction, cropped to what is near a structure.

    Returns:
        The packed scan; None where an image, reference or prediction cannot be read.
    """
    try:
        scan = read_scan(case, arms)
    except UserError:
        return None
    near, centre = surroundings([scan.reference, *scan.predictions], scan.spacing_mm)
    box = find_objects(near.astype(np.uint8))[0]

    def lines(labels: Labels) -> str:
        return packed(outlines(labels[box]), scan.spacing_mm)

    layers = [Layer("Reference", REFERENCE_COLOUR, "", lines(scan.reference))]
    for arm, run, labels, colour in zip(
        arms, scan.runs, scan.predictions, cycle(CLASS_COLOURS), strict=False
    ):
        layers.append(Layer(arm.name_of(run), colour, scores(run, case), lines(labels)))
    return ViewerCase(
        case,
        patient,
        len(scan.image),
        telling_slice(scan),
        focus(centre, box[1:]),
        packed(np.where(near[box], greys(scan.image, box), np.uint8(0)), scan.spacing_mm),
        tuple(layers),
    )


def surroundings(
    labels: Sequence[NDArray[Any]], spacing_mm: Sequence[float]
) -> tuple[NDArray[np.bool_], Box]:
    """Where grey values are worth their bytes: around the reference, and near whatever a method marks.

    Weak models scatter false positives over the whole slice, so that a box around everything is no crop.

    Args:
        labels: reference and predictions, shape (z, y, x).
        spacing_mm: in the order of the axes.

    Returns:
        True within the crop of the reference, in every slice, and within ``STRAY_MARGIN_MM`` of a labelled
        voxel of any, in its slice; and the crop of the reference.
    """
    structures = np.any([array > 0 for array in labels], axis=0)
    rows, columns = (2 * math.ceil(STRAY_MARGIN_MM / step) + 1 for step in spacing_mm[1:])
    near: NDArray[np.bool_] = maximum_filter(structures, size=(1, rows, columns))
    centre = crop_box([labels[0].max(axis=0)], spacing_mm[1:])
    near[:, *centre] = True
    return near, centre


def focus(centre: Box, outer: Box) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box as fractions of one around it."""
    sides = []
    for inner, around in zip(centre, outer, strict=True):
        start, stop, _ = inner.indices(around.stop)
        length = around.stop - around.start
        sides.append(((start - around.start) / length, (stop - around.start) / length))
    (top, bottom), (left, right) = sides
    return left, top, right, bottom


def greys(image: NDArray[Any], box: tuple[slice, ...] = ()) -> NDArray[np.uint8]:
    """A part of an image, its 0.5th to its 99.5th percentile as 0 to 255, what lies beyond clipped."""
    low, width = grey_window(image)
    shades = np.zeros_like(image[box], np.uint8)
    for place, plane in enumerate(image[box]):  # one after the other: they are large as fractions
        shares = (plane.astype(np.float64) - low) / width
        shades[place] = np.rint(255 * shares.clip(0, 1))
    return shades


def outlines(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """One where a voxel has a smaller label beside or diagonally from it in its slice, shape (z, y, x).

    So a border is one voxel wide, also between two classes, and has no gaps.
    """
    marked: NDArray[np.bool_] = labels > minimum_filter(labels, size=(1, 3, 3), mode="nearest")
    return marked.astype(np.uint8)


def packed(array: NDArray[np.uint8], spacing_mm: Sequence[float]) -> str:
    """A volume (z, y, x) as gzipped NIfTI in base64, rows from top to bottom as stored."""
    z, y, x = spacing_mm
    image = nibabel.Nifti1Image(array.T, np.diag([x, -y, z, 1.0]))
    return base64.b64encode(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0)).decode()
