import errno
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

from ccdcseg import files
from ccdcseg.errors import UserError
from ccdcseg.files import (
    absolute,
    check_file,
    content_hash,
    file_hash,
    file_states,
    json_hash,
    locked,
    new_folder,
    read_json,
    real,
    write_json,
    write_text,
)


def test_write_replaces_and_leaves_nothing_beside(tmp_path: Path):
    path = tmp_path / "sub" / "file.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_read_json_names_the_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"absent\.json does not exist"):
        read_json(tmp_path / "absent.json")
    for bad in ("{", '{"a": NaN}', "[-Infinity]"):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(UserError, match=r"bad\.json is not valid JSON"):
            read_json(tmp_path / "bad.json")


def test_new_folder_appears_whole(tmp_path: Path):
    with new_folder(tmp_path / "new") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "new" / "a").read_text() == "a"
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_the_rights_of_what_is_written_are_those_that_the_user_wants(tmp_path: Path, mask: int):
    before = os.umask(mask)
    try:
        with new_folder(tmp_path / "new") as folder:
            write_text(folder / "file", "a")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~mask
    assert (tmp_path / "new" / "file").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("rights", [0o660, 0o644, 0o600])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_what_takes_the_place_of_a_file_is_as_open(tmp_path: Path, rights: int, umask: int):
    """Else a colleague of another umask locks out all others, the owner too."""
    path = tmp_path / "file"
    path.write_text("a")
    path.chmod(rights)
    if os.geteuid() == 0:
        os.chown(path, 1234, 5678)
    before, mask = path.stat(), os.umask(umask)
    try:
        write_text(path, "b")
    finally:
        os.umask(mask)
    after = path.stat()
    assert path.read_text() == "b"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.parametrize(("rights", "expected"), [(0o664, 0o644), (0o660, 0o600), (0o666, 0o666)])
def test_the_rights_of_a_group_are_given_to_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rights: int, expected: int
):
    def refuse(*_: object) -> None:
        raise PermissionError

    path = tmp_path / "file"
    path.write_text("a")
    path.chmod(rights)
    monkeypatch.setattr(os, "chown", refuse)
    write_text(path, "b")
    assert path.stat().st_mode & 0o777 == expected


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_new_folder_leaves_nothing_on_failure(tmp_path: Path, error: type[BaseException]):
    def fail() -> None:
        with new_folder(tmp_path / "new") as folder:
            (folder / "a").write_text("a")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_new_folder_refuses_an_existing_one(tmp_path: Path):
    (tmp_path / "new").mkdir()
    with pytest.raises(UserError, match="exists already"), new_folder(tmp_path / "new"):
        pass


def test_content_hash_depends_on_names_and_contents(tmp_path: Path):
    for name, text in (("a", "x"), ("b", "y")):
        (tmp_path / name).write_text(text)
    files = [tmp_path / "a", tmp_path / "b"]
    first = content_hash(files)
    assert content_hash(reversed(files)) == first
    (tmp_path / "b").write_text("z")
    assert content_hash(files) != first
    assert content_hash(files[:1]) != first


FILELOCK = int(version("filelock").split(".")[0])
HOLD = """
import pathlib, sys
from ccdcseg.files import locked
with locked(pathlib.Path(sys.argv[1]), "train"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_another_process_holds(tmp_path: Path):
    folder = tmp_path / "new" / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        who = rf"Another process \({other.pid} on {re.escape(platform.node())}\)"
        if FILELOCK < 4:
            who = "Another process"
        with (
            pytest.raises(UserError, match=rf"^{who} works on .*run\. .*; then predict again"),
            locked(folder, "predict"),
        ):
            pass
        other.kill()
    with locked(folder, "predict"):
        (folder / "file").touch()
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.fixture(params=["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EINVAL"])
def no_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a disk says that has none, such as Lustre's, mounted without."""
    if FILELOCK < 4:
        pytest.skip("there the lock of a killed process stays")
    fcntl = pytest.importorskip("fcntl")
    code = getattr(errno, request.param)

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return str(request.param)


NO_FLOCK = """
import errno, fcntl
def refuse(*_):
    raise OSError(errno.{}, "")
fcntl.flock = refuse
"""


