"""nnU-Net's folders, as its users know them."""

import os
from pathlib import Path

from ccdcseg.errors import UserError


def nnunet_folder(variable: str) -> Path:
    """The folder that nnU-Net's environment variable names.

    Args:
        variable: ``nnUNet_raw``, ``nnUNet_preprocessed`` or ``nnUNet_results``.

    Raises:
        UserError: the variable is not set.
    """
    value = os.environ.get(variable)
    if not value:
        raise UserError(
            f"The environment variable {variable} is not set.",
            f"Set it to a folder, for instance: export {variable}=$HOME/{variable}",
        )
    return Path(value).expanduser().absolute()
