import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccdcseg.datasets.acdc import prepare_acdc
from ccdcseg.datasets.cases import Case, read_cases, read_labels, write_cases
from ccdcseg.datasets.splits import (
    MaskFacts,
    Split,
    add_splits,
    check_classes,
    check_splits,
    draw_splits,
    find_fold,
    only_fraction,
    part_cases,
    part_folder,
    split_dataset,
    stored_hash,
    unlabelled_split,
)
from ccdcseg.errors import UserError

GROUPS = ["DCM", "HCM", "MINF", "NOR", "RV"]
ACDC = [
    Case(f"patient{number:03d}_frame{frame:02d}", f"patient{number:03d}", GROUPS[(number - 1) // 20], phase)
    for number in range(1, 101)
    for frame, phase in ((1, "ED"), (12, "ES"))
]
SLICES = {case.case: 10 for case in ACDC}
GROUP_OF = {case.patient: case.group for case in ACDC}

group_sizes = st.lists(st.integers(1, 12), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) >= 4)
fraction_lists = st.lists(st.floats(0.01, 0.6), min_size=1, max_size=4)


def made_up(sizes: list[int]) -> list[Case]:
    return [
        Case(f"{group}-{number}-{scan}", f"{group}-{number}", f"group {group}", "")
        for group, size in enumerate(sizes)
        for number in range(size)
        for scan in range(1 + number % 3)
    ]


@given(group_sizes, fraction_lists, st.integers(0, 2**32))
@settings(deadline=None)
def test_splits_are_whole_disjoint_nested_and_repeatable(
    sizes: list[int], fractions: list[float], seed: int
) -> None:
    cases = made_up(sizes)
    everybody = {case.patient for case in cases}
    splits = draw_splits(cases, sorted(fractions), seed)
    for split, fraction in zip(splits, sorted(fractions), strict=True):
        assert sorted([*split.train, *split.test]) == sorted(everybody)
        assert len(split.train) == max(1, round(fraction * len(everybody)))
        assert split.validation == ()
        assert split.test
    for smaller, larger in pairwise(splits):
        assert set(smaller.train) <= set(larger.train)
    assert draw_splits(reversed(cases), sorted(fractions), seed) == splits


@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.integers(0, 2**32), st.integers(1, 3))
@settings(deadline=None)
def test_patients_set_aside_are_the_same_for_every_seed_and_fraction(
    sizes: list[int], seed: int, test: int
) -> None:
    cases = made_up([size + 4 for size in sizes])
    everybody = {case.patient for case in cases}
    first, second = draw_splits(cases, [0.1, 0.4], seed, test)
    other = draw_splits(cases, [0.1], seed + 1, test)[0]
    assert first.test == second.test == other.test
    assert len(first.test) == test
    assert set(first.train) <= set(second.train)
    for split in (first, second, other):
        assert sorted([*split.train, *split.validation, *split.test]) == sorted(everybody)
        assert len(split.train) == max(1, round(split.fraction * len(everybody)))


@given(group_sizes, st.floats(0.05, 0.6), st.integers(0, 2**32))
@settings(deadline=None)
def test_each_group_has_its_share(sizes: list[int], fraction: float, seed: int) -> None:
    cases = made_up(sizes)
    (split,) = draw_splits(cases, [fraction], seed)
    patients = sum(sizes)
    found = Counter(int(patient.split("-")[0]) for patient in split.train)
    for group, size in enumerate(sizes):
        share = len(split.train) * size / patients
        assert abs(found[group] - share) <= 0.5 + len(sizes) / 2 * size / patients + 1e-9


@given(st.integers(1, 39), st.integers(0, 2**32), st.sampled_from([None, 5, 60]))
@settings(deadline=None)
def test_groups_of_one_size_differ_by_one_patient_at_most(count: int, seed: int, test: int | None) -> None:
    (split,) = draw_splits(ACDC, [count / 100], seed, test)
    for part in (split.train, split.test) if test else (split.train,):
        found = [sum(GROUP_OF[patient] == group for patient in part) for group in GROUPS]
        assert max(found) - min(found) <= 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ten_of_acdcs_hundred_patients_are_two_a_pathology(seed: int) -> None:
    (split,) = draw_splits(ACDC, [0.1], seed)
    assert Counter(GROUP_OF[patient] for patient in split.train) == dict.fromkeys(GROUPS, 2)
    assert (len(split.validation), len(split.test)) == (0, 90)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sixty_of_acdcs_patients_set_aside_are_twelve_a_pathology(seed: int) -> None:
    (split,) = draw_splits(ACDC, [0.1], seed, 60)
    assert Counter(GROUP_OF[patient] for patient in split.test) == dict.fromkeys(GROUPS, 12)
    assert Counter(GROUP_OF[patient] for patient in split.train) == dict.fromkeys(GROUPS, 2)
    assert Counter(GROUP_OF[patient] for patient in split.validation) == dict.fromkeys(GROUPS, 6)


