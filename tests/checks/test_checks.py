import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccdcseg.checks.checks import CheckResult, check_dataset, summary, write_check
from ccdcseg.checks.findings import Severity
from ccdcseg.datasets.acdc import prepare_acdc
from ccdcseg.datasets.volumes import read_image, write_volume
from ccdcseg.errors import UserError

PROBLEM, NOTE = Severity


@pytest.fixture
def check(raw_folder: Path, tmp_path: Path) -> Callable[[], CheckResult]:
    """Check ``raw_folder`` as it is now."""
    return lambda: check_dataset(raw_folder, tmp_path / "cache", workers=1)


@pytest.fixture
def find(check: Callable[[], CheckResult]) -> Callable[[], list[tuple[Severity, str, tuple[str, ...], str]]]:
    """The findings without their remedies, which are all there."""

    def run() -> list[tuple[Severity, str, tuple[str, ...], str]]:
        found = check().findings
        assert all(finding.remedy.endswith(".") for finding in found)
        return [(one.severity, one.check, one.cases, one.text) for one in found]

    return run


def image(folder: Path, case: str, channel: int = 0) -> Path:
    return folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz"


def mask(folder: Path, case: str) -> Path:
    return folder / "labelsTr" / f"{case}.nii.gz"


def test_nothing_is_found_in_a_clean_folder(check: Callable[[], CheckResult]) -> None:
    result = check()
    assert result.findings == ()
    assert (result.problems, result.groups) == ([], [])


def test_the_phantom_has_no_problem(workspace, tmp_path: Path) -> None:
    assert check_dataset(workspace.raw, tmp_path / "cache").problems == []


def test_mask_without_image(raw_folder: Path, find: Callable[[], list]) -> None:
    image(raw_folder, "p2_ED").unlink()
    assert (PROBLEM, "missing file", ("p2_ED",), "mask without image") in find()


def test_image_without_mask(raw_folder: Path, find: Callable[[], list]) -> None:
    mask(raw_folder, "p2_ED").unlink()
    assert find() == [(PROBLEM, "missing file", ("p2_ED",), "image without mask")]


def test_a_missing_and_a_surplus_channel(
    raw_folder: Path, find: Callable[[], list], describe_dataset: Callable[..., None]
) -> None:
    describe_dataset(raw_folder, channel_names={"0": "T1", "1": "T2"})
    for path in list((raw_folder / "imagesTr").iterdir()):
        shutil.copy(path, path.with_name(path.name.replace("_0000", "_0001")))
    image(raw_folder, "p2_ED", 1).unlink()
    shutil.copy(image(raw_folder, "p3_ED"), image(raw_folder, "p3_ED", 2))
    found = find()
    assert (PROBLEM, "missing file", ("p2_ED",), "channel 1 is missing of 2") in found
    assert (
        PROBLEM,
        "surplus file",
        ("p3_ED",),
        "channel 2 is there, but dataset.json declares 2",
    ) in found
    assert (NOTE, "duplicate channel", ("p1_ED",), "channels 0, 1 hold the same voxels") in found


def test_channels_of_scans_without_masks(raw_folder: Path, find: Callable[[], list]) -> None:
    (raw_folder / "imagesTs").mkdir()
    for name in ("a_0000", "a_0001", "b_0001"):
        (raw_folder / "imagesTs" / f"{name}.nii.gz").touch()
    surplus = "channel 1 is there in imagesTs, but dataset.json declares 1"
    assert find() == [
        (PROBLEM, "surplus file", ("a",), surplus),
        (PROBLEM, "missing file", ("b",), "channel 0 is missing of 1 in imagesTs"),
        (PROBLEM, "surplus file", ("b",), surplus),
    ]


def test_files_that_nnunet_passes_over(raw_folder: Path, find: Callable[[], list]) -> None:
    (raw_folder / "imagesTr" / "p1.nii").touch()
    assert find() == [(NOTE, "surplus file", (), "nnU-Net passes over 1 files: imagesTr/p1.nii")]


