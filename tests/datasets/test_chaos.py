import itertools
import json
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from dicom_fields import set_fields
from PIL import Image

from ccdcseg.datasets import chaos
from ccdcseg.datasets.cases import Case, read_cases, read_labels
from ccdcseg.datasets.chaos import prepare_chaos_ct, prepare_chaos_mr
from ccdcseg.datasets.sequences import ChaosSequence
from ccdcseg.datasets.splits import split_dataset
from ccdcseg.datasets.volumes import Volume, read_image, read_mask
from ccdcseg.errors import UserError
from ccdcseg.runs.scoring import evaluate_folder

SPACING_MM = (7.7, 1.5, 1.25)
LABELS = np.zeros((4, 8, 9), np.uint8)
for value in (1, 2, 3, 4):
    LABELS[value - 1 :, 2 * value - 2, value : value + 3] = value
Write = Callable[..., list[Path]]


def pixels(patient: int, sequence: str) -> np.ndarray:
    """Made-up 12-bit pixels."""
    return np.random.default_rng([patient, *sequence.encode()]).integers(0, 4096, LABELS.shape)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, write_slices: Write, write_masks: Write) -> Path:
    """Two MR patients and one CT patient in the challenge's layout, from made-up pixels and headers."""
    root = tmp_path_factory.mktemp("chaos")
    for number in (1, 10):
        t1, t2 = (root / "MR" / str(number) / name for name in ("T1DUAL", "T2SPIR"))
        write_slices(t1 / "DICOM_anon" / "InPhase", pixels(number, "t1-in"), SPACING_MM, first=2, step=2)
        write_slices(t1 / "DICOM_anon" / "OutPhase", pixels(number, "t1-out"), SPACING_MM, first=1, step=2)
        write_slices(t2 / "DICOM_anon", pixels(number, "t2"), SPACING_MM)
        write_masks(t1 / "Ground", LABELS)
        write_masks(t2 / "Ground", LABELS[:, ::-1])
    write_slices(root / "CT" / "5" / "DICOM_anon", pixels(5, "ct"), (2.0, 0.7, 0.7))
    for path in write_masks(root / "CT" / "5" / "Ground", np.minimum(LABELS, 1), (0, 255)):
        Image.open(path).convert("1").save(path)
    return root


@pytest.fixture
def release(pristine: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(pristine, tmp_path / "release"))


@pytest.fixture
def raw_root(tmp_path: Path) -> Path:
    return tmp_path / "raw"


def refuse(
    source: Path, raw_root: Path, message: str, prepare: Any = prepare_chaos_mr, **kwargs: Any
) -> None:
    """A UserError of one line that says ``message``, and nothing left behind."""
    raw_root.mkdir(exist_ok=True)
    before = sorted(raw_root.rglob("*"))
    with pytest.raises(UserError, match=message) as error:
        prepare(source, raw_root, kwargs.pop("dataset_id", 40), **{"workers": 1, **kwargs})
    assert "\n" not in str(error.value)
    assert sorted(raw_root.rglob("*")) == before


def test_the_mr_release_becomes_an_nnunet_folder(pristine: Path, raw_root: Path) -> None:
    steps: list[tuple[int, int]] = []
    folder = prepare_chaos_mr(pristine, raw_root, 40, workers=1, progress=lambda *step: steps.append(step))
    assert folder == raw_root / "Dataset040_CHAOS_MR"
    assert steps == [(done, 6) for done in range(1, 7)]
    cases = read_cases(folder)
    assert cases == [
        Case(f"{patient}_{phase}", patient, "", phase)
        for patient in ("mr01", "mr10")
        for phase in ("t1-in", "t1-out", "t2")
    ]
    assert {path.name for path in (folder / "imagesTr").iterdir()} == {f"{c.case}_0000.nii.gz" for c in cases}
    assert {path.name for path in (folder / "labelsTr").iterdir()} == {f"{c.case}.nii.gz" for c in cases}
    description = json.loads((folder / "dataset.json").read_text())
    assert (description["numTraining"], description["channel_names"]) == (6, {"0": "MRI"})
    assert "Kavur" in description["reference"]
    assert "CC BY-NC-SA 4.0" in description["licence"]
    assert read_labels(folder) == {"liver": 1, "right_kidney": 2, "left_kidney": 3, "spleen": 4}