def test_seeds_draw_different_patients() -> None:
    drawn = {draw_splits(ACDC, [0.1], seed)[0].train for seed in range(20)}
    assert len(drawn) == 20
    assert len({patient for train in drawn for patient in train}) > 60


def test_the_draw_of_a_seed_never_changes() -> None:
    (split,) = draw_splits(ACDC, [0.05], 0)
    assert split.train == ("patient005", "patient037", "patient050", "patient061", "patient096")
    assert split.hash.startswith("ccdcae7dff25")


def test_the_hash_names_fraction_seed_and_patients() -> None:
    split = Split(0.1, 0, ("a",), (), ("b", "c"))
    others = [
        Split(0.2, 0, ("a",), (), ("b", "c")),
        Split(0.1, 1, ("a",), (), ("b", "c")),
        Split(0.1, 0, ("a",), ("b",), ("c",)),
        Split(0.1, 0, ("b",), (), ("a", "c")),
    ]
    assert len({split.hash, *(other.hash for other in others)}) == 5
    assert split.hash == Split(0.1, 0, ("a",), (), ("b", "c")).hash


@pytest.mark.parametrize("fraction", [0.0, 1.01, -0.1, 10.0, float("nan")])
def test_a_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(UserError, match=r"The fraction \S+ is not above 0 and at most 1.*0\.1 for 10 %"):
        draw_splits(ACDC, [fraction], 0)


@pytest.mark.parametrize(("fraction", "test", "left"), [(0.999, None, 99), (0.9, 20, 80), (0.2, 90, 10)])
def test_too_few_patients_to_train_on(fraction: float, test: int | None, left: int) -> None:
    with pytest.raises(UserError, match=rf"of 100 patients is \d+ to train on, but testing leaves {left}"):
        draw_splits(ACDC, [fraction], 0, test)


@pytest.mark.parametrize("test", [-1, 0, 100, 500])
def test_patients_that_cannot_be_set_aside(test: int) -> None:
    with pytest.raises(UserError, match=rf"{test} patients cannot be set aside .* from 1 to 99"):
        draw_splits(ACDC, [0.1], 0, test)


ALONE = [Case("a_ED", "a", "", ""), Case("a_ES", "a", "", "")]
NOBODY = "nobody can be tested or set aside: annotate a second"


@pytest.mark.parametrize("options", [{"test_patients": 1}, {"unlabelled_patients": 1}])
def test_one_patient_cannot_be_set_aside(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=NOBODY) as caught:
        draw_splits(ALONE, [1.0], 0, **options)
    assert "from 1 to" not in caught.value.remedy


def test_patients_annotated_in_part_cannot_be_set_aside() -> None:
    with pytest.raises(UserError, match=r"there are 0 with masks .* Annotate others in full"):
        draw_splits(made_up([4]), [1.0], 0, 1, in_part={case.patient for case in made_up([4])})


def test_no_split_of_one_patient_is_advised_that_cannot_be_drawn(tmp_path: Path) -> None:
    write_cases(tmp_path, ALONE)
    with pytest.raises(UserError, match=NOBODY):
        find_fold(tmp_path, 0.1, 0)
    with pytest.raises(UserError, match=r"Draw it: ccdcseg split \S+ --fraction 1 --seed 0"):
        find_fold(tmp_path, 1, 0)
    add_splits(tmp_path, draw_splits(ALONE, [1.0], 0), ALONE, {})
    for part in ("test", "validation"):
        with pytest.raises(UserError, match=f"no patients for {part}. .*{NOBODY}"):
            part_cases(tmp_path, 0, part)
    (unknown,) = draw_splits([replace(case, patient=case.case) for case in ALONE], [0.5], 0)
    add_splits(tmp_path, [unknown], [replace(case, patient=case.case) for case in ALONE], {})
    with pytest.raises(UserError, match=f"trains on a scan of a .*{NOBODY}"):
        part_cases(tmp_path, 1, "test")


