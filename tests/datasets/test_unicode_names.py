from pathlib import Path

import pytest

from ccdcseg.datasets.unicode_names import missing, there, twin
from ccdcseg.datasets.volumes import read_image
from ccdcseg.errors import UserError

ONE, TWO = "M\u00fcller", "Mu\u0308ller"


@pytest.mark.parametrize(("stored", "asked"), [(ONE, TWO), (TWO, ONE)])
def test_a_name_that_looks_alike(tmp_path: Path, stored: str, asked: str) -> None:
    (tmp_path / stored).mkdir()
    (tmp_path / stored / f"{asked}.nii").touch()
    path = tmp_path / asked / f"{stored}.nii"
    assert twin(path) == there(path) == tmp_path / stored / f"{asked}.nii"
    assert "composed otherwise" in missing(path, "remedy").problem
    with pytest.raises(UserError, match=r"composed otherwise.*convmv"):
        read_image(path)


def test_nothing_that_looks_alike(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "scan.nii"
    assert twin(path) is None
    assert there(path) == path
    assert str(missing(path, "Restore it.")) == f"{path} does not exist. Restore it."


def test_a_file_that_is_there_is_itself(tmp_path: Path) -> None:
    for name in (ONE, TWO):
        (tmp_path / name).touch()
    assert there(tmp_path / TWO) == tmp_path / TWO
