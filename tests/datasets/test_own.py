import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_fields import set_fields

from ccdcseg.checks.contents import read_contents
from ccdcseg.datasets.cases import (
    Case,
    read_cases,
    read_channels,
    read_ignore_label,
    read_labels,
    read_unlabelled_cases,
)
from ccdcseg.datasets.chaos import CT_LABELS, prepare_chaos_ct
from ccdcseg.datasets.dicom import read_series
from ccdcseg.datasets.own import Layout, OwnData, prepare_own, scans_by_table
from ccdcseg.datasets.release import read_notes
from ccdcseg.datasets.volumes import Volume, check_channels, read_image, read_mask, write_volume
from ccdcseg.errors import UserError

DATA = OwnData("Own", {"liver": 1, "tumour": 2}, ["MRI"])
TWO = OwnData("Own", DATA.labels, ["T1", "T2"])
LAYOUT = Layout(("{patient}/{phase}.nii.gz",), "masks/{patient}_{phase}.nii.gz")
SHAPE, SPACING = (3, 5, 6), (6.0, 1.5, 1.25)
NAMES = [("anna", "pre"), ("anna", "post"), ("bert", "pre")]


def pixels(*seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)


def labels(first: int = 1, second: int = 2) -> np.ndarray:
    mask = np.zeros(SHAPE, np.int16)
    mask[:, 1:3, 1:3], mask[1:, 3:, 4:] = first, second
    return mask


