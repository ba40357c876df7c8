"""Scans that nobody annotated: which a folder holds, and whose they are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccdcseg.datasets.cases import (
    UNLABELLED_FILE,
    read_cases,
    read_channels,
    read_file_ending,
)
from ccdcseg.errors import UserError


@dataclass(frozen=True)
class UnlabelledFolder:
    """The scans without masks of a folder.

    Attributes:
        name: of the folder: relative to the data set's own where it lies in it, else absolute.
        patients: whose each scan is, by the scan's name; None where that is not known.
    """

    name: str
    patients: Mapping[str, str | None]

    def usable(self, patients: Mapping[str, Iterable[str]]) -> list[str]:
        """Names of the scans that may take part in a split: those of patients who are not measured in it.

        Args:
            patients: of the split, by part; see `Split.patients`.

        Raises:
            UserError: no scan is left, or patients are measured and nobody knows whose a scan is.
        """
        measured = set(patients["test"]) | set(patients["validation"])
        unknown = [scan for scan, patient in self.patients.items() if patient is None]
        if measured and unknown:
            raise UserError(
                f"Whose scan {unknown[0]} of {self.name} is, is not known ({len(unknown)} such scans): it may be "
                "one of a test patient.",
                f"Say it: ccdcseg patients DATASET --images {self.name} --pattern '{{patient}}_{{phase}}'. "
                "Or train on every annotated patient, with nobody left for testing: --fraction 1.",
            )
        usable = [scan for scan, patient in self.patients.items() if patient not in measured]
        if not usable:
            raise UserError(
                f"{self.name} holds scans of test and validation patients alone.",
                "Add scans of other patients.",
            )
        return usable

    def left_out(self, usable: Iterable[str]) -> dict[str, str | None]:
        """The other scans, with their patients."""
        return {scan: self.patients[scan] for scan in sorted(self.patients.keys() - {*usable})}


def read_unlabelled(raw_folder: Path, folder: Path) -> UnlabelledFolder:
    """Find the scans of a folder, named as nnU-Net names images (``CASE_0000.nii.gz``).

    Args:
        raw_folder: the data set's folder in ``nnUNet_raw``, whose ``unlabelled.csv`` says whose scan each is.
        folder: such as ``imagesTs``: of the data set, or any other.

    Raises:
        UserError: no such folder, no scan in it, or a channel of one is missing.
    """
    place = raw_folder / folder.expanduser()
    if not place.is_dir():
        raise UserError(
            f"{place} is no folder.",
            "Name a folder of scans without masks, such as imagesTs, or their number.",
        )
    ending = f"_0000{read_file_ending(raw_folder)}"
    names = sorted(
        path.name.removesuffix(ending) for path in place.glob(f"*{ending}") if not path.name.startswith(".")
    )
    if not names:
        raise UserError(
            f"{place} holds no scan named like CASE{ending}.", "Name scans as nnU-Net's imagesTs wants them."
        )
    for name in names:
        channel_files(raw_folder, name, place)
    known = _known_patients(raw_folder)
    relative = place.resolve().is_relative_to(raw_folder.resolve())
    name = str(place.resolve().relative_to(raw_folder.resolve())) if relative else str(place.resolve())
    return UnlabelledFolder(name, {scan: known.get(scan) for scan in names})


def channel_files(raw_folder: Path, case: str, folder: Path) -> list[Path]:
    """Images of a scan, one a channel.

    Raises:
        UserError: one is missing.
    """
    ending, channels = read_file_ending(raw_folder), read_channels(raw_folder)
    files = [folder / f"{case}_{number:04d}{ending}" for number in range(len(channels))]
    for number, file in enumerate(files):
        if not file.exists():
            raise UserError(
                f"The scan {case} in {folder} has no channel {number} ({channels[number]}): no {file.name}.",
                "Add the image, or move the scan's other images away.",
            )
    return files


def _known_patients(raw_folder: Path) -> dict[str, str]:
    path = raw_folder / UNLABELLED_FILE
    rows: Any = read_cases(raw_folder, UNLABELLED_FILE) if path.exists() else []
    return {row.case: row.patient for row in rows}
