import pytest

from ccdcseg import progress


def test_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress_bars() as report:
        for done in range(1, 101):
            report("train", done, 100)
            now[0] += 1
        report("train", 100, 100, "loss 0.120")
    *lines, last = capsys.readouterr().err.splitlines()
    assert last == "train: 100 of 100, 0 s left, loss 0.120"
    assert lines[0] == "train: 1 of 100"
    assert lines[1] == "train: 16 of 100, 84 s left"
    assert lines[-1] == "train: 100 of 100, 0 s left"
    assert len(lines) == 8


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.progress_bars() as report:
        report("train", 1, 4)
        report("predict", 2, 2)
        report("train", 3, 4, "loss 0.120")
    shown = capsys.readouterr().err
    assert "train" in shown
    assert "3/4" in shown
    assert "loss 0.120" in shown
    assert "2/2" in shown


def test_bars_of_what_is_finished_make_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """A terminal shows the first bars alone where there are more than it has lines."""
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("LINES", "10")
    with progress.progress_bars() as report:
        for number in range(1, 31):
            report(f"training {number}", 1, 2)
            report("measured", number - 1, 30)
            report(f"training {number}", 2, 2)
    *_, last = capsys.readouterr().err.split("training 25")
    assert "training 30" in last
    assert "measured" in last
    assert "training 24" not in last
