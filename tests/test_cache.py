import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from ccdcseg.cache import cache_key, recall, remember


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
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert cache_key([path], 1) == first
    renamed = path.rename(tmp_path / "other")
    assert len({first, later, cache_key([renamed], 1), cache_key([renamed], 2), cache_key([], 1)}) == 5
