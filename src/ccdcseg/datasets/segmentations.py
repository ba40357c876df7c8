"""DICOM segmentations, placed on the voxels of the scan that they belong to."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np

from ccdcseg.datasets.volumes import MAX_BYTES, Volume
from ccdcseg.errors import UserError

logging.getLogger("highdicom").setLevel(logging.ERROR)


def read_segmentation(
    path: Path, labels: Mapping[str, int], image: Volume, slices: Sequence[str] | None = None
) -> Volume:
    """Read a DICOM segmentation as a label mask.

    Args:
        path: the file.
        labels: value of each foreground class by name; segments are known by their label, whatever its case.
        image: the scan; slices that the segmentation leaves out are background.
        slices: SOPInstanceUID of each slice of the scan, of which the segmentation must name one; None: the scan
            is no DICOM, and the place alone tells whether they belong together.

    Returns:
        The mask on the image's voxels, int16.

    Raises:
        UserError: no readable segmentation, one of other slices, a segment of another name, segments that
            overlap, voxels that are not those of the image, foreground outside it, or more than ``MAX_BYTES``.
    """
    stored = _stored(path)
    values = _values(path, stored, labels)
    _check_source(path, stored, image, slices)
    if image.array.size * len(values) > MAX_BYTES:
        raise UserError(f"{path} has {len(values)} segments on {image.array.shape} voxels.", "Split it.")
    geometry = highdicom.VolumeGeometry(image.affine[:, [2, 1, 0, 3]], image.array.shape, "PATIENT")
    try:
        found = stored.get_volume(combine_segments=True, rescale_fractional=False)
        array = found.match_geometry(geometry, tol=1e-2).array
    except Exception as error:
        raise UserError(
            f"{path} does not fit {image.path} ({' '.join(str(error).split())}).",
            "Export it on the voxels of the scan, without overlapping segments.",
        ) from error
    lost = int(np.count_nonzero(found.array)) - int(np.count_nonzero(array))
    if lost:
        raise UserError(
            f"{path} has {lost} labelled voxels outside {image.path}.",
            "Give the whole scan, or its own mask.",
        )
    mask = np.zeros(image.array.shape, np.int16)
    for number, value in values.items():
        mask[array == number] = value
    return Volume(path, mask, image.spacing_mm, image.origin_mm, image.direction)


def _stored(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return highdicom.seg.segread(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}).", "Check the file and its rights."
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is no DICOM segmentation ({reason}).", "Export the mask again.") from error


def _check_source(path: Path, stored: Any, image: Volume, slices: Sequence[str] | None) -> None:
    """Refuse a segmentation that names the slices it was drawn on, none of them the scan's."""
    if slices is None:
        return
    try:
        named = {str(sop) for _, _, sop in stored.get_source_image_uids()}
    except Exception as error:
        raise UserError(
            f"{path} does not say of which slices it is ({' '.join(str(error).split())}).",
            "Export it again with references to the slices, or as NIfTI.",
        ) from error
    if named and named.isdisjoint(slices):
        raise UserError(
            f"{path} was drawn on other slices than those of {image.path}.", "Pair the right files."
        )


def _values(path: Path, stored: Any, labels: Mapping[str, int]) -> dict[int, int]:
    """Label of each segment by its number."""
    wanted = {name.casefold(): value for name, value in labels.items()}
    if len(wanted) < len(labels):
        raise UserError(
            f"The labels {', '.join(labels)} differ by case alone.", "Segments do not: rename one."
        )
    names = {
        number: str(stored.get_segment_description(number).segment_label) for number in stored.segment_numbers
    }
    unknown = [name for name in names.values() if name.casefold() not in wanted]
    if unknown:
        raise UserError(
            f"{path} has the segment {unknown[0]}, no known label: these are {', '.join(labels)}.",
            f'Name it: --label "{unknown[0]}"=VALUE.',
        )
    return {number: wanted[name.casefold()] for number, name in names.items()}
