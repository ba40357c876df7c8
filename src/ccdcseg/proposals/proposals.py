"""Proposals of what to annotate next, and the list of it."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccdcseg.datasets.cases import Case, annotated_cases, read_channels, read_file_ending
from ccdcseg.datasets.unlabelled import UnlabelledFolder, cases_in, channel_files, read_unlabelled
from ccdcseg.datasets.walk import names_with
from ccdcseg.errors import UserError
from ccdcseg.files import absolute, write_text
from ccdcseg.proposals.draws import Pool, covering_draw, random_draw, stood_for, unsure_draw
from ccdcseg.proposals.features import ScanFeatures, ScanFiles, distances, measure_scans, same_patient
from ccdcseg.proposals.slices import even_slices, unsure_slices
from ccdcseg.texts import no_formula

if TYPE_CHECKING:
    from ccdcseg.proposals.networks import Doubt

COLUMNS = ("draw", "rank", "case", "patient", "phase", "group", "image", "slices", "why")
RANDOM, COVERING, UNSURE = "random", "covering", "unsure"

Stages = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Proposal:
    """A scan to annotate.

    Args:
        scan: which.
        features: of it.
        slices: to annotate, counted from 1.
        why: half a sentence.
    """

    scan: ScanFiles
    features: ScanFeatures
    slices: tuple[int, ...]
    why: str


@dataclass(frozen=True)
class Proposals:
    """What may be annotated next.

    Args:
        dataset: name of the data set.
        channels: its channels.
        scans: number of scans without a mask.
        unknown: those of them of which nobody has said whose they are.
        passed_over: those of them that are near-duplicates of an annotated one.
        annotated: number of annotated scans.
        runs: trainings that were asked.
        seed: of the draws.
        draws: the proposals of each way to choose, the random one first.
    """

    dataset: str
    channels: tuple[str, ...]
    scans: int
    unknown: int
    passed_over: int
    annotated: int
    runs: tuple[Path, ...]
    seed: int
    draws: Mapping[str, tuple[Proposal, ...]]


@dataclass(frozen=True)
class Wanted:
    """How much is proposed.

    Args:
        scans: number of scans of each way to choose.
        slices: number of slices of each scan.
        seed: of the draws.
    """

    scans: int
    slices: int
    seed: int


@dataclass(frozen=True)
class _Way:
    """A way to choose: the places of the scans chosen, and for each why and which slices."""

    places: Sequence[int]
    why: Callable[[int], str]
    slices: Callable[[int], tuple[int, ...]]


def propose(
    raw_folder: Path,
    images: Path,
    wanted: Wanted,
    runs: Sequence[Path],
    cache: Path,
    workers: int,
    device: str,
    progress: Stages,
) -> Proposals:
    """Propose scans without masks to annotate: drawn at random, by coverage and, with runs, by confidence.

    No two proposals of a draw are near-duplicates of each other or of an annotated scan.

    Args:
        raw_folder: the data set's folder in ``nnUNet_raw``.
        images: folder of scans without masks, such as ``imagesTs``.
        wanted: how much is proposed.
        runs: finished trainings, whose confidence counts; may be none.
        cache: folder of measurements.
        workers: processes.
        device: on which runs predict.
        progress: called with a stage, scans done and scans to be done.

    Raises:
        UserError: no scan without mask, none of another patient than the annotated ones, an image that cannot be
            used, or a run of other classes or channels.
    """
    folder = read_unlabelled(raw_folder, images)
    scans, annotated = _scans_without(raw_folder, folder), _annotated(raw_folder)
    features = measure_scans([*scans, *annotated], cache / "features", workers, partial(progress, "measure"))
    cases = [scan.case for scan in (*scans, *annotated)]
    pool = Pool(cases[: len(scans)], same_patient(cases, features), distances(features))
    free = pool.free([])
    if not free:
        raise UserError(
            f"Each of the {len(scans)} scans in {images} is of a patient who has a mask, or looks like one's.",
            "Add scans of other patients.",
        )
    ways = _without_network(pool, features, wanted)
    if runs:
        predicting = partial(progress, "predict")
        told = _asked(runs, scans, raw_folder, device, cache / "doubts", predicting)
        ways[UNSURE] = _unsure(pool, told, wanted)
    return Proposals(
        raw_folder.name,
        read_channels(raw_folder),
        len(scans),
        sum(patient is None for patient in folder.patients.values()),
        len(scans) - len(free),
        len(annotated),
        tuple(runs),
        wanted.seed,
        {
            name: tuple(Proposal(scans[n], features[n], way.slices(n), way.why(n)) for n in way.places)
            for name, way in ways.items()
        },
    )


def _without_network(pool: Pool, features: Sequence[ScanFeatures], wanted: Wanted) -> dict[str, _Way]:
    def even(place: int) -> tuple[int, ...]:
        return even_slices(features[place].shape[0], wanted.slices)

    def near(place: int) -> str:
        return f"nearest to {stands[place]} of {len(pool.scans)} scans{_of_group(pool.scans[place])}"

    covering = covering_draw(pool, wanted.scans, wanted.seed)
    stands = dict(zip(covering, stood_for(pool, covering), strict=True))
    drawn = random_draw(pool, wanted.scans, wanted.seed)
    return {
        RANDOM: _Way(drawn, lambda place: f"drawn at random{_of_group(pool.scans[place])}", even),
        COVERING: _Way(covering, near, even),
    }


def _asked(*arguments: Any) -> "list[Doubt]":
    from ccdcseg.proposals.networks import doubts  # noqa: PLC0415 - slow

    return doubts(*arguments)


def _unsure(pool: Pool, told: "Sequence[Doubt]", wanted: Wanted) -> _Way:
    return _Way(
        unsure_draw(pool, wanted.scans, wanted.seed, [doubt.sure for doubt in told]),
        lambda place: told[place].words,
        lambda place: unsure_slices(told[place].slices, wanted.slices),
    )


def _of_group(case: Case) -> str:
    return f", group {case.group}" if case.group else ""


def _scans_without(raw_folder: Path, folder: UnlabelledFolder) -> list[ScanFiles]:
    known = {row.case: row for row in cases_in(raw_folder, raw_folder / folder.name)}
    cases = [known.get(name) or Case(name, name, "", "") for name in folder.patients]
    return [_files(raw_folder, case, raw_folder / folder.name) for case in cases]


def _annotated(raw_folder: Path) -> list[ScanFiles]:
    """Scans with a mask, whether ``cases.csv`` names them or not."""
    ending = read_file_ending(raw_folder)
    known = {row.case: row for row in annotated_cases(raw_folder)}
    names = names_with(raw_folder / "labelsTr", ending)
    cases = [known.get(name) or Case(name, name, "", "") for name in names]
    return [_files(raw_folder, case, raw_folder / "imagesTr") for case in cases]


def _files(raw_folder: Path, case: Case, folder: Path) -> ScanFiles:
    return ScanFiles(case, tuple(channel_files(raw_folder, case.case, folder)))


def write_list(proposals: Proposals, path: Path) -> None:
    """Write all proposals as CSV (`COLUMNS`), atomically."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for draw, chosen in proposals.draws.items():
        for rank, proposal in enumerate(chosen, start=1):
            case = proposal.scan.case
            image, numbers = str(absolute(proposal.scan.images[0])), " ".join(map(str, proposal.slices))
            texts = (case.case, case.patient, case.phase, case.group, image)
            writer.writerow([draw, rank, *map(no_formula, texts), numbers, proposal.why])
    write_text(path, table.getvalue())
