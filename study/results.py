"""Tables of docs (results.md, scans.md, two.md, next.md), with figures, from the study's tables and docs/results.

python study/results.py    # prints the tables, writes docs/results/differences.svg, recipes.svg and two.svg
"""

import csv
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

import next_scans
from ablation_figures import forest
from ablation_table import evaluations, load, nnunet_of
from ccdcseg.measure.display import p_text
from ccdcseg.measure.patients import MEAN, bootstrap_interval
from ccdcseg.report.figures import save_figure
from ccdcseg.runs.evaluation import Evaluation
from ccdcseg.statistics.compare import Comparison, compare, holm, wilcoxon_p
from ccdcseg.statistics.family import FAMILY
from published import Published, read_runs

ROOT = Path(__file__).parents[1]
DATA = ROOT / "study" / "data"
RESULTS = ROOT / "docs" / "results"

STEPS = [
    ("preset of before (SGD), as predicted", ("cpu_sgd", "plain"), 0),
    ("the same, islands removed", ("cpu_sgd", "postprocessed"), 1),
    ("AdamW, averages, more foreground, mirroring (`cpu`)", ("cpu", "postprocessed"), 2),
    ("and 50 patients without masks", ("cpu unlabelled", "postprocessed"), 3),
    ("as row 3, three times as many steps (`cpu_long`)", ("cpu_long", "postprocessed"), 3),
    ("and 50 patients without masks", ("cpu_long unlabelled", "postprocessed"), 5),
    ("as row 4, with CCDC from half time, weight 0.3", ("cpu unlabelled ccdc", "postprocessed"), 4),
    ("as row 7, CCDC on all scans (`ccdc_both`)", ("cpu unlabelled ccdc_both", "postprocessed"), 4),
    ("self-training, four trainings of row 3's length", ("cpu self-training", "postprocessed"), 5),
]
"""Rows of the first table: name, training and prediction in the file, number of the row it is compared with."""
SCANS = [
    ("5 annotated, a quarter of an hour", ("5 annotated, cpu", "postprocessed"), 0),
    ("and 50 without masks", ("5 annotated, cpu unlabelled", "postprocessed"), 1),
    ("5 annotated, an hour", ("5 annotated, cpu_long", "postprocessed"), 1),
    ("and 50 without masks", ("5 annotated, cpu_long unlabelled", "postprocessed"), 3),
    ("10 annotated, a quarter of an hour", ("10 annotated, cpu", "postprocessed"), 1),
    ("and 50 without masks", ("10 annotated, cpu unlabelled", "postprocessed"), 5),
    ("two networks of row 5 together", ("10 annotated, 2 x cpu", "postprocessed"), 5),
    ("10 annotated, an hour", ("10 annotated, cpu_long", "postprocessed"), 5),
    ("and 50 without masks", ("10 annotated, cpu_long unlabelled", "postprocessed"), 8),
]
"""Rows of the table of docs/scans.md, the same way."""
DRAWS = [("5 annotated, cpu", "5 annotated, cpu unlabelled")] + [
    (f"5 annotated, cpu, seed {seed}", f"5 annotated, cpu unlabelled, seed {seed}") for seed in (1, 2)
]
"""Its second table: the two trainings of each draw of five patients."""