def test_pixels_masks_and_places_are_kept(pristine: Path, raw_root: Path) -> None:
    folder = prepare_chaos_mr(pristine, raw_root, 40, workers=1)
    for patient, sequence in itertools.product((1, 10), ("t1-in", "t1-out", "t2")):
        image = read_image(folder / "imagesTr" / f"mr{patient:02d}_{sequence}_0000.nii.gz")
        mask = read_mask(folder / "labelsTr" / f"mr{patient:02d}_{sequence}.nii.gz", chaos.MR_LABELS)
        np.testing.assert_array_equal(image.array, pixels(patient, sequence))
        np.testing.assert_array_equal(mask.array, LABELS[:, ::-1] if sequence == "t2" else LABELS)
        for volume in (image, mask):
            assert volume.spacing_mm == pytest.approx(SPACING_MM)
            assert volume.origin_mm == pytest.approx((-100, -80, 30))
            assert volume.direction == pytest.approx(np.eye(3).ravel())


def test_an_oblique_scan_stays_oblique(
    release: Path, raw_root: Path, write_slices: Write, write_masks: Write
) -> None:
    axes = np.array([[0, np.cos(0.2), -np.sin(0.2)], [0, np.sin(0.2), np.cos(0.2)]])
    place = release / "MR" / "1" / "T2SPIR"
    write_slices(place / "DICOM_anon", pixels(1, "t2"), SPACING_MM, axes=axes)
    folder = prepare_chaos_mr(release / "MR" / "1", raw_root, 40, [ChaosSequence.T2], workers=1)
    image, mask = (
        read_image(path) for part in ("imagesTr", "labelsTr") for path in (folder / part).iterdir()
    )
    np.testing.assert_allclose(np.reshape(image.direction, (3, 3)).T[:2], axes, atol=1e-5)
    np.testing.assert_allclose(mask.affine, image.affine)
    np.testing.assert_array_equal(image.array, pixels(1, "t2"))


def test_names_count_where_their_numbers_have_no_zeros(release: Path, raw_root: Path) -> None:
    place = release / "MR" / "1" / "T2SPIR"
    for path in [*place.glob("*/*.dcm"), *place.glob("*/*.png")]:
        path.rename(path.with_name(f"{int(path.stem[-5:]) + 7}{path.suffix}"))
    (place / "Ground" / "._7.png").write_bytes(b"of another system")
    folder = prepare_chaos_mr(release, raw_root, 40, [ChaosSequence.T2], workers=1)
    mask = read_image(folder / "labelsTr" / "mr01_t2.nii.gz")
    np.testing.assert_array_equal(mask.array, LABELS[:, ::-1])


@pytest.mark.parametrize("sequences", [["t2"], ["t1-out", "t1-in"], ["t2", "t2"]])
def test_some_sequences(pristine: Path, raw_root: Path, sequences: list[str]) -> None:
    wanted = [ChaosSequence(name) for name in sequences]
    cases = read_cases(prepare_chaos_mr(pristine / "MR" / "10", raw_root, 40, wanted, workers=1))
    assert [case.case for case in cases] == [f"mr10_{name}" for name in sorted(set(sequences))]


@pytest.mark.parametrize("inside", ["", "Train_Sets", "CHAOS_Train_Sets/Train_Sets"])
def test_the_release_or_its_parts_are_given(
    pristine: Path, tmp_path: Path, raw_root: Path, inside: str
) -> None:
    release = tmp_path / "unpacked"
    shutil.copytree(pristine / "CT", release / inside / "CT")
    for number, source in enumerate(
        [release, release / inside / "CT", release / inside / "CT" / "5"], start=50
    ):
        cases = read_cases(prepare_chaos_ct(source, raw_root, number, workers=1))
        assert cases == [Case("ct05", "ct05", "", "")]


def test_a_folder_with_a_name_of_its_own(release: Path, raw_root: Path) -> None:
    (release / "CT" / "5").rename(release / "my scan")
    assert read_cases(prepare_chaos_ct(release / "my scan", raw_root, 41))[0].patient == "my_scan"


