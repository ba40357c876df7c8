"""The documented result on the patients for testing is what the published files give."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("page", "arguments"),
    [
        ("test", ["half_time_0_again", "half_time_0.3_fixed_both"]),
        ("chaos", ["nnunet", "half_resolution", "--name", "half resolution"]),
    ],
)
def test_the_documented_tables_are_those_of_the_published_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], page: str, arguments: list[str]
):
    script = ROOT / "study" / "ablation_test.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(ROOT / "study" / "ablation" / page), *arguments])
    monkeypatch.syspath_prepend(str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out.strip()
    assert "nnU-Net" in printed
    assert printed in (ROOT / "study" / "ablation" / f"{page}.md").read_text()