def put(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = SPACING) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, Volume(path, array, spacing, (3.0, -4.0, 5.0)))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three scans of two patients, their masks, and a file that belongs to nobody."""
    root = tmp_path / "scans"
    for number, (patient, phase) in enumerate(NAMES):
        put(root / patient / f"{phase}.nii.gz", pixels(number))
        put(root / "masks" / f"{patient}_{phase}.nii.gz", labels())
    (root / "notes.txt").write_text("nothing")
    return root


@pytest.fixture
def prepare(tmp_path: Path, source: Path) -> Callable[..., Path]:
    def run(data: OwnData = DATA, found_by: Layout | Path = LAYOUT, **options: Any) -> Path:
        return prepare_own(source, tmp_path / "raw", 7, data, found_by, workers=1, **options)

    return run


@pytest.fixture
def refused(prepare: Callable[..., Path], tmp_path: Path) -> Callable[..., None]:
    def run(message: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(UserError, match=message):
            prepare(*arguments, **options)
        assert not (tmp_path / "raw").exists() or not any((tmp_path / "raw").iterdir())

    return run


def write_table(path: Path, columns: str, *rows: str) -> Path:
    path.write_text("\n".join([columns, *rows]))
    return path


def test_scans_found_by_patterns(prepare: Callable[..., Path], source: Path) -> None:
    folder = prepare()
    assert folder.name == "Dataset007_Own"
    assert read_cases(folder) == [
        Case("anna_post", "anna", "", "post"),
        Case("anna_pre", "anna", "", "pre"),
        Case("bert_pre", "bert", "", "pre"),
    ]
    assert (read_labels(folder), read_channels(folder)) == (DATA.labels, ("MRI",))
    image = read_image(folder / "imagesTr" / "anna_post_0000.nii.gz")
    stored = read_image(source / "anna" / "post.nii.gz")
    np.testing.assert_array_equal(image.array, pixels(1))
    np.testing.assert_allclose(image.affine, stored.affine)
    np.testing.assert_array_equal(
        read_mask(folder / "labelsTr" / "anna_post.nii.gz", DATA.labels).array, labels()
    )


def test_folders_and_tables_may_be_strings(source: Path, tmp_path: Path) -> None:
    table = write_table(
        tmp_path / "t.csv", "image,mask,patient", "anna/pre.nii.gz,masks/anna_pre.nii.gz,anna"
    )
    for found_by, dataset_id in ((LAYOUT, 8), (str(table), 9)):
        folder = prepare_own(str(source), str(tmp_path / "raw"), dataset_id, DATA, found_by)
        assert folder.parent == tmp_path / "raw"
        assert (folder / "labelsTr").is_dir()


def test_a_single_string_is_one_entry() -> None:
    assert Layout(LAYOUT.images[0], LAYOUT.mask) == LAYOUT
    assert OwnData("Hearts", {"heart": 1}, "MRI") == OwnData("Hearts", {"heart": 1}, ["MRI"])


def test_slashes_that_say_nothing() -> None:
    layout = Layout(("./{patient}//{phase}.nii.gz/",), "./masks/{patient}_{phase}.nii.gz")
    assert layout == LAYOUT
    assert Layout(("{patient}/CT/",), None) == Layout(("{patient}/CT",), None)


@pytest.mark.parametrize("image", ["/scans/{patient}/{phase}.nii.gz", "{patient}/*/{phase}.nii.gz"])
def test_patterns_that_a_shell_would_take(refused: Callable[..., None], image: str) -> None:
    refused(r"fits the pattern .* begins below that folder, .* \*", DATA, Layout((image,), LAYOUT.mask))


def test_what_looks_like_a_scan_and_fits_no_pattern_is_named(
    prepare: Callable[..., Path], source: Path
) -> None:
    (source / "bert" / "old").mkdir()
    (source / "bert" / "pre.nii.gz").rename(source / "bert" / "old" / "pre.nii.gz")
    (source / "masks" / "bert_pre.nii.gz").rename(source / "masks" / "bert-pre.NRRD")
    assert read_notes(prepare()) == {
        "2 more look like scans, fit no pattern and were passed over": [
            "bert/old/pre.nii.gz",
            "masks/bert-pre.NRRD",
        ]
    }


def test_scans_in_forms_that_are_not_read_are_named(
    prepare: Callable[..., Path], source: Path, write_slices: Callable[..., list[Path]]
) -> None:
    names = ["carl/pre.MHA", "dora/pre.mhd", "emil/pre.hdr", "fred/pre.mgz"]
    for name in (*names, "dora/pre.raw", "emil/pre.img", "fred/letter.pdf", "fred/._pre.mha"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).touch()
    write_slices(source / "gert" / "CT", pixels(1))
    assert [*read_notes(prepare()).values()] == [[*names, "gert/CT"]]


def test_scans_that_are_packed_or_half_loaded_are_named(prepare: Callable[..., Path], source: Path) -> None:
    names = [
        "carl.zip",
        "dora/pre.nii.gz.part",
        "dora/pre.nii.zip",
        "emil/pre.NII~",
        "emil/pre.nii.gz.1",
        "fred/1.dcm.gz",
        "gert.tar.gz",
        "hans.7z.crdownload",
    ]
    for name in (*names, "gert/zip", "gert/pre.json", "hans/letter.niice.pdf"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).touch()
    assert [*read_notes(prepare()).values()] == [names, ["gert", "hans"]]


def test_folders_of_patients_without_a_scan_are_named(prepare: Callable[..., Path], source: Path) -> None:
    bare = ["carl", "dora"]
    for name in bare:
        (source / name / "deeper").mkdir(parents=True)
    note = "2 more folders fit a pattern as far as {patient}, and no scan was found in them"
    assert read_notes(prepare()) == {note: bare}


def test_a_folder_whose_patient_and_phase_are_not_told_apart_is_named(tmp_path: Path) -> None:
    root = tmp_path / "scans"
    put(root / "anna_pre" / "image.nii.gz", pixels())
    (root / "bert_van_pre").mkdir()
    (root / "report").mkdir()
    layout = Layout(("{patient}_{phase}/image.nii.gz",), None)
    data = OwnData("Own", DATA.labels, ["MRI"], unlabelled=True)
    folder = prepare_own(root, tmp_path / "raw", 7, data, layout, workers=1)
    assert [*read_notes(folder).values()] == [["bert_van_pre"]]


def test_scans_without_masks_that_may_be_masks_are_named(prepare: Callable[..., Path], source: Path) -> None:
    """A pattern of images that fits the masks beside them as well would make patients of them."""
    layout = Layout(("{patient}/{phase}.nii.gz",), None)
    folder = prepare(OwnData("Own", DATA.labels, ["MRI"], unlabelled=True), layout)
    note = "channel 0 has so few values in its middle slice that it may be a mask"
    masks = [f"masks_{path.name.removesuffix('.nii.gz')}" for path in (source / "masks").iterdir()]
    assert {note: sorted(read_notes(folder)[note])} == {note: sorted(masks)}


def test_what_lies_in_data_sets_of_nnunet_is_not_named(prepare: Callable[..., Path], source: Path) -> None:
    put(source / "results" / "Dataset001_Own" / "prediction.nii.gz", labels())
    assert read_notes(prepare()) == {}


def test_folders_of_slices_beside_those_of_the_pattern_are_named(
    tmp_path: Path, write_slices: Callable[..., list[Path]]
) -> None:
    for number, name in enumerate(("anna/CT", "bert/CT", "carl/ct", "carl/ct/deeper")):
        write_slices(tmp_path / "scans" / name, pixels(number))
    for name in ("report", "viewer"):
        (tmp_path / "scans" / "anna" / name).mkdir()
    (tmp_path / "scans" / "anna" / "report" / "letter.pdf").touch()
    (tmp_path / "scans" / "anna" / "viewer" / "plugin").symlink_to("nowhere")
    layout = Layout(("{patient}/CT",), None, folders=True)
    data = OwnData("Own", DATA.labels, ["CT"], unlabelled=True)
    folder = prepare_own(tmp_path / "scans", tmp_path / "raw", 7, data, layout, workers=1)
    assert [*read_notes(folder).values()] == [["carl/ct"]]


def test_folders_of_slices_higher_or_deeper_than_those_of_the_pattern_are_named(
    tmp_path: Path, write_slices: Callable[..., list[Path]], write_segmentation: Callable[..., Path]
) -> None:
    """But not those that hold masks alone."""
    folders = ("anna/CT", "anna/CT/2", "bert/CT", "carl", "carl/x", "dora/2026/CT", "emil/CT", "emil")
    paths = {
        name: write_slices(tmp_path / "scans" / name, pixels(number)) for number, name in enumerate(folders)
    }
    for name in ("anna", "bert", "emil"):
        mask = tmp_path / "scans" / name / "liver.dcm"
        drawn = labels()[::-1].astype(np.uint8)
        write_segmentation(mask, paths[f"{name}/CT"], drawn, ["liver", "tumour"])
    layout = Layout(("{patient}/CT",), "{patient}/liver.dcm", folders=True)
    folder = prepare_own(tmp_path / "scans", tmp_path / "raw", 7, DATA, layout, workers=1)
    assert [*read_notes(folder).values()] == [["anna/CT/2", "carl", "dora/2026/CT", "emil"]]


def test_the_same_scans_listed_in_a_table(prepare: Callable[..., Path], source: Path, tmp_path: Path) -> None:
    rows = [f"{p}/{f}.nii.gz,masks/{p}_{f}.nii.gz,{p},{f},old" for p, f in NAMES]
    folder = prepare(found_by=write_table(tmp_path / "t.csv", "image,mask,patient,phase,group", *rows))
    assert read_cases(folder) == [Case(f"{p}_{f}", p, "old", f) for p, f in NAMES]
    for number, (patient, phase) in enumerate(NAMES):
        image = read_image(folder / "imagesTr" / f"{patient}_{phase}_0000.nii.gz")
        np.testing.assert_array_equal(image.array, pixels(number))


def test_masks_of_some_slices(prepare: Callable[..., Path], source: Path, tmp_path: Path) -> None:
    """The third slice of the first mask holds nothing, and says so."""
    mask = labels()
    mask[1:] = 0
    put(source / "masks" / "anna_pre.nii.gz", mask)
    numbers = ["3 1", "", "1  2 3"]
    rows = [
        f"{p}/{f}.nii.gz,masks/{p}_{f}.nii.gz,{p},{f},{n}" for (p, f), n in zip(NAMES, numbers, strict=True)
    ]
    folder = prepare(found_by=write_table(tmp_path / "t.csv", "image,mask,patient,phase,slices", *rows))
    assert (read_labels(folder), read_ignore_label(folder)) == (DATA.labels, 3)
    assert read_notes(folder) == {
        "mask is of the slices that the table names, and ignored on all others": ["anna_pre"]
    }
    mask[1] = 3
    for (patient, phase), expected in zip(NAMES, (mask, labels(), labels()), strict=True):
        found = read_image(folder / "labelsTr" / f"{patient}_{phase}.nii.gz").array
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axis", [1, 2])
def test_slices_lie_across_the_largest_spacing(
    prepare: Callable[..., Path], source: Path, tmp_path: Path, axis: int
) -> None:
    spacing = tuple(float(5 - 4 * (number != axis)) for number in range(3))
    put(source / "anna" / "pre.nii.gz", pixels(0), spacing)
    mask = np.moveaxis(np.zeros(SHAPE, np.int16), axis, 0)
    mask[2, 1] = 1
    mask = np.moveaxis(mask, 0, axis)
    put(source / "masks" / "anna_pre.nii.gz", mask, spacing)
    row = "anna/pre.nii.gz,masks/anna_pre.nii.gz,anna,3"
    folder = prepare(found_by=write_table(tmp_path / "t.csv", "image,mask,patient,slices", row))
    found = np.moveaxis(read_image(folder / "labelsTr" / "anna.nii.gz").array, axis, 0)
    assert (np.delete(found, 2, axis=0) == 3).all()
    np.testing.assert_array_equal(found[2], np.moveaxis(mask, axis, 0)[2])


def test_a_mask_lies_where_its_scan_does_to_the_last_digit(
    prepare: Callable[..., Path], source: Path, tmp_path: Path
) -> None:
    """nnU-Net wants it, and the slices of a cube are counted along the scan's axis."""
    mask = np.zeros(SHAPE, np.int16)
    mask[2, 1] = 1
    put(source / "anna" / "pre.nii.gz", pixels(0), (1.0, 1.0, 1.0))
    put(source / "masks" / "anna_pre.nii.gz", mask, (1.0, 1.0, 1.0005))
    row = "anna/pre.nii.gz,masks/anna_pre.nii.gz,anna,3"
    folder = prepare(found_by=write_table(tmp_path / "t.csv", "image,mask,patient,slices", row))
    scan, written = (
        read_image(folder / place) for place in ("imagesTr/anna_0000.nii.gz", "labelsTr/anna.nii.gz")
    )
    np.testing.assert_array_equal(scan.affine, written.affine)
    np.testing.assert_array_equal(written.array[2], mask[2])
    assert (np.delete(written.array, 2, axis=0) == 3).all()


