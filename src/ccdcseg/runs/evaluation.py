"""What was measured of a run: ``evaluation.json`` beside its predictions."""

import logging
import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ccdcseg.datasets.cases import CASES_FILE, read_cases
from ccdcseg.datasets.nifti import read_header
from ccdcseg.datasets.release import MASK_SUFFIX
from ccdcseg.datasets.splits import SPLITS_FILE, part_cases, part_folder
from ccdcseg.errors import UserError
from ccdcseg.files import check_beside, check_table_beside, file_hash, write_json, write_text
from ccdcseg.measure.metrics import METRIC_NAMES, Status
from ccdcseg.measure.patients import (
    MEAN,
    SUMMARY_METRICS,
    WITH_MISSES,
    average,
    describe,
    mean,
)
from ccdcseg.runs.record import PLAIN_PREDICTIONS, PREDICTIONS, RunRecord
from ccdcseg.runs.stored import Count, Digest, Name, NotNegative, Share, Stored
from ccdcseg.tabular import csv_text

EVALUATION_FILE = "evaluation.json"
TABLE_FILE = "evaluation.csv"
TOLERANCE = 1e-9
COLUMNS = ("case", "patient", "class", "status", *METRIC_NAMES, "diagonal_mm")

Structure = tuple[str, str, str]
"""A patient, a scan and a class."""

logger = logging.getLogger(__name__)


class CaseScores(Stored):
    """The scores of one structure in one scan; see `ccdcseg.measure.metrics.Scores`.

    A new score of a scan is added here.
    """

    case: Name
    patient: Name
    class_name: Name = Field(alias="class")
    status: Status
    diagonal_mm: Annotated[float, Field(gt=0)]
    dice: Share | None = None
    hd95_pooled_mm: NotNegative | None = None
    hd95_pooled_vox: NotNegative | None = None
    hd95_max_mm: NotNegative | None = None
    assd_mm: NotNegative | None = None
    hd_mm: NotNegative | None = None

    @model_validator(mode="after")
    def _as_status_says(self) -> Self:
        for name in METRIC_NAMES:
            defined = self.status == "ok" or (name == "dice" and self.status != "absent")
            if (getattr(self, name) is not None) != defined:
                raise ValueError(
                    f"{name} is {getattr(self, name)} of a structure whose status is {self.status}"
                )
        if self.status in ("missed", "spurious") and self.dice != 0:
            raise ValueError(f"dice is {self.dice} of a structure whose status is {self.status}")
        return self

    @property
    def structure(self) -> Structure:
        """What the scores are of."""
        return self.patient, self.case, self.class_name

    def value(self, metric: str, is_marked: bool = False) -> float | None:
        """The value of one of `SUMMARY_METRICS`; ``None`` where it is undefined.

        `WITH_MISSES` is ``hd95_pooled_mm`` with the image's diagonal where the structure was missed, so
        that nobody wins by predicting nothing.

        ``is_marked``: one of those compared marks the structure, which is not there; who does not has Dice 1.
        """
        if metric == "dice" and is_marked and self.status == "absent":
            return 1.0
        if metric == WITH_MISSES:
            return self.diagonal_mm if self.status == "missed" else self.hd95_pooled_mm
        found: float | None = getattr(self, metric)
        return found


class MetricSummary(Stored):
    """Mean over patients, number of patients and 95 % interval; see `describe`."""

    value: float | None
    n_patients: Count
    interval: tuple[float, float] | None


class Summary(Stored):
    """Of a class, or of the mean over the classes: each metric by patient, and how many structures were what.

    Attributes:
        n_scans: how many structures there are in all, one a scan; of the mean scans times classes.
    """

    dice: MetricSummary
    hd95_pooled_mm: MetricSummary
    hd95_pooled_vox: MetricSummary
    hd95_max_mm: MetricSummary
    assd_mm: MetricSummary
    hd_mm: MetricSummary
    hd95_pooled_mm_with_misses: MetricSummary
    n_scans: Count
    n_missing: Count
    n_spurious: Count
    n_absent: Count


RULE = 2
"""Number of the way in which is measured; by 1, distances in a scan of one slice were close to zero."""


