"""Reading NIfTI volumes that nobody has vouched for, and writing them.

A header may lie, a download may be cut short, and readers mend silently. So header and content are checked as
they lie in the file (`ccdcseg.datasets.nifti`) before SimpleITK, nnU-Net's reader, loads them. Arrays are in the
order (z, y, x), and so is every ``spacing_mm``.
"""

import gzip
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from ccdcseg.datasets.nifti import (
    GEOMETRY_TOLERANCE,
    check_content,
    check_header,
    corners_mm,
    departures,
    is_scaled,
    listed,
    odd_form,
    plain_form,
    read_header,
    reading,
)
from ccdcseg.errors import UserError
from ccdcseg.files import check_name, scratch_folder, write_bytes
from ccdcseg.texts import exactly

# ITK warns twice for every file of the ACDC release (axes without scale); what matters is checked here.
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)


LARGEST = 1e18
"""Of the values of a scan: nnU-Net squares them in single precision, where beyond 3e38 there is nothing."""
UPRIGHT = 0.95
"""Cosine to an axis of the body from which on slices are not called oblique: 18 degrees, as a gantry is tilted."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D scan or mask and where it lies.

    Args:
        path: the file that errors name.
        array: voxels, shape (z, y, x).
        spacing_mm: distance between voxels, in the order of the array's axes.
        origin_mm: position (x, y, z) of the first voxel, in ITK's LPS coordinates.
        direction: 3 x 3 direction cosines, row by row, columns in the order x, y, z of the voxel index.
        notes: what its file has that most have not, though it was read exactly: half sentences.
    """

    path: Path
    array: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    notes: tuple[str, ...] = ()

    @property
    def affine(self) -> NDArray[np.float64]:
        """4 x 4 matrix from a voxel index (x, y, z) to LPS millimetres."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(self.direction, (3, 3)) * np.array(self.spacing_mm[::-1])
        affine[:3, 3] = self.origin_mm
        return affine

    @property
    def axes(self) -> str:
        """See `axis_codes`."""
        return axis_codes(self.affine[:3, :3])


def axis_codes(axes: NDArray[np.float64]) -> str:
    """Where the axes x, y, z of a scan's voxels point, such as "LPS": to the left, to the back and to the head.

    Args:
        axes: 3 x 3, in LPS; oblique ones are named by the nearest direction.
    """
    to_ras = np.eye(4)
    to_ras[:3, :3] = np.diag([-1.0, -1.0, 1.0]) @ axes
    return "".join(nibabel.aff2axcodes(to_ras))


def stored_axes(path: Path) -> str | None:
    """As `axis_codes`, of a file, by its header alone; None where that cannot be read."""
    if not path.is_file():  # ITK waits for ever at a pipe
        return None
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return axis_codes(_direction(reader))


def other_axes(axes: Mapping[str, str | None], known: Collection[str], scans: str, others: str) -> str:
    """That scans are stored along other axes than those a network is trained on; empty where none is.

    Args:
        axes: `stored_axes` of each scan by name; nothing is said of those that are None.
        known: of those that the network is trained on.
        scans: what to call the first.
        others: what to call those.
    """
    odd = {name: codes for name, codes in axes.items() if codes is not None and codes not in known}
    if not odd:
        return ""
    name, codes = next(iter(odd.items()))
    return (
        f"{len(odd)} of {len(axes)} {scans} are stored along other axes than {others}, such as {name} ({codes}, "
        f"not {' or '.join(known)}), and nnU-Net does not turn scans"
    )


def read_image(path: Path, *, any_form: bool = False) -> Volume:
    """Read a scan: 3-D, 2-D (one slice, as thick as its larger pixel) or 3-D with further axes of one element.

    Args:
        path: the file. A unit of length in its header counts.
        any_form: also read what nnU-Net's reader does not take, though it is exact and unambiguous: NIfTI-2, a
            gzipped file whose name does not say so, any suffix, and a 2-D image in any plane.

    Returns:
        The volume, its values as stored.

    Raises:
        UserError: the file is missing, truncated or damaged, its header lies or is unusable (see `check_header` and
            `check_content`), or nnU-Net's reader does not take its form.
    """
    check_name(path)
    with reading(path):
        header = read_header(path)
        check_header(path, header)
        voxels = check_content(path, header)
        odd = odd_form(path, header)
    if odd is None:
        del voxels  # so that it is in memory once
        return _loaded(path, path, header)
    if not any_form:
        raise odd
    with scratch_folder() as folder:
        plain = folder / "plain.nii"
        plain.write_bytes(plain_form(path, header, voxels))
        return _loaded(plain, path, header)


def _loaded(plain: Path, path: Path, header: Any) -> Volume:
    """Load what was checked.

    Args:
        plain: the file to load.
        path: the file that errors name.
        header: of that.
    """
    try:
        image = SimpleITK.ReadImage(str(plain))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{path} cannot be read ({reason}).", "Convert it to plain 3-D NIfTI.") from error
    volume = _in_3d(path, image)
    _check_read(volume, header)
    return replace(volume, notes=departures(path, header))


def _in_3d(path: Path, image: SimpleITK.Image) -> Volume:
    """A 2-D image as one slice, axes beyond the third left out."""
    array = SimpleITK.GetArrayFromImage(image)
    axes = min(image.GetDimension(), 3)
    spacing, origin = np.full(3, max(image.GetSpacing())), np.zeros(3)
    spacing[:axes], origin[:axes] = image.GetSpacing()[:axes], image.GetOrigin()[:axes]
    return Volume(
        path,
        array.reshape((1, *array.shape) if array.ndim == 2 else array.shape[-3:]),
        cast(tuple[float, float, float], tuple(spacing[::-1].tolist())),
        cast(tuple[float, float, float], tuple(origin.tolist())),
        tuple(_direction(image).ravel().tolist()),
    )


def _direction(image: SimpleITK.Image | SimpleITK.ImageFileReader) -> NDArray[np.float64]:
    """3 x 3: the first three axes, those that are not there along their own."""
    axes = min(image.GetDimension(), 3)
    direction = np.eye(3)
    stored = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)
    direction[:axes, :axes] = stored[:axes, :axes]
    return direction


def _check_read(volume: Volume, header: Any) -> None:
    """Refuse what the reader made of a header that passed: values beyond `LARGEST`, other axes than stored."""
    axes = min(int(header["dim"][0]), 3)
    shape = (1,) * (3 - axes) + tuple(int(size) for size in header["dim"][axes:0:-1])
    if volume.array.shape != shape or not np.isfinite(volume.affine).all():
        raise UserError(
            f"{volume.path} has a header that contradicts itself.", "Convert it to plain 3-D NIfTI."
        )
    largest = float(max(volume.array.max(), -volume.array.min())) if volume.array.dtype.kind == "f" else 0.0
    if not np.isfinite(largest):
        raise UserError(
            f"{volume.path} holds values beyond all numbers once scaled (scl_slope {exactly(header['scl_slope'])}, "
            f"scl_inter {exactly(header['scl_inter'])}).",
            "Correct the scaling in its header.",
        )
    if largest > LARGEST:
        raise UserError(
            f"{volume.path} holds values up to {largest:.3g}; up to {LARGEST:g} nnU-Net can compute with.",
            "Divide its values by a power of ten.",
        )


def read_mask(
    path: Path, labels: Mapping[str, int], ignore: int | None = None, *, any_form: bool = False
) -> Volume:
    """Read a 3-D label mask.

    Args:
        path: the mask.
        labels: value of each foreground class by name; 0 is always the background.
        ignore: a further value that is allowed: voxels nobody has labelled.
        any_form: see `read_image`.

    Returns:
        The volume, int16, or the next larger signed type that holds all labels. It may hold no foreground, as a
        prediction may: see `check_not_empty`.

    Raises:
        UserError: as `read_image`, and where a value is not an integer or not a known label, or a label is beyond
            64 bits.
    """
    volume = read_image(path, any_form=any_form)
    mask = labelled(volume, labels, ignore)
    if volume.array.dtype == np.float32 and mask.array.max() >= 2**24 and is_scaled(read_header(path)):
        raise UserError(
            f"{path} scales its values by scl_slope, by which labels from {2**24} on are read inexactly.",
            "Store the labels as integers, without scaling.",
        )
    return mask


def labelled(volume: Volume, labels: Mapping[str, int], ignore: int | None = None) -> Volume:
    """A volume as a label mask; see `read_mask`.

    Raises:
        UserError: a value is not an integer or not a known label, or a label is beyond 64 bits.
    """
    known = {0, *labels.values()} | ({ignore} if ignore is not None else set())
    dtype = _signed_type(known)
    unknown = [value for value in np.unique(volume.array) if value not in known]
    if unknown:
        names = ", ".join(f"{value} ({name})" for name, value in labels.items())
        raise UserError(
            f"{volume.path} holds {_shortened(unknown)}, no known label: these are 0 (background), {names}.",
            "Correct the mask, or the labels of the data set.",
        )
    return replace(volume, array=volume.array.astype(dtype))


def _signed_type(labels: Iterable[int]) -> np.dtype[Any]:
    """int16, or the smallest larger type that holds every label."""
    for dtype in (np.int16, np.int32, np.int64):
        if all(np.iinfo(dtype).min <= label <= np.iinfo(dtype).max for label in labels):
            return np.dtype(dtype)
    raise UserError(
        f"The label {max(labels, key=abs)} is beyond 64 bits.", "Give the classes smaller values."
    )


def is_empty(mask: Volume, ignore: int | None = None) -> bool:
    """Whether a mask holds no class: every voxel is background or has the ignore label."""
    found = mask.array != 0
    if ignore is not None:
        found &= mask.array != ignore
    return not found.any()


def check_not_empty(
    mask: Volume, ignore: int | None = None, remedy: str = "Annotate the scan or leave it out."
) -> None:
    """Refuse a reference mask without foreground.

    Raises:
        UserError: see `is_empty`.
    """
    if is_empty(mask, ignore):
        ignored = "" if ignore is None else " or ignored"
        raise UserError(f"{mask.path} is empty: every voxel is background{ignored}.", remedy)


_TURNED = (
    "The axes are in the other order, as where an array of SimpleITK (z, y, x) was saved with nibabel (x, y, z): "
    "save it with SimpleITK, after CopyInformation from the other file. Or pair the right files."
)


def check_pair(first: Volume, second: Volume) -> None:
    """Refuse two volumes (scan and mask, reference and prediction) that do not lie on the same voxels.

    Raises:
        UserError: their shapes differ, or spacing, origin and direction together move a corner by more than a
            tenth of the smallest spacing.
    """
    remedy = "Resample one onto the other's voxels, or pair the right files."
    if first.array.shape != second.array.shape:
        raise UserError(
            f"{second.path} has another shape (z, y, x) than {first.path}: {second.array.shape} against "
            f"{first.array.shape}.",
            _TURNED if first.array.shape == second.array.shape[::-1] else remedy,
        )
    apart_mm = float(np.abs(_corners_mm(first) - _corners_mm(second)).max())
    if apart_mm > GEOMETRY_TOLERANCE * min(first.spacing_mm):
        raise UserError(
            f"{second.path} has another geometry than {first.path}: spacing (z, y, x) "
            f"{listed(second.spacing_mm)} against {listed(first.spacing_mm)} mm, corners up to "
            f"{apart_mm:.2f} mm apart.",
            _header_remedy(first, second) or remedy,
        )


def _header_remedy(first: Volume, second: Volume) -> str:
    """What to do where one of two volumes was saved without saying where it lies; empty where both say it.

    To resample it would move it away from the voxels that it was drawn on.
    """
    for one, other in ((second, first), (first, second)):
        is_bare = np.allclose(one.spacing_mm, 1, atol=1e-6)
        if _is_unplaced(one) and (is_bare or not _is_unplaced(other, max(other.spacing_mm))):
            return (
                f"The header of {one.path.name} says nothing of where it lies. If its voxels are those of "
                f"{other.path.name}, give it that header, with SimpleITK: this.CopyInformation(other)."
            )
        if is_bare and _is_placed_alike(one, other):
            return (
                f"{one.path.name} begins where {other.path.name} does, with 1 mm, as where no spacing was stored. "
                "If its voxels are those, give it that header, with SimpleITK: this.CopyInformation(other). If "
                "they are 1 mm apart, resample it."
            )
    return ""


def _is_placed_alike(one: Volume, other: Volume) -> bool:
    """Whether volumes have one origin and one direction, and may differ in their spacing."""
    return np.allclose(one.direction, other.direction, atol=1e-4) and np.allclose(
        one.origin_mm, other.origin_mm, atol=1e-3
    )


def _is_unplaced(volume: Volume, tolerance_mm: float = 1e-6) -> bool:
    """Whether a volume begins at the origin, its axes along the body's, as an array without a place is stored."""
    axes = np.abs(np.reshape(volume.direction, (3, 3)))
    return np.allclose(axes, np.eye(3), atol=1e-6) and np.allclose(volume.origin_mm, 0, atol=tolerance_mm)


