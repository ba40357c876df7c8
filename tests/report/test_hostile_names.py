"""Names of patients, scans, classes, methods and data sets as nobody should choose them, in all that is written."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from rich.console import Console

from ccdcseg.report.comparison import compare_runs, write_comparison
from ccdcseg.report.page import build_report
from ccdcseg.runs.evaluation import read_evaluation
from ccdcseg.runs.scoring import summary_grid
from ccdcseg.tabular import to_screen
from ccdcseg.texts import one_line

NAMES = {
    "p0": "<img src=x onerror=alert(1)>",
    "p1": "=cmd|' /C calc'!A0",
    "p2": "</script><script>alert(1)</script>",
    "p3": "-2+3;@SUM(1+1)*cmd|x",
    "p4": "\\input{secret}%$&#_^~{}\n\n=1+1\r\t\x1b[31m\x00",
    "p0_ed": "' onmouseover='alert(1)",
    "p1_ed": '" autofocus onfocus="alert(1)',
    "p2_ed": "{{ 7*7 }}{% raw %}[red][x]",
    "p3_es": "\u202egnp.exe\u2066\u200f",
    "p4_es": "e\u0301 and \u00e9 " + 40 * "long ",
    "RV": "[1mm]@A1|<script>alert(1)</script>[x](javascript:alert(1))",
    "LV": "$\\frac{$`x`\u202e\U0001f600",
    "ccdc": '+1+cmd|"x"!A0 [bold]</td></table><script>alert(1)</script>',
    "cpu": "**[a](http://b)\n| x |",
    "Dataset027_ACDC": "Dataset027_<!-- =x -->\u202e",
}
SIGNS = tuple("=+-@\t\r＝＋－＠")


def disguised(content: Any) -> Any:
    """JSON with all names exchanged."""
    if isinstance(content, dict):
        return {NAMES.get(key, key): disguised(value) for key, value in content.items()}
    if isinstance(content, list):
        return [disguised(value) for value in content]
    return NAMES.get(content, content) if isinstance(content, str) else content


def exchange_names(folder: Path) -> None:
    for path in sorted(folder.rglob("*.nii.gz")):
        channel = "_0000" if path.name.endswith("_0000.nii.gz") else ""
        case = path.name.removesuffix(f"{channel}.nii.gz")
        path.rename(path.with_name(f"{NAMES.get(case, case)}{channel}.nii.gz"))
    for path in folder.rglob("*.json"):
        path.write_text(json.dumps(disguised(json.loads(path.read_text()))))
    for path in folder.rglob("history.jsonl"):
        lines = [json.dumps(disguised(json.loads(line))) for line in path.read_text().splitlines()]
        path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def hostile(runs: list[Path], scans: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The runs and their scans with such names."""
    root = tmp_path_factory.mktemp("hostile")
    shutil.copytree(scans, root / "scans")
    exchange_names(root / "scans")
    for run in runs:
        shutil.copytree(run, root / run.name)
        exchange_names(root / run.name)
        record = json.loads((root / run.name / "run.json").read_text())
        record |= {name: str(root / "scans" / Path(record[name]).name) for name in ("reference", "images")}
        (root / run.name / "run.json").write_text(json.dumps(record))
    return [root / run.name for run in runs]


@pytest.fixture(scope="module")
def page_text(hostile: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    return build_report(hostile, path, NAMES["RV"]).read_text()


def check_csv(text: str) -> None:
    """As any spreadsheet may split it: at commas, at semicolons, at line ends whether quoted or not."""
    rows = list(csv.reader(io.StringIO(text)))
    for cells in (*rows, *csv.reader(text.splitlines(), delimiter=";", quoting=csv.QUOTE_NONE)):
        for cell in cells:
            numbers = re.fullmatch(r"[+-]?[\d.]+((, | to )[+-]?[\d.]+)*", cell.split('"')[0].split(",")[0])
            assert numbers or not cell.startswith(SIGNS), cell
    assert len({len(row) for row in rows}) == 1
    assert not any(category in text for category in ("\x00", "\x1b", "\u202e", "\ud800"))


def check_latex(text: str) -> None:
    """Comments, then rows of as many cells that end, with braces in pairs and no command but ours."""
    known = {"begin", "end", "toprule", "midrule", "bottomrule", "textbf", "underline", "textbackslash"}
    known |= {"textasciitilde", "textasciicircum"}
    lines = [line for line in text.splitlines() if line and not line.startswith("% ")]
    for line in lines:
        bare = re.sub(r"\\[&%$#_{}]|\\\\$", "", line)
        assert set(re.findall(r"\\([a-zA-Z]+|.)", bare)) <= known
        assert bare.count("{") == bare.count("}")
        assert not line.startswith(("[", "*"))
        assert not re.search(r"[%#_^~]", bare)
        assert bare.replace("$<$", "").replace("$>$", "").replace("$-$", "").count("$") == 0
    widths = {len(re.findall(r"(?<!\\)&", line)) for line in lines if line.endswith(r"\\")}
    assert len(widths) == 1


def test_nothing_runs_in_the_page(page_text: str, parse: Callable[[str], Any]) -> None:
    found = parse(page_text)
    assert [tag.get("type") for tag in found.all("script")] == [None]
    for tag, attributes in found.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form", "link"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href"):
                assert re.match(r"#|data:(image|text/csv|application/x-tex)", str(value)), value
    assert not any(mark in page_text for mark in ("\u202e", "\u2066", "\x1b", "\ud800"))


def test_every_name_stands_in_the_page(page_text: str, parse: Callable[[str], Any]) -> None:
    found = parse(page_text)
    rows = found.table("Every patient")
    shown = [" ".join(row[0].split()) for row in rows[1:]]
    assert sorted(shown) == sorted(one_line(NAMES[f"p{number}"]) for number in range(5))
    for name in ("RV", "LV", "ccdc", "Dataset027_ACDC"):
        assert one_line(NAMES[name]) in found.text


def test_the_downloads_of_the_page(page_text: str, parse: Callable[[str], Any]) -> None:
    files = [tag for tag in parse(page_text).all("a") if tag.get("class") == "download"]
    for tag in files:
        assert re.fullmatch(r"[a-z0-9_-]+\.(csv|tex)", str(tag["download"]))
        text = unquote(str(tag["href"]).partition(",")[2])
        (check_csv if str(tag["download"]).endswith("csv") else check_latex)(text)
    assert len(files) > 10


def test_what_compare_writes_and_prints(hostile: list[Path], tmp_path: Path) -> None:
    result = compare_runs(hostile)
    paths = {path.suffix: path.read_text() for path in write_comparison(result, tmp_path / "all")}
    for table in paths[".csv"].split("\n\n"):
        check_csv(table)
    for table in paths[".tex"].split("\n\n"):
        check_latex(table)
    for line in paths[".md"].splitlines():
        assert not re.search(r"(?<!\\)<[a-zA-Z/!]|\]\((?<!\\\()", line), line
    console = Console(record=True, file=io.StringIO(), width=200)
    for grid in result.grids(abbreviate=False):
        console.print(to_screen(grid, 200))
    summary = summary_grid([(NAMES["ccdc"], read_evaluation(hostile[0] / "evaluation.json"))])
    for width in (200, 20):
        console.print(to_screen(summary, width))
    shown = console.export_text()
    assert "[bold]" in shown
    assert "\x1b[31m" not in shown
    assert "\u202e" not in shown