PRINTED = [
    ("nnU-Net, in float32", ("printed: nnU-Net", "postprocessed"), 0),
    ("the printed form, weight 1, from the first step", ("printed: first_1", "postprocessed"), 1),
    ("nnU-Net, in bfloat16", ("printed: nnU-Net, bfloat16", "postprocessed"), 0),
    ("the printed form, weight 0.3, from the first step", ("printed: first_0.3", "postprocessed"), 3),
    ("weight 1, from half time", ("printed: half_1", "postprocessed"), 3),
    ("weight 0.3, from half time", ("printed: half_0.3", "postprocessed"), 3),
    ("similarities of the set, weight 1, from the first step", ("printed: set_first_1", "postprocessed"), 3),
    ("50 patients without masks", ("10 annotated, cpu unlabelled", "postprocessed"), 3),
    ("and row 6", ("printed: half_0.3_unlabelled", "postprocessed"), 8),
    ("the pixel reading, half resolution, `replace`", ("printed: half_resolution", "postprocessed"), 3),
    ("the same at full resolution", ("printed: full_resolution", "postprocessed"), 3),
]
"""Rows of the table of docs/method.md, of ``study/recipes/printed.yaml``."""
PRINTED_ARMS = (2, 4, 5, 6, 7, 9, 10, 11)
"""Those with a contrastive term: the family of the protocol."""
HEARTS = [
    ("nnU-Net", ("printed: nnU-Net", "postprocessed"), 0),
    ("without mirroring", ("10 annotated, cpu, not mirrored", "postprocessed"), 1),
    ("mirrored, stronger augmentation", ("10 annotated, cpu, stronger augmentation", "postprocessed"), 1),
    ("nnU-Net, in bfloat16", ("printed: nnU-Net, bfloat16", "postprocessed"), 0),
    ("`nnUNetTrainerDA5` as it is, in bfloat16", ("10 annotated, cpu, DA5", "postprocessed"), 4),
]
"""What both give to ten hearts, whose parts have no other side."""
CEILING = [
    ("10 annotated", ("printed: nnU-Net, bfloat16", "postprocessed"), 0),
    ("60 annotated: these and the 50", ("60 annotated, cpu", "postprocessed"), 1),
]
"""What the masks of the 50 would give, of ``study/recipes/ceiling.yaml``."""
FIVE = [
    ("nnU-Net, 52 epochs", ("5 annotated, cpu, bfloat16", "postprocessed"), 0),
    ("stronger augmentation, 51 epochs", ("5 annotated, cpu, stronger augmentation", "postprocessed"), 1),
]
"""Stronger augmentation, five hearts."""
RECIPES = {
    "10 annotated, cpu, DA5": "ten/nnunet_cpu_ce1811cd_seed0",
    "5 annotated, cpu, bfloat16": "five/nnunet_cpu_31ecda43_seed0",
    "5 annotated, cpu, stronger augmentation": "five/nnunet_cpu_6e048d63_seed0",
    "60 annotated, cpu": "ceiling/nnunet_cpu_seed0",
    "10 annotated, cpu, not mirrored": "recipes/nnunet_cpu_e1422ce2_seed0",
    "10 annotated, cpu, stronger augmentation": "recipes/nnunet_cpu_ce1811cd_seed0",
    "5 annotated, cpu_long": "recipes/nnunet_cpu_long_9f2a5673_seed0",
    "5 annotated, cpu_long unlabelled": "recipes/nnunet_cpu_long_832341ac_seed0",
    "printed: nnU-Net": "recipes/nnunet_cpu_seed0",
    "printed: first_1": "recipes/ccdc_cpu_e4e80c36_seed0",
    "printed: nnU-Net, bfloat16": "printed/nnunet_cpu_seed0",
    "printed: first_0.3": "printed/ccdc_cpu_a5843b35_seed0",
    "printed: set_first_1": "printed/ccdc_cpu_f65137f5_seed0",
    "printed: half_1": "printed/ccdc_cpu_623f25fb_seed0",
    "printed: half_0.3": "printed/ccdc_cpu_68bdc8ef_seed0",
    "printed: half_0.3_unlabelled": "printed/ccdc_cpu_68bdc8ef_unlabelled_seed0",
    "printed: half_resolution": "printed/ccdc_cpu_c0ac903a_seed0",
    "printed: full_resolution": "printed/ccdc_cpu_97db9c4d_seed0",
}
"""Trainings of these tables whose records are in ``study/data``; of others the scores alone are left."""

SIDES = ("nnunet_cpu", "nnunet_cpu_e1422ce2")
"""The two settings in ``study/data/sides``, of ``study/recipes/chaos.yaml``."""
STRONG = ("nnunet_cpu_e1422ce2", "nnunet_cpu_82ea6105")
"""Without mirroring, and with stronger augmentation, of ``study/recipes/augmentation.yaml``."""

