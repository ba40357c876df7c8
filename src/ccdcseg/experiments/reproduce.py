"""Running what an experiment still lacks, with progress, interruptible."""

from collections.abc import Callable, Iterable

from ccdcseg.experiments.jobs import Job
from ccdcseg.experiments.runner import Runner, seconds_left
from ccdcseg.experiments.slurm import SlurmRunner
from ccdcseg.runs.history import count_epochs

Progress = Callable[[str, int, int], None]


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """Each training once: tables share some."""
    return list({job.result: job for job in jobs}.values())


def unfinished(jobs: Iterable[Job]) -> list[Job]:
    """Jobs without a result."""
    return [job for job in jobs if not job.result.exists()]


def run_jobs(
    jobs: list[Job], runner: Runner | SlurmRunner, progress: Progress, left: Callable[[float], None]
) -> dict[Job, str]:
    """Run what has no result yet.

    Args:
        jobs: of an experiment.
        runner: with its workers.
        progress: called with a stage's name, steps done and steps in all.
        left: called with the seconds left each time a job was finished.

    Returns:
        What went wrong, by job.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after every process was stopped.
    """
    finished = -1
    shown: dict[Job, int] = {}

    def show() -> None:
        nonlocal finished
        done = sum(job.result.exists() for job in jobs)
        if done != finished:
            finished = done
            progress("trainings", done, len(jobs))
            if (seconds := seconds_left(jobs, runner.workers)) is not None:
                left(seconds)
        for job in jobs:
            epochs = count_epochs(job.run) if job.log.exists() and not job.result.exists() else 0
            if epochs > shown.get(job, 0):
                shown[job] = epochs
                progress(job.label, epochs, job.epochs)

    show()
    problems = runner.run(unfinished(jobs), show)
    show()
    return problems
