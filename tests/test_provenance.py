import os
from pathlib import Path

import pytest

from ccdcseg import provenance
from ccdcseg.errors import UserError
from ccdcseg.provenance import Source, forget_origin, origin_file, put_json, read_origin, stamp, write_origin


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A file that nobody touched for an hour."""
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"abcd")
    age(path)
    return path


def age(path: Path) -> None:
    os.utime(path, (1e9, 1e9))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "scan.nii.gz"
    path.parent.mkdir()
    path.write_text("made")
    return path


def test_without_a_record_nothing_is_known(made: Path, scan: Path):
    assert read_origin(made, {"images": Source((scan,))}) is None
    write_origin(made, stamp({"images": Source((scan,))}), made)
    forget_origin(made)
    forget_origin(made)
    assert read_origin(made, {"images": Source((scan,))}) is None


@pytest.mark.parametrize("fresh", [True, False])
def test_what_was_changed_is_named(made: Path, scan: Path, fresh: bool):
    if fresh:
        scan.touch()
    sources = {"images": Source((scan,)), "settings": Source(settings={"a": [1], "b": 2})}
    write_origin(made, stamp(sources), made)
    same = sources | {"settings": Source(settings={"b": 2, "a": (1,)})}
    assert read_origin(made, same).current
    assert read_origin(made, sources | {"settings": Source(settings={})}).changed == ("settings",)
    assert read_origin(made, sources | {"more": Source()}).changed == ("more",)
    scan.write_bytes(b"abcd")
    assert read_origin(made, sources).current
    scan.write_bytes(b"abce")  # as long, and the old times are put back
    age(scan)
    origin = read_origin(made, sources)
    assert (origin.intact, origin.changed, origin.current) == (True, ("images",), False)


def test_names_count_and_folders_do_not(made: Path, scan: Path, tmp_path: Path):
    write_origin(made, stamp({"images": Source((scan,))}), made)
    (tmp_path / "elsewhere").mkdir()
    moved = scan.rename(tmp_path / "elsewhere" / scan.name)
    assert read_origin(made, {"images": Source((moved,))}).current
    assert not read_origin(made, {"images": Source((moved.rename(tmp_path / "other"),))}).current


@pytest.mark.parametrize("writable", [True, False])
def test_sources_that_were_copied_are_read_once(made: Path, scan: Path, monkeypatch, writable: bool):
    """A copy has another number on the disk and other times."""
    sources, reads = {"images": Source((scan,)), "settings": Source(settings=1)}, []
    content = Source.content.fget

    def read(source: Source) -> str:
        reads.append(source)
        return content(source)

    def refused(*_: object) -> None:
        raise PermissionError

    write_origin(made, stamp(sources), made)
    os.utime(scan, (1.1e9, 1.1e9))
    monkeypatch.setattr(Source, "content", property(read))
    if not writable:
        monkeypatch.setattr(provenance, "write_json", refused)
    assert [read_origin(made, sources).current for _ in range(3)] == [True] * 3
    assert len(reads) == (1 if writable else 3)


def test_a_record_is_as_open_as_its_file(made: Path, scan: Path):
    """Also where it is written anew by who only reads, or after it was forgotten, and whatever the umask."""
    sources = {"images": Source((scan,))}
    made.chmod(0o664)
    before = os.umask(0o077)
    try:
        write_origin(made, stamp(sources), made)
        os.utime(scan, (1.1e9, 1.1e9))
        written = origin_file(made).read_text()
        assert read_origin(made, sources).current
        assert origin_file(made).read_text() != written
        assert origin_file(made).stat().st_mode & 0o777 == 0o664
        put_json(made, {"a": 1})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (made, origin_file(made))} == {0o664}


def test_a_file_that_somebody_edited(made: Path):
    write_origin(made, stamp({}), made)
    assert read_origin(made, {}).intact
    made.write_text("mine")
    assert not read_origin(made, {}).intact


def test_what_changes_while_it_is_read_shows_later(made: Path, scan: Path):
    sources = {"images": Source((scan,))}
    before = stamp(sources)
    scan.write_bytes(b"later")
    write_origin(made, before, made)
    assert not read_origin(made, sources).current


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sources": 1, "made": null}', '{"sources": {"a": 3}}'])
def test_a_damaged_record(made: Path, content: str):
    write_origin(made, stamp({}), made)
    origin_file(made).write_text(content)
    with pytest.raises(
        UserError, match=r"made_from/scan\.nii\.gz\.json is .*Remove it together with scan\.nii"
    ):
        read_origin(made, {"a": Source()})
