"""Worker processes: pools of them, and that none outlives the process that started it."""

import ctypes
import functools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import SimpleNamespace
from typing import Any, TypeVar

from ccdcseg.errors import NO_OPTION, UserError
from ccdcseg.interrupts import end_after, ended_by, undone, uninterrupted

Progress = Callable[[int, int], None]
"""Called with the number of items done and of all items."""

A = TypeVar("A")
R = TypeVar("R")

UNWIND_SECONDS = 3.0
"""Time that a worker which is to end has for removing what it has half written."""
_LEFT_TO_PARENTS = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
_PDEATHSIG = 1  # PR_SET_PDEATHSIG of prctl(2)


class _Left(SystemExit):
    """A worker is to end."""


class Worker(SpawnProcess):
    """A spawned process that leaves Ctrl-C to its parent, and ends when the parent does, however that ends."""

    def start(self) -> None:
        """Start it; an interrupt comes when it can be found among the children."""
        with uninterrupted(), _kept_from_children():
            super().start()

    def run(self) -> None:
        """Do the work."""
        for number in _LEFT_TO_PARENTS:
            signal.signal(number, signal.SIG_IGN)
        with ended_by("SIGTERM", error=lambda: _Left(1), seconds=UNWIND_SECONDS, code=1):
            parent = multiprocessing.parent_process()
            if parent is not None:
                _end_with(parent)
            super().run()


@contextmanager
def _kept_from_children() -> Iterator[None]:
    """Have processes that are started not hear what is left to their parents, before `Worker.run` sees to it."""
    if os.name == "nt":
        yield
        return
    resource_tracker.ensure_running()  # it is started with the first and lets all signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_PARENTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: Any) -> None:
    """End when the parent does; where the system starts no thread to see to it, end now."""
    try:
        end_after(parent.join)
    except RuntimeError as error:
        raise _Left(1) from error


