"""Few-label splits: patient-wise, stratified by group, nested over the fractions, seeded, hashed.

They are stored in the raw folder as entries of ``splits_final.json``, which a training copies to where nnU-Net
looks: a fold number of nnU-Net is the index of an entry, so the file only ever grows at its end.
"""

import hashlib
import json
import logging
import math
import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ccdcseg.datasets import unicode_names
from ccdcseg.datasets.cases import (
    CASES_FILE,
    Case,
    image_files,
    read_cases,
    read_channels,
    read_file_ending,
    read_ignore_label,
    read_labels,
    unlisted,
)
from ccdcseg.datasets.unlabelled import UnlabelledFolder, channel_files, read_unlabelled
from ccdcseg.datasets.volumes import read_mask, slice_axis
from ccdcseg.datasets.walk import by_number, names_with
from ccdcseg.errors import UserError
from ccdcseg.files import json_hash, locked, read_json, real, write_json
from ccdcseg.texts import exactly

logger = logging.getLogger(__name__)

SPLITS_FILE = "splits_final.json"
FOLD_OF = "fold_of"
"""Key of an entry that is a fold of another split's training patients; see `ccdcseg.datasets.folds`."""
_ONE_PATIENT = (
    "With one annotated patient nobody can be tested or set aside: annotate a second; or train on that one alone "
    "(--fraction 1) and predict other scans, ccdcseg predict RUN --input IMAGES --output FOLDER."
)
_REMEDY = "Move it away; `ccdcseg split` draws splits, and `ccdcseg train` puts them where nnU-Net looks."


