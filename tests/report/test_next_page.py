import re
from pathlib import Path

from ccdcseg.datasets.cases import Case, write_unlabelled_cases
from ccdcseg.proposals.proposals import Proposals, Wanted, propose
from ccdcseg.report.next_page import ADVICE, build_next_page

AXIS = "y of the file, not z (coronal)"
NAME = '<img src=x onerror="alert(1)">'


def proposed(raw: Path, cache: Path) -> Proposals:
    return propose(raw, Path("imagesTs"), Wanted(3, 3, 0), (), cache, 1, "cpu", lambda *_: None)


def test_the_page_shows_names_as_they_are(half_annotated: Path, tmp_path: Path) -> None:
    write_unlabelled_cases(half_annotated, {"imagesTs": [Case("q1_ED", NAME, f"{NAME}=1", NAME)]})
    for case in ("q2", "q3", "q4"):
        for path in (half_annotated / "imagesTs").glob(f"{case}*"):
            path.unlink()
    found = proposed(half_annotated, tmp_path / "cache")
    page = build_next_page(found, tmp_path / "next.csv", tmp_path / "next.html", 1).read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    pictures = re.findall(r'<img src="data:image/jpeg[^"]*" width="\d+" height="320"', page)
    assert len(pictures) == page.count("<img src=") == 3 * sum(map(len, found.draws.values()))
    assert ADVICE in page
    assert "Whose scans 3 of them are is not known" in page


def test_chance_comes_first(half_annotated: Path, tmp_path: Path) -> None:
    found = proposed(half_annotated, tmp_path / "cache")
    page = build_next_page(
        found, tmp_path / "next.csv", tmp_path / "next.html", 1, synthetic=True
    ).read_text()
    assert page.index("Drawn at random</h2>") < page.index("To cover the scans</h2>")
    assert "2 scans were passed over" in page
    assert "Synthetic images" in page


def test_the_axis_of_the_slices_is_said_of_each_scan(lying: Path, tmp_path: Path) -> None:
    found = proposed(lying, tmp_path / "cache")
    page = build_next_page(found, tmp_path / "next.csv", tmp_path / "next.html", 1).read_text()
    shown = re.findall(
        r"<h3>\d+\. (.*?)</h3>\n<p .*Slices to annotate: .* of 8, along <strong>(.*)</strong>", page
    )
    assert {*shown} == {(case, AXIS if case == "q1_ED" else "z of the file (axial)") for case, _ in shown}
    assert len({*shown}) > 1
    assert ("q1_ED", AXIS) in shown
