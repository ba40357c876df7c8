"""What a derived file was made from: hashes written beside it, and whether they still hold.

The hashes of ``FOLDER/NAME`` lie in ``FOLDER/made_from/NAME.json``. A file is what a command would make only if
they say so; its name alone says nothing.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccdcseg.errors import UserError
from ccdcseg.files import (
    content_hash,
    file_hash,
    file_state,
    holds_json,
    json_hash,
    keep_rights,
    read_json,
    write_json,
)

PLACE = "made_from"


@dataclass(frozen=True)
class Source:
    """Files and settings that something is made from.

    Attributes:
        files: by their names; the folders they lie in do not count.
        settings: JSON-able.
    """

    files: tuple[Path, ...] = ()
    settings: Any = None

    @property
    def is_there(self) -> bool:
        """Whether all files exist."""
        return all(file.exists() for file in self.files)

    @property
    def content(self) -> str:
        """SHA-256, in hex, of names and contents of the files and of the settings."""
        return json_hash([content_hash(self.files), self.settings])

    @property
    def state(self) -> str:
        """A hash by which unchanged files are known without reading them; empty where that is not safe."""
        states = [(file.name, file_state(file)) for file in sorted(self.files)]
        return json_hash([states, self.settings]) if all(state for _, state in states) else ""


Sources = Mapping[str, Source]
Stamp = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Origin:
    """What is written down of a derived file, held against the sources of today.

    Attributes:
        intact: the file is as it was made.
        changed: names of the sources that are other ones now; a source whose files are gone is not compared.
    """

    intact: bool
    changed: tuple[str, ...]

    @property
    def current(self) -> bool:
        """Whether making the file again would give the same."""
        return self.intact and not self.changed


def stamp(sources: Sources) -> Stamp:
    """Hashes of sources, to be taken before anything is made from them: what changes meanwhile shows later."""
    return {name: {"state": source.state, "content": source.content} for name, source in sources.items()}


def write_origin(target: Path, sources: Stamp | None, made: Path | bytes | None = None) -> None:
    """Write down what a file is made from, atomically; whoever may read that file may read it.

    Args:
        target: where the file lies, or will lie.
        sources: `stamp` of the sources; None: they are not known.
        made: the file itself, or its content where another process may write it too, whose hash is written down;
            None: several files go by this name.
    """
    made_hash = hashlib.sha256(made).hexdigest() if isinstance(made, bytes) else made and file_hash(made)
    write_json(origin_file(target), {"sources": sources, "made": made_hash})
    keep_rights(origin_file(target), target)


def put_json(target: Path, content: Any) -> None:
    """Write a JSON file and, beside it, that it was made here; a file of ours that holds this stays as it is."""
    origin = read_origin(target, {}) if holds_json(target, content) else None
    if origin is None or not origin.intact:
        forget_origin(target)
        write_json(target, content)
        write_origin(target, {}, target)


def read_origin(target: Path, sources: Sources) -> Origin | None:
    """What is known of a file's origin; None: nothing.

    Sources that were copied are read once: their state is written down anew where their content still holds.

    Args:
        target: the file.
        sources: from which it would be made today, by name.

    Raises:
        UserError: what is written down is damaged.
    """
    path = origin_file(target)
    if not path.exists():
        return None
    remedy = f"Remove it together with {target.name}."
    written = read_json(path, remedy)
    try:
        said, made = written["sources"], written["made"]
        known = {} if said is None else {name: source for name, source in sources.items() if source.is_there}
        states = {name: source.state for name, source in known.items()}  # taken before any content is read
        changed = [name for name in known if not _holds(known[name], states[name], said.get(name, {}))]
        holding = {name: state for name, state in states.items() if state and name not in changed}
        anew = {name: {**said[name], "state": state} for name, state in holding.items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged.", remedy) from error
    if any(said[name] != noted for name, noted in anew.items()):
        _write_anew(path, written, {**written, "sources": {**said, **anew}})
    return Origin(made is None or file_hash(target) == made, tuple(changed))


def _write_anew(path: Path, read: Any, content: Any) -> None:
    """Write states of files that were copied, unless another process wrote meanwhile or nobody may write there."""
    with suppress(OSError, UserError):
        if read_json(path) == read:
            write_json(path, content)


def contents_hash(target: Path) -> str:
    """A hash of what is written down of a file, but for the states of its sources: these change with a copy."""
    written = read_json(origin_file(target), f"Remove it together with {target.name}.")
    sources = {name: source.get("content") for name, source in (written["sources"] or {}).items()}
    return json_hash([sources, written["made"]])


def forget_origin(target: Path) -> None:
    """Nothing is known of a file any more, since it is about to be made again."""
    origin_file(target).unlink(missing_ok=True)


def origin_file(target: Path) -> Path:
    """Where the origin of a file is written down."""
    return target.parent / PLACE / f"{target.name}.json"


def _holds(source: Source, state: str, said: Mapping[str, str]) -> bool:
    return (state != "" and said.get("state") == state) or said.get("content") == source.content
