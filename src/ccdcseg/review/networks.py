"""Which networks never saw whose mask, and what they say of the scans: probabilities, kept on disk."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccdcseg.datasets.cases import (
    Case,
    image_files,
    read_cases,
    read_channels,
    read_file_ending,
)
from ccdcseg.errors import UserError
from ccdcseg.files import file_hash
from ccdcseg.nnunet.checkpoints import FINAL
from ccdcseg.nnunet.ensemble import Ensemble, check_run
from ccdcseg.processes import Progress
from ccdcseg.runs.record import RunRecord, read_record

_LEVELS = 255
"""Steps in which probabilities are kept."""


@dataclass(frozen=True, eq=False)
class Network:
    """A trained run.

    Attributes:
        folder: of the run.
        record: of it.
        patients: whose masks it was trained on: by the record, and whose those masks, and in another data set their
            images, are today.
    """

    folder: Path
    record: RunRecord
    patients: frozenset[str]

    @property
    def name(self) -> str:
        """Its place among the data set's results."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def hash(self) -> str:
        """SHA-256 of its weights."""
        return file_hash(self.folder / FINAL)

    def saw(self, case: Case) -> bool:
        """Whether it was trained on the scan, or on another scan of the patient."""
        return case.patient in self.patients


def read_networks(raw_folder: Path, folders: Iterable[Path]) -> list[Network]:
    """Read finished runs of a data set, or of another one with the same classes and channels.

    Raises:
        UserError: a folder is no run's, the run is of another data set without hashes of what it was trained on, or
            two have one name; or as `check_run`.
    """
    cases = read_cases(raw_folder)
    networks = [_network(folder, raw_folder, cases) for folder in dict.fromkeys(folders)]
    names = [network.name for network in networks]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"Two of the runs are called {doubled[0]}: results could not tell them apart.",
            "Name one of them.",
        )
    return networks


def _network(folder: Path, raw_folder: Path, cases: Sequence[Case]) -> Network:
    record, ending = read_record(folder), read_file_ending(raw_folder)
    check_run(folder, raw_folder)
    masks = {name.removesuffix(ending) for name in _scans(record, "labelsTr")}
    today = {case.patient for case in cases if case.case in masks}
    if record.dataset != raw_folder.name:
        today |= _with_same_images(folder, record, raw_folder, cases)
    return Network(folder, record, frozenset({*record.patients.train, *today}))


def _scans(record: RunRecord, folder: str) -> dict[str, str]:
    """SHA-256 of the files of a folder that a run was trained on, by name."""
    paths = {Path(name): digest for name, digest in (record.scans or {}).items()}
    return {path.name: digest for path, digest in paths.items() if path.parent.name == folder}


def _with_same_images(folder: Path, record: RunRecord, raw_folder: Path, cases: Iterable[Case]) -> set[str]:
    """Patients with an image that a run of another data set was trained on, whatever they were called there.

    Raises:
        UserError: its record does not say which these are.
    """
    known = {*_scans(record, "imagesTr").values()}
    if not known:
        raise UserError(
            f"{folder} was trained on {record.dataset}, and its record does not say on which images: whose of "
            f"{raw_folder.name} it saw cannot be told.",
            "Name a run of this data set.",
        )
    ending = read_file_ending(raw_folder)
    first = {case: image_files(raw_folder / "imagesTr", case.case, ending, 1)[0] for case in cases}
    return {case.patient for case, image in first.items() if image.exists() and file_hash(image) in known}


def judges(
    cases: Sequence[Case], networks: Sequence[Network], named: Iterable[str]
) -> dict[str, list[Network]]:
    """The networks that never saw a mask of a case's patient, by case; cases without any are left out.

    Args:
        cases: with masks.
        networks: trained ones.
        named: patients or cases that are asked for; none: all that the networks never saw.

    Raises:
        UserError: one that is asked for is none of ``cases``, or every network was trained on it; or none is left.
    """
    asked = [*named]
    for name in asked:
        if not any(name in (case.case, case.patient) for case in cases):
            raise UserError(
                f"{name} is no patient or case among those that are reviewed.",
                "Give names of cases.csv; without --run, of labelled patients of the split.",
            )
    wanted = [case for case in cases if not asked or {case.case, case.patient} & {*asked}]
    found = {case.case: [one for one in networks if not one.saw(case)] for case in wanted}
    if seen := [case for case, unseeing in found.items() if asked and not unseeing]:
        raise UserError(
            f"{seen[0]} was trained on by {networks[0].folder}: it says what it was taught.",
            f"Name a run that never saw the patient, or {_other_networks(cases)}.",
        )
    found = {case: unseeing for case, unseeing in found.items() if unseeing}
    if not found:
        raise UserError(
            f"{networks[0].folder} was trained on every annotated patient.",
            f"Name a run that never saw one of them, or {_other_networks(cases)}.",
        )
    return found


def _other_networks(cases: Iterable[Case]) -> str:
    """How to come by networks that never saw a patient: they are trained on others."""
    if len({case.patient for case in cases}) < 2:
        return "annotate a second patient to train on"
    return "leave --run out, which trains such ones"


def predict_all(
    raw_folder: Path,
    wanted: Mapping[str, Sequence[Network]],
    cache: Path,
    device: str,
    progress: Progress,
) -> dict[str, list[Path]]:
    """Predict cases by networks that never saw them; what is there and is what it would be is kept.

    Args:
        raw_folder: of the data set.
        wanted: the networks of each case.
        cache: folder for the probabilities.
        device: "cpu", "cuda" or "mps".
        progress: called with what is done and what is to be done.

    Returns:
        Files of probabilities of each case; see `read_probabilities`.

    Raises:
        UserError: an image is missing or cannot be used, or a network's checkpoint is.
    """
    files = {
        case: [cache / network.name / f"{case}.npz" for network in networks]
        for case, networks in wanted.items()
    }
    total, done = sum(map(len, files.values())), 0
    for network in dict.fromkeys(one for networks in wanted.values() for one in networks):
        alone = Ensemble([network.folder], device)
        for case in (case for case, networks in wanted.items() if network in networks):
            alone.keep(_images(raw_folder, case), cache / network.name / f"{case}.npz", _packed)
            done += 1
            progress(done, total)
    return files


def read_probabilities(files: Sequence[Path]) -> NDArray[np.float32]:
    """The mean of several networks' probabilities, (C, z, y, x) on all voxels of a scan, the background first."""
    total: Any = 0
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            total = total + arrays["probabilities"].astype(np.float32) / _LEVELS
    mean: NDArray[np.float32] = total / len(files)
    return mean


def _images(raw_folder: Path, case: str) -> list[Path]:
    files = image_files(
        raw_folder / "imagesTr", case, read_file_ending(raw_folder), len(read_channels(raw_folder))
    )
    for file in files:
        if not file.exists():
            raise UserError(f"{file} does not exist.", "Restore the image, or prepare the data set again.")
    return files


def _packed(probabilities: NDArray[np.float32]) -> bytes:
    """Of each class on all voxels of a scan, in steps."""
    buffer = io.BytesIO()
    steps = np.rint(probabilities * _LEVELS).astype(np.uint8)
    np.savez_compressed(buffer, probabilities=steps)
    return buffer.getvalue()