def check_channels(first: Volume, second: Volume) -> None:
    """Refuse two channels that do not lie on the same voxels, or whose spacing nnU-Net does not take for the same.

    Raises:
        UserError: see `check_pair`; or their spacing differs by more than a hundred-thousandth.
    """
    check_pair(first, second)
    if not np.allclose(first.spacing_mm, second.spacing_mm):
        raise UserError(
            f"{second.path} has another spacing than {first.path}: (z, y, x) {listed(second.spacing_mm)} against "
            f"{listed(first.spacing_mm)} mm, which nnU-Net wants to be the same.",
            "Write the same spacing into both headers.",
        )


def slice_axis(shape: Sequence[int], spacing_mm: Sequence[float]) -> int:
    """The axis across the slices: the one with a single voxel, or else with the largest spacing.

    Args:
        shape: voxels along each axis.
        spacing_mm: in the order of ``shape``; among equals, to a ten-thousandth, the first axis counts.
    """
    single = [axis for axis, size in enumerate(shape) if size == 1]
    largest = np.asarray(spacing_mm) >= (1 - 1e-4) * max(spacing_mm)
    return single[0] if len(single) == 1 else int(np.argmax(largest))


def axis_in_words(volume: Volume, across: int) -> str:
    """The axis across the slices of a scan: x, y or z, of its file, and how the slices lie in the body.

    Args:
        volume: the scan.
        across: the axis, of (z, y, x); see `slice_axis`.
    """
    cosines = np.abs(np.reshape(volume.direction, (3, 3))[:, 2 - across])
    lie = ("sagittal", "coronal", "axial")[int(cosines.argmax())]
    oblique = "" if cosines.max() >= UPRIGHT else "oblique, nearest to "
    return f"{'zyx'[across]} of the file{', not z' if across else ''} ({oblique}{lie})"


