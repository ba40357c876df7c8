import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_fields import set_fields
from pydicom.uid import (
    BasicTextSRStorage,
    MediaStorageDirectoryStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from ccdcseg.datasets.dicom_folder import slices_in
from ccdcseg.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 4096, (4, 6, 7)).astype(np.uint16)


@pytest.fixture
def slices(tmp_path: Path, write_slices: Callable[..., list[Path]]) -> list[Path]:
    return write_slices(tmp_path / "scan", PIXELS)


@pytest.fixture
def folder(slices: list[Path]) -> Path:
    return slices[0].parent


def test_names_do_not_matter(folder: Path, slices: list[Path]) -> None:
    names = ["IM1", "IM2.DCM", "IM3.ima", "IM10"]
    for path, name in zip(slices, names, strict=True):
        path.rename(folder / name)
    for name in ("DICOMDIR", "dicomdir", "._IM1", ".DS_Store"):
        (folder / name).write_text("no slice")
    (folder / "more").mkdir()
    assert [path.name for path in slices_in(folder)[0]] == names
    assert slices_in(folder)[1] == []


def test_a_slice_whose_link_leads_nowhere_is_not_left_out(folder: Path, slices: list[Path]) -> None:
    slices[-1].rename(folder.parent / "elsewhere")
    slices[-1].symlink_to("gone")
    with pytest.raises(UserError, match=r"is a link to gone, which is not there\."):
        slices_in(folder)


@pytest.mark.parametrize(
    "kind", [SegmentationStorage, BasicTextSRStorage, RTStructureSetStorage, MediaStorageDirectoryStorage]
)
def test_other_things_than_images_are_left_out_and_named(folder: Path, slices: list[Path], kind: str) -> None:
    shutil.copy(slices[0], folder / "other")
    set_fields(folder / "other", SOPClassUID=kind)
    found, notes = slices_in(folder)
    assert (found, [note.split(",")[0] for note in notes]) == (slices, ["files that are no images"])
    assert slices_in(folder, [folder / ".." / "scan" / "other"]) == (slices, [])


def test_localizers_are_left_out_beside_other_images(folder: Path, slices: list[Path]) -> None:
    set_fields(slices[1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    found, notes = slices_in(folder)
    assert found == [slices[0], *slices[2:]]
    assert notes == ["localizers were left out of its folder"]
    for path in slices:
        set_fields(path, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert slices_in(folder) == (slices, [])


def test_exact_copies_are_left_out(folder: Path, slices: list[Path]) -> None:
    shutil.copy(slices[1], folder / "z copy.dcm")
    assert slices_in(folder) == (slices, ["exact copies of slices were left out of its folder"])
    set_fields(folder / "z copy.dcm", PatientComments="edited")
    assert slices_in(folder) == ([*slices, folder / "z copy.dcm"], [])


def test_slices_of_no_identifier_are_no_copies(folder: Path, slices: list[Path]) -> None:
    for path in slices:
        set_fields(path, SOPInstanceUID=None)
    assert slices_in(folder) == (slices, [])


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", "README.TXT", "IM1.jpg"])
def test_a_file_whose_suffix_no_slice_has_is_left_out_and_named(
    folder: Path, slices: list[Path], name: str
) -> None:
    (folder / name).write_text("no slice")
    found, notes = slices_in(folder)
    assert (found, [note.split(",")[0] for note in notes]) == (slices, ["files that are no images"])


@pytest.mark.parametrize("name", ["readme", "copy.DCM", "1.2.840.7"])
def test_what_may_be_a_damaged_slice_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("notes")
    with pytest.raises(UserError, match=rf"{name} is no DICOM file\. .*take it out of the folder"):
        slices_in(folder)


def test_slices_of_before_part_10(folder: Path, slices: list[Path]) -> None:
    for path in slices:
        path.write_bytes(path.read_bytes()[132:])
    with pytest.raises(UserError, match=r"is no DICOM file\. .*If other programs read it: .*dcm2niix"):
        slices_in(folder)


def test_slices_of_the_series_in_a_folder_below(folder: Path, slices: list[Path]) -> None:
    """An export may put the rest of a series there: half a scan was taken for all of it."""
    for path in slices:
        set_fields(path, SeriesInstanceUID="1.2.3")
    (folder / "more" / "deeper").mkdir(parents=True)
    shutil.copy(slices[0], folder / "more" / "copy")
    assert slices_in(folder)[0] == slices
    slices[-1].rename(folder / "more" / "deeper" / "rest")
    with pytest.raises(
        UserError, match=r"deeper/rest is of the same series .* \(1 such files\)\. Put all slices"
    ):
        slices_in(folder)
    assert slices_in(folder, [folder / "more" / "deeper" / "rest"])[0] == slices[:-1]


def test_other_series_in_a_folder_below(folder: Path, slices: list[Path]) -> None:
    (folder / "more").mkdir()
    slices[-1].rename(folder / "more" / "rest")
    (folder / "more" / "plugin").symlink_to("nowhere")
    for path in slices[:2]:
        set_fields(path, SeriesInstanceUID=None)
    set_fields(folder / "more" / "rest", SeriesInstanceUID=None)
    assert slices_in(folder) == (slices[:-1], [])


def test_slices_one_level_deeper(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=rf"holds no DICOM slice\. Give the folder .* such as {folder}"):
        slices_in(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no DICOM slice\. Copy the slices there"):
        slices_in(tmp_path / "empty")
