"""nnU-Net's own copy of the splits of a data set, which its commands train by."""

import logging
import os
from pathlib import Path

from ccdcseg.datasets.splits import SPLITS_FILE, read_entries
from ccdcseg.errors import UserError
from ccdcseg.files import file_hash, locked, read_json
from ccdcseg.nnunet.paths import nnunet_folder
from ccdcseg.provenance import put_json, read_origin

OTHERS_FOLDS = (
    "To keep its folds, copy the data set under another number and use ccdcseg there. Where nobody needs them, "
    "move it away: the folds of nnUNetv2_train in this data set then are those of `ccdcseg split`."
)
"""What to do about folds that somebody else put where nnU-Net looks."""
_PLACE = "nnUNet_preprocessed"

logger = logging.getLogger(__name__)


def renew_copy(raw: Path) -> None:
    """Bring nnU-Net's copy of our splits, where there is one, to the state of today; a warning names another's.

    nnU-Net breaks off its planning where both files name other folds.

    Args:
        raw: the data set's folder in ``nnUNet_raw``.
    """
    if not os.environ.get(_PLACE):
        return
    preprocessed, splits = nnunet_folder(_PLACE) / raw.name, raw / SPLITS_FILE
    copy = preprocessed / SPLITS_FILE
    if not copy.exists() or file_hash(copy) == file_hash(splits):
        return
    if _is_ours(copy):
        with locked(preprocessed, "split", wait=True):
            put_json(copy, read_json(splits))
    else:
        logger.warning(
            "%s was not made by ccdcseg, or was changed since: beside %s nnU-Net does not plan this data set. %s",
            copy,
            splits,
            OTHERS_FOLDS,
        )


def _is_ours(copy: Path) -> bool:
    """Whether `ccdcseg train` made a copy that nobody changed, or somebody copied our file."""
    origin = read_origin(copy, {})
    if origin is not None:
        return origin.intact
    try:
        read_entries(copy)
    except UserError:
        return False
    return True
