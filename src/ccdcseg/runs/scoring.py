"""Score a folder of predictions against a folder of references, and sum up by patient."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from numbers import Integral
from pathlib import Path

import numpy as np

from ccdcseg.datasets.cases import CASES_FILE
from ccdcseg.datasets.release import MASK_SUFFIX
from ccdcseg.datasets.volumes import Volume, check_pair, read_mask
from ccdcseg.datasets.walk import names_with
from ccdcseg.errors import UserError
from ccdcseg.measure.display import METRICS, number, spurious_text
from ccdcseg.measure.metrics import Scores, measure
from ccdcseg.measure.patients import MEAN
from ccdcseg.processes import thread_map
from ccdcseg.runs.evaluation import CaseScores, Evaluation, Summary
from ccdcseg.tabular import Entry, Grid

_RESTORE = (
    f"Check the path, or restore the file; if its patient withdrew, remove the row of {CASES_FILE}, too."
)


def evaluate_folder(
    reference: Path | str,
    prediction: Path | str,
    labels: Mapping[str, int],
    patients: Mapping[str, str],
    cases: Sequence[str] | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    ignore: int | None = None,
) -> Evaluation:
    """Score ``prediction/CASE.nii.gz`` against ``reference/CASE.nii.gz``.

    Args:
        reference: folder of reference label maps.
        prediction: folder of predicted label maps.
        labels: class name to label value, as in ``dataset.json``; value 0, the background, is not scored, and
            nnU-Net's "ignore" is no class: it is taken for ``ignore``.
        patients: case to patient.
        cases: the cases to score; default: all of ``reference``.
        workers: threads.
        progress: called with the number of cases done and of all cases, after each.
        ignore: value of the voxels that nobody has labelled, if the data set has one.

    Raises:
        UserError: nothing to score, or ``reference`` cannot be read; a label is a region, a list of values; a file
            is missing, unreadable, or has unknown labels; a reference holds ignored voxels; a prediction has
            another shape or geometry than its reference; a case has no patient.
    """
    reference, prediction = Path(reference), Path(prediction)
    classes, ignore = _foreground(labels), labels.get("ignore", ignore)
    names = names_with(reference, MASK_SUFFIX) if cases is None else sorted(set(cases))
    _check_cases(names, reference, prediction, patients)
    score_case = partial(
        _score_case, reference=reference, prediction=prediction, classes=classes, ignore=ignore
    )
    rows = dict(zip(names, thread_map(score_case, names, workers, progress), strict=True))
    scores = [
        CaseScores(case=name, patient=patients[name], class_name=label, **asdict(row))
        for name in names
        for label, row in rows[name].items()
    ]
    return Evaluation.of(list(classes), scores)


def summary_grid(results: Iterable[tuple[str, Evaluation]]) -> Grid:
    """A row for each class of each run, whose name stands before its evaluation, and for their mean."""
    rows = tuple(
        (Entry("" if place else run), Entry(name), *_cells(result.summary[name]))
        for run, result in results
        for place, name in enumerate((*result.classes, MEAN))
    )
    note = (
        "Mean over patients. Missed: structures not predicted at all, left out of HD95; spurious: predicted where "
        "there is none, Dice 0."
    )
    return Grid("", ("run", "class", "Dice, %", "hd95_pooled_mm", "missed"), rows, note)


def _cells(summary: Summary) -> tuple[Entry, Entry, Entry]:
    return (
        Entry(number(summary.dice.value, METRICS["dice"])),
        Entry(number(summary.hd95_pooled_mm.value, METRICS["hd95_pooled_mm"])),
        Entry(str(summary.n_missing), note=spurious_text(summary.n_spurious)),
    )


def _foreground(labels: Mapping[str, int]) -> dict[str, int]:
    classes = {name: value for name, value in labels.items() if value != 0 and name != "ignore"}
    regions = [name for name, value in classes.items() if not isinstance(value, Integral)]
    if regions:
        raise UserError(
            f"The label of {regions[0]} is {classes[regions[0]]}: overlapping regions are not supported.",
            "Give each class one integer label.",
        )
    if not classes or MEAN in classes:
        raise UserError(
            f"The labels {dict(labels)} name no foreground class, or one called '{MEAN}'.",
            "Name each foreground class and its value in dataset.json.",
        )
    return classes


def _check_cases(
    names: Sequence[str], reference: Path, prediction: Path, patients: Mapping[str, str]
) -> None:
    if not names:
        raise UserError(
            f"There are no cases to score in {reference}.", f"Label maps are named CASE{MASK_SUFFIX}."
        )
    for folder, remedy in ((reference, _RESTORE), (prediction, "Predict every case first.")):
        missing = [name for name in names if not (folder / f"{name}{MASK_SUFFIX}").is_file()]
        if missing:
            raise UserError(f"{folder} lacks {_first(missing)}.", remedy)
    unknown = [name for name in names if name not in patients]
    if unknown:
        raise UserError(
            f"No patient is known for {_first(unknown)}.", "Add the case to the table of patients."
        )


def _first(names: Sequence[str]) -> str:
    return f"{names[0]}{MASK_SUFFIX}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _check_whole(reference: Volume, ignore: int | None) -> None:
    """Refuse a reference that is annotated in part: nobody knows where the surfaces run in the rest."""
    ignored = 0 if ignore is None else int(np.count_nonzero(reference.array == ignore))
    if ignored:
        raise UserError(
            f"{reference.path} has {ignored} voxels with the ignore label {ignore}: distances between surfaces "
            "cannot be measured where nobody has drawn them.",
            "Annotate the scans that are tested on in full, or measure their Dice alone: nnUNetv2_evaluate_folder.",
        )


def _score_case(
    name: str, reference: Path, prediction: Path, classes: Mapping[str, int], ignore: int | None
) -> dict[str, Scores]:
    """The scores of one case, of each class."""
    expected = read_mask(reference / f"{name}{MASK_SUFFIX}", classes, ignore)
    _check_whole(expected, ignore)
    found = read_mask(prediction / f"{name}{MASK_SUFFIX}", classes)
    check_pair(expected, found)
    return {
        label: measure(expected.array == value, found.array == value, expected.spacing_mm)
        for label, value in classes.items()
    }
