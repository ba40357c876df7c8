"""All commands as one program: how it starts, how it ends, and how it speaks of mistakes."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from ccdcseg import __version__
from ccdcseg.errors import UserError, exhausted, system_error
from ccdcseg.files import check_name
from ccdcseg.interrupts import terminated_as_interrupted
from ccdcseg.streams import settle_streams, warnings_shown

_F = TypeVar("_F", bound=Callable[..., Any])


def _interrupted() -> UserError:
    return UserError("Interrupted.", "Nothing half-made was left; run the same command again.")


class _Command(TyperCommand):
    """A command. An option of one value that is given twice is refused; typer would drop the first.

    An empty one is, too, such as of a variable that is not set: as a path it would be the current folder.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, but for such options."""
        values, _, given = self.make_parser(ctx).parse_args(args=[*args])
        twice = [option for option in given if given.count(option) > 1 and not option.multiple]
        if twice and not ctx.resilient_parsing:
            help_text = str(getattr(twice[0], "help", "")).rstrip(".")
            raise UserError(f"{twice[0].opts[0]} is given twice.", f"Give it once: {help_text}.")
        empty = [
            option.opts[0]
            for option in given
            if option.opts[0].startswith("-") and "" in _words(values, option)
        ]
        if empty and not ctx.resilient_parsing:
            raise UserError(f"{empty[0]} is empty.", "Give it a value, or leave it out.")
        return super().parse_args(ctx, args)


class Commands(typer.Typer):
    """Commands that read their words as `_Command` does."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_F], _F]:
        """As typer's."""
        return super().command(name, cls=_Command, **settings)


def _words(values: Mapping[str, Any], option: Any) -> list[Any]:
    """What was given of an option: one value, or several of one that can be repeated."""
    return [*values[option.name]] if option.multiple else [values[option.name]]


class _Commands(TyperGroup):
    """All commands. An interrupt is told in our words; left to typer it would end without one."""

    def invoke(self, ctx: Any) -> Any:
        """As typer does, but for an interrupt."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _interrupted() from error


app = Commands(
    cls=_Commands,
    help="Segmentation with few labels: CCDC in nnU-Net, from raw scans to measured results.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

DATA, RUNS, EXPERIMENTS, PROGRAM = "Scans", "Trainings", "Experiments", "This program"
"""Headings under which ``ccdcseg --help`` lists the commands."""

_USAGE: Any = typer.BadParameter.__base__
"""What typer raises at words that it does not understand; it has no public name in all versions."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ccdcseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    os.environ["PYTHONSAFEPATH"] = "1"  # worker processes take no module from the current folder
    os.environ["MPLBACKEND"] = "agg"  # into files; what Jupyter names may not be installed here
    settle_streams()
    try:
        _check_current_folder()
        for word in sys.argv[1:]:
            check_name(Path(word))
        with warnings_shown(), terminated_as_interrupted():
            code = app(prog_name="ccdcseg", standalone_mode=False)
    except KeyboardInterrupt:  # before the command began, or after it ended
        _fail(str(_interrupted()))
    except UserError as error:
        _fail(str(error))
    except typer.Abort:
        _fail("Not confirmed; nothing was done.")
    except _USAGE as error:
        _fail(_usage(error))
    except OSError as error:
        _fail(str(system_error(error)))
    except (MemoryError, RuntimeError) as error:
        if not (told := exhausted(error)):
            raise
        _fail(str(told))
    sys.exit(code or 0)


def _check_current_folder() -> None:
    """Refuse one that is gone: libraries would end the process without saying so."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UserError(
            "The current folder does not exist any more: it was removed, or made anew.",
            "Go to another one, or into this one again.",
        ) from error


def _usage(error: Any) -> str:
    """What is wrong with the words of a command, and where its help is."""
    problem = " ".join(error.format_message().split())
    if not problem:
        sys.exit(2)  # there were no words, and the help has been printed
    return f"{problem.rstrip('.')}. See {error.ctx.command_path if error.ctx else 'ccdcseg'} --help."


def _fail(message: str) -> None:
    typer.echo(f"ccdcseg: {message}", err=True)
    sys.exit(2)
