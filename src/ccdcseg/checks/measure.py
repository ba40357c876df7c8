"""What is measured of one case before anything is said about it: grid, intensities, labels, hashes.

A file that cannot be used becomes a fault of its case and does not stop the rest. Measurements are kept on disk
as long as the files of the case stay as they are.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ccdcseg.cache import cache_key, made_once
from ccdcseg.checks.contents import CaseFiles, Contents
from ccdcseg.datasets.volumes import Volume, check_channels, check_pair, read_image, read_mask, slice_axis
from ccdcseg.errors import UserError
from ccdcseg.processes import Progress

FORMAT = "ccdcseg-measurements/5"

T = TypeVar("T")
Labels = NDArray[np.int16]


class FaultKind(StrEnum):
    """What is wrong with the files of a case."""

    IMAGE = "unusable image"
    MASK = "unusable mask"
    GEOMETRY = "geometry"


@dataclass(frozen=True)
class Fault:
    """A file that cannot be used, or files that do not fit together.

    Args:
        kind: which.
        problem: the reader's words.
        remedy: what to do.
    """

    kind: FaultKind
    problem: str
    remedy: str


@dataclass(frozen=True)
class Grid:
    """Where the voxels lie.

    Args:
        shape: in the array's order (z, y, x).
        spacing_mm: in the array's order.
        axes: where the indices x, y, z grow to, such as "LPS" (left, posterior, superior).
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axes: str

    @property
    def slices(self) -> int:
        """How many there are; see `slice_axis`."""
        return self.shape[slice_axis(self.shape, self.spacing_mm)]


@dataclass(frozen=True)
class ChannelFacts:
    """One image of a case.

    Args:
        grid: where its voxels lie.
        minimum: smallest value.
        p1: 1st percentile.
        median: 50th percentile.
        p99: 99th percentile.
        maximum: largest value.
        mean: of all voxels.
        share_at_maximum: of all voxels.
        voxels_hash: SHA-256, in hex, of shape and values, whatever their type.
    """

    grid: Grid
    minimum: float
    p1: float
    median: float
    p99: float
    maximum: float
    mean: float
    share_at_maximum: float
    voxels_hash: str


@dataclass(frozen=True)
class Specks:
    """Connected components of a class that are tiny beside its largest one.

    Args:
        count: how many.
        voxels: all of theirs.
        largest: voxels of the class's largest component.
    """

    count: int
    voxels: int
    largest: int


@dataclass(frozen=True)
class MaskFacts:
    """The mask of a case.

    Args:
        grid: where its voxels lie.
        voxels: of each class by value; absent classes are left out.
        ignored: voxels with the ignore label.
        specks: of each class by value that has some; of a mask that is annotated in part nobody knows.
        annotated_slices: of which a voxel at least is annotated.
        at_border: voxels of each class by value that lie on the image's border within the slices.
        voxels_hash: SHA-256, in hex, of shape and values.
    """

    grid: Grid
    voxels: dict[int, int]
    ignored: int
    specks: dict[int, Specks]
    annotated_slices: int
    at_border: dict[int, int]
    voxels_hash: str


@dataclass(frozen=True)
class CaseFacts:
    """All that is known of a case; what could not be read is missing, and ``faults`` says why.

    Args:
        case: its name.
        channels: by number.
        mask: of the case.
        faults: of its files.
        told: channels whose values the mask tells, see `_is_told`.
    """

    case: str
    channels: dict[int, ChannelFacts]
    mask: MaskFacts | None
    faults: tuple[Fault, ...]
    told: tuple[int, ...] = ()

    @property
    def scans(self) -> dict[str, list[int]]:
        """Channels by the hash of their voxels; constant ones, which are all alike, are left out."""
        found: dict[str, list[int]] = {}
        for number, facts in self.channels.items():
            if facts.minimum < facts.maximum:
                found.setdefault(facts.voxels_hash, []).append(number)
        return found

    @property
    def grid(self) -> Grid | None:
        """Of the first channel that could be read, or else of the mask."""
        grids = [facts.grid for facts in self.channels.values()]
        return grids[0] if grids else self.mask.grid if self.mask else None


def measure_cases(
    contents: Contents, cache: Path, speck_fraction: float, workers: int, progress: Progress | None = None
) -> dict[str, CaseFacts]:
    """Measure every case that has not been measured as its files are now.

    Args:
        contents: of the raw folder.
        cache: folder of the measurements, one file a case; a damaged or outdated one is made again.
        speck_fraction: see `measure_case`.
        workers: processes.
        progress: called with the number of cases measured and to be measured now.

    Returns:
        Facts by case, in the order of ``contents``.

    Raises:
        UserError: a worker was killed.
    """
    rule = (FORMAT, dict(contents.labels), contents.ignore, speck_fraction)
    measure = partial(
        measure_case, labels=contents.labels, ignore=contents.ignore, speck_fraction=speck_fraction
    )
    sources = [
        (files, cache / f"{name}.json", cache_key(files.paths, *rule))
        for name, files in contents.files.items()
    ]
    return {
        facts.case: facts for facts in made_once(measure, CaseFacts, sources, workers, progress, _is_usable)
    }


