"""Running what an experiment still lacks, with progress, interruptible."""

from collections.abc import Callable, Iterable, Sequence

from ccdcseg.experiments.jobs import Job, read_results
from ccdcseg.experiments.runner import Runner
from ccdcseg.experiments.slurm import SlurmRunner
from ccdcseg.experiments.threads import thread_count
from ccdcseg.nnunet.duration import duration_text, run_seconds, thread_seconds_left
from ccdcseg.runs.history import count_epochs

Progress = Callable[[str, int, int], None]


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """Each training once: tables share some."""
    return list({job.result: job for job in jobs}.values())


def unfinished(jobs: Iterable[Job]) -> list[Job]:
    """Jobs without a result that counts."""
    return [job for job in jobs if not job.finished]


def seconds_left(jobs: Sequence[Job], workers: int, threads: int | None) -> float | None:
    """Time until all jobs are trained, predicted and measured.

    Rough before the first is finished (see `ccdcseg.nnunet.duration`), then by the pace of those that are; None on
    a GPU and of an unknown number of threads, whose pace is not known before.

    Args:
        jobs: finished or not.
        workers: jobs side by side.
        threads: of each; None: not known.
    """
    results, todo = read_results(jobs), unfinished(jobs)
    if todo and not results and (threads is None or todo[0].device != "cpu"):
        return None
    trained = [(result.run.seconds, run_seconds(job.training)) for job, result in results.items()]
    measured = [(result.after_seconds, job.after_seconds) for job, result in results.items()]
    train = _pace(trained, threads or 1) * thread_seconds_left(job.training for job in todo)
    after = _pace(measured, threads or 1) * sum(
        job.after_seconds * (1 - job.predicted / job.cases) for job in todo
    )
    return (train + after) / workers


def outlook(jobs: Sequence[Job], workers: int, threads: int | None) -> str:
    """What is to be done and how long it takes, in a sentence; see `seconds_left`."""
    left = unfinished(jobs)
    trained = sum(job.training.finished for job in left)
    todo = f"{len(left) - trained} of {len(jobs)} trainings to do" + f", {trained} to measure" * bool(trained)
    if not left:
        return f"{todo}."
    seconds = seconds_left(jobs, workers, threads)
    each = f", {thread_count(threads)} each" if threads else ""
    length = (
        f"roughly {duration_text(seconds)}" if seconds is not None else "how long is known after the first"
    )
    return f"{todo}, {workers} at a time{each}: {length}."


def _pace(times: Iterable[tuple[float | None, float]], threads: int) -> float:
    """Of what was measured, in that of one thread; shared among threads where nothing was measured."""
    known = [(measured, expected) for measured, expected in times if measured is not None]
    if not known:
        return 1 / threads
    return sum(measured for measured, _ in known) / sum(expected for _, expected in known)


def run_jobs(
    jobs: list[Job], runner: Runner | SlurmRunner, progress: Progress, finished: Callable[[], None]
) -> dict[Job, str]:
    """Run what has no result yet.

    Args:
        jobs: of an experiment.
        runner: with its workers.
        progress: called with a stage's name, steps done and steps in all.
        finished: called each time another job was finished, and once at the beginning.

    Returns:
        What went wrong, by job.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after every process was stopped.
    """
    shown: dict[str, int] = {}

    def show() -> None:
        done = len(jobs) - len(unfinished(jobs))
        if done != shown.get("measured"):
            shown["measured"] = done
            progress("measured", done, len(jobs))
            finished()
        for stage, count, total in (stage for job in unfinished(jobs) for stage in stages(job)):
            if count > shown.get(stage, 0):
                shown[stage] = count
                progress(stage, count, total)

    show()
    problems = runner.run(unfinished(jobs), show)
    show()
    return problems


def stages(job: Job) -> list[tuple[str, int, int]]:
    """Name, what is done and what is to be done of each stage of a job that was begun here."""
    if not job.log.exists():
        return []
    return [
        (f"{job.label}: epochs", count_epochs(job.run), job.training.preset.training.epochs),
        (f"{job.label}: predicted", job.predicted, job.cases),
    ]
