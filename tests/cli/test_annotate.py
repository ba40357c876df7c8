import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import scored

from ccdcseg.cli import main
from ccdcseg.datasets.cases import Case, read_unlabelled_cases, write_cases


def command(monkeypatch: pytest.MonkeyPatch, half_annotated: Path, *words: str) -> int:
    monkeypatch.setenv("nnUNet_raw", str(half_annotated.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(half_annotated.parent / "preprocessed"))
    monkeypatch.setattr("sys.argv", ["ccdcseg", "next", "7", "--processes", "1", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, half_annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert command(monkeypatch, half_annotated, "-o", str(page), "--scans", "2", "--slices", "1") == 0
    said = capsys.readouterr().out
    assert re.search(r"random: +\S+ \(slices 5\), \S+ \(slices 5\)", said)
    assert str(page) in said
    assert page.exists()
    assert page.with_suffix(".csv").exists()
    assert page.with_suffix(".label").exists()
    assert command(monkeypatch, half_annotated, "-o", str(page.with_suffix(".csv"))) == 2
    assert "does not end in .html" in capsys.readouterr().err
    assert command(monkeypatch, half_annotated, "-o", str(page), "--scans", "1", "--slices", "1") == 0
    table = page.with_suffix(".csv")
    heading = table.read_text().splitlines()[0]
    sides = (
        (table, f"{heading},drawn by\n"),
        (table, f"drawn by,{heading}\n"),
        (page.with_suffix(".label"), "mine"),
    )
    for side, remains in sides:
        side.write_text(remains)
        assert command(monkeypatch, half_annotated, "-o", str(page)) == 2
        assert f"{side} would be replaced" in capsys.readouterr().err
        assert side.read_text() == remains
        side.unlink()


def test_the_command_leaves_nothing_after_a_mistake(
    monkeypatch: pytest.MonkeyPatch, half_annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (half_annotated / "imagesTs" / "q1_ED_0000.nii.gz").write_bytes(b"x")
    assert command(monkeypatch, half_annotated, "-o", str(tmp_path / "page.html")) == 2
    assert capsys.readouterr().err.count("ccdcseg: ") == 1
    assert not [*tmp_path.glob("page.*")]


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        ("q[1-4]_ED*", "4 scans, not 9: there are no more."),
        ("q[12]*", "2 scans, not 9: all others are of the same"),
    ],
)
def test_why_there_are_fewer_scans_than_wanted(
    monkeypatch: pytest.MonkeyPatch,
    half_annotated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kept: str,
    why: str,
) -> None:
    images = half_annotated / "imagesTs"
    for path in {*images.iterdir()} - {*images.glob(kept)}:
        path.unlink()
    page = tmp_path / "page.html"
    assert command(monkeypatch, half_annotated, "-o", str(page), "--scans", "9", "--slices", "1") == 0
    assert why in capsys.readouterr().out


def test_the_advice_on_whose_scans_are_not_known_is_taken(
    monkeypatch: pytest.MonkeyPatch, half_annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is annotated: ``prepare`` then writes a ``cases.csv`` without a row."""
    for folder in ("imagesTr", "labelsTr"):
        shutil.rmtree(half_annotated / folder)
    write_cases(half_annotated, [])
    known, images = read_unlabelled_cases(half_annotated)["imagesTs"], half_annotated / "imagesTs"
    shutil.copy(images / "q1_ED_0000.nii.gz", images / "q9_ED_0000.nii.gz")
    assert command(monkeypatch, half_annotated, "-o", str(tmp_path / "page.html"), "--slices", "1") == 0
    said = re.search(r"1 of 11 are is not known: .* Say it: (.*)", capsys.readouterr().out)
    assert said
    monkeypatch.setattr("sys.argv", shlex.split(said[1]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, capsys.readouterr().err
    assert read_unlabelled_cases(half_annotated)["imagesTs"] == [*known, Case("q9_ED", "q9", "", "ED")]


def test_the_axis_of_the_slices_is_said(
    monkeypatch: pytest.MonkeyPatch, lying: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert command(monkeypatch, lying, "-o", str(page), "--slices", "1") == 0
    said = dict(re.findall(r"Slices: +along (.*): (.*)", capsys.readouterr().out))
    assert said.pop("y of the file, not z (coronal)") == "q1_ED"
    (others,) = said.items()
    assert others[0] == "z of the file (axial)"
    assert len(others[1].split(", ")) > 2


def test_a_link_to_a_run_is_followed(
    monkeypatch: pytest.MonkeyPatch, half_annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "results" / "fold_0"
    run.mkdir(parents=True)
    record = scored.record(labels={"liver": 1})
    described = json.loads((half_annotated / "dataset.json").read_text())
    described["labels"] = {"background": 0, "liver": 1}
    (run / "run.json").write_text(json.dumps(record))
    (run / "checkpoint_final.pth").touch()
    (run.parent / "plans.json").write_text(json.dumps({"plans_name": record["plans"], "configurations": {}}))
    (run.parent / "dataset.json").write_text(json.dumps(described))
    (tmp_path / "link").symlink_to(run)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    words = ("--run", str(tmp_path / "link"), "-o", str(tmp_path / "page.html"))
    assert command(monkeypatch, half_annotated, *words) == 2
    assert f"{run} was trained on the classes liver" in capsys.readouterr().err
