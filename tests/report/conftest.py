"""Run folders as a training leaves them, with made-up scans and scores that are really measured on them."""

import json
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scored

from ccdcseg.datasets.volumes import Volume, write_volume
from ccdcseg.evaluation.evaluate import evaluate_folder
from ccdcseg.report import page
from ccdcseg.report.page import build_report
from ccdcseg.runs.evaluation import evaluation_folder, write_evaluation
from ccdcseg.runs.record import PLAIN_PREDICTIONS, PREDICTIONS

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


@pytest.fixture(scope="session", autouse=True)
def no_viewer() -> Iterator[None]:
    """Pages are those of a package that was built without the viewer, whether this one was or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "niivue_script", lambda: None)
        yield


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
    """Makes a run folder: ``make_run(method, shifts, **changes of run.json)``."""

    def make(method: str, shifts: list[int], **changes: Any) -> Path:
        folder = whole_run(tmp_path / method, scans, method, 0, shifts)
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


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, texts, and tables as rows of cell texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self._raw = ""
        self._in_cell = False
        self.source = text
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""
        self._in_cell = self._in_cell or tag in ("caption", "td", "th")
        if tag == "table":
            self.tables.append([])
        elif tag == "caption":
            self.tables[-1].append([""])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag in ("span", "br") and ("class", "unseen") not in attrs and self._in_cell:
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""
        self._in_cell = self._in_cell and tag not in ("caption", "td", "th")

    def handle_data(self, data: str) -> None:
        if self._raw:
            return
        self.text += data
        if self._in_cell:
            self.tables[-1][-1][-1] += data.strip()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def table(self, caption: str) -> list[list[str]]:
        """Rows of the table whose caption begins so, without caption."""
        return next(rows[1:] for rows in self.tables if rows[0][0].startswith(caption))


@pytest.fixture(scope="session")
def parse() -> Callable[[str], Page]:
    """What a browser would find in a page."""
    return Page


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Page]:
    """Builds and parses the page of some runs."""

    def build(runs: list[Path], title: str = "A title", **options: Any) -> Page:
        return Page(build_report(runs, tmp_path / "report.html", title, **options).read_text())

    return build


@pytest.fixture
def many(make_run: Callable[..., Path]) -> list[Path]:
    """nnU-Net and four other methods, one seed each: too many for a card and a sentence each."""
    shifts = {"nnunet": 3, "ccdc": 1, "reco": 2, "mcc": 3, "topk": 4}
    return [make_run(method, [shift, 0] * 5) for method, shift in shifts.items()]


@pytest.fixture(scope="session")
def whole(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of ``runs``."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    return Page(build_report(runs, path, "A title", "Trained on a Tuesday.").read_text())
