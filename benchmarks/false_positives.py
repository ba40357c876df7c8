"""How often each unit of the test finds a difference where there is none, and how often intervals hold the truth.

Two methods that are equally good, simulated many times: each patient has several scans and structures whose
differences are alike. Measured through `ccdcseg.statistics.compare`, as any comparison is.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ccdcseg.runs.evaluation import CaseScores, Evaluation
from ccdcseg.statistics.compare import compare, scans_as_patients, wilcoxon_p

NOMINAL = 0.05
CLASSES = ("RV", "Myo", "LV")
PATIENTS = (2, 3, 4, 5, 6, 10, 20)


@dataclass(frozen=True)
class Study:
    """A test set and how alike the differences (in Dice) on it are.

    Attributes:
        patient_sd: of what all scans and structures of a patient share.
        scan_sd: of what all structures of a scan share.
        noise_sd: of each structure's own.
        seed_sd: of what a seed shifts for all patients.
    """

    patients: int = 60
    scans: int = 2
    patient_sd: float = 0.02
    scan_sd: float = 0.01
    noise_sd: float = 0.02
    seed_sd: float = 0.01


def evaluations(
    study: Study, seeds: int, generator: np.random.Generator
) -> tuple[dict[int, Evaluation], dict[int, Evaluation]]:
    """A method and its rival, equal in truth, by seed; a patient's share is the same for all seeds."""
    patients = generator.normal(0, study.patient_sd, study.patients)
    methods: tuple[dict[int, Evaluation], dict[int, Evaluation]] = ({}, {})
    for seed in range(seeds):
        shift = generator.normal(0, study.seed_sd) if seeds > 1 else 0.0
        scans = generator.normal(0, study.scan_sd, (study.patients, study.scans))
        noise = generator.normal(0, study.noise_sd, (study.patients, study.scans, len(CLASSES)))
        values = 0.8 + shift + patients[:, None, None] + scans[:, :, None] + noise
        methods[0][seed] = _evaluation(values)
        methods[1][seed] = _level(values.shape)
    return methods


@lru_cache
def _level(shape: tuple[int, ...]) -> Evaluation:
    return _evaluation(np.full(shape, 0.8))


def false_positives(study: Study, studies: int, seed: int = 0) -> dict[str, float]:
    """Share of p below 5 %, one seed: patients, scans ("case"), and each structure of each scan for itself."""
    generator = np.random.default_rng(seed)
    found = {"patient": 0, "case": 0, "class x case": 0}
    for _ in range(studies):
        first, second = evaluations(study, 1, generator)
        found["patient"] += compare(first, second, "dice").p_value < NOMINAL
        apart = scans_as_patients(first), scans_as_patients(second)
        found["case"] += compare(*apart, "dice").p_value < NOMINAL
        pooled = [(a.dice or 0) - (b.dice or 0) for a, b in zip(first[0].cases, second[0].cases, strict=True)]
        found["class x case"] += wilcoxon_p(pooled) < NOMINAL
    return {unit: count / studies for unit, count in found.items()}


def coverage(study: Study, studies: int, seeds: int, seed: int = 0) -> dict[str, float]:
    """Share of 95 % intervals that hold the true difference, zero."""
    generator = np.random.default_rng(seed)
    held = {"patients": 0, "patients and seeds": 0}
    for _ in range(studies):
        result = compare(*evaluations(study, seeds, generator), "dice")
        held["patients"] += _holds_zero(result.interval)
        held["patients and seeds"] += _holds_zero(result.interval_seeds)
    return {name: count / studies for name, count in held.items()}


def _holds_zero(interval: list[float] | None) -> bool:
    return interval is not None and interval[0] <= 0 <= interval[1]


def _evaluation(values: np.ndarray[Any, Any]) -> Evaluation:
    """Dice alone, perhaps above 1: no evaluation that could be stored, so nothing of it is checked."""
    return Evaluation.model_construct(
        format="ccdcseg-evaluation/1", classes=CLASSES, cases=tuple(_rows(values)), summary={}
    )


def _rows(values: np.ndarray[Any, Any]) -> Iterator[CaseScores]:
    for (patient, scan, place), value in np.ndenumerate(values):
        yield CaseScores.model_construct(
            case=f"{patient}_{scan}",
            patient=f"{patient}",
            class_name=CLASSES[place],
            status="ok",
            diagonal_mm=1.0,
            dice=float(value),
        )


def main() -> None:
    """Print all rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--intervals", type=int, default=300, help="studies for the coverage of intervals")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    study = Study()
    result: dict[str, Any] = {
        "false_positives": false_positives(study, arguments.studies),
        "by_patients": {
            str(patients): coverage(replace(study, patients=patients), arguments.studies, 1)["patients"]
            for patients in PATIENTS
        },
        "coverage": {str(seeds): coverage(study, arguments.intervals, seeds) for seeds in (2, 3, 5)},
    }
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    for unit, share in result["false_positives"].items():
        print(f"p < 0.05 without a difference, unit {unit}: {100 * share:.1f} %")
    for patients, share in result["by_patients"].items():
        print(f"95 % interval over {patients} patients, one seed, holds the truth: {100 * share:.1f} %")
    for seeds, held in result["coverage"].items():
        for name, share in held.items():
            print(f"95 % interval over {name}, {seeds} seeds, holds the truth: {100 * share:.1f} %")


if __name__ == "__main__":
    main()