@dataclass(frozen=True)
class Split:
    """Which patients are trained on, validated on and tested on.

    Args:
        fraction: of all patients whose labels training may use.
        seed: what the order of the patients was drawn with.
        train: patients, sorted, as are the others.
        validation: patients, may be none.
        test: everybody else, may be nobody.
        unlabelled: patients of the data set whose masks are never read, may be none.
    """

    fraction: float
    seed: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    unlabelled: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256, in hex, of fraction, seed and patients."""
        return _hash(self.fraction, self.seed, self.patients)

    @property
    def patients(self) -> dict[str, list[str]]:
        """The parts by name; unlabelled patients only where there are some."""
        parts = {"train": [*self.train], "validation": [*self.validation], "test": [*self.test]}
        return parts | ({"unlabelled": [*self.unlabelled]} if self.unlabelled else {})


def draw_splits(
    cases: Iterable[Case],
    fractions: Iterable[float],
    seed: int,
    test_patients: int | None = None,
    unlabelled_patients: int = 0,
    in_part: Collection[str] = (),
) -> list[Split]:
    """Draw one split a fraction; a smaller fraction's training patients are among a larger one's.

    The patients are put into one order a seed, whose beginning holds each group in its share of the whole (see
    `stratified_order`). Training takes max(1, round(fraction x patients)) from its beginning, and all others are
    for testing. With ``test_patients`` that many, drawn alike whatever the seed, are set aside for testing
    beforehand, and whoever is left after training is for validation, that is for choosing settings. The
    ``unlabelled_patients`` that follow on those for training take part without their masks. Patients whose masks
    are annotated in part can only be trained on, so they stand before all others in the order.

    Args:
        cases: all cases of the data set.
        fractions: of all patients, each above 0 and at most 1; with 1, nobody is left for testing.
        seed: not negative.
        test_patients: how many patients are set aside, the same for every seed and fraction; None: none.
        unlabelled_patients: how many patients take part without their masks.
        in_part: patients with a mask that is annotated in part.

    Raises:
        UserError: a fraction is not above 0 and at most 1, ``seed`` is negative, ``test_patients`` is below 1, or
            too few patients are left; or a fraction leaves one of ``in_part`` for testing.
    """
    if seed < 0:
        raise UserError(f"The seed ({seed}) is negative.", "Give a number from 0 on.")
    groups = {case.patient: case.group for case in cases}
    whole = {patient: group for patient, group in groups.items() if patient not in in_part}
    test = _set_aside(whole, test_patients, len(groups) - len(whole))
    parts = (
        {patient: group for patient, group in groups.items() if patient in in_part},
        {patient: group for patient, group in whole.items() if patient not in test},
    )
    order = [patient for part in parts for patient in stratified_order(part, seed)]
    splits = []
    for fraction in fractions:
        everybody = fraction == 1 and not unlabelled_patients
        count = _training_count(fraction, len(groups), len(order) if test or everybody else len(order) - 1)
        _check_trained(fraction, count, len(groups), len(parts[0]))
        train, unlabelled, rest = _consecutive(order, count, unlabelled_patients, bool(test))
        members = (train, rest, test, unlabelled) if test else (train, [], rest, unlabelled)
        splits.append(Split(float(fraction), int(seed), *(tuple(sorted(part)) for part in members)))
    return splits


def _check_trained(fraction: float, count: int, patients: int, in_part: int) -> None:
    """Refuse to test on patients whose masks are annotated in part."""
    if count < in_part:
        least = _share_of(in_part, patients)
        raise UserError(
            f"{in_part} of {patients} patients have a mask that is annotated in part, on which nobody can be "
            f"tested, and the fraction {exactly(fraction)} trains on {count}.",
            f"Give --fraction {least}{'' if least == '1' else ' or more'}, or annotate others in full.",
        )


def check_classes(
    split: Split,
    cases: Iterable[Case],
    classes_of: Mapping[str, frozenset[int]],
    labels: Mapping[str, int],
    set_aside: bool = False,
) -> None:
    """Refuse a split that trains on nobody with a class, which its networks would not know.

    Args:
        split: what to check.
        cases: all cases of the data set.
        classes_of: the values in each case's mask, of those that are read.
        labels: value of each foreground class by name.
        set_aside: the patients for testing were set aside beforehand.

    Raises:
        UserError: a class never occurs in what is trained on.
    """
    for name, having in _having(cases, classes_of, labels).items():
        if having.isdisjoint(split.train):
            annotated = {*split.train, *split.validation, *split.test}
            raise UserError(
                f"The fraction {exactly(split.fraction)} with seed {split.seed} leaves the train patients without "
                f"the class {name}, which {len(having & annotated)} of {len(annotated)} annotated patients have.",
                _with_class(split, having, set_aside),
            )


def _having(
    cases: Iterable[Case], classes_of: Mapping[str, frozenset[int]], labels: Mapping[str, int]
) -> dict[str, set[str]]:
    """The patients who have each class."""
    read = [case for case in cases if case.case in classes_of]
    return {
        name: {case.patient for case in read if value in classes_of[case.case]}
        for name, value in labels.items()
    }


def _with_class(split: Split, having: set[str], set_aside: bool) -> str:
    """What to do to train on one of those who have a class."""
    if not having:
        other = ", or try another seed" if split.unlabelled else ""
        return f"Annotate the class, or take it out of `labels` in dataset.json{other}."
    patients = {*chain(*split.patients.values())}
    drawn = patients.difference(split.test if set_aside else ())
    if having.isdisjoint(drawn):
        return (
            "They are set aside for testing, whatever the seed: give a smaller --test or none. --fraction 1 "
            "without --test trains on everybody."
        )
    share = _share_of(len(drawn) - len(having & drawn) + 1, len(patients))
    fewer = " (and a smaller --unlabelled)" if split.unlabelled else ""
    return f"Give --fraction {share}{'' if share == '1' else ' or more'}{fewer}, or try another seed."


def _share_of(count: int, patients: int) -> str:
    """The fraction that trains on so many."""
    return exactly(math.ceil(1000 * count / patients) / 1000)


def _note_absent(split: Split, having: Mapping[str, set[str]]) -> None:
    """Say which classes nobody can be measured on."""
    for part, patients in (("validation", split.validation), ("test", split.test)):
        absent = [name for name, found in having.items() if found.isdisjoint(patients)]
        if patients and absent:
            drawn = f"Fraction {exactly(split.fraction)}, seed {split.seed}"
            names = ", ".join(absent)
            logger.warning("%s: no %s patient has %s, which cannot be measured there.", drawn, part, names)


def add_splits(
    raw_folder: Path,
    splits: Iterable[Split],
    cases: Sequence[Case],
    slices_of: Mapping[str, int],
    scans: UnlabelledFolder | None = None,
    redraw: bool = False,
) -> list[dict[str, Any]]:
    """Append splits to ``splits_final.json`` of an nnU-Net raw folder, atomically; the others stay.

    An entry is nnU-Net's ``train`` and ``val`` (cases) with ``fraction``, ``seed``, ``test`` (cases),
    ``patients``, ``counts`` (patients and cases of each part, and slices where masks are read), ``hash`` (of the
    split) and ``cases_hash``; where scans take part without masks, also ``unlabelled``, their folder (``images``),
    names (``cases``) and those of patients who are measured or with a mask in the data set (``left_out``). nnU-Net
    demands a ``val``: without validation patients it holds the training cases, and what nnU-Net measures there is
    the fit alone.

    Args:
        raw_folder: the data set's folder in ``nnUNet_raw``.
        splits: what to store.
        cases: all cases of the data set.
        slices_of: number of slices of each case that is not unlabelled.
        scans: a folder of scans without masks that take part in each split.
        redraw: put a split in the place of one of the same fraction and seed that has other patients.

    Returns:
        The stored entry of each of ``splits``.

    Raises:
        UserError: the file was not made here, or has other patients or cases for a fraction and seed of ``splits``.
    """
    path = raw_folder / SPLITS_FILE
    with locked(raw_folder, "split", wait=True):
        entries = _entries_there(path)
        named = [_as_stored(scans, raw_folder, split, entries) for split in splits]
        wanted = [split_entry(split, cases, slices_of, one) for split, one in zip(splits, named, strict=True)]
        for entry in wanted:
            _place(entry, entries, path, redraw)
        write_json(path, entries)
    return wanted


def _as_stored(
    scans: UnlabelledFolder | None, raw_folder: Path, split: Split, entries: Sequence[Mapping[str, Any]]
) -> UnlabelledFolder | None:
    """Scans of a folder under the name in the stored split: earlier versions stored a link's target."""
    fold = _index(entries, split.fraction, split.seed)
    if scans is None or fold is None or "unlabelled" not in entries[fold]:
        return scans
    name = entries[fold]["unlabelled"]["images"]
    return replace(scans, name=name) if real(raw_folder / name) == real(raw_folder / scans.name) else scans


