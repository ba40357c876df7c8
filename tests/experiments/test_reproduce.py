import shlex
from pathlib import Path

import pytest

from ccdcseg.files import locked

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def mine(workspace, tmp_path: Path) -> list[object]:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "title: mine\nfractions: [0.4]\nrows:\n  - {name: nnunet, method: nnunet}\n  - {name: ccdc}\n"
        "compare: {row: ccdc}\nfigure: cases\n"
    )
    return ["reproduce", path, "--dataset", 901, "-o", tmp_path / "out"]


def test_dry_run_prints_commands_and_nothing_else(ccdcseg, mine, tmp_path: Path):
    result = ccdcseg(*mine, "--preset", "smoke", "--dry-run")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert len(lines) == 2
    for line, method in zip(lines, ("nnunet", "ccdc"), strict=True):
        words = shlex.split(line)
        assert [words[i + 1] for i, word in enumerate(words) if word == "ccdcseg"] == [
            "train",
            "predict",
            "evaluate",
        ]
        assert words[words.index("--method") + 1] == method
    assert not (tmp_path / "out").exists()


def test_trainings_that_experiments_share_are_run_once(ccdcseg, mine, tmp_path: Path):
    other = tmp_path / "other.yaml"
    other.write_text(
        "title: other\nfractions: [0.4]\nrows:\n  - {name: baseline, method: nnunet}\n"
        "  - {name: gdl, method: gdl}\n"
    )
    result = ccdcseg(*mine, other, "--preset", "smoke", "--dry-run")
    methods = [line.split("--method ")[1].split()[0] for line in result.out.splitlines()]
    assert methods == ["nnunet", "ccdc", "gdl"]


@pytest.mark.parametrize("extra", [["--seeds", "one"], ["--only", "recco"], ["--seeds", "7"]])
def test_mistakes_are_one_line(ccdcseg, mine, extra):
    result = ccdcseg(*mine, *extra)
    assert result.code == 2
    assert "Traceback" not in result.err


def test_a_store_that_another_reproduce_holds(ccdcseg, mine, tmp_path: Path):
    with locked(tmp_path / "out", "reproduce"):
        result = ccdcseg(*mine, "--preset", "smoke")
        assert ccdcseg(*mine, "--preset", "smoke", "--dry-run").code == 0
    assert (result.code, "Another process works on" in result.err) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_tiny_grid_ends_in_its_tables_and_is_not_run_twice(
    workspace, ccdcseg, mine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    result = ccdcseg(*mine, "--preset", workspace.preset, "--workers", 2)
    assert result.code == 0, result.err
    assert "| nnU-Net |" in result.out
    assert "| CCDC |" in result.out
    assert "| CCDC − nnU-Net | Dice |" in result.out
    names = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert names == {
        ".lock", "mine.md", "mine.csv", "mine.tex", "mine.png", "mine.pdf", "mine_comparison.csv",
        "mine_comparison.json", "report.html",
    }  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Reference and predictions outlined" in page
    assert "Paired comparisons" in page
    assert ccdcseg(*mine, "--preset", workspace.preset, "--dry-run").out == ""
