"""A process that is told to end, at any moment."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from ccdcseg.datasets.cases import Case
from ccdcseg.datasets.prepared import prepare_once
from ccdcseg.datasets.release import Release, free_folder, write_dataset
from ccdcseg.interrupts import Interrupted, end_at_once, terminated_as_interrupted, undone, uninterrupted

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@dataclass(frozen=True)
class Scan:
    case: Case


def convert(folder: Path, scan: Scan) -> list[str]:
    (folder / "imagesTr").mkdir(exist_ok=True)
    (folder / "imagesTr" / scan.case.case).touch()
    return []


def prepare(raw: Path) -> None:
    """What the command does, with little in it."""
    release = Release("Ours", "One scan", "nobody", "CC0", {"thing": 1}, channels=("CT",))

    def make(place: Path) -> Path:
        return write_dataset(
            release, [Scan(Case("a1", "a", "", ""))], convert, free_folder(place, 7, "Ours"), 1
        )

    prepare_once(raw, 7, "mark", make)


WATCHED = ("ccdcseg/datasets/prepared", "ccdcseg/datasets/release", "ccdcseg/files", "ccdcseg/interrupts",
           "ccdcseg/processes", "contextlib", "filelock", "shutil")  # fmt: skip
MOMENTS = 70


def traced(raw: Path, visit: Callable[[], None]) -> None:
    """Prepare, and call ``visit`` at every line of the watched modules, and as their functions begin and end."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        del event
        name = frame.f_code.co_filename.removesuffix(".py")
        if not any(name.endswith(module) or f"/{module}/" in name for module in WATCHED):
            return None
        visit()
        return trace

    sys.settrace(trace)
    try:
        prepare(raw)
    finally:
        sys.settrace(None)


def test_whenever_sigterm_comes_nothing_half_made_is_left(tmp_path: Path) -> None:
    """In a process of its own: exceptions between any two steps may leave other libraries' locks held."""
    child = multiprocessing.get_context("spawn").Process(target=interrupt_often, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == 0


def interrupt_often(folder: Path) -> None:
    os.fsync = lambda _: None  # it takes most of the time
    visits = itertools.count()
    with terminated_as_interrupted():
        traced(folder / "dry", lambda: next(visits))
    for number in range(0, total := next(visits), total // MOMENTS):
        interrupt(folder / str(number), number)


def interrupt(raw: Path, number: int) -> None:
    """Send SIGTERM at a visit, or at the end where there are fewer."""
    visits = itertools.count()

    def visit() -> None:
        if next(visits) == number:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        traced(raw, visit)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted), terminated_as_interrupted():
        work()
    assert list(raw.glob("**/.*")) == []
    prepare(raw)
    assert [path.name for path in raw.iterdir()] == ["Dataset007_Ours"]


class Swallower:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_an_exception_that_was_swallowed_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        Swallower()
        time.sleep(60)

    with pytest.raises(Interrupted), terminated_as_interrupted():
        work()
    assert capsys.readouterr().err == ""


def test_an_exception_that_was_swallowed_at_last_comes_after_the_block() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted), terminated_as_interrupted():
        Swallower()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_does_not_interrupt_the_clean_up(name: str) -> None:
    done = []

    def work() -> None:
        try:
            signal.raise_signal(getattr(signal, name))
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            done.append(name)

    with pytest.raises(Interrupted), terminated_as_interrupted():
        work()
    assert done == [name]


def test_a_signal_that_nohup_has_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminated_as_interrupted():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_a_block_that_is_not_to_be_interrupted_the_exception_comes_after_it() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            done.append("inner")
        done.append("outer")

    with pytest.raises(Interrupted), terminated_as_interrupted(), uninterrupted():
        work()
    assert done == ["inner", "outer"]


def test_what_cannot_be_undone_is_an_error_once(tmp_path: Path) -> None:
    tries = []

    def work() -> None:
        with undone(lambda: tries.append(1) or (tmp_path / "file").unlink()):
            pass

    with pytest.raises(FileNotFoundError), terminated_as_interrupted():
        work()
    assert tries == [1]


def test_what_an_outer_process_of_its_own_makes_is_not_undone(tmp_path: Path) -> None:
    """Neither by a command within it nor by a process that is forked from it."""
    (kept := tmp_path / "kept").touch()
    with undone(kept.unlink):
        with pytest.raises(Interrupted), terminated_as_interrupted():
            signal.raise_signal(signal.SIGTERM)
        assert kept.exists()
        if (child := os.fork()) == 0:
            end_at_once(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert kept.exists()
    assert not kept.exists()


HEAD = """
import pathlib, signal, sys, threading, time
from ccdcseg.interrupts import *
half = pathlib.Path("half")
"""
SCRIPTS = {
    "a thread that never listens is ended": """
with ended_by("SIGTERM", error=Interrupted, seconds=0.3, code=7), undone(half.unlink):
    half.touch()
    while True:
        try:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)
        except BaseException as error:
            time.sleep(60)
""",
    "a signal that came just before a wait is heard": """
def tell_another_thread():
    time.sleep(0.3)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

try:
    with terminated_as_interrupted(), undone(half.unlink):
        half.touch()
        threading.Thread(target=tell_another_thread).start()
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
except Interrupted:
    sys.exit(7)
""",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_process_ends_with_everything_undone_where(tmp_path: Path, script: str) -> None:
    program = [sys.executable, "-c", HEAD + SCRIPTS[script]]
    done = subprocess.run(program, cwd=tmp_path, check=False, timeout=60, capture_output=True)
    assert (done.returncode, done.stderr) == (7, b"")
    assert list(tmp_path.iterdir()) == []