@pytest.mark.parametrize("patients", [2, 3, 4, 5, 8, 11, 40])
@pytest.mark.parametrize("part", ["test", "validation"])
@pytest.mark.parametrize("aside", [None, 1])
def test_a_split_that_is_advised_can_be_drawn_and_has_the_part(
    tmp_path: Path, patients: int, part: str, aside: int | None
) -> None:
    cases = made_up([patients])
    least = 1 / patients
    shares = [1.0] if part == "test" else [least, 1 - least, 1.0] if patients > 2 else [least, 1.0]
    add_splits(tmp_path, draw_splits(cases, shares, 0), cases, {})
    if aside:  # how many, is known from another split where that has patients for validation
        add_splits(tmp_path, draw_splits(cases, [least], 1, aside), cases, {})
    for fold, _ in enumerate(shares):
        with pytest.raises(UserError, match=f"has no patients for {part}") as caught:
            part_cases(tmp_path, fold, part)
        share = re.search(r"--fraction (\S+)", caught.value.remedy)
        if share is None:
            assert (patients, part, "third" in caught.value.remedy) == (2, "validation", True)
        else:
            number = 1 if "--test" in caught.value.remedy else None
            assert draw_splits(cases, [float(share[1])], 2, number)[0].patients[part]


def test_a_negative_seed() -> None:
    with pytest.raises(UserError, match="is negative"):
        draw_splits(ACDC, [0.1], -1)


def rare(having: str, patients: str = "abcdefghi") -> tuple[list[Case], dict[str, frozenset[int]]]:
    """Cases named like their patients, and the classes in their masks: each has a kidney, some have a cyst."""
    cases = [Case(name, name, "", "") for name in patients]
    return cases, {name: frozenset({0, 1, 2} if name in having else {0, 1}) for name in patients}


RARE = {"kidney": 1, "cyst": 2}


@pytest.mark.parametrize("having", ["t", "tv", "tx", "tvx"])
def test_a_class_has_to_be_trained_on_alone(having: str) -> None:
    cases, classes_of = rare(having, "tvx")
    check_classes(Split(0.25, 3, ("t",), ("v",), ("x",)), cases, classes_of, RARE)


@pytest.mark.parametrize("having", ["a", "ai", "abc"])
@pytest.mark.parametrize("test", [None, 2])
@pytest.mark.parametrize("unlabelled", [0, 1])
def test_a_class_that_is_not_trained_on_and_a_fraction_that_helps(
    having: str, test: int | None, unlabelled: int
) -> None:
    cases, classes_of = rare(having)

    def refused(fraction: float, seed: int, without_masks: int, aside: int | None) -> str:
        """The remedy, or nothing where the class is trained on."""
        (split,) = draw_splits(cases, [fraction], seed, aside, without_masks)
        read = {name: found for name, found in classes_of.items() if name not in split.unlabelled}
        try:
            check_classes(split, cases, read, RARE, set_aside=aside is not None)
        except UserError as error:
            return error.remedy
        return ""

    remedies = {remedy for seed in range(40) if (remedy := refused(0.2, seed, unlabelled, test))}
    assert remedies
    for remedy in remedies:
        share = re.search(r"--fraction ([\d.]+)", remedy)
        if share is None:
            assert "another seed" in remedy  # the mask of the only one who has it is not read
            continue
        aside = None if "without --test" in remedy else test
        assert not any(refused(float(share[1]), seed, 0, aside) for seed in range(40))


def test_a_class_of_those_who_are_set_aside_for_testing() -> None:
    (split,) = draw_splits([Case(name, name, "", "") for name in "abcdefghi"], [0.5], 0, 2)
    cases, classes_of = rare("".join(split.test))
    with pytest.raises(UserError, match=r"cyst, which 2 of 9 .* whatever the seed: give a smaller --test"):
        check_classes(split, cases, classes_of, RARE, set_aside=True)


def test_a_class_that_nobody_has() -> None:
    cases, classes_of = rare("")
    with pytest.raises(
        UserError, match=r"cyst, which 0 of 9 .*Annotate the class, or take it out of `labels`"
    ):
        check_classes(draw_splits(cases, [1.0], 0)[0], cases, classes_of, RARE)


