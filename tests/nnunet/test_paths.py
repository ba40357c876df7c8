import os
from pathlib import Path

import pytest

from ccdcseg.errors import UserError
from ccdcseg.nnunet.paths import nnunet_folder

VARIABLE = "nnUNet_raw"


@pytest.mark.parametrize(
    ("variable", "value", "least"),
    [
        ("nnUNet_n_proc_DA", "many", 0),
        ("nnUNet_n_proc_DA", "", 0),
        ("nnUNet_n_proc_DA", "-1", 0),
        ("nnUNet_def_n_proc", "0", 1),
        ("nnUNet_def_n_proc", "1.5", 1),
    ],
)
def test_numbers_of_processes_that_nnunet_stumbles_over(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, least: int
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(
        UserError, match=rf"variable {variable} is '{value}'\. Set it to a number from {least} on"
    ):
        nnunet_folder("nnUNet_raw")


def test_no_processes_for_augmentation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert nnunet_folder("nnUNet_raw") == tmp_path


def test_a_folder_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_results", raising=False)
    with pytest.raises(UserError, match=r"variable nnUNet_results is not set.*export nnUNet_results"):
        nnunet_folder("nnUNet_results")


@pytest.mark.parametrize(
    ("value", "folder"),
    [
        ("~/raw", "{home}/raw"),
        ("$HOME/raw", "{home}/raw"),
        ("${HOME}/sub/../raw", "{home}/raw"),
        ("raw", "{here}/raw"),
        ("link/../raw", "{home}/raw"),
    ],
)
def test_what_the_shell_has_not_done_is_done_for_nnunet_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, folder: str
):
    home, here = tmp_path / "home", tmp_path / "here"
    for place in (home / "sub", here):
        place.mkdir(parents=True)
    (here / "link").symlink_to(home / "sub")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv(VARIABLE, value)
    expected = folder.format(home=home, here=here)
    assert str(nnunet_folder(VARIABLE)) == os.environ[VARIABLE] == expected


@pytest.mark.parametrize(
    "value", ["", '"~/raw"', "'/raw'", "/raw\r", " /raw", "~nobody_of_that_name/raw", "$NOT_SET_AT_ALL/raw"]
)
def test_what_is_no_path_is_refused(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(UserError, match="nnUNet_raw"):
        nnunet_folder(VARIABLE)
    assert os.environ[VARIABLE] == value
