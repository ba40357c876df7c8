"""Releases as they are downloaded: a zip archive that nobody has vouched for, unpacked for as long as it is read.

What an archive declares is checked before anything is written; what is written is counted.
"""

import errno
import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ccdcseg.errors import UserError
from ccdcseg.files import scratch_folder

MAX_UNPACKED_BYTES = 64 * 2**30
"""The most that an archive may hold, unpacked."""

MAX_RATIO = 200
"""The most by which an archive may grow. Scans grow about twofold; zeros alone a thousandfold."""

FREE_RATIO_BYTES = 100 * 2**20
"""Below this much, unpacked, an archive may grow by any ratio."""

MAX_MEMBERS = 200_000
"""The most files and folders that an archive may hold."""

_CHUNK_BYTES = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IGNORED = "__MACOSX"
_RELEASE_FOLDER = re.compile(r"(patient)?\d+|training|testing|MR|CT|T1DUAL|T2SPIR|DICOM_anon|Ground")
_DOWNLOAD = "Download it again, or unpack it yourself and give the folder."
_DISTRUST = "Check where it comes from."
_UNPACK = "Unpack it yourself and give the folder."
_BACKSLASHES = f"It has backslashes for slashes, as some programs of Windows write. {_UNPACK}"


@contextmanager
def unpacked(
    source: Path,
    place: Path,
    progress: Callable[[int, int], None] | None = None,
    fits: Callable[[Path], bool] = lambda folder: False,
) -> Iterator[Path]:
    """Yield the folder of a release: ``source`` itself, or what a zip archive holds.

    An archive is unpacked into a hidden folder that is removed at the end, whatever the end is. Folders in it
    that only wrap the release, such as ``ACDC/database``, are passed over. Errors name the archive.

    Args:
        source: a folder or a zip archive.
        place: where there is space for the hidden folder; made if missing.
        progress: called with the number of files unpacked and of all files.
        fits: whether a folder is the one that is wanted, though it holds a single folder.

    Raises:
        UserError: ``source`` is neither; or the archive is truncated, damaged, encrypted, holds links, devices,
            or names that are absolute, lead out of it, come twice or differ by case alone, has more than
            ``MAX_MEMBERS``, grows above ``MAX_UNPACKED_BYTES`` or, above ``FREE_RATIO_BYTES``, by more than
            ``MAX_RATIO``, or does not fit on the disk.
    """
    if source.is_dir():
        yield source
        return
    with _opened(source) as archive:
        files = _checked_members(source, archive)
        place.mkdir(parents=True, exist_ok=True)
        with scratch_folder(place) as hidden:
            folder = hidden / source.stem
            with _naming(source, folder):
                _check_space(source, place, files)
                _extract(source, archive, files, folder, progress)
                yield _unwrapped(folder, fits)


@contextmanager
def _opened(source: Path) -> Iterator[zipfile.ZipFile]:
    if not source.exists():
        raise UserError(f"{source} does not exist.", "Give the unpacked release or its zip archive.")
    try:
        archive = _zip(source)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{source} is no whole zip archive ({reason}).", _DOWNLOAD) from error
    with archive:
        yield archive