def test_ct_is_in_hounsfield_units(release: Path, raw_root: Path) -> None:
    for path in (release / "CT" / "5" / "DICOM_anon").iterdir():
        set_fields(path, RescaleSlope=1, RescaleIntercept=-1000)
    folder = prepare_chaos_ct(release, raw_root, 41, workers=1)
    assert folder.name == "Dataset041_CHAOS_CT"
    image = read_image(folder / "imagesTr" / "ct05_0000.nii.gz")
    assert image.array.dtype == np.int16
    np.testing.assert_array_equal(image.array, pixels(5, "ct") - 1000)
    mask = read_mask(folder / "labelsTr" / "ct05.nii.gz", chaos.CT_LABELS)
    np.testing.assert_array_equal(mask.array, np.minimum(LABELS, 1))
    description = json.loads((folder / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"}
    assert read_labels(folder) == {"liver": 1}


@pytest.mark.parametrize(
    ("grey", "label"), [(55, 1), (70, 1), (110, 2), (135, 2), (175, 3), (200, 3), (240, 4), (255, 4)]
)
def test_bands_of_grey(release: Path, raw_root: Path, write_masks: Write, grey: int, label: int) -> None:
    ground = release / "MR" / "1" / "T2SPIR" / "Ground"
    write_masks(ground, np.minimum(LABELS, 1), (0, grey))
    folder = prepare_chaos_mr(release / "MR" / "1", raw_root, 40, [ChaosSequence.T2], workers=1)
    mask = read_mask(folder / "labelsTr" / "mr01_t2.nii.gz", chaos.MR_LABELS)
    np.testing.assert_array_equal(mask.array, label * np.minimum(LABELS, 1))


@pytest.mark.parametrize("grey", [1, 54, 71, 109, 136, 174, 201, 239])
def test_grey_of_no_organ(release: Path, raw_root: Path, write_masks: Write, grey: int) -> None:
    paths = write_masks(release / "MR" / "1" / "T2SPIR" / "Ground", LABELS, (0, 63, 126, 189, grey))
    message = rf"{paths[0].name} holds the value {grey}, which is no organ's: these are 55 to 70, 110 to 135"
    refuse(release, raw_root, message)


def repaint(mode: str, size: tuple[int, int] = (9, 8)) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, size).save(path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def huge_png(path: Path) -> None:
    content = path.read_bytes()
    header = b"IHDR" + (60000).to_bytes(4) * 2 + content[24:29]
    path.write_bytes(content[:12] + header + zlib.crc32(header).to_bytes(4) + content[33:])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("Ground/IMG-0004-00002.png", Path.unlink, r"DICOM_anon holds 4 slices, .*Ground 3 masks"),
        ("DICOM_anon/IMG-0004-00002.dcm", Path.unlink, r"DICOM_anon holds 3 slices, .*Ground 4 masks"),
        ("Ground", shutil.rmtree, r"T2SPIR/Ground holds no \.png file.*test sets have no masks"),
        ("DICOM_anon", shutil.rmtree, r"T2SPIR/DICOM_anon holds no \.dcm file"),
        ("Ground/IMG-0004-00002.png", repaint("L", (8, 9)), r"00002\.png has 9 x 8 pixels, its slice 8 x 9"),
        ("Ground/IMG-0004-00002.png", repaint("RGB"), r"00002\.png is no grey mask of 1 or 8 bits \(RGB\)"),
        ("Ground/IMG-0004-00002.png", cut_short, r"00002\.png is damaged or no PNG file"),
        ("Ground/IMG-0004-00002.png", huge_png, r"00002\.png declares absurdly many pixels"),
        ("Ground/IMG-0004-00002.png", lambda path: path.write_text("x"), r"00002\.png is damaged or no PNG"),
        ("DICOM_anon/IMG-0004-00002.dcm", cut_short, r"00002\.dcm is damaged or cut short"),
        ("DICOM_anon/IMG-0004-00002.dcm", lambda path: path.write_text("x"), r"00002\.dcm is no DICOM file"),
    ],
)
def test_a_damaged_release(
    release: Path, raw_root: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(release / "MR" / "10" / "T2SPIR" / name)
    refuse(release, raw_root, message)


def test_a_missing_slice_with_its_mask(release: Path, raw_root: Path) -> None:
    for path in (release / "MR" / "10" / "T2SPIR").glob("*/IMG-0004-00002.*"):
        path.unlink()
    refuse(release, raw_root, r"00003\.dcm and .*00001\.dcm are neighbours 15\.4 mm apart")


def test_a_mask_without_organs(release: Path, raw_root: Path, write_masks: Write) -> None:
    write_masks(release / "MR" / "10" / "T2SPIR" / "Ground", 0 * LABELS)
    refuse(release, raw_root, r"10/T2SPIR/Ground is empty")


def test_no_patient(release: Path, raw_root: Path) -> None:
    refuse(release.parent / "nowhere", raw_root, r"nowhere holds no patient folder of CHAOS MR")
    refuse(release / "MR", raw_root, r"1/DICOM_anon holds no \.dcm file", prepare_chaos_ct)


def test_a_patient_twice(release: Path, raw_root: Path) -> None:
    shutil.copytree(release / "MR" / "1", release / "MR" / "01")
    refuse(release, raw_root, r"MR/0?1 and .*MR/0?1 are the same patient")


def test_a_patient_of_another_name_is_not_left_out(release: Path, raw_root: Path) -> None:
    (release / "MR" / "1").rename(release / "MR" / "1 (2)")
    refuse(release, raw_root, r"MR/1 \(2\) holds a patient and is not named as one of the release")


def test_an_id_that_is_taken(pristine: Path, raw_root: Path) -> None:
    (raw_root / "Dataset040_CHAOS_MR").mkdir(parents=True)
    refuse(pristine, raw_root, r"id 40 is taken by .*Dataset040_CHAOS_MR.*another id")


def test_processes_give_the_same_bytes_and_hand_errors_over(release: Path, raw_root: Path) -> None:
    one = prepare_chaos_mr(release, raw_root, 40, [ChaosSequence.T2], workers=1)
    two = prepare_chaos_mr(release, raw_root, 41, [ChaosSequence.T2], workers=2)
    for path in one.rglob("*.nii.gz"):
        assert (two / path.relative_to(one)).read_bytes() == path.read_bytes()
    cut_short(release / "MR" / "10" / "T2SPIR" / "DICOM_anon" / "IMG-0004-00002.dcm")
    refuse(release, raw_root, r"00002\.dcm is damaged or cut short", dataset_id=42, workers=2)


def test_an_interrupt_leaves_nothing_though_processes_were_writing(pristine: Path, raw_root: Path) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_chaos_mr(pristine, raw_root, 40, workers=2, progress=interrupt)
    time.sleep(0.2)
    assert list(raw_root.glob("*")) == []


def test_few_label_splits_hold_a_patient_together(pristine: Path, raw_root: Path) -> None:
    folder = prepare_chaos_mr(pristine, raw_root, 40, workers=1)
    (entry,) = split_dataset(folder, [0.5], 0)
    assert (len(entry["train"]), len(entry["test"])) == (3, 3)
    assert len({name[:4] for name in entry["train"]}) == 1
    assert not {name[:4] for name in entry["train"]} & {name[:4] for name in entry["test"]}


def test_the_command_line(
    release: Path, raw_root: Path, ccdcseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(raw_root))
    done = ccdcseg("prepare", "chaos", release, "--dataset", 40, "--sequence", "t2", "--processes", 1)
    assert (done.code, len(read_cases(raw_root / "Dataset040_CHAOS_MR"))) == (0, 2)
    assert "ccdcseg split 40" in done.out
    assert ccdcseg("prepare", "chaos-ct", release / "CT", "--dataset", 41, "--processes", 1).code == 0
    shutil.rmtree(release / "MR" / "1" / "T1DUAL" / "DICOM_anon" / "OutPhase")
    failed = ccdcseg("prepare", "chaos", release, "--dataset", 42, "--processes", 1)
    assert failed.code == 2
    assert "OutPhase holds no .dcm file" in failed.err
    assert sorted(path.name for path in raw_root.iterdir()) == ["Dataset040_CHAOS_MR", "Dataset041_CHAOS_CT"]


@pytest.fixture
def real_mr(real_data: Path, tmp_path: Path, write_slices: Write, write_masks: Write) -> Path:
    """Patient 19 in the challenge's layout: real T2-SPIR pixels and labels (resampled by a third party), made-up
    headers. The T1-DUAL images are made up from them: their own values and those subtracted from 4095.
    """
    image, label = (
        SimpleITK.DICOMOrient(
            SimpleITK.ReadImage(str(real_data / "chaos_t2_nifti" / f"{kind}_19.nii.gz")), "LPS"
        )
        for kind in ("image", "label")
    )
    array, labels = (SimpleITK.GetArrayFromImage(volume).astype(np.uint16) for volume in (image, label))
    axes = np.reshape(image.GetDirection(), (3, 3)).T[:2]
    place = image.GetSpacing()[::-1], image.GetOrigin(), axes
    t1, t2 = (tmp_path / "release" / "MR" / "19" / name for name in ("T1DUAL", "T2SPIR"))
    write_slices(t2 / "DICOM_anon", array, *place)
    write_slices(t1 / "DICOM_anon" / "InPhase", array, *place, first=2, step=2)
    write_slices(t1 / "DICOM_anon" / "OutPhase", 4095 - array, *place, first=1, step=2)
    for folder in (t1, t2):
        write_masks(folder / "Ground", labels)
    return tmp_path / "release"


def test_real_mr_pixels(real_mr: Path, real_data: Path, raw_root: Path) -> None:
    folder = prepare_chaos_mr(real_mr, raw_root, 40, workers=1)
    image, label = (
        nibabel.as_closest_canonical(nibabel.load(real_data / "chaos_t2_nifti" / f"{kind}_19.nii.gz"))
        for kind in ("image", "label")
    )
    expected = np.asarray(image.dataobj)
    for sequence, array in (("t1-in", expected), ("t1-out", 4095 - expected), ("t2", expected)):
        prepared, mask = (
            nibabel.as_closest_canonical(nibabel.load(folder / name))
            for name in (f"imagesTr/mr19_{sequence}_0000.nii.gz", f"labelsTr/mr19_{sequence}.nii.gz")
        )
        np.testing.assert_array_equal(np.asarray(prepared.dataobj), array)
        np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(label.dataobj))
        for volume in (prepared, mask):
            np.testing.assert_allclose(volume.affine, image.affine, atol=1e-4)