class MeasuredFiles(Stored):
    """Of which files an evaluation is, each by its SHA-256.

    Attributes:
        version: of this package, which measured them.
        rule: by which, see `RULE`.
        split: hash of the split that says which patients these are.
        references: of each case.
        predictions: of each case.
        run: whose they are, where the evaluation lies in a folder that stands in for its own.
    """

    version: Name
    rule: Count = 1
    split: Digest
    references: dict[Name, Digest]
    predictions: dict[Name, Digest]
    run: Name | None = None


class Evaluation(Stored):
    """All scores of the predictions of a run.

    Attributes:
        format: name and number of this form.
        classes: the foreground classes.
        cases: a row for each scan and class.
        summary: of each class and of "mean"; what the rows give.
        measured: see `MeasuredFiles`; None in evaluations of version 0.1.0, and of folders that are no run's.
    """

    format: Literal["ccdcseg-evaluation/1"]
    classes: Annotated[tuple[Name, ...], Field(min_length=1)]
    cases: Annotated[tuple[CaseScores, ...], Field(min_length=1)]
    summary: dict[Name, Summary]
    measured: MeasuredFiles | None = None

    @classmethod
    def of(cls, classes: Sequence[str], cases: Sequence[CaseScores]) -> Self:
        """The evaluation of scores.

        Args:
            classes: the foreground classes.
            cases: a row for each scan and class.
        """
        summary = {name: _summary(rows, classes, name) for name, rows in _by_class(cases, classes).items()}
        return cls(format="ccdcseg-evaluation/1", classes=tuple(classes), cases=tuple(cases), summary=summary)

    @model_validator(mode="after")
    def _each_scan_once(self) -> Self:
        found: dict[str, list[str]] = defaultdict(list)
        patients: dict[str, str] = {}
        for row in self.cases:
            found[row.case].append(row.class_name)
            if patients.setdefault(row.case, row.patient) != row.patient:
                raise ValueError(f"the scan {row.case} is of {patients[row.case]} and of {row.patient}")
        for case, classes in found.items():
            if sorted(classes) != sorted(self.classes):
                raise ValueError(
                    f"the scan {case} has the classes {', '.join(classes)}; it needs each of "
                    f"{', '.join(self.classes)} once"
                )
        return self

    @model_validator(mode="after")
    def _summary_of_cases(self) -> Self:
        """Nothing was changed, added or taken away by hand: the summary is what the rows give."""
        if sorted(self.summary) != sorted((*self.classes, MEAN)):
            raise ValueError(
                f"summary is of {', '.join(self.summary)}, not of {', '.join(self.classes)} and {MEAN}"
            )
        for name, rows in _by_class(self.cases, self.classes).items():
            _check_summary(name, self.summary[name], rows, self.classes)
        return self

    @property
    def patients(self) -> list[str]:
        """Everybody who was measured."""
        return sorted(set(self.patient_of.values()))

    @property
    def patient_of(self) -> dict[str, str]:
        """Case to patient."""
        return {row.case: row.patient for row in self.cases}

    @property
    def spurious(self) -> set[Structure]:
        """The structures that were predicted where there is none."""
        return {row.structure for row in self.cases if row.status == "spurious"}

    def values(
        self,
        metric: str,
        class_name: str = MEAN,
        without: Container[Structure] = (),
        marked: Container[Structure] = (),
    ) -> dict[str, float]:
        """The value of each patient: the mean over the scans, then (for "mean") over the classes.

        Args:
            metric: one of `SUMMARY_METRICS`.
            class_name: one of ``classes``, or "mean".
            without: structures to leave out.
            marked: those that are not there and that one of those compared marks; see `CaseScores.value`.

        Returns:
            Patient to value; undefined scores are left out, and so is a patient who has no other.

        Raises:
            UserError: there is no such metric or class.
        """
        self.check_known(metric, class_name)
        rows = (row for row in _of_class(self.cases, class_name) if row.structure not in without)
        return _values(rows, self.classes, metric, class_name, marked)

    def check_known(self, metric: str, class_name: str) -> None:
        """Refuse metrics that there are not and classes that it does not have; see `values`."""
        check_metric(metric)
        known = (*self.classes, MEAN)
        if class_name not in known:
            raise UserError(
                f"There is no class {class_name} in an evaluation.", f"Choose among {', '.join(known)}."
            )


