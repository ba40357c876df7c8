"""How many injected errors ``ccdcseg review`` puts into the first tenth of its list.

    python benchmarks/review.py RUN_FOLDER [--choose]
    python benchmarks/review.py FOLD_0 FOLD_1 FOLD_2 FOLD_3 FOLD_4

nnU-Net's folders hold the ACDC release of CCDCSEG_DATA (``ccdcseg prepare acdc $CCDCSEG_DATA/acdc --dataset 27``).
RUN_FOLDER is a run on it whose split has test, validation and unlabelled patients, as after
``ccdcseg split 27 --fraction 0.1 --test 25 --unlabelled 50`` and ``ccdcseg train 27 --method nnunet``. The bounds
of ``ccdcseg.review.suspicion`` were chosen on the unlabelled patients (``--choose`` repeats it); reported are
the test and validation patients. In each of 20 draws six scans get an error each, one of a kind; all others are as
they are.

Several folders are the runs on folds that ``ccdcseg review 27`` trained: each mask is judged by the one that never
saw the patient. There are few masks then, so one at a time gets an error: every kind in every mask once.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ccdcseg.datasets.cases import Case, dataset_folder, read_cases
from ccdcseg.datasets.splits import SPLITS_FILE, read_entries
from ccdcseg.datasets.volumes import read_mask
from ccdcseg.measure.metrics import measure as score
from ccdcseg.nnunet.paths import nnunet_folder
from ccdcseg.review.measure import Opinions, measure
from ccdcseg.review.networks import Network, judges, predict_all, read_networks
from ccdcseg.review.review import Reviewed, check_labels, mask_files, rank, read_opinions

KINDS = ("slice missing", "RV and LV swapped", "shifted by 4 mm", "mirrored", "2 voxels wider", "another's")
DRAWS = 20
Ranked = tuple[dict[str, str], list[Reviewed]]
"""The kind of error by scan that has one, and the list of all."""
TWICE = ("patient074", "patient076")
"""The same scans of ACDC, annotated twice."""


@dataclass(frozen=True)
class Scan:
    """A mask that was not tampered with, and what the network says."""

    reviewed: Reviewed
    opinions: Opinions


def inject(
    kind: str, opinions: Opinions, other: NDArray[np.intp], generator: np.random.Generator
) -> Opinions:
    """A mask with an error."""
    labels = opinions.labels.copy()
    if kind == "slice missing":
        labels[generator.choice(np.flatnonzero(labels.any((1, 2))))] = 0
    elif kind == "RV and LV swapped":
        labels = np.array([0, 3, 2, 1])[labels]
    elif kind == "shifted by 4 mm":
        angle = generator.uniform(0, 2 * np.pi)
        steps = 4 * np.array([np.sin(angle), np.cos(angle)]) / opinions.spacing_mm[1:]
        labels = np.roll(labels, np.rint(steps).astype(int).tolist(), (1, 2))
    elif kind == "mirrored":
        labels = np.flip(labels, int(generator.integers(1, 3)))
    elif kind == "2 voxels wider":
        labels = wider(labels)
    else:
        labels = pasted(other, labels.shape)
    return replace(opinions, labels=labels)


def wider(labels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Every slice's outline two voxels farther out, with the nearest class."""
    distance, place = ndimage.distance_transform_edt(labels == 0, sampling=(1e6, 1, 1), return_indices=True)
    return np.where(distance <= 2, labels[tuple(place)], 0)


