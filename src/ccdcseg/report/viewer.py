"""Scans with the outlines of reference and predictions, packed for the page's slice viewer (NiiVue).

NiiVue is no part of the repository: ``hatch_build.py`` fetches the pinned release when the package is built.
Where it is not there, the page has its static slices alone.
"""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import cycle
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from ccdcseg.errors import UserError
from ccdcseg.report.pictures import CLASS_COLOURS, Choice, largest_slice, prediction_of, scan_of
from ccdcseg.report.runs import Arm

REFERENCE_COLOUR = "#ffffff"


@dataclass(frozen=True)
class Layer:
    """Outlines that can be switched on and off: a gzipped NIfTI of zeros and ones, in base64."""

    label: str
    colour: str
    volume: str


@dataclass(frozen=True)
class ViewerCase:
    """A scan (gzipped NIfTI of 8-bit greys, in base64), its slices and what lies over it."""

    case: str
    slices: int
    first_slice: int
    image: str
    layers: tuple[Layer, ...]


def niivue_script() -> str | None:
    """NiiVue's script as it was fetched when the package was built; None where it was not."""
    path = resources.files("ccdcseg.report").joinpath("vendor", "niivue.umd.js")
    return path.read_text(encoding="utf-8") if path.is_file() else None


def viewer_case(choice: Choice, arms: Sequence[Arm]) -> ViewerCase | None:
    """Pack a scan, its reference and every arm's prediction; None where one of them cannot be read."""
    try:
        image, reference = scan_of(arms[0], choice.case)
        predictions = [prediction_of(arm, choice.case, reference) for arm in arms]
    except UserError:
        return None
    spacing_mm = reference.spacing_mm
    layers = [Layer("Reference", REFERENCE_COLOUR, packed(outlines(reference.array), spacing_mm))]
    for arm, (run, prediction), colour in zip(arms, predictions, cycle(CLASS_COLOURS), strict=False):
        label = f"{arm.label}, seed {run.record.seed}"
        layers.append(Layer(label, colour, packed(outlines(prediction.array), spacing_mm)))
    return ViewerCase(
        choice.case,
        len(image.array),
        largest_slice(reference.array),
        packed(greys(image.array), spacing_mm),
        tuple(layers),
    )


def greys(image: NDArray[Any]) -> NDArray[np.uint8]:
    """The 0.5th to the 99.5th percentile as 0 to 255, what lies beyond clipped."""
    low, high = np.percentile(image, (0.5, 99.5))
    scaled = (image.astype(np.float64) - low) / max(high - low, 1e-6)
    rounded: NDArray[np.uint8] = np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)
    return rounded


def outlines(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """One where a labelled voxel has a neighbour with another label in its slice, shape (z, y, x)."""
    found = np.zeros(labels.shape, bool)
    for axis in (1, 2):
        before, after = [slice(None)] * 3, [slice(None)] * 3
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        differs = labels[tuple(before)] != labels[tuple(after)]
        found[tuple(before)] |= differs
        found[tuple(after)] |= differs
    return (found & (labels > 0)).astype(np.uint8)


def packed(array: NDArray[np.uint8], spacing_mm: Sequence[float]) -> str:
    """A volume (z, y, x) as gzipped NIfTI in base64, rows from top to bottom as stored."""
    z, y, x = spacing_mm
    image = nibabel.Nifti1Image(array.T, np.diag([x, -y, z, 1.0]))
    return base64.b64encode(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0)).decode()
