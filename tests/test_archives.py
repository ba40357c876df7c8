import contextlib
import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg import archives
from ccdcseg.archives import unpacked
from ccdcseg.errors import UserError

FILES = {"patient001/Info.cfg": b"ED: 1", "patient001/a.nii.gz": bytes(range(256))}


def write(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def member(name: str, **fields: Any) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def raw(path: Path, *members: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members:
            archive.writestr(info, content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "raw"


def test_a_folder_is_itself(tmp_path: Path, place: Path) -> None:
    with unpacked(tmp_path, place) as folder:
        assert folder == tmp_path
    assert not place.exists()


def test_an_archive_is_unpacked_for_as_long_as_it_is_read(tmp_path: Path, place: Path) -> None:
    calls = []
    with unpacked(write(tmp_path / "a.zip", FILES), place, lambda *done: calls.append(done)) as folder:
        assert contents(folder) == FILES
        assert place in folder.parents
    assert calls == [(1, 2), (2, 2)]
    assert list(place.iterdir()) == []


def test_nothing_is_left_after_an_error(tmp_path: Path, place: Path) -> None:
    archive = write(tmp_path / "a.zip", FILES)
    with (
        pytest.raises(UserError, match=rf"{archive}/patient001 is wrong\. Look at {archive}\."),
        unpacked(archive, place) as folder,
    ):
        raise UserError(f"{folder}/patient001 is wrong.", f"Look at {folder}.")
    with pytest.raises(KeyboardInterrupt), unpacked(archive, place):
        raise KeyboardInterrupt
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("prefix", "kept"),
    [
        ("ACDC/database/", ""),
        ("training/", "training/"),
        ("x/MR/", "MR/"),
        ("12/", "12/"),
        ("patient7/", "patient7/"),
    ],
)
def test_wrapping_folders_are_passed_over(tmp_path: Path, place: Path, prefix: str, kept: str) -> None:
    archive = write(tmp_path / "a.zip", {prefix + "f1": b"1", prefix + "f2": b"2", "__MACOSX/x": b"no"})
    with unpacked(archive, place) as folder:
        assert contents(folder) == {kept + "f1": b"1", kept + "f2": b"2"}


def test_a_folder_that_fits_as_it_is_is_not_unwrapped(tmp_path: Path, place: Path) -> None:
    archive = write(tmp_path / "a.zip", {"data/P01/f1": b"1"})
    with unpacked(archive, place, None, lambda folder: (folder / "P01").exists()) as folder:
        assert contents(folder) == {"P01/f1": b"1"}


@pytest.mark.parametrize("encoding", ["utf-8", "cp437"])
def test_names_whose_encoding_is_not_said(tmp_path: Path, place: Path, encoding: str) -> None:
    """macOS writes UTF-8 without saying so; older programs write code page 437, as the format has it."""
    archive = write(tmp_path / "a.zip", {"J@@rg": b"1", "f": b"2"})
    name = "J\xfcrg".encode(encoding)
    archive.write_bytes(archive.read_bytes().replace(b"J@@rg", name + b"g" * (5 - len(name))))
    with unpacked(archive, place) as folder:
        assert (folder / "J\xfcrgg"[: 4 + (encoding == "cp437")]).read_bytes() == b"1"


LINK = (stat.S_IFLNK | 0o777) << 16
DEVICE = (stat.S_IFCHR | 0o666) << 16


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([(member("/etc/passwd"), b"x")], r"holds '/etc/passwd', which is no name inside it"),
        ([(member("a/../../b"), b"x")], r"holds 'a/\.\./\.\./b', which is no name"),
        ([(member("C:\\x"), b"x")], r"which is no name inside it"),
        ([(member("a\\..\\b"), b"x")], r"which is no name inside it\. Check where it comes from"),
        ([(member("\\a\\b"), b"x")], r"which is no name inside it\. Check where it comes from"),
        (
            [(member("P1\\scan.nii.gz"), b"x")],
            r"which is no name inside it\. It has backslashes .* Unpack it yourself",
        ),
        ([(member("a\nb"), b"x")], r"which is no name inside it"),
        ([(member("link", external_attr=LINK), b"/etc/passwd")], r"holds link, which is a link or no file"),
        ([(member("device", external_attr=DEVICE), b"")], r"holds device, which is a link or no file"),
        ([(member("a/X"), b"1"), (member("a/x"), b"2")], r"a/X and a/x: names alike but for case"),
        ([(member("A/1"), b"1"), (member("a/2"), b"2")], r"A and a: names alike but for case"),
        ([(member("e\u0301"), b"1"), (member("\u00e9"), b"2")], r"names alike but for case"),
        ([(member("a"), b"1"), (member("a/b"), b"2")], r"holds a as a file and as a folder"),
        ([(member("a", compress_type=zipfile.ZIP_LZMA), b"1")], r"compressed by the method 14"),
    ],
)
def test_members_that_are_refused(
    tmp_path: Path, place: Path, members: list[tuple[zipfile.ZipInfo, bytes]], message: str
) -> None:
    archive = raw(tmp_path / "a.zip", *members)
    with pytest.raises(UserError, match=rf"a\.zip .*{message}") as caught, unpacked(archive, place):
        pytest.fail("it was unpacked")
    assert "\n" not in str(caught.value)
    assert not place.exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(tmp_path: Path, place: Path) -> None:
    archive = raw(tmp_path / "a.zip", (member("a"), b"1"), (member("a"), b"2"))
    with pytest.raises(UserError, match=r"a\.zip holds a twice"), unpacked(archive, place):
        pytest.fail("it was unpacked")


