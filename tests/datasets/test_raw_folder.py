import json
from pathlib import Path

import pytest

from ccdcseg.datasets.cases import Case, read_cases, write_cases
from ccdcseg.datasets.raw_folder import assign_patients, case_files, case_names
from ccdcseg.errors import UserError

NAMES = ["p1_ED", "p1_ES", "p2_ED", "p10_ED"]
CASES = [Case(name, name[:-3], "", name[-2:]) for name in NAMES]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """An nnU-Net raw folder of two channels, without cases.csv; files are empty, nobody opens them here."""
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for name in NAMES:
        (tmp_path / "labelsTr" / f"{name}.nii.gz").touch()
        for channel in range(2):
            (tmp_path / "imagesTr" / f"{name}_000{channel}.nii.gz").touch()
    content = {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz", "numTraining": 4}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def test_cases_are_those_with_masks_in_the_order_of_their_numbers(raw: Path) -> None:
    assert case_names(raw) == NAMES


def test_patients_from_a_pattern(raw: Path) -> None:
    assert assign_patients(raw, "{patient}_{phase}") == CASES
    assert read_cases(raw) == CASES


def test_patients_from_a_table_in_any_order(raw: Path) -> None:
    table = raw / "table.csv"
    rows = [f"{case.patient},{case.case},g" for case in reversed(CASES)]
    table.write_text("\n".join(["patient,case,group", *rows]))
    found = assign_patients(raw, table=table)
    assert found == [Case(case.case, case.patient, "g", "") for case in CASES] == read_cases(raw)


def test_the_same_again_is_fine_and_something_else_is_not(raw: Path) -> None:
    assign_patients(raw, "{patient}_{phase}")
    assert assign_patients(raw, "{patient}_{phase}") == CASES
    with pytest.raises(UserError, match=r"cases\.csv is there and says something else of p1_ED\."):
        assign_patients(raw, "{patient}")
    assert read_cases(raw) == CASES


def add_case(raw: Path, name: str) -> None:
    (raw / "labelsTr" / f"{name}.nii.gz").touch()
    for channel in range(2):
        (raw / "imagesTr" / f"{name}_000{channel}.nii.gz").touch()


def test_cases_that_were_added_join_the_rows_that_are_there(raw: Path) -> None:
    """A further scan of a patient is in the patient's group, of which the pattern says nothing."""
    rows = [Case(case.case, case.patient, "g", case.phase) for case in CASES]
    write_cases(raw, rows)
    for name in ("p2_ES", "p3_ED"):
        add_case(raw, name)
    found = assign_patients(raw, "{patient}_{phase}")
    assert found == [*rows, Case("p2_ES", "p2", "g", "ES"), Case("p3_ED", "p3", "", "ED")] == read_cases(raw)


def test_rows_that_are_contradicted_stay_as_they_are(raw: Path) -> None:
    write_cases(raw, [Case("p1_ES", "p2", "", "ES") if case.case == "p1_ES" else case for case in CASES])
    before = (raw / "cases.csv").read_bytes()
    add_case(raw, "p3_ED")
    with pytest.raises(UserError, match=r"cases\.csv is there and says something else of p1_ES\."):
        assign_patients(raw, "{patient}_{phase}")
    assert (raw / "cases.csv").read_bytes() == before


def test_rows_of_cases_that_are_gone(raw: Path) -> None:
    write_cases(raw, [*CASES, Case("ghost_ED", "ghost", "", "ED")])
    with pytest.raises(UserError, match=r"cases\.csv names ghost_ED, which is not there .*remove the row"):
        assign_patients(raw, "{patient}_{phase}")


@pytest.mark.parametrize("given", [{}, {"pattern": "{patient}", "table": Path("x.csv")}])
def test_a_pattern_or_a_table(raw: Path, given: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"--pattern or --table"):
        assign_patients(raw, **given)  # type: ignore[arg-type]


def test_spaces_around_what_a_pattern_reads(raw: Path) -> None:
    """A table that held them could not be read."""
    add_case(raw, "p3 _ED")
    found = assign_patients(raw, "{patient}_{phase}")
    assert Case("p3 _ED", "p3", "", "ED") in found
    assert read_cases(raw) == found == assign_patients(raw, "{patient}_{phase}")


@pytest.mark.parametrize("name", [" p3_ED", "p3_ED "])
def test_a_case_whose_name_has_a_space_at_an_end(raw: Path, name: str) -> None:
    add_case(raw, name)
    with pytest.raises(UserError, match=rf"the case '{name}' begins or ends with a space\. Rename its files"):
        assign_patients(raw, "{patient}_{phase}")
    assert not (raw / "cases.csv").exists()


def test_a_pattern_that_does_not_fit_every_case(raw: Path) -> None:
    with pytest.raises(UserError, match=r"\{patient\}_ED does not fit the case p1_ES"):
        assign_patients(raw, "{patient}_ED")
    assert not (raw / "cases.csv").exists()


def test_a_patient_in_two_groups(raw: Path) -> None:
    with pytest.raises(UserError, match=r"p1 is in the groups ED and ES"):
        assign_patients(raw, "{patient}_{group}")
    assert not (raw / "cases.csv").exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("case,patient\np1_ED,p1", r"table\.csv has no case p1_ES \(3 are missing\)"),
        (
            "case,patient\n" + "\n".join(f"{name},p" for name in [*NAMES, "p3_ED"]),
            r"The data set has no case p3_ED \(1 are missing\)",
        ),
        ("case,patient\np1_ED,p1\np1_ED,p1", r"table\.csv lists p1_ED twice"),
        ("case,patient\np1_ED,", r"table\.csv, line 2, is not whole"),
        ("case,patient\np1_ED", r"table\.csv, line 2, has 1 values, not 2: 'p1_ED'"),
        ("case,patient\np1_ED,p1,more", r"table\.csv, line 2, has 3 values, not 2"),
        ("name,patient\np1_ED,p1", r"table\.csv has the columns name, patient\."),
        ("case,patient,age\np1_ED,p1,70", r"table\.csv has the columns case, patient, age\."),
        ("", r"table\.csv has the columns none\."),
        ('case,patient\n"p1_ED,p1', r"table\.csv is no CSV table"),
    ],
)
def test_unusable_tables(raw: Path, table: str, message: str) -> None:
    (raw / "table.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        assign_patients(raw, table=raw / "table.csv")
    assert not (raw / "cases.csv").exists()


def test_a_missing_table(raw: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv does not exist"):
        assign_patients(raw, table=raw / "nowhere.csv")


def test_incomplete_folders(raw: Path) -> None:
    (raw / "imagesTr" / "p1_ED_0001.nii.gz").unlink()
    with pytest.raises(UserError, match=r"p1_ED_0001\.nii\.gz does not exist\. 1 such"):
        case_names(raw)
    (raw / "labelsTr" / "p1_ED.nii.gz").unlink()
    with pytest.raises(UserError, match=r"p1_ED_0000\.nii\.gz belongs to no mask, 1 such"):
        case_names(raw)
    for mask in (raw / "labelsTr").iterdir():
        mask.unlink()
    with pytest.raises(UserError, match=r"holds no \*\.nii\.gz"):
        case_names(raw)


def test_channels_that_are_not_declared(raw: Path) -> None:
    """Their masks are there."""
    for name in ("p1_ED_0002", "p2_ED_0002", "new_0000"):
        (raw / "imagesTr" / f"{name}.nii.gz").touch()
    message = r"p1_ED_0002\.nii\.gz is of a channel that dataset\.json does not declare \(2 such images\)"
    with pytest.raises(UserError, match=message):
        case_names(raw)


def test_images_without_the_number_of_a_channel(raw: Path) -> None:
    """As the Medical Segmentation Decathlon names them."""
    (raw / "imagesTr" / "p1_ED_0000.nii.gz").rename(raw / "imagesTr" / "p1_ED.nii.gz")
    with pytest.raises(UserError, match=r"p1_ED_0000\.nii\.gz does not exist.* Rename p1_ED\.nii\.gz"):
        case_names(raw)


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "._p1_ED_0000.nii.gz",
            r"is a hidden file, which nnU-Net takes for a scan \(1 such files\)\. Remove them",
        ),
        (
            "p7_ED.NII.GZ",
            r"does not end in \.nii\.gz: nnU-Net passes over it .*Rename them to end in \.nii\.gz",
        ),
    ],
)
def test_files_that_nnunet_takes_otherwise(raw: Path, folder: str, name: str, message: str) -> None:
    (raw / folder / name).touch()
    with pytest.raises(UserError, match=rf"{folder}/{name} {message}"):
        assign_patients(raw, "{patient}_{phase}")
    assert not (raw / "cases.csv").exists()


