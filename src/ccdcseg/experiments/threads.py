"""One number of threads for all trainings of a table: results depend on it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ccdcseg.cores import THREADS, requested_threads, usable_cores
from ccdcseg.experiments.jobs import Job, read_results
from ccdcseg.experiments.runner import worker_threads
from ccdcseg.runs.record import read_known


@dataclass(frozen=True)
class Threads:
    """What each training computes with.

    Attributes:
        count: of each training that is still to be done.
        note: what to say where others were begun with another number; empty: none was.
    """

    count: int
    note: str = ""


def plan_threads(jobs: Sequence[Job], workers: int) -> Threads:
    """As many as the environment says, as those of trainings that were begun, or a worker's share of the cores.

    Those that were begun decide if they agree and their number leaves each worker its share.
    """
    begun = begun_threads(jobs)
    share = worker_threads(workers)
    agreed = requested_threads() is None and len(begun) == 1 and min(begun) <= share
    count = min(begun) if agreed else share
    others = sorted(begun.keys() - {count})
    if not others:
        return Threads(count)
    number, other = begun[others[0]], others[0]
    return Threads(
        count,
        f"{number} of these trainings computed with {_threads(other)}, the others get {count}: alone by that a "
        f"result can move by a point of Dice. With {THREADS}={other} and --processes "
        f"{max(1, usable_cores() // other)} all have the same.",
    )


def begun_threads(jobs: Sequence[Job]) -> Counter[int]:
    """How many of the jobs' trainings were begun with which number of threads, where that is known."""
    results = read_results(jobs)
    records = [results[job].run if job in results else read_known(job.run) for job in jobs]
    return Counter(r.threads for r in records if r and r.device == "cpu" and r.threads is not None)


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"
