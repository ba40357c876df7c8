from pathlib import Path

import pytest

from ccdcseg import demo
from ccdcseg.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")


def test_from_phantom_to_page_and_again(workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The demonstration in small; a second call finds everything done."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "restored after the test")
    monkeypatch.setattr(demo, "PRESET", str(workspace.preset))
    monkeypatch.setattr(demo, "PHANTOM_PATIENTS", 4)
    monkeypatch.setattr(demo, "PROCESSES", 1)
    monkeypatch.setitem(demo.DATASETS, "phantom", (900, 0.5))
    stages = []
    page = demo.run_demo(tmp_path / "demo", "phantom", lambda stage, *_: stages.append(stage))
    text = page.read_text()
    assert "ynthetic" in text
    for method in ("nnunet", "ccdc"):
        assert f"{method}: train" in stages
        assert f"{method}: predict" in stages
    stages.clear()
    demo.run_demo(tmp_path / "demo", "phantom", lambda stage, *_: stages.append(stage))
    assert not [stage for stage in stages if "train" in stage or "predict" in stage]


def test_real_scans_need_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "restored after the test")
    monkeypatch.delenv("CCDCSEG_DATA", raising=False)
    with pytest.raises(UserError, match="CCDCSEG_DATA"):
        demo.run_demo(tmp_path, "acdc", lambda *_: None)
