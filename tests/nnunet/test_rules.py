import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scored
import SimpleITK

from ccdcseg.errors import UserError
from ccdcseg.nnunet.rules import NNUNET_RULES, RULES, read_rules, write_rules
from ccdcseg.postprocessing import SPECK, decide, keep_pieces

pytestmark = pytest.mark.filterwarnings("default")

LABELS = {"rv": 1, "lv": 2}


def masks():
    """Foreground and left ventricle in one piece, right ventricle in two."""
    whole = np.zeros((3, 8, 8), np.uint8)
    whole[:, 2:5, 2:5] = 2
    whole[:, 1, 2:5] = 1
    whole[0, 5, 2:5] = 1
    return [whole]


def test_rules_are_read_as_they_were_written(tmp_path: Path):
    rules = decide(masks(), LABELS)
    write_rules(rules, LABELS, tmp_path)
    assert read_rules(tmp_path) == rules
    assert rules.shares == {"foreground": 1.0, "rv": SPECK * 0.25, "lv": 1.0}


def test_a_run_without_rules(tmp_path: Path):
    assert read_rules(tmp_path) is None
    (tmp_path / "run.json").write_text(json.dumps(scored.record()))
    assert read_rules(tmp_path) is None


def test_rules_whose_file_is_gone_are_those_of_the_record(tmp_path: Path):
    rules = decide(masks(), LABELS)
    (tmp_path / "run.json").write_text(json.dumps(scored.record(postprocessing=rules.record())))
    assert read_rules(tmp_path) == rules


RENAMED = '{"shares": {"foregroud": 1.0}, "counts": {}, "masks": 1}'


@pytest.mark.parametrize(
    "content", ["{}", '{"shares": {"rv": "much"}, "counts": {}, "masks": 1}', "[]", "{", RENAMED]
)
def test_damaged_rules_are_named(tmp_path: Path, content):
    (tmp_path / RULES).write_text(content)
    with pytest.raises(UserError, match=r"postprocessing\.json is .*train again.*--no-postprocessing"):
        read_rules(tmp_path)


def test_nnunet_gets_the_values_of_a_class_called_foreground_and_of_all_classes(tmp_path: Path):
    for labels, whole in (({"foreground": 1, "lv": 2}, [1, 2]), (LABELS, [1, 2])):
        write_rules(decide([np.array([[1, 2, 0]])], labels), labels, tmp_path)
        steps, settings = pickle.loads((tmp_path / NNUNET_RULES).read_bytes())  # written a line above
        assert len(steps) == 3
        assert [step["labels_or_regions"] for step in settings] == [whole, 1, 2]


def test_nnunet_applies_them_to_a_stock_prediction(tmp_path: Path):
    """Where size and evidence agree, and pieces of the right ventricle are large, its voxels equal ours."""
    rules = decide(masks(), LABELS)
    write_rules(rules, LABELS, tmp_path / "run")
    predicted = masks()[0].copy()
    predicted[2, 7, 7] = 1
    predicted[0, 3, 3] = 0
    predicted[1, 7, 0:2] = 2
    (tmp_path / "stock").mkdir()
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(predicted), str(tmp_path / "stock" / "case.nii.gz"))
    dataset = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, **LABELS}, "file_ending": ".nii.gz"}
    (tmp_path / "stock" / "dataset.json").write_text(json.dumps(dataset))
    plans = {
        "image_reader_writer": "SimpleITKIO",
        "plans_name": "p",
        "dataset_name": "d",
        "configurations": {},
    }
    (tmp_path / "stock" / "plans.json").write_text(json.dumps(plans))
    command = Path(sys.executable).with_name("nnUNetv2_apply_postprocessing")
    subprocess.run(
        [
            command,
            "-i",
            tmp_path / "stock",
            "-o",
            tmp_path / "done",
            "-np",
            "1",
            "-pp_pkl_file",
            tmp_path / "run" / NNUNET_RULES,
        ],
        check=True,
        capture_output=True,
    )
    theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "done" / "case.nii.gz")))
    np.testing.assert_array_equal(theirs, keep_pieces(predicted, None, LABELS, rules.shares))
    assert (theirs != predicted).sum() == 3
