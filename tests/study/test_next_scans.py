"""Ways of choosing scans against chance, on made-up scores."""

import sys
from pathlib import Path

import numpy as np
import pytest

import next_scans
from ccdcseg.report.next_page import ADVICE

PATIENTS = ("a", "b", "c", "d")


def scores(gain: dict[str, float]) -> dict[str, dict[str, float]]:
    """Dice of each way, seed and patient: that of chance, and what a way gains."""
    generator = np.random.default_rng(0)
    chance = {(seed, one): generator.uniform(0.5, 0.8) for seed in next_scans.SEEDS for one in PATIENTS}
    return {
        next_scans.name(way, seed): {one: chance[seed, one] + gain.get(way, 0.0) for one in PATIENTS}
        for way in next_scans.WAYS
        for seed in next_scans.SEEDS
    }


def summary_of(found: dict[str, dict[str, float]]) -> dict[str, next_scans.Row]:
    """By way."""
    return {row.way: row for row in next_scans.summary(found)}


def test_a_way_that_always_gains_as_much():
    rows = summary_of(scores({"unsure": 0.02, "start": -0.1}))
    assert rows["unsure"].gain == pytest.approx(2)
    assert (rows["unsure"].low, rows["unsure"].high) == pytest.approx((2, 2))
    assert rows["unsure"].seeds == pytest.approx((2, 2, 2))
    assert rows["start"].seeds == pytest.approx((-10, -10, -10))
    assert rows["covering"].gain == 0
    assert rows["unsure"].dice - rows["random"].dice == pytest.approx(2)


def test_the_interval_is_over_patients_whose_seeds_are_averaged_first():
    found = scores({})
    for place, one in enumerate(PATIENTS):
        for seed in next_scans.SEEDS:
            found[f"unsure_seed{seed}"][one] += place / 100 + (seed - 1) / 10
    row = summary_of(found)["unsure"]
    assert row.gain == pytest.approx(1.5)
    assert 0 <= row.low < 1.5 < row.high <= 3
    assert row.seeds == pytest.approx((-8.5, 1.5, 11.5))


def test_a_row_of_the_table_is_a_way():
    way = next_scans.Row("unsure", 84.26, 0.5, -0.34, 1.26, (0.1, -0.2, 1.6))
    chance = next_scans.Row("random", 83.76, 0, 0, 0, (0, 0, 0))
    assert list(next_scans.table([chance, way]))[2:] == [
        "| `random` | 83.8 |  |  |",
        "| `unsure` | 84.3 | +0.5 [-0.3, +1.3] | +0.1, -0.2, +1.6 |",
    ]


def test_the_advice_of_the_command_is_what_was_measured():
    rows = summary_of(next_scans.measured())
    assert f"({rows['covering'].gain:+.1f} and {rows['unsure'].gain:+.1f} Dice points)" in ADVICE
    assert max(rows["covering"].low, rows["unsure"].low) < 0


def test_what_is_published_was_declared():
    declared = {next_scans.name(way, seed) for way in next_scans.WAYS for seed in next_scans.SEEDS}
    assert {*next_scans.published()} <= declared


@pytest.fixture
def small(raw_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One patient of three to begin with, one more to choose, one to test on; nothing published."""
    for name, value in (
        ("START", 1),
        ("MORE", 1),
        ("TEST", 1),
        ("SEEDS", (0,)),
        ("PUBLISHED", tmp_path / "none"),
    ):
        monkeypatch.setattr(next_scans, name, value)
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(sys, "argv", ["next_scans.py", "7"])
    return raw_folder


def test_what_is_published_is_not_trained_again(small, monkeypatch, capsys):
    """The least sure, too, which would take the network of the start."""
    trained, published = [], []
    monkeypatch.setattr(next_scans, "trained", lambda raw, cases, split, seed: trained.append(split) or small)
    monkeypatch.setattr(next_scans, "publish", lambda way, seed, folder: published.append(way))
    monkeypatch.setattr(next_scans, "published", lambda: dict.fromkeys(("start_seed0", "unsure_seed0")))
    monkeypatch.setattr(next_scans, "dice_by_patient", lambda evaluation: {})
    next_scans.main()
    assert published == ["random", "covering"]
    assert [len(split.train) for split in trained] == [2, 2]
    assert capsys.readouterr().out == "Not measured: random_seed0, covering_seed0\n"


def test_nobody_tested_on_is_drawn(small, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--dry-run"])
    next_scans.main()
    start, random, covering = (set(line.split()[2:]) for line in capsys.readouterr().out.splitlines())
    (split,) = next_scans.draw_splits(next_scans.read_cases(small), [1 / 3], 0, 1)
    assert start == {*split.train}
    assert random == covering == {*split.train, *split.validation}
    assert not random & {*split.test}
