"""Planning by nnU-Net, but for scans of one slice."""

import os
from collections.abc import Container
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner

from ccdcseg.datasets.usable import READER, READER_KEY
from ccdcseg.datasets.volumes import slice_axis
from ccdcseg.processes import foreign_pools


class ExperimentPlanner(default_experiment_planner.ExperimentPlanner):  # type: ignore[misc]
    """Plans as nnU-Net's own of that name, and says so, but slices scans of one slice across that slice.

    nnU-Net slices across the largest spacing alone: images of 1.5 mm pixels that state a thickness of 1 mm become
    lines one pixel high.
    """

    def determine_transpose(self) -> tuple[list[int], list[int]]:
        """Order of the axes for training, that across the slices first, and the way back."""
        shape = np.median(self.dataset_fingerprint["shapes_after_crop"], axis=0)
        across = slice_axis(shape, self.determine_fullres_target_spacing())
        forward = [across, *(axis for axis in range(3) if axis != across)]
        return forward, [forward.index(axis) for axis in range(3)]


def plan(dataset: str, cases: Container[str], processes: int) -> None:
    """Write nnU-Net's fingerprint and plans of a data set into its preprocessed folder.

    Args:
        dataset: name of the data set's folder; nnU-Net's own commands look for its number alone, and fail where an
            old folder has the same one.
        cases: to read; others in the folder play no part.
        processes: that read the scans.
    """
    with patch.dict(os.environ, nnUNet_n_proc_DA="1"):  # by which the planner sets torch's threads: 0 fails
        extractor = DatasetFingerprintExtractor(dataset, processes)
        extractor.dataset = {case: files for case, files in extractor.dataset.items() if case in cases}
        # nnU-Net takes null, as some tools write for none, for a name.
        extractor.dataset_json[READER_KEY] = READER
        with foreign_pools(processes):
            extractor.run(overwrite_existing=True)
        with _splits_unread():
            planner = ExperimentPlanner(dataset)
        planner.dataset_json[READER_KEY] = READER
        planner.plan_experiment()


def _splits_unread() -> AbstractContextManager[Any]:
    """Let the planner be made beside splits of before: it breaks off where those of today are others.

    `ccdcseg.nnunet.plans.store_plans` renews that copy after the planning.
    """
    return patch.object(default_experiment_planner, "_maybe_copy_splits_file", lambda *_: None)
