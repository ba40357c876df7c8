"""Predicting with trained runs, through nnU-Net's own predictor."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ccdcseg.datasets.usable import check_scan
from ccdcseg.devices import usable_device
from ccdcseg.errors import UserError
from ccdcseg.files import check_opens, locked
from ccdcseg.nnunet.current import outdated_predictions, run_of
from ccdcseg.nnunet.masks import SCRATCH, write_mask
from ccdcseg.nnunet.models import build_predictor, class_values
from ccdcseg.nnunet.outputs import Output
from ccdcseg.nnunet.segmentation import segment
from ccdcseg.postprocessing import keep_pieces, removed_shares
from ccdcseg.provenance import Sources, stamp
from ccdcseg.texts import listed

logger = logging.getLogger(__name__)


MUCH = 0.1
"""Share of a class from which on it is said that post-processing removed it."""


def predict(
    folders: Sequence[Path],
    images: Mapping[str, Sequence[Path]],
    output: Output,
    device: str,
    progress: Callable[[int, int], None],
) -> None:
    """Predict cases that are not predicted yet.

    A prediction that is there is kept if it is this model's and its images are those of today. One of other images
    is made again; whatever else is in the way is refused.

    What every piece is kept of equals the output of ``nnUNetv2_predict`` bit for bit. Several networks speak by the
    mean of their probabilities, as in ``nnUNetv2_ensemble``. The folder of the output is held meanwhile, or the run
    that it lies in, as `ccdcseg.nnunet.train.train` does.

    Args:
        folders: ``fold_N`` of trained models; see `check_alike` of several.
        images: image files of each case, one a channel.
        output: where predictions are written, each atomically.
        device: "cpu", "cuda", "mps" or "auto"; see `usable_device`.
        progress: called with cases done and cases in all.

    Raises:
        UserError: the disk is full, another process works on the folder that is to be held, or a file is in the way
            that another model or somebody else made; or, once all others are predicted, a scan cannot be used (see
            `check_scan` and `check_size`).
        OSError: that folder cannot be written to; this is found out before anything is predicted.
    """
    device = usable_device(device)
    if not outdated_predictions(folders, images, output):
        return
    with locked(run_of(output.folder, folders) or output.folder, "predict"):
        for leftover in (path for place in output.folders for path in place.glob(f"{SCRATCH}*")):
            shutil.rmtree(leftover, ignore_errors=True)  # another user's stays, in nobody's way
        _predict(folders, images, output, device, progress)


def _predict(
    folders: Sequence[Path],
    images: Mapping[str, Sequence[Path]],
    output: Output,
    device: str,
    progress: Callable[[int, int], None],
) -> None:
    outdated, unusable = outdated_predictions(folders, images, output), dict[str, UserError]()
    again = [target for targets in outdated.values() for target in targets if target.exists()]
    if again:
        logger.warning(
            "%d predictions in the way are made again, since what they were made from has changed: %s.",
            len(again),
            again[0],
        )
    predictors, removed = [build_predictor(folder, device) for folder in folders], dict[str, list[str]]()
    for done, (case, targets) in enumerate(outdated.items(), len(images) - len(outdated)):
        progress(done, len(images))
        found = _predict_scan(predictors, images[case], targets, output)
        if isinstance(found, UserError):
            unusable[case] = found
        elif much := [f"{name} {share:.0%}" for name, share in found.items() if share >= MUCH]:
            removed[case] = much
    progress(len(images), len(images))
    if removed:
        _warn_of_removed(removed, len(outdated), output)
    if unusable:
        first, *others = unusable
        more = f" Neither can {listed(others)} be used." if others else ""
        rest = " All others are predicted." if len(unusable) < len(images) else ""
        raise UserError(f"{unusable[first].problem}{more}{rest}", unusable[first].remedy)


def _predict_scan(
    predictors: Sequence[Any], files: Sequence[Path], targets: Mapping[Path, Sources], output: Output
) -> dict[str, float] | UserError:
    """Predict and write one scan.

    Returns:
        Which share of each class post-processing removed; or why the scan cannot be used, without a traceback,
        which holds its voxels.
    """
    try:
        for file in files:
            check_opens(file)
        stamps = {target: stamp(sources) for target, sources in targets.items()}
        check_scan(files)
        found = segment(predictors, files, probabilities=bool(output.shares))
    except UserError as error:
        return UserError(error.problem, error.remedy)
    labels, removed = class_values(predictors[0].dataset_json), dict[str, float]()
    for target, now in stamps.items():
        shares = {} if target.parent == output.plain else output.shares
        kept = keep_pieces(found.labels, found.probabilities, labels, shares)
        removed |= removed_shares(found.labels, kept, labels)
        write_mask(predictors[0], found, kept, target, now)
    return removed


def _warn_of_removed(removed: Mapping[str, Sequence[str]], predicted: int, output: Output) -> None:
    """Say of which scans post-processing took much: islands, or a structure that no training mask is like."""
    logger.warning(
        "Post-processing removed a tenth or more of a class from %d of %d scans: %s. Look at them: %s.",
        len(removed),
        predicted,
        listed([f"{case} ({', '.join(much)})" for case, much in removed.items()]),
        f"{output.plain} has every piece" if output.plain else "--keep NAME=0 keeps every piece of a class",
    )
