"""One scan in a folder of DICOM slices that nobody has vouched for.

Anonymised releases give each slice a series of its own, which readers of series refuse, and number slices in any
direction. So all files named are one scan, and where a slice lies is what its position and orientation say.
Headers are checked before any pixel is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccdcseg.datasets.dicom_header import (
    ADAPTED,
    COMMON,
    CONVERT,
    KINDS,
    MOMENTS,
    NAMES,
    SERIES,
    Header,
    listed,
    read_header,
    read_pixels,
)
from ccdcseg.datasets.nifti import MAX_BYTES
from ccdcseg.errors import UserError

TOLERANCE = 0.1
"""Part of a voxel by which a slice may lie beside its place, as where positions are rounded."""
_DOUBLED_MM = 0.01
_WORKING_BYTES = 8  # of a voxel while slices are read
_ACQUISITIONS = "slices are of several acquisitions of one series (AcquisitionNumber)"
_INVERTED = "slices are MONOCHROME1, shown with low values bright; values are as they are stored"
_UNSCALED = "slices are of CT and have no RescaleSlope or RescaleIntercept; values are as they are stored"
_APART = "Keep the slices of one scan in the folder, and those of each other in a folder of its own."


@dataclass(frozen=True, eq=False)
class Series:
    """Where the slices of a scan lie.

    Args:
        paths: the files, ascending along the normal of the slices.
        order: place of each of these in the sequence that was given.
        shape: rows and columns.
        spacing_mm: distance between slices (from their positions), between rows and between columns.
        origin_mm: position (x, y, z) of the first voxel, LPS.
        direction: 3 x 3 direction cosines, as in `ccdcseg.datasets.volumes.Volume`.
        uids: SOPInstanceUID of each slice, empty where a file has none.
        frame: FrameOfReferenceUID, empty where the slices have none or one each.
        notes: half a sentence on each thing that is no fault but may be one.
    """

    paths: tuple[Path, ...]
    order: tuple[int, ...]
    shape: tuple[int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[float, ...]
    uids: tuple[str, ...]
    frame: str
    notes: tuple[str, ...]


def read_series(paths: Sequence[Path]) -> Series:
    """Find out from the headers how slices make up a volume.

    Args:
        paths: all slices of the scan, in any order.

    Raises:
        UserError: a file is missing, damaged or compressed in a way that cannot be read; it lacks position,
            orientation or spacing; slices are of several series, patients, kinds, orientations, sizes or spacings;
            several lie at one place; one is missing, or their distances change; they are sheared; fewer than two;
            or they declare more than ``MAX_BYTES``.
    """
    headers = [read_header(path) for path in paths]
    if len(paths) < 2:
        raise UserError(
            f"{', '.join(map(str, paths)) or 'The scan'} is fewer than two slices.",
            f"Restore the others. If there are none: {CONVERT}",
        )
    _check_one_series(headers)
    _check_alike(headers)
    axes = perpendicular(headers[0].axes)
    normal = np.cross(*axes)
    along_mm = np.array([header.position_mm @ normal for header in headers])
    order = np.argsort(along_mm, kind="stable")
    ordered = [headers[index] for index in order]
    _check_doubled(ordered, np.diff(along_mm[order]))
    _check_gaps([header.path for header in ordered], along_mm[order])
    _check_straight(ordered, normal)
    first, frames = ordered[0], {header.said["FrameOfReferenceUID"] for header in headers}
    step_mm = (along_mm[order[-1]] - along_mm[order[0]]) / (len(paths) - 1)
    return Series(
        paths=tuple(header.path for header in ordered),
        order=tuple(int(index) for index in order),
        shape=first.shape,
        spacing_mm=(float(step_mm), float(first.spacing_mm[0]), float(first.spacing_mm[1])),
        origin_mm=(float(first.position_mm[0]), float(first.position_mm[1]), float(first.position_mm[2])),
        direction=tuple(float(x) for x in np.column_stack([*axes, normal]).ravel()),
        uids=tuple(header.uid for header in ordered),
        frame=next(iter(frames)) if len(frames) == 1 else "",
        notes=tuple(_notes(headers)),
    )


def perpendicular(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The perpendicular directions of length 1 nearest to two that were written with a few digits."""
    if np.allclose(axes @ axes.T, np.eye(2), rtol=0, atol=1e-6):
        return axes
    left, _, right = np.linalg.svd(axes, full_matrices=False)
    nearest: NDArray[np.float64] = left @ right
    return nearest


