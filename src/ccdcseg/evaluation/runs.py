"""Evaluating the predictions of a run on its test cases."""

from collections.abc import Callable
from pathlib import Path

from ccdcseg.datasets.cases import read_cases, read_ignore_label
from ccdcseg.datasets.splits import check_split, part_cases, part_folder
from ccdcseg.evaluation.evaluate import evaluate_folder
from ccdcseg.runs.evaluation import Evaluation, write_evaluation
from ccdcseg.runs.record import read_record


def evaluate_run(folder: Path, part: str, workers: int, progress: Callable[[int, int], None]) -> Evaluation:
    """Measure a run's predictions against the references of its dataset, and write the evaluation beside them.

    Args:
        folder: of the run.
        part: "test" or "validation", the patients of the split.
        workers: threads.
        progress: called with cases done and cases in all.

    Raises:
        UserError: a prediction is missing or does not fit its reference, or splits were drawn anew since the run
            was trained.
    """
    record = read_record(folder)
    reference = record.local("reference", folder)
    raw = reference.parent
    check_split(raw, record.fold, record.split_hash, folder)
    place = part_folder(folder, part)
    patients = {case.case: case.patient for case in read_cases(raw)}
    result = evaluate_folder(
        reference,
        place / "predictions",
        record.labels,
        patients,
        cases=part_cases(raw, record.fold, part),
        workers=workers,
        progress=progress,
        ignore=read_ignore_label(raw),
    )
    write_evaluation(result, place)
    return result