LEVELS = {
    "as nnU-Net: mirrored, its augmentation": SIDES[0],
    "not mirrored": SIDES[1],
    "and stronger augmentation": STRONG[1],
}
"""The three settings, by what is said of them."""

CONTEXT = [
    ("patches of 224 mm (`cpu`)", ("nnunet_cpu_e1422ce2_seed0", "postprocessed"), 0),
    ("336 mm, four a batch, 43 epochs", ("nnunet_cpu_8f05473f_seed0", "postprocessed"), 1),
    ("320 mm, pixels of 2.5 mm", ("nnunet_cpu_6a551c4d_seed0", "postprocessed"), 1),
]
"""Patches that hold the whole slice, of ``study/recipes/context.yaml``."""
VOLUMES = [
    ("slices, 47 epochs", ("nnunet_cpu_82ea6105_seed2", "postprocessed"), 0),
    ("volumes of 123 x 168 x 168 mm, 18 epochs", ("nnunet_cpu_8fec29d7_seed2", "postprocessed"), 1),
]
"""A 3-D network, of ``study/recipes/volumes.yaml``."""
MORE = ("nnunet_cpu_82ea6105", "nnunet_cpu_c82b56e7_unlabelled")
"""Stronger augmentation alone, and with six scans without masks, of ``study/recipes/unlabelled_two.yaml``."""
MORE_CCDC = (MORE[1], "ccdc_cpu_5b9f80e4_unlabelled")
"""These, and with CCDC."""
CONFIRMED = (2, 3, 4)
"""Draws of two patients that no setting was chosen by."""

Scores = dict[str, tuple[float, float]]
"""Patient to Dice in % and distance in mm."""
Steps = Sequence[tuple[str, tuple[str, str], int]]


@dataclass(frozen=True)
class Row:
    """A setting of CCDC, or a rival, that is compared with nnU-Net.

    Attributes:
        label: in table and figure.
        patients: whose they are.
        places: of its runs and those of nnU-Net, in `DATA`.
        setting: its name there.
        steps: of the training.
    """

    label: str
    patients: str
    places: tuple[str, ...]
    setting: str
    steps: int = 2400

    @property
    def comparison(self) -> Comparison:
        """Its Dice against nnU-Net's."""
        settings = load([DATA / place for place in self.places])
        key = self.setting, self.steps
        return compare(evaluations(settings[key]), nnunet_of(settings, key), "dice")


PIXELS, FIXED, HALF = "CCDC, pixel reading", "CCDC, chosen reading", "CCDC, half resolution"
CHOOSING = "ACDC, for choosing"
LONG = (
    "ablation/nnunet_4x",
    "ablation/half_time_0.3_half_resolution_4x",
    "ablation/half_time_0.3_fixed_both_4x",
)
SHORT = tuple(
    f"ablation/half_time_0{name}" for name in ("_float32", "_half_resolution", ".3_half_resolution")
)
READINGS = [
    Row(PIXELS, "ACDC", ("acdc",), "ccdc_cpu"),
    Row(PIXELS, "CHAOS T2", ("chaos_t2",), "ccdc_cpu"),
    Row(FIXED, "ACDC, set aside", ("test",), "half_time_0.3_fixed_both"),
    Row(FIXED, CHOOSING, LONG, "half_time_0.3_fixed_both_4x", 9600),
    Row(HALF, CHOOSING, SHORT, "half_time_0.3_half_resolution"),
    Row(HALF, CHOOSING, LONG, "half_time_0.3_half_resolution_4x", 9600),
    Row(HALF, "CHAOS T2", ("chaos",), "half_resolution"),
]
"""Rows of the second table."""
RIVALS = [
    Row(label, CHOOSING, ("ablation/nnunet", f"methods/{setting}"), setting)
    for setting, label in {
        "reco": "ReCo",
        "contrastive_seg": "ContrastiveSeg",
        "region_contrast": "RegionContrast",
        "focal": "Focal",
        "gdl": "GDL",
        "topk": "TopK",
        "mcc": "MCC",
    }.items()
]
"""Rows of the figure beside those; nnFormer is far outside of it."""


