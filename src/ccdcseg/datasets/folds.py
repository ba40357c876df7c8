"""Folds of a split's training patients: networks that never saw a patient's mask, for every labelled patient.

A fold is an entry of ``splits_final.json`` like any other, so that an ordinary training works on it: it trains on
the other folds' patients and tests on its own. Patients for validation and testing of the split are in none. The
key ``fold_of`` tells it from splits that were drawn, which keep their numbers, and names the split by its hash.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ccdcseg.datasets.cases import read_cases, read_labels
from ccdcseg.datasets.splits import (
    FOLD_OF,
    SPLITS_FILE,
    Split,
    mask_facts,
    read_entries,
    split_entry,
    stratified_order,
)
from ccdcseg.errors import UserError
from ccdcseg.files import locked, write_json


def add_folds(raw_folder: Path, split: Mapping[str, Any], folds: int) -> list[tuple[int, dict[str, Any]]]:
    """Append the folds of a split to ``splits_final.json``, atomically; those that are there are found.

    Args:
        raw_folder: the data set's folder in ``nnUNet_raw``.
        split: its entry.
        folds: how many; never more than the split has patients to train on.

    Returns:
        nnU-Net's number of each fold, and its entry.

    Raises:
        UserError: there is one labelled patient, or fewer than two folds; without a fold's patients no mask is left
            that has a class; a mask is missing or damaged.
    """
    path = raw_folder / SPLITS_FILE
    entries = read_entries(path)
    labelled = split["patients"]["train"]
    _check(labelled, folds, path)
    folds = min(folds, len(labelled))
    marks = [(split["hash"], number, folds) for number in range(1, folds + 1)]
    if not {*marks} <= _numbers(entries).keys():
        made = _entries(raw_folder, split, folds)
        with locked(raw_folder, "review", wait=True):
            entries = read_entries(path)
            known = _numbers(entries)
            entries += [entry for mark, entry in zip(marks, made, strict=True) if mark not in known]
            write_json(path, entries)
    known = _numbers(entries)
    return [(known[mark], entries[known[mark]]) for mark in marks]


def draw_folds(groups: Mapping[str, str], folds: int, seed: int) -> list[tuple[str, ...]]:
    """Deal patients out, each group evenly: no two folds differ by more than one patient of a group, or of all.

    Args:
        groups: group of each patient.
        folds: how many.
        seed: of the order in which they are dealt.

    Returns:
        The patients of each fold, sorted.
    """
    order = sorted(stratified_order(groups, seed), key=groups.__getitem__)
    return [tuple(sorted(order[first::folds])) for first in range(folds)]


def _check(labelled: Sequence[str], folds: int, path: Path) -> None:
    if len(labelled) < 2:
        raise UserError(
            f"The split in {path} has one labelled patient: no network can be trained without that one's masks.",
            "Annotate a second patient and draw a larger --fraction, or name a run that never saw it: --run.",
        )
    if folds < 2:
        raise UserError(f"{folds} fold leaves nobody to train on.", "Give --folds 2 or more.")


def _numbers(entries: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int, int], int]:
    """nnU-Net's number of each entry of a fold, by the split, the fold's number and how many there are."""
    folds = {number: entry[FOLD_OF] for number, entry in enumerate(entries) if FOLD_OF in entry}
    return {(fold["split"], fold["number"], fold["folds"]): number for number, fold in folds.items()}


def _entries(raw_folder: Path, split: Mapping[str, Any], folds: int) -> list[dict[str, Any]]:
    cases = [case for case in read_cases(raw_folder) if case.case in {*split["train"]}]
    groups = {case.patient: case.group for case in cases}
    masks = mask_facts(raw_folder, cases)
    slices_of = {case: mask.slices for case, mask in masks.items()}
    entries = []
    for number, held in enumerate(draw_folds(groups, folds, split["seed"]), 1):
        others = tuple(sorted(groups.keys() - {*held}))
        _check_classes(
            raw_folder, held, [masks[case.case].values for case in cases if case.patient in others]
        )
        entry = split_entry(Split(split["fraction"], split["seed"], others, (), held), cases, slices_of)
        entries.append(entry | {FOLD_OF: {"split": split["hash"], "number": number, "folds": folds}})
    return entries


def _check_classes(raw_folder: Path, held: Sequence[str], classes: Sequence[frozenset[int]]) -> None:
    """Refuse a fold whose network would not know a class."""
    for name, value in read_labels(raw_folder).items():
        if not any(value in found for found in classes):
            raise UserError(
                f"Without {', '.join(held)} no labelled patient of the split has the class {name}: a network "
                "trained on the others would not know it.",
                "Take more --folds, or annotate the class in another patient.",
            )
