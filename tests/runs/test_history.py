import json
import logging
import shutil
from pathlib import Path

import pytest
from scored import STORED, epoch

from ccdcseg.errors import UserError
from ccdcseg.runs.history import Epoch, count_epochs, extend_history, read_history, write_history


def test_none_where_nothing_was_written(tmp_path: Path):
    assert read_history(tmp_path) == []
    assert count_epochs(tmp_path) == 0


def test_a_last_line_that_is_cut_short_is_dropped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    text = (STORED / "history.jsonl").read_text()
    first = text.splitlines(keepends=True)[0]
    for length in (len(first) + 1, len(text) - 2):
        caplog.clear()
        (tmp_path / "history.jsonl").write_text(text[:length])
        with caplog.at_level(logging.WARNING):
            assert [found.epoch for found in read_history(tmp_path)] == [0]
        assert "history.jsonl: its last line is cut short" in caplog.text
    (tmp_path / "history.jsonl").write_text(text[:-1])
    assert len(read_history(tmp_path)) == 2


def test_a_line_in_the_middle_is_refused_with_its_number(tmp_path: Path):
    text = (STORED / "history.jsonl").read_text()
    (tmp_path / "history.jsonl").write_text("{\n" + text)
    with pytest.raises(UserError, match=r"history\.jsonl, line 1: "):
        read_history(tmp_path)


@pytest.mark.parametrize("changes", [{"epoch": 0, "iteration": 9}, {"epoch": 1, "iteration": 3}])
def test_epochs_are_in_their_order(tmp_path: Path, changes: dict[str, int]):
    lines = [epoch(), epoch(**changes)]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=r"line 2: epoch . at iteration . follows epoch 0 at iteration 3"):
        read_history(tmp_path)


def test_telemetry_has_a_number_for_each_class(tmp_path: Path):
    for quantity, held in {"confidence": [0.5], "confusion": [[0.5] * 3] * 4}.items():
        changed = epoch(diagnostics=epoch()["diagnostics"] | {quantity: held})
        (tmp_path / "history.jsonl").write_text(json.dumps(changed) + "\n")
        with pytest.raises(
            UserError, match=f"diagnostics: {quantity} does not have a number for each of the 4"
        ):
            read_history(tmp_path)


def test_epochs_are_counted_while_they_are_written(tmp_path: Path):
    shutil.copy(STORED / "history.jsonl", tmp_path)
    assert count_epochs(tmp_path) == 2
    write_history(tmp_path, [Epoch.model_validate(epoch())])
    assert count_epochs(tmp_path) == 1


def epochs(count: int) -> list[Epoch]:
    return [Epoch.model_validate(epoch(epoch=number, iteration=number + 1)) for number in range(count)]


def test_an_epoch_is_written_behind_the_others(tmp_path: Path):
    path, every = tmp_path / "history.jsonl", epochs(3)
    size = extend_history(tmp_path, every[:1], None)
    written = path.stat()
    assert size == written.st_size
    size = extend_history(tmp_path, every[:2], size)
    extend_history(tmp_path, every, size)
    assert path.stat().st_ino == written.st_ino
    assert read_history(tmp_path) == every


@pytest.mark.parametrize("beyond", ["", '{"epo', "{}\n"])
def test_what_is_beyond_the_checkpoint_goes_when_a_training_goes_on(tmp_path: Path, beyond: str):
    path, every = tmp_path / "history.jsonl", epochs(3)
    write_history(tmp_path, every)
    with path.open("a") as handle:
        handle.write(beyond)
    extend_history(tmp_path, every[:2], None)
    assert read_history(tmp_path) == every[:2]


def test_a_history_that_was_changed_or_taken_away_meanwhile_is_written_anew(tmp_path: Path):
    path, every = tmp_path / "history.jsonl", epochs(3)
    size = extend_history(tmp_path, every[:1], None)
    path.write_text("")
    size = extend_history(tmp_path, every[:2], size)
    assert read_history(tmp_path) == every[:2]
    path.unlink()
    extend_history(tmp_path, every, size)
    assert read_history(tmp_path) == every
