import errno
import gzip
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from ccdcseg.datasets import acdc
from ccdcseg.datasets.acdc import prepare_acdc
from ccdcseg.datasets.cases import Case, dataset_folder, read_cases, read_labels
from ccdcseg.datasets.volumes import Volume, read_image, write_volume
from ccdcseg.errors import UserError


@pytest.fixture
def raw_root(tmp_path: Path) -> Path:
    return tmp_path / "raw"


def refuse(source: Path, raw_root: Path, message: str, **kwargs: Any) -> None:
    """A UserError that says ``message``, and nothing left behind."""
    raw_root.mkdir(exist_ok=True)
    before = sorted(raw_root.rglob("*"))
    with pytest.raises(UserError, match=message):
        prepare_acdc(source, raw_root, kwargs.pop("dataset_id", 27), **kwargs)
    assert sorted(raw_root.rglob("*")) == before


def test_a_release_becomes_an_nnunet_folder(release: Path, raw_root: Path) -> None:
    folder = prepare_acdc(release, raw_root, 27)
    assert folder == raw_root / "Dataset027_ACDC" == dataset_folder(raw_root, "27")
    assert [entry.name for entry in raw_root.iterdir()] == ["Dataset027_ACDC"]
    assert {entry.name for entry in folder.iterdir()} == {"imagesTr", "labelsTr", "dataset.json", "cases.csv"}
    cases = read_cases(folder)
    assert cases[:2] == [
        Case("patient001_frame01", "patient001", "DCM", "ED"),
        Case("patient001_frame12", "patient001", "DCM", "ES"),
    ]
    assert {path.name for path in (folder / "imagesTr").iterdir()} == {f"{c.case}_0000.nii.gz" for c in cases}
    assert {path.name for path in (folder / "labelsTr").iterdir()} == {f"{c.case}.nii.gz" for c in cases}
    description = json.loads((folder / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "RV": 1, "Myo": 2, "LV": 3}
    assert description["channel_names"] == {"0": "MRI"}
    assert (description["numTraining"], description["file_ending"]) == (20, ".nii.gz")
    assert "Bernard" in description["reference"]
    assert "CC BY-NC-SA 4.0" in description["licence"]
    assert description["synthetic"] is False
    assert read_labels(folder) == acdc.LABELS


def test_voxels_and_geometry_are_kept(release: Path, raw_root: Path) -> None:
    folder = prepare_acdc(release, raw_root, 27, workers=1)
    source = release / "training" / "patient003" / "patient003_frame12"
    for suffix, target in (("", "imagesTr/patient003_frame12_0000"), ("_gt", "labelsTr/patient003_frame12")):
        before, after = read_image(Path(f"{source}{suffix}.nii.gz")), read_image(folder / f"{target}.nii.gz")
        np.testing.assert_array_equal(after.array, before.array)
        np.testing.assert_allclose(after.affine, before.affine)


@pytest.mark.parametrize("part", ["training", ""])
def test_the_patients_folder_or_its_parent_is_given(release: Path, raw_root: Path, part: str) -> None:
    assert len(read_cases(prepare_acdc(release / part, raw_root, 27))) == 20


def test_training_and_testing_patients_are_taken_together(
    release: Path, raw_root: Path, write_patient: Callable[..., Path]
) -> None:
    write_patient(release / "testing", 101, "RV")
    (release / "testing" / "MANDATORY_CITATION.md").write_text("cite")
    assert read_cases(prepare_acdc(release, raw_root, 27))[-1].patient == "patient101"


def test_a_patient_in_training_and_testing(
    release: Path, raw_root: Path, write_patient: Callable[..., Path]
) -> None:
    write_patient(release / "testing", 4)
    refuse(release, raw_root, r"testing/patient004 and .*training/patient004 are the same patient")


@pytest.mark.parametrize("name", ["patient004 (1)", "Patient004"])
def test_a_patient_of_another_name_is_not_left_out(release: Path, raw_root: Path, name: str) -> None:
    folder = next(release.rglob("patient004"))
    folder.rename(folder.with_name(name))
    refuse(release, raw_root, rf"{re.escape(name)} holds a patient and is not named as one of the release")


def test_progress_counts_all_scans(release: Path, raw_root: Path) -> None:
    steps: list[tuple[int, int]] = []
    prepare_acdc(release, raw_root, 27, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 20) for done in range(1, 21)]


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_no_patient(tmp_path: Path, raw_root: Path, name: str) -> None:
    refuse(tmp_path / name, raw_root, r"holds no patient folder.*patient001")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Info.cfg", r"patient002/Info\.cfg does not exist.*official release"),
        ("patient002_frame12.nii.gz", r"patient002 lacks a file of its ES frame: .*patient002_frame12\.nii"),
        ("patient002_frame01_gt.nii.gz", r"patient002 lacks a file of its ED frame: .*frame01_gt\.nii"),
    ],
)
def test_a_missing_file(release: Path, raw_root: Path, name: str, message: str) -> None:
    (release / "training" / "patient002" / name).unlink()
    refuse(release, raw_root, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ED: 1\nGroup: NOR\n", r"lacks ES\."),
        ("ES: 12\n", r"lacks ED, Group\."),
        ("ED: 1\nES: 12\nGroup:\n", r"lacks Group\."),
        ("ED: first\nES: 12\nGroup: NOR\n", r"gives the ED frame as 'first'"),
        ("ED: 12\nES: 12\nGroup: NOR\n", r"names the same frame, 12, as ED and ES"),
    ],
)
def test_a_damaged_info(release: Path, raw_root: Path, text: str, message: str) -> None:
    (release / "training" / "patient002" / "Info.cfg").write_text(text)
    refuse(release, raw_root, rf"patient002/Info\.cfg {message}")