def _place(entry: dict[str, Any], entries: list[dict[str, Any]], path: Path, redraw: bool) -> None:
    """Put a split's entry among the others, unless it is there."""
    fold = _index(entries, entry["fraction"], entry["seed"])
    if fold is None:
        entries.append(entry)
    elif redraw:
        entries[fold] = entry
    elif entries[fold]["hash"] != entry["hash"] or _cases(entries[fold]) != _cases(entry):
        kind, why = _difference(entries[fold], entry)
        raise UserError(
            f"{path} has other {kind} for the fraction {exactly(entry['fraction'])} and seed {entry['seed']}: its "
            f"fold {fold} {why}.",
            f"Choose another seed, or replace it with --redraw; what was trained or measured on other {kind} is "
            "then refused.",
        )


def _difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, str]:
    """What of two splits of one fraction and seed is another, and why."""
    known, today = _scans_apart(stored), _scans_apart(wanted)
    differing = sorted(scan for scan in known.keys() | today.keys() if known.get(scan) != today.get(scan))
    if _parts(stored) != _parts(wanted) or not differing:
        return (
            "patients or cases",
            "was drawn with another number of patients for testing or without masks, or from other cases",
        )
    numbers = f"{len(known)} of them, today there are {len(today)}"
    return "scans without masks", f"was drawn with {numbers} (differing: {differing[0]})"


def _scans_apart(entry: Mapping[str, Any]) -> dict[str, tuple[bool, str | None]]:
    """Of each scan that a split knows without a mask, whether it takes part, and else whose it is."""
    scans = entry.get("unlabelled") or {"images": "", "cases": []}
    taken, left_out = dict.fromkeys(scans["cases"], (True, None)), scans.get("left_out", {})
    states = taken | {scan: (False, patient) for scan, patient in left_out.items()}
    return {f"{scans['images']}/{scan}": state for scan, state in states.items()}


def _parts(entry: Mapping[str, Any]) -> list[Any]:
    """Patients and cases of the parts that have masks."""
    return [*(entry["patients"][part] for part in ("train", "validation", "test")), *_cases(entry)]


def find_fold(place: Path, fraction: float, seed: int) -> tuple[int, dict[str, Any]]:
    """Find a stored split.

    Args:
        place: a ``splits_final.json``, or the folder it lies in.
        fraction: of the split.
        seed: of the split.

    Returns:
        nnU-Net's number of the fold and the entry (see `add_splits`).

    Raises:
        UserError: there is no such split or no file, the file was not made here, or the split tears a patient apart
            by ``cases.csv`` as it is now, or names a case that it lacks.
    """
    path = place / SPLITS_FILE if place.is_dir() else place
    entries = _entries_there(path)
    fold = _index(entries, fraction, seed)
    if fold is None:
        raise _not_drawn(path, [(fraction, seed)], entries)
    _check_patients(path.parent, fold, entries, {*chain(*_cases(entries[fold]))})
    return fold, entries[fold]


def only_fraction(place: Path) -> float | None:
    """The fraction of all stored splits in a folder; None where there are several, or none.

    Raises:
        UserError: their file was not made here.
    """
    fractions = {entry["fraction"] for entry in _entries_there(place / SPLITS_FILE)}
    return fractions.pop() if len(fractions) == 1 else None


