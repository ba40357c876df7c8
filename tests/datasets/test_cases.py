import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccdcseg.datasets.cases import (
    Case,
    check_capitals,
    dataset_folder,
    id_in_name,
    read_cases,
    read_channels,
    read_file_ending,
    read_ignore_label,
    read_labels,
    scan_of,
    write_cases,
)
from ccdcseg.datasets.unicode_names import composed
from ccdcseg.errors import UserError

CASES = [Case("a_1", "a", "DCM", "ED"), Case("a_2", "a", "DCM", "ES"), Case("b_1", "b", "", "")]

texts = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=8)


def describe(folder: Path, **content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_tables_of_cases_need_no_numpy() -> None:
    """A start of half a second would be spent on what most commands do not need."""
    program = "import sys, ccdcseg.datasets.cases; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_cases(tmp_path, CASES)
    assert read_cases(tmp_path) == CASES
    assert (tmp_path / "cases.csv").read_text().splitlines()[:2] == [
        "case,patient,group,phase",
        "a_1,a,DCM,ED",
    ]


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5, unique_by=lambda names: names[0]))
@settings(deadline=None, max_examples=50)
def test_any_names_survive_the_table(tmp_path_factory: Any, names: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("table")
    names = [(case, composed(patient)) for case, patient in names if case not in "..."]
    cases = [Case(case, patient, 'a "group", of sorts', "") for case, patient in names]
    if cases:
        write_cases(folder, cases)
        assert read_cases(folder) == cases


def test_a_patient_is_one_however_the_name_is_composed(tmp_path: Path) -> None:
    names = ("J\u00fcrg", "Ju\u0308rg")
    write_cases(tmp_path, [Case(f"{number}", name, "", "") for number, name in enumerate(names)])
    assert {case.patient for case in read_cases(tmp_path)} == {"J\u00fcrg"}


def test_a_table_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes(b"\xef\xbb\xbfcase,patient,group,phase\r\na_1,a,DCM,ED\r\n")
    assert read_cases(tmp_path) == CASES[:1]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"cases\.csv has the columns .*case,patient,group,phase"),
        ("case,patient\na_1,a\n", r"cases\.csv has the columns case, patient\..*case,patient,group,phase"),
        ("case,patient,group,phase\n", r"cases\.csv lists no case"),
        ("case,patient,group,phase\na_1,a,DCM\n", r"cases\.csv, line 2, has 3 values, not 4: 'a_1,a,DCM'"),
        ("case,patient,group,phase\na_1,a,DCM,ED\n,b,DCM,ED\n", r"cases\.csv, line 3: ',b,DCM,ED'"),
        (
            "case,patient,group,phase\na_1, a,DCM,ED\n",
            r"cases\.csv, line 2: ' a' begins or ends with a space",
        ),
        ("case,patient,group,phase\na_1,,DCM,ED\n", r"cases\.csv, line 2: 'a_1,,DCM,ED'"),
        ("case,patient,group,phase\n../../a,a,DCM,ED\n", r"cases\.csv, line 2: '\.\./\.\./a,a"),
        ("case,patient,group,phase\na_1,a,,\na_1,a,,\n", r"cases\.csv lists a_1 twice"),
        (
            "case,patient,group,phase\na_1,a,X,\na_2,a,Y,\n",
            r"cases\.csv: the patient a is in the groups X and Y",
        ),
        ('case,patient,group,phase\n"a_1,a,X,\n', r"cases\.csv is no CSV table"),
    ],
)
def test_a_damaged_table(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "cases.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        read_cases(tmp_path)


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UserError, match=r"cases\.csv is no CSV table"):
        read_cases(tmp_path)


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cases\.csv does not exist.*ccdcseg patients.*--table.*case,patient,group,phase"
    ):
        read_cases(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r'has no "channel_names"'),
        ({"channel_names": ["MRI"]}, r"Number them from 0 on"),
        ({"channel_names": {}}, r"Number them from 0 on"),
        ({"channel_names": {"1": "MRI"}}, r"Number them from 0 on"),
    ],
)
def test_unusable_channels(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_channels(describe(tmp_path, **content))


def test_channels_in_their_order(tmp_path: Path) -> None:
    assert read_channels(describe(tmp_path, channel_names={"1": "CT", "0": "T2"})) == ("T2", "CT")


def test_the_scan_of_an_image() -> None:
    assert scan_of("a_1_0012.nii.gz", ".nii.gz") == "a_1"
    for name in ("_0000.nii.gz", "a_000.nii.gz", "a_0000.nii", "a_0000xniixgz"):
        assert scan_of(name, ".nii.gz") is None


@pytest.fixture
def raw_root(tmp_path: Path) -> Path:
    for name in ("Dataset027_ACDC", "Dataset005_One", "Dataset005_Other", "Dataset270_Far", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "Dataset028_File").write_text("")
    return tmp_path


@pytest.mark.parametrize("dataset", ["27", "027", "Dataset027_ACDC"])
def test_a_data_set_is_found_as_nnunets_users_name_it(raw_root: Path, dataset: str) -> None:
    assert dataset_folder(raw_root, dataset) == raw_root / "Dataset027_ACDC"


@pytest.mark.parametrize("dataset", ["28", "2", "ACDC", "Dataset027", "../x", "", "-27", "Dataset028_File"])
def test_an_unknown_data_set(raw_root: Path, dataset: str) -> None:
    with pytest.raises(
        UserError, match=r"no data set .*holds Dataset005_One, .*Dataset027_ACDC, Dataset270_Far"
    ):
        dataset_folder(raw_root, dataset)


def test_an_ambiguous_id(raw_root: Path) -> None:
    with pytest.raises(UserError, match=r"id 5 is ambiguous: Dataset005_One, Dataset005_Other.*Rename"):
        dataset_folder(raw_root, "5")
    assert dataset_folder(raw_root, "Dataset005_Other").name == "Dataset005_Other"


@pytest.mark.parametrize("name", ["Dataset028_My data (2)", "Dataset028_Übung", "Dataset028_a,b"])
def test_whatever_follows_the_three_digits(raw_root: Path, name: str) -> None:
    (raw_root / "Dataset028_File").unlink()
    (raw_root / name).mkdir()
    assert dataset_folder(raw_root, "28") == dataset_folder(raw_root, name) == raw_root / name


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("Dataset50_Toy", "Dataset050_Toy"),
        ("dataset050_Toy", "Dataset050_Toy"),
        ("Dataset050", "Dataset050_Name"),
        ("Dataset 050 Toy", "Dataset050_Toy"),
        ("Task050_Toy", "Dataset050_Toy"),
        ("Dataset1050_Toy", "Dataset and three digits"),
    ],
)
def test_a_folder_that_is_not_named_as_nnunet_wants(tmp_path: Path, name: str, better: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "notes").mkdir()
    for dataset in ("50", name):
        with pytest.raises(UserError, match=f"{name} is not named as nnU-Net wants, rename it to {better}"):
            dataset_folder(tmp_path, dataset)


