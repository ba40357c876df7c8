"""Running nnU-Net's own code so that it neither chats nor leaves half a file behind."""

import contextlib
import json
from collections.abc import Iterator
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ccdcseg.files import write_text
from ccdcseg.processes import NoPool

_WRITERS = (
    "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor",
    "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner",
    "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
)
"""Modules that write fingerprint, plans and the JSON files of a training."""
_LISTER = "nnunetv2.utilities.utils"
"""Module that starts twelve processes to look for the names of a data set's files."""


@contextlib.contextmanager
def stock_nnunet() -> Iterator[None]:
    """Keep nnU-Net's messages off the screen, and let it write its JSON files atomically.

    Its log file in a run's folder has the messages. Killed while it writes, nnU-Net leaves half a file, which
    the next command takes for a whole one.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(StringIO()))
        stack.enter_context(contextlib.redirect_stderr(StringIO()))
        stack.enter_context(patch.object(import_module(_LISTER), "Pool", NoPool))
        for name in _WRITERS:
            stack.enter_context(patch.object(import_module(name), "save_json", _save_json))
        yield


def _save_json(content: Any, file: str, indent: int = 4, sort_keys: bool = True) -> None:
    """As the function of batchgenerators that nnU-Net calls, but atomically."""
    write_text(Path(file), json.dumps(content, sort_keys=sort_keys, indent=indent))
