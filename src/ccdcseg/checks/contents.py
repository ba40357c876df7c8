"""What lies in an nnU-Net raw folder, whoever made it: the files of each case, and whose scans they are."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ccdcseg.datasets.cases import (
    CASES_FILE,
    EMPTY_MASKS,
    UNLABELLED,
    Case,
    read_cases,
    read_channels,
    read_file_ending,
    read_ignore_label,
    read_labels,
)
from ccdcseg.datasets.walk import check_link, scan_stem
from ccdcseg.errors import UserError
from ccdcseg.files import read_json

_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case, as far as they exist.

    Args:
        case: nnU-Net's identifier.
        images: file of each channel by its number.
        mask: in ``labelsTr``.
    """

    case: str
    images: Mapping[int, Path]
    mask: Path | None

    @property
    def paths(self) -> list[Path]:
        """All of them, the mask last."""
        return [*self.images.values(), *([self.mask] if self.mask else [])]


@dataclass(frozen=True)
class Contents:
    """An nnU-Net raw folder.

    Args:
        folder: where it is.
        labels: value of each foreground class by name.
        ignore: value of the voxels nobody has labelled, if there is one.
        channels: nnU-Net's words for the channels, such as "MRI" or "CT".
        declared_cases: ``numTraining`` of ``dataset.json``; anything may be there.
        synthetic: ``dataset.json`` says that the scans are of no real person.
        empty_masks: ``dataset.json`` says that masks may hold no class.
        files: of every case in ``imagesTr`` or ``labelsTr``, sorted by name.
        hidden: names of hidden files that nnU-Net takes for scans or masks, with the folder.
        others: names of files that nnU-Net passes over, with the folder.
        gone: names of links to scans or masks that lead nowhere, with the folder.
        unlabelled: files of every scan in ``imagesTs``, sorted by name.
        table: rows of ``cases.csv``; none where the table is missing or unusable.
        table_error: what makes ``cases.csv`` unusable.
    """

    folder: Path
    labels: Mapping[str, int]
    ignore: int | None
    channels: tuple[str, ...]
    declared_cases: Any
    synthetic: bool
    empty_masks: bool
    files: Mapping[str, CaseFiles]
    hidden: tuple[str, ...]
    others: tuple[str, ...]
    gone: tuple[str, ...]
    unlabelled: Mapping[str, CaseFiles]
    table: tuple[Case, ...]
    table_error: UserError | None

    @cached_property
    def patients(self) -> dict[str, str]:
        """Patient of each case; a case that ``cases.csv`` does not name is a patient of its own."""
        known = {case.case: case.patient for case in self.table}
        return {name: known.get(name, name) for name in self.files}


def read_contents(folder: Path) -> Contents:
    """List an nnU-Net raw folder; no scan is opened.

    Args:
        folder: the data set's folder in ``nnUNet_raw``; ``cases.csv`` may be missing.

    Raises:
        UserError: ``dataset.json`` is unusable (see `ccdcseg.datasets.cases`), ``imagesTr`` or ``labelsTr`` is
            missing, or there is no case.
    """
    ending = read_file_ending(folder)
    for name in ("imagesTr", "labelsTr"):
        if not (folder / name).is_dir():
            raise UserError(
                f"{folder / name} does not exist.", "Put scans into imagesTr and their masks into labelsTr."
            )
    images, masks = (_files(folder / name) for name in ("imagesTr", "labelsTr"))
    hidden = [path for path in (*images, *masks) if path.name.startswith(".")]
    images, masks = ([path for path in paths if path not in hidden] for paths in (images, masks))
    files = dict(_case_files(images, masks, ending))
    gone = [path for name in ("imagesTr", "labelsTr", UNLABELLED) for path in _lost(folder / name)]
    if not files:
        for path in gone:
            check_link(path)
        raise UserError(
            f"{folder} holds no case: no file in imagesTr or labelsTr is named as nnU-Net wants.",
            f"Name scans CASE_0000{ending} and masks CASE{ending}.",
        )
    tests = [path for path in _files(folder / UNLABELLED) if not path.name.startswith(".")]
    unlabelled = dict(_case_files(tests, [], ending))
    used = {path for one in (*files.values(), *unlabelled.values()) for path in one.paths}
    table, table_error = _table(folder)
    return Contents(
        folder=folder,
        labels=read_labels(folder),
        ignore=read_ignore_label(folder),
        channels=read_channels(folder),
        declared_cases=read_json(folder / "dataset.json").get("numTraining"),
        synthetic=read_json(folder / "dataset.json").get("synthetic") is True,
        empty_masks=read_json(folder / "dataset.json").get(EMPTY_MASKS) is True,
        files=files,
        hidden=_names(path for path in hidden if path.name.endswith(ending)),
        others=_names(path for path in (*images, *masks, *tests) if path not in used),
        gone=_names(gone),
        unlabelled=unlabelled,
        table=table,
        table_error=table_error,
    )


def _names(paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(f"{path.parent.name}/{path.name}" for path in paths)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _lost(folder: Path) -> list[Path]:
    """Links in a folder that are named like scans and lead nowhere."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if scan_stem(path.name) and not path.exists()]


def _case_files(images: list[Path], masks: list[Path], ending: str) -> Iterator[tuple[str, CaseFiles]]:
    channels: dict[str, dict[int, Path]] = {}
    for path in images:
        match = _CHANNEL.fullmatch(path.name.removesuffix(ending))
        if match and path.name.endswith(ending):
            channels.setdefault(match[1], {})[int(match[2])] = path
    labelled = {path.name.removesuffix(ending): path for path in masks if path.name.endswith(ending)}
    for case in sorted(channels.keys() | labelled.keys()):
        yield case, CaseFiles(case, channels.get(case, {}), labelled.get(case))


def _table(folder: Path) -> tuple[tuple[Case, ...], UserError | None]:
    if not (folder / CASES_FILE).exists():
        return (), None
    try:
        return tuple(read_cases(folder)), None
    except UserError as error:
        return (), error
