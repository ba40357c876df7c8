"""Slices with outlines and selection maps, as WebP in data URIs; and the rule by which cases are shown."""

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from ccdcseg.datasets.volumes import check_pair, read_image, read_mask, slices_first
from ccdcseg.errors import UserError
from ccdcseg.measure.patients import average, mean
from ccdcseg.report.figures import ROLES
from ccdcseg.runs.evaluation import Evaluation, comparable_values
from ccdcseg.runs.finished import Arm, FinishedRun

Grey = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]
Box = tuple[slice, slice]

# The first seven are Okabe and Ito's, distinguishable with any colour vision; all differ in OKLab by 0.08 or more.
CLASS_COLOURS = (
    *("#56b4e9", "#e69f00", "#00c08b", "#cc79a7", "#f0e442", "#ff7f3f", "#9aa8ff"),
    *("#ff5c5c", "#b6ff5c", "#c8a27a", "#00e5ff", "#ff5cf4", "#00e100", "#ffc3ff"),
    *("#872dff", "#787800", "#c300a5", "#3c78a5", "#b44b4b", "#0069ff"),
)
ROLE_COLOURS = {"core": "#009e73", "easy": "#56b4e9", "hard": "#ff6a1a", "negative": "#f0e442"}

_WIDTH_INCHES = 4.0
_DPI = 115
_MARGIN = 0.3  # of the structures' extent, on each side
_SMALLEST_CROP_MM = 60
_SELECTION_WIDTH = 512
_LOSSLESS = {"lossless": True, "quality": 20, "method": 2}  # how long it tries; more makes no file smaller


@dataclass(frozen=True)
class Choice:
    """A scan that is shown, and why."""

    case: str
    patient: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """An image for the page: where it comes from and what it shows."""

    uri: str
    alt: str
    caption: str


@dataclass(frozen=True)
class CasePictures:
    """One slice of a scan: the reference, then each method's prediction on it; or why there is none."""

    choice: Choice
    slice_number: int
    number_of_slices: int
    pictures: tuple[Picture, ...]
    problem: str = ""


