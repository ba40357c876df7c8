"""What scans are like before anybody has annotated them: size, voxels, intensities, and their look from afar."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from ccdcseg.cache import cache_key, made_once
from ccdcseg.datasets.cases import Case
from ccdcseg.datasets.volumes import axis_in_words, read_image, slice_axis, slices_first
from ccdcseg.processes import Progress

FORMAT = "ccdcseg-features/2"
ALIKE = 0.98
"""Correlation of two scans, seen from afar, from which on they count as one: frames of a cine, or copies."""

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LOOK = (6, 16, 16)  # slices, rows and columns of a scan seen from afar


@dataclass(frozen=True)
class ScanFiles:
    """A scan: whose it is, and its images, one a channel."""

    case: Case
    images: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Of the scan and its folder, by which results on it are kept."""
        return f"{self.images[0].parent.name}_{self.case.case}"


@dataclass(frozen=True)
class ScanFeatures:
    """A scan.

    Args:
        shape: voxels across the slices, then within them.
        spacing_mm: in the same order.
        intensities: 5th, 25th, 50th, 75th and 95th percentile of each channel.
        look: the first channel at a coarse size, mean 0 and length 1; all zeros of a constant image.
        axis: along which slices are counted, in words; scans that differ in it alone are equal.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    intensities: tuple[float, ...]
    look: tuple[float, ...]
    axis: str = field(compare=False)

    @property
    def numbers(self) -> tuple[float, ...]:
        """What scans are compared by: spacing, extent in mm, intensities."""
        extent_mm = (size * step for size, step in zip(self.shape, self.spacing_mm, strict=True))
        return (*self.spacing_mm, *extent_mm, *self.intensities)


def measure_scans(
    scans: Sequence[ScanFiles], cache: Path, workers: int, progress: Progress | None = None
) -> list[ScanFeatures]:
    """Measure scans that have not been measured as their files are now.

    Args:
        scans: to be measured.
        cache: folder of the measurements, one file a scan.
        workers: processes.
        progress: called with the number of scans measured and to be measured now.

    Raises:
        UserError: an image cannot be used.
    """
    sources = [(scan, cache / f"{scan.name}.json", cache_key(scan.images, FORMAT)) for scan in scans]
    return made_once(measure_scan, ScanFeatures, sources, workers, progress)


def measure_scan(scan: ScanFiles) -> ScanFeatures:
    """Measure one scan.

    Raises:
        UserError: an image cannot be used.
    """
    first, *others = (read_image(path) for path in scan.images)
    spacing_mm, (stack,) = slices_first(first.spacing_mm, first.array)
    z, y, x = stack.shape
    quantiles = (np.quantile(image.array, _QUANTILES) for image in (first, *others))
    return ScanFeatures(
        (z, y, x),
        spacing_mm,
        tuple(float(value) for channel in quantiles for value in channel),
        tuple(_look(stack).tolist()),
        axis_in_words(first, slice_axis(first.array.shape, first.spacing_mm)),
    )


def _look(array: NDArray[np.generic]) -> NDArray[np.float64]:
    """Means of blocks, which are single voxels where there are no more."""
    means = np.asarray(array)
    for axis, blocks in enumerate(_LOOK):
        edges = np.arange(blocks + 1) * means.shape[axis] // blocks
        sums = np.add.reduceat(means, edges[:-1], axis, np.float64)
        means = np.moveaxis(np.moveaxis(sums, axis, -1) / np.maximum(np.diff(edges), 1), -1, axis)
    apart = means.ravel() - means.mean()
    length = float(np.linalg.norm(apart))
    look: NDArray[np.float64] = apart / length if length > 1e-9 * abs(means).max() else 0 * apart
    return look.round(6)


def distances(scans: Sequence[ScanFeatures]) -> NDArray[np.float64]:
    """How unlike scans are, shape (n, n): each number counts as its rank among all scans, from 0 to 1.

    Ranks know no units and no outliers; the distance is Euclidean, spacing, extent and intensities of equal weight.
    """
    numbers = np.array([scan.numbers for scan in scans])
    intensities = rankdata(numbers[:, 6:], axis=0) - 1
    ranks = np.column_stack([*map(_size_ranks, numbers[:, :6].T), intensities]) / max(len(scans) - 1, 1)
    weights = np.r_[np.full(6, 1 / 3), np.full(ranks.shape[1] - 6, 1 / (ranks.shape[1] - 6))]
    weighted = ranks * np.sqrt(weights)
    apart: NDArray[np.float64] = cdist(weighted, weighted)
    return apart


def _size_ranks(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0 on of sizes, shape (n,); those within a ten-thousandth are equal, as headers are rounded."""
    below = sizes < (1 - 1e-4) * sizes[:, None]
    ranks: NDArray[np.float64] = (len(sizes) - 1 + below.sum(1) - below.sum(0)) / 2
    return ranks


def same_patient(scans: Sequence[Case], features: Sequence[ScanFeatures]) -> NDArray[np.bool_]:
    """Which scans are near-duplicates, shape (n, n): of one patient, or alike from afar on as many voxels."""
    looks = np.array([scan.look for scan in features])
    alike: NDArray[np.bool_] = looks @ looks.T > ALIKE
    return (alike & _equal([scan.shape for scan in features])) | _equal([scan.patient for scan in scans])


def _equal(values: Sequence[Hashable]) -> NDArray[np.bool_]:
    """Which pairs of values are equal, shape (n, n)."""
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(value, len(numbers)) for value in values])
    equal: NDArray[np.bool_] = codes[:, None] == codes
    return equal
