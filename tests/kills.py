"""Ending a process with SIGKILL just before it changes a file for the n-th time."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.copyfile")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def moments(changes: int) -> list[int]:
    """Seeded moments of a work that changes about so many files; ``CCDCSEG_KILLS`` says how many, default 3."""
    wanted = min(changes, int(os.environ.get("CCDCSEG_KILLS", "3")))
    return (1 + np.random.default_rng(0).permutation(changes)[:wanted]).tolist()


def killed_before(step: int, work: Callable[[], object], root: Path) -> bool:
    """Do some work in a process of its own that is killed before its ``step``-th change below a folder.

    What is written between two changes stays half-written. Other processes and threads of the work are not counted.

    Returns:
        Whether it came so far; if not, the work was done.
    """
    process = os.fork()
    if process == 0:
        _die_at(step, str(root))
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def _die_at(step: int, root: str) -> None:
    left = step

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in CHANGES or (event == "open" and arguments[2] & WRITING):
            path = arguments[0]
            left -= isinstance(path, str | os.PathLike) and str(path).startswith(root)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