def choose_cases(arms: Sequence[Arm]) -> list[Choice]:
    """The first arm's worst, median and best patient by mean Dice, and the largest difference to the second arm.

    Of a patient with several scans, the one with the lowest Dice. A patient chosen twice is shown once.
    """
    dice = arms[0].values("dice")
    ranked = sorted(dice, key=lambda patient: (dice[patient], patient))
    if not ranked:
        return []
    label = arms[0].label
    reasons: dict[str, list[str]] = {}
    for patient, reason in (
        (ranked[0], "lowest"),
        (ranked[len(ranked) // 2], "median"),
        (ranked[-1], "highest"),
    ):
        reasons.setdefault(patient, []).append(f"{reason} Dice with {label}")
    farthest = _largest_difference(arms)
    if farthest:
        reasons.setdefault(farthest, []).append(f"largest difference between {label} and {arms[1].label}")
    return [Choice(_lowest_scan(arms, patient), patient, tuple(why)) for patient, why in reasons.items()]


def case_pictures(choice: Choice, arms: Sequence[Arm]) -> CasePictures:
    """Outline reference and predictions of a scan, on the slice of `case_slice`."""
    try:
        shown = case_slice(choice, arms)
    except UserError as error:
        return CasePictures(choice, 0, 0, (), problem=str(error))
    where = f"{choice.case}, slice {shown.number}"
    reference = outlined(shown.image, shown.reference, shown.aspect)
    pictures = [Picture(reference, f"Reference outlined on {where}.", "Reference")]
    for arm, run, labels in zip(arms, shown.runs, shown.predictions, strict=True):
        alt = f"Prediction of {arm.label} and reference outlined on {where}."
        picture = outlined(shown.image, labels, shown.aspect, shown.reference)
        pictures.append(Picture(picture, alt, _caption(arm, run, choice.case)))
    return CasePictures(choice, shown.number, shown.number_of_slices, tuple(pictures))


@dataclass(frozen=True)
class CaseSlice:
    """The slice of a scan that is looked at (see `telling_slice`), cropped around the outlines.

    Attributes:
        number: of the slice, from 1.
        aspect: height of a pixel over its width.
        predictions: label map of each arm, by the run in ``runs``.
    """

    number: int
    number_of_slices: int
    aspect: float
    image: Grey
    reference: Labels
    runs: tuple[FinishedRun, ...]
    predictions: tuple[Labels, ...]


def case_slice(choice: Choice, arms: Sequence[Arm]) -> CaseSlice:
    """Read a scan and cut out the slice.

    Raises:
        UserError: as `read_scan`.
    """
    scan = read_scan(choice.case, arms)
    index = telling_slice(scan)
    masks = [labels[index] for labels in (scan.reference, *scan.predictions)]
    box = crop_box(masks, scan.spacing_mm[1:])
    expected, *found = (mask[box] for mask in masks)
    return CaseSlice(
        index + 1,
        len(scan.reference),
        scan.spacing_mm[1] / scan.spacing_mm[2],
        scan.image[index][box],
        expected,
        scan.runs,
        tuple(found),
    )


def class_colour(value: int) -> str:
    """Colour of a class in hexadecimal, by its label; that of the twenty-first is the first one's again."""
    return CLASS_COLOURS[(value - 1) % len(CLASS_COLOURS)]


def largest_slice(labels: Labels | NDArray[np.bool_]) -> int:
    """The slice with most foreground; the middle one where there is none."""
    areas = np.count_nonzero(labels, axis=(1, 2))
    return int(areas.argmax()) if areas.any() else len(labels) // 2


def telling_slice(scan: "Scan") -> int:
    """The slice with most foreground in the reference; where that is empty, with most of what is marked instead."""
    if scan.reference.any():
        return largest_slice(scan.reference)
    return largest_slice(np.any([labels > 0 for labels in scan.predictions], axis=0))


def crop_box(slices: Sequence[Labels], spacing_mm: Sequence[float]) -> Box:
    """A box around the foreground of all ``slices`` with a margin; the whole slice where there is none.

    Args:
        slices: label maps, shape (rows, columns).
        spacing_mm: of rows and columns.
    """
    foreground = np.any([labels > 0 for labels in slices], axis=0)
    if not foreground.any():
        return slice(None), slice(None)
    rows, columns = np.flatnonzero(foreground.any(axis=1)), np.flatnonzero(foreground.any(axis=0))
    return (
        _padded(rows, foreground.shape[0], spacing_mm[0]),
        _padded(columns, foreground.shape[1], spacing_mm[1]),
    )


def grey_window(image: NDArray[Any]) -> tuple[float, float]:
    """What is black in an image, and by how much what is white lies above it.

    They are its 0.5th and 99.5th percentile, or the least and largest value where these are the same. An image
    without contrast, as single precision tells it, is black. Units do not matter.
    """
    low, high = np.percentile(image, (0.5, 99.5)).tolist()
    if not _differ(low, high):
        low, high = float(image.min()), float(image.max())
    return low, high - low if _differ(low, high) else 1.0


def _differ(low: float, high: float) -> bool:
    return bool(high - low > np.finfo(np.float32).eps * max(abs(low), abs(high)))


def outlined(image: Grey, labels: Labels, pixel_aspect: float, over: Labels | None = None) -> str:
    """A grey slice with the outline of every class, and of ``over`` dotted in white, as a data URI."""
    height, width = image.shape
    figure = Figure(figsize=(_WIDTH_INCHES, _WIDTH_INCHES * height * pixel_aspect / width))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    draw_outlines(axes, image, labels, pixel_aspect, over)
    return figure_uri(figure)


def figure_uri(figure: Figure) -> str:
    """A figure as a lossless WebP image in a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=_DPI, pil_kwargs=_LOSSLESS)
    return _uri(buffer)


def draw_outlines(
    axes: Axes, image: Grey, labels: Labels, pixel_aspect: float, over: Labels | None = None
) -> None:
    """Draw a grey slice with the outline of every class, and of ``over`` dotted in white."""
    low, width = grey_window(image)
    axes.imshow(
        (image.astype(np.float64) - low) / width,
        cmap="gray",
        vmin=0,
        vmax=1,
        aspect=pixel_aspect,
        interpolation="bilinear",
    )
    for value in _values(labels):
        axes.contour(labels == value, levels=[0.5], colors=[class_colour(value)], linewidths=1.8)
    for value in _values(over) if over is not None else []:
        axes.contour(over == value, levels=[0.5], colors=["white"], linewidths=0.9, linestyles="dotted")


def selection_pictures(run: FinishedRun, most: int = 4) -> list[Picture]:
    """Which pixels of an image were core, easy, hard or negative, at up to ``most`` epochs evenly spread.

    Raises:
        UserError: a file is damaged.
    """
    files = [path for path in run.selections if _epoch(path).isdecimal()]  # others are somebody's copies
    places = np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int))
    return [_selection_picture(files[place]) for place in places]


def _epoch(selection: Path) -> str:
    return selection.stem.removeprefix("epoch_")


def painted_roles(image: Grey, label: Labels, role: Labels) -> NDArray[np.float64]:
    """The core as a tint, queries and negatives as solid pixels, class borders in white.

    Args:
        image: shape (H, W).
        label: class of each pixel; may be coarser than the image.
        role: 0 or 1 + index into `ROLES`; as coarse as ``label``.

    Returns:
        RGB in [0, 1], enlarged by a whole number.
    """
    label, role = (_as_fine_as(image, coarse) for coarse in (label, role))
    low, width = grey_window(image)
    grey = np.clip((image.astype(np.float64) - low) / width, 0, 1)
    rgb = np.repeat(grey[..., None], 3, axis=2).astype(float)
    for code, name in enumerate(ROLES, start=1):
        opacity = 0.25 if name == "core" else 1.0
        chosen = role == code
        rgb[chosen] = (1 - opacity) * rgb[chosen] + opacity * np.array(mpl.colors.to_rgb(ROLE_COLOURS[name]))
    scale = max(1, round(_SELECTION_WIDTH / image.shape[1]))
    rgb = rgb.repeat(scale, axis=0).repeat(scale, axis=1)
    label = label.repeat(scale, axis=0).repeat(scale, axis=1)
    rgb[:, 1:][label[:, 1:] != label[:, :-1]] = 1
    rgb[1:][label[1:] != label[:-1]] = 1
    return rgb


def _as_fine_as(image: Grey, coarse: Labels) -> Labels:
    """Nearest neighbour, from the middle of each pixel."""
    rows, columns = (
        (2 * np.arange(fine) + 1) * size // (2 * fine)
        for fine, size in zip(image.shape, coarse.shape, strict=True)
    )
    return coarse[np.ix_(rows, columns)]


def _selection_picture(path: Path) -> Picture:
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            rgb = painted_roles(arrays["image"].astype(float), arrays["label"].astype(int), arrays["role"])
            counts = [int(np.count_nonzero(arrays["role"] == code)) for code in range(1, len(ROLES) + 1)]
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise UserError(f"{path} is no selection map ({error}).", "Remove it.") from error
    buffer = io.BytesIO()
    imsave(buffer, rgb, format="webp", origin="upper", pil_kwargs=_LOSSLESS)
    epoch = int(_epoch(path))
    listed = ", ".join(f"{count:,} {name}" for count, name in zip(counts, ROLES, strict=True))
    return Picture(
        _uri(buffer), f"Selection map of epoch {epoch}: {listed} pixels.", f"Epoch {epoch}: {listed}"
    )


def _uri(buffer: io.BytesIO) -> str:
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _values(labels: Labels) -> list[int]:
    return [int(value) for value in np.unique(labels) if value != 0]


def _padded(indices: NDArray[np.integer[Any]], size: int, spacing_mm: float) -> slice:
    low, high = int(indices[0]), int(indices[-1]) + 1
    margin = round(max(_MARGIN * (high - low), (_SMALLEST_CROP_MM / spacing_mm - (high - low)) / 2))
    return slice(max(0, low - margin), min(size, high + margin))


def _largest_difference(arms: Sequence[Arm]) -> str | None:
    if len(arms) < 2:
        return None
    ((first, second),) = comparable_values([[[*arm.evaluations.values()] for arm in arms[:2]]], "dice")
    return max(sorted(first), key=lambda patient: abs(first[patient] - second[patient]), default=None)


def _lowest_scan(arms: Sequence[Arm], patient: str) -> str:
    """By the first arm that has a Dice there: it may leave out what is not there and another marks."""
    dice = next(filter(None, (scan_dice(arm).get(patient) for arm in arms)))
    return min(sorted(dice), key=lambda case: dice[case])


def scan_dice(arm: Arm) -> dict[str, dict[str, float]]:
    """Of each patient Dice of the scans where it is defined, averaged over classes, then over seeds."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    every = average([dice_by_scan(evaluation) for evaluation in arm.evaluations.values()])
    for (patient, case), dice in every.items():
        found[patient][case] = dice
    return dict(found)


def dice_by_scan(evaluation: Evaluation | None) -> dict[tuple[str, ...], float]:
    """Dice of each patient and scan where it is defined, the mean of its classes."""
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in evaluation.cases if evaluation else ():
        if row.dice is not None:
            found[row.patient, row.case].append(row.dice)
    return {scan: mean(values) for scan, values in found.items()}


def _run_with(arm: Arm, case: str) -> FinishedRun:
    """The run with the lowest seed that predicted the case."""
    for run in arm.runs:
        if (run.predictions / f"{case}.nii.gz").is_file():
            return run
    raise UserError(
        f"{arm.label} has no prediction of {case}.", "Keep the predictions beside the run to see it."
    )


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan with what was marked in it, shape (z, y, x) of all, slices first as everywhere (see `slices_first`).

    Attributes:
        spacing_mm: in the order of the axes.
        image: its first channel.
        runs: of each arm that whose prediction it is, with the lowest seed.
    """

    spacing_mm: tuple[float, float, float]
    image: Grey
    reference: Labels
    runs: tuple[FinishedRun, ...]
    predictions: tuple[Labels, ...]


def read_scan(case: str, arms: Sequence[Arm]) -> Scan:
    """Read image, reference and every arm's prediction of a scan.

    Raises:
        UserError: one is not there, cannot be read, or does not lie on the same voxels.
    """
    runs = tuple(_run_with(arm, case) for arm in arms)
    record, folder = runs[0].record, runs[0].folder
    image = read_image(record.local("images", folder) / f"{case}_0000.nii.gz")
    reference = read_mask(record.local("reference", folder) / f"{case}.nii.gz", record.foreground)
    check_pair(image, reference)
    predictions = [read_mask(run.predictions / f"{case}.nii.gz", run.record.foreground) for run in runs]
    for prediction in predictions:
        check_pair(reference, prediction)
    arrays = (volume.array for volume in (image, reference, *predictions))
    spacing_mm, (grey, expected, *found) = slices_first(image.spacing_mm, *arrays)
    return Scan(spacing_mm, grey, expected, runs, tuple(found))


def _caption(arm: Arm, run: FinishedRun, case: str) -> str:
    """The arm, its seed and its Dice in the whole scan."""
    found = scores(run, case)
    return arm.name_of(run) + (f": {found}" if found else "")


def scores(run: FinishedRun, case: str) -> str:
    """Dice of each class in a scan, in percent; empty where the run was not evaluated on it."""
    rows = [row for row in run.evaluation.cases if row.case == case] if run.evaluation else []
    return ", ".join(
        f"{row.class_name} " + ("undefined" if row.dice is None else f"{100 * row.dice:.1f}") for row in rows
    )
