"""Scans that nobody annotated: which a folder holds, and whose they are."""

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccdcseg.datasets.cases import (
    Case,
    check_names,
    image_files,
    read_channels,
    read_file_ending,
    read_unlabelled_cases,
    scan_of,
)
from ccdcseg.datasets.volumes import read_image
from ccdcseg.datasets.walk import check_link, names_with, scan_stem
from ccdcseg.errors import UserError
from ccdcseg.files import absolute, file_hash, real

FEW, MANY = 0.01, 0.2
"""Shares of voxels below zero that tell MR from CT: an MR image has hardly any, the air in a CT is all below."""
SPACING_RATIO = 4.0
"""A scan whose spacing lies farther than this factor outside that of the annotated ones is not of their kind."""


@dataclass(frozen=True)
class ScanFacts:
    """What tells whether a scan is like others.

    Attributes:
        negative: share of voxels below zero of each channel.
        spacing_mm: along each axis, in any order.
    """

    negative: tuple[float, ...]
    spacing_mm: tuple[float, ...]

    @classmethod
    def of(cls, channels: Iterable[NDArray[Any]], spacing_mm: Iterable[float]) -> "ScanFacts":
        """The facts of a scan, an array a channel."""
        return cls(tuple(float((channel < 0).mean()) for channel in channels), tuple(map(float, spacing_mm)))


@dataclass(frozen=True)
class Kind:
    """What annotated scans are like, as far as a scan without a mask has to be like them.

    Attributes:
        scans: the facts of each.
    """

    scans: tuple[ScanFacts, ...]

    def check(self, scan: str, facts: ScanFacts) -> None:
        """Refuse a scan that is not of this kind.

        Raises:
            UserError: another modality, or another spacing.
        """
        for channel, share in enumerate(facts.negative):
            known = [other.negative[channel] for other in self.scans]
            if (max(known) < FEW and share > MANY) or (min(known) > MANY and share < FEW):
                raise UserError(
                    f"{share:.0%} of the voxels of the scan {scan} (channel {channel}) are below zero, "
                    f"{min(known):.0%} to {max(known):.0%} of those of the annotated scans: it looks like "
                    "another modality.",
                    "Move it to another folder, and draw the split anew.",
                )
        sizes = [sorted(other.spacing_mm) for other in self.scans]
        for size, *known in zip(sorted(facts.spacing_mm), *sizes, strict=True):
            if not min(known) / SPACING_RATIO <= size <= max(known) * SPACING_RATIO:
                spacing = " x ".join(f"{mm:g}" for mm in facts.spacing_mm)
                raise UserError(
                    f"The scan {scan} has voxels of {spacing} mm; those of the annotated scans that come nearest "
                    f"are {min(known):g} to {max(known):g} mm where it has {size:g}.",
                    "Move it to another folder, and draw the split anew.",
                )


@dataclass(frozen=True)
class UnlabelledFolder:
    """The scans without masks of a folder.

    Attributes:
        name: of the folder: relative to the data set's own where it, or a link to it, lies there, else absolute.
        patients: whose each scan is, by the scan's name; None where that is not known.
        annotated: scans that the data set holds with their masks, too.
    """

    name: str
    patients: Mapping[str, str | None]
    annotated: frozenset[str] = frozenset()

    def usable(self, patients: Mapping[str, Iterable[str]]) -> list[str]:
        """Names of the scans that may take part in a split: not annotated, of patients who are not measured in it.

        Args:
            patients: of the split, by part; see `Split.patients`.

        Raises:
            UserError: no scan is left, or patients are measured and nobody knows whose a scan is.
        """
        measured = set(patients["test"]) | set(patients["validation"])
        free = {scan: patient for scan, patient in self.patients.items() if scan not in self.annotated}
        unknown = [scan for scan, patient in free.items() if patient is None]
        if measured and unknown:
            raise UserError(
                f"Whose scan {unknown[0]} of {self.name} is, is not known ({len(unknown)} such scans): it may be "
                "one of a test patient.",
                f"Say it: ccdcseg patients DATASET --images {shlex.quote(self.name)} "
                "--pattern '{patient}_{phase}'. Or train on every annotated patient, with nobody left for testing: "
                "--fraction 1.",
            )
        usable = [scan for scan, patient in free.items() if patient not in measured]
        if not usable:
            kinds = ["with masks in labelsTr"] * bool(self.annotated)
            kinds += ["of test and validation patients"] * bool(free)
            raise UserError(
                f"{self.name} holds scans {' and '.join(kinds)} alone.", "Add scans of other patients."
            )
        return usable

    def left_out(self, usable: Iterable[str]) -> dict[str, str | None]:
        """The other scans, with their patients."""
        return {scan: self.patients[scan] for scan in sorted(self.patients.keys() - {*usable})}