def _is_usable(facts: CaseFacts) -> bool:
    return not facts.faults


def measure_case(
    files: CaseFiles, labels: Mapping[str, int], ignore: int | None, speck_fraction: float
) -> CaseFacts:
    """Read the files of a case and measure them.

    Args:
        files: of the case.
        labels: value of each foreground class by name.
        ignore: a further value that is allowed.
        speck_fraction: a component (voxels that touch by face, edge or corner) is tiny if it has fewer voxels
            than this share of the largest of its class.

    Returns:
        The facts. Unusable files are among the faults.
    """
    faults: list[Fault] = []
    images: dict[int, Volume] = {}
    for number, path in sorted(files.images.items()):
        if image := _attempt(faults, FaultKind.IMAGE, partial(read_image, path)):
            images[number] = image
    mask = None
    if files.mask is not None:
        mask = _attempt(faults, FaultKind.MASK, partial(read_mask, files.mask, labels, ignore))
    volumes = [*images.values(), *([mask] if mask else [])]
    for other in volumes[1:]:
        check = check_pair if other is mask else check_channels
        _attempt(faults, FaultKind.GEOMETRY, partial(check, volumes[0], other))
    return CaseFacts(
        files.case,
        {number: _channel_facts(volume) for number, volume in images.items()},
        _mask_facts(mask, labels, ignore, speck_fraction) if mask else None,
        tuple(faults),
        tuple(number for number, volume in images.items() if mask and _is_told(volume.array, mask.array)),
    )


def _is_told(image: NDArray[Any], mask: Labels) -> bool:
    """Whether an image that is not constant has one value for each of the mask, as a copy of it has."""
    if image.shape != mask.shape or image.min() == image.max():
        return False

    def is_constant(value: Any) -> bool:
        part = image[mask == value]
        return bool(part.min() == part.max())

    # A scan mostly differs in the first voxel's class already: that spares the search for all classes.
    return is_constant(mask.flat[0]) and all(map(is_constant, np.unique(mask)))


def _attempt(faults: list[Fault], kind: FaultKind, action: Callable[[], T]) -> T | None:
    try:
        return action()
    except UserError as error:
        faults.append(Fault(kind, error.problem, error.remedy))
        return None


def _grid(volume: Volume) -> Grid:
    z, y, x = volume.array.shape
    return Grid((z, y, x), volume.spacing_mm, volume.axes)


def _channel_facts(volume: Volume) -> ChannelFacts:
    voxels = volume.array.astype(np.float32)
    p1, median, p99 = (float(value) for value in np.percentile(voxels, (1, 50, 99)))
    maximum = voxels.max()
    return ChannelFacts(
        grid=_grid(volume),
        minimum=float(voxels.min()),
        p1=p1,
        median=median,
        p99=p99,
        maximum=float(maximum),
        mean=float(voxels.mean(dtype=np.float64)),
        share_at_maximum=float(np.count_nonzero(voxels == maximum) / voxels.size),
        voxels_hash=_hash(voxels),
    )


def _mask_facts(
    mask: Volume, labels: Mapping[str, int], ignore: int | None, speck_fraction: float
) -> MaskFacts:
    array = mask.array
    values, counts = np.unique(array, return_counts=True)
    counted = dict(zip(values.tolist(), counts.tolist(), strict=True))
    voxels = {value: counted[value] for value in labels.values() if value in counted}
    across = slice_axis(array.shape, mask.spacing_mm)
    whole = ignore not in counted
    specks = {value: _specks(array == value, speck_fraction) for value in voxels if whole}
    border = _border(array, across)
    return MaskFacts(
        grid=_grid(mask),
        voxels=voxels,
        ignored=counted.get(ignore, 0),
        specks={value: found for value, found in specks.items() if found.count},
        annotated_slices=int((array != ignore).any(axis=tuple({0, 1, 2} - {across})).sum()),
        at_border={value: count for value in voxels if (count := int(np.count_nonzero(border == value)))},
        voxels_hash=_hash(array),
    )


def _specks(structure: NDArray[np.bool_], fraction: float) -> Specks:
    box = ndimage.find_objects(structure.astype(np.uint8))[0]
    components, _ = ndimage.label(structure[box], np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())[1:]
    tiny = sizes[sizes < fraction * sizes.max()]
    return Specks(len(tiny), int(tiny.sum()), int(sizes.max()))


def _border(array: Labels, across: int) -> Labels:
    """Voxels of the first and last row and column of every slice; corners come once."""
    stack = np.moveaxis(array, across, 0)
    edges = (stack[:, 0], stack[:, -1], stack[:, 1:-1, 0], stack[:, 1:-1, -1])
    return np.concatenate([edge.ravel() for edge in edges])


def _hash(array: NDArray[Any]) -> str:
    digest = hashlib.sha256(str(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
