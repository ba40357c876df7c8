import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from rich.console import Console

from ccdcseg.checks.checks import CheckResult, check_dataset
from ccdcseg.report.check_page import (
    build_check_page,
    chosen_cases,
    findings_table,
    groups,
    range_text,
    verdict,
)
from ccdcseg.report.template import check_page

EVIL = "p<script>alert(1)<"


@pytest.fixture
def check(raw_folder: Path, tmp_path: Path) -> Callable[[], CheckResult]:
    return lambda: check_dataset(raw_folder, tmp_path / "cache", workers=1)


@pytest.fixture
def build(
    check: Callable[[], CheckResult], tmp_path: Path, parse: Callable[[str], object]
) -> Callable[[], object]:
    """Build and parse the page of ``raw_folder`` as it is now."""

    def run():
        page = build_check_page(check(), tmp_path / "out" / "check.html", tmp_path / "pictures", workers=1)
        return parse(page.read_text())

    return run


def double(folder: Path) -> None:
    """Give two patients the same scan."""
    shutil.copy(folder / "imagesTr" / "p1_ED_0000.nii.gz", folder / "imagesTr" / "p3_ES_0000.nii.gz")


def screen(result: CheckResult, width: int = 160) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(findings_table(result))
    return console.file.getvalue()


def test_a_clean_folder(build, tmp_path: Path) -> None:
    page = build()
    check_page(tmp_path / "out" / "check.html", "check")
    assert "No problems and no notes in 6 cases." in page.text
    assert "Nothing was found." in page.text
    assert [row[:2] for row in page.table("Click a heading")[1:]] == [
        [f"p{number}_{phase}", f"p{number}"] for number in "123" for phase in ("ED", "ES")
    ]


def test_findings_are_on_top_and_lead_to_the_pictures(raw_folder: Path, build) -> None:
    double(raw_folder)
    (raw_folder / "imagesTr" / "readme.txt").touch()
    page = build()
    assert page.text.index("1 problem and 1 note in 6 cases.") < page.text.index("Summary The data set")
    assert "the same voxels in cases of 2 patients: p1, p3" in page.text
    assert "nnU-Net passes over 1 files: imagesTr/readme.txt" in page.text
    assert page.text.index("duplicate scan") < page.text.index("surplus file")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    targets = [attributes["href"] for attributes in page.all("a")]
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    assert len(ids) == len(set(ids))
    assert targets.count("#patient-0") == 1 + 2  # the finding, and the patient's two rows of the table


def test_the_summary_and_the_classes(build) -> None:
    page = build()
    rows = dict(page.table("The data set"))
    assert (rows["patients"], rows["scans"], rows["slices"]) == ("3", "6", "24")
    assert rows["spacing, mm"] == "z: 8 y: 1.5 x: 1.4"
    assert rows["axes"] == "LPS in 6"
    lv = [cell.strip() for cell in page.table("Classes")[2]]
    assert lv[:4] == ["LV", "2", "6", "192"]
    assert lv[4].startswith("0.5376")


def test_a_picture_of_every_patient(raw_folder: Path, build, change_volume) -> None:
    change_volume(raw_folder / "labelsTr" / "p2_ED.nii.gz", lambda array: array * (array == 1))
    images = build().all("img")
    assert [image["alt"].split(",")[0] for image in images] == ["p1_ED", "p2_ES", "p3_ED"]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in images)
    assert {(image["width"], image["height"]) for image in images} == {("320", "286")}


