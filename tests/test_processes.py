"""Workers, and that none of them is left, however the process that started them ends."""

import functools
import logging
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ccdcseg.errors import UserError
from ccdcseg.processes import foreign_pools, pool_map, thread_map

POOL = """
import pathlib, sys, time
from ccdcseg.interrupts import *
from ccdcseg.processes import *

def write(place):
    half = pathlib.Path(place, "half")
    try:
        half.touch()
        time.sleep(600)
    finally:
        half.unlink(missing_ok=True)

def main(places):
    with terminated_as_interrupted():
        {start}

if __name__ == "__main__":
    main(sys.argv[1:])
"""
STARTS = {
    "our pool": "pool_map(write, places, len(places))",
    "another's pool": "import multiprocessing\n"
    "        with foreign_pools(len(places)), multiprocessing.get_context('spawn').Pool(len(places)) as pool:\n"
    "            pool.map(write, places)",
    "a fork": "import multiprocessing\n"
    "        end_forks_with_this_process()\n"
    "        multiprocessing.get_context('fork').Process(target=write, args=places[1:], daemon=True).start()\n"
    "        write(places[0])",
}

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def processes_of(mark: str) -> list[int]:
    """Everything that runs with the mark in its environment, orphans among it; the dead have none."""
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if has(path, mark)]


def has(path: Path, mark: str) -> bool:
    try:
        return mark.encode() in path.read_bytes()
    except OSError:
        return False


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGKILL"])
def test_no_process_is_left(tmp_path: Path, start: str, name: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(POOL.format(start=STARTS[start]))
    places = [tmp_path / place for place in ("one", "two")]
    for place in places:
        place.mkdir()
    mark = f"CCDCSEG_TEST_MARK={tmp_path}"
    environment = {**os.environ, "CCDCSEG_TEST_MARK": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, script, *places], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: all((place / "half").exists() for place in places))
        process.send_signal(getattr(signal, name))
    assert process.returncode
    wait_for(lambda: not processes_of(mark))
    if start != "a fork" or name != "SIGKILL":
        assert [*tmp_path.glob("*/half")] == []


UNSEEN = """
import pathlib, signal, sys, threading, time
from ccdcseg.processes import Worker

def tell_another_thread():
    time.sleep(0.5)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

def wait(place):
    half = pathlib.Path(place, "half")
    lock = threading.Lock()
    try:
        half.touch()
        threading.Thread(target=tell_another_thread).start()
        lock.acquire()
        lock.acquire()
    finally:
        half.unlink()

if __name__ == "__main__":
    worker = Worker(target=wait, args=sys.argv[1:])
    worker.start()
    worker.join()
    sys.exit(worker.exitcode)
"""


def test_a_worker_sees_sigterm_though_it_began_to_wait_as_it_came(tmp_path: Path) -> None:
    """The signal is handled in another thread, as it were just before the lock is waited for."""
    script = tmp_path / "script.py"
    script.write_text(UNSEEN)
    done = subprocess.run([sys.executable, script, tmp_path], check=False, timeout=60, capture_output=True)
    assert done.returncode == 1, done.stderr
    assert not (tmp_path / "half").exists()


def test_a_failure_ends_what_the_other_workers_do(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(POOL.format(start=STARTS["our pool"]))
    command = [sys.executable, script, tmp_path / "not there", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "not there" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "half").exists()


def number_of(_: object) -> int:
    return os.getpid()


def test_workers_are_processes_of_their_own_unless_there_is_one() -> None:
    assert pool_map(number_of, [1, 2], 1) == [os.getpid()] * 2
    assert pool_map(number_of, [1], 2) == [os.getpid()]
    assert os.getpid() not in pool_map(number_of, [1, 2, 3], 2)
    assert pool_map(number_of, [], 2) == []


def later(item: int) -> int:
    time.sleep(0.3 / item)
    return item


@pytest.mark.parametrize("go", [pool_map, thread_map])
@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items_whoever_is_done_first(
    go: Callable[..., list[int]], workers: int
) -> None:
    said: list[tuple[int, int]] = []
    assert go(later, range(1, 6), workers, lambda *numbers: said.append(numbers)) == [1, 2, 3, 4, 5]
    assert said == [(done, 5) for done in range(1, 6)]
    assert not multiprocessing.active_children()


def test_an_error_ends_what_other_threads_would_begin() -> None:
    begun, before = [], {*threading.enumerate()}

    def fail_at_once(item: int) -> None:
        begun.append(item)
        time.sleep(0.1 * item)
        if not item:
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        thread_map(fail_at_once, range(50), 2)
    assert len(begun) < 10
    assert not {*threading.enumerate()} - before


class OddError(Exception):
    def __init__(self, one: object, two: object) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (functools.partial(UserError, "It is bad.", "Mend it."), UserError),
        (functools.partial(FileNotFoundError, 2, "gone", "place"), FileNotFoundError),
        (functools.partial(OddError, 1, 2), RuntimeError),
    ],
)
def test_errors_of_workers_are_raised_here(make: Callable[[], Exception], kind: type[Exception]) -> None:
    """As they are, or, where they cannot be sent, in words; with their place, but for users' own."""
    with pytest.raises(kind) as raised:
        pool_map(functools.partial(fail, make), [1, 2], 2)
    assert str(make()) in str(raised.value)
    said = f"{raised.value}{getattr(raised.value, '__notes__', '')}"
    assert ("in fail" in said) == (kind is not UserError)
    assert getattr(raised.value, "filename", "place") == "place"


def fail(make: Callable[[], Exception], _: object) -> None:
    raise make()


def test_without_shared_memory_workers_work_and_nnunets_pool_is_this_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", refuse)
    assert os.getpid() not in pool_map(number_of, [1, 2], 2)
    assert not caplog.record_tuples
    context = multiprocessing.get_context("spawn")
    with foreign_pools(2), context.Pool(2) as foreign:
        assert foreign.starmap_async(divmod, [(7, 2)]).get() == [(3, 1)]
    assert context.Process is multiprocessing.context.SpawnProcess
    assert caplog.record_tuples == [
        (
            "ccdcseg.processes",
            logging.WARNING,
            "One process does the work: no shared memory for others (/dev/shm: Read-only file system).",
        )
    ]
