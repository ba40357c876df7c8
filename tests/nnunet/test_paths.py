import json
import os
import sys
from pathlib import Path

import pytest

from ccdcseg.errors import UserError
from ccdcseg.nnunet.paths import check_logger, nnunet_folder

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


@pytest.mark.parametrize("value", ["1", "True", "true"])
def test_a_log_that_nnunet_would_send_where_nothing_can_send_it(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("nnUNet_wandb_enabled", value)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=rf"nnUNet_wandb_enabled is '{value}', and wandb is not installed"):
        check_logger()
    monkeypatch.setitem(sys.modules, "wandb", json)
    check_logger()


@pytest.mark.parametrize("value", ["yes", "TRUE", "", "2"])
def test_words_for_a_log_that_nnunet_does_not_know(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    for known in ("0", "False", "false"):
        monkeypatch.setenv("nnUNet_wandb_enabled", known)
        check_logger()
    monkeypatch.setenv("nnUNet_wandb_enabled", value)
    with pytest.raises(UserError, match=rf"nnUNet_wandb_enabled is '{value}'\. Set it to 0 or 1"):
        check_logger()


@pytest.mark.parametrize("raw", ["{}", "{}/", "{}/../link", "{}/../raw/."])
def test_one_folder_for_raw_and_preprocessed_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: str
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "link").symlink_to("raw")
    monkeypatch.setenv("nnUNet_raw", raw.format(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "raw"))
    with pytest.raises(UserError, match="nnUNet_preprocessed and nnUNet_raw are one folder"):
        nnunet_folder("nnUNet_preprocessed")
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "raw" / "preprocessed"))
    assert nnunet_folder("nnUNet_preprocessed") == tmp_path / "raw" / "preprocessed"


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