def test_nothing_is_annotated_yet(prepare: Callable[..., Path], refused: Callable[..., None]) -> None:
    none = Layout(("{patient}/{phase}.nii.gz",), None)
    refused("has no mask", found_by=none)
    folder = prepare(OwnData("Own", DATA.labels, ["MRI"], unlabelled=True), none)
    found = {f"{case.case}_0000.nii.gz" for case in read_unlabelled_cases(folder)["imagesTs"]}
    assert found == {path.name for path in (folder / "imagesTs").iterdir()} != set()
    with pytest.raises(UserError, match=r"cases\.csv lists no case"):
        read_cases(folder)


def test_patients_of_two_groups_that_are_numbered_alike(
    prepare: Callable[..., Path], refused: Callable[..., None], source: Path, tmp_path: Path
) -> None:
    """{phase} in place of {group} would make them one patient."""
    for group in ("ill", "well"):
        put(source / group / "001.nii.gz", pixels(len(group)))
        put(source / group / "001_mask.nii.gz", labels())
    layout = Layout(("{group}/{patient}.nii.gz",), "{group}/{patient}_mask.nii.gz")
    refused(r"are the same image of 001 .* if they are of two people, name them in a --table\.", DATA, layout)
    rows = [f"{group}/001.nii.gz,{group}/001_mask.nii.gz,{group}-001,{group}" for group in ("ill", "well")]
    folder = prepare(found_by=write_table(tmp_path / "t.csv", "image,mask,patient,group", *rows))
    assert {case.patient: case.group for case in read_cases(folder)} == {"ill-001": "ill", "well-001": "well"}


def test_groups_stand_in_the_path(prepare: Callable[..., Path], source: Path) -> None:
    for patient, group in (("anna", "ill"), ("bert", "well")):
        (source / group).mkdir()
        (source / patient).rename(source / group / patient)
    folder = prepare(found_by=Layout(("{group}/{patient}/{phase}.nii.gz",), LAYOUT.mask))
    assert {case.patient: case.group for case in read_cases(folder)} == {"anna": "ill", "bert": "well"}


