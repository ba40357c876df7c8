"""Small pictures of scans with their masks outlined, as JPEG in data URIs."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion

from ccdcseg.cache import cache_key, made_once
from ccdcseg.checks.contents import CaseFiles, Contents
from ccdcseg.datasets.volumes import read_image, read_mask, slices_first
from ccdcseg.errors import UserError
from ccdcseg.processes import Progress
from ccdcseg.report.pictures import CLASS_COLOURS, class_colour, grey_window, largest_slice

FORMAT = "ccdcseg-thumbnail/2"

_LONGEST_SIDE = 320
_QUALITY = 80


@dataclass(frozen=True)
class Thumbnail:
    """One slice of a case.

    Args:
        uri: the picture; empty where the scan cannot be shown.
        slice_number: counted from 1.
        number_of_slices: of the scan.
        problem: why there is no picture, or no outline on it.
    """

    uri: str
    slice_number: int
    number_of_slices: int
    problem: str = ""


def thumbnails(
    contents: Contents, cases: Sequence[str], cache: Path, workers: int, progress: Progress | None = None
) -> dict[str, Thumbnail]:
    """Draw the slice with most foreground of each case, unless it has been drawn from the files as they are.

    Args:
        contents: of the raw folder.
        cases: whom to draw.
        cache: folder of the pictures, one file a case; a damaged or outdated one is made again.
        workers: processes.
        progress: called with the number of pictures drawn and to be drawn now.

    Returns:
        Pictures by case.

    Raises:
        UserError: a worker was killed.
    """
    rule = (FORMAT, dict(contents.labels), contents.ignore, CLASS_COLOURS)
    files = [contents.files[case] for case in cases]
    sources = [(case, cache / f"{case.case}.json", cache_key(case.paths, *rule)) for case in files]
    draw = partial(draw_case, labels=contents.labels, ignore=contents.ignore)
    return dict(zip(cases, made_once(draw, Thumbnail, sources, workers, progress, _is_whole), strict=True))


def _is_whole(thumbnail: Thumbnail) -> bool:
    return not thumbnail.problem


def draw_case(files: CaseFiles, labels: Mapping[str, int], ignore: int | None) -> Thumbnail:
    """Outline the mask on the slice with most foreground; the middle slice where there is none.

    Slices (see `slices_first`) are shown as stored, in the proportions of the body.
    """
    if not files.images:
        return Thumbnail("", 0, 0, "there is no image")
    try:
        image = read_image(files.images[min(files.images)])
    except UserError as error:
        return Thumbnail("", 0, 0, error.problem)
    mask, problem = _mask(files, image.array.shape, labels, ignore)
    foreground = np.where(np.isin(mask, [*labels.values()]), mask, 0)
    (_, rows_mm, columns_mm), (grey, outlines) = slices_first(image.spacing_mm, image.array, foreground)
    index = largest_slice(outlines)
    picture = jpeg(outlined_pixels(grey[index], outlines[index], rows_mm / columns_mm))
    return Thumbnail(picture, index + 1, len(grey), problem)


def outlined_pixels(
    grey: NDArray[Any], labels: NDArray[np.integer[Any]], pixel_aspect: float
) -> NDArray[np.uint8]:
    """A slice with the outline of every class in its colour.

    Args:
        grey: shape (rows, columns), any number.
        labels: as large; 0 is not outlined.
        pixel_aspect: height of a pixel divided by its width.

    Returns:
        RGB, shape (rows, columns, 3), the longer side of 320 pixels.
    """
    low, contrast = grey_window(grey)
    window = np.clip((grey.astype(np.float64) - low) / contrast, 0, 1)
    height, width = grey.shape[0] * pixel_aspect, grey.shape[1]
    scale = _LONGEST_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    rgb = np.repeat(_resized(window, size)[..., None], 3, axis=2)
    for value in np.unique(labels[labels != 0]):
        shares = _resized(labels == value, size)
        inside = np.pad(shares >= min(128, shares.max()), 1)  # what is smaller than a pixel is shown too
        outline = (inside & ~binary_erosion(inside))[1:-1, 1:-1]
        rgb[outline] = np.array(to_rgb(class_colour(int(value)))) * 255
    return rgb


def jpeg(rgb: NDArray[np.uint8]) -> str:
    """RGB pixels as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _mask(
    files: CaseFiles, shape: tuple[int, ...], labels: Mapping[str, int], ignore: int | None
) -> tuple[NDArray[np.integer[Any]], str]:
    """The mask, or an empty one and why."""
    empty = np.zeros(shape, np.int16)
    if files.mask is None:
        return empty, "there is no mask"
    try:
        mask = read_mask(files.mask, labels, ignore).array
    except UserError as error:
        return empty, error.problem
    return (mask, "") if mask.shape == shape else (empty, "image and mask have different shapes")


def _resized(array: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Values from 0 to 1 as 0 to 255, at another size (width, height)."""
    picture = Image.fromarray((array * 255).astype(np.uint8))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
