import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ccdcseg.cache import cache_key, made_once, recall, remember


@dataclass(frozen=True)
class Thing:
    counts: dict[int, int]
    pair: tuple[float, float]
    inner: "Thing | None" = None


THING = Thing({1: 2}, (0.5, 1e-9), Thing({}, (1.0, 2.0)))


def test_what_is_remembered_is_recalled(tmp_path: Path) -> None:
    remember(tmp_path / "new" / "thing", "key", THING)
    assert recall(tmp_path / "new" / "thing", "key", Thing) == THING


def test_another_key_or_no_file_recalls_nothing(tmp_path: Path) -> None:
    remember(tmp_path / "thing", "key", THING)
    assert recall(tmp_path / "thing", "another", Thing) is None
    assert recall(tmp_path / "nothing", "key", Thing) is None


@pytest.mark.parametrize(
    "content", [b"", b"key", b"key\n{", b"key\n{}", b'key\n{"counts": 3}', b"key\n\xff\xfe"]
)
def test_a_damaged_file_recalls_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "thing").write_bytes(content)
    assert recall(tmp_path / "thing", "key", Thing) is None


def test_a_file_that_another_user_closed_recalls_nothing(
    tmp_path: Path, close: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.json"
    remember(path, "key", THING)
    close(path)
    assert made_once(_named, Thing, [("a", path, "key")], 1) == [_named("a")]
    path.chmod(0o600)
    assert recall(path, "key", Thing) == _named("a")


def test_a_file_cut_short_anywhere_recalls_nothing(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    remember(path, "key", THING)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert recall(path, "key", Thing) is None


def test_the_key_follows_files_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "scan"
    path.write_bytes(b"abc")
    first = cache_key([path], 1)
    assert cache_key([path], 1) == first
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    later = cache_key([path], 1)
    renamed = path.rename(tmp_path / "other")
    assert len({first, later, cache_key([renamed], 1), cache_key([renamed], 2), cache_key([], 1)}) == 5


def test_the_key_follows_content_of_which_size_and_time_are_put_back(tmp_path: Path) -> None:
    """As tools do that keep times; a mask that was good stayed good."""
    path = tmp_path / "mask"
    path.write_bytes(b"abc")
    before, state = cache_key([path]), path.stat()
    while path.stat().st_ctime_ns == state.st_ctime_ns:
        path.write_bytes(b"abd")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert cache_key([path]) != before


@pytest.mark.parametrize("workers", [1, 2])
def test_only_what_is_not_kept_under_its_key_is_made(tmp_path: Path, workers: int) -> None:
    remember(tmp_path / "b.json", "old", THING)
    remember(tmp_path / "c.json", "key", THING)
    keys = {"d": "key", "c": "key", "b": "new", "a": "key"}
    sources = [(name, tmp_path / f"{name}.json", key) for name, key in keys.items()]
    steps: list[tuple[int, int]] = []
    made = made_once(_named, Thing, sources, workers, lambda *done: steps.append(done))
    assert made == [_named("d"), THING, _named("b"), _named("a")]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert made_once(_raises, Thing, sources, workers) == made


@pytest.mark.parametrize("workers", [1, 2])
def test_what_does_not_last_is_made_again(tmp_path: Path, workers: int) -> None:
    sources = [(name, tmp_path / f"{name}.json", "key") for name in ("a", "b")]
    made_once(_named, Thing, sources, workers, lasts=_is_b)
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def _is_b(thing: Thing) -> bool:
    return thing == _named("b")


def _named(source: str) -> Thing:
    return Thing({}, (ord(source), 0.5))


def _raises(source: str) -> Thing:
    raise AssertionError(f"{source} was made again")
