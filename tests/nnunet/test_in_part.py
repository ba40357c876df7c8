"""Masks of some slices, from training to evaluation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccdcseg.datasets.cases import read_labels
from ccdcseg.datasets.splits import split_dataset
from ccdcseg.datasets.volumes import read_mask
from ccdcseg.nnunet.runs import Run, resolve_run
from ccdcseg.runs.history import read_history
from ccdcseg.workflow import evaluate, predict

# What nnU-Net warns of is its own: a tiny network may be sure of no voxel of a scan.
pytestmark = pytest.mark.filterwarnings("default")

THREE_D = ("network.configuration=3d_fullres", "network.batch_size=2")
NETWORKS = {
    "2-D": ("ccdc", ()),
    "3-D": (
        "ccdc",
        (
            *THREE_D,
            "network.patch_size=[8,64,64]",
            "network.spacing_mm=[10,3,3]",
            "network.features_per_stage=[4,8,8]",
        ),
    ),
    "nnFormer": (
        "nnformer",
        (
            *THREE_D,
            "network.patch_size=[4,32,32]",
            "network.spacing_mm=[10,3,3]",
            "network.features_per_stage=null",
            "nnformer.embedding_channels=8",
            "nnformer.strides=[[1,2,2],[2,2,2]]",
            "nnformer.windows=[[2,4,4],null,null]",
            "nnformer.depths=[2,1,1]",
            "nnformer.heads=[1,2,4]",
        ),
    ),
}


@pytest.fixture(params=NETWORKS)
def in_part_run(
    request: pytest.FixtureRequest,
    own_run: Run,
    workspace: Any,
    change_volume: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """A run on patients of whom every other slice is annotated, and one without masks, tested on the others."""
    raw = own_run.raw
    description = json.loads((raw / "dataset.json").read_text())
    description["labels"]["ignore"] = 1 + max(description["labels"].values())
    (raw / "dataset.json").write_text(json.dumps(description))

    def ignore(array: np.ndarray) -> None:
        array[::2] = description["labels"]["ignore"]

    (raw / "splits_final.json").unlink()
    for case in ("patient001", "patient002"):
        for path in (raw / "labelsTr").glob(f"{case}*"):
            change_volume(path, ignore)
    split_dataset(raw, [0.4], 0, unlabelled=1)
    monkeypatch.setattr("ccdcseg.nnunet.unlabelled.PLAUSIBLE_RATIO", 1e9)
    method, changes = NETWORKS[request.param]
    return resolve_run("901", method, 0.4, 0, str(workspace.preset), changes, unlabelled=True)


@pytest.mark.slow
def test_slices_that_nobody_annotated(in_part_run: Run, train_run: Callable[..., Path]) -> None:
    folder = train_run(in_part_run)
    history = read_history(folder)
    assert all(np.isfinite(epoch.train_loss) for epoch in history)
    assert history[-1].unlabelled_loss is not None
    assert np.isfinite(history[-1].unlabelled_loss)
    assert json.loads((folder / "postprocessing.json").read_text())["masks"] == 0
    predict(folder)
    evaluate(folder)
    labels = read_labels(in_part_run.raw)
    predictions = [*(folder / "predictions").glob("*.nii.gz")]
    assert len(predictions) == len(in_part_run.split["test"]) == 4
    for path in predictions:
        read_mask(path, labels)
