import json
from pathlib import Path

import numpy as np
import pytest
from predicted import change_checkpoint, read_voxels

from ccdcseg.errors import UserError
from ccdcseg.files import read_json
from ccdcseg.nnunet.checkpoints import FINAL, load_checkpoint
from ccdcseg.nnunet.outputs import input_output
from ccdcseg.nnunet.runs import Run


def test_regions_are_predicted(finished_run: Run, predictions, tmp_path: Path):
    path = finished_run.model / "dataset.json"
    labels = {"background": 0, "heart": [1, 2, 3], "left": [2, 3], "cavity": [3]}
    (finished_run.folder / "run.json").unlink()
    (finished_run.folder / "postprocessing.json").unlink()
    weights = load_checkpoint(finished_run.folder / FINAL)["network_weights"]
    heads = {name: value[:3] for name, value in weights.items() if ".seg_layers." in name}
    change_checkpoint(finished_run.folder, network_weights=weights | heads)
    path.write_text(json.dumps(read_json(path) | {"labels": labels, "regions_class_order": [1, 2, 3]}))
    assert predictions.go(tmp_path / "masks") == 1
    assert set(np.unique(read_voxels(tmp_path / "masks" / "a.nii.gz"))) <= {0, 1, 2, 3}
    with pytest.raises(UserError, match=r"fold_0 predicts regions.*Leave --keep out"):
        input_output([finished_run.folder], tmp_path / "masks", True, ["foreground=1"])
