"""Results on disk that hold as long as what they were made from: a file each, its first line the key."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ccdcseg.files import file_states, json_hash, write_bytes

T = TypeVar("T")


def cache_key(paths: Iterable[Path], *settings: Any) -> str:
    """SHA-256, in hex, of name, size and time of change (ns) of each file, and of ``settings`` as JSON."""
    return json_hash([file_states((path.name, path) for path in paths), settings])


def remember(path: Path, key: str, value: Any) -> None:
    """Store a JSON-able value, dataclasses among them, under ``key``, atomically."""
    write_bytes(path, key.encode() + b"\n" + TypeAdapter(type(value)).dump_json(value))


def recall(path: Path, key: str, kind: type[T]) -> T | None:
    """The stored value, or None where there is none, it has another key, or the file is damaged."""
    try:
        stored_key, _, content = path.read_bytes().partition(b"\n")
        return TypeAdapter(kind).validate_json(content) if stored_key == key.encode() else None
    except (FileNotFoundError, ValidationError):
        return None
