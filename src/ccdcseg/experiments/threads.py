"""One number of threads for all trainings of a table: results depend on it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccdcseg.cores import THREADS, requested_threads, usable_cores
from ccdcseg.experiments.jobs import Job, read_results
from ccdcseg.experiments.runner import worker_threads
from ccdcseg.runs.record import read_known


@dataclass(frozen=True)
class Threads:
    """What each training computes with.

    Attributes:
        count: of each training that is still to be done; None: all cores that a node of SLURM gives it.
        note: what to say where others were begun with another number; empty: none was.
    """

    count: int | None
    note: str = ""


def plan_threads(jobs: Sequence[Job], workers: int, slurm: Mapping[str, Any] | None = None) -> Threads:
    """As many as the environment says, as those of trainings that were begun, or a share of the cores.

    Those that were begun decide if they agree and their number leaves each worker its share.

    Args:
        jobs: all of them, finished or not.
        workers: side by side; each has its share of this machine.
        slurm: submitit's options, where its tasks compute: each has the cores that it asks for.
    """
    begun = begun_threads(jobs)
    share = worker_threads(workers) if slurm is None else requested_threads() or task_cores(slurm)
    agreed = share and requested_threads() is None and len(begun) == 1 and min(begun) <= share
    count = min(begun) if agreed else share
    others = sorted(begun.keys() - {count})
    if not others or all(job.finished or job.training.finished for job in jobs):
        return Threads(count)
    number, other, rest = begun[others[0]], others[0], count or "what their node gives them"
    here = f"--processes {max(1, usable_cores() // other)}"
    room = here if slurm is None else f"--slurm cpus_per_task={other}"
    return Threads(
        count,
        f"{number} of these trainings computed with {thread_count(other)}, the others get {rest}: alone by that a "
        f"result can move by a point of Dice. With {THREADS}={other} and {room} all have the same.",
    )


def task_cores(slurm: Mapping[str, Any]) -> int | None:
    """Cores that a task of SLURM asks for; None where submitit's options do not say."""
    cores = slurm.get("cpus_per_task") or slurm.get("slurm_cpus_per_task")
    return cores if isinstance(cores, int) else None


def begun_threads(jobs: Sequence[Job]) -> Counter[int]:
    """How many of the jobs' trainings were begun with which number of threads, where that is known."""
    results = read_results(jobs)
    records = [results[job].run if job in results else read_known(job.run) for job in jobs]
    return Counter(r.threads for r in records if r and r.device == "cpu" and r.threads is not None)


def thread_count(count: int) -> str:
    """A number of threads in words."""
    return f"{count} thread{'s' if count != 1 else ''}"
