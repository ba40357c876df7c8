"""Fixtures: run folders as a training leaves them, with made-up scans and scores that are measured on them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scored

from ccdcseg.datasets.volumes import Volume, write_volume
from ccdcseg.runs.evaluation import evaluation_folder, write_evaluation
from ccdcseg.runs.record import PLAIN_PREDICTIONS, PREDICTIONS
from ccdcseg.runs.scoring import evaluate_folder

SPACING_MM = (8.0, 1.5, 1.5)
LABELS = {"background": 0, "RV": 1, "LV": 2}
PATIENTS = {f"p{patient}_{frame}": f"p{patient}" for patient in range(5) for frame in ("ed", "es")}
CLASSES = ["background", "RV", "LV"]
SETTINGS = {"network": {"features": [8, 16]}, "ccdc": {"weight": 1.0}}


def label_map(shift: int = 0) -> np.ndarray:
    array = np.zeros((3, 32, 36), dtype=np.uint8)
    array[:2, 5:13, 5 + shift : 15 + shift] = 1
    array[1:, 18 - shift : 28 - shift, 14:27] = 2
    return array


def write(folder: Path, name: str, array: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / f"{name}.nii.gz", Volume(folder, array, SPACING_MM))


def entry(epoch: int, is_ccdc: bool) -> dict[str, Any]:
    """An epoch of the history; in the first, RV has no core and a class lacks similarities."""
    core = [900.0, 0.0, 80.0] if epoch == 0 else [900.0, 40.0, 80.0]
    confidence = [0.9, 0.2 + epoch / 10, 0.5]
    ccdc = {
        "classes": CLASSES,
        "confidence": confidence,
        "confusion": [[0.9, 0.06, 0.04], [0.5, confidence[1], 0.3 - epoch / 10], [0.3, 0.2, 0.5]],
        "threshold": [1 - value for value in confidence],
        "core": core,
        "easy": [900.0, 50.0, 60.0],
        "hard": [100.0, 50.0, None],
        "queries_easy": [10.0, 0.0, 100.0],
        "queries_hard": [246.0, 0.0, 156.0],
        "positive_similarity": [0.9, None if epoch == 0 else 0.4, 0.5],
        "negative_similarity": [0.1, None if epoch == 0 else 0.3, 0.2],
    }
    return {
        "epoch": epoch,
        "iteration": 50 * (epoch + 1),
        "learning_rate": 0.01,
        "seconds": 9.0,
        "train_loss": 2.0 - epoch,
        "segmentation_loss": 0.5 - epoch,
        "contrastive_loss": 1.5 if is_ccdc else None,
        "validation_loss": 0.6 - epoch,
        "pseudo_dice": {"RV": 0.3 + epoch / 10, "LV": None},
        "diagnostics": ccdc if is_ccdc else None,
    }


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of images and references."""
    root = tmp_path_factory.mktemp("scans")
    for number, case in enumerate(PATIENTS):
        write(root / "labelsTr", case, label_map())
        noise = np.random.default_rng(number).normal(100, 10, label_map().shape) + 50 * label_map()
        write(root / "imagesTr", f"{case}_0000", noise.astype(np.float32))
    return root


def whole_run(folder: Path, scans: Path, method: str, seed: int, shifts: list[int]) -> Path:
    """A run folder with everything in it; ``shifts``: how far the prediction of each scan is off."""
    for case, shift in zip(PATIENTS, shifts, strict=True):
        write(folder / "predictions", case, label_map(shift))
    measure(scans, folder, PREDICTIONS)
    lines = [json.dumps(entry(epoch, method == "ccdc")) for epoch in range(3)]
    (folder / "history.jsonl").write_text("\n".join(lines) + "\n")
    if method == "ccdc":
        write_selections(folder / "selection")
    (folder / "run.json").write_text(json.dumps(record(scans, method, seed)))
    return folder


def measure(scans: Path, folder: Path, predictions: str) -> None:
    """Evaluate a run's predictions, as `ccdcseg evaluate` does."""
    result = evaluate_folder(scans / "labelsTr", folder / predictions, LABELS, PATIENTS)
    write_evaluation(result, evaluation_folder(folder, predictions))


@pytest.fixture
def make_run(tmp_path: Path, scans: Path) -> Callable[..., Path]:
    """Makes a run folder: ``make_run(method, shifts, place="another folder", **changes of run.json)``."""

    def make(method: str, shifts: list[int], place: str = "", **changes: Any) -> Path:
        folder = whole_run(tmp_path / place / method, scans, method, 0, shifts)
        path = folder / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return folder

    return make


@pytest.fixture
def measure_plain(scans: Path) -> Callable[[Path, list[int]], None]:
    """Gives a run predictions as the network made them, with their evaluation; ``shifts`` as of ``make_run``."""

    def measure_plain(run: Path, shifts: list[int]) -> None:
        for case, shift in zip(PATIENTS, shifts, strict=True):
            write(run / PLAIN_PREDICTIONS, case, label_map(shift))
        measure(scans, run, PLAIN_PREDICTIONS)

    return measure_plain


def record(root: Path, method: str, seed: int) -> dict[str, Any]:
    changes = {
        "method": method,
        "dataset": "Dataset027_ACDC",
        "preset": "cpu",
        "fraction": 0.1,
        "seed": seed,
        "fold": seed,
        "settings": SETTINGS,
        "versions": {"torch": "2.10.0"},
        "data_hash": f"{seed}" * 64,
        "seconds": 512.3,
        "iterations": 2000,
        "patients": {"train": ["t1", "t2"], "validation": [], "test": sorted(set(PATIENTS.values()))},
        "labels": LABELS,
        "synthetic": False,
        "reference": str(root / "labelsTr"),
        "images": str(root / "imagesTr"),
    }
    content = scored.record(**changes)
    del content["precision"]
    return content


def write_selections(folder: Path) -> None:
    folder.mkdir()
    for epoch in (0, 10):
        arrays = {
            "image": np.random.default_rng(epoch).normal(size=(16, 20)).astype(np.float32),
            "label": (np.arange(320).reshape(16, 20) > 150).astype(np.uint8),
            "role": (np.arange(320).reshape(16, 20) % 5).astype(np.uint8),
        }
        np.savez(folder / f"epoch_{epoch:04d}.npz", **arrays)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, scans: Path) -> list[Path]:
    """Both methods with two seeds; CCDC misplaces less. To be read, not changed."""
    root = tmp_path_factory.mktemp("runs")
    shifts = {
        ("ccdc", 0): [0, 1, 0, 1, 1, 1, 0, 0, 2, 1],
        ("ccdc", 1): [1, 1, 0, 1, 1, 2, 0, 0, 2, 1],
        ("nnunet", 0): [1, 2, 2, 1, 3, 3, 1, 1, 2, 4],
        ("nnunet", 1): [2, 2, 1, 1, 4, 3, 1, 2, 2, 4],
    }
    return [
        whole_run(root / f"{method}_{seed}", scans, method, seed, shifts[method, seed])
        for method, seed in shifts
    ]


@pytest.fixture
def bare_runs(runs: list[Path], tmp_path: Path) -> list[Path]:
    """Copies of ``runs`` with nothing but ``run.json`` and ``evaluation.json``."""
    copies = []
    for run in runs:
        copies.append(tmp_path / run.name)
        copies[-1].mkdir()
        for name in ("run.json", "evaluation.json"):
            shutil.copy(run / name, copies[-1] / name)
    return copies