def main() -> None:
    scans = unlabelled_table(), scans_table(), draws_table(), ceiling_table()
    mirrored = (
        levels_table(),
        sides_table(),
        sides_by_organ(),
        hearts_table(),
        two_hearts_table(),
        thirty_degrees_table(),
        five_hearts_table(),
    )
    strong = confirmed_table(), target_table(), strong_table(), strong_by_organ()
    more = more_table(), ccdc_table(), more_target_table()
    others = context_table(), volumes_table(), *more, next_table(), printed_table(), shares_table()
    for table in (*scans, *mirrored, *strong, *others):
        print("\n".join(table), end="\n\n")
    readings = [(row, row.comparison) for row in READINGS]
    print("\n".join(readings_table(readings)))
    print(f"Gains by patient: not mirrored {spread(SIDES)}, stronger augmentation {spread(STRONG)}")
    draw([*readings, *((row, row.comparison) for row in RIVALS)])
    draw_recipes(choosing())
    draw_levels()


def unlabelled_table() -> Iterator[str]:
    """What adds up for plain nnU-Net, on the patients for testing."""
    return steps_table(STEPS, read_scores(RESULTS / "unlabelled.csv"))


def scans_table() -> Iterator[str]:
    """What a lab can do with its scans, on the patients for choosing."""
    return steps_table(SCANS, choosing())


def ceiling_table() -> Iterator[str]:
    """What masks of the scans without masks would give, on the patients for choosing."""
    return steps_table(CEILING, choosing())


def draws_table() -> Iterator[str]:
    """Scans without masks beside each draw of five patients."""
    trainings = choosing()
    pairs = {seed: [trainings[name, "postprocessed"] for name in names] for seed, names in enumerate(DRAWS)}
    return pairs_table("five patients of seed | nnU-Net | and 50 without masks", pairs)


def levels_table() -> Iterator[str]:
    """What each setting comes to, draw by draw."""
    yield "| preset `cpu`, two annotated patients | Dice, %, of each draw | 95HD, mm |"
    yield "| --- | --- | --- |"
    runs = pairs_of_two(LEVELS.values())
    for place, label in enumerate(LEVELS):
        scores = [patient_scores(settings[place].evaluation).values() for settings in runs.values()]
        dice, distances = (
            ", ".join(f"{mean(pair[number] for pair in one):.1f}" for one in scores) for number in (0, 1)
        )
        yield f"| {label} | {dice} | {distances} |"


def over_seeds(runs: Iterable[Published]) -> str:
    """What a setting comes to: the mean over its draws, in Dice and distance."""
    scores = [patient_scores(run.evaluation).values() for run in runs]
    dice, distance = (mean(mean(pair[number] for pair in one) for one in scores) for number in (0, 1))
    return f"{dice:.1f}, {distance:.1f} mm"


def of_two_patients() -> Iterator[str]:
    """Of docs/scans.md: two abdomens and two hearts, as they are trained, and as nnU-Net trains."""
    levels = [*zip(*pairs_of_two(LEVELS.values()).values(), strict=True)]
    for plain, ours in ((levels[0], levels[-1]), [*zip(*pairs_of_hearts().values(), strict=True)]):
        yield f"**{over_seeds(ours)}**; nnU-Net: {over_seeds(plain)}"


def sides_table() -> Iterator[str]:
    """Patches that are not mirrored, where organs have two sides, beside each draw of two patients."""
    return draws_of_two(SIDES, "nnU-Net | without mirroring")


def sides_by_organ() -> Iterator[str]:
    """The same by organ."""
    return organs_table(SIDES, "nnU-Net, Dice, % | without mirroring")


def strong_table() -> Iterator[str]:
    """Stronger augmentation, beside each draw of two patients."""
    return draws_of_two(STRONG, "nnU-Net's augmentation | stronger")


def strong_by_organ() -> Iterator[str]:
    """The same by organ."""
    return organs_table(STRONG, "nnU-Net's, Dice, % | stronger")


