import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ccdcseg.datasets.volumes import Volume, write_volume


@pytest.fixture(scope="session")
def real_data() -> Path:
    place = os.environ.get("CCDCSEG_DATA")
    if place is None:
        pytest.skip("CCDCSEG_DATA is not set: no real scans")
    return Path(place)


@pytest.fixture
def write_patient() -> Callable[..., Path]:
    """A patient in ACDC's layout, a few voxels large."""

    def write(training: Path, number: int, group: str = "NOR") -> Path:
        folder = training / f"patient{number:03d}"
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text(f"ED: 1\nES: 12\nGroup: {group}\nHeight: 170.0\nNbFrame: 30\n")
        mask = np.zeros((3, 8, 9), np.uint8)
        mask[:, 1, 1:3], mask[:, 2, 1:4], mask[:, 3, 1:5] = 1, 2, 3
        for frame in (1, 12):
            image = np.random.default_rng([number, frame]).integers(0, 500, (3, 8, 9)).astype(np.int16)
            for name, array in ((f"frame{frame:02d}", image), (f"frame{frame:02d}_gt", mask)):
                path = folder / f"{folder.name}_{name}.nii.gz"
                write_volume(path, Volume(path, array, (10.0, 1.5, 1.4)))
        return folder

    return write


@pytest.fixture
def release(tmp_path: Path, write_patient: Callable[..., Path]) -> Path:
    """Ten patients in ACDC's layout, two a group."""
    source = tmp_path / "release"
    for number, group in enumerate(["DCM", "HCM", "MINF", "NOR", "RV"] * 2, start=1):
        write_patient(source / "training", number, group)
    return source