def read_unlabelled(raw_folder: Path, folder: Path) -> UnlabelledFolder:
    """Find the scans of a folder, named as nnU-Net names images (``CASE_0000.nii.gz``).

    Channels beyond those of ``dataset.json`` are left alone.

    Args:
        raw_folder: the data set's folder in ``nnUNet_raw``, whose ``unlabelled.csv`` says whose scan each is.
        folder: such as ``imagesTs``: of the data set, or any other.

    Raises:
        UserError: no such folder or one that cannot be read, no scan in it, what looks like one and belongs to
            none, a channel of a scan is missing or a link that leads nowhere, or as `check_names`.
    """
    place = raw_folder / folder.expanduser()
    if not place.is_dir():
        raise UserError(
            f"{place} is no folder.",
            "Put scans without masks there, or name another folder that holds some.",
        )
    ending = f"_0000{read_file_ending(raw_folder)}"
    names = names_with(place, ending)
    if not names:
        raise UserError(
            f"{place} holds no scan named like CASE{ending}.", "Name scans as nnU-Net's imagesTs wants them."
        )
    check_names(names, place)
    images = {name: channel_files(raw_folder, name, place) for name in names}
    _check_others(place, {*names}, read_file_ending(raw_folder))
    known = {case.case: case.patient for case in cases_in(raw_folder, place)}
    annotated = frozenset(scan for scan, files in images.items() if _is_annotated(raw_folder, scan, files))
    return UnlabelledFolder(_name(raw_folder, place), {scan: known.get(scan) for scan in names}, annotated)


def _name(raw_folder: Path, place: Path) -> str:
    """Of a folder; a link in the data set goes by its own name, since a copy of the data set leads it elsewhere."""
    named, root = absolute(place), absolute(raw_folder)
    if not named.is_relative_to(root):
        named, root = real(place), real(raw_folder)
    return str(named.relative_to(root) if named.is_relative_to(root) else named)


def _is_annotated(raw_folder: Path, scan: str, images: Sequence[Path]) -> bool:
    """Whether the data set holds a scan of that name with a mask, of the same voxels."""
    ending = read_file_ending(raw_folder)
    if not (raw_folder / "labelsTr" / f"{scan}{ending}").exists():
        return False
    others = image_files(raw_folder / "imagesTr", scan, ending, len(images))
    return all(map(_is_same, images, others))


def _is_same(image: Path, other: Path) -> bool:
    """Whether two images hold the same voxels, however they are compressed."""
    if not other.exists():
        return False
    if file_hash(image) == file_hash(other):
        return True
    return np.array_equal(read_image(image).array, read_image(other).array)


def _check_others(folder: Path, scans: Collection[str], ending: str) -> None:
    """Refuse files that look like scans, are a channel, of whatever number, of none and would be left out."""
    images = sorted(path.name for path in folder.iterdir() if scan_stem(path.name))
    others = [name for name in images if scan_of(name, ending) not in scans]
    if others:
        raise UserError(
            f"{folder / others[0]} belongs to no scan named like CASE_0000.nii.gz ({len(others)} such files).",
            "Rename or convert them, or move them away.",
        )


def channel_files(raw_folder: Path, case: str, folder: Path) -> list[Path]:
    """Images of a scan, one a channel.

    Raises:
        UserError: one is missing, or a link that leads nowhere.
    """
    ending, channels = read_file_ending(raw_folder), read_channels(raw_folder)
    files = image_files(folder, case, ending, len(channels))
    for number, file in enumerate(files):
        check_link(file)
        if not file.exists():
            raise UserError(
                f"The scan {case} in {folder} has no channel {number} ({channels[number]}): no {file.name}.",
                "Add the image, or move the scan's other images away.",
            )
    return files


def cases_in(raw_folder: Path, folder: Path) -> list[Case]:
    """Rows of ``unlabelled.csv`` on scans of a folder; see `read_unlabelled_cases`."""
    rows = read_unlabelled_cases(raw_folder)
    return [case for name, cases in rows.items() if real(raw_folder / name) == real(folder) for case in cases]