def pasted(other: NDArray[np.intp], shape: Sequence[int]) -> NDArray[np.intp]:
    """Another mask, middle on middle, cut or padded to a shape."""
    result = np.zeros(shape, other.dtype)
    size = [min(pair) for pair in zip(shape, other.shape, strict=True)]
    to, start = (
        tuple(
            slice((whole - part) // 2, (whole - part) // 2 + part)
            for whole, part in zip(over, size, strict=True)
        )
        for over in (shape, other.shape)
    )
    result[to] = other[start]
    return result


def read_scans(networks: Sequence[Network], raw: Path, wanted: Sequence[Case]) -> dict[str, Scan]:
    """Predict and measure masks as they are."""
    found = judges(wanted, networks, [])
    cache = nnunet_folder("nnUNet_preprocessed") / raw.name / "ccdcseg_review"
    files = predict_all(
        raw, found, cache, "cpu", lambda done, total: print(f"predicted {done} of {total}", end="\r")
    )
    masks, scans = mask_files(raw, wanted), {}
    for case in wanted:
        opinions = read_opinions(raw, masks[case.case], files[case.case])
        scans[case.case] = Scan(Reviewed(case.case, case.patient, (), "", measure(opinions)), opinions)
    return scans


def draws(scans: Mapping[str, Scan]) -> Iterator[Ranked]:
    """Six scans with an error each, by kind; and the list, ranked: 20 times."""
    for seed in range(DRAWS):
        generator = np.random.default_rng(seed)
        names = generator.choice([*scans], len(KINDS), replace=False).tolist()
        yield with_errors(scans, dict(zip(names, KINDS, strict=True)), generator)


def one_at_a_time(scans: Mapping[str, Scan]) -> Iterator[Ranked]:
    """One scan with an error, and the list, ranked: every scan with every kind."""
    generator = np.random.default_rng(0)
    for name in scans:
        for kind in KINDS:
            yield with_errors(scans, {name: kind}, generator)


def with_errors(scans: Mapping[str, Scan], chosen: dict[str, str], generator: np.random.Generator) -> Ranked:
    """Scans with an error each, by kind; and the list, ranked."""
    masks = {name: scan.reviewed for name, scan in scans.items()}
    for name, kind in chosen.items():
        others = [other for other in scans if masks[other].patient != masks[name].patient]
        other = scans[str(generator.choice(others))].opinions.labels
        masks[name] = replace(
            masks[name], measures=measure(inject(kind, scans[name].opinions, other, generator))
        )
    return chosen, [*rank([*masks.values()])[1]]


def report(scans: Mapping[str, Scan], lists: Iterable[Ranked]) -> None:
    """Recall in the first tenth, what else is there, and how suspicions are named."""
    first: dict[str, list[bool]] = defaultdict(list)
    named: dict[str, Counter[str]] = defaultdict(Counter)
    false = []
    for number, (chosen, ranked) in enumerate(lists):
        top = [one.case for one in ranked[: round(len(ranked) / 10)]]
        false.append(sum(name not in chosen for name in top))
        for place, one in enumerate(ranked, 1):
            if kind := chosen.get(one.case):
                first[kind].append(one.case in top)
                named[kind][one.suspicions[0].kind] += 1
                if one.case not in top:
                    print(f"missed, list {number}: {kind} in {one.case}, place {place}")
    print(f"{len(scans)} scans, {len(false)} lists, of each the first {round(len(scans) / 10)}:")
    for kind in KINDS:
        print(f"{kind}: recall {np.mean(first[kind]):.2f}, named {dict(named[kind])}")
    print(f"all: recall {np.mean([hit for hits in first.values() for hit in hits]):.3f}")
    print(f"masks as they are in the first tenth: {np.mean(false):.1f} a list")
    alarms = [one for one in rank([scan.reviewed for scan in scans.values()])[1] if one.score >= 1]
    print(f"as they are, worth a look: {len(alarms)} of {len(scans)}")
    for one in alarms:
        print(f"  {one.score:.2f} {one.case}: {one.suspicions[0].sentence}")


def annotated_twice(raw: Path, cases: Sequence[Case]) -> None:
    """How far two annotators of the same scans are apart."""
    labels = check_labels(raw)
    files = mask_files(raw, [case for case in cases if case.patient in TWICE])
    phases = {(case.patient, case.phase): case.case for case in cases if case.patient in TWICE}
    for phase in sorted({phase for _, phase in phases}):
        one, other = (read_mask(files[phases[patient, phase]], labels) for patient in TWICE)
        for name, value in labels.items():
            found = score(one.array == value, other.array == value, one.spacing_mm)
            print(f"{phase} {name}: Dice {found.dice:.3f}, HD95 {found.hd95_pooled_mm:.2f} mm")


def main() -> None:
    """Predict once, then inject."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_FOLDER")
    parser.add_argument("--choose", action="store_true", help="the half on which the bounds were chosen")
    options = parser.parse_args()
    raw = dataset_folder(nnunet_folder("nnUNet_raw"), "27")
    networks = read_networks(raw, options.runs)
    cases = read_cases(raw)
    if len(networks) > 1:
        patients = {patient for network in networks for patient in network.record.patients.train}
    else:
        annotated_twice(raw, cases)
        parts = read_entries(raw / SPLITS_FILE)[networks[0].record.fold]["patients"]
        patients = {*(parts["unlabelled"] if options.choose else parts["test"] + parts["validation"])}
    scans = read_scans(networks, raw, [case for case in cases if case.patient in patients])
    report(scans, one_at_a_time(scans) if len(networks) > 1 else draws(scans))


if __name__ == "__main__":
    main()