def test_an_info_that_is_no_text(release: Path, raw_root: Path) -> None:
    (release / "training" / "patient002" / "Info.cfg").write_bytes(b"\xff\xfe\xd8")
    refuse(release, raw_root, r"patient002/Info\.cfg is no text file")


@pytest.mark.parametrize(
    ("change", "spacing_mm", "message"),
    [
        (lambda mask: mask[:, :, :-1], (10.0, 1.5, 1.4), "has another shape"),
        (lambda mask: mask, (10.0, 1.5, 1.5), "has another geometry"),
        (lambda mask: mask * 2, (10.0, 1.5, 1.4), "holds 4, 6, no known label"),
        (lambda mask: mask * 0.5, (10.0, 1.5, 1.4), r"holds 0\.5, 1\.5, no known label"),
        (lambda mask: mask * 0, (10.0, 1.5, 1.4), "is empty"),
    ],
)
def test_a_wrong_mask(
    release: Path,
    raw_root: Path,
    change: Callable[[np.ndarray], np.ndarray],
    spacing_mm: tuple[float, float, float],
    message: str,
) -> None:
    path = release / "training" / "patient009" / "patient009_frame12_gt.nii.gz"
    write_volume(path, Volume(path, change(read_image(path).array), spacing_mm))
    refuse(release, raw_root, rf"patient009_frame12_gt\.nii\.gz {message}")


def test_a_truncated_scan(release: Path, raw_root: Path) -> None:
    path = release / "training" / "patient009" / "patient009_frame12.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    refuse(release, raw_root, r"patient009_frame12\.nii\.gz is truncated or damaged")


def test_a_spacing_of_zero(release: Path, raw_root: Path) -> None:
    path = release / "training" / "patient009" / "patient009_frame01.nii.gz"
    content = gzip.decompress(path.read_bytes())
    header = nibabel.Nifti1Header(content[:348], check=False)
    header["pixdim"][3] = 0
    path.write_bytes(gzip.compress(header.binaryblock + content[348:]))
    refuse(release, raw_root, r"patient009_frame01\.nii\.gz has the spacing \(x, y, z\) \(1\.4, 1\.5, 0\) mm")


def test_an_id_that_is_taken(release: Path, raw_root: Path) -> None:
    (raw_root / "Dataset027_Other").mkdir(parents=True)
    refuse(release, raw_root, r"id 27 is taken by .*Dataset027_Other.*another id")
    prepare_acdc(release, raw_root, 28)
    refuse(release, raw_root, r"id 28 is taken by .*Dataset028_ACDC", dataset_id=28)


@pytest.mark.parametrize("dataset_id", [0, -1, 1000])
def test_an_id_out_of_range(release: Path, raw_root: Path, dataset_id: int) -> None:
    refuse(release, raw_root, r"is out of range.*1 to 999", dataset_id=dataset_id)


def fail_at(number: int, failure: BaseException) -> Callable[..., None]:
    calls = iter(range(1, 1000))

    def fail(path: Path, volume: Volume) -> None:
        if next(calls) >= number:
            raise failure
        write_volume(path, volume)

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failure_of_the_disk_leaves_nothing(
    release: Path, raw_root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr("ccdcseg.datasets.release.write_volume", fail_at(9, OSError(code, os.strerror(code))))
    with pytest.raises(OSError, match=os.strerror(code)):
        prepare_acdc(release, raw_root, 27)
    assert list(raw_root.glob("*")) == []


def test_an_interrupt_leaves_nothing(release: Path, raw_root: Path) -> None:
    def interrupt(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_acdc(release, raw_root, 27, progress=interrupt)
    assert list(raw_root.glob("*")) == []


def test_real_patients(
    real_data: Path, tmp_path: Path, raw_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "release" / "training"
    for number in (1, 45, 85):
        shutil.copytree(
            real_data / "acdc" / "training" / f"patient{number:03d}", source / f"patient{number:03d}"
        )
    folder = prepare_acdc(source.parent, raw_root, 27)
    assert [case.group for case in read_cases(folder)] == ["DCM", "DCM", "MINF", "MINF", "RV", "RV"]
    for target in [*folder.glob("imagesTr/*"), *folder.glob("labelsTr/*")]:
        is_mask = target.parent.name == "labelsTr"
        name = target.name if not is_mask else target.name.replace(".nii.gz", "_gt.nii.gz")
        original = nibabel.load(source / target.name[:10] / name.replace("_0000", ""))
        prepared = nibabel.load(target)
        np.testing.assert_array_equal(np.asarray(prepared.dataobj), np.asarray(original.dataobj))
        np.testing.assert_allclose(prepared.header.get_zooms(), original.header.get_zooms(), rtol=1e-6)
        np.testing.assert_allclose(
            np.abs(np.diag(prepared.affine))[:3], original.header.get_zooms(), rtol=1e-6
        )
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(True)
        SimpleITK.ReadImage(str(target))
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    assert capfd.readouterr() == ("", ""), "ITK warns about what was prepared"


def test_the_real_release_has_twenty_patients_a_group(real_data: Path) -> None:
    folders = acdc._patient_folders(real_data / "acdc")
    cases = [scan.case for folder in folders for scan in acdc._patient_scans(folder)]
    assert Counter(case.group for case in cases if case.phase == "ED") == dict.fromkeys(
        ["DCM", "HCM", "MINF", "NOR", "RV"], 20
    )
    assert len({case.case for case in cases}) == 200