def test_several_channels(prepare: Callable[..., Path], refused: Callable[..., None], source: Path) -> None:
    layout = Layout((*LAYOUT.images, "second/{patient}-{phase}.nii.gz"), LAYOUT.mask)
    for number, (patient, phase) in enumerate(NAMES):
        spacing = (6.0, 1.5, 1.2501)  # as near as rounding of headers, and too far for nnU-Net
        put(source / "second" / f"{patient}-{phase}.nii.gz", pixels(number, 1), spacing)
    refused(r"2 images a case and 1 channels\. Give one --channel", found_by=layout)
    folder = prepare(TWO, layout)
    assert read_channels(folder) == ("T1", "T2")
    second = read_image(folder / "imagesTr" / "bert_pre_0001.nii.gz")
    np.testing.assert_array_equal(second.array, pixels(2, 1))
    check_channels(read_image(folder / "imagesTr" / "bert_pre_0000.nii.gz"), second)


def test_channels_of_a_table_have_the_order_of_their_numbers(source: Path, tmp_path: Path) -> None:
    """Not of the columns, which a program may have sorted: image_10 stands before image_2 then."""
    numbers = sorted(range(1, 12), key=str)
    for number in numbers:
        (source / f"{number}.nii.gz").touch()
    columns = ",".join(["mask", *(f"image_{number}" for number in numbers), "patient", "image"])
    row = ",".join(["", *(f"{number}.nii.gz" for number in numbers), "anna", "anna/pre.nii.gz"])
    (scan,) = scans_by_table(source, write_table(tmp_path / "t.csv", columns, row))
    assert [path.name for path in scan.images] == ["pre.nii.gz", *(f"{n}.nii.gz" for n in range(1, 12))]


def test_channels_must_lie_on_the_same_voxels(refused: Callable[..., None], source: Path) -> None:
    layout = Layout((*LAYOUT.images, "second/{patient}-{phase}.nii.gz"), LAYOUT.mask)
    for patient, phase in NAMES:
        put(source / "second" / f"{patient}-{phase}.nii.gz", pixels(1), (6.0, 1.5, 1.5))
    refused(r"second.*nii\.gz has another geometry than .*anna", TWO, layout)
    (source / "second" / "bert-pre.nii.gz").unlink()
    refused(r"bert/pre\.nii\.gz has no counterpart of the pattern second", TWO, layout)


def test_labels_become_consecutive_in_the_order_of_their_values(
    prepare: Callable[..., Path], source: Path
) -> None:
    for patient, phase in NAMES:
        put(source / "masks" / f"{patient}_{phase}.nii.gz", labels(500, 200))
    mask = source / "masks" / "bert_pre.nii.gz"
    put(mask, np.where(labels(500, 200) == 0, 9, labels(500, 200)))
    folder = prepare(OwnData("Own", {"liver": 500, "ignore": 9, "tumour": 200}, ["MRI"]))
    assert (read_labels(folder), read_ignore_label(folder)) == ({"tumour": 1, "liver": 2}, 3)
    np.testing.assert_array_equal(read_image(folder / "labelsTr" / "anna_pre.nii.gz").array, labels(2, 1))
    array = read_image(folder / "labelsTr" / "bert_pre.nii.gz").array
    assert set(np.unique(array)) == {1, 2, 3}


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.float64])
def test_labels_beyond_16_bits(prepare: Callable[..., Path], source: Path, dtype: type) -> None:
    """The values of an atlas: a uint16 "white", identifiers, and 65537, which wraps to 1."""
    for patient, phase in NAMES:
        put(source / "masks" / f"{patient}_{phase}.nii.gz", labels(1, 1).astype(dtype))
    stored = np.where(labels() == 1, 65537, np.where(labels() == 2, 312782560, 0)).astype(dtype)
    stored[0, 0, 0] = 65535
    put(source / "masks" / "bert_pre.nii.gz", stored)
    values = {"outer": 1, "white": 65535, "liver": 65537, "tumour": 312782560}
    array = read_image(prepare(OwnData("Own", values, ["MRI"])) / "labelsTr" / "bert_pre.nii.gz").array
    expected = np.where(labels() == 1, 3, np.where(labels() == 2, 4, 0))
    expected[0, 0, 0] = 2
    np.testing.assert_array_equal(array, expected)


def test_forms_that_nnunet_does_not_read_are_converted_and_said(
    prepare: Callable[..., Path], source: Path
) -> None:
    image, mask = source / "anna" / "pre.nii.gz", source / "masks" / "anna_pre.nii.gz"
    stored = nibabel.load(image)
    micrometres = nibabel.Nifti1Image(stored.get_fdata(), np.diag([1e3, 1e3, 1e3, 1]) @ stored.affine)
    micrometres.header.set_xyzt_units("micron")
    micrometres.to_filename(image)
    nibabel.save(nibabel.Nifti2Image.from_image(nibabel.load(mask)), mask)
    folder = prepare()
    written = read_image(folder / "imagesTr" / "anna_pre_0000.nii.gz")
    np.testing.assert_array_equal(written.array, pixels(0))
    assert written.spacing_mm == pytest.approx(SPACING)
    assert written.origin_mm == pytest.approx((3, -4, 5))
    array = read_mask(folder / "labelsTr" / "anna_pre.nii.gz", DATA.labels).array
    np.testing.assert_array_equal(array, labels())
    assert read_notes(folder) == {
        "channel 0 states lengths in micrometres, converted to millimetres": ["anna_pre"],
        "mask is NIfTI-2, converted to NIfTI-1": ["anna_pre"],
    }


