import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.datasets.folds import add_folds, draw_folds
from ccdcseg.datasets.splits import SPLITS_FILE, find_fold, split_dataset
from ccdcseg.errors import UserError


@given(st.dictionaries(st.text("ab", min_size=1), st.sampled_from("xyz"), min_size=2), st.integers(2, 6))
def test_each_patient_is_in_one_fold_and_every_group_is_dealt_evenly(
    groups: dict[str, str], folds: int
) -> None:
    drawn = draw_folds(groups, folds, 0)
    assert sorted(patient for fold in drawn for patient in fold) == sorted(groups)
    for group in ({*groups}, *({one for one in groups if groups[one] == name} for name in "xyz")):
        sizes = [len(group & {*fold}) for fold in drawn]
        assert max(sizes) - min(sizes) <= 1


def test_folds_hold_the_training_patients_alone_and_leave_other_splits_as_they_are(raw_folder: Path) -> None:
    split = split_dataset(raw_folder, [0.67], 0)[0]
    before = json.loads((raw_folder / SPLITS_FILE).read_text())
    folds = add_folds(raw_folder, split, 5)
    stored = json.loads((raw_folder / SPLITS_FILE).read_text())
    assert stored[: len(before)] == before
    assert [stored[number] for number, _ in folds] == [entry for _, entry in folds]
    labelled = split["patients"]["train"]
    assert len(folds) == len(labelled) == 2
    for _, entry in folds:
        assert sorted(entry["patients"]["train"] + entry["patients"]["test"]) == labelled
        assert entry["patients"]["validation"] == []
        assert not {*entry["train"]} & {*entry["test"]}
        assert {*entry["train"], *entry["val"], *entry["test"]} == {*split["train"]}


def test_folds_that_are_there_are_found_and_no_drawn_split(raw_folder: Path) -> None:
    split = split_dataset(raw_folder, [0.67], 0)[0]
    folds = add_folds(raw_folder, split, 2)
    stored = (raw_folder / SPLITS_FILE).read_bytes()
    assert add_folds(raw_folder, split, 2) == folds
    assert (raw_folder / SPLITS_FILE).read_bytes() == stored
    assert find_fold(raw_folder, 0.67, 0) == (0, split)
    with pytest.raises(UserError, match=r"only 0.67 \(seed 0\)\."):
        find_fold(raw_folder, 0.67, 1)
    assert split_dataset(raw_folder, [0.67], 0)[0] == split
    assert len(json.loads((raw_folder / SPLITS_FILE).read_text())) == 3


def test_a_split_drawn_anew_gets_folds_of_its_own(raw_folder: Path) -> None:
    first = add_folds(raw_folder, split_dataset(raw_folder, [1.0], 0)[0], 3)
    again = add_folds(raw_folder, split_dataset(raw_folder, [0.67], 0)[0], 3)
    assert {number for number, _ in first}.isdisjoint({number for number, _ in again})


def test_slices_are_counted_as_splits_count_them(
    raw_folder: Path, change_volume: Callable[..., None]
) -> None:
    """Of masks annotated in part, the annotated ones."""
    description = json.loads((raw_folder / "dataset.json").read_text())
    description["labels"]["ignore"] = 3
    (raw_folder / "dataset.json").write_text(json.dumps(description))
    for path in (raw_folder / "labelsTr").iterdir():
        change_volume(path, lambda array: np.concatenate([array[:-2], np.full_like(array[-2:], 3)]))
    split = split_dataset(raw_folder, [1.0], 0)[0]
    folds = add_folds(raw_folder, split, 3)
    assert sum(fold["counts"]["test"]["slices"] for _, fold in folds) == split["counts"]["train"]["slices"]


def test_one_labelled_patient_cannot_be_reviewed(raw_folder: Path) -> None:
    split = split_dataset(raw_folder, [0.34], 0)[0]
    with pytest.raises(UserError, match="one labelled patient"):
        add_folds(raw_folder, split, 5)


def test_one_fold_leaves_nobody(raw_folder: Path) -> None:
    split = split_dataset(raw_folder, [1.0], 0)[0]
    with pytest.raises(UserError, match="leaves nobody"):
        add_folds(raw_folder, split, 1)


def test_a_class_that_one_fold_alone_has_is_refused(
    raw_folder: Path, change_volume: Callable[..., None]
) -> None:
    split = split_dataset(raw_folder, [1.0], 0)[0]
    for case in ("p2_ED", "p2_ES", "p3_ED", "p3_ES"):
        change_volume(raw_folder / "labelsTr" / f"{case}.nii.gz", lambda array: array * (array == 1))
    with pytest.raises(UserError, match="Without p1 no labelled patient of the split has the class LV"):
        add_folds(raw_folder, split, 3)
    assert len(json.loads((raw_folder / SPLITS_FILE).read_text())) == 1


@pytest.mark.parametrize("damaged", [None, {}, {"split": "a"}, 5])
def test_folds_that_were_edited_are_refused(raw_folder: Path, damaged: object) -> None:
    split = split_dataset(raw_folder, [1.0], 0)[0]
    add_folds(raw_folder, split, 3)
    entries = json.loads((raw_folder / SPLITS_FILE).read_text())
    entries[2]["fold_of"] = damaged
    (raw_folder / SPLITS_FILE).write_text(json.dumps(entries))
    with pytest.raises(UserError, match="was changed since"):
        add_folds(raw_folder, split, 3)
