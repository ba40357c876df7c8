"""Progress on the terminal, with the time left."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

QUIET_SECONDS = 15.0
"""Time between two lines where the output is no terminal."""
FULL_BARS = 4
"""Finished stages that stay on a terminal, which has room for some twenty lines."""


@contextmanager
def progress_bars() -> Iterator[Callable[..., None]]:
    """Yield ``report(stage, done, total, note="")``: a bar a stage, or a line now and then in a log file."""
    if sys.stderr.isatty():
        yield from _bars()
    else:
        yield _lines()


def _bars() -> Iterator[Callable[..., None]]:
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {}

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            if stage not in tasks:
                finished = [task.id for task in progress.tasks if task.finished]
                for task in finished[:-FULL_BARS]:
                    progress.update(task, visible=False)
                tasks[stage] = progress.add_task(stage, total=total, note=note)
            progress.update(tasks[stage], completed=done, total=total, note=note)

        yield report


def _lines() -> Callable[..., None]:
    stream = sys.stderr
    first: dict[str, tuple[float, int]] = {}
    last: dict[str, float] = {}

    def report(stage: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        start, offset = first.setdefault(stage, (now, done))
        if done < total and now - last.get(stage, -QUIET_SECONDS) < QUIET_SECONDS:
            return
        last[stage] = now
        left = (now - start) / (done - offset) * (total - done) if done > offset else None
        tail = f", {left:.0f} s left" if left is not None else ""
        print(f"{stage}: {done} of {total}{tail}{f', {note}' if note else ''}", file=stream, flush=True)

    return report