def check_splits(path: Path, wanted: Iterable[tuple[float, int]]) -> None:
    """See that splits were drawn.

    Args:
        path: a ``splits_final.json``, whether it exists or not.
        wanted: fraction and seed of each.

    Raises:
        UserError: some were not, all of which are named with the command that draws them; or the file was not made
            here.
    """
    entries = _entries_there(path)
    missing = [pair for pair in wanted if _index(entries, *pair) is None]
    if missing:
        raise _not_drawn(path, missing, entries)


def _not_drawn(
    path: Path, missing: Sequence[tuple[float, int]], entries: Sequence[Mapping[str, Any]]
) -> UserError:
    there = _listed((entry["fraction"], entry["seed"]) for entry in entries if FOLD_OF not in entry)
    problem = f"{path} has no split of fraction {_listed(missing)}, only {there}."
    if not path.exists():
        problem = f"{path} does not exist: no split of fraction {_listed(missing)} has been drawn."
    if _patients(path.parent) < 2 and any(fraction != 1 for fraction, _ in missing):
        return UserError(problem, _ONE_PATIENT)
    one = "it" if len(missing) == 1 else "them"
    return UserError(problem, f"Draw {one}: {_drawing(path.parent.name, missing, entries)}")


def _listed(pairs: Iterable[tuple[float, int]]) -> str:
    seeds: dict[float, list[int]] = defaultdict(list)
    for fraction, seed in pairs:
        seeds[fraction].append(seed)
    parts = [
        f"{exactly(fraction)} (seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))})"
        for fraction, found in seeds.items()
    ]
    return ", ".join(parts) or "nothing"


def _drawing(dataset: str, missing: Iterable[tuple[float, int]], entries: Sequence[Mapping[str, Any]]) -> str:
    """The command line that draws splits, with as many patients set aside as in those there are.

    A split that trains on everybody sets nobody aside.
    """
    fractions: dict[float, list[int]] = defaultdict(list)
    for fraction, seed in missing:
        fractions[fraction].append(seed)
    together: dict[tuple[tuple[int, ...], bool], list[float]] = defaultdict(list)
    for fraction, seeds in fractions.items():
        together[tuple(seeds), fraction == 1].append(fraction)
    test = ["--test", str(aside)] if (aside := _aside(entries)) else []
    return " && ".join(
        shlex.join(
            [
                "ccdcseg", "split", dataset,
                *(word for fraction in found for word in ("--fraction", exactly(fraction))),
                *(word for seed in seeds for word in ("--seed", str(seed))),
                *([] if everybody else test),
            ]
        )
        for (seeds, everybody), found in together.items()
    )  # fmt: skip


def _aside(entries: Iterable[Mapping[str, Any]]) -> int:
    """How many patients splits set aside for testing; 0 where none does, or they differ."""
    found = {len(entry["patients"]["test"]) for entry in entries if entry["patients"]["validation"]}
    return found.pop() if len(found) == 1 else 0


def _patients(place: Path, known: int = 2) -> int:
    """How many patients a folder's table lists; ``known`` where it has none."""
    return len({case.patient for case in read_cases(place)}) if (place / CASES_FILE).exists() else known


def _next_seed(entries: Iterable[Mapping[str, Any]]) -> int:
    return max((entry["seed"] for entry in entries), default=-1) + 1


def part_cases(place: Path, fold: int, part: str) -> list[str]:
    """Cases of the patients for "test" or "validation" of a stored split.

    Args:
        place: the folder with ``splits_final.json``.
        fold: number of the entry.
        part: "test" or "validation".

    Raises:
        UserError: there is no such split or part, it has no patients for ``part``, or it tears a patient apart by
            ``cases.csv`` as it is now, or the table lacks a case of the part.
    """
    if not (place / SPLITS_FILE).exists():
        raise UserError(
            f"{place / SPLITS_FILE} does not exist, which says whom runs are tested on.",
            "Restore it from a copy, or draw the same split again: ccdcseg split.",
        )
    entries = read_entries(place / SPLITS_FILE)
    if fold >= len(entries):
        raise UserError(
            f"{place / SPLITS_FILE} has no fold {fold}, only {len(entries)} of them.",
            "Restore the file, or correct the fold in the run's run.json.",
        )
    entry = entries[fold]
    check_part(part)
    if not entry["patients"][part]:
        raise UserError(
            f"Fold {fold} of {place / SPLITS_FILE} has no patients for {part}.",
            _drawing_with(part, place, entry, entries),
        )
    cases: list[str] = entry["test" if part == "test" else "val"]
    _check_patients(place, fold, entries, cases)
    return cases


