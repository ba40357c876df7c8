"""Table of the published runs of the ablation: each setting, its seeds, and the difference to its paired nnU-Net.

python study/ablation_table.py study/data/ablation > study/ablation/runs.md

Several places (``published.py``) are joined. With --bare: the table alone. With --rename OLD=NEW the runs of one
setting count as those of another.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from ccdcseg.measure.patients import bootstrap_interval
from ccdcseg.runs.evaluation import Evaluation
from ccdcseg.runs.record import RunRecord
from ccdcseg.statistics.compare import compare
from published import read_runs

HEADER = """# Runs of the ablation

Written by `study/ablation_table.py` from the tables in `study/data/ablation`; [protocol](protocol.md).
Measured on the 30 patients for choosing of each seed: Dice in %, mean [95 % interval over patients], the difference
to nnU-Net of the same seeds and number of steps (mean, median over the patients, mean without the patient who
differs most, then the mean by class), and mean and median of `hd95_pooled_mm` over all structures, and for how many
it is not defined. A seed has several trainings of nnU-Net, since they differ by processor: a run is compared with
those whose first epoch has the very loss of its own, or, if there are none (the term acts from the first step),
with the mean of all of its precision (`precision` in its record; where none is recorded, any).
"""
COLUMNS = (
    "setting", "steps", "seeds", "changes to the preset", "Dice", "difference", "median", "without",
    "RV", "Myo", "LV", "HD95, mean, median", "none",
)  # fmt: skip

Evaluations = dict[int, Evaluation]
"""Of a setting, by seed."""
Key = tuple[str, int]
"""Setting and number of steps."""


@dataclass(frozen=True)
class Training:
    """One published run: its record, its evaluation and the segmentation loss of its first epoch."""

    record: RunRecord
    evaluation: Evaluation
    first_loss: float | None

    @property
    def is_plain(self) -> bool:
        """Whether it is nnU-Net's, or CCDC's with a term of weight 0, which is the same training."""
        method = self.record.method
        return method == "nnunet" or (method == "ccdc" and not self.record.settings["ccdc"]["weight"])


Settings = dict[Key, dict[int, Training]]
"""The trainings of each setting by seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW")
    arguments = parser.parse_args()
    settings = load(arguments.runs, dict(pair.split("=") for pair in arguments.rename))
    if not arguments.bare:
        print(HEADER)
    for line in (COLUMNS, ["---"] * len(COLUMNS)):
        print(f"| {' | '.join(line)} |")
    for name, steps in sorted(settings, key=lambda key: (key[1], not is_plain(settings[key]))):
        trainings = settings[name, steps]
        changes = ", ".join(f"`{change}`" for change in next(iter(trainings.values())).record.changes)
        row = f"{name} | {steps} | {', '.join(map(str, trainings))} | {changes}"
        theirs = {} if is_plain(trainings) else nnunet_of(settings, (name, steps))
        print(f"| {row} | {cells(evaluations(trainings), theirs)} |")


def load(places: Sequence[Path], renamed: Mapping[str, str] | None = None) -> Settings:
    """The published runs at the places; settings under other names where these are given."""
    settings: Settings = defaultdict(dict)
    for run in (run for place in places for run in read_runs(place).values()):
        name = (renamed or {}).get(run.setting, run.setting)
        training = Training(run.record, run.evaluation, run.history[0].segmentation_loss)
        settings[name, run.record.iterations][run.record.seed] = training
    return settings


def evaluations(trainings: dict[int, Training]) -> Evaluations:
    """Those of a setting."""
    return {seed: training.evaluation for seed, training in trainings.items()}


def is_plain(trainings: dict[int, Training]) -> bool:
    """Whether a setting is nnU-Net."""
    return next(iter(trainings.values())).is_plain


def nnunet_of(settings: Settings, key: Key) -> Evaluations:
    """What a setting is compared with (HEADER), by seed."""
    found: Evaluations = {}
    for seed, ours in settings[key].items():
        plain = [
            trainings[seed]
            for (_, steps), trainings in settings.items()
            if steps == key[1]
            and seed in trainings
            and trainings[seed].is_plain
            and len({ours.record.precision, trainings[seed].record.precision} - {None}) < 2
        ]
        same = [training for training in plain if training.first_loss == ours.first_loss]
        if plain:
            found[seed] = averaged([training.evaluation for training in same or plain])
    return found


def averaged(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Several trainings as one: each structure's mean Dice."""
    cases = zip(*(evaluation.cases for evaluation in evaluations), strict=True)
    rows = [same[0].model_copy(update={"dice": mean(row.dice or 0 for row in same)}) for same in cases]
    return Evaluation.of(evaluations[0].classes, rows)


def cells(ours: Evaluations, baseline: Evaluations) -> str:
    """What is printed of one setting."""
    dice = [100 * value for evaluation in ours.values() for value in evaluation.values("dice").values()]
    low, high = bootstrap_interval(dice) or (float("nan"),) * 2
    found = [row.hd95_pooled_mm for evaluation in ours.values() for row in evaluation.cases]
    distances = [distance for distance in found if distance is not None]
    theirs = {seed: baseline[seed] for seed in ours if seed in baseline}
    shown = [f"{mean(dice):.2f} [{low:.2f}, {high:.2f}]", *differences(ours, theirs)]
    undefined = str(found.count(None))
    return " | ".join([*shown, f"{mean(distances):.1f}, {median(distances):.1f}", undefined])


def differences(ours: Evaluations, theirs: Evaluations) -> list[str]:
    """The mean over the classes with its interval, median, mean without one patient, then each class."""
    if not theirs:
        return [""] * 6
    result = compare(ours, theirs, "dice")
    low, high = (100 * value for value in result.interval or (float("nan"),) * 2)
    each = [f"{points:+.2f}" for points in by_structure(ours, theirs).values()]
    middle = f"{100 * median(result.differences.values()):+.2f}"
    shown = f"{100 * result.mean_difference:+.2f} [{low:+.2f}, {high:+.2f}]"
    return [shown, middle, without_one(result.differences), *each]


def without_one(differences: dict[str, float]) -> str:
    """The mean without the patient who differs most, and who that is."""
    patient = max(differences, key=lambda name: abs(differences[name]))
    rest = [value for name, value in differences.items() if name != patient]
    return f"{100 * mean(rest):+.2f} ({patient})" if rest else ""


def by_structure(ours: Evaluations, theirs: Evaluations) -> dict[str, float]:
    """The mean difference of each structure in points."""
    classes = next(iter(ours.values())).classes
    return {name: 100 * compare(ours, theirs, "dice", name).mean_difference for name in classes}


if __name__ == "__main__":
    main()
