"""Filling the templates of our pages: everything escaped, only our own script may run."""

import base64
import hashlib
from datetime import date
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import ccdcseg

SYNTHETIC = "Synthetic images made by a program. These numbers say nothing about patients."


def render(name: str, context: dict[str, Any]) -> str:
    """Fill the template ``name`` of this folder with ``context`` and what every page says about itself."""
    environment = Environment(
        loader=PackageLoader("ccdcseg", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = resources.files("ccdcseg.report").joinpath("page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(name).render(
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=f"sha256-{digest}",
        written=date.today().isoformat(),
        version=ccdcseg.__version__,
        **context,
    )
