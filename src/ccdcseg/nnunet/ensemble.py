"""What trained networks say of scans, kept on disk as long as scans and networks are what they were."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccdcseg.datasets.usable import check_scan
from ccdcseg.devices import usable_device
from ccdcseg.errors import UserError
from ccdcseg.files import write_bytes
from ccdcseg.nnunet.checkpoints import FINAL
from ccdcseg.nnunet.current import prediction_sources
from ccdcseg.nnunet.models import build_predictor, check_fits, turning_reader
from ccdcseg.nnunet.segmentation import scan_probabilities
from ccdcseg.provenance import Sources, forget_origin, origin_file, read_origin, stamp, write_origin


class Ensemble:
    """Networks that speak by the mean of their probabilities.

    Args:
        folders: ``fold_N`` of trained models with the same classes; see `check_axes`.
        device: "cpu", "cuda", "mps" or "auto".
    """

    def __init__(self, folders: Sequence[Path], device: str) -> None:
        self.folders = sorted(folders)
        self.device = device

    def keep(
        self, images: Sequence[Path], target: Path, content: Callable[[NDArray[np.float32]], bytes]
    ) -> bytes:
        """Write what is made of a scan's probabilities, unless it is there, made from the same scan and networks.

        Other networks may be asked at the same time, and write the same file: what is told is of these alone.

        Args:
            images: one a channel.
            target: the file.
            content: of it, by the probabilities (C, Z, Y, X), the background first.

        Returns:
            The file's content.

        Raises:
            UserError: the scan cannot be used, or a checkpoint is missing.
        """
        sources = prediction_sources(self.folders, images, {})
        if (kept := _kept(target, sources)) is not None:
            return kept
        now = stamp(sources)
        check_scan(images)
        forget_origin(target)
        made = content(scan_probabilities(self._predictors, images))
        write_bytes(target, made)
        write_origin(target, now, made)
        return made

    @cached_property
    def _predictors(self) -> list[Any]:
        return [build_predictor(folder, usable_device(self.device)) for folder in self.folders]


def _kept(target: Path, sources: Sources) -> bytes | None:
    """The content of a file that would be made the same today; None, too, where another user closed it to us."""
    try:
        for file in (target, origin_file(target)):
            file.open("rb").close()
    except OSError:
        return None
    origin = read_origin(target, sources)
    return target.read_bytes() if origin is not None and origin.current else None


def check_run(run: Path, raw_folder: Path) -> None:
    """Refuse a run that cannot be asked about a data set's scans.

    Raises:
        UserError: it is not finished; or as `check_fits` and `check_axes`.
    """
    if not (run / FINAL).exists():
        raise UserError(f"{run} is no finished training: it has no {FINAL}.", "Name a run's folder, fold_N.")
    check_fits(run, raw_folder)
    check_axes(run)


def check_axes(run: Path) -> None:
    """Refuse a run whose probabilities do not lie on the voxels of a scan's file.

    Raises:
        UserError: it has a `turning_reader`.
    """
    if reader := turning_reader(run):
        raise UserError(
            f"{run} was trained with {reader}, which turns scans: its probabilities are in other axes.",
            "Name a run whose plans.json has another image_reader_writer, as all that are trained today have.",
        )
