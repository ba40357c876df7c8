"""Evaluating the predictions of a run on its test cases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ccdcseg.datasets.cases import read_cases
from ccdcseg.evaluation.evaluate import evaluate_folder, write_evaluation
from ccdcseg.files import read_json


def evaluate_run(folder: Path, workers: int, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Measure a run's predictions against the references of its dataset, and write the evaluation beside them.

    Raises:
        UserError: a prediction is missing or does not fit its reference.
    """
    run = read_json(folder / "run.json")
    raw = Path(run["reference"]).parent
    test = read_json(raw / "splits_final.json")[run["fold"]]["test"]
    patients = {case.case: case.patient for case in read_cases(raw)}
    result = evaluate_folder(
        Path(run["reference"]),
        folder / "predictions",
        run["labels"],
        patients,
        cases=test,
        workers=workers,
        progress=progress,
    )
    write_evaluation(result, folder)
    return result