@pytest.mark.parametrize("dimensions", [2, 4])
def test_a_slice_of_two_dimensions_and_an_axis_of_one(
    prepare: Callable[..., Path], source: Path, dimensions: int
) -> None:
    for number, (patient, phase) in enumerate(NAMES):
        for path, array in (
            (source / patient / f"{phase}.nii.gz", pixels(number)),
            (source / "masks" / f"{patient}_{phase}.nii.gz", labels()),
        ):
            voxels = array[1].T if dimensions == 2 else array.T[..., None]
            nibabel.Nifti1Image(voxels, np.diag([-1.25, -1.5, 6.0, 1.0])).to_filename(path)
    image = read_image(prepare() / "imagesTr" / "anna_pre_0000.nii.gz")
    expected = pixels(0)[1:2] if dimensions == 2 else pixels(0)
    np.testing.assert_array_equal(image.array, expected)
    assert image.spacing_mm == pytest.approx((1.5 if dimensions == 2 else 6.0, 1.5, 1.25))


def test_images_without_a_mask(
    prepare: Callable[..., Path], refused: Callable[..., None], source: Path
) -> None:
    (source / "masks" / "bert_pre.nii.gz").unlink()
    refused(r"bert/pre\.nii\.gz has no mask\. .*--unlabelled")
    folder = prepare(OwnData("Own", DATA.labels, ["MRI"], unlabelled=True))
    assert [case.case for case in read_cases(folder)] == ["anna_post", "anna_pre"]
    assert [path.name for path in (folder / "imagesTs").iterdir()] == ["bert_pre_0000.nii.gz"]


def test_a_mask_without_an_image(refused: Callable[..., None], source: Path) -> None:
    (source / "bert" / "pre.nii.gz").unlink()
    refused(r"masks/bert_pre\.nii\.gz has no counterpart of the pattern \{patient\}/\{phase\}")


def test_patients_that_differ_by_capitals_alone(refused: Callable[..., None], source: Path) -> None:
    (source / "bert").rename(source / "Anna")
    (source / "masks" / "bert_pre.nii.gz").rename(source / "masks" / "Anna_pre.nii.gz")
    refused("Anna and anna differ by capitals alone")


