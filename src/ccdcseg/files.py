"""Writing files and folders so that nobody ever meets a half-written one."""

import errno
import hashlib
import json
import logging
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from ccdcseg.errors import UserError, system_error
from ccdcseg.interrupts import undone, uninterrupted

if TYPE_CHECKING:
    from filelock import BaseFileLock

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
PROBE_BYTES = 2**26
"""More than any file of ours that a library writes: scans are compressed."""
MAX_DEPTH = 250
"""Folders that a path may pass; Python makes folders by recursion."""
FRESH_SECONDS = 2.0
LOCK_SECONDS = 0.05
"""Time between two tries to hold what another process holds."""
TOLD_SECONDS = 1.0
"""Time after which a process that waits for another says so."""
_NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
"""What ``flock`` says on disks without it: of Lustre, of NFS without a lock daemon, of FUSE and 9p."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, or where it links to, atomically: readers see the old file or the new one.

    Raises:
        OSError: it cannot be written, or is a folder.
        UserError: it is a device or a pipe.
    """
    with writing(path) as handle:
        handle.write(content)


def append_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` behind what a file holds; a kill may leave a part of it, and what was there stays.

    Raises:
        OSError: it cannot be written.
    """
    with naming(path), path.open("ab") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which takes the place of ``path`` once it is on the disk, see `write_bytes`."""
    target = _target(path)
    with making(target.parent), naming(path), _partial(target) as (handle, temporary):
        keep_rights(temporary, target)
        yield handle
        handle.flush()
        os.fsync(handle.fileno())
        temporary.replace(target)


def _target(path: Path) -> Path:
    """Where a file is written: what is there is replaced, or what a link there leads to."""
    with naming(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.name and (path.is_file() or not path.exists()):
            return real(path) if path.is_symlink() else path
    raise UserError(f"{absolute(path)} is no ordinary file.", "Choose another name.")


@contextmanager
def making(folder: Path) -> Iterator[None]:
    """Make a folder where needed; those made here go again, unless something is in them in the end."""
    with undone(partial(remove_empty, *_missing(folder))):
        folder.mkdir(parents=True, exist_ok=True)
        yield


def _missing(folder: Path) -> list[Path]:
    """Folders that are to be made, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(*folders: Path) -> None:
    """Remove folders, in that order, up to the first that is not empty."""
    with suppress(OSError):  # another process may fill them at the same time; then they stay
        for folder in folders:
            folder.rmdir()


@contextmanager
def _partial(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new hidden file beside ``target``, removed where it is not moved away."""
    temporary = _hidden(target.parent, ".")
    with undone(partial(_remove, temporary)), temporary.open("xb") as handle:
        yield handle, temporary


def keep_rights(new: Path, old: Path) -> None:
    """Open a file to all to whom the one is open whose place it takes, if there is one: umasks of users differ."""
    try:
        state = old.stat()
    except OSError:
        return
    rights = state.st_mode & 0o777
    try:
        os.chown(new, -1 if os.geteuid() else state.st_uid, state.st_gid)
    except (OSError, AttributeError):  # no group of this user, whose own gets what all get; or Windows
        rights = rights & 0o707 | (rights & 0o007) << 3
    with suppress(OSError):  # some disks know no rights
        new.chmod(rights)


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink()


def _hidden(folder: Path, prefix: str) -> Path:
    """A hidden name in a folder that nobody else has."""
    return folder / f"{prefix}{secrets.token_hex(8)}.partial"


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written in a folder which this one holds, see `locked`."""
    for left in folder.glob(".*.partial"):
        _remove(left)
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def scratch_folder(place: Path | None = None, prefix: str = ".") -> Iterator[Path]:
    """A hidden folder of this user alone, which goes with all that is in it at the end.

    Args:
        place: where it is made; None: the system's place for temporary files.
        prefix: of its name.
    """
    folder = _hidden(place or Path(tempfile.gettempdir()), prefix)
    with undone(partial(shutil.rmtree, folder, ignore_errors=True)):
        folder.mkdir(mode=0o700)
        yield folder


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors of the operating system name ``path``, not the temporary file that stands in for it.

    Raises:
        OSError: the one that was raised.
    """
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def explain_failure(path: Path) -> None:
    """Find out why a library, which does not say it, could not write a file.

    Raises:
        OSError: the system does not let us write one of `PROBE_BYTES` in its folder either.
    """
    with naming(path), tempfile.TemporaryFile(dir=path.parent) as handle:
        handle.write(bytes(PROBE_BYTES))
        handle.flush()


def check_file(path: Path) -> None:
    """Find out before the work whether its result, a file, can be written.

    Raises:
        OSError, UserError: as `write_bytes` would.
    """
    check_writable(_target(path).parent)


def check_beside(path: Path, *marks: str, marked: Path | None = None) -> None:
    """Find out before the work whether the place of a result is free, or holds that of the same command.

    Args:
        path: what is to be written, of which the user may have named no more than the folder or another file.
        marks: one of them stands in its first lines; a line break at its start stands for that of the file, too.
        marked: the file that has it where ``path`` has no text: all of them are written together.

    Raises:
        UserError: something else lies there.
    """
    if path.exists() and not any(mark in _head(marked or path, len(mark)) for mark in marks):
        raise UserError(
            f"{path} would be replaced, and was not written by this command, or was changed since.",
            "Write elsewhere with --output; or move the file away, if nothing needs it there.",
        )


def _head(path: Path, more: int) -> str:
    """A line break and the first 500 letters of a file and some more; of none where there is no file."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return "\n" + text[: 500 + more]


def check_table_beside(path: Path, columns: Iterable[str]) -> None:
    """As `check_beside`, of a table, to which nobody may have added columns either.

    Raises:
        UserError: something else lies there.
    """
    check_beside(path, "\n" + ",".join(columns) + "\n")


def check_writable(folder: Path) -> None:
    """Find out before the work whether its results can be written.

    Raises:
        OSError: no file can be made in ``folder``, or where it is to be made.
    """
    with naming(folder), tempfile.TemporaryFile(dir=_existing(folder)):
        pass


def _existing(folder: Path) -> Path:
    """A folder, or the one that is there of those that it is to be made in."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` as UTF-8, atomically."""
    write_bytes(path, content.encode())


def holds_json(path: Path, content: Any) -> bool:
    """Whether a file is what `write_json` would write."""
    return path.exists() and path.read_text(encoding="utf-8") == json_text(content)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` as strict JSON (no NaN), atomically."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """``content`` as strict JSON (no NaN)."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def move_aside(path: Path) -> Path:
    """Rename a file so that its name says that it does not count any more.

    Returns:
        Its new name: of ``test.json`` it is ``test.stale.json``, or ``test.stale2.json`` and so on.
    """
    names = (path.with_suffix(f".stale{number or ''}{path.suffix}") for number in chain([0], count(2)))
    free = next(name for name in names if not name.exists())
    return path.rename(free)


