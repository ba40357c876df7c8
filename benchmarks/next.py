"""Does a way of choosing scans beat chance? ``python benchmarks/next.py 27 [--dry-run]``, resumable, 6 hours.

Declared before anything was run. Data: ACDC, all groups, as ``ccdcseg prepare acdc`` makes it. For each of the
seeds 0, 1 and 2:

1. 25 patients are set aside for testing, the same for every seed; nobody looks at them before the end.
2. 5 patients are drawn, stratified by pathology: the start that all ways have in common, with one training.
3. 5 more are chosen among all others in three ways: at random (stratified), to cover the scans, and among the scans
   of which the training of step 2 is least sure. A scan that is chosen stands for its patient; both frames are
   annotated, in full.
4. Each way trains anew on its 10 patients: plain nnU-Net, preset cpu, the seed of weights and batches the same for
   all ways.

Measured: Dice of the mean over the classes of the 25 patients, 4 trainings a seed, 12 in all. Of each way against
chance: the mean difference over the seeds, its 95 % interval by bootstrap over patients (differences averaged over
seeds first), and how many of 3 seeds are better. Primary: least sure against random. A way becomes the default only
if the lower end of its interval is above 0; whatever comes out is written to docs/results. One start of 5 patients
and one round: nothing is said of later rounds, other organs, slices, or longer trainings.

Splits are added to the data set's ``splits_final.json``, of the fractions 0.05 and 0.1 and the seeds 7000 + 10 x
seed + number of the way; run it on a copy of the data set. Killed, it goes on where it was.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from ccdcseg import workflow
from ccdcseg.datasets.cases import Case, dataset_folder, read_cases
from ccdcseg.datasets.splits import Split, add_splits, draw_splits
from ccdcseg.datasets.unlabelled import channel_files
from ccdcseg.nnunet.paths import nnunet_folder
from ccdcseg.proposals.draws import Pool, covering_draw, random_draw, unsure_draw
from ccdcseg.proposals.features import ScanFeatures, ScanFiles, distances, measure_scans, same_patient
from ccdcseg.proposals.networks import doubts
from ccdcseg.runs.evaluation import Evaluation

WAYS = ("start", "random", "covering", "unsure")
SEEDS, START, MORE, TEST = (0, 1, 2), 5, 5, 25


def main() -> None:
    """Train what is not trained yet, then print and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("next.json"))
    parser.add_argument("--dry-run", action="store_true", help="show who is drawn, train nothing")
    arguments = parser.parse_args()
    raw = dataset_folder(nnunet_folder("nnUNet_raw"), arguments.dataset)
    cache = nnunet_folder("nnUNet_preprocessed") / raw.name / "ccdcseg_next"
    cases = read_cases(raw)
    scans = [ScanFiles(case, tuple(channel_files(raw, case.case, raw / "imagesTr"))) for case in cases]
    features = measure_scans(scans, cache / "features", 2)
    found: dict[str, dict[str, float]] = {}
    for seed in SEEDS:
        for way, split in splits_of(raw, scans, features, seed, arguments.preset, cache, arguments.dry_run):
            if arguments.dry_run:
                print(seed, way, *split.train)
                continue
            folder = trained(raw, cases, split, seed, arguments.preset)
            workflow.predict(folder)
            found[f"{way} {seed}"] = dice_by_patient(workflow.evaluate(folder)["predictions"])
    if found:
        arguments.output.write_text(json.dumps({"patients": found, "summary": summary(found)}, indent=1))
        print(json.dumps(summary(found), indent=1))


def splits_of(
    raw: Path,
    scans: list[ScanFiles],
    features: list[ScanFeatures],
    seed: int,
    preset: str,
    cache: Path,
    dry_run: bool,
) -> list[tuple[str, Split]]:
    """The split of each way; without the least sure in a dry run, which takes a training."""
    cases = [scan.case for scan in scans]
    patients = len({case.patient for case in cases})
    (start,) = draw_splits(cases, [START / patients], seed, TEST)
    base = numbered(start, 0, seed, start.train)
    pool, order = pool_of(scans, features, start)
    chosen = {"random": random_draw(pool, MORE, seed), "covering": covering_draw(pool, MORE, seed)}
    if not dry_run:
        run = trained(raw, cases, base, seed, preset)
        asked = [scans[place] for place in order[: len(pool.scans)]]
        told = doubts([run], asked, raw, "auto", cache / f"doubts_{seed}", lambda *_: None)
        chosen["unsure"] = unsure_draw(pool, MORE, seed, [doubt.sure for doubt in told])
    return [
        ("start", base),
        *(
            (
                way,
                numbered(
                    start, number, seed, [*start.train, *(pool.scans[place].patient for place in places)]
                ),
            )
            for number, (way, places) in enumerate(chosen.items(), start=1)
        ),
    ]


def pool_of(scans: list[ScanFiles], features: list[ScanFeatures], start: Split) -> tuple[Pool, list[int]]:
    """Those to choose from, then those of the start; nobody of the test patients. And the places in ``scans``."""
    order = [
        place
        for part in (start.validation, start.train)
        for place, scan in enumerate(scans)
        if scan.case.patient in part
    ]
    cases, numbers = [scans[place].case for place in order], [features[place] for place in order]
    free = [case for case in cases if case.patient in start.validation]
    return Pool(free, same_patient(cases, numbers), distances(numbers)), order


def numbered(start: Split, way: int, seed: int, train: list[str] | tuple[str, ...]) -> Split:
    """The split of a way that trains on these patients."""
    everybody = {*start.train, *start.validation}
    rest = tuple(sorted(everybody - {*train}))
    fraction = 0.1 if way else 0.05
    return Split(fraction, 7000 + 10 * seed + way, tuple(sorted(train)), rest, start.test)


def trained(raw: Path, cases: list[Case], split: Split, seed: int, preset: str) -> Path:
    """The run's folder, trained now where it is not yet."""
    add_splits(raw, [split], cases, {})
    run = workflow.choose(
        raw.name,
        "nnunet",
        fraction=split.fraction,
        seed=split.seed,
        preset=preset,
        changes=[f"training.seed={seed}"],
    )
    return workflow.train(run, resume=True)


def dice_by_patient(evaluation: Evaluation) -> dict[str, float]:
    """Mean Dice of each patient, over scans, then classes."""
    rows: dict[str, list[float]] = {}
    for row in evaluation.cases:
        if row.dice is not None:
            rows.setdefault(row.patient, []).append(row.dice)
    return {patient: float(np.mean(values)) for patient, values in rows.items()}


def summary(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Dice of each way in percent, and its difference to chance with a 95 % interval over patients."""
    patients = sorted(found["random 0"])
    table = {
        way: np.array([[100 * found[f"{way} {seed}"][one] for one in patients] for seed in SEEDS])
        for way in WAYS
    }
    picks = np.random.default_rng(0).integers(0, len(patients), (9999, len(patients)))
    rows = {}
    for way, values in table.items():
        apart = values - table["random"]
        low, high = np.quantile(apart.mean(0)[picks].mean(1), (0.025, 0.975))
        better = int((apart.mean(1) > 0).sum())
        rows[way] = {
            "dice": float(values.mean()),
            "against_random": float(apart.mean()),
            "low": float(low),
            "high": float(high),
            "seeds_better": better,
        }
    return rows


if __name__ == "__main__":
    main()
