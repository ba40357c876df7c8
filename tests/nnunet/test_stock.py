from pathlib import Path

import pytest

from ccdcseg.nnunet.stock import _WRITERS, stock_nnunet


@pytest.mark.parametrize("name", _WRITERS)
def test_files_of_nnunet_are_whole_or_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from importlib import import_module

    module, path = import_module(name), tmp_path / "plans.json"
    module.save_json({"a": 1}, str(path))
    before, ours = path.read_bytes(), tmp_path / "ours.json"
    with stock_nnunet():
        module.save_json({"a": 1}, str(ours))
        assert ours.read_bytes() == before
        monkeypatch.setattr(Path, "replace", lambda *_: 1 / 0)  # as if it were killed before the last step
        with pytest.raises(ZeroDivisionError):
            module.save_json({"b": 2}, str(path))
    assert path.read_bytes() == before


def test_nnunet_is_quiet(capsys: pytest.CaptureFixture[str]):
    with stock_nnunet():
        print("INFO: you are using the old default planner")
    assert capsys.readouterr().out == ""
