"""The labels and probabilities that networks give a scan."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from numpy.typing import NDArray

from ccdcseg.errors import UserError
from ccdcseg.nnunet.memory import device_full, if_it_fits
from ccdcseg.nnunet.plans import check_size


@dataclass(frozen=True)
class Segmentation:
    """What a network says of a scan, on the scan's own voxels within the box that holds more than zeros.

    Attributes:
        labels: (Z, Y, X) class values, axes as the plans order them.
        probabilities: (C, Z, Y, X) of the classes, or None where they were not asked for.
        properties: of the scan, from nnU-Net's reader and preprocessor.
    """

    labels: NDArray[Any]
    probabilities: NDArray[Any] | None
    properties: dict[str, Any]


def segment(predictors: Sequence[Any], files: Sequence[Path], *, probabilities: bool) -> Segmentation:
    """Predict one scan with nnU-Net's predictors and its own steps; several by the mean of their probabilities.

    Args:
        predictors: see `build_predictor` and `check_alike`.
        files: images, one a channel.
        probabilities: whether they are wanted too.

    Raises:
        UserError: the reader of a network does not take the scan, or the device's memory does not suffice for it;
            or as `check_size`.
    """
    found = if_it_fits(lambda: _segment_together(predictors, files, probabilities=probabilities))
    if found is None:
        raise device_full(files[0], predictors[0].device)
    return found


def _segment_together(
    predictors: Sequence[Any], files: Sequence[Path], *, probabilities: bool
) -> Segmentation:
    first, *others = predictors
    found = _segment(first, files, probabilities=probabilities or bool(others))
    if not others:
        return found
    mean = np.asarray(found.probabilities, np.float32)
    for predictor in others:  # one at a time: those of a large scan fill the memory
        mean = mean + _in_axes_of(first, predictor, _segment(predictor, files, probabilities=True))
    mean /= len(predictors)
    manager = first.plans_manager.get_label_manager(first.dataset_json)
    return Segmentation(manager.convert_probabilities_to_segmentation(mean), mean, found.properties)


def _in_axes_of(first: Any, predictor: Any, found: Segmentation) -> NDArray[Any]:
    """Probabilities of one predictor, axes as the plans of another order them."""
    own = predictor.plans_manager.transpose_backward
    axes = [own[axis] for axis in first.plans_manager.transpose_forward]
    return np.asarray(found.probabilities).transpose(0, *(axis + 1 for axis in axes))


def _segment(predictor: Any, files: Sequence[Path], *, probabilities: bool) -> Segmentation:
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    with contextlib.redirect_stdout(StringIO()):  # nnU-Net's messages
        data, properties = _read(plans.image_reader_writer_class(), files)
        check_size(files[0], data, properties["spacing"], plans, configuration)
        data, _, properties = preprocessor.run_case_npy(
            data, None, properties, plans, configuration, predictor.dataset_json
        )
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    slices = [spacing[0]] if len(configuration.spacing) < len(shape) else []
    logits = configuration.resampling_fn_probabilities(
        logits, shape, [*slices, *configuration.spacing], spacing
    )
    manager = plans.get_label_manager(predictor.dataset_json)
    return Segmentation(
        np.asarray(manager.convert_logits_to_segmentation(logits)),
        np.asarray(manager.apply_inference_nonlin(logits)) if probabilities else None,
        properties,
    )


def _read(reader: Any, files: Sequence[Path]) -> tuple[NDArray[Any], dict[str, Any]]:
    """Read the images of a scan with the reader of the plans, which need not take all that `check_scan` does."""
    try:
        data, properties = reader.read_images([str(file) for file in files])
    except MemoryError:
        raise
    except Exception as error:  # each reader has a library of its own
        raise UserError(
            f"{files[0]} cannot be read by {type(reader).__name__}, which this network reads scans with ({error}).",
            "Write the images of that scan as gzipped 3-D NIfTI.",
        ) from error
    return data, properties


def scan_probabilities(predictors: Sequence[Any], images: Sequence[Path]) -> NDArray[np.float32]:
    """Probabilities of the classes on all voxels of a scan, as its file has them, (C, Z, Y, X).

    What lies outside the box that holds more than zeros is background.

    Args:
        predictors: see `segment`; none with a `turning_reader`.
        images: one a channel.
    """
    found = segment(predictors, images, probabilities=True)
    inside = np.asarray(found.probabilities)
    whole = np.zeros((len(inside), *found.properties["shape_before_cropping"]), np.float32)
    whole[0] = 1
    insert_crop_into_image(whole, inside, found.properties["bbox_used_for_cropping"])
    return whole.transpose(0, *(axis + 1 for axis in predictors[0].plans_manager.transpose_backward))
