"""What people say of masks that were reviewed: ``review.csv`` beside the data, never in the masks.

An answer holds for the mask that it was given on, whose hash is kept with it. Spreadsheets drop zeros before the
name of a case that is a number (001); such a case is known by that hash.
"""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from ccdcseg.datasets.tables import Row, read_table
from ccdcseg.errors import UserError
from ccdcseg.files import locked, write_text
from ccdcseg.tabular import exact_csv_text
from ccdcseg.texts import from_cell

ANSWERS_FILE = "review.csv"
ANSWERS = ("right", "wrong", "unsure")


@dataclass(frozen=True)
class Answer:
    """What somebody says of a mask.

    Attributes:
        dataset: name of the data set's folder.
        case: whose mask it is.
        mask: SHA-256 of the file that was looked at.
        answer: one of `ANSWERS`.
    """

    dataset: str
    case: str
    mask: str
    answer: str


COLUMNS = [field.name for field in fields(Answer)]
_REMEDY = "Give the CSV that the button of the review's page saved."


def read_answers(path: Path, remedy: str = _REMEDY) -> list[Answer]:
    """Read a table of answers.

    Args:
        path: of the table.
        remedy: what to do about one that cannot be used.

    Raises:
        UserError: it cannot be read (see `read_table`), or an answer is none of `ANSWERS`.
    """
    return [_answer(row) for row in read_table(path, COLUMNS, "", remedy)]


def stored_answers(raw_folder: Path) -> dict[str, Answer]:
    """The answers that are kept beside a data set, by case.

    Raises:
        UserError: as `read_answers`, they are another data set's, or a case comes twice.
    """
    path = raw_folder / ANSWERS_FILE
    answers = read_answers(path, "Restore it, or move it away.") if path.exists() else []
    _check_dataset(path, answers, raw_folder)
    _check_once(path, answers)
    return {answer.case: answer for answer in answers}


def take_answers(
    raw_folder: Path, path: Path, masks: Mapping[str, str]
) -> tuple[list[Answer], dict[str, Answer]]:
    """Keep answers beside the data set, as others may at the same time; a new one replaces the case's older one.

    Args:
        raw_folder: of the data set.
        path: the table to read.
        masks: SHA-256 of the mask of each annotated case today, at least of those that an answer may be on.

    Returns:
        The answers that were read, and by case those that were kept before.

    Raises:
        UserError: as `read_answers`; there is none; they are another data set's; a case is unknown or comes twice,
            or its mask was changed since the answer was given. Nothing is kept then.
    """
    answers = [_with_zeros(answer, masks) for answer in read_answers(path)]
    if not answers:
        raise UserError(f"{path} holds no answer.", "Answer on the page first, then save the table again.")
    _check_dataset(path, answers, raw_folder)
    _check_once(path, answers)
    for answer in answers:
        if answer.case not in masks:
            raise UserError(
                f"{path}: there is no annotated case {answer.case}.",
                f"{_REMEDY[:-1]}, as it was saved: spreadsheets drop zeros before numbers (001).",
            )
        if masks[answer.case] != answer.mask:
            raise UserError(
                f"{path}: the mask of {answer.case} was changed since the answer was given.",
                "Review again and answer on the new page, or remove the row.",
            )
    with locked(raw_folder, "review", wait=True):
        before = stored_answers(raw_folder)
        kept = before | {answer.case: answer for answer in answers}
        write_answers(raw_folder / ANSWERS_FILE, [kept[case] for case in sorted(kept)])
    return answers, before


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write a table of answers, atomically."""
    write_text(path, exact_csv_text([COLUMNS, *(astuple(answer) for answer in answers)]))


def _answer(row: Row) -> Answer:
    answer = Answer(**{name: from_cell(value) for name, value in row.values.items()})
    if answer.answer not in ANSWERS:
        raise UserError(
            f"{row.place}: {answer.answer[:40]!r} is no answer.", f"Write one of {', '.join(ANSWERS)}."
        )
    return answer


def may_be_on(answer: Answer, case: str) -> bool:
    """Whether an answer may be on a case: it names it, or the number that is left of its name without zeros."""
    return answer.case == case or (answer.case.isdecimal() and answer.case.zfill(len(case)) == case)


def _with_zeros(answer: Answer, masks: Mapping[str, str]) -> Answer:
    """An answer under the only name, among those that it may be on, of a case with that mask; else as it is."""
    cases = [case for case, mask in masks.items() if mask == answer.mask and may_be_on(answer, case)]
    return replace(answer, case=cases[0]) if len(cases) == 1 else answer


def _check_once(path: Path, answers: Iterable[Answer]) -> None:
    seen: set[str] = set()
    for answer in answers:
        if answer.case in seen:
            raise UserError(f"{path} has two answers for {answer.case}.", "Keep one.")
        seen.add(answer.case)


def _check_dataset(path: Path, answers: Iterable[Answer], raw_folder: Path) -> None:
    for answer in answers:
        if answer.dataset != raw_folder.name:
            raise UserError(
                f"{path} holds answers on {answer.dataset[:80]}, not on {raw_folder.name}.",
                "Give the answers on this data set.",
            )
