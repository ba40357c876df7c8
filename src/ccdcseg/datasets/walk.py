"""What lies below a folder of somebody else's scans."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ccdcseg.errors import UserError
from ccdcseg.files import real

_RESOURCES = "__MACOSX"
"""Folder that macOS adds to its archives; nothing in it is anybody's data."""

_SCAN = re.compile(r"(.+?)(?:\.seg)?\.(?:nii|nii\.gz|nrrd|nhdr|mha|mhd|mgh|mgz|hdr)", re.IGNORECASE)
"""Name of a scan's file; where a scan is two files, of its header."""

_Lines = dict[Path, tuple[Path, ...]]
"""Real path of each folder, after those of the folders that it lies in."""


@dataclass(frozen=True)
class Tree:
    """Files and folders below a folder, each sorted so that "slice2" comes before "slice10".

    Attributes:
        files: among them links that lead nowhere.
        folders: real ones and links to folders.
    """

    files: tuple[Path, ...]
    folders: tuple[Path, ...]


def walk(source: Path) -> Tree:
    """List what lies below a folder, behind links to folders too.

    Hidden files and folders are passed over (macOS leaves a "._scan.nii.gz" beside "scan.nii.gz" on other systems'
    disks), and so are links that lead back to a folder that they lie in.

    Raises:
        UserError: ``source`` is no folder, or a folder below it cannot be read.
    """
    if not source.is_dir():
        raise UserError(f"{source} is no folder.", "Give the folder that holds the scans.")
    files: list[Path] = []
    folders: list[Path] = []
    lines: _Lines = {source: (real(source),)}
    for place, inside, names in os.walk(source, onerror=_refuse, followlinks=True):
        inside[:] = [name for name in inside if _goes_on(Path(place, name), lines)]
        folders += [Path(place, name) for name in inside]
        files += [Path(place, name) for name in names if not is_hidden(name)]
    return Tree(by_name(files), by_name(folders))


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing where there is none.

    Raises:
        UserError: it cannot be read: ``Path.glob`` finds nothing there.
    """
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        _refuse(error)


def names_with(folder: Path, ending: str) -> list[str]:
    """Names of the files in a folder that have an ending, without it, sorted; see `entries`."""
    names = [path.name for path in entries(folder) if not is_hidden(path.name)]
    return sorted(name.removesuffix(ending) for name in names if name.endswith(ending))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is nobody's scan."""
    return name.startswith(".") or name == _RESOURCES


def scan_stem(name: str) -> str | None:
    """Name of a file without the suffix of a scan, also of a form that is not read here; None: it has none."""
    match = _SCAN.fullmatch(name)
    return match[1] if match and not is_hidden(name) else None


def by_name(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Paths in the order of the numbers and texts in them."""
    return tuple(sorted(paths, key=lambda path: by_number(str(path))))


def by_number(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorting key that puts "slice2" before "slice10"; names padded with zeros stay in their usual order."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts], name


def check_link(path: Path) -> None:
    """Refuse a link that leads nowhere.

    Raises:
        UserError: ``path`` is one.
    """
    if path.is_symlink() and not path.exists():
        raise UserError(
            f"{path} is a link to {path.readlink()}, which is not there.",
            "Bring it back (is a disk missing?), or remove the link.",
        )


def _goes_on(folder: Path, lines: _Lines) -> bool:
    """Whether to walk into a folder; notes down what it is, should a link below lead back to it."""
    above, place = lines[folder.parent], real(folder)
    if is_hidden(folder.name) or place in above:
        return False
    lines[folder] = (*above, place)
    return True


def _refuse(error: OSError) -> NoReturn:
    raise UserError(
        f"{error.filename} cannot be read ({error.strerror}).", "Check the folder and its rights."
    ) from error
