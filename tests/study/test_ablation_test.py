"""The documented result on the patients for testing is what the published tables give."""

import sys
from pathlib import Path

import pytest

import ablation_test

STUDY = Path(__file__).parents[2] / "study"


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
    monkeypatch.setattr(sys, "argv", ["ablation_test.py", str(STUDY / "data" / page), *arguments])
    ablation_test.main()
    printed = capsys.readouterr().out.strip()
    assert "nnU-Net" in printed
    assert printed in (STUDY / "ablation" / f"{page}.md").read_text()
