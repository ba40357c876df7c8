"""Results on disk that hold as long as what they were made from: a file each, its first line the key."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ccdcseg.files import json_hash, last_state, write_bytes
from ccdcseg.processes import Progress, pool_map

S = TypeVar("S")
T = TypeVar("T")


def cache_key(paths: Iterable[Path], *settings: Any) -> str:
    """SHA-256, in hex, of name and `last_state` of each file, and of ``settings`` as JSON."""
    return json_hash([[(path.name, *last_state(path)) for path in paths], settings])


def remember(path: Path, key: str, value: Any) -> None:
    """Store a JSON-able value, dataclasses among them, under ``key``, atomically."""
    write_bytes(path, key.encode() + b"\n" + TypeAdapter(type(value)).dump_json(value))


def recall(path: Path, key: str, kind: type[T]) -> T | None:
    """The stored value, or None where there is none, it has another key, or the file is damaged or closed to us."""
    try:
        stored_key, _, content = path.read_bytes().partition(b"\n")
        return TypeAdapter(kind).validate_json(content) if stored_key == key.encode() else None
    except (OSError, ValidationError):
        return None


def made_once(
    make: Callable[[S], T],
    kind: type[T],
    sources: Sequence[tuple[S, Path, str]],
    workers: int,
    progress: Progress | None = None,
    lasts: Callable[[T], bool] | None = None,
) -> list[T]:
    """What ``make`` returns for each source, from its file where it is kept under its key, else made and kept.

    Args:
        make: must be picklable, as sources must, where there are several workers.
        kind: of what it returns, a dataclass.
        sources: each with its file and its key; one that is damaged, outdated or closed to us is made again.
        workers: processes.
        progress: called with the number of sources done and to be done now.
        lasts: whether a result is kept, picklable as ``make``; None: each is. What is told of a file that was
            closed to us, or of where it lay, says nothing of the next time.

    Returns:
        A result for each source.

    Raises:
        UserError: a worker was killed.
    """
    kept = [recall(path, key, kind) for _, path, key in sources]
    missing = [source for source, value in zip(sources, kept, strict=True) if value is None]
    made = iter(pool_map(partial(_made, make, lasts), missing, workers, progress))
    return [next(made) if value is None else value for value in kept]


def _made(make: Callable[[S], T], lasts: Callable[[T], bool] | None, item: tuple[S, Path, str]) -> T:
    source, path, key = item
    value = make(source)
    if lasts is None or lasts(value):
        remember(path, key, value)
    return value
