"""nnU-Net's folders, as its users know them."""

import os
from pathlib import Path

from ccdcseg.errors import UserError


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


def nnunet_folder(variable: str) -> Path:
    """The folder that nnU-Net's environment variable names.

    Args:
        variable: ``nnUNet_raw``, ``nnUNet_preprocessed`` or ``nnUNet_results``.

    Raises:
        UserError: the variable is not set; or as `check_environment`.
    """
    check_environment()
    value = os.environ.get(variable)
    if not value:
        raise UserError(
            f"The environment variable {variable} is not set.",
            f"Set it to a folder, for instance: export {variable}=$HOME/{variable}",
        )
    return Path(value).expanduser().absolute()
