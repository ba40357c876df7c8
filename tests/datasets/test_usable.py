import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccdcseg.datasets.usable import check_cases, check_description, check_scan
from ccdcseg.errors import UserError

LABELS = {"RV": 1, "LV": 2}


def test_a_clean_folder(raw_folder: Path) -> None:
    check_description(raw_folder)
    check_cases(raw_folder, ["p1_ED", "p2_ES"], 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"background": 0, "RV": 1, "LV": 65535},
            r"dataset\.json: the labels are 0, 1, 65535\. .*without gaps",
        ),
        ({"background": 0, "RV": 2, "LV": 3, "ignore": 1}, r"0, 1, 2, 3, and 1 is ignored\."),
        ({"RV": 1, "LV": 2}, r'names no background\. Write "background": 0'),
    ],
)
def test_labels_that_nnunet_takes_otherwise(
    raw_folder: Path, describe_dataset: Callable[..., None], labels: dict[str, int], message: str
) -> None:
    describe_dataset(raw_folder, labels=labels)
    with pytest.raises(UserError, match=message):
        check_description(raw_folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": {"1": "CT", "0": "MRI"}}, r"dataset\.json lists the channels 1, 0: .*, 0 first\."),
        ({"modality": "CT"}, r'has a "modality", .*: not 1, as in "channel_names"\. Take "modality" out\.'),
        ({"modality": {"0": "CT", "1": "MRI"}}, 'Take "modality" out'),
        ({"modality": None}, 'Take "modality" out'),
    ],
)
def test_channels_that_nnunet_takes_otherwise(
    raw_folder: Path, describe_dataset: Callable[..., None], change: dict[str, Any], message: str
) -> None:
    describe_dataset(raw_folder, **change)
    with pytest.raises(UserError, match=message):
        check_description(raw_folder)


def test_a_modality_by_which_nnunet_counts_the_same(
    raw_folder: Path, describe_dataset: Callable[..., None]
) -> None:
    describe_dataset(raw_folder, modality={"0": "MRI"})
    check_description(raw_folder)


@pytest.mark.parametrize(
    "reader", ["NibabelIO", "SimpleITKIOWithReorient", "Tiff3DIO", "np", ["SimpleITKIO"]]
)
def test_another_reader(raw_folder: Path, describe_dataset: Callable[..., None], reader: Any) -> None:
    describe_dataset(raw_folder, overwrite_image_reader_writer=reader)
    with pytest.raises(
        UserError, match=r'dataset\.json names .*SimpleITKIO alone\. Take "overwrite_image_re'
    ):
        check_description(raw_folder)


@pytest.mark.parametrize("reader", [None, "None", "SimpleITKIO"])
def test_the_reader_of_all_trainings(
    raw_folder: Path, describe_dataset: Callable[..., None], reader: str | None
) -> None:
    describe_dataset(raw_folder, overwrite_image_reader_writer=reader)
    check_description(raw_folder)


def test_a_hidden_file(raw_folder: Path) -> None:
    (raw_folder / "imagesTr" / "._p1_ED_0000.nii.gz").touch()
    with pytest.raises(
        UserError, match=r"\._p1_ED_0000\.nii\.gz is a hidden file, which nnU-Net takes for a scan"
    ):
        check_description(raw_folder)


def cut_short(path: Path, change_volume: Callable[..., None]) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def not_finite(path: Path, change_volume: Callable[..., None]) -> None:
    change_volume(path, lambda array: np.where(array == array.max(), np.nan, array).astype(np.float32))


def another_shape(path: Path, change_volume: Callable[..., None]) -> None:
    change_volume(path, lambda array: array[:, :-2])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("imagesTr/p2_ED_0000", cut_short, r"p2_ED_0000\.nii\.gz is truncated or damaged"),
        ("imagesTr/p2_ED_0000", not_finite, r"p2_ED_0000\.nii\.gz holds 1 voxels that are NaN"),
        ("labelsTr/p2_ED", another_shape, r"labelsTr/p2_ED\.nii\.gz has another shape .*than .*p2_ED_0000"),
        ("labelsTr/p2_ED", cut_short, r"labelsTr/p2_ED\.nii\.gz is truncated or damaged"),
    ],
)
def test_a_scan_that_cannot_be_used_is_named(
    raw_folder: Path,
    change_volume: Callable[..., None],
    name: str,
    damage: Callable[[Path, Any], None],
    message: str,
) -> None:
    damage(raw_folder / f"{name}.nii.gz", change_volume)
    with pytest.raises(UserError, match=message):
        check_cases(raw_folder, ["p1_ED", "p2_ED"], 1)


def test_channels_whose_spacing_nnunet_takes_for_another(
    raw_folder: Path, change_volume: Callable[..., None]
) -> None:
    images = [raw_folder / "imagesTr" / f"p{number}_ED_0000.nii.gz" for number in (1, 2)]
    check_scan(images)
    change_volume(images[1], spacing_mm=(8.0, 1.5, 1.4002))
    with pytest.raises(
        UserError, match=r"p2_ED_0000.* has another spacing than .*p1_ED_0000.*1\.4002\) against"
    ):
        check_scan(images)


def test_the_ignore_label_is_no_fault(raw_folder: Path, change_volume: Callable[..., None]) -> None:
    description = json.loads((raw_folder / "dataset.json").read_text())
    description["labels"]["ignore"] = 3
    (raw_folder / "dataset.json").write_text(json.dumps(description))
    change_volume(raw_folder / "labelsTr" / "p1_ED.nii.gz", lambda array: np.where(array == 2, 3, array))
    check_description(raw_folder)
    check_cases(raw_folder, ["p1_ED"], 1)