def read_json(path: Path, remedy: str = "Restore it or make it again.") -> Any:
    """Read a JSON file.

    Args:
        path: of the file.
        remedy: what to do about one that is damaged.

    Raises:
        UserError: the file is missing, cannot be read, is no JSON, holds NaN or Infinity or is nested too deeply.
    """
    try:
        return json.loads(read_text(path), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, or a number without end
        raise UserError(f"{path} is not valid JSON ({error}).", remedy) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


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
        raise system_error(error, path) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error}).", "Restore it or make it again.") from error


def absolute(path: Path) -> Path:
    """An absolute path without ``..``; links stay unless one of those follows them."""
    return real(path) if ".." in path.parts else path.absolute()


def real(path: Path) -> Path:
    """The absolute path without links; those that lead in a circle stay."""
    return Path(os.path.realpath(path))


def check_name(path: Path) -> None:
    """Refuse a name that ITK cannot open, which ends the whole process, or that Python cannot make a folder of.

    Raises:
        UserError: ``path`` is not in UTF-8, or the system says so; it passes `MAX_DEPTH` folders.
    """
    if len(path.parts) > MAX_DEPTH:
        raise UserError(
            f"A path passes more than {MAX_DEPTH} folders: {str(path)[:60]}...", "Choose a shorter one."
        )
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        name = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise UserError(
            f"The name {name} is not in UTF-8.",
            "Rename it. If your terminal shows it rightly, set PYTHONUTF8=1 instead.",
        ) from error


def check_regular(path: Path) -> None:
    """Refuse a pipe, a socket or a device in place of a file: to read it may never end.

    Raises:
        UserError: ``path`` is one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is no file, but a pipe, a socket or a device.", "Give the file itself.")


def check_opens(path: Path) -> None:
    """Refuse what is no file, and a file that this user may not read.

    Raises:
        UserError: ``path`` is one.
    """
    check_regular(path)
    try:
        path.open("rb").close()
    except OSError as error:
        raise system_error(error, path) from error


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside ``path`` and move it there when the block ends well.

    On any exception, an interrupt among them, nothing is left behind.

    Raises:
        UserError: ``path`` exists already.
    """
    if path.exists():
        raise UserError(f"{path} exists already.", "Remove it or choose another place.")
    with making(path.parent), scratch_folder(path.parent) as hidden:
        temporary = hidden / path.name
        try:
            temporary.mkdir()
            yield temporary
            _move(temporary, path)
        except OSError as error:
            if error.filename:
                error.filename = str(error.filename).replace(str(temporary), str(path))
            raise


def _move(folder: Path, path: Path) -> None:
    try:
        folder.replace(path)
    except OSError as error:
        if not path.exists():
            raise
        raise UserError(
            f"{path} exists already: another process made it.", "Use it, or choose another place."
        ) from error


