import json
import os
import re
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ccdcseg.experiments import runner
from ccdcseg.experiments.reproduce import outlook, run_jobs, seconds_left
from ccdcseg.experiments.runner import Runner
from ccdcseg.files import locked

pytestmark = pytest.mark.filterwarnings("default")


def nothing(*_: object) -> None:
    return


@pytest.fixture
def mine(workspace, tmp_path: Path) -> list[object]:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: mine\nfractions: [0.4]\nrows:\n  - {name: nnunet, method: nnunet}\n  - {name: ccdc}\n"
        "compare: {row: ccdc}\nfigure: cases\n"
    )
    return ["reproduce", 901, path, "-o", tmp_path / "out"]


def test_dry_run_prints_commands_and_nothing_else(ccdcseg, mine, tmp_path: Path):
    result = ccdcseg(*mine, "--preset", "smoke", "--dry-run")
    assert result.code == 0
    assert re.fullmatch(
        r"Device: \w+\n2 of 2 trainings to do, 1 at a time, \d+ threads? each: roughly \d+ min\.\n",
        result.err,
    )
    lines = result.out.splitlines()
    assert len(lines) == 2
    for line, method in zip(lines, ("nnunet", "ccdc"), strict=True):
        words = shlex.split(line)
        assert [words[i + 1] for i, word in enumerate(words) if word == "ccdcseg"] == [
            "train",
            "predict",
            "evaluate",
        ]
        assert words[words.index("--method") + 1] == method
    assert not (tmp_path / "out").exists()


