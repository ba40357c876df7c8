import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from ccdcseg.datasets.prepared import find_prepared, fingerprint, record, staging
from ccdcseg.errors import UserError
from ccdcseg.files import new_folder
from kills import killed_before


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "scan").write_text("1")
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "raw" / "Dataset007_Own"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.nii.gz").write_text("1")
    return folder


def test_the_same_source_and_settings_have_one_mark(source: Path) -> None:
    mark = fingerprint(source, "acdc", {"a": 1, "b": 2})
    assert fingerprint(source, "acdc", {"b": 2, "a": 1}) == mark
    assert fingerprint(source, "chaos", {"a": 1, "b": 2}) != mark
    assert fingerprint(source, "acdc", {"a": 1, "b": 3}) != mark


def test_a_source_that_is_not_there(source: Path) -> None:
    for place, settings in ((source / "b", {}), (source, {"found_by": source / "table.csv"})):
        with pytest.raises(UserError, match="does not exist"):
            fingerprint(place, "own", settings)


def test_a_changed_source_has_another(source: Path) -> None:
    mark = fingerprint(source, "acdc", {})
    scan = source / "a" / "scan"
    os.utime(scan, ns=(1, 1))
    assert fingerprint(source, "acdc", {}) != mark
    mark = fingerprint(source, "acdc", {})
    scan.rename(source / "a" / "other")
    assert fingerprint(source, "acdc", {}) != mark


def test_what_lies_behind_a_link_counts(source: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (source / "a").rename(tmp_path / "archive" / "a")
    (source / "a").symlink_to(tmp_path / "archive" / "a")
    mark = fingerprint(source, "acdc", {})
    os.utime(tmp_path / "archive" / "a" / "scan", ns=(1, 1))
    assert fingerprint(source, "acdc", {}) != mark


def test_files_used_count_wherever_they_lie(source: Path, tmp_path: Path) -> None:
    mask, hidden, scan = tmp_path / "mask", source / ".hidden" / "scan", source / "a" / "scan"
    hidden.parent.mkdir()
    for file in (mask, hidden):
        file.write_text("1")
    assert fingerprint(source, "own", {}, [scan]) == fingerprint(source, "own", {})
    for file in (mask, hidden):
        mark = fingerprint(source, "own", {}, [scan, file])
        os.utime(file, ns=(1, 1))
        assert fingerprint(source, "own", {}, [scan, file]) != mark


def test_what_nnunet_keeps_below_the_source_does_not_count(source: Path) -> None:
    mark, raw = fingerprint(source, "own", {}), source / "raw"
    raw.mkdir()
    (raw / "scan").write_text("1")
    assert fingerprint(source, "own", {}, made=[raw]) == mark
    assert fingerprint(source, "own", {}, [raw / "scan"], [raw]) != mark
    assert fingerprint(source, "own", {}, made=[source]) == fingerprint(source, "own", {}) != mark


def test_a_file_among_the_settings_counts_by_what_it_is(source: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("one")
    mark = fingerprint(source, "own", {"found_by": table})
    assert fingerprint(source, "own", {"found_by": table}) == mark
    table.write_text("another")
    assert fingerprint(source, "own", {"found_by": table}) != mark


def test_a_free_id(tmp_path: Path, dataset: Path) -> None:
    assert find_prepared(tmp_path / "nowhere", 7, "x") is None
    assert find_prepared(dataset.parent, 8, "x") is None


def test_what_was_prepared_is_found(dataset: Path) -> None:
    record(dataset, "x")
    assert find_prepared(dataset.parent, 7, "x") == dataset


def test_another_source_or_a_changed_data_set(dataset: Path) -> None:
    with pytest.raises(
        UserError, match=r"id 7 is taken by .*Dataset007_Own, which was made from something else"
    ):
        find_prepared(dataset.parent, 7, "x")
    record(dataset, "x")
    with pytest.raises(UserError, match=r"id 7 is taken"):
        find_prepared(dataset.parent, 7, "y")
    (dataset / "labelsTr" / "a.nii.gz").write_text("changed")
    with pytest.raises(UserError, match=r"or changed since\. Choose another id, or remove it"):
        find_prepared(dataset.parent, 7, "x")


def test_whenever_it_is_killed_the_same_command_prepares_the_data_set(tmp_path: Path) -> None:
    raw = tmp_path / "raw"

    def prepare() -> None:
        if find_prepared(raw, 7, "x"):
            return
        with staging(raw, 7, "x") as place, new_folder(place / "Dataset007_Own") as folder:
            for name in ("imagesTr", "labelsTr"):
                (folder / name).mkdir()
                (folder / name / "a.nii.gz").write_text("1")

    for step in count(1):
        killed = killed_before(step, prepare, tmp_path)
        prepare()
        assert [path.name for path in raw.iterdir() if path.name[0] != "."] == ["Dataset007_Own"]
        assert sum(1 for path in raw.rglob("a.nii.gz")) == 2
        if not killed:
            break
        shutil.rmtree(raw)
    assert step > 12
    assert [path.name for path in raw.iterdir()] == ["Dataset007_Own"]


def test_what_another_user_left_half_made_is_in_nobodys_way(
    tmp_path: Path, close: Callable[[Path], None]
) -> None:
    left = tmp_path / ".ccdcseg_prepare_007" / ".0123.partial"
    (left / "Dataset007_Own").mkdir(parents=True)
    close(left)
    with staging(tmp_path, 7, "x") as place, new_folder(place / "Dataset007_Own") as folder:
        (folder / "labelsTr").mkdir()
    assert {path.name for path in (tmp_path / "Dataset007_Own").iterdir()} == {"labelsTr", "prepared.json"}
    assert left.exists()


def test_what_another_user_left_whole_is_refused(tmp_path: Path, close: Callable[[Path], None]) -> None:
    """It would be moved beside the new one, under an id that both have."""
    left = tmp_path / ".ccdcseg_prepare_007" / "Dataset007_Theirs"
    (left / "labelsTr").mkdir(parents=True)
    close(left)
    with pytest.raises(PermissionError), staging(tmp_path, 7, "x"):
        pass


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staging(tmp_path / "raw", 7, "x") as place:
            (place / "half").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not (tmp_path / "raw").exists()
