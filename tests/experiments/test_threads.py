import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import scored

from ccdcseg.experiments import runner, threads
from ccdcseg.experiments.threads import Threads, begun_threads, plan_threads


@pytest.fixture
def jobs(make_job, monkeypatch: pytest.MonkeyPatch):
    """Three, on a machine of four cores where nothing is asked for."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for module in (runner, threads):
        monkeypatch.setattr(module, "usable_cores", lambda: 4)
    return [make_job(name) for name in ("one", "two", "three")]


def begin(folder: Path, count: int, name: str = "begun.json", **changes: object) -> None:
    folder.mkdir(parents=True)
    machine = f"x86_64, 8 cores, {count} threads"
    (folder / name).write_text(json.dumps(scored.record(machine=machine, **changes)))


def test_a_share_of_the_cores_or_what_is_asked_for(jobs, monkeypatch: pytest.MonkeyPatch):
    assert plan_threads(jobs, 1) == Threads(4)
    assert plan_threads(jobs, 3) == Threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert plan_threads(jobs, 4) == Threads(3)


@pytest.mark.parametrize("name", ["begun.json", "run.json"])
def test_trainings_that_were_begun_decide(jobs, name: str):
    begin(jobs[1].run, 1, name)
    assert plan_threads(jobs, 2) == Threads(1)
    assert plan_threads(jobs[::2], 2) == Threads(2)


def test_what_cannot_be_one_number_is_said(jobs, monkeypatch: pytest.MonkeyPatch):
    begin(jobs[0].run, 4)
    begin(jobs[2].run, 4)
    planned = plan_threads(jobs, 2)
    assert planned.count == 2
    assert planned.note.startswith("2 of these trainings computed with 4 threads, the others get 2:")
    assert planned.note.endswith("With OMP_NUM_THREADS=4 and --processes 1 all have the same.")
    begin(jobs[1].run, 1)
    assert begun_threads(jobs) == {4: 2, 1: 1}
    assert plan_threads(jobs, 1).note.startswith(
        "1 of these trainings computed with 1 thread, the others get 4"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert plan_threads(jobs, 1).count == 1


def test_nothing_is_said_of_others_where_there_are_none(jobs):
    begin(jobs[0].run, 4)
    trained = [
        replace(job, training=SimpleNamespace(**vars(job.training) | {"finished": True})) for job in jobs
    ]
    assert plan_threads(jobs, 2).note
    assert plan_threads(trained, 2) == Threads(2)


def test_nodes_have_the_cores_that_their_task_asks_for(jobs, monkeypatch: pytest.MonkeyPatch):
    assert plan_threads(jobs, 8, {"cpus_per_task": 8}) == Threads(8)
    assert plan_threads(jobs, 8, {"slurm_cpus_per_task": 2, "timeout_min": 9}) == Threads(2)
    begin(jobs[0].run, 6)
    assert plan_threads(jobs, 8, {"cpus_per_task": 8}) == Threads(6)
    unknown = plan_threads(jobs, 8, {})
    assert unknown.count is None
    assert unknown.note.startswith(
        "1 of these trainings computed with 6 threads, the others get what their node"
    )
    note = plan_threads(jobs, 8, {"cpus_per_task": 2}).note
    assert note.endswith("With OMP_NUM_THREADS=6 and --slurm cpus_per_task=6 all have the same.")
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert plan_threads(jobs, 8, {}) == Threads(6)


def test_a_gpu_has_no_threads(jobs):
    begin(jobs[0].run, 1, device="cuda")
    assert begun_threads(jobs) == {}
