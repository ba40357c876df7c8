"""Scans without masks: which are found, whose they are, and which may take part in a split."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.datasets.cases import Case, read_cases, read_unlabelled_cases, write_unlabelled_cases
from ccdcseg.datasets.raw_folder import assign_patients
from ccdcseg.datasets.splits import (
    draw_splits,
    find_fold,
    split_dataset,
    split_entry,
    unlabelled_images,
    unlabelled_split,
    unread_cases,
)
from ccdcseg.datasets.unlabelled import Kind, ScanFacts, UnlabelledFolder, read_unlabelled
from ccdcseg.errors import UserError

CASES = [Case(f"p{n}_{phase}", f"p{n}", "ab"[n % 2], phase) for n in range(20) for phase in ("ED", "ES")]


@pytest.fixture
def with_scans(raw_folder: Path) -> Path:
    """Four scans without masks in imagesTs, two of an annotated patient."""
    (raw_folder / "imagesTs").mkdir()
    source = raw_folder / "imagesTr" / "p1_ED_0000.nii.gz"
    for name in ("p1_10", "p1_11", "new_00", "other_00"):
        shutil.copy(source, raw_folder / "imagesTs" / f"{name}_0000.nii.gz")
    return raw_folder


@given(st.integers(0, 50), st.integers(1, 14), st.sampled_from([None, 4]))
def test_parts_share_nobody_and_miss_nobody(seed, unlabelled, test):
    (split,) = draw_splits(CASES, [0.1], seed, test, unlabelled)
    parts = split.patients
    assert sorted(patient for part in parts.values() for patient in part) == sorted(
        {c.patient for c in CASES}
    )
    assert len(parts["unlabelled"]) == unlabelled
    (without,) = draw_splits(CASES, [0.1], seed, test)
    assert parts["train"] == without.patients["train"]
    if test:
        assert parts["test"] == without.patients["test"]


def test_too_many_of_them():
    with pytest.raises(
        UserError, match=r"17 patients cannot .* without their masks, 16 are left .*--unlabelled"
    ):
        draw_splits(CASES, [0.15], 0, None, 17)


def test_everybody_can_be_trained_on():
    (split,) = draw_splits(CASES, [1.0], 0)
    assert len(split.train) == 20
    assert split.test == ()


def test_patients_of_the_data_set(raw_folder: Path):
    for case in ("p1", "p2", "p3"):
        assert (raw_folder / "labelsTr" / f"{case}_ED.nii.gz").exists()
    (entry,) = split_dataset(raw_folder, [0.33], 0, unlabelled=1)
    (patient,) = entry["patients"]["unlabelled"]
    cases = [f"{patient}_ED", f"{patient}_ES"]
    assert entry["unlabelled"] == {"images": "imagesTr", "cases": cases}
    assert unread_cases(raw_folder) == {*cases}
    fold, _ = find_fold(raw_folder, 0.33, 0)
    images = unlabelled_split(raw_folder, raw_folder / "splits_final.json", fold).images
    assert images == {case: [raw_folder / "imagesTr" / f"{case}_0000.nii.gz"] for case in cases}


def test_slices_are_counted_where_masks_are_read_alone():
    """A mask that another split of the same draw reads counts no slice of this one."""
    (split,) = draw_splits(CASES, [0.1], 0, 4, 3)
    counts = split_entry(split, CASES, {case.case: 7 for case in CASES})["counts"]
    assert counts["unlabelled"] == {"patients": 3, "cases": 6}
    assert counts["train"] == {"patients": 2, "cases": 4, "slices": 28}


def test_a_split_with_other_scans_without_masks(with_scans: Path):
    """For training, validation and testing it has the same patients."""
    split_dataset(with_scans, [1.0], 0, unlabelled="imagesTs")
    shutil.copy(with_scans / "imagesTs" / "p1_10_0000.nii.gz", with_scans / "imagesTs" / "more_0000.nii.gz")
    about = (
        r"has other scans without masks for the fraction 1 and seed 0: its fold 0 was drawn with 4 of them, "
    )
    for scans, differing in (
        ("imagesTs", r"today there are 5 \(differing: imagesTs/more\)"),
        (None, r"today there are 0 \(differing: imagesTs/new_00\)"),
    ):
        with pytest.raises(UserError, match=rf"{about}{differing}\. Choose another seed, or .*--redraw"):
            split_dataset(with_scans, [1.0], 0, unlabelled=scans)


def test_a_split_whose_scans_without_masks_are_of_somebody_else(with_scans: Path):
    """The patient of one is measured, as is said later."""
    seed = next(s for s in range(20) if draw_splits(read_cases(with_scans), [0.33], s)[0].train == ("p2",))
    for patient in ("p2", "p1"):
        rows = [Case(name, "new", "", "") for name in ("new_00", "other_00", "p1_10")]
        write_unlabelled_cases(with_scans, {"imagesTs": [*rows, Case("p1_11", patient, "", "")]})
        if patient == "p2":
            split_dataset(with_scans, [0.33], seed, unlabelled="imagesTs")
    with pytest.raises(UserError, match=r"4 of them, today there are 4 \(differing: imagesTs/p1_11\)"):
        split_dataset(with_scans, [0.33], seed, unlabelled="imagesTs")


def test_a_scan_that_was_taken_out_of_its_folder(with_scans: Path):
    """The command that is advised draws without it."""
    split_dataset(with_scans, [1.0], 0, unlabelled="imagesTs")
    (with_scans / "imagesTs" / "new_00_0000.nii.gz").unlink()
    splits = with_scans / "splits_final.json"
    with pytest.raises(
        UserError,
        match=r"Fold 0 of .* names a scan that is gone: .*new_00_0000\.nii\.gz does not exist\. Put it back, or "
        r".*: ccdcseg split Dataset007_Small --fraction 1 --seed 0 --unlabelled imagesTs --redraw$",
    ):
        unlabelled_split(with_scans, splits, 0)
    assert "new_00" in unlabelled_images(with_scans, splits, 0)
    split_dataset(with_scans, [1.0], 0, unlabelled="imagesTs", redraw=True)
    assert "new_00" not in unlabelled_split(with_scans, splits, 0).images


def test_an_image_of_a_patient_without_masks_that_is_gone(raw_folder: Path):
    (entry,) = split_dataset(raw_folder, [0.33], 0, unlabelled=1)
    (raw_folder / "imagesTr" / f"{entry['unlabelled']['cases'][0]}_0000.nii.gz").unlink()
    with pytest.raises(UserError, match=r"--fraction 0\.33 --seed 0 --unlabelled 1 --redraw$"):
        unlabelled_split(raw_folder, raw_folder / "splits_final.json", 0)


def test_their_masks_are_not_read_by_the_split(raw_folder: Path):
    expected = split_dataset(raw_folder, [0.33], 0, unlabelled=1)
    for case in expected[0]["unlabelled"]["cases"]:
        (raw_folder / "labelsTr" / f"{case}.nii.gz").write_bytes(b"garbage")
    assert split_dataset(raw_folder, [0.33], 0, unlabelled=1) == expected


def test_a_folder_whose_scans_nobody_knows(with_scans: Path):
    with pytest.raises(
        UserError, match=r"Whose scan new_00 of imagesTs is, .* ccdcseg patients DATASET --images"
    ):
        split_dataset(with_scans, [0.33], 0, unlabelled=Path("imagesTs"))
    (entry,) = split_dataset(with_scans, [1.0], 0, unlabelled=Path("imagesTs"))
    assert entry["unlabelled"]["cases"] == ["new_00", "other_00", "p1_10", "p1_11"]


def test_scans_of_measured_patients_are_left_out_by_name(with_scans: Path):
    assign_patients(with_scans, "{patient}_{phase}", images=Path("imagesTs"))
    assert [case.patient for case in read_unlabelled_cases(with_scans)["imagesTs"]] == [
        "new",
        "other",
        "p1",
        "p1",
    ]
    seed = next(s for s in range(20) if draw_splits(read_cases(with_scans), [0.33], s)[0].train == ("p2",))
    (entry,) = split_dataset(with_scans, [0.33], seed, unlabelled="imagesTs")
    assert entry["unlabelled"]["cases"] == ["new_00", "other_00"]
    assert entry["unlabelled"]["left_out"] == {"p1_10": "p1", "p1_11": "p1"}


def test_scans_of_a_trained_patient_take_part(with_scans: Path):
    assign_patients(with_scans, "{patient}_{phase}", images=Path("imagesTs"))
    seed = next(s for s in range(20) if draw_splits(read_cases(with_scans), [0.33], s)[0].train == ("p1",))
    (entry,) = split_dataset(with_scans, [0.33], seed, unlabelled=Path("imagesTs"))
    assert entry["unlabelled"]["cases"] == ["new_00", "other_00", "p1_10", "p1_11"]


def test_their_patients_are_written_as_the_annotated_ones(with_scans: Path):
    for name in ("1_10_0000.nii.gz", "1_11_0000.nii.gz"):
        (with_scans / "imagesTs" / f"p{name}").rename(with_scans / "imagesTs" / f"P{name}")
    with pytest.raises(UserError, match=r"P1 and p1 differ by capitals alone"):
        assign_patients(with_scans, "{patient}_{phase}", images=Path("imagesTs"))
    (with_scans / "cases.csv").unlink()
    assign_patients(with_scans, "{patient}_{phase}", images=Path("imagesTs"))
    with pytest.raises(UserError, match=r"P1 and p1 differ by capitals alone"):
        assign_patients(with_scans, "{patient}_{phase}")
    assert not (with_scans / "cases.csv").exists()


def test_nobody_else_is_left():
    folder = UnlabelledFolder("imagesTs", {"a_1": "a"})
    with pytest.raises(UserError, match=r"holds scans of test and validation patients alone"):
        folder.usable({"train": ["b"], "validation": [], "test": ["a"]})


def test_a_scan_that_got_its_mask_is_left_out(with_scans: Path, change_volume):
    """Copied to imagesTr beside its mask, as it is or compressed otherwise; another scan of the name is not it."""
    images = with_scans / "imagesTs"
    for name in ("p1_ES", "p2_ED", "p3_ED"):
        shutil.copy(with_scans / "imagesTr" / f"{name}_0000.nii.gz", images)
    packed = images / "p2_ED_0000.nii.gz"
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()), 1))
    change_volume(images / "p3_ED_0000.nii.gz", lambda array: array.__iadd__(1))
    scans = split_dataset(with_scans, [1.0], 0, unlabelled="imagesTs")[0]["unlabelled"]
    assert scans["cases"] == ["new_00", "other_00", "p1_10", "p1_11", "p3_ED"]
    assert scans["left_out"] == {"p1_ES": None, "p2_ED": None}


def test_whose_an_annotated_scan_is_need_not_be_said(raw_folder: Path):
    (raw_folder / "imagesTs").mkdir()
    shutil.copy(raw_folder / "imagesTr" / "p1_ED_0000.nii.gz", raw_folder / "imagesTs")
    with pytest.raises(UserError, match=r"imagesTs holds scans with masks in labelsTr alone\. Add scans"):
        split_dataset(raw_folder, [0.33], 0, unlabelled="imagesTs")


def test_any_folder(with_scans: Path, tmp_path: Path):
    elsewhere = shutil.move(with_scans / "imagesTs", tmp_path / "plain scans")
    found = read_unlabelled(with_scans, Path(elsewhere))
    assert found.name == str(elsewhere)
    (entry,) = split_dataset(with_scans, [1.0], 3, unlabelled=Path(elsewhere))
    images = unlabelled_split(with_scans, with_scans / "splits_final.json", 0).images
    assert images["new_00"] == [elsewhere / "new_00_0000.nii.gz"]
    assert entry["unlabelled"]["images"] == str(elsewhere)


def test_a_name_says_nothing_of_a_scan_in_another_folder(with_scans: Path, tmp_path: Path):
    assign_patients(with_scans, "{patient}_{phase}", images=Path("imagesTs"))
    other = shutil.copytree(with_scans / "imagesTs", tmp_path / "other" / "imagesTs")
    with pytest.raises(UserError, match=r"Whose scan new_00 of .*other/imagesTs is, is not known"):
        split_dataset(with_scans, [0.33], 0, unlabelled=other)
    assign_patients(with_scans, "{}_{patient}", images=other)
    assert {*read_unlabelled(with_scans, other).patients.values()} == {"00", "10", "11"}
    assert {*read_unlabelled(with_scans, Path("imagesTs")).patients.values()} == {"new", "other", "p1"}
    with pytest.raises(UserError, match=r"unlabelled\.csv is there and says something else"):
        assign_patients(with_scans, "{patient}_{phase}", images=other)


def test_a_folder_that_became_a_link_is_known(with_scans: Path, tmp_path: Path):
    assign_patients(with_scans, "{patient}_{phase}", images=Path("imagesTs"))
    moved = shutil.move(with_scans / "imagesTs", tmp_path / "elsewhere")
    (with_scans / "imagesTs").symlink_to(moved)
    assert {*read_unlabelled(with_scans, Path("imagesTs")).patients.values()} == {"new", "other", "p1"}


def test_a_folder_that_is_a_link_goes_by_its_own_name(with_scans: Path, tmp_path: Path):
    """The data set is copied to a machine where the link leads elsewhere."""
    places = [tmp_path / "disk", tmp_path / "other disk"]
    shutil.move(with_scans / "imagesTs", places[0])
    (with_scans / "imagesTs").symlink_to(places[0])
    for images in (Path("imagesTs"), with_scans / "imagesTs"):
        assert read_unlabelled(with_scans, images).name == "imagesTs"
    assign_patients(with_scans, "{patient}_{phase}", images=Path("imagesTs"))
    (entry,) = split_dataset(with_scans, [0.33], 0, unlabelled="imagesTs")
    places[0].rename(places[1])
    (with_scans / "imagesTs").unlink()
    (with_scans / "imagesTs").symlink_to(places[1])
    assert split_dataset(with_scans, [0.33], 0, unlabelled="imagesTs") == [entry]
    assert unlabelled_split(with_scans, with_scans / "splits_final.json", 0).images


def test_a_split_that_names_what_a_link_leads_to_stays(with_scans: Path, tmp_path: Path):
    """As earlier versions stored it."""
    place = shutil.move(with_scans / "imagesTs", tmp_path / "disk")
    (old,) = split_dataset(with_scans, [1.0], 0, unlabelled=place)
    (with_scans / "imagesTs").symlink_to(place)
    assert split_dataset(with_scans, [1.0], 0, unlabelled="imagesTs") == [old]
    assert old["unlabelled"]["images"] == str(place)


def test_no_such_folder_and_nothing_in_it(raw_folder: Path):
    with pytest.raises(
        UserError, match=r"imagesTs is no folder\. Put scans without masks there, or name another"
    ):
        read_unlabelled(raw_folder, Path("imagesTs"))
    (raw_folder / "imagesTs").mkdir()
    (raw_folder / "imagesTs" / "._p1_0000.nii.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no scan named like CASE_0000\.nii\.gz"):
        read_unlabelled(raw_folder, Path("imagesTs"))


@pytest.mark.parametrize("place", ["imagesTs", "labelsTr"])
def test_a_folder_that_cannot_be_listed_is_not_empty(with_scans: Path, close, place: str):
    close(with_scans / place)
    with pytest.raises(UserError, match=rf"/{place} cannot be read \(Permission denied\)"):
        split_dataset(with_scans, [1.0], 0, unlabelled="imagesTs")


@pytest.mark.parametrize(
    "name",
    [
        *("u_0000.NII.GZ", "u_0000.nii", "new_00_0000.nii", "u.nii.gz", "new_00.nii.gz", "u_0001.nii.gz"),
        *("u_0000.mha", "u.NRRD", "u_0000.hdr"),
    ],
)
def test_a_scan_that_is_named_otherwise(with_scans: Path, name: str):
    (with_scans / "imagesTs" / "notes.txt").touch()
    (with_scans / "imagesTs" / name).touch()
    with pytest.raises(UserError, match=rf"{name} belongs to no scan .* CASE_0000\.nii\.gz \(1 such files\)"):
        read_unlabelled(with_scans, Path("imagesTs"))


def test_further_channels_are_left_alone(with_scans: Path):
    (with_scans / "imagesTs" / "new_00_0001.nii.gz").touch()
    assert [*read_unlabelled(with_scans, Path("imagesTs")).patients] == [
        "new_00",
        "other_00",
        "p1_10",
        "p1_11",
    ]


def test_a_missing_channel_is_named(with_scans: Path):
    dataset = (with_scans / "dataset.json").read_text().replace('"0": "MRI"', '"0": "MRI", "1": "CT"')
    (with_scans / "dataset.json").write_text(dataset)
    with pytest.raises(UserError, match=r"The scan new_00 .* has no channel 1 \(CT\): no new_00_0001"):
        read_unlabelled(with_scans, Path("imagesTs"))


def test_a_scan_whose_link_leads_nowhere_is_named(with_scans: Path):
    (with_scans / "imagesTs" / "new_00_0000.nii.gz").unlink()
    (with_scans / "imagesTs" / "new_00_0000.nii.gz").symlink_to("gone")
    with pytest.raises(UserError, match=r"new_00_0000\.nii\.gz is a link to gone, which is not there"):
        read_unlabelled(with_scans, Path("imagesTs"))


def test_a_table_that_says_something_else_is_kept(with_scans: Path):
    write_unlabelled_cases(with_scans, {"imagesTs": [Case("new_00", "somebody", "", "")]})
    with pytest.raises(UserError, match=r"unlabelled\.csv is there and says something else"):
        assign_patients(with_scans, "{patient}_{phase}", images=Path("imagesTs"))


PREPARED = [Case("new_00", "new", "sick", "00"), Case("other_00", "other", "well", "00")]
ELSEWHERE = [Case("new_00", "nobody", "", "")]


@pytest.fixture
def added_to(with_scans: Path) -> Path:
    """Three scans were added to imagesTs after ``prepare`` had said whose all were, one of "new", two of "p1"."""
    images = with_scans / "imagesTs"
    shutil.copy(images / "new_00_0000.nii.gz", images / "new_01_0000.nii.gz")
    write_unlabelled_cases(with_scans, {"/elsewhere": ELSEWHERE, "imagesTs": PREPARED})
    return with_scans


def test_scans_that_were_added_join_the_rows_that_are_there(added_to: Path):
    found = assign_patients(added_to, "{patient}_{phase}", images=Path("imagesTs"))
    added = [Case("new_01", "new", "sick", "01"), *(Case(f"p1_{n}", "p1", "", n) for n in ("10", "11"))]
    assert found == [*PREPARED, *added]
    assert read_unlabelled_cases(added_to) == {"/elsewhere": ELSEWHERE, "imagesTs": found}
    assert assign_patients(added_to, "{patient}_{phase}", images=Path("imagesTs")) == found
    assert assign_patients(added_to, "{patient}_{}", images=Path("imagesTs")) == found


@pytest.mark.parametrize("name", ["one_of_two_00", "plain"])
def test_rows_of_scans_that_a_pattern_does_not_fit_stay(added_to: Path, name: str):
    images = added_to / "imagesTs"
    shutil.copy(images / "new_00_0000.nii.gz", images / f"{name}_0000.nii.gz")
    with pytest.raises(UserError, match=rf"fits? (the case )?{name}"):
        assign_patients(added_to, "{patient}_{phase}", images=Path("imagesTs"))
    rows = [*PREPARED, Case(name, "somebody", "well", "")]
    write_unlabelled_cases(added_to, {"imagesTs": rows})
    assert assign_patients(added_to, "{patient}_{phase}", images=Path("imagesTs"))[:3] == rows


def test_a_table_of_the_scans_that_were_added(added_to: Path):
    table = added_to / "added.csv"
    table.write_text("case,patient\np1_10,p1\np1_11,p1\n")
    with pytest.raises(UserError, match=r"added\.csv has no case new_01 \(1 are missing\)"):
        assign_patients(added_to, table=table, images=Path("imagesTs"))
    table.write_text(table.read_text() + "new_01,new\nother_00,other\n")
    found = assign_patients(added_to, table=table, images=Path("imagesTs"))
    assert [(case.case, case.group) for case in found] == [
        ("new_00", "sick"), ("other_00", "well"), ("new_01", "sick"), ("p1_10", ""), ("p1_11", ""),
    ]  # fmt: skip


def test_rows_of_a_folder_that_became_a_link_are_kept_once(added_to: Path, tmp_path: Path):
    write_unlabelled_cases(added_to, {"imagesTs": PREPARED})
    moved = shutil.move(added_to / "imagesTs", tmp_path / "elsewhere")
    (added_to / "imagesTs").symlink_to(moved)
    found = assign_patients(added_to, "{patient}_{phase}", images=Path("imagesTs"))
    (rows,) = read_unlabelled_cases(added_to).values()
    assert rows == found
    assert len(found) == 5


@pytest.mark.parametrize("pattern", ["{}_{patient}", "{patient}_{group}", "{patient}_{phase}0"])
def test_rows_that_are_contradicted_are_kept(added_to: Path, pattern: str):
    for name in ("new_01", "p1_10", "p1_11"):
        (added_to / "imagesTs" / f"{name}_0000.nii.gz").unlink()
    before = (added_to / "unlabelled.csv").read_text()
    with pytest.raises(UserError, match=r"unlabelled\.csv is there and says something else of new_00\."):
        assign_patients(added_to, pattern, images=Path("imagesTs"))
    assert (added_to / "unlabelled.csv").read_text() == before


def facts(negative=0.0, spacing=(10.0, 1.5, 1.5)) -> ScanFacts:
    return ScanFacts((negative,), spacing)


MR, CT = Kind((facts(), facts(0.002, (5.0, 1.0, 1.0)))), Kind((facts(0.6), facts(0.4)))


def test_facts_of_a_scan():
    channel = np.array([[[-1.0, 0.0, 2.0, 3.0]]])
    assert ScanFacts.of([channel], [10, 1.5, 1.5]) == facts(0.25)


@pytest.mark.parametrize(
    ("kind", "scan"), [(MR, facts(0.15)), (CT, facts(0.05)), (MR, facts(0, (1.5, 1.5, 12.0)))]
)
def test_scans_of_the_kind_are_taken(kind, scan):
    kind.check("new", scan)


@pytest.mark.parametrize(("kind", "scan"), [(MR, facts(0.5)), (CT, facts(0.001))])
def test_another_modality_is_refused_by_name(kind, scan):
    with pytest.raises(
        UserError, match=r"of the voxels of the scan new \(channel 0\) .* looks like another modality"
    ):
        kind.check("new", scan)


def test_another_spacing_is_refused_by_name():
    with pytest.raises(
        UserError, match=r"The scan new has voxels of 10 x 10 x 10 mm.* 1 to 1\.5 mm where it has 10"
    ):
        MR.check("new", facts(0, (10.0, 10.0, 10.0)))