def check_metric(name: str) -> None:
    """Refuse a metric that there is not.

    Raises:
        UserError: it is none of `SUMMARY_METRICS`.
    """
    if name not in SUMMARY_METRICS:
        raise UserError(f"There is no metric {name}.", f"Choose among {', '.join(SUMMARY_METRICS)}.")


def seed_means(evaluations: Iterable[Evaluation], metric: str, class_name: str = MEAN) -> dict[str, float]:
    """The value of each patient, the seeds averaged.

    Args:
        evaluations: of a method, one for each seed.
        metric, class_name: see `Evaluation.values`.
    """
    return average([evaluation.values(metric, class_name) for evaluation in evaluations])


Round = Sequence[Sequence[Evaluation]]
"""The evaluations of each method that are averaged before methods are compared: of one seed, or of all seeds."""


def comparable_values(
    rounds: Sequence[Round], metric: str, class_name: str = MEAN
) -> list[list[dict[str, float]]]:
    """The value of each patient with each method, where methods are compared: of the same structures.

    Of a round those count that all methods were measured on and that have a value in every evaluation. A structure
    that was missed has no distance, and is mostly a hard one: who misses it would have the smaller mean. One that
    is not there has a Dice where an evaluation of any round marks it: 0 for who does, 1 for who does not.

    Args:
        rounds: see `Round`.
        metric, class_name: see `Evaluation.values`.

    Returns:
        For each round and method patient to value, for the same patients; a method's evaluations averaged.

    Raises:
        UserError: as `Evaluation.values`.
    """
    every = [one for methods in rounds for evaluations in methods for one in evaluations]
    for one in every:
        one.check_known(metric, class_name)
    marked = {structure for one in every for structure in one.spurious}
    return [_comparable(methods, metric, class_name, marked) for methods in rounds]


def _comparable(
    methods: Round, metric: str, class_name: str, marked: Container[Structure]
) -> list[dict[str, float]]:
    rows = [[row for one in evaluations for row in one.cases] for evaluations in methods]
    held = [{row.structure for row in of_method} for of_method in rows]
    undefined = {row.structure for row in chain(*rows) if row.value(metric, row.structure in marked) is None}
    without = undefined.union(*held) - (set.intersection(*held) - undefined)
    return [
        average([one.values(metric, class_name, without, marked) for one in evaluations])
        for evaluations in methods
    ]


def missed(evaluations: Iterable[Evaluation], class_name: str = MEAN) -> tuple[int, int]:
    """Structures missed entirely, and structures in the reference, over all scans and seeds.

    Args:
        evaluations: of a method, one for each seed.
        class_name: one of the classes, or "mean" for all of them.
    """
    rows = [row for item in evaluations for row in _of_class(item.cases, class_name)]
    present = [row.status for row in rows if row.status in ("ok", "missed")]
    return present.count("missed"), len(present)


