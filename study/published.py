"""Published runs: what was trained, how it went and what was measured, without scans, weights and paths.

    python study/published.py add study/data/NAME RUN [RUN ...] [--part validation]
    python study/published.py unpack study/data/ablation OUTPUT    # a folder for each run again

A folder holds its runs in three tables: ``records.jsonl.xz`` has a line for each, ``histories.jsonl.xz`` one for
each epoch and ``scores.csv.xz`` one for each scan and structure. A place is such a folder, or in it a run
(``study/data/ablation/literal_seed0``) or all seeds of a setting (``study/data/ablation/half_time_0.3``).
"""

import argparse
import csv
import json
import lzma
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ccdcseg.datasets.splits import part_folder
from ccdcseg.errors import UserError
from ccdcseg.files import write_bytes, write_json, write_text
from ccdcseg.runs.evaluation import COLUMNS, TABLE_FILE, CaseScores, Evaluation
from ccdcseg.runs.history import HISTORY_FILE, Epoch
from ccdcseg.runs.record import RUN_FILE, RunRecord, read_record
from ccdcseg.tabular import csv_text

RECORDS, HISTORIES, SCORES = "records.jsonl.xz", "histories.jsonl.xz", "scores.csv.xz"
DOUBLES = ("learning_rate", "seconds", "labels_written")
"""Of an epoch; all else was computed in single precision, and has so many digits in the table."""
REMEDY = "Restore the tables from a copy."


@dataclass(frozen=True)
class Published:
    """A run.

    Attributes:
        name: its setting and seed, ``literal_seed0``.
        content: of ``run.json``.
        epochs: of ``history.jsonl``.
        rows: of ``evaluation.csv``, by column.
    """

    name: str
    content: dict[str, Any]
    epochs: list[dict[str, Any]]
    rows: list[dict[str, str]]

    @property
    def setting(self) -> str:
        """The name without the seed."""
        return self.name.rpartition("_seed")[0]

    @cached_property
    def record(self) -> RunRecord:
        """What was trained."""
        return RunRecord.parse(json.dumps(self.content), self.name, REMEDY)

    @cached_property
    def history(self) -> list[Epoch]:
        """How it went."""
        return [Epoch.parse(json.dumps(epoch), self.name, REMEDY) for epoch in self.epochs]

    @cached_property
    def scores(self) -> list[CaseScores]:
        """What was measured; patients whose names are numbers are in their order."""
        filled = [{key: cell or None for key, cell in row.items()} for row in self.rows]
        return [CaseScores.model_validate({**row, "patient": f"{row['patient']:0>3}"}) for row in filled]

    @cached_property
    def evaluation(self) -> Evaluation:
        """The scores with their summary."""
        return Evaluation.of(list(dict.fromkeys(row.class_name for row in self.scores)), self.scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    adding, unpacking = commands.add_parser("add"), commands.add_parser("unpack")
    adding.add_argument("folder", type=Path)
    adding.add_argument("runs", type=Path, nargs="+")
    adding.add_argument("--part", choices=("test", "validation"), default="test")
    unpacking.add_argument("place", type=Path)
    unpacking.add_argument("output", type=Path)
    options = parser.parse_args()
    if options.command == "add":
        add_runs(options.folder, [from_folder(run, options.part) for run in options.runs])
    else:
        unpack(options.place, options.output)


def read_runs(place: Path) -> dict[str, Published]:
    """The runs at a place by name, in the order of their names.

    Raises:
        UserError: there is none.
    """
    folder = place if place.is_dir() else place.parent
    found = runs_in(folder, None if folder == place else place.name)
    if not found:
        raise UserError(
            f"{folder} has no runs {place.name}.", "Name a folder of study/data, or a run or setting in it."
        )
    return {run.name: run for run in found}


def runs_in(folder: Path, name: str | None = None) -> list[Published]:
    """All runs of a folder, or those of a name or setting; none where there are no tables yet."""
    if not (folder / RECORDS).exists():
        return []
    epochs, rows = _by_run(_lines(folder / HISTORIES)), _by_run(_rows(folder / SCORES))
    found = [
        Published(line["run"], line["record"], epochs[line["run"]], rows[line["run"]])
        for line in _lines(folder / RECORDS)
    ]
    wanted = [run for run in found if name in (None, run.name, run.setting)]
    return [replace(run, epochs=[_changed(epoch, _restored) for epoch in run.epochs]) for run in wanted]


def write_runs(folder: Path, runs: Iterable[Published]) -> None:
    """Write the tables; the same runs give the same bytes.

    Raises:
        ValueError: a number of a history has more digits than single precision.
    """
    runs = sorted(runs, key=lambda run: run.name)
    records = [{"run": run.name, "record": run.content} for run in runs]
    epochs = [{"run": run.name, **_changed(epoch, _shortened)} for run in runs for epoch in run.epochs]
    rows = [[run.name, *row.values()] for run in runs for row in run.rows]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / RECORDS, _json_lines(records))
    _write(folder / HISTORIES, _json_lines(epochs))
    _write(folder / SCORES, csv_text([["run", *COLUMNS], *rows]))


def add_runs(folder: Path, runs: Iterable[Published]) -> None:
    """Write runs beside those that are there, or in the place of those of the same name."""
    write_runs(folder, {run.name: run for run in (*runs_in(folder), *runs)}.values())


def from_folder(run: Path, part: str, name: str = "") -> Published:
    """A run from its folder, measured on "test" or "validation" patients, without paths of the machine."""
    record = read_record(run)
    name = name or f"{record.method}_{record.plans.removeprefix('ccdcseg_')}_seed{record.seed}"
    epochs = [json.loads(line) for line in (run / HISTORY_FILE).read_text().splitlines()]
    with (part_folder(run, part) / TABLE_FILE).open(newline="") as handle:
        rows = [{key: _rounded(cell) for key, cell in row.items()} for row in csv.DictReader(handle)]
    return Published(name, record.published.content, epochs, rows)


def unpack(place: Path, output: Path) -> None:
    """Write a folder for each run, with the files that they were published from."""
    for run in read_runs(place).values():
        folder = output / run.name
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RUN_FILE, run.content)
        write_text(folder / HISTORY_FILE, _json_lines(run.epochs))
        write_text(folder / TABLE_FILE, csv_text([COLUMNS, *([*row.values()] for row in run.rows)]))


def _rounded(cell: str) -> str:
    """A number to four decimals."""
    try:
        return f"{float(cell):.4f}".rstrip("0").rstrip(".") if "." in cell else cell
    except ValueError:
        return cell


def _changed(epoch: Mapping[str, Any], change: Callable[[float], float]) -> dict[str, Any]:
    """An epoch with its numbers of single precision changed."""

    def walk(value: Any) -> Any:
        if isinstance(value, float):
            return change(value)
        if isinstance(value, list):
            return [walk(item) for item in value]
        return {key: walk(item) for key, item in value.items()} if isinstance(value, dict) else value

    return {key: value if key in DOUBLES else walk(value) for key, value in epoch.items()}


def _shortened(value: float) -> float:
    """The number with as few digits as tell it from others of single precision."""
    if _restored(value) != value:
        raise ValueError(f"{value} is no number of single precision")
    return float(str(np.float32(value)))


def _restored(value: float) -> float:
    return float(np.float32(value))


def _by_run(lines: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The lines of each run, without its name."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        found[line.pop("run")].append(line)
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


def _rows(path: Path) -> list[dict[str, str]]:
    with lzma.open(path, "rt", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _json_lines(content: Iterable[Any]) -> str:
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in content)


def _write(path: Path, text: str) -> None:
    write_bytes(path, lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