def test_a_large_page_has_the_pictures_of_findings_first(
    raw_folder: Path, build, change_volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First p2 alone has a finding, a note; then p1 and p3 have a problem."""
    change_volume(raw_folder / "labelsTr" / "p2_ED.nii.gz", lambda array: array * (array == 1))
    whole = build()
    sizes = [len(image["src"]) for image in whole.all("img")]
    assert "too large" not in whole.text
    monkeypatch.setattr("ccdcseg.report.check_page.MOST_CHARACTERS", sizes[1])
    page = build()
    assert [image["alt"].split("_")[0] for image in page.all("img")] == ["p2"]
    assert "Without 2 patients whose picture would make this page too large" in page.text
    double(raw_folder)
    monkeypatch.setattr("ccdcseg.report.check_page.MOST_CHARACTERS", sum(sizes) - 1)
    page = build()
    assert [image["alt"].split("_")[0] for image in page.all("img")] == ["p1", "p3"]
    assert "Without 1 patient whose picture" in page.text
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {attributes["href"].removeprefix("#") for attributes in page.all("a")} <= ids


def test_the_case_with_most_foreground_is_chosen(raw_folder: Path, check, change_volume) -> None:
    change_volume(raw_folder / "labelsTr" / "p1_ED.nii.gz", lambda array: array * 0)
    (raw_folder / "labelsTr" / "p3_ED.nii.gz").unlink()
    assert chosen_cases(check()) == {"p1": "p1_ES", "p2": "p2_ED", "p3": "p3_ES"}


def test_a_patient_without_a_picture(raw_folder: Path, build) -> None:
    for case in ("p1_ED", "p1_ES"):
        (raw_folder / "imagesTr" / f"{case}_0000.nii.gz").write_bytes(b"")
    page = build()
    assert len(page.all("img")) == 2
    assert "No picture: imagesTr/p1_ED_0000.nii.gz" in page.text
    assert str(raw_folder) not in page.source


def test_all_findings_of_a_kind_are_listed_together(raw_folder: Path, check, change_volume) -> None:
    for case in ("p1_ED", "p1_ES"):
        change_volume(raw_folder / "labelsTr" / f"{case}.nii.gz", lambda array: array * 0)
    (raw_folder / "imagesTr" / "p2_ED_0000.nii.gz").unlink()
    (raw_folder / "labelsTr" / "p2_ES.nii.gz").unlink()
    assert [
        (group.check, group.cases, len(group.findings), len(group.remedies)) for group in groups(check())
    ] == [
        ("dataset.json", 0, 1, 1),
        ("missing file", 2, 2, 2),
        ("empty mask", 2, 2, 1),
    ]


def test_names_cannot_become_markup(raw_folder: Path, build, describe_dataset) -> None:
    for path in (raw_folder / "imagesTr" / "p1_ED_0000.nii.gz", raw_folder / "labelsTr" / "p1_ED.nii.gz"):
        path.rename(path.with_name(path.name.replace("p1_ED", EVIL)))
    describe_dataset(raw_folder, channel_names={"0": EVIL}, labels={"background": 0, EVIL: 1, "LV": 2})
    page = build()
    assert len(page.all("script")) == page.source.count("<script") == 1
    assert page.text.count(EVIL) > 5


def test_the_page_needs_nothing_else(build) -> None:
    page = build()
    assert not re.search(r"https?:", page.source)
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,"))


def test_synthetic_data_are_announced(raw_folder: Path, build, describe_dataset) -> None:
    assert "ynthetic" not in build().text
    describe_dataset(raw_folder, synthetic=True)
    assert build().text.startswith("[synthetic] Check of Dataset007_Small")


def test_the_table_on_screen(raw_folder: Path, check, change_volume) -> None:
    double(raw_folder)
    for number in "12":
        for phase in ("ED", "ES"):
            change_volume(
                raw_folder / "labelsTr" / f"p{number}_{phase}.nii.gz", lambda array: array * (array == 1)
            )
    text = " ".join(re.sub(r"[│┃]", " ", screen(check())).split())
    assert "problem duplicate scan 2 p1_ED, p3_ES: the same voxels" in text
    assert "Remove all but one" in text
    assert "note class missing in a case 4 p1_ED: no voxel of LV and 3 more" in text


def test_names_cannot_become_colours(raw_folder: Path, check) -> None:
    mask = raw_folder / "labelsTr" / "p1_ED.nii.gz"
    mask.rename(mask.with_name("[red]p1.nii.gz"))
    assert "[red]p1: mask without image" in screen(check())


def test_the_verdict(raw_folder: Path, check) -> None:
    assert verdict(check()) == "no problems and no notes in 6 cases."
    double(raw_folder)
    assert verdict(check()) == "1 problem and no notes in 6 cases."


def test_ranges() -> None:
    values = {"smallest": [1.0, 5], "median": [2.5, 5], "largest": [1234.0, 5]}
    assert range_text(values) == "1 to 1,234, median 2.5"
    assert range_text(values, 1) == "5"
    large = {"smallest": [12345.6], "median": [23456.7], "largest": [34567.8]}
    assert range_text(large) == "12,346 to 34,568, median 23,457"
    assert range_text(None) == "–"


def test_large_grey_values_are_written_in_full(raw_folder: Path, build) -> None:
    for path in (raw_folder / "imagesTr").iterdir():
        scan = nibabel.load(path)
        grey = (scan.get_fdata() * 400).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(grey, scan.affine), path)
    rows = build().table("Click a heading")[1:]
    assert all(re.search(r"\d{5}", " ".join(row)) for row in rows)
    assert "e+" not in " ".join(cell for row in rows for cell in row)


def test_several_channels(raw_folder: Path, build, describe_dataset) -> None:
    describe_dataset(raw_folder, channel_names={"0": "T1", "1": "T2"})
    for path in list((raw_folder / "imagesTr").iterdir())[:5]:
        path.with_name(path.name.replace("_0000", "_0001")).write_bytes(path.read_bytes())
    header, *rows = build().table("Click a heading")
    assert [title for title in header if "median" in title] == [
        f"{name}: median 1st to 99th percentile" for name in ("T1", "T2")
    ]
    assert {len(row) for row in rows} == {len(header)}


def test_unknown_patients_have_no_column(raw_folder: Path, build) -> None:
    assert build().table("Click a heading")[0][1:3] == ["patient", "group, phase"]
    (raw_folder / "cases.csv").unlink()
    header, *rows = build().table("Click a heading")
    assert header[:2] == ["case", "problems"]
    assert {len(row) for row in rows} == {len(header)}


def test_the_table_of_cases_can_be_sorted_by_number(raw_folder: Path, build) -> None:
    page = build()
    values = [attributes["data-value"] for attributes in page.all("td") if "data-value" in attributes]
    assert json.loads(values[0]) == 4 * 20 * 24
    assert "sortable" in {attributes.get("class") for attributes in page.all("table")}
