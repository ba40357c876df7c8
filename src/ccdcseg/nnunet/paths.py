"""nnU-Net's folders, as its users know them."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

from ccdcseg.errors import UserError
from ccdcseg.files import absolute, check_name, real

_RAW = "nnUNet_raw"


def check_environment() -> None:
    """Refuse numbers of processes that nnU-Net would stumble over as soon as it is imported.

    Raises:
        UserError: a variable is there that is no whole number, or too small.
    """
    for variable, least in (("nnUNet_n_proc_DA", 0), ("nnUNet_def_n_proc", 1)):
        value = os.environ.get(variable, "1")
        if not (value.isdecimal() and int(value) >= least):
            raise UserError(
                f"The environment variable {variable} is {value!r}.",
                f"Set it to a number from {least} on, or unset it.",
            )


def check_logger() -> None:
    """Refuse what nnU-Net would stumble over where a training begins to keep its log.

    Raises:
        UserError: the variable that turns on Weights & Biases has a word that nnU-Net does not know, or turns it on
            where it is not installed.
    """
    variable, off, on = "nnUNet_wandb_enabled", ("0", "False", "false"), ("1", "True", "true")
    value = os.environ.get(variable, "0")
    if value in on and find_spec("wandb") is None:
        raise UserError(
            f"The environment variable {variable} is {value!r}, and wandb is not installed.",
            "Install it (pip install wandb), or unset the variable.",
        )
    if value not in (*off, *on):
        raise UserError(
            f"The environment variable {variable} is {value!r}.", "Set it to 0 or 1, or unset it."
        )


def nnunet_folder(variable: str) -> Path:
    """The folder that nnU-Net's environment variable names, ``~`` and ``$HOME`` expanded, for nnU-Net as well.

    Args:
        variable: ``nnUNet_raw``, ``nnUNet_preprocessed`` or ``nnUNet_results``.

    Raises:
        UserError: the variable is not set, is no path, or names the raw folder for the preprocessed one; or as
            `check_environment`.
    """
    check_environment()
    value = os.environ.get(variable)
    if not value:
        raise UserError(
            f"The environment variable {variable} is not set.",
            f"Set it to a folder, for instance: export {variable}=$HOME/{variable}",
        )
    folder = absolute(Path(_expanded(variable, value)))
    check_name(folder)
    if variable == "nnUNet_preprocessed":
        _check_apart(folder)
    os.environ[variable] = str(folder)
    return folder


def _check_apart(preprocessed: Path) -> None:
    """Refuse the folder of the raw data sets, where nnU-Net would write beside their files, some over them."""
    raw = os.environ.get(_RAW)
    if raw and real(Path(_expanded(_RAW, raw))) == real(preprocessed):
        raise UserError(
            f"nnUNet_preprocessed and nnUNet_raw are one folder, {preprocessed}.",
            "Set nnUNet_preprocessed to a folder of its own.",
        )


def folders_set() -> list[Path]:
    """Those of nnU-Net's three folders whose variables are set."""
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    return [nnunet_folder(name) for name in names if os.environ.get(name)]


def _expanded(variable: str, value: str) -> str:
    """Do what the shell would have done, had the value not been in quotes or in a file of variables."""
    if value != value.strip() or value[0] in "'\"":
        raise UserError(
            f"{variable} is {value!r}: the quotes or spaces are part of it.", "Write the path without them."
        )
    try:
        expanded = os.path.expandvars(str(Path(value).expanduser()))
    except RuntimeError as error:
        raise UserError(f"{variable} is {value}, a home that is not there.", "Write the path out.") from error
    if re.search(r"\$(\w|{)", expanded):
        raise UserError(f"{variable} is {value}, with a variable that is not set.", "Write the path out.")
    return expanded