def test_the_real_ct_patient(real_data: Path, tmp_path: Path, raw_root: Path) -> None:
    # 0.7265625 mm pixels; slices 2 mm apart by their positions, while SliceThickness says 3.2 mm.
    folders = {}
    for number, masks in ((41, "Ground"), (42, "Segmentation")):
        source = tmp_path / masks / "CT" / "3"
        source.mkdir(parents=True)
        (source / "DICOM_anon").symlink_to(real_data / "chaos_ct_dicom" / "DICOM_anon")
        (source / "Ground").symlink_to(real_data / "chaos_ct_dicom" / masks)
        folders[masks] = prepare_chaos_ct(source, raw_root, number, workers=1)
    image = read_image(folders["Ground"] / "imagesTr" / "ct03_0000.nii.gz")
    mask = read_mask(folders["Ground"] / "labelsTr" / "ct03.nii.gz", chaos.CT_LABELS)
    check_real_ct(real_data / "chaos_ct_dicom", image, mask)
    result = evaluate_folder(
        folders["Ground"] / "labelsTr",
        folders["Segmentation"] / "labelsTr",
        chaos.CT_LABELS,
        {"ct03": "ct03"},
    )
    (row,) = result.cases
    assert row.dice == pytest.approx(0.978, abs=5e-4)
    assert row.hd_mm == pytest.approx(14, abs=1e-6)
    # 0.734 without the liver's cut at the end of the image: see test_known_answer_of_the_chaos_organisers.
    assert row.assd_mm == pytest.approx(0.713, abs=5e-4)


def check_real_ct(source: Path, image: Volume, mask: Volume) -> None:
    assert image.array.shape == (78, 512, 512)
    assert image.spacing_mm == pytest.approx((2.0, 0.7265625, 0.7265625))
    assert image.origin_mm == pytest.approx((-185, -98, 1536.5))
    assert image.direction == pytest.approx(np.eye(3).ravel())
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(source / "DICOM_anon")))
    np.testing.assert_array_equal(image.array, SimpleITK.GetArrayFromImage(reader.Execute()))
    white = sum(int(np.count_nonzero(Image.open(path))) for path in (source / "Ground").glob("*.png"))
    assert mask.array.sum() == white == 1_342_595
    liver = image.array[mask.array == 1]
    assert (liver.mean(), liver.std()) == pytest.approx((141, 34), abs=0.5)
    assert liver_is_right_of_the_body(image, mask)


def liver_is_right_of_the_body(image: Volume, mask: Volume) -> bool:
    """In LPS coordinates x grows towards the left of the patient."""
    centres = [np.argwhere(voxels).mean(axis=0)[::-1] for voxels in (mask.array > 0, image.array > -300)]
    liver, body = (image.affine @ [*centre, 1] for centre in centres)
    return bool(liver[0] < body[0] - 50)