@pytest.mark.parametrize("suffix", [".mha", ".MGZ", ".hdr", ".png", ".TIFF"])
def test_masks_in_a_form_that_is_not_read(source: Path, refused: Callable[..., None], suffix: str) -> None:
    for mask in [*(source / "masks").iterdir()]:
        mask.rename(mask.with_name(f"{mask.name.removesuffix('.nii.gz')}{suffix}"))
    layout = Layout(LAYOUT.images, f"masks/{{patient}}_{{phase}}{suffix}")
    refused(rf"anna_post\{suffix} is a mask in a form that is not read \(\{suffix}\).*NIfTI", found_by=layout)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (OwnData("a/b", DATA.labels, ["MRI"]), r"name a/b cannot name a folder"),
        (OwnData("Own", {}, ["MRI"]), r"labels \(none\) cannot be used"),
        (OwnData("Own", {"liver": 0}, ["MRI"]), r"labels \(liver=0\) cannot be used"),
        (OwnData("Own", {"liver": 1, "tumour": 1}, ["MRI"]), r"cannot be used.*value of its own"),
        (OwnData("Own", {"background": 1}, ["MRI"]), r"cannot be used"),
        (OwnData("Own", {"ignore": 1}, ["MRI"]), r"cannot be used"),
        (OwnData("Own", {"liver": 1, "Ignore": 255}, ["MRI"]), r"cannot be used.*write ignore small"),
        (OwnData("Own", {"mean": 1}, ["MRI"]), r'calls a class "mean"'),
        (OwnData("Own", {"liver": 1}, ["MRI"]), r"masks/\w+\.nii\.gz holds 2, no known label.*1 \(liver\)"),
    ],
)
def test_what_is_said_must_be_usable(refused: Callable[..., None], data: OwnData, message: str) -> None:
    refused(message, data)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(("{patient}/pre.nii.gz",), LAYOUT.mask), r"Some of the patterns have a \{phase\}"),
        (Layout(("{}/{phase}.nii.gz",), LAYOUT.mask), r"has no \{patient\}"),
        (
            Layout(("{patient}.nrrd",), "masks/{patient}.nii.gz"),
            r"Nothing below .* fits the pattern \{patient\}\.nrrd",
        ),
        (Layout(LAYOUT.images, LAYOUT.images[0]), r"A pattern is there twice"),
        (Layout(LAYOUT.images, "{patient}_{phase}"), r"Nothing below .* fits the pattern \{patient\}_"),
        (
            Layout(("{patient}/{}.nii.gz",), "masks/{patient}_pre.nii.gz"),
            r"anna/pre\.nii\.gz and .*anna/post\.nii\.gz are the same image of anna|post.* and .*pre",
        ),
    ],
)
def test_patterns_that_do_not_fit(refused: Callable[..., None], layout: Layout, message: str) -> None:
    refused(message, found_by=layout)


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        ("image,patient", ["a,b"], r"has the columns image, patient\. Give a CSV .*image, mask and patient"),
        ("image,mask,patient,age", ["a,b,c,7"], r"has the columns image, mask, patient, age"),
        ("", [], r"has the columns none"),
        ("image,mask,patient", [], r"No scan is listed"),
        ("image,mask,patient", ["anna/pre.nii.gz,,"], r"line 2, is not whole"),
        ("image,mask,patient", [",masks/anna_pre.nii.gz,anna"], r"line 2, is not whole"),
        ("image,mask,patient", ["a,b,c,d"], r"line 2, has 4 values, not 3"),
        (
            "image,mask,patient",
            ["x.nii.gz,masks/anna_pre.nii.gz,anna"],
            r"line 2: .*x\.nii\.gz does not exist",
        ),
        ("image,mask,patient", ["anna/pre.nii.gz,x.nii.gz,anna"], r"line 2: .*x\.nii\.gz does not exist"),
        ("image,mask,patient", ["anna/pre.nii.gz,,anna"], r"anna/pre\.nii\.gz has no mask"),
        (
            "image,mask,patient",
            ["anna/pre.nii.gz,masks/anna_pre.nii.gz,anna", "anna/post.nii.gz,masks/anna_post.nii.gz,anna"],
            r"would both be the case anna\. Tell them apart",
        ),
        (
            "image,mask,patient,phase",
            ["anna/pre.nii.gz,masks/anna_pre.nii.gz,a,", "anna/post.nii.gz,masks/anna_post.nii.gz,a,seg"],
            r"the mask of a by the name of the case a_seg\. Rename the case a_seg",
        ),
        (
            "image,mask,patient,phase,group",
            ["anna/pre.nii.gz,masks/anna_pre.nii.gz,a,1,x", "anna/post.nii.gz,masks/anna_post.nii.gz,a,2,y"],
            r"patient a is in the groups x and y",
        ),
        (
            "image,mask,patient",
            ["anna/pre.nii.gz,masks/anna_pre.nii.gz,a", "anna/pre.nii.gz,masks/bert_pre.nii.gz,b"],
            r"anna/pre\.nii\.gz is there twice",
        ),
        (
            "image,mask,patient",
            ["anna/pre.nii.gz,masks/anna_pre.nii.gz,a", "bert/pre.nii.gz,masks/anna_pre.nii.gz,b"],
            r"masks/anna_pre\.nii\.gz is there twice",
        ),
        ("image,mask,patient", ["anna/pre.nii.gz,anna/../anna/pre.nii.gz,a"], r"pre\.nii\.gz is there twice"),
        ("image,mask,patient", ["anna/pre.nii.gz,masks/anna_pre.nii.gz,../x"], r"\.\./x cannot name a file"),
        ("image,mask,patient", ['"a,b,c'], r"is no CSV table"),
        (
            "image,image_2,mask,patient",
            ["a,b,c,d"],
            r"has the columns image and image_2\. Number the channels",
        ),
        ("image,image_0,mask,patient", ["a,b,c,d"], r"has the columns image, image_0, mask, patient\."),
        *(
            ("image,mask,patient,slices", [f"anna/pre.nii.gz,masks/anna_pre.nii.gz,a,{slices}"], message)
            for slices, message in {
                "0": r"line 2: the slices '0' cannot be used",
                "1-3": "the slices '1-3' cannot be used",
                "one": "the slices 'one' cannot be used",
                "1 2 4": r"anna_pre\.nii\.gz has no slice 4: there are 3 along the z axis",
                "1 3": r"anna_pre\.nii\.gz has something drawn on slice 2 of 3 along the z axis",
            }.items()
        ),
        ("image,mask,patient,slices", ["anna/pre.nii.gz,,a,1"], "cannot be used, there is no mask"),
    ],
)
def test_tables_that_cannot_be_used(
    refused: Callable[..., None], tmp_path: Path, columns: str, rows: list[str], message: str
) -> None:
    refused(message, found_by=write_table(tmp_path / "t.csv", columns, *rows))


def test_a_table_that_is_not_there(refused: Callable[..., None], tmp_path: Path) -> None:
    refused(r"t\.csv does not exist", found_by=tmp_path / "t.csv")


