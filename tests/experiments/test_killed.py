"""`ccdcseg reproduce`, killed at any moment, goes on: the same tables, and no finished step is done again."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import untrained

from ccdcseg.experiments.experiment import load_experiment
from ccdcseg.experiments.jobs import Choice, plan_jobs
from ccdcseg.experiments.runner import Runner
from ccdcseg.nnunet.evaluate import evaluate_run
from ccdcseg.report import page
from kills import killed_before, moments

pytestmark = pytest.mark.filterwarnings("default")

MINE = """
title: mine
fractions: [0.4]
rows: [{name: nnunet, method: nnunet}, {name: ccdc}]
compare: {row: ccdc}
"""


@pytest.mark.parametrize("step", moments(90))
def test_whenever_it_is_killed(
    workspace, ccdcseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
):
    for name in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "mine.yaml").write_text(MINE)
    choice = Choice("901", preset=str(workspace.preset))
    jobs = plan_jobs(load_experiment(str(tmp_path / "mine.yaml")), choice, tmp_path / "out")
    runs = {str(job.run): job.training for job in jobs} | {job.training.method: job.training for job in jobs}
    done: Counter[str] = Counter()

    def command(_runner: Runner, words: Sequence[str], *_: Any) -> int:
        run = runs[words[words.index("--method") + 1] if words[0] == "train" else words[1]]
        done[words[0]] += 1
        if words[0] == "train" and not run.finished:
            untrained.train(run)
        elif words[0] == "predict" and not (run.folder / "predictions").exists():
            untrained.predict(run)
        elif words[0] == "evaluate":
            evaluate_run(run.folder, "test", 1, lambda *_: None)
        return 0

    monkeypatch.setattr(Runner, "_command", command)
    monkeypatch.setattr(page, "choose_cases", lambda *_: [])  # pictures take seconds
    monkeypatch.setattr(page, "niivue_script", lambda: None)

    def work(store: str = "out") -> None:
        result = ccdcseg("reproduce", 901, tmp_path / "mine.yaml", "--preset", workspace.preset,
                         "-o", tmp_path / store)  # fmt: skip
        assert result.code == 0, result.err

    killed_before(step, work, tmp_path)
    finished = {job.result: job.result.read_bytes() for job in jobs if job.result.exists()}
    work()
    assert all(path.read_bytes() == content for path, content in finished.items())
    assert done["train"] == len(jobs) - len(finished)
    work("fresh")
    tables = [path for path in (tmp_path / "fresh").glob("mine*") if path.suffix in (".md", ".csv", ".json")]
    assert len(tables) == 4
    assert all(path.read_bytes() == (tmp_path / "out" / path.name).read_bytes() for path in tables)
    assert (tmp_path / "out" / "report.html").exists()