def test_a_folder_on_a_disk_without_flock(tmp_path: Path, no_flock: str):
    """There the file is the lock: written over, it would be nobody's."""
    hold = NO_FLOCK.format(no_flock) + HOLD
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        marker = (tmp_path / ".lock").read_bytes()
        with pytest.raises(UserError, match=rf"process \({other.pid} on "), locked(tmp_path, "predict"):
            pass
        assert (tmp_path / ".lock").read_bytes() == marker
        other.kill()
    with locked(tmp_path, "predict"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_killed_on_another_machine(tmp_path: Path, no_flock: str, monkeypatch, caplog):
    """Nobody here can tell that it is gone: who waits hears what to remove."""
    marker = tmp_path / ".lock"
    marker.write_text("1\nnode\n")
    monkeypatch.setattr(files, "TOLD_SECONDS", 0)
    monkeypatch.setattr(files.time, "sleep", lambda _: marker.unlink())
    with locked(tmp_path, "split", wait=True):
        pass
    told = (
        f"Another process (1 on node; where it is gone, remove {marker}) works on {tmp_path}. Waiting until"
    )
    assert told in caplog.text


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("rights", [0o700, 0o755, 0o775, 0o777])
def test_who_may_write_into_a_folder_may_lock_it_after_a_kill(tmp_path: Path, rights: int, umask: int):
    """What a kill leaves is the file as it is while its lock is held."""
    tmp_path.chmod(rights)
    before = os.umask(umask)
    try:
        with locked(tmp_path, "split"):
            assert (tmp_path / ".lock").stat().st_mode & 0o777 == rights & 0o666
    finally:
        os.umask(before)


CLOSED = """
import os, pathlib, sys
from ccdcseg import errors, files
folder, wait = pathlib.Path(sys.argv[1]), len(sys.argv) > 2
files.TOLD_SECONDS = 0
files.time.sleep = lambda _: (folder / ".lock").unlink()
with files.locked(folder / "before", "split"):
    pass  # imports what that user may be unable to read
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    with files.locked(folder, "split", wait=wait):
        print("held")
except errors.UserError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs a second user")
@pytest.mark.parametrize(("rights", "who"), [(0o644, "1 on node; "), (0o600, "")])
def test_a_lock_that_another_user_left_and_lets_nobody_write(rights: int, who: str):
    """As earlier versions left it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder, marker = Path(name), Path(name) / ".lock"
        folder.chmod(0o777)
        marker.write_text("1\nnode\n")
        marker.chmod(rights)
        told = f"Another process ({who}where it is gone, remove {marker}) works on {folder}."
        refused, waited = (
            subprocess.run(
                [sys.executable, "-c", CLOSED, name, *wait], text=True, capture_output=True, check=True
            )
            for wait in ([], ["wait"])
        )
    assert refused.stdout.startswith(f"{told} Wait until it has ended")
    assert waited.stdout == "held\n"
    assert f"{told} Waiting until it has ended." in waited.stderr


def test_what_a_killed_process_left_is_removed_whole(tmp_path: Path):
    (tmp_path / ".0a.partial" / "epoch_0001").mkdir(parents=True)
    (tmp_path / ".0a.partial" / "epoch_0001" / "a_seg.b2nd").touch()
    for name in (".run.json.0b.partial", "run.json", ".lock"):
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path)
    files.remove_leftovers(tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "run.json"]


def test_a_folder_held_within_this_process_and_given_back_after_an_error(tmp_path: Path):
    def fail() -> None:
        with locked(tmp_path, "train"):
            with pytest.raises(UserError, match=r"Another process .*works on"), locked(tmp_path, "train"):
                pass
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fail()


def test_a_folder_made_for_nothing_goes_again_and_what_was_there_stays(tmp_path: Path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError), locked(tmp_path / "there" / "new" / "run", "train"):
        raise UserError("No.", "Do not.")
    assert list((tmp_path / "there").iterdir()) == []
    with locked(tmp_path / "there", "train"):
        pass
    with locked(tmp_path / "there" / "new" / "run", "train"):
        (tmp_path / "there" / "new" / "beside").touch()
    assert sorted(path.name for path in (tmp_path / "there").rglob("*")) == ["beside", "new"]


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path: Path):
    """A device or a pipe that is replaced is gone for everybody."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        for write in (lambda path: write_text(path, "text"), check_file):
            with pytest.raises(UserError, match=f"{name} is no ordinary file"):
                write(tmp_path / name)
    for write in (lambda path: write_text(path, "text"), check_file):
        with pytest.raises(IsADirectoryError):
            write(tmp_path)
        with pytest.raises(OSError, match="too long"):
            write(tmp_path / ("a" * 300))
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_the_hash_of_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is no file, but a pipe"):
        file_hash(tmp_path / "pipe")


def test_a_folder_made_for_a_file_that_cannot_be_written_goes_again(tmp_path: Path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"new/folder/file"):
        write_text(tmp_path / "new" / "folder" / "file", "text")
    assert list(tmp_path.iterdir()) == []


def test_links_that_lead_in_a_circle(tmp_path: Path):
    (tmp_path / "circle").symlink_to("circle")
    assert real(tmp_path / "circle").name == "circle"
    assert absolute(tmp_path / "x" / ".." / "circle").name == "circle"


def test_folders_made_and_removed_by_several_at_once(tmp_path: Path):
    """Who holds a folder removes it afterwards, perhaps just as the next one makes and locks it."""

    def hold(_: int) -> None:
        for _ in range(20):
            with locked(tmp_path / "new" / "run", "train", wait=True):
                (tmp_path / "new" / "run" / "file").touch(exist_ok=False)
                (tmp_path / "new" / "run" / "file").unlink()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(hold, range(3)))
    assert {path.name for path in tmp_path.rglob("*")} <= {"new", "run"}


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(NotADirectoryError, match=r"file/run'"),
        locked(tmp_path / "file" / "run", "train"),
    ):
        pass


def test_json_hash_does_not_know_the_order_of_keys():
    assert json_hash([{"a": 1, "b": 2}]) == json_hash([{"b": 2, "a": 1}]) != json_hash([{"a": 2, "b": 1}])


def test_states_are_name_size_and_time(tmp_path: Path):
    (tmp_path / "a").write_text("xyz")
    assert file_states([("n", tmp_path / "a")]) == [("n", 3, (tmp_path / "a").stat().st_mtime_ns)]
