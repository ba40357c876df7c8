"""How a process that is told to end does so: whenever the signal comes, nothing half-made is left.

Python raises the exception of a signal between any two steps of the main thread: in a clean-up as well as in work,
after a folder is made and before its name is known, in a ``__del__``, which swallows it. So what is to be undone is
written down before it is made (`undone`), and what is still due is undone when no exception can come any more.
"""

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any

STOP_SECONDS = 30.0
"""Time that a command which is to end has for stopping what it has started."""
INSIST_SECONDS = 0.1
"""Time after which a process that has not seen that it is to end is told again."""

_due: list[Callable[[], object]] = []
"""What is to be undone, in the order in which it was made."""


class Interrupted(KeyboardInterrupt):
    """The command is to end."""


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Undo what the block makes when it ends, however it ends.

    Args:
        undo: may be called again where it was interrupted, and before anything was made.
    """
    _due.append(undo)
    try:
        yield
    finally:
        if undo in _due:  # an interrupted block may end after everything was undone, when it is collected
            try:
                undo()
            except Exception:
                _due.remove(undo)  # it cannot be undone, now or later
                raise
            _due.remove(undo)


def _undo(made: int) -> None:
    """Undo what is still due, the last first, except for the first ``made``, which others wrote down."""
    while len(_due) > made:
        with suppress(Exception):  # the next is undone all the same
            _due.pop()()


class _Ending:
    """That this process is to end, and how its main thread hears of it: by an exception."""

    def __init__(self, error: Callable[[], BaseException]) -> None:
        self.told = 0
        self.held = 0
        self.over = threading.Event()
        self.error = error
        self._raised: Callable[[], object] = lambda: None

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        del frame
        self.told = number
        self.tell()

    def tell(self) -> None:
        """Raise the exception, if there is reason to and it may come now."""
        if self.told and not self.held and not self.heard:
            raise self._new()

    @property
    def heard(self) -> bool:
        """Whether the exception is on its way. One that was swallowed is not there any more."""
        return self._raised() is not None

    def _new(self) -> BaseException:
        error = self.error()
        self._raised = weakref.ref(error)
        return error


_ending: _Ending | None = None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Have the exception of a signal come after the block, which is to be short."""
    ending = _ending
    if ending is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    ending.held += 1
    try:
        yield
    finally:
        ending.held -= 1
        ending.tell()


def terminated_as_interrupted() -> AbstractContextManager[None]:
    """Have SIGTERM and SIGHUP do what Ctrl-C does, see `ended_by`: `Interrupted` is raised, once."""
    return ended_by("SIGINT", "SIGTERM", "SIGHUP", error=Interrupted, seconds=STOP_SECONDS, code=2)


@contextmanager
def ended_by(*names: str, error: Callable[[], BaseException], seconds: float, code: int) -> Iterator[None]:
    """Have signals raise an exception in the main thread; what is left after the block is undone.

    A signal that ``nohup`` has ignored stays so.

    Args:
        names: of the signals; those that this system lacks play no part.
        error: makes the exception, whose class must have weak references.
        seconds: after which a process that was told is ended whatever it does, with everything undone.
        code: its exit code then.

    Raises:
        BaseException: the exception, where the block ended as if it had not come.
    """
    global _ending  # noqa: PLW0603 - signals are the process's
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {n: handler for n in numbers if (handler := signal.getsignal(n)) != signal.SIG_IGN}
    outer, ending, made = _ending, _Ending(error), len(_due)
    with _swallowed_quietly(error), _insisting(ending, before, lambda: end_at_once(code, made), seconds):
        try:
            _ending = ending
            for number in before:
                signal.signal(number, ending.hear)
            yield
        finally:
            ending.held += 1
            _undo(made)
            for number, handler in before.items():
                signal.signal(number, handler)
            _ending = outer
    if ending.told:
        raise error()


def end_at_once(code: int, made: int = 0) -> None:
    """End this process without another step of its main thread, once everything is undone."""
    _undo(made)
    os._exit(code)


@contextmanager
def _swallowed_quietly(error: Callable[[], BaseException]) -> Iterator[None]:
    """Say nothing of the exception where it comes in a ``__del__`` or the like: it comes again."""
    kind, say = type(error()), sys.unraisablehook

    def say_others(swallowed: Any) -> None:
        if swallowed.exc_type is not kind:
            say(swallowed)

    sys.unraisablehook = say_others
    try:
        yield
    finally:
        sys.unraisablehook = say


@contextmanager
def _insisting(
    ending: _Ending, numbers: Collection[int], end: Callable[[], object], seconds: float
) -> Iterator[None]:
    """Have a thread see to it that a signal is heard, and call ``end`` where that did not do in time.

    Python's handlers run between two steps of the main thread: a signal that comes as it begins to wait for a lock,
    which no signal wakes it from any more, would not be heard. The system's handler writes to a pipe at once. On
    Windows Ctrl-C is the only such signal. Who may start no other thread does without.
    """
    if os.name == "nt":
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    with suppress(RuntimeError):
        threading.Thread(target=_insist, args=(ending, reader, numbers, end, seconds), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        with suppress(OSError):  # nobody reads any more
            os.write(writer, b"\0")
        ending.over.set()
        os.close(writer)


def _insist(
    ending: _Ending, reader: int, numbers: Collection[int], end: Callable[[], object], seconds: float
) -> None:
    told = _told(reader, {0, *numbers})
    last = time.monotonic() + seconds
    while not ending.over.wait(INSIST_SECONDS):
        if time.monotonic() > last:
            end()
        if not ending.heard and (main := threading.main_thread().ident):
            signal.pthread_kill(main, told)
    os.close(reader)


def _told(reader: int, numbers: Collection[int]) -> int:
    """The first of these numbers that is read."""
    while not (read := [number for number in os.read(reader, 64) if number in numbers]):
        pass
    return read[0]


def _in_a_fork() -> None:
    """A forked process leaves to the one that it was forked from what is to be undone, and its signals."""
    _due.clear()
    if _ending is not None and os.name != "nt":
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_fork)


def end_with_standard_input() -> None:
    """End this process as SIGTERM does once its standard input is closed, as it is when its parent is gone."""

    def closed() -> None:
        while os.read(0, 1):
            pass

    end_after(closed)


def end_after(wait: Callable[[], object]) -> None:
    """Wait in the background, then end this process as SIGTERM does."""

    def end() -> None:
        wait()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()
