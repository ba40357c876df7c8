"""Which files of a folder are the slices of its scan."""

import filecmp
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.misc import is_dicom

from ccdcseg.datasets.dicom_header import reading
from ccdcseg.datasets.walk import by_name, check_link, is_hidden, walk
from ccdcseg.errors import UserError
from ccdcseg.files import real

_INDEX = "DICOMDIR"
_NO_IMAGE = "files that are no images, such as reports or segmentations, were left out of its folder"
_LOCALIZER = "localizers were left out of its folder"
_COPY = "exact copies of slices were left out of its folder"


@dataclass(frozen=True)
class _File:
    path: Path
    uid: str
    series: str
    is_image: bool
    is_localizer: bool


def slices_in(folder: Path, others: Collection[Path] = ()) -> tuple[list[Path], list[str]]:
    """Find the slices in a folder.

    Hidden files and a DICOMDIR are passed over, and so are, with a note, files that cannot be slices: DICOM of
    other things than images, files whose suffix no slice has, localizers beside other images, and exact copies.

    Args:
        folder: of one scan. Slices in folders in it are none of it.
        others: files known to be something else, such as the scan's mask.

    Returns:
        The slices, in the order of their names, and half a sentence on each kind of file left out.

    Raises:
        UserError: a file cannot be read or is no DICOM, there is no slice, or further ones of the same series lie
            in a folder in it.
    """
    known = {real(path) for path in others}
    names = by_name(path for path in folder.iterdir() if _may_be_slice(path))
    given = [path for path in names if real(path) not in known]
    strangers = _no_dicom(given)
    found = [_file(path) for path in given if path not in strangers]
    images = [file for file in found if file.is_image]
    scan = [file for file in images if not file.is_localizer] or images
    slices = _without_copies(scan)
    if not slices:
        raise UserError(f"{folder} holds no DICOM slice.", _where_else(folder))
    _check_below(folder, slices, known)
    left_out = (_NO_IMAGE, given, images), (_LOCALIZER, images, scan), (_COPY, scan, slices)
    return [file.path for file in slices], [note for note, more, less in left_out if len(less) < len(more)]


def _check_below(folder: Path, slices: Sequence[_File], known: Collection[Path]) -> None:
    """Refuse slices in folders in a scan's folder that are further ones of its series."""
    inside = [path for path in walk(folder).files if path.parent != folder and real(path) not in known]
    found = [_file(path) for path in inside if _seems_dicom(path)]
    series, uids = ({getattr(file, name) for file in slices} - {""} for name in ("series", "uid"))
    more = [file.path for file in found if file.is_image and file.series in series and file.uid not in uids]
    if more:
        raise UserError(
            f"{more[0]} is of the same series as the slices in {folder}, and in another folder ({len(more)} such "
            "files).",
            "Put all slices of a scan into one folder, or move those that are none of it away.",
        )


def holds_dicom(folder: Path, others: Collection[Path] = ()) -> bool:
    """Whether a file in a folder is DICOM, but for a DICOMDIR and the others; what cannot be read is not."""
    return any(path not in others and _seems_dicom(path) for path in by_name(folder.iterdir()))


def _seems_dicom(path: Path) -> bool:
    with suppress(UserError):
        return _may_be_slice(path) and _is_dicom(path)
    return False


def _may_be_slice(path: Path) -> bool:
    if is_hidden(path.name) or path.name.upper() == _INDEX:
        return False
    check_link(path)
    return path.is_file()


def _no_dicom(paths: Sequence[Path]) -> set[Path]:
    """Files such as Thumbs.db; one with a slice's suffix, a number or nothing for one may be a damaged slice."""
    dicom = {path for path in paths if _is_dicom(path)}
    suffixes = {path.suffix.lower() for path in dicom}
    others = {path for path in paths if path.suffix[1:] and not path.suffix[1:].isdecimal()} - dicom
    return {path for path in others if dicom and path.suffix.lower() not in suffixes}


def _is_dicom(path: Path) -> bool:
    with reading(path):
        return bool(is_dicom(path))


def _file(path: Path) -> _File:
    with reading(path):
        tags = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "ImageType"]
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        kind = pydicom.uid.UID(str(dataset.get("SOPClassUID") or ""))
        image_type = str(dataset.get("ImageType") or "").upper()
        # The names of all classes of images have this word: "CT Image Storage", but "Segmentation Storage".
        is_image = kind.name == kind or "Image" in kind.name
        uid, series = (str(dataset.get(keyword) or "") for keyword in tags[1:3])
        return _File(path, uid, series, is_image, "LOCALIZER" in image_type)


def _without_copies(files: Sequence[_File]) -> list[_File]:
    """Of files of one SOPInstanceUID and the same bytes the first; others of one UID stay, to be refused."""
    kept: dict[str, _File] = {}
    slices = []
    for file in files:
        first = kept.setdefault(file.uid, file)
        if first is file or not file.uid or not filecmp.cmp(first.path, file.path, shallow=False):
            slices.append(file)
    return slices


def _where_else(folder: Path) -> str:
    inside = by_name(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    if not inside:
        return "Copy the slices there, or correct the pattern or table."
    return f"Give the folder that holds the slices themselves, such as {inside[0]}."