def draws_of_two(settings: Sequence[str], heading: str) -> Iterator[str]:
    """Two settings for each draw of two patients of CHAOS."""
    return draws_of(pairs_of_two(settings), heading)


def two_hearts_table() -> Iterator[str]:
    """Stronger augmentation beside each draw of two patients of ACDC, on the patients for choosing."""
    return draws_of(pairs_of_hearts(), "nnU-Net's augmentation | stronger")


def thirty_degrees_table() -> Iterator[str]:
    """The same on two draws, where patches are turned by no more, as of organs of two sides."""
    pairs = complete(read_runs(DATA / "hearts"), ("nnunet_cpu", "nnunet_cpu_ce1811cd"))
    return draws_of(pairs, "nnU-Net's augmentation | stronger, 30 degrees")


def pairs_of_hearts() -> dict[int, list[Published]]:
    """Two patients of ACDC: with nnU-Net's augmentation, and with ``nnUNetTrainerDA5``."""
    runs = {**read_runs(DATA / "hearts" / "nnunet_cpu"), **read_runs(DATA / "turned")}
    return complete(runs, ("nnunet_cpu", "nnunet_cpu_ce1811cd"))


def draws_of(pairs: Mapping[int, Sequence[Published]], heading: str) -> Iterator[str]:
    """Two trainings for each draw of two patients."""
    scores = {seed: [patient_scores(run.evaluation) for run in pair] for seed, pair in pairs.items()}
    return pairs_table(f"two patients of seed | {heading}", scores)


def organs_table(settings: Sequence[str], heading: str) -> Iterator[str]:
    """The same by organ, each patient's mean over the draws that measured them."""
    yield f"| organ | {heading} | Dice points |"
    yield "| --- | --- | --- | --- |"
    for organ in next(iter(pairs_of_two(settings).values()))[0].evaluation.classes:
        plain, other = by_patient(settings, organ)
        gains = [100 * (other[patient] - plain[patient]) for patient in plain]
        shown = " | ".join(f"{100 * mean(dice.values()):.1f}" for dice in (plain, other))
        yield f"| {organ.replace('_', ' ')} | {shown} | {gain_of(gains)} |"


def hearts_table() -> Iterator[str]:
    """The same where no organ has another side, on the patients for choosing."""
    return steps_table(HEARTS, choosing())


def five_hearts_table() -> Iterator[str]:
    """Stronger augmentation beside five patients of ACDC, on the patients for choosing."""
    return steps_table(FIVE, choosing())


def context_table() -> Iterator[str]:
    """Patches that hold a whole slice, two annotated patients."""
    return steps_table(CONTEXT, two_patients())


def volumes_table() -> Iterator[str]:
    """A 3-D network, two annotated patients."""
    return steps_table(VOLUMES, two_patients())


def more_table() -> Iterator[str]:
    """Scans without masks, beside each draw of two patients: on those who are neither."""
    return draws_of_two(MORE, "stronger augmentation | and six without masks")


def ccdc_table() -> Iterator[str]:
    """CCDC with scans without masks, the same way."""
    return draws_of_two(MORE_CCDC, "six without masks | and CCDC")


def confirmed_table() -> Iterator[str]:
    """Both settings on the draws that neither was chosen by: a family of four tests."""
    return family_table({"without mirroring": SIDES, "stronger augmentation": STRONG}, CONFIRMED)


def target_table() -> Iterator[str]:
    """Both settings together on all draws, over nnU-Net as it is and over nnU-Net that does not mirror."""
    return family_table(
        {"over nnU-Net as it is": (SIDES[0], STRONG[1]), "over not mirrored": STRONG}, range(5)
    )


def more_target_table() -> Iterator[str]:
    """Scans without masks and CCDC on the draws of one precision."""
    return family_table({"six scans without masks": MORE, "CCDC with them": MORE_CCDC}, CONFIRMED)


def spread(settings: Sequence[str]) -> str:
    """Dice points of whom gains least and whom gains most by the second of two settings, over all draws."""
    before, after = by_patient(settings)
    gains = [100 * (after[patient] - before[patient]) for patient in before]
    return f"{min(gains):.1f} to {max(gains):.1f}"