def test_threads_and_hours_of_nodes_are_not_those_of_this_machine(ccdcseg, mine, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    command = [*mine, "--preset", "smoke", "--device", "cpu", "--launcher", "slurm", "--dry-run"]
    said = "2 of 2 trainings to do, 1 at a time"
    assert f"{said}, 48 threads each: roughly" in ccdcseg(*command, "--slurm", "cpus_per_task=48").err
    assert f"{said}: how long is known after the first." in ccdcseg(*command).err


def test_files_of_others_are_named_before_anything_is_trained(ccdcseg, mine, tmp_path: Path):
    paper = tmp_path / "out" / "mine.tex"
    paper.parent.mkdir()
    paper.write_text("my own words")
    result = ccdcseg(*mine, "--preset", "smoke", "--yes")
    assert (result.code, f"{paper} would be replaced" in result.err) == (2, True)
    assert [*paper.parent.iterdir()] == [paper]
    assert paper.read_text() == "my own words"


def test_published_numbers_are_read_before_anything_is_trained(ccdcseg, mine):
    with mine[2].open("a") as file:
        file.write("published: {source: Doe, table: A, structures: {}, file: doe.csv}\n")
    result = ccdcseg(*mine, "--dry-run")
    assert (result.code, "doe.csv cannot be read" in result.err) == (2, True)


def test_trainings_that_experiments_share_are_run_once(ccdcseg, mine, tmp_path: Path):
    other = tmp_path / "other.yaml"
    other.write_text(
        "title: other\nfractions: [0.4]\nrows:\n  - {name: baseline, method: nnunet}\n"
        "  - {name: gdl, method: gdl}\n"
    )
    result = ccdcseg(*mine, other, "--preset", "smoke", "--dry-run")
    methods = [line.split("--method ")[1].split()[0] for line in result.out.splitlines()]
    assert methods == ["nnunet", "ccdc", "gdl"]


def test_every_split_that_is_missing_is_named_with_the_command_that_draws_it(ccdcseg, mine, tmp_path: Path):
    other = tmp_path / "other.yaml"
    other.write_text(
        "title: other\nfractions: [0.2, 0.4]\nrows:\n  - {name: nnunet, method: nnunet, seeds: [3]}\n"
        "  - {name: gdl, method: gdl, seeds: [3, 4]}\n"
    )
    result = ccdcseg(*mine, other, "--dry-run")
    assert result.code == 2
    assert "fraction 0.2 (seeds 3, 4), 0.4 (seeds 3, 4), only 0.4 (seed 0)" in result.err
    assert result.err.endswith(
        "Draw them: ccdcseg split Dataset901_Phantom --fraction 0.2 --fraction 0.4 --seed 3 --seed 4\n"
    )


def test_time_left_is_rough_before_the_first_is_finished_and_then_by_the_pace(make_job, program):
    jobs = [make_job(name) for name in ("one", "two", "three")]
    assert seconds_left(jobs, 1, 1) == 3 * (40 + 6)
    assert seconds_left(jobs, 2, 4) == 3 * (40 + 6) / 8
    Runner(1, program=program).run(jobs[:1], nothing)
    path = jobs[0].result
    path.write_text(json.dumps(json.loads(path.read_text()) | {"after_seconds": 3.0}))
    assert seconds_left(jobs, 1, 4) == 2 * (8 + 3)
    assert seconds_left(jobs, 2, 4) == 8 + 3
    (jobs[1].run / "predictions").mkdir(parents=True)
    (jobs[1].run / "history.jsonl").write_text("{}\n")
    assert seconds_left(jobs, 1, 4) == 2 * (8 + 3) - 2
    (jobs[1].run / "history.jsonl").write_text("{}\n" * 4)
    for name in ("a.nii.gz", "b.nii.gz", ".partial"):
        (jobs[1].run / "predictions" / name).touch()
    assert seconds_left(jobs, 1, 4) == (8 + 3) + 3 / 3


def test_nothing_is_foretold_of_a_gpu(make_job, program):
    jobs = [replace(make_job(name), device="cuda") for name in ("one", "two")]
    assert seconds_left(jobs, 1, 1) is None
    assert outlook(jobs, 1, 1).endswith("how long is known after the first.")
    Runner(1, program=program).run(jobs, nothing)
    assert outlook(jobs, 1, 2) == "0 of 2 trainings to do."


def test_a_training_that_is_there_is_only_to_be_measured(make_job):
    jobs = [make_job(name) for name in ("one", "two")]
    jobs[0].training.finished = True
    assert outlook(jobs, 1, 1).startswith("1 of 2 trainings to do, 1 to measure, 1 at a time")


def test_progress_counts_epochs_predictions_and_what_was_measured(make_job, program):
    seen: list[tuple[str, int, int]] = []
    job = make_job("one")
    job.folder.mkdir(parents=True)
    (job.run / "predictions").mkdir(parents=True)
    job.log.touch()
    (job.run / "history.jsonl").write_text("{}\n" * 2)
    (job.run / "predictions" / "a.nii.gz").touch()
    assert run_jobs([job], Runner(1, program=program), lambda *shown: seen.append(shown), nothing) == {}
    assert seen[0] == ("measured", 0, 1)
    assert seen[1:3] == [(f"{job.label}: epochs", 2, 4), (f"{job.label}: predicted", 1, 3)]
    assert seen[-1] == ("measured", 1, 1)


@pytest.mark.parametrize("extra", [["--seed", "one"], ["--only", "recco"], ["--seed", "7"]])
def test_mistakes_are_one_line(ccdcseg, mine, extra):
    result = ccdcseg(*mine, *extra)
    assert result.code == 2
    assert "Traceback" not in result.err


def test_a_store_that_another_reproduce_holds(ccdcseg, mine, tmp_path: Path):
    with locked(tmp_path / "out", "reproduce"):
        result = ccdcseg(*mine, "--preset", "smoke")
        assert ccdcseg(*mine, "--preset", "smoke", "--dry-run").code == 0
    assert (result.code, " works on " in result.err) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_tiny_grid_ends_in_its_tables_and_is_not_run_twice(
    workspace, ccdcseg, commands: dict[str, str], mine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its six commands start warm."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setenv("CCDCSEG_TEST_SOCKET", commands["CCDCSEG_TEST_SOCKET"])
    program = (str(Path(commands["CCDCSEG_TEST_SOCKET"]).with_name("ccdcseg")),)
    monkeypatch.setattr(runner, "Runner", partial(Runner, program=program))
    result = ccdcseg(*mine, "--preset", workspace.preset, "--processes", 2)
    assert result.code == 0, result.err
    assert "| nnU-Net |" in result.out
    assert "| CCDC |" in result.out
    assert "| CCDC − nnU-Net | Dice |" in result.out
    names = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert names == {
        "mine.md", "mine.csv", "mine.tex", "mine.png", "mine.pdf", "mine_comparison.csv",
        "mine_comparison.json", "report.html",
    }  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Reference and predictions outlined" in page
    assert "Paired comparisons" in page
    assert ccdcseg(*mine, "--preset", workspace.preset, "--dry-run").out == ""