def _drawing_with(
    part: str, place: Path, entry: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]
) -> str:
    """How to come by a split like another one that has patients for a part, too."""
    patients = _patients(place, len({*chain(*entry["patients"].values())}))
    share, aside, settings = entry["fraction"], _aside(entries), part == "validation"
    if patients < 2:
        return _ONE_PATIENT
    if patients < 2 + settings:
        return (
            "Annotate a third patient: one is trained on, one tested on, and settings are chosen on another."
        )
    most = patients - max(aside, settings) - (settings or not aside)
    if share == 1 or round(share * patients) > most:
        share = round(max(1, min((patients - aside) // 2, most)) / patients, 3)
    drawing = _drawing(place.name, [(share, _next_seed(entries))], entries)
    number = " --test N" if settings and not aside else ""
    return f"Draw a split that has some, with a new seed, and train on it: {drawing}{number}"


def _check_patients(
    place: Path, fold: int, entries: Sequence[Mapping[str, Any]], cases: Collection[str]
) -> None:
    """Refuse a split that trains and tests on one patient, or a case that is unknown, by the table of today."""
    if not (place / CASES_FILE).exists():
        return
    entry, patients = entries[fold], {case.case: case.patient for case in read_cases(place)}
    if gone := sorted({*cases} - patients.keys()):
        drawing = _drawing(place.name, [(entry["fraction"], entry["seed"])], entries)
        scans = entry.get("unlabelled", {"images": ""})["images"].replace("imagesTr", "N")
        raise UserError(
            f"{place / CASES_FILE} has no {gone[0]}, which fold {fold} of {SPLITS_FILE} names.",
            "Restore the row; or, if the patient is to take part no more, draw the split anew, or another seed, "
            f"and train on it: {drawing}{f' --unlabelled {scans}' if scans else ''} --redraw",
        )
    train = {*entry["train"]}
    measured = {*entry["test"], *entry["val"]} - train
    trained_on, tested_on = (
        {patients[case] for case in cases if case in patients} for cases in (train, measured)
    )
    if torn := sorted(trained_on & tested_on):
        raise UserError(
            f"Fold {fold} of {place / SPLITS_FILE} trains on a scan of {torn[0]} and tests on another, as "
            f"{CASES_FILE} says now.",
            _ONE_PATIENT
            if _patients(place) < 2
            else "Draw a split by patient and train on it: "
            + _drawing(place.name, [(entry["fraction"], _next_seed(entries))], [])
            + (" --test N" if entry["patients"]["validation"] else ""),
        )


def stored_hash(place: Path, fold: int) -> str | None:
    """Hash of a stored split; None where there is none of that number.

    Args:
        place: the folder with ``splits_final.json``, whether it exists or not.
        fold: number of the entry.

    Raises:
        UserError: the file was not made here.
    """
    entries = _entries_there(place / SPLITS_FILE)
    return entries[fold]["hash"] if fold < len(entries) else None


@dataclass(frozen=True)
class UnlabelledSplit:
    """Images of the scans of a split, one file a channel.

    Attributes:
        images: of those that take part without masks, by name.
        annotated: of those that are trained on with their masks.
    """

    images: dict[str, list[Path]]
    annotated: list[list[Path]]


def unlabelled_split(raw_folder: Path, splits: Path, fold: int | str) -> UnlabelledSplit:
    """The scans that take part in a split without masks, and those with masks, to be trained on.

    Args:
        raw_folder: the data set's folder in ``nnUNet_raw``.
        splits: its ``splits_final.json``, or nnU-Net's copy.
        fold: number of the entry; nnU-Net's "all" has none.

    Raises:
        UserError: an image is missing, or as `unlabelled_images`.
    """
    entry = _with_unlabelled(raw_folder, splits, fold)
    images = _images_without_masks(raw_folder, entry)
    for file in (file for files in images.values() for file in files):
        if not file.exists():
            fault = unicode_names.missing(file, _redrawing(raw_folder.name, entry))
            raise UserError(
                f"Fold {fold} of {splits} names a scan that is gone: {fault.problem}", fault.remedy
            )
    return UnlabelledSplit(
        images, [channel_files(raw_folder, case, raw_folder / "imagesTr") for case in entry["train"]]
    )


def unlabelled_images(raw_folder: Path, splits: Path, fold: int | str) -> dict[str, list[Path]]:
    """Images of the scans that take part in a split without masks, by name, whether they exist or not.

    Args:
        raw_folder: see `unlabelled_split`, as are the others.
        splits: where they are stored.
        fold: number of the entry.

    Raises:
        UserError: the split names no such scans.
    """
    return _images_without_masks(raw_folder, _with_unlabelled(raw_folder, splits, fold))


def _images_without_masks(raw_folder: Path, entry: Mapping[str, Any]) -> dict[str, list[Path]]:
    scans = entry["unlabelled"]
    ending, channels = read_file_ending(raw_folder), len(read_channels(raw_folder))
    return {
        case: image_files(raw_folder / scans["images"], case, ending, channels) for case in scans["cases"]
    }


def _with_unlabelled(raw_folder: Path, splits: Path, fold: int | str) -> dict[str, Any]:
    """The entry of a split, which has to name scans without masks."""
    entries = read_json(splits) if splits.exists() else []
    entry: dict[str, Any] = entries[fold] if isinstance(fold, int) and fold < len(entries) else {}
    if "unlabelled" not in entry:
        ours = _entries_there(raw_folder / SPLITS_FILE)
        share = entry.get("fraction", 1 if fold == "all" or _patients(raw_folder) < 2 else 0.1)
        drawing = _drawing(raw_folder.name, [(share, _next_seed(ours))], ours)
        copying = f" Then copy {SPLITS_FILE} to {splits.parent}, and give the split's number as the fold."
        raise UserError(
            f"Fold {fold} of {splits} names no scans without masks.",
            f"Draw a split that has some, with a new seed: {drawing} --unlabelled imagesTs (or another folder, or "
            f"a number of patients whose masks are not read).{'' if splits.parent == raw_folder else copying}",
        )
    return entry


def _redrawing(dataset: str, entry: Mapping[str, Any]) -> str:
    """What to do where a scan without a mask is gone."""
    patients = entry["patients"].get("unlabelled")
    drawing = _drawing(dataset, [(entry["fraction"], entry["seed"])], [entry])
    scans = str(len(patients)) if patients else shlex.quote(entry["unlabelled"]["images"])
    return f"Put it back, or draw the split anew: {drawing} --unlabelled {scans} --redraw"


def unread_cases(raw_folder: Path) -> set[str]:
    """Cases in ``imagesTr`` that take part in a split without their masks, and in none with them."""
    path = raw_folder / SPLITS_FILE
    entries = read_json(path) if path.exists() else []
    trained = {case for entry in entries for case in entry["train"]}
    apart = [entry["unlabelled"] for entry in entries if "unlabelled" in entry]
    return {case for scans in apart if scans["images"] == "imagesTr" for case in scans["cases"]} - trained


def check_part(part: str) -> None:
    """Refuse what is no part of a split that is measured, such as those who were trained on."""
    if part not in ("test", "validation"):
        raise UserError(f"There is no part {part} of a split to measure.", "Choose test or validation.")


def part_folder(run: Path, part: str) -> Path:
    """Where predictions and measurements of a run lie: those on test patients in the run's folder itself.

    Raises:
        UserError: there is no such part.
    """
    check_part(part)
    return run if part == "test" else run / "validation_patients"


def split_dataset(
    raw_folder: Path,
    fractions: Iterable[float],
    seed: int,
    test_patients: int | None = None,
    unlabelled: int | str | Path | None = None,
    *,
    redraw: bool = False,
    masks: dict[str, "MaskFacts"] | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Draw few-label splits of a data set, check that every class is trained on, and store them.

    A class that no patient for validation or testing has is told as a warning.

    Args:
        raw_folder: the data set's folder in ``nnUNet_raw``, with cases.csv, dataset.json and labelsTr.
        fractions: see `draw_splits`.
        seed: see `draw_splits`.
        test_patients: see `draw_splits`.
        unlabelled: what takes part without masks: so many patients of the data set, or the scans of a folder,
            such as ``imagesTs`` (see `read_unlabelled`).
        redraw: see `add_splits`.
        masks: what is known of masks by case, for the next seed; those that are read are added.
        progress: called with masks read and masks to read.

    Returns:
        The stored entry of each fraction, see `add_splits`.

    Raises:
        UserError: as `draw_splits`, `check_classes`, `add_splits`, or an unusable table, label list or mask; or a
            mask that the table lacks.
    """
    cases, labels = read_cases(raw_folder), read_labels(raw_folder)
    _check_listed(raw_folder, cases)
    folder = Path(unlabelled) if isinstance(unlabelled, str | Path) else None
    scans = read_unlabelled(raw_folder, folder) if folder else None
    patients = 0 if isinstance(unlabelled, str | Path) else int(unlabelled or 0)
    has_ignored = read_ignore_label(raw_folder) is not None
    masks = {} if masks is None else masks
    if has_ignored:
        _read_others(masks, raw_folder, cases, progress)
    in_part = {case.patient for case in cases if has_ignored and masks[case.case].in_part}
    splits = draw_splits(cases, fractions, seed, test_patients, patients, in_part)
    _read_others(masks, raw_folder, _annotated(cases, splits), progress)
    classes_of = {case: mask.values for case, mask in masks.items()}
    for split in splits:
        check_classes(split, cases, classes_of, labels, set_aside=test_patients is not None)
    slices_of = {case: mask.slices for case, mask in masks.items()}
    entries = add_splits(raw_folder, splits, cases, slices_of, scans, redraw)
    having = _having(cases, classes_of, labels)
    for split in splits:
        _note_absent(split, having)
    return entries


def _check_listed(raw_folder: Path, cases: Iterable[Case]) -> None:
    """Refuse masks whose patient nobody has said: they would be left out of every split."""
    folder, ending = raw_folder / "labelsTr", read_file_ending(raw_folder)
    masks = [name for name in names_with(folder, ending) if not (folder / f"{name}{ending}").is_dir()]
    if added := unlisted(sorted(masks, key=by_number), cases):
        raise UserError(
            f"{folder} holds {added[0]}, which {CASES_FILE} lacks ({len(added)} such masks).",
            f"Add a row (`ccdcseg patients {raw_folder.name} --pattern` can), or take the files out.",
        )


@dataclass(frozen=True)
class MaskFacts:
    """Values in a mask, number of its slices of which something is annotated, and whether something is not."""

    values: frozenset[int]
    slices: int
    in_part: bool


def mask_facts(
    raw_folder: Path, cases: Sequence[Case], progress: Callable[[int, int], None] = lambda *_: None
) -> dict[str, MaskFacts]:
    """What splits need to know of masks, by case.

    Args:
        raw_folder: the data set's folder in ``nnUNet_raw``.
        cases: whose masks are read.
        progress: called with masks read and masks to read.

    Raises:
        UserError: a mask is missing or unusable.
    """
    labels, ignore = read_labels(raw_folder), read_ignore_label(raw_folder)
    ending, facts = read_file_ending(raw_folder), {}
    for read, case in enumerate(cases, 1):
        mask = read_mask(raw_folder / "labelsTr" / f"{case.case}{ending}", labels, ignore)
        axis = slice_axis(mask.array.shape, mask.spacing_mm)
        annotated = (mask.array != ignore).any(axis=tuple({0, 1, 2} - {axis}))
        values = frozenset(np.unique(mask.array).tolist())
        facts[case.case] = MaskFacts(values, int(annotated.sum()), ignore in values)
        progress(read, len(cases))
    return facts


def _read_others(
    masks: dict[str, MaskFacts],
    raw_folder: Path,
    cases: Iterable[Case],
    progress: Callable[[int, int], None],
) -> None:
    """Add the masks of cases that are not known yet."""
    masks |= mask_facts(raw_folder, [case for case in cases if case.case not in masks], progress)


def _annotated(cases: Iterable[Case], splits: Iterable[Split]) -> list[Case]:
    """Cases whose masks one of the splits uses."""
    patients = {
        patient
        for split in splits
        for part, members in split.patients.items()
        if part != "unlabelled"
        for patient in members
    }
    return [case for case in cases if case.patient in patients]


def stratified_order(groups: Mapping[str, str], seed: int) -> list[str]:
    """Shuffle each group's patients and interleave the groups in proportion to their sizes.

    The i-th of a group's n patients is placed at (i + 1/2) / n, ties at random: to a beginning that reaches
    up to p, each group gives p n patients, rounded.
    """
    generator = np.random.default_rng(seed)
    members: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(groups):
        members[groups[patient]].append(patient)
    places = [
        ((index + 0.5) / len(patients), generator.random(), patients[chosen])
        for _, patients in sorted(members.items())
        for index, chosen in enumerate(generator.permutation(len(patients)))
    ]
    return [patient for _, _, patient in sorted(places)]


def _set_aside(groups: Mapping[str, str], count: int | None, others: int) -> list[str]:
    """Patients for testing, the same for every seed: the end of one fixed order.

    Args:
        groups: of those who can be tested on.
        count: None: nobody.
        others: number of further patients.
    """
    if count is None:
        return []
    if not 1 <= count < len(groups) + others or count > len(groups):
        apart = f" with masks that are whole, and {others} others" if others else ""
        most = len(groups) - (not others)
        number = f"Give a number from 1 to {most}." if most else "Annotate others in full."
        raise UserError(
            f"{count} patients cannot be set aside for testing, there are {len(groups)}{apart}.",
            number if len(groups) + others > 1 else _ONE_PATIENT,
        )
    return stratified_order(groups, 0)[-count:]


def _consecutive(
    order: list[str], train: int, unlabelled: int, tested: bool
) -> tuple[list[str], list[str], list[str]]:
    """The patients for training, those without masks, and all others, of whom one at least is for testing."""
    left = len(order) - train - (0 if tested else 1)
    if unlabelled > max(left, 0):
        raise UserError(
            f"{unlabelled} patients cannot take part without their masks, {max(left, 0)} are left for it.",
            "Give a smaller --unlabelled, a smaller fraction or fewer test patients.",
        )
    return order[:train], order[train : train + unlabelled], order[train + unlabelled :]


def _training_count(fraction: float, patients: int, at_most: int) -> int:
    if not 0 < fraction <= 1:
        raise UserError(
            f"The fraction {exactly(fraction)} is not above 0 and at most 1.",
            "Give one such as 0.1 for 10 %.",
        )
    count = max(1, round(fraction * patients))
    if count > at_most:
        raise UserError(
            f"The fraction {exactly(fraction)} of {patients} patients is {count} to train on, but testing leaves "
            f"{at_most}.",
            "Choose a smaller fraction or fewer test patients." if at_most else _ONE_PATIENT,
        )
    return count


def split_entry(
    split: Split,
    cases: Iterable[Case],
    slices_of: Mapping[str, int],
    scans: UnlabelledFolder | None = None,
) -> dict[str, Any]:
    """What is stored of a split; see `add_splits`."""
    cases = sorted(cases)
    names = {
        part: [case.case for case in cases if case.patient in patients]
        for part, patients in split.patients.items()
    }
    counts = {
        part: {"patients": len(patients), "cases": len(names[part])}
        for part, patients in split.patients.items()
    }
    for part in counts.keys() - {"unlabelled"}:
        counts[part]["slices"] = sum(slices_of.get(name, 0) for name in names[part])
    unlabelled = _unlabelled_entry(split, names, scans)
    entry = {
        "train": names["train"],
        "val": names["validation"] or names["train"],
        "fraction": split.fraction,
        "seed": split.seed,
        "test": names["test"],
        "patients": split.patients,
        "counts": counts,
        "hash": _hash(split.fraction, split.seed, split.patients, unlabelled),
        **({"unlabelled": unlabelled} if unlabelled else {}),
    }
    return {**entry, "cases_hash": json_hash(_cases(entry))}


def _unlabelled_entry(
    split: Split, names: Mapping[str, list[str]], scans: UnlabelledFolder | None
) -> dict[str, Any] | None:
    """Folder and names of the scans without masks."""
    if split.unlabelled:
        return {"images": "imagesTr", "cases": names["unlabelled"]}
    if scans is None:
        return None
    usable = scans.usable(split.patients)
    return {"images": scans.name, "cases": usable, "left_out": scans.left_out(usable)}


def _entries_there(path: Path) -> list[dict[str, Any]]:
    return read_entries(path) if path.exists() else []


def read_entries(path: Path, remedy: str = _REMEDY) -> list[dict[str, Any]]:
    """The entries of a ``splits_final.json``.

    Args:
        path: of the file.
        remedy: what to do about one of somebody else.

    Raises:
        UserError: it is missing, or was not made here.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not all(_is_ours(entry) for entry in entries):
        raise UserError(f"{path} was not made by ccdcseg, or was changed since.", remedy)
    return entries


def _is_ours(entry: Any) -> bool:
    keys = {"train", "val", "test", "fraction", "seed", "patients", "counts", "hash"}
    return (
        isinstance(entry, dict)
        and keys <= entry.keys()
        and type(entry["fraction"]) is float
        and type(entry["seed"]) is int
        and isinstance(entry["patients"], dict)
        and {"train", "validation", "test"} <= entry["patients"].keys()
        and entry["hash"]
        == _hash(entry["fraction"], entry["seed"], entry["patients"], entry.get("unlabelled"))
        and json_hash(_cases(entry)) == entry.get("cases_hash", json_hash(_cases(entry)))
        and (FOLD_OF not in entry or _is_fold(entry[FOLD_OF]))
    )


def _is_fold(fold: Any) -> bool:
    return isinstance(fold, dict) and {"split", "number", "folds"} <= fold.keys()


def _cases(entry: Mapping[str, Any]) -> list[Any]:
    """Cases of the parts; version 0.1.0 wrote no hash of them."""
    return [entry[part] for part in ("train", "val", "test")]


def _index(entries: Iterable[Mapping[str, Any]], fraction: float, seed: int) -> int | None:
    matches = (
        index
        for index, entry in enumerate(entries)
        if math.isclose(entry["fraction"], fraction) and entry["seed"] == seed and FOLD_OF not in entry
    )
    return next(matches, None)


def _hash(
    fraction: float,
    seed: int,
    patients: Mapping[str, Sequence[str]],
    unlabelled: Mapping[str, Any] | None = None,
) -> str:
    """Of a split; without unlabelled scans it is what it was before there were any."""
    content: dict[str, Any] = {"fraction": fraction, "seed": seed, "patients": patients}
    if unlabelled:
        content["unlabelled"] = unlabelled
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
