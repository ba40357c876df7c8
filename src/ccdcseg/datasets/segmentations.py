"""DICOM segmentations, placed on the voxels of the scan that they belong to."""

import logging
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from pydicom.misc import is_dicom

from ccdcseg.datasets.dicom import TOLERANCE, Series, perpendicular
from ccdcseg.datasets.dicom_header import DOWNLOAD, check_decoder, reading
from ccdcseg.datasets.nifti import MAX_BYTES
from ccdcseg.datasets.turning import fitted, whole
from ccdcseg.datasets.volumes import Volume
from ccdcseg.errors import UserError
from ccdcseg.files import check_regular
from ccdcseg.texts import reason

_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Of segmentations, and of label maps, which pydicom has no name for."""

_PARALLEL = 1e-2
"""The largest cosine between an axis of frames and the direction in which slices follow each other."""

logging.getLogger("highdicom").setLevel(logging.ERROR)


def read_segmentation(
    path: Path, labels: Mapping[str, int], image: Volume, series: Series | None = None
) -> Volume:
    """Read a DICOM segmentation as a label mask: a binary one, a label map, or a fractional one of two values.

    Args:
        path: the file.
        labels: value of each foreground class by name; segments are known by their label, whatever its case.
        image: the scan; slices that the segmentation leaves out are background.
        series: the scan's slices, of which the segmentation must name one, or of whose frame of reference it must
            be where it names none; None: the scan is no DICOM, and the place alone tells whether they belong
            together.

    Returns:
        The mask on the image's voxels, int16 or the next larger signed type that holds all labels.

    Raises:
        UserError: no readable segmentation, one of other slices, a segment of another name, segments that
            overlap or cover voxels in part, voxels that are not those of the image, foreground outside it, or
            more than ``MAX_BYTES``.
    """
    stored = _stored(path)
    with _explaining(path, "is damaged or cut short", DOWNLOAD):
        values = _values(path, stored, labels)
        _check_source(path, stored, image, series)
        _check_binary(path, stored)
    if image.array.size * len(values) > MAX_BYTES:
        raise UserError(f"{path} has {len(values)} segments on {image.array.shape} voxels.", "Split it.")
    misfit = "Export it on the voxels of the scan, without overlapping segments; or as NIfTI."
    with _explaining(path, f"does not fit {image.path}", misfit):
        found = _on_slices(stored, image).get_volume(combine_segments=True)
    mask = np.zeros(found.array.shape, label_type(labels.values()))
    for number, value in values.items():
        mask[found.array == number] = value
    axes = found.direction[:, ::-1]  # highdicom has the slices' first
    drawn = Volume(path, mask, tuple(found.spacing), tuple(found.position), tuple(axes.ravel().tolist()))
    return fitted(whole(drawn, image), image)


def _stored(path: Path) -> Any:
    other = (
        "Copy or download it again if it should be one. Else export the mask as one, or as NIfTI; of an RTSTRUCT "
        "3D Slicer or plastimatch makes either."
    )
    check_regular(path)
    with _explaining(path, "is no DICOM segmentation", other), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return highdicom.seg.segread(path)


@contextmanager
def _explaining(path: Path, problem: str, remedy: str) -> Iterator[None]:
    """Say of any error that pixels are missing where they are, and else what it means at this point."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        _check_whole(path)
        raise UserError(f"{path} {problem} ({reason(error)}).", remedy) from error


def _check_whole(path: Path) -> None:
    """Refuse a segmentation that does not have all of its pixels, which are last in a file."""
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not is_dicom(path):
            return
        dataset = pydicom.dcmread(path)
        # Of what is cut short, pydicom may leave nothing but how the file begins.
        kind = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
        if not kind or kind in _CLASSES:
            syntax = dataset.file_meta.TransferSyntaxUID
            if syntax.is_compressed:
                check_decoder(path, syntax)
            dataset.pixel_array  # noqa: B018