@contextmanager
def locked(folder: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder, made where needed, so that no other process works on it. Nothing stays behind.

    The lock is the system's (``flock``; Windows has its own), so it ends with the process, however that ends. On
    disks without, it is a file that names its process, and counts until that is found to have ended, on its
    machine. A file that another user left and lets nobody else write counts until it is removed. Folders that were
    made here and that nothing was written into are removed again.

    Args:
        folder: to write into.
        what: is done, as the verb of a command: "train".
        wait: until nobody else holds it; a warning says so.

    Raises:
        UserError: another process holds it.
        OSError: it cannot be written to.
    """
    from filelock import FileLock, SoftFileLock  # noqa: PLC0415 - only where something is written

    made: list[Path] = []
    kind = FileLock if _has_flock(folder) else SoftFileLock
    with uninterrupted():  # what the library knows of all its locks must hold, here and below
        lock = kind(folder / LOCK_FILE)
    with undone(partial(_release, lock, made)):
        with naming(folder):
            for tries in count():
                if _acquire(lock, folder, made):
                    break
                problem = f"Another process{_holder(folder / LOCK_FILE)} works on {folder}."
                if not wait:
                    raise UserError(problem, f"Wait until it has ended, or stop it; then {what} again.")
                if tries == TOLD_SECONDS // LOCK_SECONDS:
                    logger.warning("%s Waiting until it has ended.", problem)
                time.sleep(LOCK_SECONDS)
            _sign(folder / LOCK_FILE)
        yield


def _has_flock(folder: Path) -> bool:
    """Whether the system locks files on a folder's disk, see `_NO_FLOCK`; a nameless file tells."""
    if os.name == "nt":
        return True
    from fcntl import LOCK_EX, flock  # noqa: PLC0415 - not there on Windows

    try:
        with tempfile.TemporaryFile(prefix=".", dir=_existing(folder)) as handle:
            flock(handle, LOCK_EX)
    except OSError as error:  # others are told of the lock itself
        return error.errno not in _NO_FLOCK
    return True


def _acquire(lock: "BaseFileLock", folder: Path, made: list[Path]) -> bool:
    """Make the folder and hold it, unless another process does, which may remove it in between.

    Args:
        lock: to be held.
        folder: that it is in.
        made: is to name the folders that were made here.
    """
    from filelock import Timeout  # noqa: PLC0415

    for attempts_left in reversed(range(100)):
        made[:] = _missing(folder)
        try:
            with uninterrupted():
                folder.mkdir(parents=True, exist_ok=True)
                lock.acquire(blocking=False)
        except Timeout:
            break
        except PermissionError:
            if not _closed(Path(lock.lock_file)):
                raise
            break
        except (FileNotFoundError, FileExistsError):  # the latter: there at first, gone when looked at
            if not attempts_left:
                raise
        else:
            break
    return lock.is_locked


def _release(lock: "BaseFileLock", made: list[Path]) -> None:
    with uninterrupted():
        try:
            if lock.is_locked:
                _remove(Path(lock.lock_file))
            remove_empty(*made)
        finally:
            lock.release()


def _closed(marker: Path) -> bool:
    """Whether a lock's file is closed to this user, who may write into its folder: another user has made it."""
    return marker.exists() and not os.access(marker, os.W_OK) and os.access(marker.parent, os.W_OK)


def _sign(marker: Path) -> None:
    """Name this process in the file of its lock, unless that is the lock itself and names it: see `locked`.

    Whoever may write into the folder may write the file, whatever the umask: they may have to lock it after a kill.
    """
    mine = f"{os.getpid()}\n"
    if not marker.read_bytes().startswith(mine.encode()):
        marker.write_text(f"{mine}{platform.node()}\n", encoding="utf-8")
        with suppress(OSError):  # it was another user's
            marker.chmod(0o600 | (0o666 & marker.parent.stat().st_mode))


def _holder(marker: Path) -> str:
    """Who holds a lock, as far as it is written there: versions of filelock before 4 empty the file of another."""
    try:
        pid, host, *_ = marker.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        pid = host = ""
    known = [f"{pid} on {host}"] if host else []
    if _closed(marker) or host not in ("", platform.node()):
        known.append(f"where it is gone, remove {marker}")
    return f" ({'; '.join(known)})" if known else ""


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
    """SHA-256, in hex, of a file's content; a file that is as it was is read once a process.

    Raises:
        UserError: it is no file, see `check_regular`.
    """
    check_regular(path)
    state = file_state(path)
    return _hash_once(path, state) if state else _hash(path)


def file_state(path: Path) -> tuple[int, ...]:
    """Size, times (ns) and number of a file, which change with its content; empty where it was just written.

    A file may be written twice between two ticks of the clock that its times are from.
    """
    fresh = time.time() - path.stat().st_mtime < FRESH_SECONDS
    return () if fresh else last_state(path)


def last_state(path: Path) -> tuple[int, ...]:
    """Size, times (ns) and number of a file, however new: that of its inode changes where others are put back."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@lru_cache(maxsize=100_000)
def _hash_once(path: Path, state: tuple[int, ...]) -> str:
    del state
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