@pytest.mark.parametrize(
    ("limits", "files", "message"),
    [
        ({"MAX_MEMBERS": 2}, dict.fromkeys("abc", b""), r"holds 3 files and folders; 2 is the limit"),
        ({"MAX_UNPACKED_BYTES": 99}, {"a": bytes(100)}, r"unpacks to 0\.0 GiB; 0 GiB is the limit"),
        ({"FREE_RATIO_BYTES": 10}, {"a": bytes(10**6)}, r"unpacks to \d+ times its size; 200 is the limit"),
    ],
)
def test_bombs(
    tmp_path: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, int],
    files: dict[str, bytes],
    message: str,
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(archives, name, value)
    with pytest.raises(UserError, match=message), unpacked(write(tmp_path / "a.zip", files), place):
        pytest.fail("it was unpacked")


def test_an_encrypted_archive(tmp_path: Path, place: Path) -> None:
    path = write(tmp_path / "a.zip", {"a": b"1"})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    with (
        pytest.raises(UserError, match=r"a\.zip is encrypted: a\. Unpack it yourself"),
        unpacked(path, place),
    ):
        pytest.fail("it was unpacked")


def test_a_disk_with_too_little_space(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("usage", (), {"free": 10}))
    with (
        pytest.raises(UserError, match=r"needs 0\.0 GiB to be unpacked in .*raw, 0\.0 GiB are free"),
        unpacked(write(tmp_path / "a.zip", FILES), place),
    ):
        pytest.fail("it was unpacked")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-30], r"is no whole zip archive"),
        (lambda content: content[: len(content) // 2], r"is no whole zip archive"),
        (lambda content: b"", r"is no whole zip archive"),
        (lambda content: b"nothing" * 50, r"is no whole zip archive"),
        (
            lambda content: content.replace(bytes(range(40, 60)), bytes(20)),
            r"is truncated or damaged at patient001/a",
        ),
    ],
)
def test_damaged_archives(
    tmp_path: Path, place: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = write(tmp_path / "a.zip", FILES, zipfile.ZIP_STORED)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=rf"a\.zip {message}.*Download it again"), unpacked(path, place):
        pytest.fail("it was unpacked")
    assert not place.exists() or list(place.iterdir()) == []


def test_what_is_not_there(tmp_path: Path, place: Path) -> None:
    with pytest.raises(UserError, match=r"a\.zip does not exist"), unpacked(tmp_path / "a.zip", place):
        pytest.fail("it was unpacked")


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_damaged_byte_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: int, change: int
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    content = bytearray(buffer.getvalue())
    content[place % len(content)] ^= change
    path = folder / "a.zip"
    path.write_bytes(bytes(content))
    with contextlib.suppress(UserError), unpacked(path, folder / "raw") as found:
        assert all(one in FILES.values() for one in contents(found).values())
    outside = {p.name for p in folder.iterdir()} - {"a.zip", "raw"}
    assert not outside
