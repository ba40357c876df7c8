"""Evaluating the predictions of a run on its test cases."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ccdcseg import __version__
from ccdcseg.datasets.cases import read_cases, read_ignore_label
from ccdcseg.datasets.release import MASK_SUFFIX
from ccdcseg.datasets.splits import part_cases, part_folder
from ccdcseg.errors import UserError
from ccdcseg.files import check_writable, file_hash, real
from ccdcseg.nnunet.current import check_predictions
from ccdcseg.runs.evaluation import (
    EVALUATION_FILE,
    RULE,
    Evaluation,
    MeasuredFiles,
    check_evaluation_files,
    evaluation_folder,
    read_current,
    read_evaluation,
    write_evaluation,
)
from ccdcseg.runs.record import PLAIN_PREDICTIONS, PREDICTIONS, RUN_FILE, RunRecord, read_record
from ccdcseg.runs.scoring import evaluate_folder


def evaluate_run(
    folder: Path,
    part: str,
    workers: int,
    progress: Callable[[int, int], None],
    output: Path | None = None,
) -> dict[str, Evaluation]:
    """Measure a run's predictions against the references of its dataset, and write the evaluation beside them.

    Where post-processing made the predictions, those of the network as it is are measured too, and that evaluation
    is written among them. An evaluation of the same files by this version is not made again.

    Args:
        folder: of the run.
        part: "test" or "validation", the patients of the split.
        workers: threads.
        progress: called with cases done and cases in all.
        output: folder that stands in for the run's own, which may be read-only; see `predictions_folder`.

    Returns:
        Of `PREDICTIONS` and, if there are any, of `PLAIN_PREDICTIONS`.

    Raises:
        UserError: a prediction is missing, does not fit its reference or is not what the run predicts today;
            something else than an evaluation lies in its place in ``output``; or as `RunRecord.local`.
        OSError: the evaluation cannot be written; this is found out before anything is measured.
    """
    place = part_folder(output or folder, part)
    if output:
        _check_apart(output, folder)
    check_writable(place)
    record = read_record(folder)
    run = f"{record.dataset}/{record.trainer}__{record.plans}/fold_{record.fold}" if output else None
    reference = record.local("reference", folder)
    raw = reference.parent
    cases = part_cases(raw, record.fold, part)
    patients = {case.case: case.patient for case in read_cases(raw)}
    source = predictions_folder(folder, part, output).parent
    names = [PREDICTIONS, *([PLAIN_PREDICTIONS] if (source / PLAIN_PREDICTIONS).exists() else [])]
    for name in names:
        if run:  # a run's own folder holds nothing of others
            check_evaluation_files(evaluation_folder(place, name), run)
        check_predictions(folder, source / name, cases)
    score = partial(
        evaluate_folder,
        reference,
        labels=record.labels,
        patients=patients,
        cases=cases,
        workers=workers,
        ignore=read_ignore_label(raw),
    )
    results = {}
    for index, name in enumerate(names):
        measured = _hashes(record, reference, source / name, cases, run)
        found = _stored(evaluation_folder(place, name), measured)
        if not found or [*found.classes] != record.classes or found.patient_of.items() - patients.items():
            found = score(source / name, progress=_stage(progress, index, len(names)))
        results[name] = found.model_copy(update={"measured": measured})
    for name, result in results.items():
        write_evaluation(result, evaluation_folder(place, name))
    return results


def _check_apart(output: Path, folder: Path) -> None:
    """Refuse a folder of another run, whose evaluation that of this one would pass for."""
    place = real(output)
    for other in (place, *place.parents):
        if (other / RUN_FILE).exists() and other != real(folder):
            raise UserError(f"{output} lies in another run, {other}.", "Give a folder outside of it.")


def predictions_folder(folder: Path, part: str, output: Path | None) -> Path:
    """Where the predictions of a run lie: in the folder that stands in for it, if they were written there."""
    places = [part_folder(place, part) / PREDICTIONS for place in (output, folder) if place]
    return next((place for place in places if place.is_dir()), places[-1])


def _hashes(
    record: RunRecord, reference: Path, predictions: Path, cases: Sequence[str], run: str | None
) -> MeasuredFiles:
    """Of what is about to be measured: what changes meanwhile shows later. Files that are missing are left out."""
    hashes = [
        {case: file_hash(file) for case in cases if (file := folder / f"{case}{MASK_SUFFIX}").is_file()}
        for folder in (reference, predictions)
    ]
    return MeasuredFiles(
        version=__version__,
        rule=RULE,
        split=record.split_hash,
        references=hashes[0],
        predictions=hashes[1],
        run=run,
    )


def _stored(folder: Path, measured: MeasuredFiles) -> Evaluation | None:
    """The evaluation that is there, if it is whole and of these files; None: it is to be made, maybe again."""
    try:
        found = read_evaluation(folder / EVALUATION_FILE)
    except UserError:
        return None
    return found if found.measured == measured else None


def _stage(progress: Callable[[int, int], None], index: int, of: int) -> Callable[[int, int], None]:
    """Progress of one of several folders with as many cases each."""
    return lambda done, cases: progress(index * cases + done, of * cases)


def check_measured(folder: Path, part: str) -> None:
    """See that the predictions that were measured are what the run predicts today; see `check_predictions`.

    Args:
        folder: of the run.
        part: "test" or "validation", the patients of the split.

    Raises:
        UserError: one is not; or the evaluation is damaged or out of date.
    """
    record = read_record(folder)
    for name in (PREDICTIONS, PLAIN_PREDICTIONS):
        if evaluation := read_current(folder, part, name, record):
            check_predictions(folder, part_folder(folder, part) / name, evaluation.patient_of)
