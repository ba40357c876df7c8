import base64
import hashlib
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from ccdcseg import __version__
from ccdcseg.errors import UserError
from ccdcseg.report.template import check_page, render

OF_BEFORE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src 'sha256-iGKm/0NmZkYCHoqvwsxWMDrtDP7lWnr1umCqdVRnzcU=' 'sha256-O2Oel0M='">
<title>{}</title>
"""
TITLES = {
    "check": "Check of Heart",
    "next": "What to annotate next in Heart",
    "review": "Review of Heart",
    "report": "My runs",
}


def test_only_our_script_is_named_in_the_policy() -> None:
    context = {
        "dataset": "<b>",
        "synthetic": "",
        "verdict": "nothing",
        "problems": [],
        "groups": [],
        "summary": {
            "cases": 0,
            "patients": None,
            "slices": 0,
            "unlabelled": 0,
            "spacing_mm": None,
            "shape": None,
            "axes": {},
            "classes": {},
        },
        "channels": [],
        "labels": {},
        "colours": {},
        "pictures": [],
        "left_out": 0,
        "places": {},
        "rows": [],
        "range_text": lambda *_: "",
        "patients_note": "",
    }
    text = render("check.html.j2", context)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "Check of &lt;b&gt;" in text
    assert f"ccdcseg {__version__}" in text


@pytest.mark.parametrize("synthetic", ["", "[synthetic] "])
@pytest.mark.parametrize("command", TITLES)
def test_a_page_of_an_earlier_version_may_be_replaced_by_the_same_command(
    tmp_path: Path, command: str, synthetic: str
) -> None:
    page = tmp_path / "page.HTML"
    page.write_text(OF_BEFORE.format(synthetic + TITLES[command]))
    check_page(page, command)
    for other in TITLES.keys() - {command, "report"}:
        with pytest.raises(UserError, match=r"page\.HTML would be replaced"):
            check_page(page, other)


@pytest.mark.parametrize("command", TITLES)
def test_a_page_names_the_command_that_may_replace_it(tmp_path: Path, command: str) -> None:
    """That this is in what the commands write, tests of theirs say that run them twice."""
    page = tmp_path / "page.html"
    page.write_text(f'<meta name="generator" content="ccdcseg {command}">')
    check_page(page, command)
    for other in TITLES.keys() - {command}:
        with pytest.raises(UserError, match="would be replaced"):
            check_page(page, other)


@pytest.mark.parametrize("name", ["thesis.docx", "cases.csv", "page"])
def test_a_page_is_named_as_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} does not end in \.html"):
        check_page(tmp_path / name, "report")


def test_what_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("check.html.j2", {})
