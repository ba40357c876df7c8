import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ccdcseg.datasets.walk import by_number, names_with, scan_stem, walk
from ccdcseg.errors import UserError


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_in(root: Path, paths: tuple[Path, ...]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_files_and_folders_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    make(tmp_path, "p10/scan", "p9/scan", "p9/more/slice10", "p9/more/slice2")
    tree = walk(tmp_path)
    assert names_in(tmp_path, tree.files) == ["p9/more/slice2", "p9/more/slice10", "p9/scan", "p10/scan"]
    assert names_in(tmp_path, tree.folders) == ["p9", "p9/more", "p10"]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "archive/p1/scan", "source/p0/scan")
    (tmp_path / "source" / "p1").symlink_to(tmp_path / "archive" / "p1")
    (tmp_path / "source" / "p2").symlink_to(Path("..", "archive", "p1"))
    tree = walk(tmp_path / "source")
    assert names_in(tmp_path / "source", tree.files) == ["p0/scan", "p1/scan", "p2/scan"]
    assert names_in(tmp_path / "source", tree.folders) == ["p0", "p1", "p2"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    make(tmp_path, "a/scan", "b/scan")
    (tmp_path / "a" / "itself").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "above").symlink_to(tmp_path)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "back").symlink_to(tmp_path / "a")
    assert names_in(tmp_path, walk(tmp_path).files) == ["a/other/scan", "a/scan", "b/back/scan", "b/scan"]


def test_a_source_that_is_a_link(tmp_path: Path) -> None:
    make(tmp_path, "real/p/scan")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert walk(tmp_path / "link").files == (tmp_path / "link" / "p" / "scan",)


def test_what_is_hidden_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "p/scan", "p/._scan", "._p", ".trash/p/scan", "__MACOSX/p/scan")
    assert names_in(tmp_path, walk(tmp_path).files) == ["p/scan"]
    assert names_in(tmp_path, walk(tmp_path).folders) == ["p"]


@pytest.mark.parametrize("stem", ["a", "a.1", "a_0000", "nii"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".NII", ".seg.nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".hdr"])
def test_what_is_named_like_a_scan(stem: str, suffix: str) -> None:
    assert scan_stem(stem + suffix) == stem


@pytest.mark.parametrize(
    "name", ["a.txt", "a.img", "a.nii.json", "nii", ".nii", "._a.nii.gz", "nifti", "anii"]
)
def test_what_is_not_named_like_one(name: str) -> None:
    assert scan_stem(name) is None


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "p/scan")
    listed = os.scandir

    def scandir(place: str) -> Any:
        if str(place).endswith("/p"):
            raise PermissionError(13, "Permission denied", str(place))
        return listed(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"/p cannot be read \(Permission denied\)"):
        walk(tmp_path)


def test_names_in_a_folder_that_cannot_be_read_are_not_none(
    tmp_path: Path, close: Callable[[Path], None]
) -> None:
    make(tmp_path, "p/b.nii", "p/a.nii", "p/.c.nii", "p/d.txt")
    assert names_with(tmp_path / "p", ".nii") == ["a", "b"]
    assert names_with(tmp_path / "nowhere", ".nii") == []
    close(tmp_path / "p")
    with pytest.raises(UserError, match=r"/p cannot be read \(Permission denied\)"):
        names_with(tmp_path / "p", ".nii")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is no folder"):
        walk(tmp_path / "nowhere")


def test_numbers_in_names_are_counted() -> None:
    names = ["x10.dcm", "x9.dcm", "x009.dcm", "y1.dcm", "i0002,0000b.dcm", "7.dcm"]
    assert sorted(names, key=by_number) == [
        "7.dcm",
        "i0002,0000b.dcm",
        "x009.dcm",
        "x9.dcm",
        "x10.dcm",
        "y1.dcm",
    ]
