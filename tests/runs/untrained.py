"""What `ccdcseg train` and `predict` leave of a run, without a network: predictions are the references."""

import json
import shutil

import scored

from ccdcseg.files import content_hash, file_hash, new_folder
from ccdcseg.nnunet.current import prediction_sources
from ccdcseg.nnunet.preset import stored_form
from ccdcseg.nnunet.runs import Run
from ccdcseg.nnunet.trained import training_scans
from ccdcseg.provenance import stamp, write_origin


def train(run: Run) -> None:
    """Its record, and what stands for plans and weights; all at once."""
    scans = training_scans(run)
    record = scored.record(
        method=run.method,
        split_hash=run.split["hash"],
        data_hash=content_hash(scans.values()),
        scans={name: file_hash(file) for name, file in scans.items()},
        reference=str(run.raw / "labelsTr"),
        images=str(run.raw / "imagesTr"),
    )
    with new_folder(run.model) as model:
        (model / run.folder.name).mkdir()
        (model / run.folder.name / "run.json").write_text(json.dumps(record))
        (model / run.folder.name / "checkpoint_final.pth").write_text("weights")
        (model / "plans.json").write_text(
            json.dumps({"configurations": {}, "ccdcseg": stored_form(run.preset)})
        )
        shutil.copy(run.raw / "dataset.json", model)


def predict(run: Run) -> None:
    """Predictions of the test cases with what they are made from; all at once."""
    with new_folder(run.folder / "predictions") as place:
        for case in run.split["test"]:
            target = place / f"{case}.nii.gz"
            shutil.copy(run.raw / "labelsTr" / target.name, target)
            images = [run.raw / "imagesTr" / f"{case}_0000.nii.gz"]
            write_origin(target, stamp(prediction_sources([run.folder], images, {})), target)
