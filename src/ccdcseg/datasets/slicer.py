"""Masks of 3D Slicer: segmentations with named segments (``.seg.nrrd``), and label maps (``.nrrd``)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ccdcseg.datasets.nrrd import Nrrd, read_nrrd
from ccdcseg.datasets.segmentations import label_type, segment_labels
from ccdcseg.datasets.turning import whole
from ccdcseg.datasets.volumes import Volume, labelled
from ccdcseg.errors import UserError
from ccdcseg.texts import exactly

_KEY = re.compile(r"Segment([0-9]{1,6})_(Name|ID|LabelValue|Layer)")
_NUMBER = re.compile(r"[0-9]{1,9}")
_KINDS = ("Segmentation_SourceRepresentation", "Segmentation_MasterRepresentation")
_BINARY = "Binary labelmap"
_SEGMENTATION = "Segmentation_"
"""What keys of segmentations begin with; one without segments may have a single voxel, wherever it lies."""


@dataclass(frozen=True)
class _Segment:
    name: str
    value: int
    layer: int


def read_slicer_mask(path: Path, labels: Mapping[str, int], image: Volume) -> Volume:
    """Read a mask of 3D Slicer's.

    Args:
        path: a segmentation, whose segments are known by their name, whatever its case, and which may cover a part
            of the image; or a label map, whose values are those of ``labels``.
        labels: value of each foreground class by name.
        image: the scan; what a segmentation leaves out is background.

    Returns:
        The mask, int16 or the next larger signed type that holds all labels. That of a segmentation lies on the
        image's voxels, in the order of axes that the file has; it is empty where the file has no segments.

    Raises:
        UserError: as `read_nrrd`; a segment of another name, or two of one; two that overlap; a value that is no
            segment's; a fractional segmentation; voxels that are not those of the image, or foreground outside it.
    """
    stored = read_nrrd(path)
    segments = _segments(path, stored)
    if segments:
        values = segment_labels(path, {number: one.name for number, one in segments.items()}, labels)
        _check_distinct(path, segments, values)
        return whole(_combined(stored, segments, values), image)
    if any(key.startswith(_SEGMENTATION) for key in stored.said) and not _is_drawn(stored):
        return replace(image, path=path, array=np.zeros(image.array.shape, np.int16))
    if len(stored.layers) > 1:
        raise UserError(
            f"{path} is 4-D and names no segments.", "Save it as a segmentation (.seg.nrrd) with 3D Slicer."
        )
    return labelled(stored.layers[0], labels)


def _is_drawn(stored: Nrrd) -> bool:
    return any(layer.array.any() for layer in stored.layers)


def _segments(path: Path, stored: Nrrd) -> dict[int, _Segment]:
    """All of them, by the numbers that the file gives them."""
    kind = next((stored.said[key] for key in _KINDS if key in stored.said), _BINARY)
    if kind != _BINARY:
        raise UserError(f"{path} is a segmentation kept as a {kind}.", "Convert it to a binary labelmap.")
    keys: dict[int, dict[str, str]] = {}
    for key, value in stored.said.items():
        if match := _KEY.fullmatch(key):
            keys.setdefault(int(match[1]), {})[match[2]] = value
    return {number: _segment(path, number, said, len(stored.layers)) for number, said in keys.items()}


def _segment(path: Path, number: int, said: Mapping[str, str], layers: int) -> _Segment:
    """As 3D Slicer reads it: before version 4.11 each segment had a layer of its own, with the value 1."""
    value, layer = said.get("LabelValue", "1"), said.get("Layer", str(number) if layers > 1 else "0")
    name = said.get("Name", said.get("ID", ""))
    if not (name and _NUMBER.fullmatch(value) and int(value) and _NUMBER.fullmatch(layer)):
        raise UserError(
            f"{path} gives its segment {number} the name {name or 'none'}, the value {value} and the layer "
            f"{layer}.",
            "Save it again with 3D Slicer.",
        )
    if int(layer) >= layers:
        raise UserError(
            f"{path} has its segment {name} in layer {layer} of {layers}, counted from 0.",
            "Save it again with 3D Slicer.",
        )
    return _Segment(name, int(value), int(layer))


def _check_distinct(path: Path, segments: Mapping[int, _Segment], labels: Mapping[int, int]) -> None:
    """Refuse two segments of one name, and two that are the same voxels."""
    seen: dict[object, _Segment] = {}
    for number, segment in segments.items():
        for what, key in (("name", labels[number]), ("value and layer", (segment.value, segment.layer))):
            other = seen.setdefault(key, segment)
            if other is not segment:
                raise UserError(
                    f"{path} has two segments of one {what}, {other.name} and {segment.name}.",
                    "Merge or rename them in the Segment Editor.",
                )


def _combined(stored: Nrrd, segments: Mapping[int, _Segment], labels: Mapping[int, int]) -> Volume:
    """One mask of all segments, on the voxels of the file."""
    first = stored.layers[0]
    _check_declared(stored, segments)
    mask = np.zeros(first.array.shape, label_type(labels.values()))
    owners: dict[int, str] = {}
    for number, segment in segments.items():
        voxels = stored.layers[segment.layer].array == segment.value
        shared = mask[voxels & (mask != 0)]
        if shared.size:
            raise UserError(
                f"{first.path} has segments that overlap, {owners[int(shared[0])]} and {segment.name} "
                f"({shared.size} voxels).",
                "Let one overwrite the other: Segment Editor, Modify other segments: Overwrite all.",
            )
        mask[voxels] = labels[number]
        owners[labels[number]] = segment.name
    return replace(first, array=mask)


def _check_declared(stored: Nrrd, segments: Mapping[int, _Segment]) -> None:
    """Refuse values that no segment has."""
    for number, layer in enumerate(stored.layers):
        known = {0, *(segment.value for segment in segments.values() if segment.layer == number)}
        unknown = {*np.unique(layer.array).tolist()} - known
        if unknown:
            raise UserError(
                f"{layer.path} holds the value {exactly(min(unknown))}, which no segment has (layer {number}).",
                "Save it again with 3D Slicer.",
            )
