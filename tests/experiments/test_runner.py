import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import ccdcseg
from ccdcseg.experiments import runner
from ccdcseg.experiments.reproduce import run_jobs
from ccdcseg.experiments.runner import (
    PROGRAM,
    Runner,
    visible_gpus,
    worker_environment,
    worker_threads,
)
from ccdcseg.interrupts import terminated_as_interrupted


def nothing(*_: object) -> None:
    return


def calls(job) -> list[str]:
    return (job.run / "calls").read_text().split()


def test_a_failure_does_not_stop_the_others(make_job, program):
    jobs = [make_job(name) for name in ("good", "bad", "better")]
    problems = Runner(2, program=program).run(jobs, nothing)
    assert problems == {jobs[1]: "train failed: out of luck"}
    assert [job.result.exists() for job in jobs] == [True, False, True]
    assert calls(jobs[0]) == ["train", "predict", "evaluate"]
    assert calls(jobs[1]) == ["train"]
    assert "/secret" not in jobs[0].result.read_text()


@pytest.mark.parametrize(
    ("number", "workers", "told"),
    [
        (signal.SIGKILL, 2, "train was killed, probably for want of memory: give fewer --processes"),
        (signal.SIGKILL, 1, "train was killed, probably for want of memory"),
        (signal.SIGSEGV, 1, "train died: Segmentation fault"),
    ],
)
def test_a_command_that_the_system_ends(make_job, number: int, workers: int, told: str):
    """Its log ends in its progress."""
    job = make_job("killed")
    script = f"import os; print('812 of 1200', flush=True); os.kill(os.getpid(), {int(number)})"
    assert Runner(workers, program=(sys.executable, "-c", script)).run([job], nothing) == {job: told}


VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "nnUNet_def_n_proc")


def test_workers_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(runner, "usable_cores", lambda: 8)
    assert worker_threads(3) == 2
    assert worker_threads(9) == 1
    environment = worker_environment(2, "1")
    assert {environment[name] for name in VARIABLES} == {"2"}
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_user_has_set_stays(name: str, monkeypatch: pytest.MonkeyPatch):
    for other in VARIABLES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "7")
    environment = worker_environment(2, None)
    assert [environment[other] for other in VARIABLES] == [
        "7" if other == name else "2" for other in VARIABLES
    ]
    if name == "OMP_NUM_THREADS":
        assert worker_threads(3) == 7


@pytest.mark.parametrize(
    ("named", "there", "gpus"),
    [
        (None, 2, ["0", "1"]),
        ("1,0", 2, ["1", "0"]),
        ("0,1,2,3", 2, ["0", "1"]),
        ("1,-1,0", 1, ["1"]),
        ("", 0, []),
        ("MIG-one,MIG-two", 1, ["MIG-one", "MIG-two"]),
    ],
)
def test_workers_have_gpus_that_are_there(
    named: str | None, there: int, gpus: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    assert visible_gpus() == gpus


def test_commands_get_the_threads(make_job, program, monkeypatch: pytest.MonkeyPatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    job = make_job("one")
    Runner(1, 5, program=program).run([job], nothing)
    assert (job.run / "threads").read_text() == "5"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_the_children_and_a_second_call_goes_on(make_job, program, number):
    done, slow, waiting = (make_job(name) for name in ("done", "slow", "waiting"))
    slow.run.mkdir(parents=True)
    (slow.run / "slow").touch()
    before = signal.getsignal(signal.SIGTERM)

    def interrupt() -> None:
        while not (slow.run / "started").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
        run_jobs([done, slow, waiting], Runner(1, program=program), nothing, nothing)
    assert time.monotonic() - began < 40  # the child would sleep for a minute
    assert signal.getsignal(signal.SIGTERM) is before
    assert [job.result.exists() for job in (done, slow, waiting)] == [True, False, False]
    assert not (waiting.run / "calls").exists()

    (slow.run / "slow").unlink()
    assert run_jobs([done, slow, waiting], Runner(1, program=program), nothing, nothing) == {}
    assert calls(done) == ["train", "predict", "evaluate"]
    assert calls(slow) == ["train", "train", "predict", "evaluate"]


def test_commands_end_when_what_started_them_is_killed(tmp_path: Path):
    """The program itself with a command that waits; its log is a pipe, which ends with the last that holds it."""
    waiting = PROGRAM[-1].replace("main()", "print(flush=True); import time; time.sleep(600)")
    script = (
        "import os, sys; from ccdcseg.experiments.runner import Runner\n"
        f"Runner(1, program=(sys.executable, '-c', {waiting!r}))._command((), os.environ, sys.stdout.fileno())"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"\n"
        process.kill()
        assert process.stdout.read() == b""


@pytest.mark.parametrize(
    ("program", "more"), [(PROGRAM, ("ccdcseg", "runpy")), ((sys.executable, "-m", "ccdcseg"), ())]
)
def test_modules_of_the_current_folder_are_not_run(
    program: tuple[str, ...], more: tuple[str, ...], tmp_path: Path
):
    for name in ("rich", "typer", "socket", "pickle", "yaml", *more):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the current folder was run')")
    source = str(Path(ccdcseg.__path__[0]).parent)
    kept, open_end = os.pipe()  # the program ends with its standard input
    done = subprocess.run(
        [*program, "methods"], cwd=tmp_path, capture_output=True, text=True, check=False, stdin=kept,
        env=os.environ | {"PYTHONPATH": source},
    )  # fmt: skip
    os.close(kept)
    os.close(open_end)
    assert done.returncode == 0, done.stderr


def test_worker_processes_of_a_command_run_no_module_of_the_current_folder(
    ccdcseg, tmp_path: Path, monkeypatch
):
    from multiprocessing import get_context

    (tmp_path / "socket.py").write_text("raise SystemExit('a module of the current folder was run')")
    monkeypatch.chdir(tmp_path)
    assert ccdcseg("--version").code == 0
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(os.getcwd) == str(tmp_path)
