"""Jobs whose commands are carried out by a tiny script instead of ccdcseg."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import scored

from ccdcseg.experiments.jobs import Job, Result
from ccdcseg.runs.record import RunRecord

FAKE = """
import json, os, pathlib, sys, time
stored = pathlib.Path({stored!r})
command, folder = sys.argv[1], pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
with (folder / "calls").open("a") as calls:
    calls.write(command + "\\n")
if command == "train":
    if (folder / "slow").exists():
        (folder / "started").touch()
        time.sleep(60)
    if "bad" in folder.name:
        sys.exit("out of luck")
    (folder / "history.jsonl").write_text("{}\\n" * 4)
    (folder / "threads").write_text(os.environ["OMP_NUM_THREADS"])
    record = json.loads((stored / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"seconds": 8.0, "images": "/secret"}))
if command == "evaluate":
    (folder / "evaluation.json").write_bytes((stored / "evaluation.json").read_bytes())
"""


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, ...]:
    script = tmp_path / "fake.py"
    script.write_text(FAKE.replace("{stored!r}", repr(str(scored.STORED))))
    return sys.executable, str(script)


def training(folder: Path, fraction: float = 0.1, seed: int = 0) -> Any:
    """What a job reads of its training."""
    preset = SimpleNamespace(
        training=SimpleNamespace(epochs=4), unlabelled=SimpleNamespace(use=False, teachers=None)
    )
    split = {"fraction": fraction, "seed": seed}
    return SimpleNamespace(
        folder=folder, raw=folder / "raw", split=split, preset=preset, method="nnunet", finished=False
    )


@pytest.fixture
def make_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Job]:
    """A job by its name; its training is of 40 seconds."""
    for module in ("experiments.reproduce", "nnunet.duration"):
        monkeypatch.setattr(f"ccdcseg.{module}.run_seconds", lambda _: 40.0)

    def make(name: str) -> Job:
        run = tmp_path / "runs" / name
        commands = tuple((step, str(run)) for step in ("train", "predict", "evaluate"))
        return Job(name, training(run), "test", tmp_path / "store" / name, commands, "cpu", 3, 6.0)

    return make


@pytest.fixture
def job() -> Callable[..., Job]:
    """A job by its row, fraction and seed."""

    def make(row: str, fraction: float = 0.1, seed: int = 0) -> Job:
        folder = Path(f"{row}{fraction}{seed}")
        return Job(row, training(Path("run"), fraction, seed), "test", folder, (), "cpu", 1, 1.0)

    return make


@pytest.fixture
def result() -> Callable[..., Result]:
    """Two patients, ``less`` apart in Dice. Distances are 10 times the error, also of those said to be missed."""

    def make(missed: int = 0, patients: int = 2, less: float = 0.1, seed: int = 0, **dice: float) -> Result:
        cases = [
            scored.scores(
                f"p{p}_ED", f"p{p}", name, value - p * less, hd95_pooled_mm=10 * (1 - value + p * less)
            )
            for p in range(patients)
            for name, value in dice.items()
        ]
        rows = [row.model_copy(update={"status": "missed"}) for row in cases[:missed]]
        labels = {name: value for value, name in enumerate(("background", *dice))}
        measured = scored.evaluation(cases).model_copy(update={"cases": (*rows, *cases[missed:])})
        return Result.model_construct(
            format="ccdcseg-result/1",
            part="test",
            run=RunRecord.model_validate(scored.record(seed=seed, labels=labels)),
            evaluation=measured,
        )

    return make
