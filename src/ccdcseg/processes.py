"""Worker processes: pools of them, and that none outlives the process that started it."""

import ctypes
import functools
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import FrameType, SimpleNamespace
from typing import Any, NoReturn, TypeVar

from ccdcseg.errors import UserError

Progress = Callable[[int, int], None]
"""Called with the number of items done and of all items."""

A = TypeVar("A")
R = TypeVar("R")

UNWIND_SECONDS = 3.0
"""Time that a worker which is to end has for removing what it has half written."""
INSIST_SECONDS = 0.1
"""Time after which a worker that has not seen that it is to end is told again."""
STOP_SECONDS = 30.0
"""Time that a command which is to end has for stopping what it has started."""
_PDEATHSIG = 1  # PR_SET_PDEATHSIG of prctl(2)
_numbers = itertools.count()
_told_to_end: list[int] = []
"""The signal by which this worker was."""


class Worker(SpawnProcess):
    """A spawned process that leaves Ctrl-C to its parent, and ends when the parent does, however that ends."""

    def run(self) -> None:
        """Do the work."""
        for name in ("SIGINT", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _unwind)
        _insist_on_sigterm(UNWIND_SECONDS)
        parent = multiprocessing.parent_process()
        if parent is not None:
            _end_after(parent.join, UNWIND_SECONDS)
        try:
            super().run()
        finally:  # a pool that ends its workers may meet one that is ending by itself
            if signal.getsignal(signal.SIGTERM) is _unwind:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Context(SpawnContext):
    Process = Worker


def worker_processes(workers: int) -> Executor:
    """A pool of `Worker` processes; one worker needs no process of its own, and is a thread; see `can_share`."""
    if workers > 1 and can_share():
        return ProcessPoolExecutor(workers, _Context())
    return _OneThread()


class _OneThread(ThreadPoolExecutor):
    """A pool of one thread, that can be waited for though its start was interrupted: the pool forgets it then."""

    def __init__(self) -> None:
        self.name = f"ccdcseg-{next(_numbers)}"
        super().__init__(1, self.name)

    def join(self) -> None:
        """Wait until it has ended, which it does once the pool is shut down."""
        while any(thread.name.startswith(f"{self.name}_") for thread in threading.enumerate()):
            time.sleep(INSIST_SECONDS / 10)


def can_share() -> bool:
    """Whether processes can share memory (``/dev/shm``); where not, a warning in the log says that one works."""
    reason = _missing_semaphores()
    if reason is not None:
        logging.getLogger(__name__).warning(
            "One process does the work: no shared memory for others (/dev/shm: %s).", reason
        )
    return reason is None


def pool_map(
    function: Callable[[A], R], items: Sequence[A], pool: Executor, progress: Progress | None = None
) -> list[R]:
    """Call ``function`` on every item in the pool, which is closed afterwards.

    Args:
        function: must be picklable where the pool is one of processes.
        items: its arguments.
        pool: of threads or processes.
        progress: see `Progress`.

    Returns:
        The results, in the order of ``items``.

    Raises:
        UserError: a process of the pool was killed.
    """
    results: list[R] = []
    with pool:
        try:
            for result in pool.map(functools.partial(_work, function), items):
                results.append(result)
                if progress is not None:
                    progress(len(results), len(items))
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process was killed, probably for want of memory.", "Give fewer --processes."
            ) from error
        except BaseException:
            _stop(pool)
            raise
    return results


def _work(function: Callable[[A], R], item: A) -> R:
    """Call ``function``; a worker that is told to end ends, which the loop of the pool would prevent.

    It may have been told while it handed over what it did before: the loop takes that for a failure of its own.
    """
    if _told_to_end:
        os._exit(1)
    try:
        return function(item)
    except SystemExit:
        os._exit(1)


def _stop(pool: Executor) -> None:
    """End the workers of a pool. Nothing of it runs afterwards, and could write into a folder that is removed."""
    pool.shutdown(wait=isinstance(pool, ThreadPoolExecutor), cancel_futures=True)
    if isinstance(pool, _OneThread):
        pool.join()
    workers = [child for child in multiprocessing.active_children() if isinstance(child, Worker)]
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(2 * UNWIND_SECONDS)
        worker.kill()


@contextmanager
def foreign_pools(workers: int) -> Iterator[None]:
    """Let pools of spawned processes that other code makes meanwhile be of `Worker`.

    Where there is one worker, or no shared memory (see `worker_processes`), what they are given is done at once, in
    this process.
    """
    context: Any = multiprocessing.get_context("spawn")
    context.Process = Worker
    if workers == 1 or _missing_semaphores():
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


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Have SIGTERM and SIGHUP do what Ctrl-C does, so that everything is cleared away, for as long as it takes.

    What has not ended ``STOP_SECONDS`` later is ended all the same. A signal that ``nohup`` has ignored stays so.

    Raises:
        KeyboardInterrupt: on the first such signal; others are ignored from then on.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {n: handler for n in numbers if (handler := signal.getsignal(n)) != signal.SIG_IGN}
    end = _delayed_end(STOP_SECONDS, 2)

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        end.start()
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        end.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_standard_input() -> None:
    """End this process as SIGTERM does once its standard input is closed, as it is when its parent is gone."""

    def closed() -> None:
        while os.read(0, 1):
            pass

    _end_after(closed, STOP_SECONDS)


def _end_after(wait: Callable[[], object], seconds: float) -> None:
    """Wait in the background, then send this process SIGTERM, and end it where that did not do in time."""

    def end() -> None:
        wait()
        os.kill(os.getpid(), signal.SIGTERM)
        _delayed_end(seconds, 1).run()

    threading.Thread(target=end, daemon=True).start()


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    """Leave the work; see `_insist_on_sigterm` for what does not."""
    del frame
    _told_to_end.append(number)
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(1)


def _insist_on_sigterm(seconds: float) -> None:
    """Have SIGTERM reach the main thread, and end this process ``seconds`` later whatever that does.

    Python's handlers run between two steps of the main thread: a signal that comes as it begins to wait for a lock,
    which no signal wakes it from any more, would not be seen. The system's handler writes to a pipe at once. On
    Windows there are no such signals: a process is ended at once.
    """
    if os.name == "nt":
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=functools.partial(signal.set_wakeup_fd, -1))
    main = threading.main_thread().ident

    def insist() -> None:
        while signal.SIGTERM not in os.read(reader, 64):
            pass
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(INSIST_SECONDS)
            if main is not None:
                signal.pthread_kill(main, signal.SIGTERM)
        os._exit(1)

    threading.Thread(target=insist, daemon=True).start()


def _delayed_end(seconds: float, code: int) -> threading.Timer:
    """A timer that ends this process, whatever it does then."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    return timer


def _missing_semaphores() -> str | None:
    """Why no semaphore can be shared between processes; None: they can."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None
