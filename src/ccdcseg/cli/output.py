"""What several commands say, and ask."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ccdcseg.cli.options import Device
from ccdcseg.errors import UserError, system_error
from ccdcseg.files import check_writable, scratch_folder

if TYPE_CHECKING:
    from ccdcseg.tabular import Grid


MANY_PATIENTS = 40
"""With fewer than these a tenth of the patients would be too few to train on."""


def chosen_device(device: Device) -> str:
    """The device that computes; what was found is said."""
    from ccdcseg.devices import usable_device

    chosen = usable_device(device.value)
    if device is Device.AUTO:
        typer.echo(f"Device: {chosen}", err=True)
    return chosen


def confirm_long(seconds: float, what: str, yes: bool) -> None:
    """Let a long training on a CPU be confirmed, by option or on the terminal."""
    from ccdcseg.nnunet.duration import LONG_SECONDS, duration_text

    if seconds <= LONG_SECONDS:
        return
    warning = f"{what} takes roughly {duration_text(seconds)} on this CPU."
    if yes:
        typer.echo(warning, err=True)
    elif not (sys.stdin.isatty() and typer.confirm(f"{warning} Go on?", err=True)):
        raise UserError(warning, "Confirm it with --yes, take a preset such as cpu, or a machine with a GPU.")


def show(grid: "Grid") -> None:
    """Print a table as wide as the terminal."""
    from rich.console import Console

    from ccdcseg.tabular import to_screen

    console = Console()
    console.print(to_screen(grid, console.width))


def say_next_split(dataset: int | str, folder: Path, unlabelled: Path | None) -> None:
    """Say how the annotated patients of a data set are split next: a tenth of many, half of few.

    All of them train where there is one, or where masks are annotated in part, on which nobody can be tested.
    """
    from ccdcseg.datasets.cases import read_cases, read_ignore_label

    patients = len({case.patient for case in read_cases(folder)})
    everybody = patients == 1 or read_ignore_label(folder) is not None
    fraction = 1 if everybody else 0.5 if patients < MANY_PATIENTS else 0.1
    more = f" --unlabelled {shlex.quote(str(unlabelled))}" if unlabelled else ""
    typer.echo(f"Next:    ccdcseg split {dataset} --fraction {fraction} --seed 0{more}")


def say_report(page: Path) -> None:
    """Say where a page is, and what it lacks."""
    from ccdcseg.report.viewer import NO_VIEWER, niivue_script

    typer.echo(f"Report: {page}")
    if niivue_script() is None:
        typer.echo(f"Note:   {NO_VIEWER}")


@contextmanager
def cache_folder(folder: Path) -> Iterator[Path]:
    """A folder for what is measured; where it cannot be written to, one that goes again."""
    try:
        check_writable(folder)
    except OSError as error:
        typer.echo(f"Nothing is kept for the next time: {system_error(error).problem}", err=True)
        with scratch_folder() as other:
            yield other
    else:
        yield folder