def can_share() -> bool:
    """Whether processes can share memory (``/dev/shm``); where not, a warning in the log says that one works."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as error:
        logging.getLogger(__name__).warning(
            "One process does the work: no shared memory for others (/dev/shm: %s).",
            getattr(error, "strerror", None) or str(error),
        )
        return False
    return True


def pool_map(
    function: Callable[[A], R], items: Sequence[A], workers: int, progress: Progress | None = None
) -> list[R]:
    """Call ``function`` on every item, in worker processes if there are to be several: one would be this one.

    Args:
        function: must be picklable, as items and results must, where there are several workers.
        items: its arguments.
        workers: processes; no more than items are started.
        progress: see `Progress`.

    Returns:
        The results, in the order of ``items``.

    Raises:
        UserError: a worker was killed, or could not start.
    """
    results: dict[int, R] = {}

    def keep(number: int, result: R) -> None:
        results[number] = result
        if progress is not None:
            progress(len(results), len(items))

    if min(workers, len(items)) > 1:
        _share_out(function, items, min(workers, len(items)), keep)
    else:
        for number, item in enumerate(items):
            keep(number, function(item))
    return [results[number] for number in range(len(items))]


def thread_map(
    function: Callable[[A], R], items: Sequence[A], workers: int, progress: Progress | None = None
) -> list[R]:
    """As `pool_map`, in threads: for functions that write nothing. After an interrupt one may run on."""
    if min(workers, len(items)) < 2:
        return pool_map(function, items, 1, progress)
    results = []
    with (
        ThreadPoolExecutor(min(workers, len(items))) as pool,
        undone(functools.partial(pool.shutdown, cancel_futures=True)),
    ):
        for result in pool.map(function, items):
            results.append(result)
            if progress is not None:
                progress(len(results), len(items))
    return results


def _share_out(
    function: Callable[[A], R], items: Sequence[A], workers: int, keep: Callable[[int, R], None]
) -> None:
    """Give every worker an item at a time. No thread helps with it: it may not start, or outlive an interrupt."""
    todo = deque(enumerate(items))
    busy: dict[Any, int] = {}

    def give(connection: Any) -> None:
        if todo:
            busy[connection], item = todo.popleft()
            with _alive():
                connection.send(item)

    with _team(function, workers) as connections:
        for connection in connections:
            give(connection)
        while busy:
            for connection in wait(list(busy)):
                keep(busy.pop(connection), _result(connection))
                give(connection)


@contextmanager
def _team(function: Callable[[A], R], workers: int) -> Iterator[list[Any]]:
    """Connections to workers that answer items with results; after the block nothing of them runs.

    They could write into a folder that is removed.
    """
    connections: list[Any] = []
    team: list[Worker] = []
    with undone(functools.partial(_end, team)):
        for _ in range(workers):
            ours, theirs = multiprocessing.Pipe()
            connections.append(ours)
            team.append(Worker(target=_serve, args=(theirs, function)))
            team[-1].start()
            theirs.close()
        yield connections
        for connection in connections:
            connection.close()
        for worker in team:
            worker.join(UNWIND_SECONDS)


def _end(team: Sequence[Worker]) -> None:
    started = [worker for worker in team if worker.pid is not None]
    for worker in started:
        worker.terminate()
    for worker in started:
        worker.join(2 * UNWIND_SECONDS)
        worker.kill()
        worker.join(UNWIND_SECONDS)


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise UserError(
            "A worker process was killed, probably for want of memory, or could not start.",
            f"Give fewer --processes {NO_OPTION}.",
        ) from error


def _result(connection: Any) -> Any:
    with _alive():
        result, error = connection.recv()
    if error is not None:
        raise error
    return result


def _serve(connection: Any, function: Callable[[A], R]) -> None:
    """What a worker does until its connection is closed."""
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(_answer(function, connection.recv()))


def _answer(function: Callable[[A], R], item: A) -> tuple[R | None, Exception | None]:
    """The result, or the error as it can be sent, with the place that it comes from."""
    try:
        return function(item), None
    except Exception as error:
        error.add_note(traceback.format_exc().rstrip())
        try:
            return None, pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        except Exception:
            return None, RuntimeError(traceback.format_exc())


@contextmanager
def foreign_pools(workers: int) -> Iterator[None]:
    """Let pools of spawned processes that other code makes meanwhile be of `Worker`.

    Where there is one worker, or no shared memory (see `can_share`), what they are given is done at once, in this
    process.
    """
    context: Any = multiprocessing.get_context("spawn")
    context.Process = Worker
    if workers == 1 or not can_share():
        context.Pool = NoPool
    try:
        yield
    finally:
        vars(context).pop("Pool", None)
        del context.Process


class NoPool:
    """The part of ``multiprocessing.Pool`` that nnU-Net uses when it plans, without a process."""

    _pool = ()

    def __init__(self, *_: object, **__: object) -> None:
        """Whatever a pool is made with."""

    def __enter__(self) -> "NoPool":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def starmap(self, function: Callable[..., R], items: Iterable[Sequence[Any]]) -> list[R]:
        """Do it."""
        return [function(*arguments) for arguments in items]

    def starmap_async(self, function: Callable[..., R], items: Iterable[Sequence[Any]]) -> Any:
        """Do it at once."""
        results = self.starmap(function, items)
        return SimpleNamespace(ready=lambda: True, get=lambda: results)


@functools.cache
def end_forks_with_this_process() -> None:
    """Have the kernel kill every process that is forked from now on (not spawned) when this one is gone.

    Only Linux can; other systems spawn.
    """
    if not sys.platform.startswith("linux"):
        return
    prctl = ctypes.CDLL(None).prctl
    parent = 0

    def remember() -> None:
        nonlocal parent
        parent = os.getpid()

    def follow() -> None:
        prctl(_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before the kernel knew
            os._exit(1)

    os.register_at_fork(before=remember, after_in_child=follow)
