import errno
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ccdcseg.errors import UserError
from ccdcseg.nnunet.checkpoints import load_checkpoint, save_checkpoint

CONTENT = {
    "network_weights": {"w": torch.arange(3.0)},
    "logging": {"dice": [np.float64(0.5), np.float32(0.25)], "lrs": [0.1], "tp": np.arange(3)},
    "init_args": {"device": torch.device("cpu"), "fold": 0},
    "grad_scaler_state": None,
}


def as_of_numpy(core: str, path: Path) -> None:
    """Let a checkpoint name NumPy's functions as one of its versions does."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in content if name.endswith("data.pkl"))
    names = re.compile(rb"numpy\._?core\.multiarray\n")
    content[pickled], found = names.subn(f"numpy.{core}.multiarray\n".encode(), content[pickled])
    assert found
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in content.items():
            archive.writestr(name, part)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_round_trip(tmp_path: Path):
    save_checkpoint(CONTENT, tmp_path / "checkpoint.pth")
    loaded = load_checkpoint(tmp_path / "checkpoint.pth")
    assert torch.equal(loaded["network_weights"]["w"], torch.arange(3.0))
    assert loaded["logging"]["dice"] == [0.5, 0.25]
    assert loaded["init_args"] == CONTENT["init_args"]
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pth"]


def test_a_checkpoint_of_a_gpu_is_read_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
    save_checkpoint(CONTENT, tmp_path / "checkpoint.pth")
    assert b"cuda:0" in (tmp_path / "checkpoint.pth").read_bytes()
    weights = load_checkpoint(tmp_path / "checkpoint.pth")["network_weights"]["w"]
    assert weights.device.type == "cpu"
    assert torch.equal(weights, torch.arange(3.0))


@pytest.mark.parametrize("core", ["core", "_core"])
def test_checkpoints_of_either_numpy_are_read(tmp_path: Path, core: str):
    save_checkpoint(CONTENT, tmp_path / "checkpoint.pth")
    as_of_numpy(core, tmp_path / "checkpoint.pth")
    log = load_checkpoint(tmp_path / "checkpoint.pth")["logging"]
    assert log["dice"] == [0.5, 0.25]
    assert log["tp"].tolist() == [0, 1, 2]


def test_numpy_1_reads_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_checkpoint(CONTENT, tmp_path / "checkpoint.pth")
    monkeypatch.delattr(np, "_core", raising=False)  # NumPy 1 has none
    assert load_checkpoint(tmp_path / "checkpoint.pth")["logging"]["dice"] == [0.5, 0.25]


def test_no_other_function_of_numpy_is_run(tmp_path: Path):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(CONTENT, path)
    path.write_bytes(path.read_bytes().replace(b"multiarray\nscalar", b"multiarray\nfromfi"))
    with pytest.raises(UserError, match="could run code"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**CONTENT, "extra": Evil()}, "checkpoint.pth")
    with pytest.raises(UserError, match=r"checkpoint\.pth.*could run code"):
        load_checkpoint(tmp_path / "checkpoint.pth")
    assert not (tmp_path / "pwned").exists()


def test_cut_short(tmp_path: Path):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(CONTENT, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"checkpoint\.pth.*damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", bytes(1000)])
@pytest.mark.parametrize(
    ("beside", "again"), [([], False), (["begun.json"], True), (["begun.json", "run.json"], False)]
)
def test_a_damaged_checkpoint_of_a_training_that_is_not_finished(
    tmp_path: Path, content: bytes, beside: list[str], again: bool
):
    """Nobody has another one; what a power failure leaves is empty, or zeros."""
    (tmp_path / "checkpoint.pth").write_bytes(content)
    for name in beside:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="damaged") as raised:
        load_checkpoint(tmp_path / "checkpoint.pth")
    assert (raised.value.remedy == "Remove it, then train again with --resume.") == again


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "is forbidden to this user"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "There is not enough memory"),
    ],
)
def test_what_is_not_read_though_it_is_whole_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
):
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(UserError, match=words):
        load_checkpoint(tmp_path / "checkpoint.pth")


def test_a_checkpoint_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number)))
    save_checkpoint(CONTENT, tmp_path / "checkpoint.pth")
    state = (tmp_path / "checkpoint.pth").stat()
    assert [(one.st_ino, one.st_size) for one in synced] == [(state.st_ino, state.st_size)]


def test_missing(tmp_path: Path):
    with pytest.raises(UserError, match=r"does not exist\. Copy it .* or move .* out of nnUNet_results"):
        load_checkpoint(tmp_path / "checkpoint.pth")


def test_no_checkpoint_of_nnunet(tmp_path: Path):
    torch.save({"weights": 1}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "other.pth")


def test_a_failed_write_keeps_the_old_one(tmp_path: Path):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(CONTENT, path)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        save_checkpoint({**CONTENT, "bad": lambda: 0}, path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
