"""Does a way of choosing scans beat chance? ``python study/next_scans.py 27 [--seeds 0] [--dry-run]``, resumable.

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
if the lower end of its interval is above 0; whatever comes out is written to docs/next.md. One start of 5 patients
and one round: nothing is said of later rounds, other organs, slices, or longer trainings.

Splits are added to the data set's ``splits_final.json``, of the fractions 0.05 and 0.1 and the seeds 7000 + 10 x
seed + number of the way; run it on a copy of the data set. What is measured is published at once
(``published.py``), and not trained again, not on another machine either. 12 trainings are some five hours of two
cores, twice that without bfloat16; with ``--seeds`` several processes share them.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from ccdcseg import workflow
from ccdcseg.datasets.cases import Case, dataset_folder, read_cases
from ccdcseg.datasets.splits import Split, add_splits, draw_splits
from ccdcseg.datasets.unlabelled import channel_files
from ccdcseg.nnunet.paths import nnunet_folder
from ccdcseg.proposals.draws import Pool, covering_draw, random_draw, unsure_draw
from ccdcseg.proposals.features import ScanFeatures, ScanFiles, distances, measure_scans, same_patient
from ccdcseg.proposals.networks import doubts
from ccdcseg.runs.evaluation import Evaluation
from published import add_runs, from_folder, runs_in

PUBLISHED = Path(__file__).parent / "data" / "next"
WAYS = ("start", "random", "covering", "unsure")
SEEDS, START, MORE, TEST = (0, 1, 2), 5, 5, 25


@dataclass(frozen=True)
class Row:
    """A way, on the test patients.

    Attributes:
        way: of choosing scans.
        dice: in percent, mean over seeds, then patients.
        gain: Dice points to chance, mean over seeds, then patients.
        low: end of its 95 % interval over patients.
        high: the other end.
        seeds: the gain of each seed.
    """

    way: str
    dice: float
    gain: float
    low: float
    high: float
    seeds: tuple[float, ...]


def main() -> None:
    """Train what is not trained yet, then print and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--dry-run", action="store_true", help="show who is drawn, train nothing")
    arguments = parser.parse_args()
    raw = dataset_folder(nnunet_folder("nnUNet_raw"), arguments.dataset)
    cache = nnunet_folder("nnUNet_preprocessed") / raw.name / "ccdcseg_next"
    cases = read_cases(raw)
    scans = [ScanFiles(case, tuple(channel_files(raw, case.case, raw / "imagesTr"))) for case in cases]
    features = measure_scans(scans, cache / "features", 2)
    for seed in arguments.seeds:
        for way, split in drawn(raw, scans, features, seed, cache, arguments.dry_run):
            if arguments.dry_run:
                print(seed, way, *split.train)
            elif name(way, seed) not in published():
                publish(way, seed, trained(raw, cases, split, seed))
    if arguments.dry_run:
        return
    found = measured()
    missing = [name(way, seed) for way in WAYS for seed in SEEDS if name(way, seed) not in found]
    print(f"Not measured: {', '.join(missing)}" if missing else "\n".join(table(summary(found))))


def name(way: str, seed: int) -> str:
    """Of a published network."""
    return f"{way}_seed{seed}"


def published() -> dict[str, Evaluation]:
    """What has been measured."""
    return {run.name: run.evaluation for run in runs_in(PUBLISHED)}


def measured() -> dict[str, dict[str, float]]:
    """Dice of each patient, of each published network."""
    return {run: dice_by_patient(evaluation) for run, evaluation in published().items()}


def publish(way: str, seed: int, folder: Path) -> None:
    """Measure a network on the test patients, and keep what is measured in the repository."""
    workflow.predict(folder)
    workflow.evaluate(folder)
    with FileLock(nnunet_folder("nnUNet_preprocessed") / "next_scans.lock"):
        add_runs(PUBLISHED, [from_folder(folder, "test", name(way, seed))])


def drawn(
    raw: Path, scans: list[ScanFiles], features: list[ScanFeatures], seed: int, cache: Path, dry_run: bool
) -> Iterator[tuple[str, Split]]:
    """The split of each way; the least sure last, for which the start is trained, and not in a dry run."""
    cases = [scan.case for scan in scans]
    patients = len({case.patient for case in cases})
    (start,) = draw_splits(cases, [START / patients], seed, TEST)
    base = numbered(start, 0, seed, start.train)
    yield "start", base
    pool, order = pool_of(scans, features, start)

    def more(number: int, places: list[int]) -> Split:
        return numbered(start, number, seed, [*start.train, *(pool.scans[place].patient for place in places)])

    yield "random", more(1, random_draw(pool, MORE, seed))
    yield "covering", more(2, covering_draw(pool, MORE, seed))
    if not dry_run and name("unsure", seed) not in published():
        run = trained(raw, cases, base, seed)
        asked = [scans[place] for place in order[: len(pool.scans)]]
        told = doubts([run], asked, raw, "auto", cache / f"doubts_{seed}", lambda *_: None)
        yield "unsure", more(3, unsure_draw(pool, MORE, seed, [doubt.sure for doubt in told]))


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


def trained(raw: Path, cases: list[Case], split: Split, seed: int) -> Path:
    """The run's folder, trained now where it is not yet."""
    add_splits(raw, [split], cases, {})
    run = workflow.choose(
        raw.name,
        "nnunet",
        fraction=split.fraction,
        seed=split.seed,
        preset="cpu",
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


def summary(found: dict[str, dict[str, float]]) -> list[Row]:
    """Each way beside chance."""
    patients = sorted(found[name("random", SEEDS[0])])
    dice = {
        way: np.array([[100 * found[name(way, seed)][one] for one in patients] for seed in SEEDS])
        for way in WAYS
    }
    picks = np.random.default_rng(0).integers(0, len(patients), (9999, len(patients)))
    rows = []
    for way, values in dice.items():
        apart = values - dice["random"]
        low, high = np.quantile(apart.mean(0)[picks].mean(1), (0.025, 0.975))
        seeds = tuple(float(value) for value in apart.mean(1))
        rows.append(Row(way, float(values.mean()), float(apart.mean()), float(low), float(high), seeds))
    return rows


def table(rows: list[Row]) -> Iterator[str]:
    """The summary in Markdown."""
    yield "| way | Dice, % | points to random | of each seed |"
    yield "| --- | --- | --- | --- |"
    for row in rows:
        gain, seeds = "", ""
        if row.way != "random":
            gain = f"{row.gain:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"
            seeds = ", ".join(f"{value:+.1f}" for value in row.seeds)
        yield f"| `{row.way}` | {row.dice:.1f} | {gain} | {seeds} |"


if __name__ == "__main__":
    main()
