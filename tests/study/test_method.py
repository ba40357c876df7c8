from pathlib import Path
from types import SimpleNamespace

import pytest

import method
from ccdcseg.errors import UserError


def test_curves_of_the_published_training_are_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(method, "IMAGES", tmp_path)
    monkeypatch.setattr("sys.argv", ["method.py"])
    method.main()
    confidence, pixels = (tmp_path / f"{name}.svg" for name in ("confidence", "pixels"))
    assert all(
        text in confidence.read_text() for text in ("mean probability", "confusion of RV with", "step")
    )
    assert all(text in pixels.read_text() for text in ("background", "Myo", "core", "easy", "hard"))


def test_shares_are_of_all_pixels_of_the_class() -> None:
    seen = SimpleNamespace(easy=[6, None], hard=[2, None], core=[4, 0])
    assert [method.share(role, 0)(seen) for role in ("core", "easy", "hard")] == [0.5, 0.75, 0.25]
    assert method.share("core", 1)(seen) is None


def test_scans_of_patients_are_not_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = SimpleNamespace(record=SimpleNamespace(synthetic=False))
    monkeypatch.setattr(method, "load_run", lambda _: run)
    with pytest.raises(UserError, match="scans of patients"):
        method.selection(tmp_path)