def test_an_entry_is_a_fold_for_nnunet_and_more(tmp_path: Path) -> None:
    splits = draw_splits(ACDC, [0.1], 0, test_patients=85)
    (entry,) = add_splits(tmp_path, splits, ACDC, SLICES)
    (stored,) = json.loads((tmp_path / "splits_final.json").read_text())
    assert stored == entry
    assert (stored["fraction"], stored["seed"], stored["hash"]) == (0.1, 0, splits[0].hash)
    assert stored["patients"]["train"] == list(splits[0].train)
    assert stored["train"] == [case.case for case in ACDC if case.patient in splits[0].train]
    assert stored["val"] == [case.case for case in ACDC if case.patient in splits[0].validation]
    assert stored["test"] == [case.case for case in ACDC if case.patient in splits[0].test]
    assert stored["counts"] == {
        "train": {"patients": 10, "cases": 20, "slices": 200},
        "validation": {"patients": 5, "cases": 10, "slices": 100},
        "test": {"patients": 85, "cases": 170, "slices": 1700},
    }


def test_without_validation_patients_nnunet_validates_on_the_training_cases(tmp_path: Path) -> None:
    (entry,) = add_splits(tmp_path, draw_splits(ACDC, [0.1], 0), ACDC, SLICES)
    assert entry["val"] == entry["train"] != []
    assert entry["patients"]["validation"] == []
    assert entry["counts"]["validation"] == {"patients": 0, "cases": 0, "slices": 0}


def test_the_cases_of_a_part(tmp_path: Path) -> None:
    add_splits(tmp_path, draw_splits(ACDC, [0.1], 0, test_patients=85), ACDC, SLICES)
    add_splits(tmp_path, draw_splits(ACDC, [0.1], 1), ACDC, SLICES)
    entry = json.loads((tmp_path / "splits_final.json").read_text())[0]
    assert part_cases(tmp_path, 0, "test") == entry["test"]
    assert part_cases(tmp_path, 0, "validation") == entry["val"]
    assert len(part_cases(tmp_path, 1, "test")) == 180
    like = rf"ccdcseg split {tmp_path.name} --fraction 0\.1 --seed 2 --test 85$"
    with pytest.raises(UserError, match=rf"Fold 1 of \S+ has no patients for validation.*{like}"):
        part_cases(tmp_path, 1, "validation")
    assert part_folder(tmp_path, "test") == tmp_path != part_folder(tmp_path, "validation")
    for part in ("train", "val"):
        with pytest.raises(UserError, match=f"There is no part {part} of a split to measure"):
            part_cases(tmp_path, 0, part)
        with pytest.raises(UserError, match=f"There is no part {part} of a split to measure"):
            part_folder(tmp_path, part)


def test_a_split_that_is_advised_is_new_and_keeps_the_patients_for_testing(tmp_path: Path) -> None:
    for seed in (0, 1):
        add_splits(tmp_path, draw_splits(ACDC, [0.1], seed, test_patients=85), ACDC, SLICES)
    add_splits(tmp_path, draw_splits(ACDC, [1.0], 0), ACDC, SLICES)
    copy = tmp_path / "nnU-Net's.json"  # of before the splits that were drawn later
    copy.write_text(json.dumps(json.loads((tmp_path / "splits_final.json").read_text())[:1]))
    for splits, fold, words in (
        ("splits_final.json", 0, r"--fraction 0\.1 --seed 2 --test 85"),
        ("splits_final.json", 2, "--fraction 1 --seed 2"),  # who trains on everybody sets nobody aside
        (copy.name, 0, r"--fraction 0\.1 --seed 2 --test 85"),
    ):
        with pytest.raises(UserError, match=rf"{words} --unlabelled imagesTs"):
            unlabelled_split(tmp_path, tmp_path / splits, fold)
    nnunets = tmp_path / "preprocessed" / "splits_final.json"
    with pytest.raises(
        UserError, match=r"Fold all .*--fraction 1 --seed 2 .*copy splits_final\.json to .*number"
    ):
        unlabelled_split(tmp_path, nnunets, "all")
    with pytest.raises(UserError, match=r"no patients for test\. .*--fraction 0\.07 --seed 2 --test 85$"):
        part_cases(tmp_path, 2, "test")


def test_a_split_that_tears_a_patient_apart_by_the_table_of_today(tmp_path: Path) -> None:
    """Each scan was drawn as a patient of its own, before anybody said whose it is."""
    unknown = [
        Case(f"{patient}_{phase}", f"{patient}_{phase}", "", "") for patient in "abc" for phase in "12"
    ]
    (split,) = draw_splits(unknown, [0.5], 0, test_patients=1)
    add_splits(tmp_path, [split], unknown, {})
    trained, tested = split.train[0], split.test[0]
    assert part_cases(tmp_path, 0, "test") == [tested]
    write_cases(
        tmp_path, [replace(case, patient="z") if case.case in (trained, tested) else case for case in unknown]
    )
    message = (
        r"Fold 0 .* trains on a scan of z and tests on another, as cases\.csv says now.* --seed 1 --test N$"
    )
    with pytest.raises(UserError, match=message):
        part_cases(tmp_path, 0, "test")
    with pytest.raises(UserError, match=message):
        find_fold(tmp_path, 0.5, 0)