def _notes(headers: Sequence[Header]) -> Iterator[str]:
    if _are_mixed(headers, "AcquisitionNumber"):
        yield _ACQUISITIONS
    for keyword in ADAPTED:
        if len({header.said[keyword] for header in headers}) > 1:
            yield f"slices differ in {keyword}"
    if headers[0].said["PhotometricInterpretation"] == "MONOCHROME1":
        yield _INVERTED
    if headers[0].said["Modality"] == "CT" and not headers[0].rescaled:
        yield _UNSCALED


def read_voxels(series: Series) -> NDArray[Any]:
    """Read the values of a series, rescaled as each slice says (RescaleSlope and RescaleIntercept).

    Returns:
        Shape (slices, rows, columns); int16 where every value is such an integer, else float32.

    Raises:
        UserError: a slice is cut short or damaged, or its rescaling is unusable.
    """
    voxels = np.stack([read_pixels(path, series.shape) for path in series.paths])
    limits = np.iinfo(np.int16)
    fits = limits.min <= voxels.min() and voxels.max() <= limits.max
    return voxels.astype(np.int16 if fits and (voxels == np.rint(voxels)).all() else np.float32)


def _check_one_series(headers: Sequence[Header]) -> None:
    """Refuse slices of several series, patients or kinds; a series for each slice says nothing.

    What is adapted from slice to slice of one series is refused where several lie at one place, later.
    """
    series = {header.said["SeriesInstanceUID"] for header in headers}
    is_identified = len(series) == 1 and "" not in series
    for keyword in SERIES if is_identified else (*SERIES, *NAMES):
        _check_unmixed(headers, keyword)
    kinds = [keyword for keyword in KINDS if not (is_identified and keyword in ADAPTED)]
    first = headers[0]
    for header in headers[1:]:
        if header.patient != first.patient:
            raise UserError(f"{header.path} is of another patient (PatientID) than {first.path}.", _APART)
        for keyword in kinds:
            _check_kind(keyword, first, header)
        if header.rescaled != first.rescaled:
            lacked = " or ".join(sorted({*header.rescaled} ^ {*first.rescaled}, reverse=True))
            raise UserError(f"One of {header.path} and {first.path} has a {lacked}, the other none.", _APART)


def _check_unmixed(headers: Sequence[Header], keyword: str) -> None:
    """Refuse slices that a field divides into series."""
    if not _are_mixed(headers, keyword):
        return
    first = headers[0]
    other = next(header for header in headers if header.said[keyword] != first.said[keyword])
    alike = sum(header.said[keyword] == first.said[keyword] for header in headers)
    raise UserError(
        f"{first.path} and {other.path} are not of one series: {alike} of {len(headers)} slices have the "
        f"{keyword} of the first.",
        _APART,
    )


def _are_mixed(headers: Sequence[Header], keyword: str) -> bool:
    """Whether a field has several values, but not one for each slice; of two slices each may be a series."""
    return 1 < len({header.said[keyword] for header in headers}) < max(len(headers), 3)


def _check_kind(keyword: str, first: Header, other: Header) -> None:
    one, another = first.said[keyword], other.said[keyword]
    if one != another and (keyword in COMMON or (one and another)):
        raise UserError(
            f"{other.path} has another {keyword} than {first.path}: {another or 'none'} against "
            f"{one or 'none'}.",
            _APART,
        )


