"""A user's own scans, NIfTI files or folders of DICOM slices, as an nnU-Net raw folder.

What belongs together is said by the user, with patterns of the paths or with a table; nothing is guessed. A mask
is a NIfTI file, a DICOM segmentation, or one of 3D Slicer's.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from ccdcseg.datasets.cases import (
    Case,
    check_capitals,
    check_class_names,
    check_groups,
    check_names,
    is_dataset_name,
)
from ccdcseg.datasets.dicom import Series, read_series, read_voxels
from ccdcseg.datasets.dicom_folder import holds_dicom, slices_in
from ccdcseg.datasets.nrrd import SUFFIXES, voxels_of
from ccdcseg.datasets.patterns import PARTS, NamePattern
from ccdcseg.datasets.release import (
    IGNORE,
    Notes,
    Release,
    free_folder,
    write_dataset,
    write_pair,
    write_unlabelled,
)
from ccdcseg.datasets.segmentations import read_segmentation
from ccdcseg.datasets.slicer import read_slicer_mask
from ccdcseg.datasets.tables import read_table
from ccdcseg.datasets.unicode_names import composed, there
from ccdcseg.datasets.volumes import Volume, read_image, read_mask
from ccdcseg.datasets.walk import check_link, is_hidden, scan_stem, walk
from ccdcseg.errors import UserError
from ccdcseg.files import real
from ccdcseg.processes import Progress

_NAME = re.compile(r"\w[\w.-]*")
_SUFFIX = re.compile(r"\.(nii|nii\.gz|dcm|nrrd|nhdr)$", re.IGNORECASE)
_PACKED = re.compile(
    r".+\.(zip|7z|rar|tgz|tbz2?|txz|tar)(\..+)?|.+\.(nii|dcm|nrrd)(?![a-z0-9]).+", re.IGNORECASE
)
"""Name of what may hold a scan: of an archive, or of a scan's file with more behind it, as of one half loaded."""
_PASSED_OVER = "{} more look like scans, fit no pattern and were passed over"
_BARE = "{} more folders fit a pattern as far as {{patient}}, and no scan was found in them"
_PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
_TABLE_REMEDY = (
    "Give a CSV table in UTF-8 with the columns image, mask and patient, phase and group where they are known, "
    "image_1 and so on for further channels, and slices where masks are of some slices alone."
)
_FURTHER = r"phase|group|slices|image_[1-9]\d*"
_SLICES = re.compile(r"[1-9][0-9]{0,5}( +[1-9][0-9]{0,5})*")


def _entries(given: Sequence[str]) -> list[str]:
    """A single one may stand alone; a string is a sequence of letters."""
    return [given] if isinstance(given, str) else [*given]


@dataclass(frozen=True)
class OwnData:
    """What a user says of scans of their own.

    Args:
        name: of the data set.
        labels: value of each foreground class in the masks, by name; of a DICOM segmentation the segments of these
            names are taken. "ignore" is the value of voxels that nobody has labelled. The new masks have 1, 2 and
            so on in the order of these values, as nnU-Net demands.
        channels: nnU-Net's word for each channel of an image, by which it normalises ("MRI", "CT"); a string is
            one.
        unlabelled: images without a mask go to ``imagesTs``, all of them where none is annotated yet; otherwise
            they are an error.
        empty_masks: masks may hold no class, as those of healthy controls; otherwise they are an error.
    """

    name: str
    labels: Mapping[str, int]
    channels: Sequence[str]
    unlabelled: bool = False
    empty_masks: bool = False

    def __post_init__(self) -> None:
        """Take channels of any sequence alike: what a data set was made from is told by how this is written."""
        object.__setattr__(self, "channels", _entries(self.channels))


@dataclass(frozen=True)
class Layout:
    """How the images of a folder and their masks are found.

    Args:
        images: pattern of each channel's path below the folder; see `NamePattern`. A string is one.
        mask: pattern of the masks' paths; None: there are none yet.
        folders: an image is a folder of DICOM slices, not a file.
    """

    images: Sequence[str]
    mask: str | None
    folders: bool = False

    def __post_init__(self) -> None:
        """As `OwnData`; ``./`` before a pattern and ``/`` behind it say nothing."""
        images = tuple(str(PurePosixPath(image)) for image in _entries(self.images))
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "mask", self.mask and str(PurePosixPath(self.mask)))