def _on_slices(stored: Any, image: Volume) -> Any:
    """Move frames onto the scan's slices that each lies next to, where all do: those of rounded positions do.

    highdicom wants them at even distances, and takes that between slices from what the file says of it. The scan's
    slices lie across whichever axis of its file the frames do.
    """
    turns = _of_frames(stored, "PlaneOrientationSequence")
    axes = np.array([turn.ImageOrientationPatient for turn in turns], float).reshape(-1, 2, 3)
    cosines = np.abs(axes @ np.reshape(image.direction, (3, 3))).max(axis=(0, 1), initial=0)
    across = int(cosines.argmin())
    along_mm, to_slice = image.affine[:3, across], np.linalg.inv(image.affine)[across]
    planes = _of_frames(stored, "PlanePositionSequence")
    places = np.array([[*map(float, plane.ImagePositionPatient), 1] for plane in planes]).reshape(-1, 4)
    off = np.rint(places @ to_slice) - places @ to_slice
    if cosines[across] > _PARALLEL or (np.abs(off) > TOLERANCE).any():
        return stored
    for turn, pair in zip(turns, axes, strict=True):
        turn.ImageOrientationPatient = perpendicular(pair).ravel().round(9).tolist()
    for plane, place in zip(planes, places[:, :3] + np.outer(off, along_mm), strict=True):
        plane.ImagePositionPatient = place.round(9).tolist()
    for measures in _of_frames(stored, "PixelMeasuresSequence"):
        measures.SpacingBetweenSlices = round(image.spacing_mm[2 - across], 9)
    return highdicom.seg.Segmentation.from_dataset(stored, copy=False)


def _of_frames(stored: Any, name: str) -> list[Any]:
    """What is said of all frames in common, and of each."""
    groups = (stored.get(f"{which}FunctionalGroupsSequence", ()) for which in ("Shared", "PerFrame"))
    return [part for group in chain(*groups) for part in group.get(name, ())]


def _check_source(path: Path, stored: Any, image: Volume, series: Series | None) -> None:
    """Refuse a segmentation that names the slices it was drawn on, none of them the scan's."""
    if series is None:
        return
    remedy = "Export it again with references to the slices, or as NIfTI."
    with _explaining(path, "does not say of which slices it is", remedy):
        named = {str(sop) for _, _, sop in stored.get_source_image_uids()}
    frame = str(stored.get("FrameOfReferenceUID") or "")
    other_frame = bool(frame and series.frame and frame != series.frame)
    if named.isdisjoint(series.uids) if named else other_frame:
        what = "on other slices than those" if named else "in another frame of reference than that"
        raise UserError(
            f"{path} was drawn {what} of {image.path}.",
            "Pair the right files; if they are, and identifiers were changed, export the mask as NIfTI.",
        )


def _check_binary(path: Path, stored: Any) -> None:
    """Refuse a fractional segmentation, unless each voxel is wholly in a segment or wholly outside."""
    if stored.SegmentationType != "FRACTIONAL":
        return
    found, most = np.unique(stored.pixel_array), int(stored.MaximumFractionalValue)
    between = [int(value) for value in found if value not in (0, most)]
    if between:
        raise UserError(
            f"{path} is a fractional segmentation: voxels are in a segment by {between[0]} of {most}.",
            "Choose a threshold and export it as a binary one.",
        )


def _values(path: Path, stored: Any, labels: Mapping[str, int]) -> dict[int, int]:
    """Label of each segment by its number."""
    numbers = stored.segment_numbers
    names = {number: str(stored.get_segment_description(number).segment_label) for number in numbers}
    return segment_labels(path, names, labels)


def segment_labels(path: Path, names: Mapping[int, str], labels: Mapping[str, int]) -> dict[int, int]:
    """The label of each segment, known by its name, whatever its case.

    Args:
        path: the file that errors name.
        names: of the segments, by number.
        labels: value of each foreground class by name.

    Raises:
        UserError: a segment of another name, or labels that differ by case alone.
    """
    wanted = {_folded(name): value for name, value in labels.items()}
    if len(wanted) < len(labels):
        raise UserError(
            f"The labels {', '.join(labels)} differ by case alone.", "Segments do not: rename one."
        )
    unknown = [name for name in names.values() if _folded(name) not in wanted]
    if unknown:
        raise UserError(
            f"{path} has the segment {unknown[0]}, no known label: these are {', '.join(labels)}.",
            f'Name it: --label "{unknown[0]}"=VALUE.',
        )
    return {number: wanted[_folded(name)] for number, name in names.items()}


def label_type(labels: Iterable[int]) -> np.dtype[Any]:
    """int16, or the next larger signed type that holds all labels."""
    return np.result_type(np.int16, np.min_scalar_type(-max(map(abs, labels), default=0) - 1))


def _folded(name: str) -> str:
    """A name without regard to case, and to how its accents are stored."""
    return unicodedata.normalize("NFC", name.strip()).casefold()