@pytest.mark.parametrize("name", ["p7_ED_0000.nii", "p7_ED.NRRD", "p7_ED.mha", "p7.1_ED.hdr"])
def test_scans_in_another_form_are_named(raw: Path, name: str) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder / name).touch()
    with pytest.raises(UserError, match=rf"imagesTr/{name} does not end in .*convert those of another form"):
        case_names(raw)


def test_a_scan_that_is_there_in_a_second_form_is_not_missed(raw: Path) -> None:
    """As a viewer unpacks it, or 3D Slicer saves the mask."""
    for name in ("imagesTr/p1_ED_0000.nii", "labelsTr/p1_ED.seg.nrrd", "labelsTr/p1_ED.json"):
        (raw / name).touch()
    assert case_names(raw) == NAMES


@pytest.mark.parametrize("folders", [("imagesTr", "labelsTr"), ("labelsTr",)])
def test_links_that_lead_nowhere_are_named(raw: Path, folders: tuple[str, ...]) -> None:
    """Where those of a patient all do, the others were taken for all."""
    for path in (path for folder in folders for path in (raw / folder).glob("p2_ED*")):
        path.unlink()
        path.symlink_to(f"gone/{path.name}")
    with pytest.raises(UserError, match=rf"{folders[0]}/p2_ED.* is a link to gone/.*is a disk missing"):
        assign_patients(raw, "{patient}_{phase}")
    assert not (raw / "cases.csv").exists()


