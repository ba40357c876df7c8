"""Commands on somebody else's machine, each in a process forked from one that has everything loaded."""

import ctypes
import functools
import io
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hurried import hurry

_PRELOADED = (
    "ccdcseg.cli",
    "ccdcseg.demo",
    "ccdcseg.experiments.outputs",
    "ccdcseg.experiments.reproduce",
    "ccdcseg.nnunet.discovery.ccdcseg_trainers",
    "ccdcseg.nnunet.predict",
    "ccdcseg.report.comparison",
    "ccdcseg.report.check_page",
    "nnunetv2.experiment_planning.plan_and_preprocess_api",
)
_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000  # CLONE_NEWUSER, CLONE_NEWNS
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_DROP_FROM_BOUNDS, _OVERRIDE, _READ_SEARCH = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_*
_KEEP_CAPABILITIES, _NOBODY = 8, 65534  # PR_SET_KEEPCAPS
_PAGE = 4096
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Command:
    """One that works."""

    process: Any
    pipes: list[tuple[Connection, Connection]]

    def finish(self) -> Result:
        """Wait for it."""
        self.process.join(120)
        alive = self.process.is_alive()
        self.process.kill()
        assert not alive, "it hangs"
        return Result(self.process.exitcode or 0, *(_all_of(*pipe) for pipe in self.pipes))


def start(
    arguments: Sequence[object], folder: Path, environment: Mapping[str, str], condition: str = "none"
) -> Command:
    """Start ``ccdcseg`` in a folder, under a condition that holds for all below it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    pipes = [context.Pipe(duplex=False) for _ in ("out", "err")]
    words = [str(word) for word in arguments]
    writers = [writer for _, writer in pipes]
    child = context.Process(target=_run, args=(words, folder, dict(environment), condition, writers))
    child.start()
    return Command(child, pipes)


def run(
    arguments: Sequence[object], folder: Path, environment: Mapping[str, str], condition: str = "none"
) -> Result:
    """As `start`, and wait."""
    return start(arguments, folder, environment, condition).finish()


def _all_of(reader: Connection, writer: Connection) -> str:
    writer.close()
    with reader, os.fdopen(os.dup(reader.fileno()), "rb") as handle:
        return handle.read().decode()


def _run(
    words: list[str], folder: Path, environment: dict[str, str], condition: str, writers: Sequence[Connection]
) -> None:
    from ccdcseg.cli import main

    os.environ.update(environment)
    for number, writer in enumerate(writers, 1):
        os.dup2(writer.fileno(), number)
        writer.close()
    sys.stdout, sys.stderr = (_stream(number, "utf-8") for number in (1, 2))
    after = CONDITIONS[condition](folder)
    os.chdir(folder)  # again, where something was mounted on it
    sys.argv = ["ccdcseg", *words]
    hurry()
    try:
        main()
    finally:
        if after:
            after()


def _stream(number: int, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding, line_buffering=True)


@functools.cache
def supported(condition: str) -> bool:
    """Whether this machine lets this user set the condition."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    child = context.Process(target=_set, args=(condition,))
    child.start()
    child.join()
    return child.exitcode == 0


def _set(condition: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            CONDITIONS[condition](Path(folder))
        except OSError:
            os._exit(1)
        os._exit(0)


def _read_only(folder: Path) -> None:
    _own_mounts()
    _mount(str(folder), folder, _BIND | _RECURSIVE)
    _mount(None, folder, _BIND | _REMOUNT | _READ_ONLY)


def _forbidden(folder: Path) -> None:
    """No right to write, for root either: it loses what lets it pass over the rights of files."""
    for place, _, _ in os.walk(folder):
        Path(place).chmod(0o555)
    for capability in (_OVERRIDE, _READ_SEARCH):
        _libc.prctl(_DROP_FROM_BOUNDS, capability, 0, 0, 0)
    header, sets = _capabilities()
    for position in range(3):
        sets[position] &= ~(1 << _OVERRIDE | 1 << _READ_SEARCH)
    _checked(_libc.capset(header, sets))


def _capabilities() -> tuple[Any, Any]:
    """The header of the system's calls, and 32 effective, permitted and inheritable ones, then the other 32."""
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _libc.capget(header, sets)
    return header, sets


def _small_disk(folder: Path) -> Callable[[], None]:
    """A file system with 40 kB of room for what is there; what is on it in the end is copied back."""
    _own_mounts()
    below = Path(tempfile.mkdtemp())
    _mount(str(folder), below, _BIND)
    sizes = [path.lstat().st_size for path in below.rglob("*") if not path.is_dir()]
    room = sum(-(-size // _PAGE) * _PAGE for size in sizes) + 10 * _PAGE
    _mount("tmpfs", folder, 0, b"tmpfs", f"size={room}".encode())
    shutil.copytree(below, folder, symlinks=True, dirs_exist_ok=True)

    def copy_back() -> None:
        for entry in below.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.copytree(folder, below, symlinks=True, dirs_exist_ok=True)

    return copy_back


def _few_descriptors(_: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))


def _no_more_processes(_: Path) -> None:
    """Neither process nor thread; root, whom no limit binds, becomes another with its rights to files."""
    if os.getuid() == 0:
        _libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        header, sets = _capabilities()
        sets[0] = sets[1] & (1 << _OVERRIDE | 1 << _READ_SEARCH)
        _checked(_libc.capset(header, sets))
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))


def _small_files(size: int) -> Callable[[Path], None]:
    """Python would cut the compiled code of modules that are first imported now, for whoever comes after."""

    def limit(_: Path) -> None:
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def _no_shared_memory(folder: Path) -> None:
    """The folder stays, should it lie there."""
    _own_mounts()
    shared, opened = Path("/dev/shm"), os.open(folder, os.O_RDONLY)
    _mount("tmpfs", shared, 0, b"tmpfs")
    if folder.is_relative_to(shared):
        folder.mkdir(parents=True)
        _mount(f"/proc/self/fd/{opened}", folder, _BIND)
    os.close(opened)
    _mount(None, shared, _REMOUNT | _READ_ONLY)


def _ascii(_: Path) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="ascii")  # type: ignore[union-attr]


CONDITIONS: dict[str, Callable[[Path], Callable[[], None] | None]] = {
    "none": lambda _: None,
    "read-only": _read_only,
    "forbidden": _forbidden,
    "32 descriptors": _few_descriptors,
    "no more processes": _no_more_processes,
    "files of 200 bytes": _small_files(200),
    "files of 20000 bytes": _small_files(20_000),
    "small disk": _small_disk,
    "no shared memory": _no_shared_memory,
    "ASCII": _ascii,
}


def _own_mounts() -> None:
    """A namespace of mounts for this process; a user who may not make one gets a namespace of users with it."""
    user, group = os.getuid(), os.getgid()
    _checked(_libc.unshare(_NEW_MOUNTS if user == 0 else _NEW_USER | _NEW_MOUNTS))
    if user:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _mount(None, Path("/"), _RECURSIVE | _PRIVATE)


def _mount(
    source: str | None, target: Path, flags: int, kind: bytes | None = None, options: bytes | None = None
) -> None:
    place, number = os.fsencode(target), ctypes.c_ulong(flags)
    _checked(_libc.mount(source and source.encode(), place, kind, number, options))


def _checked(code: int) -> None:
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