def test_links_that_lead_nowhere(raw_folder: Path, find: Callable[[], list]) -> None:
    for path in (image(raw_folder, "p2_ED"), mask(raw_folder, "p2_ED")):
        path.unlink()
        path.symlink_to("gone")
    text = "2 links lead nowhere: imagesTr/p2_ED_0000.nii.gz, labelsTr/p2_ED.nii.gz"
    assert (PROBLEM, "missing file", (), text) in find()


def test_hidden_files_that_nnunet_takes_for_cases(raw_folder: Path, find: Callable[[], list]) -> None:
    (raw_folder / "imagesTr" / "._p1_ED_0000.nii.gz").touch()
    (raw_folder / "imagesTr" / ".DS_Store").touch()
    text = "1 hidden files that nnU-Net takes for cases: imagesTr/._p1_ED_0000.nii.gz"
    assert find() == [(PROBLEM, "surplus file", (), text)]


@pytest.mark.parametrize("declared", [7, None, "6"])
def test_another_number_of_cases(
    raw_folder: Path, find: Callable[[], list], describe_dataset: Callable[..., None], declared: object
) -> None:
    describe_dataset(raw_folder, numTraining=declared)
    text = f"numTraining is {declared}, but imagesTr holds 6 cases"
    if declared == "6":
        assert find() == [(PROBLEM, "dataset.json", (), text)]
    else:
        assert (PROBLEM, "dataset.json", (), text) in find()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"RV": 1, "LV": 2, "Myo": 4}, "0, 1, 2, 4"),
        ({"RV": 1, "LV": 3, "ignore": 2}, "0, 1, 2, 3, and 2 is ignored"),
    ],
)
def test_labels_that_nnunet_refuses(
    raw_folder: Path,
    find: Callable[[], list],
    describe_dataset: Callable[..., None],
    labels: dict[str, int],
    words: str,
) -> None:
    describe_dataset(raw_folder, labels={"background": 0, **labels})
    assert (PROBLEM, "dataset.json", (), f"the labels are {words}") in find()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": {"RV": 1, "LV": 2}}, "names no background"),
        ({"dataset": {}}, 'lists its files one by one ("dataset")'),
        (
            {"channel_names": {"1": "CT", "0": "MRI"}},
            "lists the channels 1, 0: nnU-Net normalises them in that order, not by number",
        ),
        (
            {"modality": "CT"},
            'has a "modality", by which nnU-Net counts channels: not 1, as in "channel_names"',
        ),
        (
            {"overwrite_image_reader_writer": "NibabelIO"},
            "names NibabelIO as overwrite_image_reader_writer: trainings read scans with SimpleITKIO alone",
        ),
    ],
)
def test_what_a_training_would_refuse(
    raw_folder: Path, find: Callable[[], list], describe_dataset: Callable[..., None], change: Any, words: str
) -> None:
    describe_dataset(raw_folder, **change)
    assert [(one, text) for one, _, _, text in find() if words in text] == [
        (PROBLEM, f"dataset.json {words}")
    ]


def test_channels_whose_spacing_differs_in_the_fourth_digit(
    raw_folder: Path, find: Callable[[], list], describe_dataset: Callable[..., None]
) -> None:
    describe_dataset(raw_folder, channel_names={"0": "T1", "1": "T2"})
    for case in (path.name.removesuffix("_0000.nii.gz") for path in [*(raw_folder / "imagesTr").iterdir()]):
        volume = read_image(image(raw_folder, case))
        z, y, x = volume.spacing_mm
        spacing_mm = (z, y, 1.0002 * x) if case == "p2_ED" else volume.spacing_mm
        other = replace(volume, spacing_mm=spacing_mm, array=volume.array[..., ::-1].copy())
        write_volume(image(raw_folder, case, 1), other)
    found = [(cases, text) for severity, _, cases, text in find() if severity is PROBLEM]
    assert [cases for cases, _ in found] == [("p2_ED",)]
    assert "which nnU-Net wants to be the same" in found[0][1]


