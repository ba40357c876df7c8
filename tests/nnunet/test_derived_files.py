"""Each row of the table in docs/provenance.md: when what a file is made from changes, it is not taken for new."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccdcseg import workflow
from ccdcseg.datasets.prepared import find_prepared, record
from ccdcseg.datasets.splits import split_dataset
from ccdcseg.errors import UserError
from ccdcseg.experiments.jobs import Job, write_result
from ccdcseg.experiments.stale import why_stale
from ccdcseg.files import file_hash
from ccdcseg.nnunet import train
from ccdcseg.nnunet.checkpoints import FINAL
from ccdcseg.nnunet.current import check_predictions, prediction_sources
from ccdcseg.nnunet.ensemble import Ensemble
from ccdcseg.nnunet.evaluate import check_measured, evaluate_run
from ccdcseg.nnunet.models import check_fits
from ccdcseg.nnunet.rules import read_rules
from ccdcseg.nnunet.runs import Run
from ccdcseg.nnunet.trained import check_trained
from ccdcseg.provenance import stamp, write_origin
from ccdcseg.runs.evaluation import read_current
from ccdcseg.runs.record import PREDICTIONS, read_record

pytestmark = pytest.mark.filterwarnings("default")

PAGE = Path(__file__).parents[2] / "docs" / "provenance.md"


@dataclass(frozen=True)
class Made:
    """A run with everything that is derived from its scans, and what changes a volume.

    Attributes:
        progress: stages of preparing that had something to do, so far.
    """

    run: Run
    job: Job
    shift: Callable[[Path], None]

    @property
    def mask(self) -> Path:
        """Of a scan that is trained on."""
        return self.run.raw / "labelsTr" / f"{self.run.split['train'][0]}.nii.gz"

    @property
    def tested(self) -> str:
        """A scan that is tested on."""
        return str(self.run.split["test"][0])

    def prepared_again(self) -> set[str]:
        """Prepare; the stages that had something to do."""
        done = set[str]()
        train.prepare(self.run, 1, lambda stage, *_: done.add(stage))
        return done


@pytest.fixture
def made(own_run: Run, trained: Path, change_volume: Any, tmp_path: Path, monkeypatch: Any) -> Made:
    """The predictions are the references; what they are made from is written down as `predict` does it."""
    run = own_run
    shutil.copytree(trained, run.model)
    content = json.loads((run.folder / "run.json").read_text())
    own = {"images": str(run.raw / "imagesTr"), "reference": str(run.raw / "labelsTr")}
    (run.folder / "run.json").write_text(json.dumps(content | own))
    (run.folder / PREDICTIONS).mkdir()
    for case in run.split["test"]:
        target = run.folder / PREDICTIONS / f"{case}.nii.gz"
        shutil.copy(run.raw / "labelsTr" / target.name, target)
        sources = prediction_sources(
            [run.folder], [run.raw / "imagesTr" / f"{case}_0000.nii.gz"], read_rules(run.folder).shares
        )
        write_origin(target, stamp(sources), target)
    evaluate_run(run.folder, "test", 1, lambda *_: None)
    count = len(run.split["test"])
    job = Job("", run, "test", tmp_path / "store", (), "cpu", count, 1.0)
    write_result(job, 1.0)
    return Made(run, job, lambda path: change_volume(path, lambda array: np.roll(array, 2, axis=2)))


def plans_of_nnunet(made: Made) -> None:
    """Planned again: with other plans, the training that is there is refused."""
    stored = made.run.preprocessed / "nnUNetPlans.json"
    before = stored.stat().st_mtime_ns
    made.prepared_again()
    assert stored.stat().st_mtime_ns == before
    made.shift(made.run.raw / "labelsTr" / f"{made.tested}.nii.gz")
    made.prepared_again()
    assert stored.stat().st_mtime_ns > before


def files_for_nnunet(made: Made) -> None:
    for name in (f"{made.run.plans_name}.json", "splits_final.json"):
        path = made.run.preprocessed / name
        content = path.read_text()
        path.write_text(content + " ")
        with pytest.raises(UserError, match=rf"{name} was changed since ccdcseg wrote it"):
            made.prepared_again()
        path.write_text(content)
    made.prepared_again()


def preprocessed_scans(made: Made) -> None:
    assert "preprocess" not in made.prepared_again()
    made.shift(made.mask)
    assert "preprocess" in made.prepared_again()
    made.shift(made.run.raw / "imagesTr" / f"{made.run.split['train'][0]}_0000.nii.gz")
    assert "preprocess" in made.prepared_again()
    assert "preprocess" not in made.prepared_again()


def copies_of_masks(made: Made) -> None:
    copy = made.run.preprocessed / "gt_segmentations" / made.mask.name
    made.shift(made.mask)
    assert file_hash(copy) != file_hash(made.mask)
    made.prepared_again()
    assert file_hash(copy) == file_hash(made.mask)


def model_folder(made: Made) -> None:
    check_fits(made.run.folder, made.run.raw)
    for name, entry in (("plans.json", {"plans_name": "other"}), ("dataset.json", {"labels": {"heart": 1}})):
        content = (made.run.model / name).read_text()
        (made.run.model / name).write_text(json.dumps(json.loads(content) | entry))
        with pytest.raises(UserError, match=rf"{name} is another model's"):
            check_fits(made.run.folder, made.run.raw)
        (made.run.model / name).write_text(content)


def classes_and_channels(made: Made) -> None:
    path = made.run.raw / "dataset.json"
    content = path.read_text()
    for what, entry in (("classes", {"labels": {"heart": 1}}), ("channels", {"channel_names": {"0": "T1"}})):
        path.write_text(json.dumps(json.loads(content) | entry))
        with pytest.raises(UserError, match=f"was trained on the {what}"):
            check_fits(made.run.folder, made.run.raw)


def folds(made: Made) -> None:
    content = json.loads((made.run.model / "plans.json").read_text())
    content["configurations"]["2d"]["patch_size"] = [32, 32]
    (made.run.model / "plans.json").write_text(json.dumps(content))
    (split,) = split_dataset(made.run.raw, [made.run.split["fraction"]], 1)
    with pytest.raises(UserError, match="was trained with other plans"):
        trained_again(replace(made.run, fold=1, split=split))


def trained_again(run: Run) -> None:
    train.train(run, resume=True, device="cpu", processes=1, progress=lambda *_: None)


def interrupted_training(made: Made) -> None:
    (made.run.folder / FINAL).rename(made.run.folder / train.LATEST)
    (made.run.folder / "run.json").unlink()
    made.shift(made.mask)
    with pytest.raises(UserError, match=rf"was begun on other scans: labelsTr/{made.mask.name} was changed"):
        trained_again(made.run)


def training(made: Made) -> None:
    check_trained(made.run)
    made.shift(made.mask)
    with pytest.raises(
        UserError, match=rf"was trained on other scans: labelsTr/{made.mask.name} was changed"
    ):
        check_trained(made.run)


def predictions(made: Made) -> None:
    check_predictions(made.run.folder, made.run.folder / PREDICTIONS, [made.tested])
    check_measured(made.run.folder, "test")
    made.shift(made.run.raw / "imagesTr" / f"{made.tested}_0000.nii.gz")
    with pytest.raises(UserError, match="its images changed since it was predicted"):
        check_measured(made.run.folder, "test")
    with pytest.raises(UserError, match="its images changed since it was predicted"):
        evaluate_run(made.run.folder, "test", 1, lambda *_: None)
    with pytest.raises(UserError, match="its images changed since it was predicted"):
        workflow.report([made.run.folder], made.run.folder / "report.html", "A page")


def what_networks_say(made: Made) -> None:
    said: list[float] = []

    def content(probabilities: Any) -> bytes:
        said.append(float(probabilities.mean()))
        return b"said"

    image = made.run.raw / "imagesTr" / f"{made.tested}_0000.nii.gz"

    def ask() -> int:
        Ensemble([made.run.folder], "cpu").keep([image], made.job.folder / made.tested, content)
        return len(said)

    assert (ask(), ask()) == (1, 1)
    made.shift(image)
    assert ask() == 2


def evaluation(made: Made) -> None:
    def shown() -> Any:
        return read_current(made.run.folder, "test", PREDICTIONS, read_record(made.run.folder))

    assert shown() is not None
    made.shift(made.run.raw / "labelsTr" / f"{made.tested}.nii.gz")
    with pytest.raises(
        UserError, match=rf"evaluation\.json is out of date: .*{made.tested}\.nii\.gz was changed"
    ):
        shown()


def result(made: Made) -> None:
    assert why_stale(made.job) == ""
    made.shift(made.mask)
    assert f"labelsTr/{made.mask.name} was changed since" in why_stale(made.job)


def converted(made: Made) -> None:
    record(made.run.raw, "mark")
    assert find_prepared(made.run.raw.parent, 901, "mark") == made.run.raw
    for change in (lambda: made.shift(made.mask), lambda: record(made.run.raw, "another mark")):
        change()
        with pytest.raises(UserError, match="id 901 is taken"):
            find_prepared(made.run.raw.parent, 901, "mark")


ROWS = {
    "`nnUNetPlans.json` that `ccdcseg train` made": plans_of_nnunet,
    "`ccdcseg_*.json` and `splits_final.json` in `nnUNet_preprocessed`": files_for_nnunet,
    "preprocessed scans": preprocessed_scans,
    "`gt_segmentations/`": copies_of_masks,
    "the folds of one model folder": folds,
    "a run in its model folder": model_folder,
    "classes and channels of a run": classes_and_channels,
    "an interrupted training": interrupted_training,
    "a training": training,
    "predictions": predictions,
    "what networks say of scans": what_networks_say,
    "an evaluation": evaluation,
    "a result of `reproduce`": result,
    "a converted data set": converted,
}


def test_the_table_has_these_rows():
    table = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("|")]
    assert table[2:] == [*ROWS]


@pytest.mark.parametrize("row", ROWS)
def test_what_is_made_from_something_else_is_not_taken_for_new(made: Made, row: str):
    ROWS[row](made)
