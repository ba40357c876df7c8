"""Records and evaluations for tests: those of a stored run folder, and scores that are made up."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ccdcseg.measure.metrics import DISTANCES
from ccdcseg.runs.evaluation import CaseScores, Evaluation, read_evaluation, write_evaluation

STORED = Path(__file__).parent / "stored"
"""A run folder as version 0.1.0 wrote it, without checkpoints and predictions."""

MISSED = {"status": "missed", "dice": 0.0} | dict.fromkeys(DISTANCES)
"""Fields of a structure that was not predicted at all."""
SPURIOUS = MISSED | {"status": "spurious"}
"""Fields of a structure that was predicted where there is none."""
ABSENT = MISSED | {"status": "absent", "dice": None}
"""Fields of a structure that is neither there nor predicted."""


def record(**changes: Any) -> dict[str, Any]:
    """The content of the stored ``run.json`` with changes."""
    return json.loads((STORED / "run.json").read_text()) | changes


def epoch(**changes: Any) -> dict[str, Any]:
    """The first epoch of the stored history with changes."""
    return json.loads((STORED / "history.jsonl").read_text().splitlines()[0]) | changes


def scores(case: str, patient: str, class_name: str, dice: float | None, **values: Any) -> CaseScores:
    """Scores of a structure that was found; distances that are not named are 10 mm."""
    found = dict.fromkeys(DISTANCES, 10.0) if values.get("status", "ok") == "ok" else {}
    given = {"status": "ok", "diagonal_mm": 300.0, **found, **values}
    return CaseScores(case=case, patient=patient, class_name=class_name, dice=dice, **given)


def evaluation(rows: Iterable[CaseScores]) -> Evaluation:
    """The evaluation of scores, classes in their order."""
    rows = list(rows)
    return Evaluation.of(list(dict.fromkeys(row.class_name for row in rows)), rows)


def change_rows(path: Path, change: Any) -> None:
    """Write an evaluation again with other rows: ``change(row)`` gives the fields that are new; None leaves out."""
    found = read_evaluation(path)
    changed = [(row, change(row)) for row in found.cases]
    rows = [CaseScores.model_validate({**row.content, **new}) for row, new in changed if new is not None]
    write_evaluation(Evaluation.of(found.classes, rows), path.parent)