def test_the_ignore_label(
    raw_folder: Path,
    find: Callable[[], list],
    describe_dataset: Callable[..., None],
    change_volume: Callable[..., None],
) -> None:
    describe_dataset(raw_folder, labels={"background": 0, "RV": 1, "LV": 2, "ignore": 3})

    def ignored(array: np.ndarray) -> None:
        array[0] = 3

    change_volume(mask(raw_folder, "p1_ED"), ignored)
    text = "1 of 6 masks have voxels to be ignored; 3 of their 4 slices are annotated"
    assert find() == [(NOTE, "annotated in part", ("p1_ED",), text)]


@pytest.mark.parametrize("allowed", [False, True])
def test_healthy_controls(
    raw_folder: Path,
    find: Callable[[], list],
    describe_dataset: Callable[..., None],
    change_volume: Callable[..., None],
    allowed: bool,
) -> None:
    describe_dataset(raw_folder, empty_masks=allowed)
    change_volume(mask(raw_folder, "p1_ED"), np.zeros_like)
    severity = NOTE if allowed else PROBLEM
    assert find() == [(severity, "empty mask", ("p1_ED",), "no voxel of any class, 0 voxels to be ignored")]


def test_names_that_look_alike(raw_folder: Path, find: Callable[[], list]) -> None:
    for path in raw_folder.glob("*Tr/p1_ED*"):
        path.rename(path.with_name(path.name.replace("p1", "u\u0308")))
    table = raw_folder / "cases.csv"
    table.write_text(table.read_text().replace("p1_ED,p1", "\u00fc_ED,p1"))
    names = ("u\u0308_ED", "\u00fc_ED")
    text = "\u00fc_ED is written in 2 ways that look alike (Unicode), in files or cases.csv"
    assert (PROBLEM, "names", names, text) in find()


def test_patients_that_differ_by_capitals_alone(raw_folder: Path, find: Callable[[], list]) -> None:
    table = raw_folder / "cases.csv"
    table.write_text(table.read_text().replace("p1_ES,p1", "p1_ES,P1"))
    text = "P1, p1 differ by capitals alone, and count as several"
    assert (PROBLEM, "names", ("p1_ED", "p1_ES"), text) in find()


def test_a_scan_without_mask_of_a_patient_in_capitals(raw_folder: Path, find: Callable[[], list]) -> None:
    table = raw_folder / "unlabelled.csv"
    table.write_text("case,patient,group,phase\nx,P1,,\n")
    text = "P1, p1 differ by capitals alone, and count as several"
    assert find() == [(PROBLEM, "names", ("p1_ED", "p1_ES", "x"), text)]
    table.write_text("no table")
    ((_, check, _, text),) = find()
    assert check == "unlabelled.csv" in text


def test_a_case_named_as_the_mask_of_another(raw_folder: Path, find: Callable[[], list]) -> None:
    for path in raw_folder.glob("*Tr/p2_ED*"):
        path.rename(path.with_name(path.name.replace("p2_ED", "p1_ED_seg")))
    text = "nnU-Net keeps the preprocessed mask of another case by this name"
    assert (PROBLEM, "names", ("p1_ED_seg",), text) in find()


def test_patients_unknown(raw_folder: Path, find: Callable[[], list]) -> None:
    (raw_folder / "cases.csv").unlink()
    ((severity, check, cases, _),) = find()
    assert (severity, check, cases) == (NOTE, "patients unknown", ())


def test_a_damaged_table(raw_folder: Path, find: Callable[[], list]) -> None:
    (raw_folder / "cases.csv").write_text("case\np1_ED\n")
    assert find() == [(PROBLEM, "cases.csv", (), "cases.csv has the columns case")]