def test_no_data_sets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no data set"):
        dataset_folder(tmp_path, "27")
    with pytest.raises(UserError, match=r"nowhere does not exist.*nnUNet_raw"):
        dataset_folder(tmp_path / "nowhere", "27")


def test_the_id_in_a_name() -> None:
    assert id_in_name("Dataset027_ACDC") == 27
    with pytest.raises(UserError, match="ACDC27 is no nnU-Net data set name"):
        id_in_name("ACDC27")


def test_labels(tmp_path: Path) -> None:
    folder = describe(
        tmp_path / "raw", labels={"background": 0, "RV": 1, "LV": 3, "ignore": 4}, file_ending=".nii.gz"
    )
    assert read_labels(folder) == {"RV": 1, "LV": 3}
    assert read_ignore_label(folder) == 4
    assert read_file_ending(folder) == ".nii.gz"


def test_no_ignore_label(tmp_path: Path) -> None:
    assert read_ignore_label(describe(tmp_path / "raw", labels={"background": 0, "RV": 1})) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": {"background": 0, "tumour": [1, 2]}}, r"region tumour \[1, 2\].*one integer label"),
        ({"labels": {"0": "background", "1": "RV"}}, r"gives 0 the label 'background'"),
        ({"labels": {"background": 0, "RV": True}}, r"gives RV the label True"),
        ({"labels": {"background": 0, "RV": 1, "LV": 1}}, r"has the labels .*of its own from 1 on"),
        ({"labels": {"background": 0, "RV": 0}}, r"has the labels .*of its own from 1 on"),
        ({"labels": {"background": 0}}, r"has the labels \{\}"),
        ({"labels": {"background": 0, "mean": 1}}, r'calls a class "mean".*another name'),
        ({"labels": {"background": 0, "": 1}}, r'calls a class ""'),
        ({"labels": ["RV"]}, r"has no table of labels"),
        ({}, r'has no "labels"'),
    ],
)
def test_unusable_labels(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"dataset\.json {message}|dataset\.json declares the {message}"):
        read_labels(describe(tmp_path / "raw", **content))


def test_a_missing_or_damaged_description(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.json does not exist"):
        read_labels(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json is not valid JSON"):
        read_labels(tmp_path)
    with pytest.raises(UserError, match=r'dataset\.json has the "file_ending" 3'):
        read_file_ending(describe(tmp_path, file_ending=3))


def test_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The name '.*udce9.*' is no UTF-8\. Rename"):
        write_cases(tmp_path, [Case("a", "ren\udce9", "", "")])
    assert list(tmp_path.iterdir()) == []


def test_names_that_spreadsheets_would_compute(tmp_path: Path) -> None:
    cases = [Case("a", "b", "=cmd|x!A0", "+"), Case("-c", "'t Hooft", "HPV-;=1", "-2")]
    write_cases(tmp_path, cases)
    assert read_cases(tmp_path) == cases
    lines = (tmp_path / "cases.csv").read_text().splitlines()
    assert lines[1:] == ["a,b,'=cmd|x!A0,'+", "'-c,'t Hooft,HPV-;'=1,-2"]


@pytest.mark.parametrize(("case", "patient"), [("b", "Jos\u00c9"), ("A", "josef"), ("b", "JOSE\u0301")])
def test_names_that_differ_by_capitals_alone(case: str, patient: str) -> None:
    one = Case("a", "jos\u00e9", "", "")
    check_capitals([one, Case("b", "jos\u00e9", "", ""), Case("c", "josef", "", "")], Path("x"))
    with pytest.raises(UserError, match=r"^x: .* differ by capitals alone"):
        check_capitals([one, Case(case, patient, "", "")], Path("x"))
