"""The array on submitit's own executor; a real SLURM: tests/slurm/run.sh."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ccdcseg.cli.experiments import _failure
from ccdcseg.errors import UserError

pytest.importorskip("submitit")

from submitit.core.utils import JobPaths

from ccdcseg.experiments import slurm
from ccdcseg.experiments.slurm import SlurmRunner, parse_options

# submitit does not wait for the processes of its own executor.
pytestmark = pytest.mark.filterwarnings(r"ignore:subprocess \d+ is still running:ResourceWarning")


def test_results_and_failures_come_from_files(make_job, program, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.2)
    jobs = [make_job(name) for name in ("good", "bad")]
    runner = SlurmRunner(2, tmp_path / "submitit", {}, program=program, cluster="local")
    assert runner.run(jobs, lambda: None) == {jobs[1]: "train failed: out of luck"}
    assert [job.result.exists() for job in jobs] == [True, False]


def at_once(runner: SlurmRunner, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tasks be done as they are submitted."""

    def submit(function: Callable[..., None], *arguments: Sequence[Any]) -> list[Any]:
        for one in zip(*arguments, strict=True):
            function(*one)
        return [SimpleNamespace(job_id="7", paths=JobPaths(folder, "7")) for _ in arguments[0]]

    monkeypatch.setattr(runner, "_executor", SimpleNamespace(map_array=submit))
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0)


def test_a_task_that_failed_and_is_in_the_queue_again_is_waited_for(
    make_job, program, tmp_path: Path, monkeypatch
):
    """SLURM requeues what it preempts: the first attempt ends as a failure, and the second has a result."""
    job = make_job("bad")
    runner = SlurmRunner(1, tmp_path, {}, program=program, cluster="local")
    at_once(runner, tmp_path, monkeypatch)
    answers = iter((lambda: None, lambda: job.result.write_text("{}")))
    monkeypatch.setattr(runner, "_alive", lambda _: [next(answers)()])
    assert runner.run([job], lambda: None) == {}


def test_a_second_attempt_forgets_how_the_first_ended(make_job, program):
    job = make_job("good")
    job.folder.mkdir(parents=True)
    failed = job.folder / "test.failed.json"
    failed.write_text('"train failed: interrupted"')
    slurm.measure(job, program, 1)
    assert (job.result.exists(), failed.exists()) == (True, False)


@pytest.mark.parametrize("name", ["7_0_log.err", "7_0_log.out"])
def test_a_task_that_never_began_is_named_with_what_slurm_wrote(
    make_job, program, tmp_path: Path, monkeypatch, name: str
):
    monkeypatch.setattr(slurm, "measure", lambda *_: None)
    runner = SlurmRunner(1, tmp_path, {}, program=program, cluster="local")
    at_once(runner, tmp_path, monkeypatch)
    monkeypatch.setattr(runner, "_alive", lambda _: set())
    ((job, problem),) = runner.run([make_job("good")], lambda: None).items()
    assert _failure(job, problem).endswith("(time, memory, or cancelled)")
    (tmp_path / name).write_text("execve(): python: No such file or directory")
    (problem,) = runner.run([make_job("good")], lambda: None).values()
    assert problem.endswith(f"(time, memory, or cancelled): see {tmp_path / name}")


def test_what_sbatch_refuses_is_one_message(make_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, text in (("srun", ""), ("sbatch", "echo sbatch: error: invalid partition >&2; exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    runner = SlurmRunner(1, tmp_path / "slurm", {"slurm_partition": "cpu"})
    with pytest.raises(UserError, match="SLURM takes no tasks: sbatch: error: invalid partition"):
        runner.run([make_job("good")], lambda: None)


def test_no_slurm_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    with pytest.raises(UserError, match="no SLURM"):
        SlurmRunner(1, tmp_path, {})


def test_an_unknown_option_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="nonsense"):
        SlurmRunner(1, tmp_path, {"nonsense": 1}, cluster="local")


def test_a_limit_of_ours_gives_way_to_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda *_: "srun")
    options = {"timeout_min": 5, "slurm_array_parallelism": 3, "slurm_partition": "gpu"}
    given = SlurmRunner(8, tmp_path, options)._executor._executor.parameters
    assert (given["time"], given["array_parallelism"], given["partition"]) == (5, 3, "gpu")


def test_texts_become_what_submitit_wants():
    options = [
        "mem_gb=7.5",
        "slurm_use_srun=false",
        "slurm_exclusive=True",
        "slurm_account=007",
        "timeout_min=9",
    ]
    assert parse_options([*options, "slurm_setup=a b", "slurm_setup=c=d", "slurm_time=1-00:00"]) == {
        "mem_gb": 7.5,
        "slurm_use_srun": False,
        "slurm_exclusive": True,
        "slurm_account": "007",
        "timeout_min": 9,
        "slurm_setup": ["a b", "c=d"],
        "slurm_time": "1-00:00",
    }
    with pytest.raises(UserError, match="slurm_use_srun is neither true nor false"):
        parse_options(["slurm_use_srun=no"])


@pytest.mark.parametrize("option", ["mem_gb=32G", "mem_gb=inf", "slurm_mem_gb=32G", "timeout_min=2-00:00:00"])
def test_a_value_of_another_kind_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str):
    monkeypatch.setattr(shutil, "which", lambda *_: "srun")
    with pytest.raises(UserError, match=r"--slurm: .*submitit's options"):
        SlurmRunner(1, tmp_path, parse_options([option]))


def test_lists_and_switches_reach_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda *_: "srun")
    options = ["slurm_setup=module load cuda", "slurm_exclusive=true", "slurm_srun_args=--mem=0"]
    runner = SlurmRunner(1, tmp_path, parse_options(options))
    script = runner._executor._executor._make_submission_file_text("COMMAND", "")
    assert "\nmodule load cuda\n" in script
    assert "#SBATCH --exclusive\n" in script
    assert "--mem=0 COMMAND\n" in script