def family_table(pairs: Mapping[str, Sequence[str]], seeds: Iterable[int]) -> Iterator[str]:
    """A row for two settings, the second minus the first, p adjusted over all rows and both metrics."""
    yield "| | Dice points | 95HD, mm |"
    yield "| --- | --- | --- |"
    runs = runs_of_two()
    found = []
    for settings in pairs.values():
        before, after = ({seed: runs[f"{name}_seed{seed}"].evaluation for seed in seeds} for name in settings)
        found += [compare(after, before, metric) for metric in FAMILY]
    p_values = holm([result.p_value for result in found])
    cells = [
        f"{scale * result.mean_difference:+.1f} {bounds(result, scale)}, p {p_text(p)}"
        for result, p, scale in zip(found, p_values, cycle((100, 1)), strict=False)
    ]
    for label, dice, distance in zip(pairs, cells[::2], cells[1::2], strict=True):
        yield f"| {label} | {dice} | {distance} |"


def bounds(result: Comparison, scale: float) -> str:
    """The interval over patients and draws."""
    low, high = (scale * end for end in result.interval_seeds or ())
    return f"[{low:+.1f}, {high:+.1f}]"


def two_patients() -> dict[tuple[str, str], Scores]:
    """Scores on CHAOS after two annotated patients, by training and prediction."""
    return {(name, "postprocessed"): patient_scores(run.evaluation) for name, run in runs_of_two().items()}


def pairs_of_two(settings: Collection[str]) -> dict[int, list[Published]]:
    """On CHAOS, of each draw that all settings were trained on."""
    return complete(runs_of_two(), settings)


def complete(runs: Mapping[str, Published], settings: Collection[str]) -> dict[int, list[Published]]:
    """The runs of each seed that has all settings."""
    pairs = {seed: [runs.get(f"{setting}_seed{seed}") for setting in settings] for seed in range(5)}
    return {seed: found for seed, pair in pairs.items() if len(found := [*filter(None, pair)]) == len(pair)}


def runs_of_two() -> dict[str, Published]:
    """Trainings on two patients of CHAOS, by setting and seed."""
    return {**read_runs(DATA / "sides"), **read_runs(DATA / "two")}


def pairs_table(heading: str, pairs: Mapping[int, Sequence[Scores]]) -> Iterator[str]:
    """A row for two trainings of each seed, and one by patient over all seeds that measured them.

    Patients count whom both were measured on.
    """
    gains: list[dict[str, float]] = []
    yield f"| {heading} | Dice points |"
    yield "| --- | --- | --- | --- |"
    for seed, (plain, other) in pairs.items():
        both = [patient for patient in plain if patient in other]
        gains.append({patient: other[patient][0] - plain[patient][0] for patient in both})
        shown = " | ".join(
            f"{mean(scores[one][0] for one in both):.1f}, {mean(scores[one][1] for one in both):.1f} mm"
            for scores in (plain, other)
        )
        yield f"| {seed} | {shown} | {gain_of([*gains[-1].values()])} |"
    everyone = over_draws(gains)
    yield f"| all, {len(everyone)} patients | | | {gain_of([*everyone.values()])} |"


def by_patient(settings: Sequence[str], structure: str = MEAN) -> list[dict[str, float]]:
    """Dice of each patient with two settings, over the draws of two patients of CHAOS."""
    pairs = pairs_of_two(settings).values()
    return [over_draws(pair[side].evaluation.values("dice", structure) for pair in pairs) for side in (0, 1)]