def spurious(evaluations: Iterable[Evaluation], class_name: str = MEAN) -> int:
    """Structures predicted where there is none, over all scans and seeds; see `missed`."""
    return sum(class_name in (name, MEAN) for item in evaluations for _, _, name in item.spurious)


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write ``evaluation.json`` and ``evaluation.csv`` (a row for each case and class) into ``folder``."""
    rows = [[row.content.get(column) for column in COLUMNS] for row in evaluation.cases]
    write_text(folder / TABLE_FILE, csv_text([COLUMNS, *rows]))
    write_json(folder / EVALUATION_FILE, evaluation.content)


def check_evaluation_files(folder: Path, run: str) -> None:
    """Find out before the work whether `write_evaluation` may write its files; see `check_beside`.

    Args:
        folder: where they are to lie.
        run: see `MeasuredFiles`.

    Raises:
        UserError: something else than an evaluation lies there, or another run's.
    """
    path = folder / EVALUATION_FILE
    check_beside(path, '"format": "ccdcseg-evaluation/')
    check_table_beside(folder / TABLE_FILE, COLUMNS)
    try:
        known = read_evaluation(path).measured
    except UserError:  # none, or a damaged one, which is to be replaced
        return
    if known and known.run not in {None, run}:
        raise UserError(f"{path} is the evaluation of another run, {known.run}.", "Give another --output.")


def evaluation_folder(place: Path, predictions: str = PREDICTIONS) -> Path:
    """Where the evaluation of a part of a run lies.

    Args:
        place: see `part_folder`.
        predictions: `PREDICTIONS`, whose evaluation lies beside them, or `PLAIN_PREDICTIONS`, among which it lies.
    """
    return place if predictions == PREDICTIONS else place / predictions


def read_evaluation(path: Path) -> Evaluation:
    """Read an ``evaluation.json``.

    Raises:
        UserError: it is missing, or a field of it is missing or wrong; a scan is there twice or lacks a class; the
            summary is not what the scores give.
    """
    return Evaluation.read(path, f"Make it anew: {_command(path.parent)}")


def read_current(folder: Path, part: str, predictions: str, record: RunRecord) -> Evaluation | None:
    """Read an evaluation of a run and hold it against what was measured, as far as that is still there.

    Args:
        folder: of the run.
        part: "test" or "validation".
        predictions: see `evaluation_folder`.
        record: of the run.

    Returns:
        None where there is none. A warning names one of an earlier version, which does not say what it is of.

    Raises:
        UserError: as `read_evaluation`, `RunRecord.here` and `RunRecord.check_data`; predictions, references, or
            the part's cases or their patients are other ones today.
    """
    place = part_folder(folder, part)
    path = evaluation_folder(place, predictions) / EVALUATION_FILE
    if not path.exists():
        return None
    evaluation = read_evaluation(path)
    reference, cases = record.here("reference", folder), None
    if reference is not None:
        record.check_data(reference.parent, folder)
        if (reference.parent / SPLITS_FILE).exists():
            cases = part_cases(reference.parent, record.fold, part)
    if changed := changed_since(evaluation, place / predictions, reference, record, cases):
        raise UserError(f"{path} is out of date: {changed}.", f"Make it anew: {_command(path.parent)}")
    if evaluation.measured is None and (place / predictions).exists():
        logger.warning(
            "%s is of an earlier version: whether the predictions there are those that it is of is not known. "
            "Make it anew: %s",
            path,
            _command(path.parent),
        )
    return evaluation


def changed_since(
    evaluation: Evaluation,
    predictions: Path,
    references: Path | None,
    record: RunRecord,
    cases: Collection[str] | None,
) -> str:
    """What an evaluation is of that is another today; empty where nothing is. Files that are gone are not compared.

    Args:
        evaluation: of a run.
        predictions: their folder.
        references: folder of the reference masks; None: it is not known.
        record: of the run.
        cases: that the run is measured on; None: they are not known.
    """
    return next(_changed(evaluation, predictions, references, record, cases), "")


def _changed(
    evaluation: Evaluation,
    predictions: Path,
    references: Path | None,
    record: RunRecord,
    cases: Collection[str] | None,
) -> Iterator[str]:
    measured = evaluation.measured
    as_listed = [name for name, value in record.labels.items() if value]  # so did earlier versions
    if [*evaluation.classes] not in (record.classes, as_listed):
        yield "run.json has other classes"
    if references and (references.parent / CASES_FILE).exists():
        patients = {case.case: case.patient for case in read_cases(references.parent)}
        for case, patient in evaluation.patient_of.items():
            if patients.get(case) != patient:
                other = "another patient for" if case in patients else "no"
                yield f"{references.parent / CASES_FILE} has {other} {case}"
    if cases is not None and (others := evaluation.patient_of.keys() ^ {*cases}):
        yield f"{SPLITS_FILE} and the evaluation differ in the scan {min(others)}"
    if measured is None:
        return
    if measured.split != record.split_hash:
        yield "run.json has another split"
    yield from _changed_files(predictions, measured.predictions)
    if references:
        yield from _changed_files(references, measured.references)
        if measured.rule < RULE:
            yield from _of_single_slices(references, measured.references)


def _changed_files(folder: Path, hashes: dict[str, str]) -> Iterator[str]:
    for case, digest in hashes.items():
        file = folder / f"{case}{MASK_SUFFIX}"
        if file.exists() and file_hash(file) != digest:
            yield f"{file} was changed since"


def _of_single_slices(folder: Path, cases: Iterable[str]) -> Iterator[str]:
    for case in cases:
        file = folder / f"{case}{MASK_SUFFIX}"
        if file.exists() and min(read_header(file).get_data_shape()) == 1:
            yield f"distances within a single slice, such as {file}, are measured otherwise since"


def _command(folder: Path) -> str:
    """The command that writes the evaluation in a folder, see `part_folder`."""
    words = ["ccdcseg", "evaluate"]
    folder = folder.parent if folder.name == PLAIN_PREDICTIONS else folder
    if folder == part_folder(folder.parent, "validation"):
        return shlex.join([*words, str(folder.parent), "--part", "validation"])
    return shlex.join([*words, str(folder)])


def _of_class(rows: Iterable[CaseScores], class_name: str) -> Iterator[CaseScores]:
    return (row for row in rows if class_name in (row.class_name, MEAN))


def _by_class(rows: Sequence[CaseScores], classes: Iterable[str]) -> dict[str, Sequence[CaseScores]]:
    """The rows of each class, and of "mean", which are all: to look for those of each class takes long."""
    found: dict[str, list[CaseScores]] = {name: [] for name in classes}
    for row in rows:
        found[row.class_name].append(row)
    return {**found, MEAN: rows}


def _values(
    rows: Iterable[CaseScores],
    classes: Sequence[str],
    metric: str,
    class_name: str,
    marked: Container[Structure] = (),
) -> dict[str, float]:
    """The value of each patient, by the rows of a class, or of all for "mean"."""
    wanted = classes if class_name == MEAN else [class_name]
    scans: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in wanted}
    for row in rows:
        value = row.value(metric, row.structure in marked)
        if value is not None:
            scans[row.class_name][row.patient].append(value)
    return average([{patient: mean(values) for patient, values in found.items()} for found in scans.values()])


def _summary(rows: Sequence[CaseScores], classes: Sequence[str], name: str) -> Summary:
    metrics = {
        metric: MetricSummary.model_validate(describe(_values(rows, classes, metric, name)))
        for metric in SUMMARY_METRICS
    }
    return Summary.model_validate({**metrics, **_counts(rows)})


def _counts(rows: Iterable[CaseScores]) -> dict[str, int]:
    counts = Counter(row.status for row in rows)
    return {
        "n_scans": counts.total(),
        "n_missing": counts["missed"],
        "n_spurious": counts["spurious"],
        "n_absent": counts["absent"],
    }


def _check_summary(name: str, summary: Summary, rows: Sequence[CaseScores], classes: Sequence[str]) -> None:
    """Refuse what the rows do not give. Intervals were drawn and are not drawn again; they lie among the values."""
    for field, count in _counts(rows).items():
        if getattr(summary, field) != count:
            raise ValueError(
                f"summary.{name}.{field} is {getattr(summary, field)}, but the rows of cases give {count}"
            )
    for metric in SUMMARY_METRICS:
        stored, values = getattr(summary, metric), list(_values(rows, classes, metric, name).values())
        expected = mean(values) if values else None
        if stored.n_patients != len(values) or not _equal(stored.value, expected):
            raise ValueError(
                f"summary.{name}.{metric} is {stored.value} of {stored.n_patients} patients, but the rows of cases "
                f"give {expected} of {len(values)}"
            )
        if not _lies_between(stored.interval, values):
            raise ValueError(
                f"summary.{name}.{metric}.interval is {stored.interval}, which the rows of cases cannot give"
            )


def _lies_between(interval: tuple[float, float] | None, values: Sequence[float]) -> bool:
    """Whether a mean of drawn patients can have the interval."""
    if interval is None or len(values) < 2:
        return interval is None and len(values) < 2
    low, high = interval
    return min(values) - TOLERANCE <= low <= high <= max(values) + TOLERANCE


def _equal(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
