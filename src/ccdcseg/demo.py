"""The whole path on a small data set: raw release, splits, two methods, test patients, one page."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from ccdcseg import workflow
from ccdcseg.datasets.acdc import prepare_acdc
from ccdcseg.datasets.splits import split_dataset
from ccdcseg.errors import UserError
from ccdcseg.phantom import write_phantom
from ccdcseg.workflow import Progress, choose, evaluate, predict, train

PRESET = "demo"
PHANTOM_PATIENTS = 25
SEED, PROCESSES = 0, 2
DATASETS = {"phantom": (900, 0.2), "acdc": (27, 0.1)}
"""Dataset id and share of the patients trained on: five phantoms, ten ACDC patients."""


def run_demo(folder: Path, data: str, report: Progress) -> Path:
    """Train nnU-Net and CCDC from few labelled patients and report on the others.

    Steps whose results lie in ``folder`` already are skipped, so that an interrupted demonstration goes on.

    Args:
        folder: everything is written here, nnU-Net's three folders among it.
        data: "phantom" (synthetic, made on the spot) or "acdc" (real scans in ``$CCDCSEG_DATA``).
        report: called with a stage's name, steps done and steps in all.

    Returns:
        The page.

    Raises:
        UserError: "acdc" without ``CCDCSEG_DATA``.
    """
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(folder / name)
        (folder / name).mkdir(parents=True, exist_ok=True)
    number, fraction = DATASETS[data]
    if not any((folder / "nnUNet_raw").glob(f"Dataset{number:03d}_*")):
        source = _source(folder, data, report)
        prepare_acdc(source, folder / "nnUNet_raw", number, partial(report, "convert"), PROCESSES)
    raw = next((folder / "nnUNet_raw").glob(f"Dataset{number:03d}_*"))
    split_dataset(raw, [fraction], SEED)
    runs = [_measured_run(raw.name, method, fraction, report) for method in ("nnunet", "ccdc")]
    return workflow.report(runs, folder / "report.html", f"Demonstration: {raw.name}")


def _source(folder: Path, data: str, report: Progress) -> Path:
    """The raw release."""
    if data == "acdc":
        place = os.environ.get("CCDCSEG_DATA")
        if not place:
            raise UserError(
                "The environment variable CCDCSEG_DATA is not set.",
                "Set it to the folder that holds acdc/training, or run the demo on the phantom.",
            )
        return Path(place) / "acdc"
    target = folder / "phantom"
    if not target.exists():
        write_phantom(target, PHANTOM_PATIENTS, SEED, progress=partial(report, "phantom"))
    return target


def _measured_run(dataset: str, method: str, fraction: float, report: Progress) -> Path:
    """Train, predict and evaluate one method."""

    def of_method(stage: str, *rest: Any) -> None:
        report(f"{method}: {stage}", *rest)

    run = choose(dataset, method, fraction=fraction, seed=SEED, preset=PRESET)
    folder = train(run, resume=True, device="cpu", workers=PROCESSES, progress=of_method)
    predict(folder, device="cpu", progress=of_method)
    evaluate(folder, workers=PROCESSES, progress=of_method)
    return folder