def test_the_fraction_of_all_splits_there_are(tmp_path: Path) -> None:
    assert only_fraction(tmp_path) is None
    for seed in (0, 3):
        add_splits(tmp_path, draw_splits(ACDC, [0.3], seed), ACDC, SLICES)
        assert only_fraction(tmp_path) == 0.3
    add_splits(tmp_path, draw_splits(ACDC, [0.5], 0), ACDC, SLICES)
    assert only_fraction(tmp_path) is None


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_split_of_a_patient_who_withdrew(tmp_path: Path, part: str) -> None:
    """Who was trained on is refused to be trained on again; what was measured on others stays what it is."""
    (split,) = draw_splits(ACDC, [0.1], 0, test_patients=60)
    (entry,) = add_splits(tmp_path, [split], ACDC, SLICES)
    write_cases(tmp_path, [case for case in ACDC if case.case != entry[part][0]])
    message = (
        rf"cases\.csv has no {entry[part][0]}, which fold 0 .*Restore the row; or, .*draw the split anew, or "
        rf"another seed, and train on it: ccdcseg split {tmp_path.name} --fraction 0\.1 --seed 0 --test 60 "
        r"--redraw$"
    )
    with pytest.raises(UserError, match=message):
        find_fold(tmp_path, 0.1, 0)
    for measured, name in (("test", "test"), ("val", "validation")):
        if measured == part:
            with pytest.raises(UserError, match=message):
                part_cases(tmp_path, 0, name)
        else:
            assert part_cases(tmp_path, 0, name) == entry[measured]


@pytest.mark.parametrize(("part", "option"), [("test", ""), ("validation", " --test N")])
def test_where_all_are_trained_on_half_are_advised(tmp_path: Path, part: str, option: str) -> None:
    add_splits(tmp_path, draw_splits(ACDC, [1.0], 3), ACDC, SLICES)
    with pytest.raises(UserError, match=rf"for {part}.*--fraction 0\.5 --seed 4{option}$"):
        part_cases(tmp_path, 0, part)


def test_splits_drawn_at_once_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        [*pool.map(lambda seed: add_splits(tmp_path, draw_splits(ACDC, [0.1], seed), ACDC, SLICES), range(8))]
    stored = json.loads((tmp_path / "splits_final.json").read_text())
    assert sorted(entry["seed"] for entry in stored) == [*range(8)]
    assert [path.name for path in tmp_path.iterdir()] == ["splits_final.json"]


def test_a_fraction_of_one_is_read_again_however_it_is_written(tmp_path: Path) -> None:
    add_splits(tmp_path, draw_splits(ACDC, [1], np.int64(3)), ACDC, SLICES)
    assert find_fold(tmp_path, 1, 3)[1]["fraction"] == 1.0


def test_one_patient_can_only_be_trained_on() -> None:
    cases = [Case("a", "a", "", "")]
    with pytest.raises(UserError, match=r"a second; or train on that one alone \(--fraction 1\)"):
        draw_splits(cases, [0.5], 0)
    assert draw_splits(cases, [1.0], 0)[0].train == ("a",)


def test_folds_keep_their_numbers(tmp_path: Path) -> None:
    add_splits(tmp_path, draw_splits(ACDC, [0.1, 0.2], 0), ACDC, SLICES)
    first = json.loads((tmp_path / "splits_final.json").read_text())
    add_splits(tmp_path, draw_splits(ACDC, [0.05, 0.2, 0.1], 0), ACDC, SLICES)
    add_splits(tmp_path, draw_splits(ACDC, [0.1], 1), ACDC, SLICES)
    second = json.loads((tmp_path / "splits_final.json").read_text())
    assert second[:2] == first
    assert [(entry["fraction"], entry["seed"]) for entry in second[2:]] == [(0.05, 0), (0.1, 1)]
    for fold, (fraction, seed) in enumerate([(0.1, 0), (0.2, 0), (0.05, 0), (0.1, 1)]):
        for place in (tmp_path, tmp_path / "splits_final.json"):
            assert find_fold(place, fraction, seed) == (fold, second[fold])


