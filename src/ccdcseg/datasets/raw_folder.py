"""An nnU-Net raw folder that was made elsewhere: whose scan each case is, from a pattern or a table."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ccdcseg.datasets.cases import (
    CASES_FILE,
    UNLABELLED_FILE,
    Case,
    annotated_cases,
    check_capitals,
    check_groups,
    check_names,
    image_files,
    read_channels,
    read_file_ending,
    read_unlabelled_cases,
    scan_of,
    unlisted,
    write_cases,
    write_unlabelled_cases,
)
from ccdcseg.datasets.patterns import PARTS, NamePattern
from ccdcseg.datasets.release import MASK_SUFFIX
from ccdcseg.datasets.tables import read_table
from ccdcseg.datasets.unicode_names import composed, missing
from ccdcseg.datasets.unlabelled import UnlabelledFolder, cases_in, read_unlabelled
from ccdcseg.datasets.walk import by_number, check_link, entries, is_hidden, scan_stem
from ccdcseg.errors import UserError
from ccdcseg.files import locked, read_json, real

_TABLE_REMEDY = (
    "Give a CSV table in UTF-8 with the columns case and patient, and group and phase where they are known."
)
_ABSENT = "Add it, or remove its mask."


def assign_patients(
    raw_folder: Path, pattern: str | None = None, table: Path | None = None, images: Path | None = None
) -> list[Case]:
    """Write ``cases.csv``, by which splits and statistics know whose scan a case is.

    Rows that are there stay; those of scans that were added since join them.

    Args:
        raw_folder: with dataset.json, imagesTr and labelsTr, as nnU-Net wants it.
        pattern: of the cases' names, such as ``{patient}_{phase}``; see `NamePattern`.
        table: CSV with the columns case and patient, and group and phase where they are known.
        images: a folder of scans without masks, such as ``imagesTs``: write ``unlabelled.csv`` of them instead.

    Returns:
        The cases, as written.

    Raises:
        UserError: not exactly one of ``pattern`` and ``table``; a case without its images or the other way
            round; a case that the pattern or the table does not know, or knows twice; ``cases.csv`` or
            ``unlabelled.csv`` is there and says something else of a scan; ``cases.csv`` names a case that is gone;
            or as `check_capitals`.
    """
    if (pattern is None) == (table is None):
        raise UserError("Patients come from --pattern or --table.", "Give one of them.")
    folder = None if images is None else read_unlabelled(raw_folder, images)
    names = [*folder.patients] if folder else case_names(raw_folder)
    annotated = annotated_cases(raw_folder)
    rows = cases_in(raw_folder, raw_folder / folder.name) if folder else annotated
    asked = {*unlisted(names, rows)}
    given = (
        _by_pattern(names, asked, pattern)
        if pattern is not None
        else _by_table(names, asked, Path(str(table)))
    )
    if gone := [] if folder else [case.case for case in annotated if case.case not in names]:
        raise UserError(
            f"{raw_folder / CASES_FILE} names {gone[0]}, which is not there ({len(gone)} such cases).",
            "Restore the files, or remove the row.",
        )
    found = _joined(raw_folder / (UNLABELLED_FILE if folder else CASES_FILE), rows, given)
    check_groups(found, raw_folder)
    check_capitals(chain(found, annotated, *read_unlabelled_cases(raw_folder).values()), raw_folder)
    if asked:
        _write(raw_folder, folder, found)
    return found


def _joined(table: Path, present: Iterable[Case], given: Iterable[Case]) -> list[Case]:
    """The rows that are there, and after them those of scans that have none, in the group of their patient.

    Raises:
        UserError: a row that is there is contradicted.
    """
    rows = {case.case: case for case in present}
    groups = {row.patient: row.group for row in rows.values()}
    for case in given:
        row = rows.setdefault(case.case, replace(case, group=case.group or groups.get(case.patient, "")))
        said = replace(case, phase=case.phase or row.phase, group=case.group or row.group)
        if said != row:
            raise UserError(
                f"{table} is there and says something else of {case.case}.",
                "Say the same; or correct the row if it is wrong: splits that were drawn from it then are, too.",
            )
    return [*rows.values()]


def _write(raw_folder: Path, folder: UnlabelledFolder | None, found: Sequence[Case]) -> None:
    """Add rows to a table, which others may do at the same time."""
    with locked(raw_folder, "patients", wait=True):
        if folder:
            _write_unlabelled(raw_folder, folder, found)
        else:
            write_cases(raw_folder, _joined(raw_folder / CASES_FILE, annotated_cases(raw_folder), found))


def _write_unlabelled(raw_folder: Path, folder: UnlabelledFolder, found: Sequence[Case]) -> None:
    place, rows = real(raw_folder / folder.name), read_unlabelled_cases(raw_folder)
    others = {name: cases for name, cases in rows.items() if real(raw_folder / name) != place}
    joined = _joined(raw_folder / UNLABELLED_FILE, cases_in(raw_folder, place), found)
    write_unlabelled_cases(raw_folder, {**others, folder.name: joined})


def check_listing(raw_folder: Path) -> None:
    """Refuse a raw folder whose files are found in other ways than ours.

    Raises:
        UserError: files do not end in .nii.gz, or are listed one by one.
    """
    if (ending := read_file_ending(raw_folder)) != MASK_SUFFIX:
        raise UserError(
            f"{raw_folder / 'dataset.json'} says that files end in {ending}; {MASK_SUFFIX} is needed.",
            "Convert them, or make the data set with `ccdcseg prepare nifti`.",
        )
    if "dataset" in read_json(raw_folder / "dataset.json"):
        raise UserError(
            f'{raw_folder / "dataset.json"} lists its files one by one ("dataset").',
            "Put images into imagesTr and masks into labelsTr, and take that key out.",
        )


def case_names(raw_folder: Path) -> list[str]:
    """Names of the cases that have a mask, each with all its images.

    Raises:
        UserError: there is no mask, there are images without a mask or a mask without one of its images, or as
            `check_listing` and `check_names`.
    """
    check_listing(raw_folder)
    ending = read_file_ending(raw_folder)
    images, masks = (_scan_names(raw_folder / name, ending) for name in ("imagesTr", "labelsTr"))
    names = sorted((mask.removesuffix(ending) for mask in masks), key=by_number)
    if not names:
        raise UserError(f"{raw_folder / 'labelsTr'} holds no *{ending}.", "Put the masks there.")
    check_names(names, raw_folder / "labelsTr")
    _check_images(raw_folder, names, images)
    return names


def _check_images(raw_folder: Path, names: Sequence[str], images: Collection[str]) -> None:
    """Refuse images in imagesTr that are not those of the declared channels of each case."""
    folder, ending = raw_folder / "imagesTr", read_file_ending(raw_folder)
    channels = len(read_channels(raw_folder))
    wanted = {path.name for name in names for path in image_files(folder, name, ending, channels)}
    if absent := sorted(wanted - {*images}):
        bare = f"{scan_of(absent[0], ending)}{ending}"  # as the Medical Segmentation Decathlon names images
        remedy = f"Rename {bare}: nnU-Net wants one file a channel." if bare in images else _ABSENT
        fault = missing(folder / absent[0], remedy)
        raise UserError(f"{fault.problem} {len(absent)} such images are missing.", fault.remedy)
    spare = sorted({*images} - wanted)
    if further := [image for image in spare if scan_of(image, ending) in names]:
        raise UserError(
            f"{folder / further[0]} is of a channel that dataset.json does not declare ({len(further)} such "
            "images).",
            "Declare the channel in dataset.json, or move them out of the data set.",
        )
    if spare:
        raise UserError(
            f"{folder / spare[0]} belongs to no mask, {len(spare)} such images are there.",
            "Move them to imagesTs, or add their masks.",
        )


def _scan_names(folder: Path, ending: str) -> set[str]:
    """Names of the scans in a folder; refused is what nnU-Net takes for one and is none, or the other way round."""
    check_link(folder)
    paths = entries(folder)
    for path in paths:
        if scan_stem(path.name):
            check_link(path)
    names = [path.name for path in paths if path.is_file()]
    if hidden := sorted(name for name in names if name.endswith(ending) and is_hidden(name)):
        raise UserError(
            f"{folder / hidden[0]} is a hidden file, which nnU-Net takes for a scan ({len(hidden)} such files).",
            "Remove them: macOS leaves them behind where it copies files.",
        )
    scans = {name for name in names if name.endswith(ending)}
    known = {None, *map(scan_stem, scans)}  # a scan in a second form is not missed
    if others := [name for name in names if scan_stem(name) not in known]:
        raise UserError(
            f"{folder / others[0]} does not end in {ending}: nnU-Net passes over it ({len(others)} such files).",
            f"Rename them to end in {ending}; convert those of another form; or move them away.",
        )
    return scans


def case_files(raw_folder: Path, case: str) -> list[Path]:
    """Images and mask of a case, whether they exist or not."""
    ending, channels = read_file_ending(raw_folder), read_channels(raw_folder)
    images = image_files(raw_folder / "imagesTr", case, ending, len(channels))
    return [*images, raw_folder / "labelsTr" / f"{case}{ending}"]


def _by_pattern(names: Iterable[str], asked: Collection[str], text: str) -> list[Case]:
    """What a pattern says of names, of those that are asked about for certain."""
    pattern = NamePattern(text, PARTS, ["patient"])
    cases = []
    for name in names:
        with nullcontext() if name in asked else suppress(UserError):
            parts = _parts(pattern, name)
            cases.append(Case(name, parts["patient"], parts.get("group", ""), parts.get("phase", "")))
    return cases


def _parts(pattern: NamePattern, name: str) -> dict[str, str]:
    parts = pattern.parts(name)
    if parts is None:
        raise UserError(f"The pattern {pattern.text} does not fit the case {name}.", "Correct it.")
    return parts


def _by_table(names: Sequence[str], asked: Collection[str], path: Path) -> list[Case]:
    """What a table says of names, of those that are asked about for certain."""
    rows: dict[str, Case] = {}
    known = {composed(name): name for name in names}
    for row in read_table(path, ("case", "patient"), "group|phase", _TABLE_REMEDY):
        case = Case(**{"group": "", "phase": ""} | {key: value.strip() for key, value in row.values.items()})
        if not (case.case and case.patient):
            raise UserError(f"{row.place}, is not whole.", "Give each row a case and its patient.")
        case = replace(case, case=known.get(composed(case.case), case.case), patient=composed(case.patient))
        if case.case in rows:
            raise UserError(f"{path} lists {case.case} twice.", "Keep one row a case.")
        rows[case.case] = case
    needed = [name for name in names if name in asked]
    for wanted, there, remedy in ((needed, rows, "Add it."), (rows, names, "Remove it, or add its files.")):
        if absent := [name for name in wanted if name not in there]:
            place = path if there is rows else "The data set"
            raise UserError(f"{place} has no case {absent[0]} ({len(absent)} are missing).", remedy)
    return [rows[name] for name in names if name in rows]
