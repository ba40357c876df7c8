"""The array on submitit's own executor; a real SLURM: tests/slurm/run.sh."""

import shutil
from pathlib import Path

import pytest

from ccdcseg.errors import UserError

pytest.importorskip("submitit")

from ccdcseg.experiments import slurm
from ccdcseg.experiments.slurm import SlurmRunner

# submitit does not wait for the processes of its own executor.
pytestmark = pytest.mark.filterwarnings(r"ignore:subprocess \d+ is still running:ResourceWarning")


def test_results_and_failures_come_from_files(make_job, program, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.2)
    jobs = [make_job(name) for name in ("good", "bad")]
    runner = SlurmRunner(2, tmp_path / "submitit", {}, program=program, cluster="local")
    assert runner.run(jobs, lambda: None) == {jobs[1]: "train failed: out of luck"}
    assert [job.result.exists() for job in jobs] == [True, False]


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
