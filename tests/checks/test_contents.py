from collections.abc import Callable
from pathlib import Path

import pytest

from ccdcseg.checks.contents import read_contents
from ccdcseg.errors import UserError


def test_a_clean_folder(raw_folder: Path) -> None:
    contents = read_contents(raw_folder)
    assert list(contents.files) == ["p1_ED", "p1_ES", "p2_ED", "p2_ES", "p3_ED", "p3_ES"]
    assert contents.files["p1_ED"].paths == [
        raw_folder / "imagesTr" / "p1_ED_0000.nii.gz",
        raw_folder / "labelsTr" / "p1_ED.nii.gz",
    ]
    assert contents.labels == {"RV": 1, "LV": 2}
    assert (contents.ignore, contents.channels, contents.declared_cases) == (None, ("MRI",), 6)
    assert contents.patients["p2_ES"] == "p2"
    assert (contents.others, contents.unlabelled, contents.synthetic) == ((), {}, False)


def test_without_a_table_every_case_is_a_patient(raw_folder: Path) -> None:
    (raw_folder / "cases.csv").unlink()
    contents = read_contents(raw_folder)
    assert (contents.table, contents.table_error) == ((), None)
    assert contents.patients["p1_ED"] == "p1_ED"


def test_an_unusable_table_is_kept_as_an_error(raw_folder: Path) -> None:
    (raw_folder / "cases.csv").write_text("case,patient\n")
    contents = read_contents(raw_folder)
    assert "columns" in str(contents.table_error)
    assert contents.patients["p1_ED"] == "p1_ED"


def test_half_cases_channels_and_other_files(raw_folder: Path) -> None:
    (raw_folder / "labelsTr" / "p1_ED.nii.gz").unlink()
    (raw_folder / "imagesTr" / "p2_ED_0000.nii.gz").unlink()
    (raw_folder / "imagesTr" / "p3_ED_0001.nii.gz").touch()
    for name in ("imagesTr/p1.nii.gz", "imagesTr/p4_0000.nii", "labelsTr/notes.txt"):
        (raw_folder / name).touch()
    (raw_folder / "imagesTs").mkdir()
    for name in ("p9_0000.nii.gz", "p9_0001.nii.gz", "._p9_0000.nii.gz", "p8.nii.gz"):
        (raw_folder / "imagesTs" / name).touch()
    contents = read_contents(raw_folder)
    assert contents.files["p1_ED"].mask is None
    assert contents.files["p2_ED"].images == {}
    assert list(contents.files["p3_ED"].images) == [0, 1]
    others = ("imagesTr/p1.nii.gz", "imagesTr/p4_0000.nii", "labelsTr/notes.txt", "imagesTs/p8.nii.gz")
    assert contents.others == others
    assert [*contents.unlabelled] == ["p9"]


def test_hidden_files_are_no_cases(raw_folder: Path) -> None:
    for name in ("imagesTr/._p1_ED_0000.nii.gz", "labelsTr/.p1.nii.gz", "labelsTr/.DS_Store"):
        (raw_folder / name).touch()
    contents = read_contents(raw_folder)
    assert len(contents.files) == 6
    assert contents.hidden == ("imagesTr/._p1_ED_0000.nii.gz", "labelsTr/.p1.nii.gz")
    assert contents.others == ()


def test_links_that_lead_nowhere_are_named(raw_folder: Path) -> None:
    names = ("imagesTr/p1_ED_0000.nii.gz", "labelsTr/p1_ED.nii.gz", "labelsTr/.hidden.nii.gz")
    for path in (raw_folder / name for name in names):
        path.unlink(missing_ok=True)
        path.symlink_to("gone")
    contents = read_contents(raw_folder)
    assert (contents.gone, "p1_ED" in contents.files) == (names[:2], False)
    for path in [*raw_folder.glob("imagesTr/*"), *raw_folder.glob("labelsTr/*")]:
        path.unlink()
        path.symlink_to("gone")
    with pytest.raises(UserError, match=r"is a link to gone, which is not there"):
        read_contents(raw_folder)


def test_the_folder_of_images_is_missing(raw_folder: Path) -> None:
    (raw_folder / "imagesTr").rename(raw_folder / "images")
    with pytest.raises(UserError, match=r"imagesTr does not exist"):
        read_contents(raw_folder)


def test_no_case_at_all(raw_folder: Path, describe_dataset: Callable[..., None]) -> None:
    describe_dataset(raw_folder, file_ending=".mha")
    with pytest.raises(UserError, match=r"holds no case.*CASE_0000\.mha"):
        read_contents(raw_folder)


def test_channels_must_be_numbered(raw_folder: Path, describe_dataset: Callable[..., None]) -> None:
    describe_dataset(raw_folder, channel_names={"1": "MRI"})
    with pytest.raises(UserError, match=r'has the "channel_names".*from 0 on'):
        read_contents(raw_folder)
