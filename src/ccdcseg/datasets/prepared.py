"""What a data set was made from, so that the same command again finds it done."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ccdcseg import __version__
from ccdcseg.datasets.cases import UNLABELLED, dataset_names, id_in_name
from ccdcseg.datasets.unicode_names import missing
from ccdcseg.datasets.walk import is_hidden, walk
from ccdcseg.errors import UserError
from ccdcseg.files import LOCK_FILE, file_states, json_hash, locked, read_json, real, remove_empty, write_json
from ccdcseg.interrupts import undone

RECORD_FILE = "prepared.json"
_SCANS = ("imagesTr", "labelsTr", UNLABELLED)


def fingerprint(
    source: Path,
    converter: str,
    settings: Mapping[str, object],
    used: Iterable[Path] = (),
    made: Iterable[Path] = (),
) -> str:
    """What tells one conversion from another: files by name, size and time of change, converter and settings.

    Args:
        source: a folder, or one file such as an archive.
        converter: its name. The version of this package counts, too.
        settings: what it is called with; a path stands for the file.
        used: files that count wherever they lie, such as those outside ``source`` that a table names.
        made: folders below ``source`` that do not count, nnU-Net's own.

    Returns:
        SHA-256 in hex. Contents are not read.

    Raises:
        UserError: the source, or a file among the settings, does not exist.
    """
    said = {
        name: _there(value) if isinstance(value, Path) else repr(value) for name, value in settings.items()
    }
    base = real(source)
    below = tuple(f"{place.relative_to(base)}{os.sep}" for place in map(real, made) if base in place.parents)
    listed = [state for state in _there(source) if not state[0].startswith(below)]
    beside = {*used} - {source / name for name, *_ in listed}
    if beside:
        beside = {*map(real, beside)} - {real(source / name) for name, *_ in listed}
    outside = file_states((str(path), path) for path in sorted(beside))
    return json_hash([__version__, converter, sorted(said.items()), listed, *([outside] if outside else [])])


def find_prepared(raw_root: Path, dataset_id: int, mark: str) -> Path | None:
    """Find the data set with this id if it was made from the same source and is as it was then.

    Args:
        raw_root: nnU-Net's ``nnUNet_raw``.
        dataset_id: nnU-Net's number for the data set.
        mark: `fingerprint` of the conversion.

    Returns:
        Its folder, or None where the id is free.

    Raises:
        UserError: another data set has the id, or its scans were changed since.
    """
    names = dataset_names(raw_root) if raw_root.exists() else []
    for folder in (raw_root / name for name in names if id_in_name(name) == dataset_id):
        if not (folder / RECORD_FILE).exists() or read_json(folder / RECORD_FILE) != _record(folder, mark):
            raise UserError(
                f"The data set id {dataset_id} is taken by {folder}, which was made from something else or "
                "changed since.",
                "Choose another id, or remove it.",
            )
        return folder
    return None


def prepare_once(
    raw_root: Path, dataset_id: int, mark: str, make: Callable[[Path], Path]
) -> tuple[Path, bool]:
    """Make a data set, unless it was made before.

    Args:
        raw_root, dataset_id, mark: see `find_prepared`.
        make: makes it in the folder given to it, see `staging`, and returns its folder there.

    Returns:
        The data set's folder, and whether it was made now.

    Raises:
        UserError: as `find_prepared` and `staging`, and what ``make`` raises.
    """
    if folder := find_prepared(raw_root, dataset_id, mark):
        return folder, False
    with staging(raw_root, dataset_id, mark) as place:
        if folder := find_prepared(raw_root, dataset_id, mark):  # by another process, a moment ago
            return folder, False
        name = make(place).name
    return raw_root / name, True


@contextmanager
def staging(raw_root: Path, dataset_id: int, mark: str) -> Iterator[Path]:
    """Yield a hidden folder to prepare a data set in; it is moved beside it when the block ends well.

    The data set appears with its record at once. What a killed command left in the hidden folder is removed, unless
    another user's stays that is in nobody's way.

    Args:
        raw_root, dataset_id, mark: see `find_prepared`.

    Raises:
        UserError: another process prepares a data set of this id.
    """
    hidden = raw_root / f".ccdcseg_prepare_{dataset_id:03d}"
    # several that come and go at once may leave it, each as the other's
    with undone(partial(remove_empty, hidden)), locked(hidden, "prepare"), undone(partial(_clear, hidden)):
        _clear(hidden)
        yield hidden
        for name in dataset_names(hidden):
            record(hidden / name, mark)
            (hidden / name).rename(raw_root / name)


def _clear(hidden: Path) -> None:
    """Remove what is in the folder; of what has a random name, another user's may stay, in nobody's way."""
    for entry in hidden.iterdir():
        if entry.name != LOCK_FILE:
            shutil.rmtree(entry, ignore_errors=is_hidden(entry.name))


def record(folder: Path, mark: str) -> None:
    """Write down, in the data set's folder, what it was made from and what its scans are."""
    write_json(folder / RECORD_FILE, _record(folder, mark))


def _record(folder: Path, mark: str) -> dict[str, str]:
    return {"source": mark, "scans": json_hash([_listing(folder / part) for part in _SCANS])}


def _there(place: Path) -> list[tuple[str, int, int]]:
    if not place.exists():
        raise missing(place, "Correct the path (is a disk missing?).")
    return _listing(place)


def _listing(place: Path) -> list[tuple[str, int, int]]:
    paths = walk(place).files if place.is_dir() else (place,)
    return file_states((str(path.relative_to(place)), path) for path in paths if path.is_file())