def test_other_patients_for_a_known_fraction_and_seed(tmp_path: Path) -> None:
    add_splits(tmp_path, draw_splits(ACDC, [0.1], 0), ACDC, SLICES)
    before = (tmp_path / "splits_final.json").read_bytes()
    with pytest.raises(
        UserError, match=r"other patients or cases for the fraction 0\.1 and seed 0.*another seed"
    ):
        add_splits(tmp_path, draw_splits(ACDC, [0.2, 0.1], 0, test_patients=70), ACDC, SLICES)
    assert (tmp_path / "splits_final.json").read_bytes() == before


def test_splits_are_drawn_again_in_their_places_where_that_is_wanted(tmp_path: Path) -> None:
    first, kept = add_splits(tmp_path, draw_splits(ACDC, [0.1, 0.05], 0), ACDC, SLICES)
    again = draw_splits(ACDC, [0.1, 0.2], 0, test_patients=70)
    entries = add_splits(tmp_path, again, ACDC, SLICES, redraw=True)
    assert entries[0]["hash"] != first["hash"]
    stored = json.loads((tmp_path / "splits_final.json").read_text())
    assert stored == [entries[0], kept, entries[1]]
    assert add_splits(tmp_path, again, ACDC, SLICES) == entries
    hashes = [stored_hash(tmp_path, fold) for fold in range(4)]
    assert hashes == [*(entry["hash"] for entry in stored), None]


@pytest.mark.parametrize(
    "content",
    [
        '[{"train": ["a"], "val": ["b"]}]',
        '{"train": ["a"], "val": ["b"]}',
        '["train"]',
    ],
)
def test_a_file_of_somebody_else_is_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "splits_final.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"splits_final\.json was not made by ccdcseg.*Move it away"):
        add_splits(tmp_path, draw_splits(ACDC, [0.1], 0), ACDC, SLICES)
    with pytest.raises(UserError, match=r"splits_final\.json was not made by ccdcseg"):
        find_fold(tmp_path, 0.1, 0)
    assert path.read_text() == content


def test_a_changed_entry_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    add_splits(tmp_path, draw_splits(ACDC, [0.1], 0), ACDC, SLICES)
    content = json.loads(path.read_text())
    content[0]["patients"]["train"].append(content[0]["patients"]["test"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="or was changed since"):
        find_fold(tmp_path, 0.1, 0)


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize(
    "change", [lambda cases: cases.pop(), lambda cases: cases.__setitem__(0, "patient100_01")]
)
def test_a_changed_list_of_cases_is_noticed(tmp_path: Path, part: str, change: Callable[..., None]) -> None:
    path = tmp_path / "splits_final.json"
    add_splits(tmp_path, draw_splits(ACDC, [0.1], 0, test_patients=85), ACDC, SLICES)
    content = json.loads(path.read_text())
    change(content[0][part])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="or was changed since"):
        part_cases(tmp_path, 0, "test")
    del content[0]["cases_hash"]  # version 0.1.0 wrote none
    path.write_text(json.dumps(content))
    part_cases(tmp_path, 0, "test")


def test_scans_that_came_later_are_in_no_old_split(tmp_path: Path) -> None:
    add_splits(tmp_path, draw_splits(ACDC, [0.1], 0), ACDC, SLICES)
    more = [*ACDC, Case("patient001_extra", "patient001", ACDC[0].group, "")]
    with pytest.raises(UserError, match=r"other patients or cases for .* Choose another seed"):
        add_splits(tmp_path, draw_splits(more, [0.1], 0), more, SLICES)


def test_a_split_that_was_never_drawn(tmp_path: Path) -> None:
    command = rf"ccdcseg split {tmp_path.name} --fraction 0\.2 --seed 1"
    with pytest.raises(UserError, match=rf"does not exist: no split of .* has been drawn.*{command}"):
        find_fold(tmp_path, 0.2, 1)
    add_splits(tmp_path, draw_splits(ACDC, [0.1, 0.05], 0), ACDC, SLICES)
    with pytest.raises(UserError, match=rf"only 0\.1 \(seed 0\), 0\.05 \(seed 0\)\. .*{command}"):
        find_fold(tmp_path, 0.2, 1)


