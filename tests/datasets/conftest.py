from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.sr.coding import Code

from ccdcseg.datasets.volumes import Volume, write_volume

AXIAL = np.eye(3)[:2]


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


@pytest.fixture(scope="session")
def write_slices() -> Callable[..., list[Path]]:
    """A volume as DICOM slices as CHAOS has them: 12 bits, names from the top down, a series for each slice.

    Headers are made up, SliceThickness among them, which must not be used. Whatever the pixels are, nobody's
    name or date goes in.
    """

    def write(
        folder: Path,
        array: np.ndarray,
        spacing_mm: tuple[float, float, float] = (7.7, 1.5, 1.25),
        origin_mm: tuple[float, float, float] = (-100.0, -80.0, 30.0),
        axes: np.ndarray = AXIAL,
        first: int = 1,
        step: int = 1,
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        normal, paths = np.cross(*axes), []
        for index in reversed(range(len(array))):
            position = np.array(origin_mm) + index * spacing_mm[0] * normal
            dataset = dicom_slice(array[index], position, axes, spacing_mm[1:])
            paths.append(folder / f"IMG-0004-{first + step * len(paths):05d}.dcm")
            dataset.save_as(paths[-1], enforce_file_format=True)
        return paths

    return write


def dicom_slice(
    pixels: np.ndarray, position_mm: np.ndarray, axes: np.ndarray, spacing_mm: tuple[float, ...]
) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.SeriesInstanceUID = pydicom.uid.generate_uid()
    dataset.PatientName = "Made^Up"
    dataset.SliceThickness = 5.5
    dataset.PixelSpacing = [f"{step:.6g}" for step in spacing_mm]
    dataset.ImagePositionPatient = [f"{x:.8g}" for x in position_mm]
    dataset.ImageOrientationPatient = [f"{x:.9g}" for x in axes.ravel()]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    return dataset


@pytest.fixture(scope="session")
def write_masks() -> Callable[..., list[Path]]:
    """Label slices as CHAOS has them: 8-bit PNG, names from the top down."""

    def write(folder: Path, labels: np.ndarray, grey: Sequence[int] = (0, 63, 126, 189, 252)) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"IMG-0004-{index:05d}.png" for index in range(1, len(labels) + 1)]
        for path, mask in zip(paths, labels[::-1], strict=True):
            Image.fromarray(np.array(grey, np.uint8)[mask]).save(path)
        return paths

    return write


@pytest.fixture(scope="session")
def write_segmentation() -> Callable[..., Path]:
    """A DICOM segmentation of slices that lie in files; frames without foreground are left out, as is usual."""

    def write(
        path: Path, slices: Sequence[Path], mask: np.ndarray, names: Sequence[str], **options: Any
    ) -> Path:
        sources = [pydicom.dcmread(one) for one in slices]
        study, place = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
        series = pydicom.uid.generate_uid()
        for number, source in enumerate(sources, start=1):
            for keyword in (
                "PatientID",
                "PatientBirthDate",
                "PatientSex",
                "StudyDate",
                "StudyTime",
                "StudyID",
            ):
                setattr(source, keyword, "")
            source.AccessionNumber, source.Modality, source.InstanceNumber = "", "MR", number
            source.StudyInstanceUID, source.FrameOfReferenceUID = study, place
            source.SeriesInstanceUID, source.SeriesNumber = series, 1
            source.file_meta.MediaStorageSOPClassUID = source.SOPClassUID
        code = Code("123037004", "SCT", "Anatomical Structure")
        segments = [
            highdicom.seg.SegmentDescription(number, name, code, code, "MANUAL")
            for number, name in enumerate(names, start=1)
        ]
        segmentation = highdicom.seg.Segmentation(
            sources,
            mask,
            options.pop("kind", "BINARY"),
            segments,
            pydicom.uid.generate_uid(),
            2,
            pydicom.uid.generate_uid(),
            1,
            "made up",
            "made up",
            "1",
            "1",
            **options,
        )
        segmentation.save_as(path)
        return path

    return write
