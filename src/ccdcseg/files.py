"""Writing files and folders so that nobody ever meets a half-written one."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from ccdcseg.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors that mean a full disk, or a user's full share of it."""
LOCK_FILE = ".lock"
FRESH_SECONDS = 2.0


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` as UTF-8, atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` as strict JSON (no NaN), atomically."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """``content`` as strict JSON (no NaN)."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, cannot be read, is no JSON or is nested too deeply.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, or a number without end
        raise UserError(f"{path} is not valid JSON ({error}).", "Restore it or make it again.") from error


def read_text(path: Path) -> str:
    """Read a file as UTF-8.

    Raises:
        UserError: the file is missing, cannot be read or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.", "Check the path.") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}).", "Check the file and its rights."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error}).", "Restore it or make it again.") from error


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside ``path`` and move it there when the block ends well.

    On any exception, an interrupt among them, nothing is left behind.

    Raises:
        UserError: ``path`` exists already.
    """
    if path.exists():
        raise UserError(f"{path} exists already.", "Remove it or choose another place.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder, made where needed, so that no other process works on it; ``LOCK_FILE`` stays behind, empty.

    The lock is the system's (``flock``; Windows has its own), so it ends with the process, however that ends.
    Folders that were made here and that nothing was written into are removed again.

    Args:
        folder: to write into.
        what: is done, as the verb of a command: "train".

    Raises:
        UserError: another process holds it, or it cannot be written to.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only where something is written

    lock = FileLock(folder / LOCK_FILE)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(
            f"Another process works on {folder}.", f"Wait until it has ended, or stop it; then {what} again."
        ) from error
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise UserError(
            f"{folder} cannot be locked ({error.strerror}).", "Check the folder and its rights."
        ) from error
    try:
        yield
    finally:
        _remove_unused(made)
        lock.release()


def _remove_unused(made: Sequence[Path]) -> None:
    """Remove folders, the innermost first, up to the first that holds more than ``LOCK_FILE``."""
    with suppress(OSError):  # another process may fill them at the same time; then they stay
        for folder in made:
            if any(entry.name != LOCK_FILE for entry in folder.iterdir()):
                return
            (folder / LOCK_FILE).unlink(missing_ok=True)
            folder.rmdir()


def json_hash(content: Any) -> str:
    """SHA-256, in hex, of a JSON-able value; the order of the keys in its mappings does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_states(files: Iterable[tuple[str, Path]]) -> list[tuple[str, int, int]]:
    """Name, size and time of change (ns) of files, each given with its name; contents are not read."""
    stats = [(name, path.stat()) for name, path in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def content_hash(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of ``paths``, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda entry: entry.name):
        digest.update(path.name.encode() + b"\0" + bytes.fromhex(file_hash(path)))
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256, in hex, of a file's content; a file that is as it was is read once a process."""
    state = file_state(path)
    return _hash_once(path, state) if state else _hash(path)


def file_state(path: Path) -> tuple[int, ...]:
    """Size, times (ns) and number of a file, which change with its content; empty where it was just written.

    A file may be written twice between two ticks of the clock that its times are from.
    """
    stat = path.stat()
    fresh = time.time() - stat.st_mtime < FRESH_SECONDS
    return () if fresh else (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@lru_cache(maxsize=100_000)
def _hash_once(path: Path, state: tuple[int, ...]) -> str:
    del state
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
