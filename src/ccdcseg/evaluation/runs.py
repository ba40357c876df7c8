"""Evaluating the predictions of a run on its test cases."""

from collections.abc import Callable
from pathlib import Path

from ccdcseg.datasets.cases import read_cases, read_ignore_label
from ccdcseg.datasets.splits import check_split, part_cases, part_folder
from ccdcseg.evaluation.evaluate import evaluate_folder
from ccdcseg.runs.evaluation import Evaluation, evaluation_folder, write_evaluation
from ccdcseg.runs.record import PLAIN_PREDICTIONS, PREDICTIONS, read_record


def evaluate_run(
    folder: Path, part: str, workers: int, progress: Callable[[int, int], None]
) -> dict[str, Evaluation]:
    """Measure a run's predictions against the references of its dataset, and write the evaluation beside them.

    Where post-processing made the predictions, those of the network as it is are measured too, and that evaluation
    is written among them.

    Args:
        folder: of the run.
        part: "test" or "validation", the patients of the split.
        workers: threads.
        progress: called with cases done and cases in all.

    Returns:
        Of `PREDICTIONS` and, if there are any, of `PLAIN_PREDICTIONS`.

    Raises:
        UserError: a prediction is missing or does not fit its reference, or splits were drawn anew since the run
            was trained.
    """
    record = read_record(folder)
    reference = record.local("reference", folder)
    raw = reference.parent
    check_split(raw, record.fold, record.split_hash, folder)
    place, cases = part_folder(folder, part), part_cases(raw, record.fold, part)
    measured = [name for name in (PREDICTIONS, PLAIN_PREDICTIONS) if _is_measured(place / name)]
    results = {
        name: evaluate_folder(
            reference,
            place / name,
            record.labels,
            {case.case: case.patient for case in read_cases(raw)},
            cases=cases,
            workers=workers,
            progress=_stage(progress, index, len(measured)),
            ignore=read_ignore_label(raw),
        )
        for index, name in enumerate(measured)
    }
    for name, result in results.items():
        write_evaluation(result, evaluation_folder(place, name))
    return results


def _stage(progress: Callable[[int, int], None], index: int, of: int) -> Callable[[int, int], None]:
    """Progress of one of several folders with as many cases each."""
    return lambda done, cases: progress(index * cases + done, of * cases)


def _is_measured(predictions: Path) -> bool:
    return predictions.name == PREDICTIONS or predictions.exists()
