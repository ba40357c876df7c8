"""Filling the templates of our pages: everything visible and escaped, only our own script may run."""

import base64
import hashlib
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import ccdcseg
from ccdcseg.texts import visible

SYNTHETIC = "Synthetic images made by a program. These numbers say nothing about patients."

PAGE_MARK = "content=\"default-src 'none'; img-src "
"""What stands in the head of every page of ours: see ``frame.html.j2``."""
PATIENTS = "This page holds images and names of patients: share it as you would share their scans."


def render(name: str, context: dict[str, Any], library: str = "") -> str:
    """Fill a template of this folder.

    Args:
        name: of the template.
        context: what it shows; what every page says about itself is added.
        library: a further script that may run: one of others, whose checksum was verified when it was fetched, or
            one of ours that this page alone has.
    """
    script = resources.files("ccdcseg.report").joinpath("page.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template(name)
        .render(
            script=Markup(script),  # noqa: S704 - our own file
            library=Markup(library),  # noqa: S704 - see above
            script_hashes=Markup(" ".join(_source(text) for text in (script, library) if text)),  # noqa: S704 - digests
            written=date.today().isoformat(),
            version=ccdcseg.__version__,
            **context,
        )
    )


@cache
def _environment() -> Environment:
    """Kept with the templates it has compiled."""
    return Environment(
        loader=PackageLoader("ccdcseg", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(script: str) -> str:
    """The script's name in a content security policy."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