def _zip(source: Path) -> zipfile.ZipFile:
    """An archive whose names are in UTF-8, whether it says so (macOS does not) or not, unless they cannot be."""
    try:
        return zipfile.ZipFile(source, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        return zipfile.ZipFile(source)


@contextmanager
def _naming(source: Path, folder: Path) -> Iterator[None]:
    """Name the archive where an error names the folder it was unpacked to."""
    try:
        yield
    except UserError as error:
        problem, remedy = (text.replace(str(folder), str(source)) for text in (error.problem, error.remedy))
        raise UserError(problem, remedy) from error


def _checked_members(source: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files to unpack, if nothing that is declared speaks against it."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise UserError(
            f"{source} holds {len(members)} files and folders; {MAX_MEMBERS} is the limit.", _DISTRUST
        )
    for member in members:
        _check_member(source, member)
    _check_growth(source, sum(member.file_size for member in members))
    _check_names(source, members)
    return [m for m in members if not m.is_dir() and PurePosixPath(m.filename).parts[0] != _IGNORED]


def _check_member(source: Path, member: zipfile.ZipInfo) -> None:
    name = member.orig_filename
    if not _is_inside(name):
        remedy = _BACKSLASHES if _is_inside(name.replace("\\", "/")) else _DISTRUST
        raise UserError(f"{source} holds {name!r}, which is no name inside it.", remedy)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > member.is_dir():
        raise UserError(f"{source} holds {name}, which is a link or no file.", _DISTRUST)
    if member.flag_bits & 1:
        raise UserError(f"{source} is encrypted: {name}.", _UNPACK)
    if member.compress_type not in _METHODS:
        raise UserError(
            f"{source} holds {name}, compressed by the method {member.compress_type}, which is not read here.",
            _UNPACK,
        )


def _is_inside(name: str) -> bool:
    """Whether a name leads to a place in the archive, on every system."""
    path = PurePosixPath(name)
    is_odd = re.search(r"[\\\x00-\x1f]|^\w:", name) is not None
    return bool(path.parts) and not (path.is_absolute() or ".." in path.parts or is_odd)


def _check_growth(source: Path, total: int) -> None:
    if total > MAX_UNPACKED_BYTES:
        raise UserError(
            f"{source} unpacks to {total / 2**30:.1f} GiB; {MAX_UNPACKED_BYTES / 2**30:.0f} GiB is the limit.",
            "Unpack it yourself, if it is to be trusted, and give the folder.",
        )
    ratio = total / max(source.stat().st_size, 1)
    if total > FREE_RATIO_BYTES and ratio > MAX_RATIO:
        raise UserError(
            f"{source} unpacks to {ratio:.0f} times its size; {MAX_RATIO} is the limit.", _DISTRUST
        )


def _check_names(source: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse names that are one on some file systems, and files that are folders, too."""
    exact: dict[str, str] = {}
    files: set[str] = set()
    folders: set[str] = set()
    for member in members:
        path = PurePosixPath(member.filename)
        for part in (path, *path.parents):
            name = unicodedata.normalize("NFC", str(part)).casefold()
            if exact.setdefault(name, str(part)) != str(part):
                raise UserError(
                    f"{source} holds {exact[name]} and {part}: names alike but for case.", _DISTRUST
                )
        own = str(path)
        if not member.is_dir() and own in files:
            raise UserError(f"{source} holds {own} twice.", _DISTRUST)
        (folders if member.is_dir() else files).add(own)
        folders.update(map(str, path.parents))
    if both := sorted(files & folders):
        raise UserError(f"{source} holds {both[0]} as a file and as a folder.", _DISTRUST)


def _check_space(source: Path, place: Path, files: list[zipfile.ZipInfo]) -> None:
    needed, free = sum(member.file_size for member in files), shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"{source} needs {needed / 2**30:.1f} GiB to be unpacked in {place}, {free / 2**30:.1f} GiB are free.",
            "Free some space, or unpack it elsewhere and give the folder.",
        )


def _extract(
    source: Path,
    archive: zipfile.ZipFile,
    files: list[zipfile.ZipInfo],
    folder: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    folder.mkdir()
    total = 0
    for done, member in enumerate(files, start=1):
        try:
            total += _extract_file(archive, member, folder)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (
                None,
                errno.EINVAL,
            ):  # a place before the file
                raise
            raise UserError(
                f"{source} is truncated or damaged at {member.filename} ({error}).", _DOWNLOAD
            ) from error
        _check_growth(source, total)
        if progress is not None:
            progress(done, len(files))


def _extract_file(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> int:
    """Write one file, verify its checksum, and count its bytes: never more than it declares."""
    path = folder / member.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as content, path.open("xb") as handle:
        shutil.copyfileobj(content, handle, _CHUNK_BYTES)
        return handle.tell()


def _unwrapped(folder: Path, fits: Callable[[Path], bool]) -> Path:
    """Pass over folders that hold nothing but one folder of no meaning to a reader."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    if len(entries) != 1 or not entries[0].is_dir() or _RELEASE_FOLDER.fullmatch(entries[0].name):
        return folder
    return folder if fits(folder) else _unwrapped(entries[0], fits)