def test_a_table_that_this_user_may_not_read_is_not_to_be_moved_away(
    raw_folder: Path, check: Callable[[], CheckResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "cases.csv":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    (found,) = check().findings
    assert (found.check, found.text) == (
        "cases.csv",
        "cases.csv is forbidden to this user (Permission denied)",
    )
    assert found.remedy.startswith("Change its rights")


def test_who_does_not_know_the_patients_is_told_of_the_command(
    raw_folder: Path, check: Callable[[], CheckResult]
) -> None:
    (raw_folder / "cases.csv").write_text("case\np1_ED\n")
    assert "ccdcseg patients" in check().findings[0].remedy
    (raw_folder / "cases.csv").unlink()
    assert "ccdcseg patients" in check().findings[0].remedy


def test_a_table_of_other_cases(raw_folder: Path, find: Callable[[], list]) -> None:
    table = raw_folder / "cases.csv"
    table.write_text(table.read_text().replace("p1_ED,", "p9_ED,"))
    assert find() == [
        (PROBLEM, "cases.csv", ("p9_ED",), "names 1 cases that are not there"),
        (PROBLEM, "cases.csv", ("p1_ED",), "lacks 1 cases that are there"),
    ]


def test_unusable_files_do_not_stop_the_others(
    raw_folder: Path, find: Callable[[], list], change_volume: Callable[..., None]
) -> None:
    broken = image(raw_folder, "p1_ED")
    broken.write_bytes(broken.read_bytes()[:60])
    change_volume(mask(raw_folder, "p1_ES"), lambda array: array * 5)
    change_volume(mask(raw_folder, "p2_ED"), lambda array: array.astype(np.float32) / 2)
    change_volume(mask(raw_folder, "p2_ES"), lambda array: array[:, :-1])
    change_volume(image(raw_folder, "p3_ED"), origin_mm=(3.0, 0.0, 0.0))
    found = find()
    assert {severity for severity, *_ in found} == {PROBLEM}
    assert [(check, cases) for _, check, cases, _ in found] == [
        ("unusable image", ("p1_ED",)),
        ("unusable mask", ("p1_ES",)),
        ("unusable mask", ("p2_ED",)),
        ("geometry", ("p2_ES",)),
        ("geometry", ("p3_ED",)),
    ]
    texts = [text for *_, text in found]
    assert texts[0].startswith("imagesTr/p1_ED_0000.nii.gz is truncated or damaged")
    assert "holds 5, 10, no known label" in texts[1]
    assert "holds 0.5, no known label" in texts[2]
    assert "(4, 19, 24) against (4, 20, 24)" in texts[3]
    assert "corners up to 3.00 mm apart" in texts[4]
    assert not any(str(raw_folder) in text for text in texts)


def test_an_empty_mask_and_one_without_a_class(
    raw_folder: Path, find: Callable[[], list], change_volume: Callable[..., None]
) -> None:
    change_volume(mask(raw_folder, "p1_ED"), lambda array: array * 0)
    change_volume(mask(raw_folder, "p2_ED"), lambda array: array * (array == 1))
    assert find() == [
        (PROBLEM, "empty mask", ("p1_ED",), "no voxel of any class, 0 voxels to be ignored"),
        (NOTE, "class missing in a case", ("p2_ED",), "no voxel of LV"),
    ]


def test_a_class_that_nobody_has(
    raw_folder: Path, find: Callable[[], list], describe_dataset: Callable[..., None]
) -> None:
    describe_dataset(raw_folder, labels={"background": 0, "RV": 1, "LV": 2, "Myo": 3})
    assert find() == [(PROBLEM, "class missing everywhere", (), "no mask holds Myo")]


def test_organs_of_two_sides(
    raw_folder: Path, find: Callable[[], list], describe_dataset: Callable[..., None]
) -> None:
    describe_dataset(raw_folder, labels={"background": 0, "Left kidney": 1, "Right kidney": 2})
    text = "Left kidney and Right kidney: `ccdcseg train` does not mirror them"
    assert find() == [(NOTE, "two sides", (), text)]


def test_tiny_components_and_masks_at_the_border(
    raw_folder: Path, find: Callable[[], list], change_volume: Callable[..., None]
) -> None:
    def slips(array: np.ndarray) -> None:
        array[0, 16, 16], array[3, 19, 20:22] = 1, 2

    change_volume(mask(raw_folder, "p1_ED"), slips)
    assert find() == [
        (
            NOTE,
            "tiny components",
            ("p1_ED",),
            "RV: 1 with 1 voxels together; the largest component has 128",
        ),
        (NOTE, "mask at the image border", ("p1_ED",), "voxels at the border of the slices: LV 2"),
    ]


def test_scans_of_two_patients_that_are_the_same(raw_folder: Path, find: Callable[[], list]) -> None:
    shutil.copy(image(raw_folder, "p1_ED"), image(raw_folder, "p3_ES"))
    assert find() == [
        (PROBLEM, "duplicate scan", ("p1_ED", "p3_ES"), "the same voxels in cases of 2 patients: p1, p3")
    ]


def test_an_image_that_is_the_mask(
    raw_folder: Path, find: Callable[[], list], change_volume: Callable[..., None]
) -> None:
    """By the same or other values; one voxel beside it is enough to be none."""
    for number, case in enumerate(("p1_ED", "p2_ED", "p3_ES")):
        shutil.copy(mask(raw_folder, case), image(raw_folder, case))
        change_volume(image(raw_folder, case), lambda array, number=number: array * 10**number + number)
    change_volume(image(raw_folder, "p3_ES"), lambda array: array.put(0, 7))
    text = "channel 0 holds the voxels of the case's own mask, by the same or other values"
    told = [finding for finding in find() if finding[1] == "mask as image"]
    assert told == [(PROBLEM, "mask as image", (case,), text) for case in ("p1_ED", "p2_ED")]


def test_cases_that_share_all_channels_are_named_once(
    raw_folder: Path, find: Callable[[], list], describe_dataset: Callable[..., None]
) -> None:
    describe_dataset(raw_folder, channel_names={"0": "T1", "1": "T2"})
    for channel, source in enumerate(("p1_ED", "p2_ES")):
        for case in ("p1_ED", "p3_ES"):
            content = image(raw_folder, source).read_bytes()
            image(raw_folder, case, channel).write_bytes(content)
    image(raw_folder, "p2_ES").unlink()
    assert [cases for _, check, cases, _ in find() if check == "duplicate scan"] == [("p1_ED", "p3_ES")]


def test_the_same_scan_and_mask_within_a_patient(raw_folder: Path, find: Callable[[], list]) -> None:
    for path in (image, mask):
        shutil.copy(path(raw_folder, "p1_ED"), path(raw_folder, "p1_ES"))
    text = "2 cases of patient p1 hold the same voxels"
    assert find() == [
        (NOTE, "duplicate scan", ("p1_ED", "p1_ES"), text),
        (NOTE, "duplicate mask", ("p1_ED", "p1_ES"), text),
    ]


def test_constant_images_and_empty_masks_are_no_duplicates(
    raw_folder: Path, find: Callable[[], list], change_volume: Callable[..., None]
) -> None:
    for case in ("p1_ED", "p2_ED"):
        change_volume(image(raw_folder, case), lambda array: array * 0)
        change_volume(mask(raw_folder, case), lambda array: array * 0)
    assert {check for _, check, *_ in find()} == {"constant image", "empty mask"}


def test_a_split_is_checked_too(raw_folder: Path, find: Callable[[], list]) -> None:
    (raw_folder / "splits_final.json").write_text(json.dumps([{"train": ["gone"], "val": ["p1_ED"]}]))
    assert (PROBLEM, "split", ("gone",), "fold 0 names 1 cases that are not there") in find()


def test_problems_come_first_and_rules_stay_together(
    raw_folder: Path, check: Callable[[], CheckResult], change_volume: Callable[..., None]
) -> None:
    for case in ("p1_ED", "p2_ED"):
        change_volume(mask(raw_folder, case), lambda array: array * (array == 1))
        shutil.copy(image(raw_folder, case), image(raw_folder, case.replace("ED", "ES")))
    shutil.copy(image(raw_folder, "p1_ED"), image(raw_folder, "p3_ES"))
    found = check()
    assert [(group[0].check, len(group)) for group in found.groups] == [
        ("duplicate scan", 1),
        ("class missing in a case", 2),
        ("duplicate scan", 1),
    ]
    assert found.problems == found.groups[0]


def test_the_summary(raw_folder: Path, check: Callable[[], CheckResult]) -> None:
    (raw_folder / "imagesTs").mkdir()
    (raw_folder / "imagesTs" / "x_0000.nii.gz").touch()
    found = summary(check().survey)
    assert (found["cases"], found["patients"], found["slices"], found["unlabelled"]) == (6, 3, 24, 1)
    assert found["spacing_mm"]["smallest"] == pytest.approx([8, 1.5, 1.4])
    assert found["shape"] == {name: [4, 20, 24] for name in ("smallest", "median", "largest")}
    assert found["axes"] == {"LPS": 6}
    one_ml = 32 * 8 * 1.5 * 1.4 / 1000
    assert found["classes"]["LV"] == {
        "value": 2,
        "voxels": 192,
        "volume_ml": {name: [pytest.approx(one_ml)] for name in ("smallest", "median", "largest")},
        "cases": 6,
    }


def test_a_summary_where_nothing_could_be_read(raw_folder: Path, check: Callable[[], CheckResult]) -> None:
    (raw_folder / "cases.csv").unlink()
    for path in [*(raw_folder / "imagesTr").iterdir(), *(raw_folder / "labelsTr").iterdir()]:
        path.write_bytes(b"")
    result = check()
    found = summary(result.survey)
    assert len(result.problems) == 12
    assert (found["patients"], found["slices"], found["spacing_mm"]) == (None, 0, None)
    assert found["classes"]["RV"]["volume_ml"] is None


def test_everything_is_written(raw_folder: Path, tmp_path: Path, check: Callable[[], CheckResult]) -> None:
    (raw_folder / "cases.csv").unlink()
    result = check()
    write_check(result, tmp_path / "check.json")
    content = json.loads((tmp_path / "check.json").read_text())
    assert content["format"] == "ccdcseg-check/1"
    assert content["dataset"] == "Dataset007_Small"
    assert [finding["check"] for finding in content["findings"]] == ["patients unknown"]
    assert content["findings"][0]["severity"] == "note"
    assert content["cases"]["p1_ED"]["mask"]["voxels"] == {"1": 128, "2": 32}
    assert content["settings"]["deviations"] == 5
    assert str(tmp_path) not in (tmp_path / "check.json").read_text()


def test_an_unusable_description_is_an_error(
    raw_folder: Path, check: Callable[[], CheckResult], describe_dataset: Callable[..., None]
) -> None:
    describe_dataset(raw_folder, labels={"background": 0, "whole": [1, 2]})
    with pytest.raises(UserError, match="region"):
        check()


def test_two_real_patients_are_one_person(real_data: Path, tmp_path: Path) -> None:
    """Of ACDC's training patients, 074 and 076 have the same scans, annotated twice."""
    source = tmp_path / "acdc"
    for number in (74, 75, 76):
        shutil.copytree(
            real_data / "acdc" / "training" / f"patient{number:03d}", source / f"patient{number:03d}"
        )
    raw = prepare_acdc(source, tmp_path / "raw", 27)
    assert [finding.cases for finding in check_dataset(raw, tmp_path / "cache").problems] == [
        ("patient074_frame01", "patient076_frame01"),
        ("patient074_frame12", "patient076_frame12"),
    ]
