"""How sure trained networks are of scans without masks: the paper's class confidence and class confusion.

Both are means over voxels of a class (Eq. 1 and 4). Without a mask the class is the one predicted, so they are
taken inside the predicted foreground; several networks speak by the mean of their probabilities.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ccdcseg.datasets.cases import read_labels
from ccdcseg.datasets.volumes import read_image, slice_axis
from ccdcseg.losses.parts.class_statistics import class_statistics
from ccdcseg.nnunet.ensemble import Ensemble, check_run
from ccdcseg.proposals.features import ScanFiles


@dataclass(frozen=True)
class Doubt:
    """What networks say of a scan.

    Attributes:
        confidence: of each predicted class by name.
        confused: of each predicted class the class, or background, that gets most of the rest, and how much.
        slices: mean probability of the predicted class over the predicted foreground of each slice; None: it has
            none.
    """

    confidence: dict[str, float]
    confused: dict[str, tuple[str, float]]
    slices: tuple[float | None, ...]

    @property
    def sure(self) -> float:
        """Mean class confidence, 0 where no class is predicted."""
        return float(np.mean([*self.confidence.values()])) if self.confidence else 0.0

    @property
    def words(self) -> str:
        """The numbers, for people."""
        if not self.confidence:
            return "the network finds no structure"
        parts = [
            f"{name} {value:.2f} ({self.confused[name][1]:.2f} on {self.confused[name][0]})"
            for name, value in sorted(self.confidence.items(), key=lambda item: item[1])
        ]
        return f"class confidence {self.sure:.2f}: {', '.join(parts)}"


_FORM = TypeAdapter(Doubt)


def doubts(
    runs: Sequence[Path],
    scans: Sequence[ScanFiles],
    raw_folder: Path,
    device: str,
    cache: Path,
    progress: Callable[[int, int], None],
) -> list[Doubt]:
    """Predict scans and tell how sure the networks are; what was told of the same files before is kept.

    Args:
        runs: folders of finished trainings.
        scans: to be predicted.
        raw_folder: the data set's folder in ``nnUNet_raw``.
        device: "cpu", "cuda", "mps" or "auto".
        cache: folder of what was told, one file a scan.
        progress: called with scans done and scans in all.

    Raises:
        UserError: a run is not finished or has other classes or channels, or a scan cannot be used.
    """
    labels = read_labels(raw_folder)
    for run in runs:
        check_run(run, raw_folder)
    ensemble, found = Ensemble(runs, device), []
    for scan in scans:
        told = partial(_told, scan.images[0], labels)
        found.append(_FORM.validate_json(ensemble.keep(scan.images, cache / f"{scan.name}.json", told)))
        progress(len(found), len(scans))
    return found


def _told(path: Path, labels: Mapping[str, int], probabilities: NDArray[np.float32]) -> bytes:
    """The doubt of a scan, whose first channel lies at ``path``, as JSON."""
    image = read_image(path)
    return _FORM.dump_json(doubt_of(probabilities, labels, slice_axis(image.array.shape, image.spacing_mm)))


def doubt_of(probabilities: NDArray[np.float32], labels: Mapping[str, int], across: int) -> Doubt:
    """Class confidence and confusion inside the predicted foreground.

    Args:
        probabilities: (C, Z, Y, X), C the background and the classes in the order of their values.
        labels: value of each foreground class by name.
        across: the axis across the slices, 0, 1 or 2.
    """
    predicted = probabilities.argmax(0)
    inside = predicted > 0
    statistics = class_statistics(
        torch.from_numpy(probabilities[None, :, inside]), torch.from_numpy(predicted[inside])[None]
    )
    names = {0: "background", **{value: name for name, value in labels.items()}}
    matrix = {
        value: statistics.matrix[value].tolist() for value in labels.values() if statistics.counts[value]
    }
    return Doubt(
        {names[value]: row[value] for value, row in matrix.items()},
        {names[value]: _most_confused(row, value, names) for value, row in matrix.items()},
        tuple(_slice_means(probabilities.max(0), inside, across)),
    )


def _most_confused(row: Sequence[float], own: int, names: Mapping[int, str]) -> tuple[str, float]:
    others = {number: value for number, value in enumerate(row) if number != own}
    most = max(others, key=lambda number: others[number])
    return names[most], others[most]


def _slice_means(sure: NDArray[np.float32], inside: NDArray[np.bool_], across: int) -> list[float | None]:
    stacks = np.moveaxis(sure, across, 0), np.moveaxis(inside, across, 0)
    return [float(values[here].mean()) if here.any() else None for values, here in zip(*stacks, strict=True)]
