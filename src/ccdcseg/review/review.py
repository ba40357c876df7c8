"""A review: the masks of a data set, those first that contradict networks which never saw them."""

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ccdcseg
from ccdcseg.datasets.cases import Case, numbering_fault, read_file_ending, read_ignore_label, read_labels
from ccdcseg.datasets.splits import FOLD_OF, SPLITS_FILE, read_entries
from ccdcseg.datasets.volumes import read_mask
from ccdcseg.errors import UserError
from ccdcseg.files import file_hash, write_json, write_text
from ccdcseg.review.answers import Answer
from ccdcseg.review.measure import Measures, Opinions, measure
from ccdcseg.review.networks import Network, read_probabilities
from ccdcseg.review.suspicion import Suspicion, Usual, suspicions, usual
from ccdcseg.runs.record import RunRecord
from ccdcseg.tabular import csv_text

FORMAT = "ccdcseg-review/2"
RANKING_COLUMNS = (
    "case",
    "patient",
    "class",
    "score",
    "suspicion",
    "sentence",
    "dice",
    "contradiction_mm",
    "surface_probability",
    "answer",
)


@dataclass(frozen=True)
class Reviewed:
    """The mask of a case.

    Attributes:
        case: name of the scan.
        patient: whose it is.
        networks: names of those that it was held against.
        mask: SHA-256 of its file.
        measures: of it.
        suspicions: what may be wrong with it, the likeliest first.
        answer: what somebody said of this very mask; empty where nobody did.
    """

    case: str
    patient: str
    networks: tuple[str, ...]
    mask: str
    measures: Measures
    suspicions: tuple[Suspicion, ...] = ()
    answer: str = ""

    @property
    def score(self) -> float:
        """By which masks are ranked: the strength of the strongest suspicion."""
        return max((suspicion.strength for suspicion in self.suspicions), default=0.0)

    def class_score(self, name: str) -> float:
        """The strength of the strongest suspicion that concerns a class."""
        return max((s.strength for s in self.suspicions if name in s.classes), default=0.0)


@dataclass(frozen=True)
class Review:
    """All masks that were reviewed, the worst first.

    Attributes:
        dataset: name of the data set's folder.
        labels: value of each class by name.
        networks: SHA-256 of the weights of each network.
        normal: what is usual in this list.
        cases: the masks.
        measured: how many are of patients for validation or testing in the split of a network, or the one that its
            fold is of; by all splits there are where that one is gone, and 0 where there is none.
    """

    dataset: str
    labels: Mapping[str, int]
    networks: Mapping[str, str]
    normal: Usual
    cases: tuple[Reviewed, ...]
    measured: int = 0

    @property
    def suspicious(self) -> int:
        """How many masks have a suspicion of strength 1 or more."""
        return sum(reviewed.score >= 1 for reviewed in self.cases)


def mask_files(raw_folder: Path, cases: Sequence[Case]) -> dict[str, Path]:
    """The mask of each case.

    Raises:
        UserError: one is missing.
    """
    ending = read_file_ending(raw_folder)
    files = {case.case: raw_folder / "labelsTr" / f"{case.case}{ending}" for case in cases}
    for file in files.values():
        if not file.exists():
            raise UserError(f"{file} does not exist.", "Restore the mask, or take the case out of cases.csv.")
    return files


def check_labels(raw_folder: Path) -> dict[str, int]:
    """The classes of a data set, in the order of their values.

    Raises:
        UserError: nnU-Net does not take them as they are numbered.
    """
    labels = read_labels(raw_folder)
    if fault := numbering_fault(labels, read_ignore_label(raw_folder)):
        raise UserError(f"{raw_folder / 'dataset.json'}: {fault}.", "Number the classes 1, 2, 3 and so on.")
    return labels


def read_opinions(raw_folder: Path, mask: Path, probabilities: Sequence[Path]) -> Opinions:
    """A mask and what networks say of its scan.

    Raises:
        UserError: the mask cannot be read, or lies on other voxels than its scan.
    """
    labels = check_labels(raw_folder)
    ignore = read_ignore_label(raw_folder)
    volume, found = read_mask(mask, labels, ignore), read_probabilities(probabilities)
    if found.shape[1:] != volume.array.shape:
        raise UserError(
            f"{mask} has another shape (z, y, x) than its scan: {volume.array.shape} against {found.shape[1:]}.",
            "Resample it onto the scan's voxels, or pair the right files.",
        )
    return Opinions.of(volume.array, found, volume.spacing_mm, [*labels], ignore)


