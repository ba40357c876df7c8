"""Commands about the program itself."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ccdcseg.cli.app import PROGRAM, app
from ccdcseg.cli.output import say_report
from ccdcseg.files import absolute, locked
from ccdcseg.methods import METHODS
from ccdcseg.progress import progress_bars


class DemoData(StrEnum):
    """On what the demonstration runs."""

    PHANTOM = "phantom"
    ACDC = "acdc"


@app.command(rich_help_panel=PROGRAM)
def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Everything that is known, as JSON.")] = False,
) -> None:
    """What can be trained, and where each method comes from."""
    if as_json:
        typer.echo(json.dumps([asdict(m) | {"settings": m.settings} for m in METHODS.values()], indent=2))
        return
    for method in METHODS.values():
        typer.echo(f"{method.name}: {method.trainer}\n    {method.source}\n    deviation: {method.deviation}")


@app.command(rich_help_panel=PROGRAM)
def trainers() -> None:
    """Folder for nnU-Net's variable nnUNet_extTrainer: export nnUNet_extTrainer="$(ccdcseg trainers)"."""
    typer.echo(Path(__file__).parents[1] / "nnunet" / "discovery")


@app.command(rich_help_panel=PROGRAM)
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo"),
    data: Annotated[
        DemoData, typer.Option(help="The synthetic phantom, or real ACDC scans in $CCDCSEG_DATA.")
    ] = DemoData.PHANTOM,
) -> None:
    """The whole path on a synthetic cardiac phantom (or real ACDC scans), from raw release to report."""
    from ccdcseg.demo import run_demo

    with locked(absolute(folder), "demo"), progress_bars() as report:
        page = run_demo(absolute(folder), data, report)
    say_report(page)