def _check_alike(headers: Sequence[Header]) -> None:
    """Refuse slices that make up no grid, and a grid that is too large."""
    first = headers[0]
    for header in headers[1:]:
        for name, one, other in (
            ("orientation", first.axes, header.axes),
            ("size in pixels", np.array(first.shape), np.array(header.shape)),
            ("pixel spacing", first.spacing_mm, header.spacing_mm),
        ):
            if not np.allclose(one, other, rtol=0, atol=1e-3):
                raise UserError(
                    f"{header.path} has another {name} than {first.path}: {listed(other.ravel())} against "
                    f"{listed(one.ravel())}.",
                    _APART,
                )
    declared = len(headers) * first.shape[0] * first.shape[1] * _WORKING_BYTES
    if declared > MAX_BYTES:
        raise UserError(
            f"{first.path} and the {len(headers) - 1} slices with it declare {declared / 2**30:.1f} GiB; "
            f"{MAX_BYTES / 2**30:.0f} GiB is the limit.",
            f"Check the headers. If they are right: {CONVERT}",
        )


def _check_doubled(headers: Sequence[Header], gaps_mm: NDArray[np.float64]) -> None:
    """Refuse several slices at one place."""
    least = int(gaps_mm.argmin())
    if gaps_mm[least] >= min(_DOUBLED_MM, TOLERANCE * headers[0].spacing_mm.min()):  # voxels may be smaller
        return
    one, other = headers[least], headers[least + 1]
    differing = (
        f"{name} {other.said[name] or 'none'} against {one.said[name] or 'none'}"
        for name in (*ADAPTED, *MOMENTS)
        if one.said[name] != other.said[name]
    )
    raise UserError(
        f"{other.path} lies where {one.path} lies ({', '.join(differing) or 'no other time is given'}): a slice is "
        "doubled, or several volumes, such as phases or echoes, are in one folder.",
        "Remove what is doubled; put each volume into a folder of its own.",
    )


def _check_gaps(paths: Sequence[Path], along_mm: NDArray[np.float64]) -> None:
    """Refuse a missing slice, and steps that are no regular ones."""
    gaps_mm = np.diff(along_mm)
    usual_mm = float(np.quantile(gaps_mm, 0.5, method="lower"))
    worst = int(np.abs(gaps_mm - usual_mm).argmax())
    if abs(gaps_mm[worst] - usual_mm) > TOLERANCE * usual_mm:
        raise UserError(
            f"{paths[worst]} and {paths[worst + 1]} are neighbours {gaps_mm[worst]:.4g} mm apart, other slices "
            f"{usual_mm:.4g} mm: one is missing or misplaced.",
            "Export all slices again, or restore them from their release.",
        )
    off_mm = np.abs(along_mm - np.linspace(along_mm[0], along_mm[-1], len(along_mm)))
    worst = int(off_mm.argmax())
    if off_mm[worst] > TOLERANCE * usual_mm:
        raise UserError(
            f"{paths[worst]} lies {off_mm[worst]:.4g} mm from where slices at one distance from each other would "
            "have it: the distance changes.",
            "Resample the scan onto a regular grid.",
        )


def _check_straight(headers: Sequence[Header], normal: NDArray[np.float64]) -> None:
    """Refuse slices that are shifted against each other, as a tilted gantry does."""
    offsets = np.array([header.position_mm for header in headers]) - headers[0].position_mm
    aside_mm = np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1)
    worst = int(aside_mm.argmax())
    if aside_mm[worst] > TOLERANCE * headers[0].spacing_mm.min():
        raise UserError(
            f"{headers[worst].path} is shifted sideways by {aside_mm[worst]:.3g} mm against "
            f"{headers[0].path}: the slices are sheared.",
            "Resample the scan onto a straight grid; dcm2niix does so for a tilted gantry.",
        )