@dataclass(frozen=True)
class OwnScan:
    """A case.

    Args:
        case: whose scan it is.
        images: its channels.
        mask: None: it has none.
        slices: those that the mask is of, counted from 1 in the first image's file; None: all.
    """

    case: Case
    images: tuple[Path, ...]
    mask: Path | None
    slices: tuple[int, ...] | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them, the mask last."""
        return (*self.images, *([self.mask] if self.mask else []))


def prepare_own(
    source: str | Path,
    raw_root: str | Path,
    dataset_id: int,
    data: OwnData,
    found_by: Layout | str | Path,
    progress: Progress | None = None,
    workers: int = 1,
) -> Path:
    """Turn a user's own scans into an nnU-Net raw folder with a table of cases.

    Args:
        source: folder below which everything lies.
        raw_root: nnU-Net's ``nnUNet_raw``.
        dataset_id: nnU-Net's number for the data set, 1 to 999.
        data: what it holds.
        found_by: patterns, or a CSV table with the columns image (several channels: image, image_1 and so on),
            mask, patient, phase and group where they are known, and slices, the numbers of the annotated ones
            where there are others; its paths are below ``source``.
        progress: called with the number of scans done and of all scans.
        workers: processes.

    Returns:
        The new folder, ``Dataset{ID}_{name}``.

    Raises:
        UserError: a name, label, pattern or table that cannot be used; a mask or an image that has no counterpart;
            scan or mask are unusable (see `ccdcseg.datasets.volumes` and `ccdcseg.datasets.dicom`); or the id is
            taken. Nothing is left.
    """
    source, target = Path(source), free_folder(Path(raw_root), dataset_id, data.name)
    found_by = Path(found_by) if isinstance(found_by, str) else found_by
    scans = _scans(source, found_by)
    release = _release(source, data, in_part=any(scan.slices for scan in scans))
    _check_scans(scans, data, source)
    labelled = [scan for scan in scans if scan.mask is not None]
    if not (labelled or data.unlabelled):
        raise UserError(f"No image below {source} has a mask.", "Check the pattern or table of the masks.")
    return write_dataset(
        release,
        labelled,
        partial(_convert, dict(data.labels), release),
        target,
        workers,
        progress,
        [scan for scan in scans if scan.mask is None],
        _beside(source, scans, found_by) if isinstance(found_by, Layout) else None,
    )


def _beside(source: Path, scans: Sequence[OwnScan], layout: Layout) -> dict[str, list[str]]:
    """Notes on what may be scans and was passed over: by what it is called or holds, or by the folder it is for.

    What looks like scans are files with the suffix of one, read here or not, packed or half loaded, and the
    outermost folders of DICOM. What lies in data sets of nnU-Net is none of these, in its raw folder as in those of
    its results.
    """
    tree = walk(source)
    used = {path for scan in scans for path in scan.paths}
    made = {folder for folder in tree.folders if is_dataset_name(folder.name)}
    places = [path for path in tree.files if scan_stem(path.name) or _PACKED.fullmatch(path.name)]
    places += _dicom_folders(tree.folders, used)
    left = [path for path in places if path not in used and made.isdisjoint((path, *path.parents))]
    known = {above for path in (*used, *places, *made) for above in (path, *path.parents)}
    bare = [folder for folder in _patient_folders(source, layout, tree.folders) if folder not in known]
    notes = {_PASSED_OVER.format(len(left)): left, _BARE.format(len(bare)): bare}
    return {note: [str(path.relative_to(source)) for path in paths] for note, paths in notes.items() if paths}


def _patient_folders(source: Path, layout: Layout, folders: Iterable[Path]) -> list[Path]:
    """Folders that fit a pattern as far as it names the patient, where the scan lies deeper."""
    texts = (*layout.images, *([layout.mask] if layout.mask else []))
    heads = {head for text in texts if (head := _as_far_as_patient(text)) != text}
    patterns = [NamePattern(head, PARTS) for head in heads]
    names = [(folder, folder.relative_to(source).as_posix()) for folder in folders]
    return [folder for folder, name in names if any(pattern.fits(name) for pattern in patterns)]


def _as_far_as_patient(pattern: str) -> str:
    """The beginning of a pattern, up to the folder or file that it first names the patient in."""
    before, patient, after = pattern.partition("{patient}")
    return before + patient + after.partition("/")[0]


def _dicom_folders(folders: Iterable[Path], used: Collection[Path]) -> list[Path]:
    """Those that hold DICOM and are not used, but for folders in one of them."""
    found: list[Path] = []
    for folder in folders:
        if folder not in used and {*found}.isdisjoint(folder.parents) and holds_dicom(folder, used):
            found.append(folder)
    return found


def holds_scans(source: Path, found_by: Layout | Path) -> bool:
    """Whether the patterns or the table find their scans below a folder, as it lies."""
    try:
        return bool(_scans(source, found_by))
    except UserError:
        return False


def files_used(source: Path, table: Path) -> list[Path]:
    """Every file of the scans that a table names, see `prepare_own`: of DICOM all in the folder, of NRRD both."""
    paths = [path for scan in scans_by_table(source, table) for path in scan.paths]
    inside = [file for path in paths if path.is_dir() for file in path.iterdir() if not is_hidden(file.name)]
    beside = [voxels_of(path) for path in paths if path.suffix.lower() == ".nhdr" and path.is_file()]
    return [path for path in (*paths, *inside, *beside) if path.is_file()]


def _scans(source: Path, found_by: Layout | Path) -> list[OwnScan]:
    if isinstance(found_by, Layout):
        return scans_by_pattern(source, found_by)
    return scans_by_table(source, found_by)


def scans_by_pattern(source: Path, layout: Layout) -> list[OwnScan]:
    """Scans whose paths below ``source`` fit the patterns; the parts patient and phase say what belongs together.

    A path that fits several patterns belongs to the one with the most fixed text. Capitals in the suffix of a
    NIfTI or DICOM file do not matter.

    Raises:
        UserError: a pattern that cannot be used or fits nothing, patterns that do not name the same parts, two
            paths for one channel of a case, a channel or an image that is missing, a group that is not the same
            everywhere.
    """
    texts = (*layout.images, *([layout.mask] if layout.mask else []))
    if len({*texts}) < len(texts):
        raise UserError(f"A pattern is there twice: {', '.join(texts)}.", "Tell images and masks apart.")
    patterns = [NamePattern(text, PARTS, ["patient"]) for text in texts]
    with_phase = {("{phase}" in pattern.text) for pattern in patterns}
    if len(with_phase) > 1:
        raise UserError(
            "Some of the patterns have a {phase}, others have none.",
            "Write it into all of them, or into none.",
        )
    tree = walk(source)
    _check_links(source, patterns, tree.files)
    found: dict[str, dict[_Key, tuple[Path, str]]] = {}
    for pattern in sorted(patterns, key=lambda pattern: -pattern.fixed_length):
        taken = {path for matches in found.values() for path, _ in matches.values()}
        in_folders = layout.folders and pattern.text != layout.mask
        places = tree.folders if in_folders else tree.files
        found[pattern.text] = _matches(source, pattern, [path for path in places if path not in taken])
        if not found[pattern.text]:
            wanted = "folders of DICOM slices" if in_folders else "files"
            raise UserError(
                f"Nothing below {source} fits the pattern {pattern.text}.",
                f"Correct it; it is to find {wanted}. It begins below that folder, and {{}} stands for what does "
                "not matter, where a shell has *.",
            )
    images, masks = [found[text] for text in layout.images], found.get(layout.mask or "", {})
    for key in dict.fromkeys(key for matches in found.values() for key in matches):
        _check_whole(key, images, masks, layout)
    return [_scan(key, [found[key] for found in images], masks.get(key)) for key in images[0]]


def scans_by_table(source: Path, table: Path) -> list[OwnScan]:
    """Scans as a table lists them.

    Raises:
        UserError: a table that cannot be read (see `read_table`) or that leaves out a channel, or a row without
            image or patient, or with a path that is not there.
    """
    scans = []
    for row in read_table(table, ("image", "mask", "patient"), _FURTHER, _TABLE_REMEDY):
        values = {column: value.strip() for column, value in row.values.items()}
        images = [values[column] for column in _channels(table, values)]
        if not (values["patient"] and all(images)):
            raise UserError(f"{row.place}, is not whole.", "Give each row its images and a patient.")
        mask = there(source / values["mask"]) if values["mask"] else None
        named = (composed(values.get(part, "")) for part in PARTS)
        places = tuple(there(source / image) for image in images)
        scan = OwnScan(_case(*named), places, mask, _slices(row.place, values))
        for path in scan.paths:
            if not path.exists():
                raise UserError(f"{row.place}: {path} does not exist.", "Correct the path.")
        scans.append(scan)
    return scans


def _channels(table: Path, columns: Iterable[str]) -> list[str]:
    """The columns of images in the order of their numbers, wherever they stand in the table."""
    found = {int(column.removeprefix("image_")): column for column in columns if column.startswith("image_")}
    if {*found} != {*range(1, len(found) + 1)}:
        raise UserError(
            f"{table} has the columns image and {', '.join(found[number] for number in sorted(found))}.",
            "Number the channels after the first from 1 on: image_1, image_2.",
        )
    return ["image", *(found[number] for number in sorted(found))]


def _slices(place: str, values: Mapping[str, str]) -> tuple[int, ...] | None:
    """The annotated slices of a row; None: all."""
    text = values.get("slices", "")
    if not text:
        return None
    if not (_SLICES.fullmatch(text) and values["mask"]):
        raise UserError(
            f"{place}: the slices {text!r} cannot be used{'' if values['mask'] else ', there is no mask'}.",
            "Give a mask and the numbers of its annotated slices, from 1 on, such as 3 8 13; none: all are.",
        )
    return tuple(sorted({int(number) for number in text.split()}))


_Key = tuple[str, str]
"""Patient and phase."""


def _matches(source: Path, pattern: NamePattern, paths: Iterable[Path]) -> dict[_Key, tuple[Path, str]]:
    """Path and group of everything that fits, by patient and phase."""
    found: dict[_Key, tuple[Path, str]] = {}
    for path in paths:
        name = path.relative_to(source).as_posix()
        parts = pattern.parts(name) or pattern.parts(_SUFFIX.sub(lambda suffix: suffix[0].lower(), name))
        if parts is None:
            continue
        key = parts["patient"], parts.get("phase", "")
        if key in found:
            raise UserError(
                f"{path} and {found[key][0]} are the same image of {' '.join(key).strip()} by the pattern "
                f"{pattern.text}.",
                "Write {phase} where they differ, or a narrower pattern; if they are of two people, name them in a "
                "--table.",
            )
        found[key] = path, parts.get("group", "")
    return found


def _check_links(source: Path, patterns: Sequence[NamePattern], files: Iterable[Path]) -> None:
    """Refuse a link that leads nowhere where a pattern expects a file, or a folder with one behind it."""
    for path in (path for path in files if not path.exists()):
        parts = path.relative_to(source).parts
        for pieces in (pattern.text.split("/") for pattern in patterns):
            leading = NamePattern("/".join(pieces[: len(parts)]), PARTS)
            if len(parts) <= len(pieces) and leading.parts("/".join(parts)) is not None:
                check_link(path)


def _check_whole(
    key: _Key,
    images: Sequence[Mapping[_Key, tuple[Path, str]]],
    masks: Mapping[_Key, tuple[Path, str]],
    layout: Layout,
) -> None:
    """Refuse a case that lacks a channel."""
    there = [found[key][0] for found in (*images, masks) if key in found]
    for found, text in zip(images, layout.images, strict=True):
        if key not in found:
            raise UserError(
                f"{there[0]} has no counterpart of the pattern {text}.",
                "Add the image, or correct the pattern.",
            )


def _scan(key: _Key, images: Sequence[tuple[Path, str]], mask: tuple[Path, str] | None) -> OwnScan:
    groups = sorted({group for _, group in (*images, *([mask] if mask else [])) if group})
    if len(groups) > 1:
        raise UserError(
            f"{images[0][0]} and what belongs to it are in the groups {' and '.join(groups)}.",
            "Give all files of a patient the same group.",
        )
    case = _case(*key, groups[0] if groups else "")
    return OwnScan(case, tuple(path for path, _ in images), mask[0] if mask else None)


def _case(patient: str, phase: str, group: str) -> Case:
    name = re.sub(r"[^\w.-]", "-", f"{patient}_{phase}" if phase else patient)
    if not _NAME.fullmatch(name):
        raise UserError(f"The patient {patient} cannot name a file.", "Begin with a letter or a digit.")
    return Case(name, patient, group, phase)


def _check_scans(scans: Sequence[OwnScan], data: OwnData, source: Path) -> None:
    """Refuse what cannot become a data set."""
    if not scans:
        raise UserError(f"No scan is listed below {source}.", "List one a row.")
    names: dict[str, OwnScan] = {}
    used: set[Path] = set()
    for scan in scans:
        if len(scan.images) != len(data.channels):
            raise UserError(
                f"There are {len(scan.images)} images a case and {len(data.channels)} channels.",
                "Give one --channel for each image, in their order.",
            )
        if scan.mask is None and not data.unlabelled:
            raise UserError(
                f"{scan.images[0]} has no mask.", "Add it, leave the image out, or give --unlabelled."
            )
        for path in scan.paths:
            if real(path) in used:
                raise UserError(f"{path} is there twice.", "Give each image and each mask to one case.")
            used.add(real(path))
        other = names.setdefault(scan.case.case, scan)
        if other is not scan:
            raise UserError(
                f"{other.images[0]} and {scan.images[0]} would both be the case {scan.case.case}.",
                "Tell them apart by patient or phase.",
            )
    check_names(names, source)
    check_capitals((scan.case for scan in scans), source)
    check_groups((scan.case for scan in scans), source)


def _release(source: Path, data: OwnData, *, in_part: bool) -> Release:
    name, labels = data.name, data.labels
    if not _NAME.fullmatch(name):
        raise UserError(f"The name {name} cannot name a folder.", "Use letters, digits, dots and hyphens.")
    classes = {label: value for label, value in labels.items() if label != IGNORE}
    values = [*labels.values()]
    reserved = {"background", IGNORE} & {label.lower() for label in classes}
    if not classes or 0 in values or len({*values}) < len(values) or reserved:
        given = ", ".join(f"{label}={value}" for label, value in labels.items()) or "none"
        raise UserError(
            f"The labels ({given}) cannot be used.",
            "Give each foreground class a value of its own other than 0, such as --label liver=1, and write ignore "
            "small.",
        )
    check_class_names(classes, source)
    order = sorted(classes, key=lambda label: classes[label])
    new = {label: number for number, label in enumerate(order, start=1)}
    if IGNORE in labels or in_part:
        new[IGNORE] = len(new) + 1
    return Release(
        name,
        f"Scans of {real(source).name}",
        reference="",
        licence="",
        labels=new,
        channels=tuple(data.channels),
        empty_masks=data.empty_masks,
    )


def _convert(labels: Mapping[str, int], release: Release, folder: Path, scan: OwnScan) -> Notes:
    images = [_read_scan(path, scan.paths) for path in scan.images]
    channels, notes = [image.volume for image in images], [note for image in images for note in image.notes]
    if scan.mask is None:
        return [*notes, *write_unlabelled(folder, scan.case.case, channels)]
    stored = _read_own_mask(scan.mask, labels, images[0])
    array = np.zeros(stored.array.shape, np.int16)
    for label, value in labels.items():
        array[stored.array == value] = release.labels[label]
    mask = replace(stored, array=array)
    return [*notes, *write_pair(folder, scan.case.case, channels, mask, release, scan.slices)]


@dataclass(frozen=True)
class _Image:
    volume: Volume
    series: Series | None
    notes: Notes


def _read_scan(path: Path, others: Sequence[Path]) -> _Image:
    """A NIfTI file, or the DICOM slices of a folder that are none of the other files."""
    if not path.is_dir():
        return _Image(read_image(path, any_form=True), None, ())
    slices, notes = slices_in(path, others)
    series = read_series(slices)
    volume = Volume(path, read_voxels(series), series.spacing_mm, series.origin_mm, series.direction)
    return _Image(volume, series, [*notes, *series.notes])


def _read_own_mask(path: Path, labels: Mapping[str, int], image: _Image) -> Volume:
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return read_mask(path, labels, any_form=True)
    if path.name.lower().endswith(SUFFIXES):
        return read_slicer_mask(path, labels, image.volume)
    if scan_stem(path.name) or path.suffix.lower() in _PICTURES:
        raise UserError(
            f"{path} is a mask in a form that is not read ({path.suffix}).",
            "Save it as NIfTI (.nii.gz), .seg.nrrd or a DICOM segmentation, for instance with 3D Slicer.",
        )
    return read_segmentation(path, labels, image.volume, image.series)