def slices_first(
    spacing_mm: Sequence[float], *arrays: NDArray[Any]
) -> tuple[tuple[float, float, float], list[NDArray[Any]]]:
    """The spacing of arrays on the same voxels, and these, with the axis across the slices in front.

    Args:
        spacing_mm: in the order of the axes.
        arrays: 3-D; see `slice_axis`. The other two axes stay in their order.
    """
    across = slice_axis(arrays[0].shape, spacing_mm)
    rows_mm, columns_mm = (step for axis, step in enumerate(spacing_mm) if axis != across)
    return (spacing_mm[across], rows_mm, columns_mm), [np.moveaxis(array, across, 0) for array in arrays]


def write_volume(path: Path, volume: Volume, description: str = "") -> None:
    """Write a volume as gzipped NIfTI, atomically; the same volume gives the same bytes.

    nibabel encodes it, since SimpleITK reports success for a NIfTI file that a full disk has cut short.

    Args:
        path: the file, ``.nii.gz``.
        volume: what to write; its own ``path`` plays no role.
        description: text of the header's ``descrip`` field, at most 79 bytes.
    """
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    image = nibabel.Nifti1Image(volume.array.T, lps_to_ras @ volume.affine, dtype=volume.array.dtype)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()
    write_bytes(path, gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))


def _corners_mm(volume: Volume) -> NDArray[np.float64]:
    return corners_mm(volume.affine, volume.array.shape[::-1])


def _shortened(values: Sequence[Any]) -> str:
    shown = ", ".join(map(exactly, values[:3]))
    return shown if len(values) <= 3 else f"{shown}, ... ({len(values)} such values)"
