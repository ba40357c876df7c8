import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ccdcseg.errors import UserError
from ccdcseg.review import answers as module
from ccdcseg.review.answers import ANSWERS_FILE, Answer, stored_answers, take_answers, write_answers

NUMBERED = {"01": "1" * 64, "001": "2" * 64, "010": "3" * 64, "000": "4" * 64, "7": "5" * 64, "0a": "6" * 64}
HASHES = {"a": "1" * 64, "b": "2" * 64, "=c;+d": "3" * 64}
HIDDEN = "\u200e=\u05e9\u200b\n1"


def answer(case: str, said: str, dataset: str = "Dataset007_Small", mask: str | None = None) -> Answer:
    return Answer(dataset, case, HASHES.get(case, "9" * 64) if mask is None else mask, said)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "Dataset007_Small"
    folder.mkdir()
    return folder


def handed_in(raw: Path, *answers: Answer) -> Path:
    path = raw.parent / "answers.csv"
    write_answers(path, answers)
    return path


def test_answers_are_kept_and_newer_ones_count(raw: Path) -> None:
    _, none = take_answers(raw, handed_in(raw, answer("b", "wrong"), answer("=c;+d", "unsure")), HASHES)
    _, before = take_answers(raw, handed_in(raw, answer("a", "right"), answer("b", "right")), HASHES)
    assert none == {}
    assert {case: one.answer for case, one in before.items()} == {"b": "wrong", "=c;+d": "unsure"}
    kept = stored_answers(raw)
    assert {case: one.answer for case, one in kept.items()} == {"a": "right", "b": "right", "=c;+d": "unsure"}


def test_answers_of_two_people_at_once_are_all_kept(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_slowly(folder: Path) -> dict[str, Answer]:
        kept = stored_answers(folder)
        time.sleep(0.3)
        return kept

    def keep(case: str) -> None:
        path = raw.parent / f"{case}.csv"
        write_answers(path, [answer(case, "wrong")])
        take_answers(raw, path, HASHES)

    monkeypatch.setattr(module, "stored_answers", read_slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(keep, "ab"))
    assert sorted(stored_answers(raw)) == ["a", "b"]
    assert [path.name for path in raw.iterdir()] == [ANSWERS_FILE]


def test_names_keep_what_is_not_seen(raw: Path) -> None:
    given = answer(HIDDEN, "right")
    assert take_answers(raw, handed_in(raw, given), {HIDDEN: given.mask}) == ([given], {})
    assert stored_answers(raw) == {HIDDEN: given}


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ([answer("a", "maybe")], "'maybe' is no answer"),
        ([answer("a", "right", "Dataset008_Other")], "answers on Dataset008_Other, not on Dataset007_Small"),
        (
            [answer("z", "right")],
            r"there is no annotated case z.*spreadsheets drop zeros before numbers \(001\)",
        ),
        ([answer("a", "right"), answer("a", "wrong")], "two answers for a"),
        ([answer("b", "right", mask="4" * 64)], "the mask of b was changed since"),
        ([], "holds no answer"),
    ],
)
def test_answers_that_cannot_be_right_are_refused_whole(raw: Path, wrong: list[Answer], problem: str) -> None:
    take_answers(raw, handed_in(raw, answer("a", "wrong")), HASHES)
    before = (raw / ANSWERS_FILE).read_bytes()
    with pytest.raises(UserError, match=problem):
        take_answers(
            raw, handed_in(raw, answer("=c;+d", "right"), *wrong) if wrong else handed_in(raw), HASHES
        )
    assert (raw / ANSWERS_FILE).read_bytes() == before


@pytest.mark.parametrize(
    "content",
    ["", "dataset,case,mask\n", "dataset,case,mask,answer\nonly,three,values\n", "\xff\xfe", "<html>"],
)
def test_what_is_no_table_of_answers_is_refused(raw: Path, content: str) -> None:
    path = raw.parent / "answers.csv"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError):
        take_answers(raw, path, HASHES)
    assert not (raw / ANSWERS_FILE).exists()


def test_a_foreign_table_beside_the_data_is_named(raw: Path) -> None:
    (raw / ANSWERS_FILE).write_text("film,stars\nAlien,5\n")
    with pytest.raises(
        UserError, match=r"review.csv has the columns film, stars\. Restore it, or move it away"
    ):
        take_answers(raw, handed_in(raw, answer("a", "right")), HASHES)


def numbered(**answers: str) -> list[Answer]:
    """Answers on cases as a spreadsheet saved them: by what is left of the names "001" and the like."""
    return [answer(case.lstrip("_0") or "0", said, mask=NUMBERED[case[1:]]) for case, said in answers.items()]


def test_numbers_get_back_the_zeros_that_a_spreadsheet_dropped(raw: Path) -> None:
    given = numbered(_01="wrong", _001="right", _010="unsure", _000="right", _7="wrong")
    assert [one.case for one in given] == ["1", "1", "10", "0", "7"]
    taken, _ = take_answers(raw, handed_in(raw, *given), NUMBERED)
    assert {one.case: one.answer for one in taken} == {
        "01": "wrong", "001": "right", "010": "unsure", "000": "right", "7": "wrong",
    }  # fmt: skip
    assert stored_answers(raw) == {one.case: one for one in taken}


@pytest.mark.parametrize(
    ("masks", "given", "problem"),
    [
        ({"01": "1" * 64, "001": "1" * 64}, numbered(_01="wrong"), "no annotated case 1"),
        ({"001": "7" * 64}, numbered(_001="wrong"), "no annotated case 1"),
        ({"1": "7" * 64}, numbered(_01="wrong"), "the mask of 1 was changed since"),
        (NUMBERED, numbered(_0a="wrong"), "no annotated case a"),
        (
            NUMBERED,
            [*numbered(_001="wrong"), answer("001", "right", mask="2" * 64)],
            "has two answers for 001",
        ),
    ],
)
def test_a_number_whose_mask_names_no_case_gets_no_zeros(
    raw: Path, masks: dict[str, str], given: list[Answer], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        take_answers(raw, handed_in(raw, *given), masks)
    assert not (raw / ANSWERS_FILE).exists()
