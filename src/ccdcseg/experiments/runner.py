"""Running jobs side by side, each step a command of its own; failures do not stop the others."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from ccdcseg.cores import THREADS, requested_threads, usable_cores
from ccdcseg.errors import UserError
from ccdcseg.experiments.jobs import Job, write_result
from ccdcseg.interrupts import STOP_SECONDS, undone

PYTHON = (sys.executable, "-P")
"""Python that takes no module from the current folder: a rich.py there would be run instead of rich."""
PROGRAM = (
    *PYTHON,
    "-c",
    "from ccdcseg.interrupts import end_with_standard_input; end_with_standard_input();"
    "from ccdcseg.cli import main; main()",
)
TICK_SECONDS = 1.0


class Runner:
    """Workers, a thread each, that run the commands of jobs as processes with a share of cores and GPUs.

    Args:
        workers: jobs side by side.
        threads: of each; None: its share of the cores. What the environment says comes first.
        gpus: values of ``CUDA_VISIBLE_DEVICES``; a worker has one of them. Empty: the variable is left alone.
        program: what runs a command; it is to end when its standard input, which stays empty, is closed.
    """

    def __init__(
        self,
        workers: int,
        threads: int | None = None,
        gpus: Sequence[str] = (),
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.workers = workers
        threads = threads or worker_threads(workers)
        self._program = program
        self._slots: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for slot in range(workers):
            self._slots.put(worker_environment(threads, gpus[slot % len(gpus)] if gpus else None))
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, jobs: Sequence[Job], progress: Callable[[], None]) -> dict[Job, str]:
        """Run jobs and call ``progress`` every second; what went wrong, by job.

        Raises:
            KeyboardInterrupt: after every process was stopped.
        """
        self._stopped = False
        with ThreadPoolExecutor(self.workers) as pool, undone(partial(self._stop, pool)):
            futures = {pool.submit(self._measure, job): job for job in jobs}
            while wait(futures, timeout=TICK_SECONDS).not_done:
                progress()
        return {job: problem for future, job in futures.items() if (problem := future.result())}

    def _measure(self, job: Job) -> str | None:
        environment = self._slots.get()
        try:
            return self._steps(job, environment)
        finally:
            self._slots.put(environment)

    def _steps(self, job: Job, environment: dict[str, str]) -> str | None:
        job.folder.mkdir(parents=True, exist_ok=True)
        seconds = []
        with job.log.open("wb") as log:
            for command in job.commands:
                begun = time.monotonic()
                if code := self._command(command, environment, log.fileno()):
                    return f"{command[0]} {self._failure(code, job.log)}"
                seconds.append(time.monotonic() - begun)
        try:
            write_result(job, sum(seconds[1:]))
        except UserError as error:
            return str(error)
        return None

    def _failure(self, code: int, log: Path) -> str:
        """What became of a command; of one that the system has ended its log does not tell."""
        if code >= 0:
            return f"failed: {_last_line(log)}"
        if code != -signal.SIGKILL:
            return f"died: {signal.strsignal(-code)}"
        remedy = ": give fewer --processes" if self.workers > 1 else ""
        return f"was killed, probably for want of memory{remedy}"

    def _command(self, command: Sequence[str], environment: dict[str, str], log: int) -> int:
        with self._lock:
            if self._stopped:
                return 1
            process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                [*self._program, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
            self._processes.add(process)
        with process:
            code = process.wait()
        with self._lock:
            self._processes.discard(process)
        return code

    def _stop(self, pool: Executor) -> None:
        """Interrupt every process as Ctrl-C would, and kill what does not stop."""
        pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._stopped = True
            processes = list(self._processes)
        for process in processes:
            _signal(process, signal.SIGINT)
        for process in processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)


def worker_threads(workers: int) -> int:
    """Threads of each of several workers: what the environment says, or a share of the cores."""
    return requested_threads() or max(1, usable_cores() // workers)


def worker_environment(threads: int, gpu: str | None) -> dict[str, str]:
    """The environment of a worker: its threads, where nothing else is asked for, and its GPU."""
    names = (THREADS, "MKL_NUM_THREADS", "nnUNet_def_n_proc")
    visible = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    return {**dict.fromkeys(names, str(threads)), **os.environ, **visible}


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    CUDA stops at the first that is not there. Of parts of GPUs (MIG) a process sees one, however many are named.
    """
    import torch  # noqa: PLC0415 - slow

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if named.startswith("MIG-"):
        return named.split(",")
    there = torch.cuda.device_count()
    return named.split(",")[:there] if named else [str(number) for number in range(there)]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
