"""Results in the store that are of something else than today: moved aside, never deleted, never taken for new.

Only what can be made again is moved: a training that is of something else lies in the way of its own.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace

from ccdcseg.datasets.splits import part_cases, part_folder
from ccdcseg.errors import UserError
from ccdcseg.experiments.jobs import Job, Result, read_result
from ccdcseg.files import move_aside
from ccdcseg.nnunet import trained
from ccdcseg.nnunet.current import check_predictions
from ccdcseg.nnunet.runs import Run, teachers_of
from ccdcseg.runs import evaluation
from ccdcseg.runs.record import PREDICTIONS, RUN_FILE, read_record

logger = logging.getLogger(__name__)


def held_against_today(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, each with what makes its result stale, where it has one that is.

    Raises:
        UserError: a result is damaged, or trainings that are to be measured are of something else than today.
    """
    held = [replace(job, stale=why_stale(job)) if job.result.exists() else job for job in jobs]
    unfinished = [job.training for job in held if not job.finished]
    needed = {run.folder: run for training in unfinished for run in (*teachers_of(training), training)}
    if problems := [problem for run in needed.values() if (problem := _in_the_way(run))]:
        raise UserError(f"{'; '.join(problems)}.", trained.REMEDY)
    return held


def _in_the_way(run: Run) -> str:
    """Why `train` would refuse the training that lies there; empty where it would not."""
    if not run.finished:
        return ""
    changed = trained.changed_since(run, read_record(run.folder))
    return changed and f"{run.folder} was trained {changed}"


def set_aside(jobs: Iterable[Job]) -> list[Job]:
    """Move stale results aside, under names that say so and that a warning gives; the jobs, to be done again."""
    return [_set_aside(job) if job.stale else job for job in jobs]


def _set_aside(job: Job) -> Job:
    moved = move_aside(job.result)
    logger.warning("The result of %s is kept as %s and made again: %s.", job.label, moved, job.stale)
    return replace(job, stale="")


def why_stale(job: Job) -> str:
    """Why a job's result is not what its commands would give today; empty where nothing says so.

    Looked at are, as far as they are there, the scans that were trained on, the run, its predictions with what they
    are made from, the references, and of which scans the part is.

    Raises:
        UserError: the result is damaged.
    """
    result = read_result(job)
    if changed := trained.changed_since(job.training, result.run):
        return f"it was trained {changed}"
    predictions = part_folder(job.run, job.part) / PREDICTIONS
    references = job.training.raw / "labelsTr"
    cases = part_cases(job.training.raw, job.training.fold, job.part)
    if changed := evaluation.changed_since(result.evaluation, predictions, references, result.run, cases):
        return changed
    return _of_another_run(job, result) if (job.run / RUN_FILE).exists() else ""


def _of_another_run(job: Job, result: Result) -> str:
    """What the run in its folder has that the result has not."""
    if read_record(job.run).published.content != result.run.content:
        return f"{job.run} was trained again since"
    place = part_folder(job.run, job.part)
    try:
        check_predictions(job.run, place / PREDICTIONS, result.evaluation.patient_of)
        file = place / evaluation.EVALUATION_FILE
        again = file.exists() and evaluation.read_evaluation(file).cases != result.evaluation.cases
    except UserError as error:
        return error.problem.removesuffix(".")
    return f"{job.run} was evaluated again since" if again else ""
