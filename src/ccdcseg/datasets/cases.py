"""The nnU-Net raw folder of a data set: finding it, its labels, and the table of whose scan is whose."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from ccdcseg.datasets.tables import Row, read_table
from ccdcseg.datasets.unicode_names import by_case_alone, composed
from ccdcseg.errors import UserError
from ccdcseg.files import read_json, write_text
from ccdcseg.texts import from_cell, no_formula

CASES_FILE = "cases.csv"
UNLABELLED_FILE = "unlabelled.csv"
"""The same table for scans without masks, with their folder in a further column where it is not `UNLABELLED`."""
UNLABELLED = "imagesTs"
"""nnU-Net's folder of scans without masks."""
EMPTY_MASKS = "empty_masks"
"""Key of ``dataset.json`` that nnU-Net passes over: true where masks may hold no class, as healthy controls' do."""
_FOLDER_NAME = re.compile(r"Dataset([0-9]{3})_.+")
_LIKE_A_FOLDER_NAME = re.compile(r"(?:dataset|task)[ _-]?([0-9]+)[ _-]*(.*)", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Case:
    """One scan.

    Args:
        case: nnU-Net's identifier, the name of its files.
        patient: whose scan it is; all scans of a patient go to the same side of a split.
        group: what splits are stratified by, such as the pathology; may be empty.
        phase: which of the patient's scans it is, such as ED or ES; may be empty.
    """

    case: str
    patient: str
    group: str
    phase: str


_SEG = "_seg"
"""What nnU-Net puts behind a case's name for its preprocessed mask."""
NUMBERING_REMEDY = (
    "nnU-Net wants labels without gaps from 0 on, the ignore label last: renumber masks and dataset.json, or make "
    "the data set with `ccdcseg prepare nifti`, which renumbers."
)
_COLUMNS = tuple(field.name for field in fields(Case))
_FOLDER = "images"
_REMEDY = (
    "Say whose scan each case is: ccdcseg patients DATASET --pattern '{patient}_{phase}' (or '{patient}'), or "
    f"--table; it writes the columns {','.join(_COLUMNS)}. Move a {CASES_FILE} that is wrong away first."
)


def write_cases(raw_folder: Path, cases: Iterable[Case]) -> None:
    """Write ``cases.csv`` into the raw folder, atomically.

    Raises:
        UserError: a name is no UTF-8, as a file's from another system may be.
    """
    _write(raw_folder / CASES_FILE, [_COLUMNS, *(astuple(case) for case in cases)])


def write_unlabelled_cases(raw_folder: Path, folders: Mapping[str, Iterable[Case]]) -> None:
    """Write ``unlabelled.csv`` into the raw folder, atomically.

    Args:
        raw_folder: of the data set.
        folders: scans without masks by their folder, as `UNLABELLED` names it or any other is named.

    Raises:
        UserError: as `write_cases`.
    """
    rows = [(*astuple(case), folder) for folder, cases in folders.items() for case in cases]
    columns = len(_COLUMNS) + any(folder != UNLABELLED for folder in folders)
    _write(raw_folder / UNLABELLED_FILE, [row[:columns] for row in [(*_COLUMNS, _FOLDER), *rows]])


def _write(path: Path, rows: Iterable[Sequence[str]]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    for row in rows:
        if any("\ud800" <= letter <= "\udfff" for letter in "".join(row)):
            raise UserError(f"The name {','.join(row)!a} is no UTF-8.", "Rename the files that have it.")
        writer.writerow(map(no_formula, row))
    write_text(path, table.getvalue())


def read_cases(raw_folder: Path) -> list[Case]:
    """Read ``cases.csv`` (columns case, patient, group, phase) of an nnU-Net raw folder.

    Raises:
        UserError: the table cannot be read (see `read_table`), has no row, a row without case or patient, a case
            that is no file name or comes twice, or a patient in two groups.
    """
    path = raw_folder / CASES_FILE
    cases = [_case(row) for row in read_table(path, _COLUMNS, "", _REMEDY)]
    if not cases:
        raise UserError(f"{path} lists no case.", "Write one row a scan.")
    _check_cases(cases, path)
    return cases


def annotated_cases(raw_folder: Path) -> list[Case]:
    """Rows of a ``cases.csv`` that may be missing, or, before anything is annotated, hold none.

    Raises:
        UserError: as `read_cases`.
    """
    path = raw_folder / CASES_FILE
    lines = path.read_bytes().split(b"\n", 1) if path.exists() else []
    return read_cases(raw_folder) if len(lines) > 1 and lines[1].strip() else []


def unlisted(names: Iterable[str], cases: Iterable[Case]) -> list[str]:
    """Of names of scans those without a row in a table; to tell names that look alike apart is for others."""
    listed = {composed(case.case) for case in cases}
    return [name for name in names if composed(name) not in listed]


def read_unlabelled_cases(raw_folder: Path) -> dict[str, list[Case]]:
    """Read ``unlabelled.csv`` of an nnU-Net raw folder: scans without masks by their folder.

    A name of a scan says nothing of one in another folder. Rows that name no folder are of `UNLABELLED`. Without a
    table there are none.

    Raises:
        UserError: as `read_cases`, but that the table may have no row.
    """
    path, folders = raw_folder / UNLABELLED_FILE, defaultdict[str, list[Case]](list)
    for row in read_table(path, _COLUMNS, _FOLDER, _REMEDY) if path.exists() else []:
        folders[from_cell(row.values.get(_FOLDER, "")) or UNLABELLED].append(_case(row))
    for cases in folders.values():
        _check_cases(cases, path)
    return folders


def _check_cases(cases: Iterable[Case], path: Path) -> None:
    seen: set[str] = set()
    for case in cases:
        if case.case in seen:
            raise UserError(f"{path} lists {case.case} twice.", "Keep one row a scan.")
        seen.add(case.case)
    check_groups(cases, path)


def check_groups(cases: Iterable[Case], source: Path) -> None:
    """Refuse a patient in two groups.

    Args:
        cases: all of a data set.
        source: where they are from, for the message.

    Raises:
        UserError: there is one.
    """
    groups: dict[str, str] = {}
    for case in cases:
        if groups.setdefault(case.patient, case.group) != case.group:
            raise UserError(
                f"{source}: the patient {case.patient} is in the groups {groups[case.patient]} and {case.group}.",
                "Give all scans of a patient the same group.",
            )


def check_capitals(cases: Iterable[Case], source: Path) -> None:
    """Refuse names of patients, or of cases, that differ by capitals alone: one patient would count as two.

    Args:
        cases: all of a data set, those without masks too.
        source: where they are from, for the message.

    Raises:
        UserError: there are two.
    """
    cases = [*cases]
    for names in ([case.patient for case in cases], [case.case for case in cases]):
        for one, other, *_ in by_case_alone(names):
            raise UserError(
                f"{source}: {one} and {other} differ by capitals alone.",
                "Write the name of a patient in one way; give two patients names that differ otherwise.",
            )


def mask_names(names: Iterable[str]) -> list[str]:
    """Of names of cases those, sorted, by which nnU-Net knows the mask of another: "a_seg" where there is an "a".

    Preprocessed, the image of the one and the mask of the other would be one file.
    """
    cases = {*names}
    return sorted(f"{name}{_SEG}" for name in cases if f"{name}{_SEG}" in cases)


def check_names(names: Iterable[str], source: Path) -> None:
    """Refuse names of cases that nnU-Net cannot tell apart, see `mask_names`, or with a space at an end.

    Args:
        names: all of a data set.
        source: where they are from, for the message.

    Raises:
        UserError: there is one.
    """
    names = [*names]
    if spaced := [name for name in names if name != name.strip()]:
        raise UserError(
            f"{source}: the name of the case {spaced[0]!r} begins or ends with a space.", "Rename its files."
        )
    if taken := mask_names(names):
        raise UserError(
            f"{source}: nnU-Net keeps the mask of {taken[0].removesuffix(_SEG)} by the name of the case "
            f"{taken[0]}.",
            f"Rename the case {taken[0]}.",
        )


def dataset_folder(raw_root: Path, dataset: str) -> Path:
    """Find a data set by what nnU-Net's users call it.

    Args:
        raw_root: nnU-Net's ``nnUNet_raw``.
        dataset: an id ("27", "027") or a full name ("Dataset027_ACDC").

    Raises:
        UserError: there is no such data set, or more than one has the id.
    """
    present = dataset_names(raw_root)
    listed = f"{raw_root} holds {', '.join(present) or 'no data set'}{_misnamed(raw_root)}."
    if not dataset.isdecimal():
        if dataset not in present:
            raise UserError(f"There is no data set {dataset}: {listed}", "Give one of their names or ids.")
        return raw_root / dataset
    found = [name for name in present if id_in_name(name) == int(dataset)]
    if not found:
        raise UserError(f"There is no data set with the id {dataset}: {listed}", "Give one of their ids.")
    if len(found) > 1:
        raise UserError(f"The id {dataset} is ambiguous: {', '.join(found)}.", "Rename all but one of them.")
    return raw_root / found[0]


def dataset_names(raw_root: Path) -> list[str]:
    """Names of the data sets in nnU-Net's ``nnUNet_raw``, sorted.

    Raises:
        UserError: there is no such folder.
    """
    if not raw_root.is_dir():
        raise UserError(
            f"The folder of raw data sets {raw_root} does not exist.",
            "Make it, or set nnUNet_raw to another.",
        )
    return sorted(
        entry.name for entry in raw_root.iterdir() if is_dataset_name(entry.name) and entry.is_dir()
    )


def _misnamed(raw_root: Path) -> str:
    """What to say of a folder that is named like a data set, though not as nnU-Net wants; empty: there is none."""
    for entry in sorted(raw_root.iterdir()):
        match = _LIKE_A_FOLDER_NAME.fullmatch(entry.name)
        if match and entry.is_dir() and not is_dataset_name(entry.name):
            number = int(match[1])
            better = (
                f"Dataset{number:03d}_{match[2] or 'Name'}" if number < 1000 else "Dataset and three digits"
            )
            return f"; {entry.name} is not named as nnU-Net wants, rename it to {better}"
    return ""


def is_dataset_name(name: str) -> bool:
    """Whether nnU-Net takes a folder of this name for a data set."""
    return _FOLDER_NAME.fullmatch(name) is not None


def id_in_name(name: str) -> int:
    """The id in a data set's name: 27 of "Dataset027_ACDC".

    Raises:
        UserError: the name is not of nnU-Net's form.
    """
    match = _FOLDER_NAME.fullmatch(name)
    if match is None:
        raise UserError(f"{name} is no nnU-Net data set name.", 'Name it like "Dataset027_ACDC".')
    return int(match[1])


def read_labels(raw_folder: Path) -> dict[str, int]:
    """Value of each foreground class by name, from ``dataset.json``, in the order of the values, as nnU-Net's.

    The ignore label is left out.

    Raises:
        UserError: ``dataset.json`` is missing or damaged, its labels are regions (lists of values), or not
            distinct integers from 1 on; or as `check_class_names`.
    """
    path = raw_folder / "dataset.json"
    labels = {
        name: value for name, value in _all_labels(path).items() if name not in ("background", "ignore")
    }
    values = list(labels.values())
    if not values or min(values) < 1 or len(set(values)) < len(values):
        raise UserError(
            f"{path} has the labels {labels}.",
            "Give each class an integer of its own from 1 on, background 0.",
        )
    check_class_names(labels, path)
    return dict(sorted(labels.items(), key=itemgetter(1)))


def check_class_names(names: Iterable[str], source: Path) -> None:
    """Refuse names of classes that results need for something else.

    Args:
        names: of the classes.
        source: where they are from, for the message.

    Raises:
        UserError: there is one.
    """
    from ccdcseg.measure.patients import MEAN  # noqa: PLC0415 - brings NumPy and SciPy, which tables do without

    if taken := {*names} & {"", MEAN}:
        raise UserError(
            f'{source} calls a class "{taken.pop()}"; "{MEAN}" is the mean of all classes in results.',
            "Give the class another name.",
        )


def read_ignore_label(raw_folder: Path) -> int | None:
    """Value of the voxels that nobody has labelled, from ``dataset.json``, where it names one.

    Raises:
        UserError: as `read_labels`.
    """
    return _all_labels(raw_folder / "dataset.json").get("ignore")


def read_file_ending(raw_folder: Path) -> str:
    """Ending of the scans' names, such as ``.nii.gz``, from ``dataset.json``.

    Raises:
        UserError: ``dataset.json`` is missing, damaged or names none.
    """
    path = raw_folder / "dataset.json"
    ending = _entry(path, "file_ending")
    if not isinstance(ending, str):
        raise UserError(f'{path} has the "file_ending" {ending}.', "Name the scans' ending, such as .nii.gz.")
    return ending


def image_files(folder: Path, case: str, ending: str, channels: int) -> list[Path]:
    """Images of a case as nnU-Net names them, one a channel, whether they exist or not.

    Args:
        folder: of the images.
        case: name of the scan.
        ending: see `read_file_ending`.
        channels: how many there are.
    """
    return [folder / f"{case}_{number:04d}{ending}" for number in range(channels)]


def scan_of(image: str, ending: str) -> str | None:
    """Scan that an image is a channel of, of whatever number, by its name; None: it is not named like one.

    Args:
        image: name of the file.
        ending: see `read_file_ending`.
    """
    match = re.fullmatch(rf"(.+)_[0-9]{{4}}{re.escape(ending)}", image)
    return match[1] if match else None


def read_channels(raw_folder: Path) -> tuple[str, ...]:
    """nnU-Net's word for each channel, such as "MRI" or "CT", from ``dataset.json``.

    Raises:
        UserError: ``dataset.json`` is missing, damaged or does not number its channels from 0 on.
    """
    path = raw_folder / "dataset.json"
    names = _entry(path, "channel_names")
    numbers = [str(number) for number in range(len(names))] if isinstance(names, dict) else []
    if not numbers or set(names) != set(numbers):
        raise UserError(
            f'{path} has the "channel_names" {names}.', 'Number them from 0 on, such as {"0": "MRI"}.'
        )
    return tuple(str(names[number]) for number in numbers)


def numbering_fault(labels: Mapping[str, int], ignore: int | None) -> str:
    """What is wrong with labels that are not 1, 2, 3 and so on, the ignore label last; empty where nothing is.

    nnU-Net wants them so. It stores masks in 8 or 16 bits, where a larger value becomes another class.
    """
    values = sorted([0, *labels.values(), *([] if ignore is None else [ignore])])
    is_last = ignore in (None, values[-1])
    if is_last and values == list(range(len(values))):
        return ""
    return f"the labels are {', '.join(map(str, values))}" + ("" if is_last else f", and {ignore} is ignored")


def _all_labels(path: Path) -> dict[str, int]:
    labels = _entry(path, "labels")
    if not isinstance(labels, dict):
        raise UserError(f"{path} has no table of labels.", 'Write "labels" as {"background": 0, "name": 1}.')
    for name, value in labels.items():
        if isinstance(value, list):
            raise UserError(
                f"{path} declares the region {name} {value}; overlapping regions are not supported.",
                "Give each class one integer label.",
            )
        if type(value) is not int:
            raise UserError(f"{path} gives {name} the label {value!r}.", "Give each class an integer.")
    return labels


def _entry(path: Path, key: str) -> Any:
    content = read_json(path)
    if not isinstance(content, dict) or key not in content:
        raise UserError(f'{path} has no "{key}".', "Write it as nnU-Net's documentation asks.")
    return content[key]


def _case(row: Row) -> Case:
    if spaced := [value for value in row.values.values() if value != value.strip()]:
        raise UserError(f"{row.place}: {spaced[0]!r} begins or ends with a space.", "Remove it.")
    case = Case(*(from_cell(row.values[column]) for column in _COLUMNS))
    case = replace(case, patient=composed(case.patient))
    name = case.case
    if not (name and case.patient) or Path(name).name != name or name == ".." or "\0" in name:
        raise UserError(
            f"{row.place}: {','.join(row.values.values())[:200]!r}.", f"Write {','.join(_COLUMNS)}."
        )
    return case