def test_all_missing_splits_are_named_with_a_command_that_draws_them(tmp_path: Path) -> None:
    path, place = tmp_path / "splits_final.json", tmp_path.name
    wanted = [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1), (0.4, 0)]
    with pytest.raises(UserError) as caught:
        check_splits(path, wanted)
    assert caught.value.remedy == (
        f"Draw them: ccdcseg split {place} --fraction 0.1 --fraction 0.2 --seed 0 --seed 1 && "
        f"ccdcseg split {place} --fraction 0.4 --seed 0"
    )
    add_splits(tmp_path, draw_splits(ACDC, [0.1, 0.2], 0, 20), ACDC, SLICES)
    with pytest.raises(UserError) as caught:
        check_splits(path, wanted[:4])
    assert caught.value.problem.endswith("0.1 (seed 1), 0.2 (seed 1), only 0.1 (seed 0), 0.2 (seed 0).")
    assert caught.value.remedy.endswith("--fraction 0.1 --fraction 0.2 --seed 1 --test 20")
    check_splits(path, [(0.1, 0), (0.2, 0)])
    with pytest.raises(UserError) as caught:  # who trains on everybody sets nobody aside
        check_splits(path, [(0.4, 0), (1.0, 0)])
    assert caught.value.remedy == (
        f"Draw them: ccdcseg split {place} --fraction 0.4 --seed 0 --test 20 && "
        f"ccdcseg split {place} --fraction 1 --seed 0"
    )


@pytest.fixture
def raw_folder(release: Path, tmp_path: Path) -> Path:
    return prepare_acdc(release, tmp_path / "raw", 27)


def test_a_data_set_is_split(raw_folder: Path) -> None:
    entries = split_dataset(raw_folder, [0.5, 0.2], 0)
    assert [find_fold(raw_folder, entry["fraction"], 0) for entry in entries] == list(enumerate(entries))
    groups = {case.patient: case.group for case in read_cases(raw_folder)}
    assert sorted(groups[patient] for patient in entries[0]["patients"]["train"]) == GROUPS
    assert entries[0]["counts"]["train"] == {"patients": 5, "cases": 10, "slices": 30}


def test_each_mask_is_read_once_and_told(raw_folder: Path) -> None:
    told: list[tuple[int, int]] = []
    masks: dict[str, MaskFacts] = {}
    for seed in (0, 1):
        split_dataset(raw_folder, [0.5], seed, masks=masks, progress=lambda *done: told.append(done))
    count = len(read_cases(raw_folder))
    assert told == [(read, count) for read in range(1, count + 1)]


def test_fractions_that_differ_by_little_are_told_apart(tmp_path: Path) -> None:
    add_splits(tmp_path, draw_splits(ACDC, [0.3333333], 0), ACDC, SLICES)
    with pytest.raises(
        UserError, match=r"no split of fraction 0\.333333 .* only 0\.3333333 \(.*--fraction 0\.333333 "
    ):
        find_fold(tmp_path, 0.333333, 0)


def test_slices_of_sagittal_scans(raw_folder: Path, change_volume: Callable[..., None]) -> None:
    for path in (raw_folder / "labelsTr").iterdir():
        change_volume(path, spacing_mm=(1.5, 1.4, 10.0))  # of 3 x 8 x 9 voxels
    (entry,) = split_dataset(raw_folder, [0.5], 0)
    assert entry["counts"]["train"]["slices"] == 10 * 9


def relabel(raw_folder: Path, **labels: int) -> None:
    path = raw_folder / "dataset.json"
    description: dict[str, Any] = json.loads(path.read_text())
    description["labels"].update(labels)
    path.write_text(json.dumps(description))


def test_a_data_set_without_a_class(raw_folder: Path) -> None:
    relabel(raw_folder, scar=4)
    with pytest.raises(
        UserError, match=r"fraction 0\.2 with seed 0 leaves the train .* without the class scar"
    ):
        split_dataset(raw_folder, [0.2], 0)
    assert not (raw_folder / "splits_final.json").exists()