def test_a_folder_whose_link_leads_nowhere(raw: Path) -> None:
    (raw / "labelsTr").rename(raw / "masks")
    (raw / "labelsTr").symlink_to("gone")
    with pytest.raises(UserError, match=r"labelsTr is a link to gone"):
        case_names(raw)


def rename(raw: Path, *folders: str) -> None:
    """Give p1 a name with an umlaut of two characters, as old disks of macOS do."""
    for path in (path for folder in folders for path in (raw / folder).glob("p1_ED*")):
        path.rename(path.with_name(path.name.replace("p1", "Mu\u0308ller")))


def test_a_table_whose_names_are_composed_otherwise(raw: Path) -> None:
    rename(raw, "imagesTr", "labelsTr")
    (raw / "table.csv").write_text("case,patient\nM\u00fcller_ED,M\u00fcller\np1_ES,1\np2_ED,2\np10_ED,10")
    found = {case.case: case.patient for case in assign_patients(raw, table=raw / "table.csv")}
    assert found == {"Mu\u0308ller_ED": "M\u00fcller", "p1_ES": "1", "p2_ED": "2", "p10_ED": "10"}
    assert {case.case for case in read_cases(raw)} == set(case_names(raw))


def test_images_and_masks_whose_names_are_composed_otherwise(raw: Path) -> None:
    rename(raw, "imagesTr", "labelsTr")
    for path in (raw / "labelsTr").glob("Mu*"):
        path.rename(path.with_name(path.name.replace("u\u0308", "\u00fc")))
    with pytest.raises(UserError, match=r"looks alike but is composed otherwise \(Unicode\).*Rename.*convmv"):
        case_names(raw)


def test_files_of_a_case_are_not_those_of_one_whose_name_begins_alike(raw: Path) -> None:
    images, masks = raw / "imagesTr", raw / "labelsTr"
    assert case_files(raw, "p1") == [
        images / "p1_0000.nii.gz",
        images / "p1_0001.nii.gz",
        masks / "p1.nii.gz",
    ]


def test_a_case_named_as_the_mask_of_another_is_refused(raw: Path) -> None:
    """nnU-Net would write the image of the one over the preprocessed mask of the other."""
    (raw / "labelsTr" / "p1_ED_seg.nii.gz").touch()
    for channel in range(2):
        (raw / "imagesTr" / f"p1_ED_seg_000{channel}.nii.gz").touch()
    with pytest.raises(UserError, match=r"the mask of p1_ED by the name of the case p1_ED_seg.*Rename"):
        case_names(raw)


def test_other_formats_are_refused(raw: Path) -> None:
    description = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(description | {"file_ending": ".png"}))
    with pytest.raises(UserError, match=r"files end in \.png; \.nii\.gz is needed.*prepare nifti"):
        case_names(raw)


def test_a_list_of_files_is_refused(raw: Path) -> None:
    description = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(description | {"dataset": {}}))
    with pytest.raises(UserError, match=r"lists its files one by one.*take that key out"):
        case_names(raw)
