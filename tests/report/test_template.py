import base64
import hashlib
import re

import pytest
from jinja2 import UndefinedError

from ccdcseg import __version__
from ccdcseg.report.template import render


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


def test_what_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("check.html.j2", {})