def review(
    raw_folder: Path,
    cases: Sequence[Case],
    wanted: Mapping[str, Sequence[Network]],
    files: Mapping[str, Sequence[Path]],
    answers: Mapping[str, Answer],
    progress: Callable[[int, int], None],
) -> Review:
    """Measure and rank masks.

    Args:
        raw_folder: of the data set.
        cases: all of it.
        wanted: the networks that each mask is held against.
        files: their probabilities.
        answers: that are kept; see `ccdcseg.review.answers.stored_answers`.
        progress: called with the number of masks measured and to be measured.

    Raises:
        UserError: as `read_opinions`; a mask is missing.
    """
    masks = mask_files(raw_folder, [case for case in cases if case.case in wanted])
    used = {network.name: network for networks in wanted.values() for network in networks}
    measured = _measured(raw_folder, [network.record for network in used.values()])
    reviewed = []
    for done, case in enumerate((case for case in cases if case.case in wanted), 1):
        digest = file_hash(masks[case.case])
        # unnamed, so that what networks say of one scan is let go before the next is read
        measures = measure(read_opinions(raw_folder, masks[case.case], files[case.case]))
        names = tuple(network.name for network in wanted[case.case])
        said = answers.get(case.case)
        answer = said.answer if said and said.mask == digest else ""
        reviewed.append(Reviewed(case.case, case.patient, names, digest, measures, answer=answer))
        progress(done, len(wanted))
    hashes = {name: network.hash for name, network in used.items()}
    count = sum(one.patient in measured for one in reviewed)
    return Review(raw_folder.name, check_labels(raw_folder), hashes, *rank(reviewed), count)


def _measured(raw_folder: Path, records: Sequence[RunRecord]) -> set[str]:
    """Patients for validation or testing in the splits of runs; of a fold as `Review` says."""
    splits = {record.fold_of.split for record in records if record.fold_of}
    drawn = _drawn(raw_folder) if splits else []
    gone = splits - {entry["hash"] for entry in drawn}
    parts = [entry["patients"] for entry in drawn if gone or entry["hash"] in splits]
    parts += [record.patients.model_dump() for record in records if not record.fold_of]
    return {patient for part in parts for patient in (*part["validation"], *part["test"])}


def _drawn(raw_folder: Path) -> list[dict[str, Any]]:
    """Entries of the splits there are, without folds; none where the list is missing or somebody else's."""
    with suppress(UserError):
        return [entry for entry in read_entries(raw_folder / SPLITS_FILE) if FOLD_OF not in entry]
    return []


def rank(reviewed: Sequence[Reviewed]) -> tuple[Usual, tuple[Reviewed, ...]]:
    """What is usual in a list of masks, and the list, the worst first."""
    normal = usual(one.measures for one in reviewed)
    found = [replace(one, suspicions=suspicions(one.measures, normal)) for one in reviewed]
    return normal, tuple(sorted(found, key=lambda one: (-one.score, one.case)))


def write_review(result: Review, json_file: Path) -> None:
    """Write a review as JSON, and its ranking as CSV beside it, atomically."""
    write_json(json_file, _content(result))
    write_text(ranking_file(json_file), csv_text(ranking_rows(result)))


def ranking_file(json_file: Path) -> Path:
    """Where the ranking lies; another name than that of the answers beside the data."""
    return json_file.with_name(f"{json_file.stem}_ranking.csv")


def ranking_rows(result: Review) -> list[list[object]]:
    """A row for each case and class in the order of their scores, below `RANKING_COLUMNS`."""
    rows = [_row(one, name) for one in result.cases for name in result.labels]
    rows.sort(key=lambda row: -float(str(row[3])))
    return [[*RANKING_COLUMNS], *rows]


def _row(one: Reviewed, name: str) -> list[object]:
    found = one.measures.classes[name]
    first = next((suspicion for suspicion in one.suspicions if name in suspicion.classes), None)
    said = (first.kind, first.sentence) if first else ("", "")
    numbers = found.dice, found.contradiction_mm, found.surface_probability
    score = round(one.class_score(name), 3)
    return [one.case, one.patient, name, score, *said, *map(_rounded, numbers), one.answer]


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 4)


def _content(result: Review) -> dict[str, Any]:
    packages = ("torch", "nnunetv2", "numpy", "scipy")
    return {
        "format": FORMAT,
        "dataset": result.dataset,
        "versions": {"ccdcseg": ccdcseg.__version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "labels": dict(result.labels),
        "networks": dict(result.networks),
        "usual": asdict(result.normal),
        "cases": [asdict(one) | {"score": one.score} for one in result.cases],
    }