def over_draws(draws: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Each patient's mean over the draws that measured it."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in draws:
        for patient, value in one.items():
            found[patient].append(value)
    return {patient: mean(values) for patient, values in found.items()}


def next_table() -> Iterator[str]:
    """Ways of choosing scans to annotate, on the patients for testing."""
    return next_scans.table(next_scans.summary(next_scans.measured()))


def printed_table() -> Iterator[str]:
    """Eq. 5 to 7 as they are printed, on the patients for choosing."""
    return steps_table(PRINTED, choosing(), PRINTED_ARMS)


def shares_table() -> Iterator[str]:
    """Hard shares of their queries over the second half, least and most of a class."""
    yield "| row | hard share wanted, % | drawn, % |"
    yield "| --- | --- | --- |"
    for number in PRINTED_ARMS:
        (run,) = read_runs(DATA / RECIPES[PRINTED[number - 1][1][0]]).values()
        shown = " | ".join(hard_share(run, f"hard_share_{kind}") for kind in ("wanted", "drawn"))
        yield f"| {number} | {shown} |"


def hard_share(run: Published, name: str) -> str:
    """Of each class the mean over the second half of the epochs; the least and the most of them."""
    epochs = [epoch["diagnostics"][name] for epoch in run.epochs[len(run.epochs) // 2 :]]
    shares = [
        100 * mean(value for value in values if value is not None) for values in zip(*epochs, strict=True)
    ]
    return f"{min(shares):.0f} to {max(shares):.0f}"


@cache
def choosing() -> dict[tuple[str, str], Scores]:
    """Scores of the patients for choosing, by training and prediction."""
    folders = {place.partition("/")[0] for place in RECIPES.values()}
    runs = {f"{folder}/{run}": found for folder in folders for run, found in read_runs(DATA / folder).items()}
    published = {
        (name, "postprocessed"): patient_scores(runs[place].evaluation) for name, place in RECIPES.items()
    }
    return {**read_scores(RESULTS / "choosing.csv"), **published}


def patient_scores(evaluation: Evaluation) -> Scores:
    """Each patient's mean over the classes, as tables show them."""
    distances = evaluation.values("hd95_pooled_mm")
    return {patient: (100 * dice, distances[patient]) for patient, dice in evaluation.values("dice").items()}


def read_scores(path: Path) -> dict[tuple[str, str], Scores]:
    """Scores by training and prediction."""
    found: dict[tuple[str, str], Scores] = defaultdict(dict)
    with path.open(newline="") as handle:
        for row in csv.DictReader(handle):
            scores = 100 * float(row["dice"]), float(row["hd95_pooled_mm"])
            found[row["training"], row["prediction"]][row["patient"]] = scores
    return found


def patients_of(steps: Steps, trainings: Mapping[tuple[str, str], Scores]) -> list[str]:
    """Those whom all steps were measured on."""
    return sorted(set.intersection(*(set(trainings[key]) for _, key, _ in steps)))


def steps_table(
    steps: Steps, trainings: Mapping[tuple[str, str], Scores], arms: Collection[int] = ()
) -> Iterator[str]:
    """A row a step, on the patients whom all of them were measured on.

    Args:
        steps: label, training and the row that it is compared with.
        trainings: scores.
        arms: rows whose p are adjusted, over all of them and both metrics.
    """
    patients = patients_of(steps, trainings)
    scores = [[trainings[key][patient] for patient in patients] for _, key, _ in steps]
    gains = [
        differences(row, scores[other - 1]) if other else []
        for row, (*_, other) in zip(scores, steps, strict=True)
    ]
    adjusted = holm([wilcoxon_p(metric) for number in arms for metric in gains[number - 1]])
    p_values = dict(zip(arms, adjusted[::2], strict=True))
    yield "| | | Dice, % | 95HD, mm | Dice points to row |"
    yield "| --- | --- | --- | --- | --- |"
    for number, (label, _, other) in enumerate(steps, 1):
        dice, distances = zip(*scores[number - 1], strict=True)
        shown = (
            f"{mean(dice):.1f} {interval(dice, '.1f')} | {mean(distances):.1f} {interval(distances, '.1f')}"
        )
        gain = f"{other}: {gain_of(gains[number - 1][0], p_values.get(number))}" if other else ""
        yield f"| {number} | {label} | {shown} | {gain} |"


def differences(
    after: Sequence[tuple[float, float]], before: Sequence[tuple[float, float]]
) -> list[list[float]]:
    """Of Dice and of distance, patient by patient."""
    return [[now[place] - then[place] for now, then in zip(after, before, strict=True)] for place in (0, 1)]


def gain_of(gains: Sequence[float], adjusted: float | None = None) -> str:
    """Mean difference of patients, its interval and p, which may be adjusted."""
    p = wilcoxon_p(gains) if adjusted is None else adjusted
    return f"{mean(gains):+.1f} {interval(gains, '+.1f')}, p {p_text(p)}"


def readings_table(found: Sequence[tuple[Row, Comparison]]) -> Iterator[str]:
    """CCDC against nnU-Net."""
    yield "| | patients | steps | seeds | Dice points to nnU-Net |"
    yield "| --- | --- | --- | --- | --- |"
    for row, result in found:
        low, high = (100 * end for end in result.interval or ())
        difference = f"{100 * result.mean_difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        measured = f"{result.n} of {row.patients} | {row.steps:,} | {len(result.per_seed)}"
        yield f"| {row.label} | {measured} | {difference} |"


def draw(found: Sequence[tuple[Row, Comparison]]) -> None:
    """Every comparison as a line, the first at the top."""
    figure = Figure(figsize=(7, 0.19 * len(found) + 0.6), layout="constrained")
    panel = figure.subplots()
    rows: list[tuple[str, Comparison, dict[str, float]]] = [
        (f"{row.label}: {row.patients}, {row.steps:,} steps", result, {}) for row, result in found
    ]
    forest(panel, rows[::-1])
    panel.set_xlabel("Dice points to nnU-Net, 95 % interval over patients")
    save_figure(figure, RESULTS / "differences", {"svg": {"metadata": {"Date": None}}})


def draw_recipes(trainings: Mapping[tuple[str, str], Scores]) -> None:
    """Dice of each patient by recipe, and its mean."""
    figure = Figure(figsize=(7, 0.34 * len(SCANS) + 0.7), layout="constrained")
    panel = figure.subplots()
    patients = patients_of(SCANS, trainings)
    for place, (_, key, _) in enumerate(SCANS):
        dice = [trainings[key][patient][0] for patient in patients]
        panel.plot(dice, [place] * len(dice), "o", color="0.7", markersize=3)
        panel.plot(mean(dice), place, "D", color="C0", markersize=6)
        panel.annotate(
            f"{mean(dice):.1f}", (mean(dice), place), (0, 6), textcoords="offset points", ha="center"
        )
    panel.set_yticks(
        range(len(SCANS)), [f"{number}: {label}" for number, (label, _, _) in enumerate(SCANS, 1)]
    )
    panel.set_ylim(len(SCANS) - 0.5, -0.8)
    panel.set_xlabel(f"Dice, %: the mean, and each of the {len(patients)} patients")
    save_figure(figure, RESULTS / "recipes", {"svg": {"metadata": {"Date": None}}})


def draw_levels() -> None:
    """Dice of each patient and the mean of each draw, two annotated patients, from setting to setting."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    panel = figure.subplots()
    places = range(len(LEVELS))
    for seed, runs in pairs_of_two(LEVELS.values()).items():
        shift = (seed - 2) * 0.06
        for place, run in enumerate(runs):
            dice = [one for one, _ in patient_scores(run.evaluation).values()]
            panel.plot([place + shift] * len(dice), dice, "o", color="0.75", markersize=3)
        means = [mean(one for one, _ in patient_scores(run.evaluation).values()) for run in runs]
        panel.plot(
            [place + shift for place in places], means, "D-", markersize=5, label=f"patients of seed {seed}"
        )
    panel.set_xticks(places, [*LEVELS])
    panel.set_xlim(-0.5, 2.5)
    panel.set_ylabel("Dice, %")
    panel.legend(loc="lower right", fontsize=8)
    save_figure(figure, RESULTS / "two", {"svg": {"metadata": {"Date": None}}})


def interval(values: Sequence[float], form: str) -> str:
    """Of the mean over patients."""
    low, high = bootstrap_interval(values) or (float("nan"),) * 2
    return f"[{low:{form}}, {high:{form}}]"


if __name__ == "__main__":
    main()
