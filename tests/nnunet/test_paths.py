from pathlib import Path

import pytest

from ccdcseg.errors import UserError
from ccdcseg.nnunet.paths import nnunet_folder


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
