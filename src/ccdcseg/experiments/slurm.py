"""Running jobs as a SLURM job array, through the optional dependency submitit."""

import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ccdcseg.errors import UserError
from ccdcseg.experiments.jobs import Job
from ccdcseg.experiments.runner import PROGRAM, PYTHON, Runner
from ccdcseg.files import read_json, write_json

POLL_SECONDS = 2.0
_LISTS = ("slurm_setup", "slurm_teardown", "slurm_srun_args")
"""Options of submitit that are lists, to which each value that is given is added."""
_SWITCHES = ("slurm_use_srun", "slurm_stderr_to_stdout")
"""Options that any text turns on, "no" too."""


class SlurmRunner:
    """Jobs as one array; which are finished is read from their files, so no SLURM accounting is needed.

    Args:
        workers: array tasks side by side.
        folder: of submitit's scripts and logs, on a disk that all nodes see.
        options: of submitit, such as ``slurm_partition`` or ``timeout_min``.
        threads: of each; None: all cores that its node gives it. What the environment says comes first.
        program: what runs a command.
        cluster: "slurm", or "local" for submitit's own executor without SLURM.

    Raises:
        UserError: submitit or SLURM is not there, an option does not exist, or its value is of another kind.
    """

    def __init__(
        self,
        workers: int,
        folder: Path,
        options: Mapping[str, Any],
        threads: int | None = None,
        program: Sequence[str] = PROGRAM,
        cluster: str = "slurm",
    ) -> None:
        self.workers = workers
        self._given = (tuple(program), threads)
        self._executor = _executor(folder, cluster)
        self._alive: Callable[[Sequence[Any]], set[str]] = _queued if cluster == "slurm" else _running
        limits = {"slurm_array_parallelism": workers, "timeout_min": 24 * 60} if cluster == "slurm" else {}
        try:
            self._executor.update_parameters(**{**limits, **options})
        except Exception as error:  # each kind of mistake has an error of its own there
            raise UserError(f"--slurm: {str(error).splitlines()[0]}", "See submitit's options.") from error

    def run(self, jobs: Sequence[Job], progress: Callable[[], None]) -> dict[Job, str]:
        """Submit jobs, wait for them and call ``progress`` meanwhile; what went wrong, by job.

        Raises:
            UserError: SLURM takes no such tasks.
            KeyboardInterrupt: after the array was cancelled.
        """
        if not jobs:
            return {}
        for job in jobs:
            _problem_file(job).unlink(missing_ok=True)
        submitted = self._submit(jobs)
        try:  # a task that failed is in the queue again where SLURM requeues it, as it does what it preempts
            while self._alive(submitted) and not all(job.result.exists() for job in jobs):
                progress()
                time.sleep(POLL_SECONDS)
        except BaseException:
            for task in submitted:
                task.cancel(check=False)
            raise
        time.sleep(POLL_SECONDS)  # what was written last on a node becomes visible
        tasks = zip(jobs, submitted, strict=True)
        return {job: _problem(job, task.paths) for job, task in tasks if not job.result.exists()}

    def _submit(self, jobs: Sequence[Job]) -> Any:
        try:
            return self._executor.map_array(measure, jobs, *([one] * len(jobs) for one in self._given))
        except RuntimeError as error:
            raise UserError(f"SLURM takes no tasks: {error}.", "Give other options with --slurm.") from error


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """``key=value`` texts as a mapping, numbers, true and false as such, and what is a list as one.

    Raises:
        UserError: one has another form.
    """
    parsed: dict[str, Any] = {}
    for option in options:
        key, _, text = option.partition("=")
        if not (key and text):
            raise UserError(f"--slurm {key} is not of the form key=value.", "Write slurm_partition=gpu.")
        parsed[key] = [*parsed.get(key, []), text] if key in _LISTS else _value(text)
    for key in _SWITCHES:
        if not isinstance(parsed.get(key, True), int):
            raise UserError(f"--slurm {key} is neither true nor false.", f"Write {key}=false.")
    return parsed


def _value(text: str) -> Any:
    """What a text says; a number that is not written as such, like 007, may be a name."""
    for kind in (int, float):
        with suppress(ValueError):
            if str(number := kind(text)) == text:
                return number
    return {"true": True, "false": False}.get(text.lower(), text)


def measure(job: Job, program: Sequence[str], threads: int | None) -> None:
    """On a node: run a job, and write down what went wrong."""
    _problem_file(job).unlink(missing_ok=True)  # of an attempt before this one
    problems = Runner(1, threads, program=program).run([job], lambda: None)
    if problems:
        write_json(_problem_file(job), problems[job])


def _executor(folder: Path, cluster: str) -> Any:
    try:
        import submitit  # noqa: PLC0415 - optional

        python = shlex.join(PYTHON)
        return submitit.AutoExecutor(folder, cluster, slurm_python=python, local_python=python)
    except ImportError as error:
        raise UserError(
            "The package submitit is not installed.", "pip install '.[slurm]' in a clone of ccdcseg."
        ) from error
    except RuntimeError as error:
        raise UserError("There is no SLURM here (no srun).", "Use --launcher local.") from error


def _queued(submitted: Sequence[Any]) -> set[str]:
    """Tasks that SLURM's queue still holds; all of them where it does not answer."""
    ids = {task.job_id for task in submitted}
    array = next(iter(ids)).split("_")[0]
    command = ["squeue", "--noheader", "--array", "--format", "%i", "--jobs", array]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if answer.returncode:
        return set() if "Invalid job id" in answer.stderr else ids
    return set(answer.stdout.split())


def _running(submitted: Sequence[Any]) -> set[str]:
    return {task.job_id for task in submitted if not task.done()}


def _problem_file(job: Job) -> Path:
    return job.folder / f"{job.part}.failed.json"


def _problem(job: Job, paths: Any) -> str:
    """What went wrong; what SLURM has ended did not write it down, and may never have begun."""
    if _problem_file(job).exists():
        return str(read_json(_problem_file(job)))
    logs = [f": see {path}" for path in (paths.stderr, paths.stdout) if path.exists()]
    return "".join(["SLURM ended it without a result (time, memory, or cancelled)", *logs[:1]])