def test_names_of_patients_that_no_file_may_have(prepare: Callable[..., Path], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    with table.open("w", newline="") as handle:
        csv.writer(handle).writerows(
            [["image", "mask", "patient"], ["anna/pre.nii.gz", "masks/anna_pre.nii.gz", "Anna K, 7/8"]]
        )
    assert read_cases(prepare(found_by=table)) == [Case("Anna-K--7-8", "Anna K, 7/8", "", "")]


def test_names_of_patients_with_a_space_at_an_end(prepare: Callable[..., Path], source: Path) -> None:
    (source / "bert").rename(source / "bert ")
    assert {case.patient for case in read_cases(prepare())} == {"anna", "bert"}


@pytest.mark.parametrize("by_table", [False, True])
def test_names_that_are_composed_otherwise(
    prepare: Callable[..., Path], source: Path, tmp_path: Path, by_table: bool
) -> None:
    """An umlaut of two characters on disk, as old disks of macOS store it, and of one in what the user writes."""
    (source / "masks" / "bert_pre.nii.gz").rename(source / "masks" / "Mu\u0308ller_pre.nii.gz")
    (source / "bert").rename(source / "Mu\u0308ller")
    rows = [f"{p}/{f}.nii.gz,masks/{p}_{f}.nii.gz,{p},{f}" for p, f in [*NAMES[:2], ("M\u00fcller", "pre")]]
    table = write_table(tmp_path / "t.csv", "image,mask,patient,phase", *rows)
    if not by_table:
        (source / "masks" / "Mu\u0308ller_pre.nii.gz").rename(source / "masks" / "M\u00fcller_pre.nii.gz")
    cases = read_cases(prepare(found_by=table if by_table else LAYOUT))
    assert Case("M\u00fcller_pre", "M\u00fcller", "", "pre") in cases


def test_capitals_in_suffixes(prepare: Callable[..., Path], source: Path) -> None:
    (source / "bert" / "pre.nii.gz").rename(source / "bert" / "pre.NII.GZ")
    (source / "masks" / "bert_pre.nii.gz").rename(source / "masks" / "bert_pre.Nii.gz")
    assert [case.case for case in read_cases(prepare())] == ["anna_post", "anna_pre", "bert_pre"]


@pytest.mark.parametrize("value", [0, 9])
def test_healthy_controls(
    prepare: Callable[..., Path], refused: Callable[..., None], source: Path, value: int
) -> None:
    put(source / "masks" / "bert_pre.nii.gz", np.full(SHAPE, value, np.int16))
    kinds = {**DATA.labels, "ignore": 9}
    refused(
        r"bert_pre\.nii\.gz is empty.*healthy control, give --empty-masks", OwnData("Own", kinds, ["MRI"])
    )
    folder = prepare(OwnData("Own", kinds, ["MRI"], empty_masks=True))
    assert read_contents(folder).empty_masks
    assert read_notes(folder) == {"mask holds no class and is taken for a healthy control's": ["bert_pre"]}


def test_labels_below_zero(prepare: Callable[..., Path], source: Path) -> None:
    """-1 for what is to be ignored is usual."""
    for patient, phase in NAMES:
        put(source / "masks" / f"{patient}_{phase}.nii.gz", labels(1, -1))
    folder = prepare(OwnData("Own", {"liver": 1, "ignore": -1}, ["MRI"]))
    assert (read_labels(folder), read_ignore_label(folder)) == ({"liver": 1}, 2)
    np.testing.assert_array_equal(read_image(folder / "labelsTr" / "anna_pre.nii.gz").array, labels(1, 2))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is no folder"):
        prepare_own(tmp_path / "nowhere", tmp_path, 7, DATA, LAYOUT)


def test_masks_and_channels_in_another_order_of_axes(prepare: Callable[..., Path], source: Path) -> None:
    """As other programs store them: turned, exactly, and said."""
    layout = Layout((*LAYOUT.images, "second/{patient}-{phase}.nii.gz"), LAYOUT.mask)
    for number, (patient, phase) in enumerate(NAMES):
        put(source / "second" / f"{patient}-{phase}.nii.gz", pixels(number, 1))
    for path in (source / "masks" / "anna_pre.nii.gz", source / "second" / "bert-pre.nii.gz"):
        image = nibabel.load(path)
        turned = image.as_reoriented([[2, 1], [0, -1], [1, 1]])
        assert nibabel.aff2axcodes(turned.affine) != nibabel.aff2axcodes(image.affine)
        turned.to_filename(path)
    folder = prepare(TWO, layout)
    mask = read_mask(folder / "labelsTr" / "anna_pre.nii.gz", DATA.labels)
    np.testing.assert_array_equal(mask.array, labels())
    channel = read_image(folder / "imagesTr" / "bert_pre_0001.nii.gz")
    np.testing.assert_array_equal(channel.array, pixels(2, 1))
    turned_cases = {note.split(" had")[0]: cases for note, cases in read_notes(folder).items()}
    assert turned_cases == {"mask": ["anna_pre"], "channel 1": ["bert_pre"]}


@pytest.mark.parametrize("name", ["bert", "bert/pre.nii.gz", "masks"])
def test_links_are_followed_or_named(
    prepare: Callable[..., Path], refused: Callable[..., None], source: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "archive").mkdir()
    (source / name).rename(tmp_path / "archive" / "moved")
    (source / name).symlink_to(tmp_path / "archive" / "moved")
    (source / "masks" / "._anna_pre.nii.gz").write_text("macOS")
    assert len(read_cases(prepare())) == len(NAMES)
    shutil.rmtree(tmp_path / "raw")
    (tmp_path / "archive" / "moved").rename(tmp_path / "archive" / "elsewhere")
    refused(rf"{name} is a link to .*archive/moved, which is not there\. Bring it back")


@pytest.mark.parametrize("ending", ["dcm", "nii.gz"])
def test_folders_of_dicom_slices(
    tmp_path: Path,
    write_slices: Callable[..., list[Path]],
    write_segmentation: Callable[..., Path],
    ending: str,
) -> None:
    for number, patient in enumerate(("anna", "bert")):
        slices = write_slices(tmp_path / "scans" / patient / "T2", pixels(number))
        (slices[0].parent / "DICOMDIR").write_text("passed over")
        mask = tmp_path / "scans" / patient / f"mask.{ending}"
        if ending == "dcm":
            write_segmentation(mask, slices, labels()[::-1].astype(np.uint8), ["Liver", "Tumour"])
        else:
            write_volume(mask, Volume(mask, labels(), (7.7, 1.5, 1.25), (-100.0, -80.0, 30.0)))
    layout = Layout(("{patient}/T2",), f"{{patient}}/mask.{ending}", folders=True)
    folder = prepare_own(tmp_path / "scans", tmp_path / "raw", 7, DATA, layout, workers=1)
    assert read_cases(folder) == [Case("anna", "anna", "", ""), Case("bert", "bert", "", "")]
    for number, patient in enumerate(("anna", "bert")):
        image = read_image(folder / "imagesTr" / f"{patient}_0000.nii.gz")
        np.testing.assert_array_equal(image.array, pixels(number))
        assert image.spacing_mm == pytest.approx((7.7, 1.5, 1.25))
        mask = read_mask(folder / "labelsTr" / f"{patient}.nii.gz", DATA.labels)
        np.testing.assert_array_equal(mask.array, labels())


def test_slices_and_mask_in_one_folder(
    tmp_path: Path, write_slices: Callable[..., list[Path]], write_segmentation: Callable[..., Path]
) -> None:
    slices = write_slices(tmp_path / "scans" / "anna", pixels(1))
    mask = tmp_path / "scans" / "anna" / "mask.DCM"
    write_segmentation(mask, slices, labels()[::-1].astype(np.uint8), ["liver", "tumour"])
    for path in slices:
        set_fields(path, SeriesInstanceUID="1.1")
    set_fields(slices[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    layout = Layout(("{patient}",), "{patient}/mask.dcm", folders=True)
    with pytest.raises(UserError, match=r"mask\.DCM has \d+ labelled voxels outside"):
        prepare_own(tmp_path / "scans", tmp_path / "raw", 7, DATA, layout, workers=1)
    with pytest.raises(UserError, match=r"pattern \{patient\}/x\. .* to find folders of DICOM slices"):
        prepare_own(
            tmp_path, tmp_path / "raw", 7, DATA, Layout(("{patient}/x",), "{patient}/anna/mask.dcm", True)
        )
    set_fields(slices[0], ImageType=None)
    shutil.copy(slices[0], tmp_path / "scans" / "anna" / "copy")
    folder = prepare_own(tmp_path / "scans", tmp_path / "raw", 7, DATA, layout, workers=1)
    assert read_notes(folder) == {"exact copies of slices were left out of its folder": ["anna"]}
    np.testing.assert_array_equal(read_image(folder / "imagesTr" / "anna_0000.nii.gz").array, pixels(1))


def test_the_command_line(
    source: Path, ccdcseg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nnUNet_raw").mkdir()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnUNet_raw"))
    own = ("prepare", "nifti", source, "--dataset", 7, "--name", "Own", "--channel", "MRI", "--processes", 1)
    named = (*own, "--label", "liver=1", "--label", "tumour=2")
    patterns = ("--image", LAYOUT.images[0], "--mask", LAYOUT.mask)
    for arguments, words in (
        (named, "--image and --mask, or by --table"),
        ((*named, *patterns, "--table", "t.csv"), "--image and --mask, or by --table"),
        ((*named, *patterns[:2]), "--image and --mask, or by --table"),
        ((*named, *patterns, "--label", "liver=4"), "A --label is given twice"),
        ((*own, *patterns, "--label", "liver"), "--label liver is not of the form NAME=VALUE"),
    ):
        result = ccdcseg(*arguments)
        assert (result.code, words in result.err) == (2, True)
    assert ccdcseg(*named[:4], 8, *named[5:], *patterns).out.endswith("split 8 --fraction 0.5 --seed 0\n")
    mask = source / "masks" / "anna_pre.nii.gz"
    nibabel.load(mask).as_reoriented([[0, -1], [1, -1], [2, 1]]).to_filename(mask)
    for first in ("Dataset:", "Prepared already:"):
        result = ccdcseg(*named, *patterns)
        assert result.code == 0, result.err
        assert result.out.startswith(first)
        assert "Note:    mask had the same voxels in another order of axes" in result.out
        assert "exactly: anna_pre." in result.out
        assert ("Scans:   3 with masks, of 2 patients\n" in result.out) is (first == "Dataset:")
    assert len(read_cases(tmp_path / "nnUNet_raw" / "Dataset007_Own")) == 3
    mask.unlink()
    result = ccdcseg(*named[:4], 9, *named[5:], *patterns, "--unlabelled")
    assert "split 9 --fraction 0.5 --seed 0 --unlabelled imagesTs\n" in result.out
    for patient in (source / "anna", source / "masks"):
        shutil.rmtree(patient)
    put(source / "bert" / "mask.nii.gz", labels())
    archive = shutil.make_archive(str(source.parent / "one"), "zip", source, "bert")
    patterns = ("--image", "{patient}/pre.nii.gz", "--mask", "{patient}/mask.nii.gz")
    result = ccdcseg("prepare", "nifti", archive, "--dataset", 10, *named[5:], *patterns)
    assert "Next:    ccdcseg split 10 --fraction 1 --seed 0\n" in result.out, result.err


def test_the_real_ct_patient_with_a_segmentation(
    real_data: Path, tmp_path: Path, write_segmentation: Callable[..., Path]
) -> None:
    """The mask of PNG slices and a DICOM segmentation of the same give the same data set."""
    chaos = tmp_path / "3"
    chaos.symlink_to(real_data / "chaos_ct_dicom")
    expected = prepare_chaos_ct(chaos, tmp_path / "raw", 1, workers=1)
    mask = read_mask(next((expected / "labelsTr").iterdir()), CT_LABELS)
    image = read_image(next((expected / "imagesTr").iterdir()))
    source = tmp_path / "scans" / "anna"
    source.mkdir(parents=True)
    (source / "CT").symlink_to(real_data / "chaos_ct_dicom" / "DICOM_anon")
    slices = sorted((source / "CT").glob("*.dcm"))

    ordered = read_series(slices).paths
    write_segmentation(source / "liver.dcm", ordered, mask.array.astype(np.uint8), ["liver"])
    data = OwnData("Own", {"liver": 1}, ["CT"])
    layout = Layout(("{patient}/CT",), "{patient}/liver.dcm", folders=True)
    folder = prepare_own(tmp_path / "scans", tmp_path / "raw", 2, data, layout, workers=1)
    ours = read_image(folder / "imagesTr" / "anna_0000.nii.gz")
    np.testing.assert_array_equal(ours.array, image.array)
    np.testing.assert_allclose(ours.affine, image.affine)
    np.testing.assert_array_equal(read_mask(folder / "labelsTr" / "anna.nii.gz", CT_LABELS).array, mask.array)
