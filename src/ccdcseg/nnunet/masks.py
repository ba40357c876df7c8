"""Predicted labels as files, written whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from numpy.typing import NDArray

from ccdcseg.datasets.volumes import read_mask
from ccdcseg.errors import UserError
from ccdcseg.files import explain_failure, keep_rights, making, scratch_folder
from ccdcseg.nnunet.segmentation import Segmentation
from ccdcseg.provenance import Stamp, write_origin

SCRATCH = ".partial."
"""Begin of the names of hidden folders that predictions are written into before they are moved to their place."""


def write_mask(predictor: Any, found: Segmentation, labels: NDArray[Any], target: Path, now: Stamp) -> None:
    """Write labels of a scan on all of its voxels, and what they are made from."""
    with making(target.parent), scratch_folder(target.parent, SCRATCH) as scratch:
        file = scratch / target.name
        write_whole(labels, found.properties, predictor.plans_manager, file)
        _check_written(file, _written_values(predictor.dataset_json), target)
        _put(file, target, now)


def _written_values(dataset: Mapping[str, Any]) -> dict[str, int]:
    """Values that a prediction may hold, by name; of regions, which may overlap, those that they are written as."""
    values = dataset.get("regions_class_order") or np.hstack([*dataset["labels"].values()]).tolist()
    return {str(value): value for value in values}


def write_whole(labels: NDArray[Any], properties: dict[str, Any], plans: Any, file: Path) -> None:
    """Write labels on all voxels of their scan, by nnU-Net's writer.

    Args:
        labels: (Z, Y, X) class values within the box that holds more than zeros, axes as the plans order them.
        properties: of the scan, from nnU-Net's reader and preprocessor.
        plans: nnU-Net's manager of the plans.
        file: to write.
    """
    kind = np.uint8 if labels.max() < 255 else np.uint16
    whole = insert_crop_into_image(
        np.zeros(properties["shape_before_cropping"], kind),
        labels.astype(kind),
        properties["bbox_used_for_cropping"],
    )
    plans.image_reader_writer_class().write_seg(
        whole.transpose(plans.transpose_backward), str(file), properties
    )


def _put(made: Path, target: Path, now: Stamp) -> None:
    """Move a prediction into place. Killed in between, it is not there, and never there without its origin."""
    keep_rights(made, target)
    target.unlink(missing_ok=True)
    write_origin(target, now, made)
    made.replace(target)


def _check_written(path: Path, labels: Mapping[str, int], target: Path) -> None:
    """Read a prediction back: on a full disk ITK cuts the file short and reports success.

    Args:
        path: of the file.
        labels: that it may hold.
        target: where it is to go.

    Raises:
        OSError: the file is not whole, and neither would a file of ours be.
        UserError: the file is not whole, for no known reason.
    """
    try:
        read_mask(path, labels)
    except UserError as error:
        explain_failure(target)
        raise UserError(
            f"The prediction {path.name} could not be written whole to {target.parent}.",
            "Check that disk and run the command again; finished cases are kept.",
        ) from error