def test_a_class_that_few_patients_have(
    raw_folder: Path, change_volume: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Whom nobody is tested with is said; what nobody is trained on is refused."""
    cases = read_cases(raw_folder)
    for case in cases[2:]:
        change_volume(
            raw_folder / "labelsTr" / f"{case.case}.nii.gz", lambda array: np.where(array == 3, 2, array)
        )
    name = next(name for name, value in read_labels(raw_folder).items() if value == 3)
    drawn, refused = [], []
    for seed in range(20):
        try:
            drawn += split_dataset(raw_folder, [0.5], seed)
        except UserError as error:
            refused.append(error.problem)
    assert len(drawn) == len(caplog.messages) > 0 < len(refused)
    assert all(cases[0].patient in entry["patients"]["train"] for entry in drawn)
    seed = drawn[0]["seed"]
    assert caplog.messages[0] == (
        f"Fraction 0.5, seed {seed}: no test patient has {name}, which cannot be measured there."
    )
    assert f"without the class {name}, which 1 of 10 annotated patients have" in refused[0]


def test_a_data_set_with_an_ignore_label(raw_folder: Path) -> None:
    relabel(raw_folder, ignore=4)
    assert len(split_dataset(raw_folder, [0.2], 0)) == 1


def test_patients_annotated_in_part_are_trained_on(
    raw_folder: Path, change_volume: Callable[..., None]
) -> None:
    relabel(raw_folder, ignore=4)
    in_part = sorted({case.patient for case in read_cases(raw_folder)})[1]
    case = next(case for case in read_cases(raw_folder) if case.patient == in_part)

    def ignore(array: Any) -> None:
        array[1] = 4

    change_volume(raw_folder / "labelsTr" / f"{case.case}.nii.gz", ignore)
    whole = {
        entry["seed"]: entry for entry in (split_dataset(raw_folder, [0.4], seed)[0] for seed in range(8))
    }
    assert all(in_part in entry["patients"]["train"] for entry in whole.values())
    assert not any(in_part in entry["patients"]["test"] for entry in whole.values())


@given(
    group_sizes, st.floats(0.05, 1), st.integers(0, 99), st.integers(1, 3), st.one_of(st.none(), st.just(1))
)
@settings(deadline=None)
def test_nobody_annotated_in_part_is_tested(
    sizes: list[int], fraction: float, seed: int, count: int, test: int | None
) -> None:
    cases = made_up(sizes)
    everybody = sorted({case.patient for case in cases})
    in_part = everybody[::2][:count]
    try:
        (split,) = draw_splits(cases, [fraction], seed, test, in_part=in_part)
    except UserError as error:
        trained = max(1, round(fraction * len(everybody)))
        few = trained < len(in_part) and f"{len(in_part)} of {len(everybody)} patients have" in str(error)
        assert few or trained >= len(everybody) - (test or 0)
        return
    assert {*in_part} <= {*split.train}
    assert sorted([*split.train, *split.validation, *split.test]) == everybody


def test_a_fraction_that_would_test_where_nobody_has_drawn() -> None:
    cases = made_up([6])
    in_part = sorted({case.patient for case in cases})[:3]
    with pytest.raises(UserError, match=r"fraction 0\.2 trains on 1\. Give --fraction 0\.5 or more"):
        draw_splits(cases, [0.2], 0, in_part=in_part)
    with pytest.raises(UserError, match=r"there are \d with masks that are whole, and \d others"):
        draw_splits(cases, [1], 0, 5, in_part=in_part)


def test_a_mask_whose_link_leads_nowhere(raw_folder: Path) -> None:
    (raw_folder / "labelsTr" / "new.nii.gz").symlink_to("gone")
    with pytest.raises(UserError, match=r"labelsTr holds new, which cases\.csv lacks"):
        split_dataset(raw_folder, [0.2], 0)


def test_a_mask_whose_patient_nobody_has_said(raw_folder: Path) -> None:
    """Hidden files, and those that nnU-Net passes over, are what `check` says something of."""
    masks = raw_folder / "labelsTr"
    for name in ("._new.nii.gz", "new.txt", "new.NII.GZ"):
        (masks / name).touch()
    (kept,) = split_dataset(raw_folder, [0.2], 0)
    before = (raw_folder / "splits_final.json").read_bytes()
    for name in ("new10", "new9"):
        shutil.copy(next(masks.glob("patient*")), masks / f"{name}.nii.gz")
    for seed in (0, 1):
        message = (
            r"labelsTr holds new9, which cases\.csv lacks \(2 such masks\)\. Add a row .* take the files out"
        )
        with pytest.raises(UserError, match=message):
            split_dataset(raw_folder, [0.2], seed)
    assert (raw_folder / "splits_final.json").read_bytes() == before
    write_cases(
        raw_folder, [*read_cases(raw_folder), *(Case(new, new, "RV", "") for new in ("new9", "new10"))]
    )
    (drawn,) = split_dataset(raw_folder, [0.2], 1)
    assert sum(map(len, drawn["patients"].values())) == sum(map(len, kept["patients"].values())) + 2


def test_a_table_that_names_a_scan_that_is_not_there(raw_folder: Path) -> None:
    write_cases(raw_folder, [*read_cases(raw_folder), Case("ghost", "ghost", "RV", "ED")])
    with pytest.raises(UserError, match=r"ghost\.nii\.gz does not exist"):
        split_dataset(raw_folder, [0.2], 0)
    assert not (raw_folder / "splits_final.json").exists()
