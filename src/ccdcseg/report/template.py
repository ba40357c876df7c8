"""Filling the templates of our pages: everything visible and escaped, only our own script may run."""

import base64
import hashlib
import io
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

import ccdcseg
from ccdcseg.errors import UserError
from ccdcseg.files import check_beside, check_file
from ccdcseg.texts import visible

SYNTHETIC = "Synthetic images made by a program. These numbers say nothing about patients."

PATIENTS = "This page holds images and names of patients: share it as you would share their scans."

SUFFIXES = (".html", ".htm")
_TITLES = {"check": "Check of ", "review": "Review of ", "next": "What to annotate next in "}


def check_page(page: Path, command: str) -> None:
    """Find out before the work whether a page may be written: its place is free, or holds one of the same command.

    Args:
        page: to be written.
        command: "check", "next", "report", which `reproduce` writes too, or "review".

    Raises:
        OSError, UserError: see `check_file` and `check_beside`; or its name is not that of a page.
    """
    if page.suffix.lower() not in SUFFIXES:
        raise UserError(f"The name of the page {page} does not end in .html.", f"Name it {command}.html.")
    check_file(page)
    check_beside(page, f'<meta name="generator" content="ccdcseg {command}">', *_marks_of_before(command))


def _marks_of_before(command: str) -> list[str]:
    """What the heads of pages had that name no command: our policy before their title, or no more than that."""
    if title := _TITLES.get(command):
        return [f"'\">\n<title>{synthetic}{title}" for synthetic in ("", "[synthetic] ")]
    return [
        'initial-scale=1">\n<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src '
    ]


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
            command="report" if name == "page.html.j2" else name.removesuffix(".html.j2"),
            **context,
        )
    )


@cache
def _environment() -> Environment:
    """Kept with the templates it has compiled.

    The filter ``exact`` keeps what is not seen, for attributes that scripts hand on and nobody reads; ``sized``
    makes the attributes of an image of its data URI.
    """
    environment = Environment(
        loader=PackageLoader("ccdcseg", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["exact"] = lambda text: escape(text.encode(errors="replace").decode())
    environment.filters["sized"] = _sized
    return environment


def _sized(uri: str) -> Markup:
    """Source and size: where a page knows that, nothing moves once an image is loaded, and links lead to theirs."""
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return Markup('src="{}" width="{}" height="{}"').format(uri, *picture.size)


def _source(script: str) -> str:
    """The script's name in a content security policy."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
