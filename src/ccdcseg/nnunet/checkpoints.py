"""Checkpoints that stock nnU-Net can predict with, written atomically and read without running code."""

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ccdcseg.errors import UserError, exhausted, system_error
from ccdcseg.files import writing
from ccdcseg.runs.record import BEGUN_FILE, RUN_FILE

FINAL = "checkpoint_final.pth"
"""nnU-Net's name of the last checkpoint of a training that came to its end."""
STOCK_TRAINER = "nnUNetTrainer"
"""Written as the trainer's name, so that ``nnUNetv2_predict`` finds a class that builds the same network."""

OWN_KEY = "ccdcseg"
"""Key of what only ccdcseg reads: the true trainer's name and the state of the contrastive term."""


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically."""
    with writing(path) as handle:  # a full disk is an OSError this way, which names itself
        torch.save(checkpoint, handle)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net or ours, onto the CPU, allowing tensors and plain values only.

    Raises:
        UserError: the file is missing, damaged, cannot be read, or holds anything that could run code.
    """
    allowed: list[Any] = [
        *_numpy_makers(),
        np.ndarray,
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Float32DType,
        np.dtypes.Int64DType,
        codecs.encode,  # pickles of numpy bytes name it
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist.",
            f"Copy it from where it was trained; or move {path.parent} out of nnUNet_results and train again.",
        ) from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is damaged or holds more than tensors and numbers, and could run code when loaded.",
            _anew(path.parent) or "Use a checkpoint written by nnU-Net or ccdcseg.",
        ) from error
    except OSError as error:
        raise system_error(error, path) from error
    except (RuntimeError, EOFError) as error:
        raise exhausted(error) or UserError(
            f"{path} cannot be read: it is damaged or cut short.", _anew(path.parent) or "Restore the file."
        ) from error
    if not isinstance(checkpoint, dict) or "network_weights" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of nnU-Net.", "Give the folder of a trained model.")
    return checkpoint


def _anew(folder: Path) -> str:
    """What to do about a damaged checkpoint of a training that was begun here and is not finished; else nothing."""
    begun = (folder / BEGUN_FILE).exists() and not (folder / RUN_FILE).exists()
    return "Remove it, then train again with --resume." if begun else ""


def _numpy_makers() -> list[tuple[Any, str]]:
    """NumPy's functions that make the scalars and arrays of nnU-Net's log, by the names of NumPy 2 and NumPy 1."""
    makers: list[Any] = [value.__reduce__()[0] for value in (np.float64(0), np.zeros(0))]
    return [(one, f"numpy.{core}.multiarray.{one.__name__}") for one in makers for core in ("_core", "core")]
