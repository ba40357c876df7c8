"""Train, predict and measure declared runs on the patients for choosing, several at a time.

    python benchmarks/ablation.py DATASET docs/ablation/runs.yaml --output docs/ablation/runs --workers 2

Each entry of the list has a name, seeds, a method (default: ccdc), a preset (default: cpu) and changes to it.
Results that
lie in the output already are left alone, and interrupted trainings go on, so the command can be repeated.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from ccdcseg.nnunet.runs import Run, resolve_run
from ccdcseg.nnunet.train import prepare
from publish_results import publish

COMMAND = [sys.executable, "-c", "from ccdcseg.cli import main; main()"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("list", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    entries = yaml.safe_load(arguments.list.read_text())
    runs = [(entry, seed) for entry in entries for seed in entry["seeds"]]
    for entry, seed in runs:  # before the workers, who would preprocess the same scans at once
        prepare(_resolve(arguments.dataset, entry, seed), arguments.workers, lambda *_: None)
    with ThreadPoolExecutor(arguments.workers) as pool:
        jobs = [
            pool.submit(measure, arguments.dataset, entry, seed, arguments.output) for entry, seed in runs
        ]
        for job in jobs:
            print(job.result(), flush=True)


def measure(dataset: str, entry: dict[str, Any], seed: int, output: Path) -> str:
    """One run from training to published result; says what became of it."""
    name = f"{entry['name']}_seed{seed}"
    if (output / name / "evaluation.csv").exists():
        return f"{name}: there"
    method, changes = entry.get("method", "ccdc"), entry.get("changes", [])
    folder = _resolve(dataset, entry, seed).folder
    options = ["--method", method, "--preset", entry.get("preset", "cpu"), "--seed", str(seed)]
    options += [part for c in changes for part in ("--set", c)]
    log = output / f"{name}.log"
    steps = (
        ["train", dataset, *options, "--processes", "1", *(["--resume"] if folder.exists() else [])],
        ["predict", str(folder), "--part", "validation"],
        ["evaluate", str(folder), "--part", "validation", "--processes", "1"],
    )
    output.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with log.open("w") as stream:
        for step in steps:
            done = subprocess.run(
                [*COMMAND, *step], stdout=stream, stderr=stream, env=environment, check=False
            )
            if done.returncode:
                return f"{name}: {step[0]} failed, see {log}"
    publish(folder, output / name, "validation")
    log.unlink()
    return f"{name}: measured"


def _resolve(dataset: str, entry: dict[str, Any], seed: int) -> Run:
    preset, changes = entry.get("preset", "cpu"), entry.get("changes", [])
    return resolve_run(dataset, entry.get("method", "ccdc"), 0.1, seed, preset, changes)


if __name__ == "__main__":
    main()
