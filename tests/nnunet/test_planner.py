"""Planning of scans of one slice, and with nnU-Net's own variable for debugging."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccdcseg.errors import UserError
from ccdcseg.nnunet.plans import base_plans

pytestmark = pytest.mark.filterwarnings("default")


@given(
    st.lists(st.tuples(*[st.integers(2, 40)] * 3), min_size=1, max_size=4),
    st.lists(st.floats(0.5, 9), min_size=3, max_size=3),
)
@settings(deadline=None, max_examples=40)
def test_scans_of_several_slices_are_planned_as_by_nnunet(shapes: list, spacing: list) -> None:
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    from ccdcseg.nnunet import planner

    def transpose(kind: Any) -> Any:
        made = object.__new__(kind)
        made.overwrite_target_spacing, made.suppress_transpose, made.anisotropy_threshold = None, False, 3
        made.dataset_fingerprint = {"shapes_after_crop": shapes, "spacings": [spacing] * len(shapes)}
        return [[int(axis) for axis in axes] for axes in made.determine_transpose()]

    assert transpose(planner.ExperimentPlanner) == transpose(ExperimentPlanner)


@pytest.fixture
def flat_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nnU-Net raw folder of 3-D scans of one slice: pixels of 1.5 mm, a thickness of 1 mm."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    folder = tmp_path / "nnUNet_raw" / "Dataset077_Flat"
    affine = np.diag([1.5, 1.5, 1.0, 1.0])
    for number in range(3):
        voxels = np.random.default_rng(number).integers(0, 900, (40, 36, 1)).astype(np.int16)
        for place, array in ((f"imagesTr/c{number}_0000", voxels), (f"labelsTr/c{number}", voxels > 500)):
            path = folder / f"{place}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array.astype(np.int16), affine), path)
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}, "numTraining": 3}
    (folder / "dataset.json").write_text(json.dumps(description | {"file_ending": ".nii.gz"}))
    return folder


def test_scans_of_one_slice_are_sliced_across_it(flat_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nnUNet_n_proc_DA=0, on which nnU-Net's planner fails, and an old folder of the same number."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    preprocessed = flat_folder.parents[1] / "nnUNet_preprocessed" / flat_folder.name
    preprocessed.with_name("Dataset077_Old").mkdir()
    plans = base_plans(flat_folder, preprocessed, 1)
    assert plans["transpose_forward"] == [0, 1, 2]
    assert plans["original_median_shape_after_transp"] == [1, 36, 40]
    assert plans["experiment_planner_used"] == "ExperimentPlanner"
    assert list(plans["configurations"]) == ["2d"]
    assert plans["configurations"]["2d"]["spacing"] == [1.5, 1.5]
    wrong = plans | {"original_median_shape_after_transp": [36, 1, 40]}
    wrong["original_median_spacing_after_transp"] = [1.5, 1.0, 1.5]
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(wrong))
    with pytest.raises(
        UserError, match=r"nnUNetPlans\.json slices scans of one slice into lines.*Move it away"
    ):
        base_plans(flat_folder, preprocessed, 1)


@pytest.mark.parametrize("reader", [None, "None", "SimpleITKIO"])
def test_no_other_reader_is_planned_with(flat_folder: Path, describe_dataset: Any, reader: Any) -> None:
    """nnU-Net takes null for a name."""
    describe_dataset(flat_folder, overwrite_image_reader_writer=reader)
    preprocessed = flat_folder.parents[1] / "nnUNet_preprocessed" / flat_folder.name
    plans = base_plans(flat_folder, preprocessed, 1)
    assert plans["image_reader_writer"] == "SimpleITKIO"
    theirs = plans | {"image_reader_writer": "NibabelIOWithReorient"}
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(theirs))
    with pytest.raises(UserError, match=r"Plans\.json names NibabelIOWithReorient as .* Move it away"):
        base_plans(flat_folder, preprocessed, 1)
    (preprocessed / "nnUNetPlans.json").unlink()
    assert base_plans(flat_folder, preprocessed, 1) == plans


def test_a_scan_that_cannot_be_used_is_named_before_planning(flat_folder: Path) -> None:
    path = flat_folder / "labelsTr" / "c1.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"labelsTr/c1\.nii\.gz is truncated or damaged"):
        base_plans(flat_folder, flat_folder.parents[1] / "nnUNet_preprocessed" / flat_folder.name, 1)


@pytest.mark.parametrize("before", ["[]", '[{"train": ["c2"], "val": ["c1"]}]'])
def test_splits_of_before_are_left_alone(flat_folder: Path, before: str) -> None:
    """Fewer than there are now, or others: they are renewed after the planning."""
    (flat_folder / "splits_final.json").write_text('[{"train": ["c0"], "val": ["c1"]}]')
    copy = flat_folder.parents[1] / "nnUNet_preprocessed" / flat_folder.name / "splits_final.json"
    copy.parent.mkdir()
    copy.write_text(before)
    assert base_plans(flat_folder, copy.parent, 1)["dataset_name"] == flat_folder.name
    assert copy.read_text() == before
