"""The numbers of the page: results, differences by structure, settings, provenance."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ccdcseg.measure.display import METRICS, NONE, Metric, interval_text, number, signed, spurious_text
from ccdcseg.measure.patients import MEAN, WITH_MISSES, describe
from ccdcseg.postprocessing import in_words
from ccdcseg.runs.evaluation import Evaluation, missed, seed_means, spurious
from ccdcseg.runs.finished import BASELINE, Arm, FinishedRun, flattened
from ccdcseg.statistics.compare import patient_differences
from ccdcseg.statistics.failure import failure
from ccdcseg.statistics.family import FAMILY, Methods, Outcome, Pair, compare_family
from ccdcseg.tabular import Entry, Grid, ranked
from ccdcseg.texts import as_set

MAIN_METRICS = ("dice", "hd95_pooled_mm", "hd95_pooled_vox")
OTHER_METRICS = ("hd95_max_mm", "assd_mm", "hd_mm")

_BOTH_FOUND = "Differences of distances are of structures that neither missed."

Score = tuple[float | None, Entry]
"""A mean and how it is shown."""


@dataclass(frozen=True)
class SettingRow:
    """A setting in every arm or run."""

    name: str
    values: tuple[str, ...]
    differs: bool


def result_grid(arms: Sequence[Arm], name: str) -> Grid:
    """Each arm, the mean of its seeds, by class and on average.

    The best and the second best of those with as many labels and steps are marked; what failed is not.
    """
    metric = METRICS[name]
    scored = [_scores(list(arm.evaluations.values()), arm.classes, metric) for arm in arms]
    budgets = [budget(arm) for arm in arms]
    failed = [bool(failure(arm.evaluations.values())) for arm in arms]
    columns = [_marked(column, metric, budgets, failed) for column in zip(*scored, strict=True)]
    rows = tuple(
        (Entry(arm.label, note=_seeds(arm.evaluations)), *entries, _missed_entry(arm.evaluations.values()))
        for arm, entries in zip(arms, zip(*columns, strict=True), strict=True)
    )
    title = f"{metric.title}, {metric.unit} – {'higher' if metric.higher_is_better else 'lower'} is better"
    return Grid(
        title, ("method", *_headings(arms[0].classes, metric), "missed"), rows, _note(arms[0], metric)
    )


def postprocessing_grid(arms: Sequence[Arm]) -> Grid | None:
    """What removing pieces does to the predictions of each arm; ``None`` where no arm's were measured without."""
    rows = tuple(
        (
            Entry(arm.label, note=_seeds(arm.plain_evaluations)),
            Entry(METRICS[name].title, note=METRICS[name].unit),
            *_postprocessed(arm, METRICS[name]),
            Entry(_rules(arm)),
        )
        for arm in arms
        if arm.plain_evaluations
        for name in FAMILY
    )
    header = ("method", "metric", "as predicted", "post-processed", "difference", "pieces kept")
    note = (
        "As predicted: every piece that the network marks. Post-processed, as in all other tables: the pieces that "
        "the rules keep, which were decided on the training masks. "
        f"{_BOTH_FOUND}"
    )
    return Grid("Before and after post-processing", header, rows, note) if rows else None


def seed_grid(arms: Sequence[Arm], name: str) -> Grid | None:
    """Each seed of the arms that have several; ``None`` where none has."""
    metric = METRICS[name]
    rows = tuple(
        (
            Entry(arm.label),
            Entry(str(seed)),
            *(entry for _, entry in _scores([evaluation], arm.classes, metric)),
            _missed_entry([evaluation]),
        )
        for arm in arms
        if len(arm.evaluations) > 1
        for seed, evaluation in arm.evaluations.items()
    )
    if not rows:
        return None
    header = ("method", "seed", *_headings(arms[0].classes, metric), "missed")
    return Grid(f"{metric.title}, {metric.unit}, by seed", header, rows, _note(arms[0], metric))


def structure_grid(outcomes: Sequence[Outcome], arms: Sequence[Arm]) -> Grid:
    """Mean paired difference by class of what was compared; exploratory, so without p values."""
    methods, classes = evaluations_of(arms), arms[0].classes
    rows = tuple(
        (
            Entry(f"{outcome.first} − {outcome.second}"),
            Entry(METRICS[outcome.metric].title),
            *(_structure(methods, outcome, name) for name in classes),
        )
        for outcome in outcomes
    )
    return Grid(
        "Differences by structure",
        ("comparison", "metric", *classes),
        rows,
        "Exploratory, so without p values. First minus second of each patient, averaged, with its 95 % bootstrap "
        f"interval over patients. {_BOTH_FOUND}",
    )


def usual_outcomes(arms: Sequence[Arm]) -> list[Outcome]:
    """The usual comparisons (`usual_pairs`), in Dice and HD95."""
    return compare_family(evaluations_of(arms), usual_pairs(arms))


def evaluations_of(arms: Sequence[Arm]) -> dict[str, dict[int, Evaluation]]:
    """Label of each arm to its evaluations."""
    return {arm.label: arm.evaluations for arm in arms}


def usual_pairs(arms: Sequence[Arm]) -> list[Pair]:
    """Each with its nnU-Net; two that are no such pair whatever their budgets, the second with the first.

    Of these, nnU-Net that took no scans without masks comes second.
    """
    if (pairs := baseline_pairs(arms)) or len(arms) != 2:
        return pairs
    reference = next(filter(_is_plain, arms), arms[0])
    return [(arm.label, reference.label) for arm in arms if arm is not reference]


def pairs_of(method: str, arms: Sequence[Arm]) -> list[Pair]:
    """Arms of a method with every other one of its budget, of two settings of it the later with the earlier.

    Where there are but two arms, their budgets may differ.
    """
    ours = [(place, arm) for place, arm in enumerate(arms) if arm.method == method]
    return [
        (arm.label, other.label)
        for place, arm in ours
        for number, other in enumerate(arms)
        if (other.method != method or number < place) and (len(arms) == 2 or budget(other) == budget(arm))
    ]


def baseline_pairs(arms: Sequence[Arm]) -> list[Pair]:
    """Every other arm with the nnU-Net of as many labels and steps.

    Where there are several, it is the one that took scans without masks in the same way, of the same preset, whose
    settings differ least.
    nnU-Net that took such scans is compared with nnU-Net that did not.
    """
    pairs = [(arm, baseline) for arm in arms if (baseline := _baseline(arm, arms)) is not None]
    return [(arm.label, baseline.label) for arm, baseline in pairs]


def budget(arm: Arm) -> tuple[Any, ...]:
    """Labels and steps of training: what must be alike where more than two methods are compared."""
    record = arm.runs[0].record
    return record.fraction, record.iterations


def patient_grid(arms: Sequence[Arm]) -> Grid:
    """Each patient with Dice and HD95 of every arm."""
    columns = [(arm, METRICS[name], arm.values(name)) for name in FAMILY for arm in arms]
    patients = sorted({patient for _, _, values in columns for patient in values})
    rows = tuple(
        (Entry(patient), *(Entry(number(values.get(patient), metric)) for _, metric, values in columns))
        for patient in patients
    )
    header = ("patient", *(f"{arm.label}, {metric.title}" for arm, metric, _ in columns))
    return Grid("Every patient", header, rows, "Mean over structures and scans, seeds averaged.")


def setting_rows(arms: Sequence[Arm]) -> list[SettingRow]:
    """Every setting in every arm."""
    return _compared([{"method": arm.method, **arm.runs[0].conditions} for arm in arms])


def version_rows(runs: Sequence[FinishedRun]) -> list[SettingRow]:
    """Every version in every run, and the precision of its network, which moves results as a version does."""
    return _compared([flattened(run.record.environment) for run in runs])


def duration_text(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _headings(classes: Sequence[str], metric: Metric) -> tuple[str, ...]:
    """Of the columns with numbers; see `_scores`."""
    return MEAN, *classes, *(["mean, missed = diagonal"] if metric.name == "hd95_pooled_mm" else [])


def _scores(evaluations: Sequence[Evaluation], classes: Sequence[str], metric: Metric) -> list[Score]:
    """The mean over the classes, every class and, of the distance that is tested, the mean with misses."""
    wanted = [(metric, name) for name in (MEAN, *classes)]
    if metric.name == "hd95_pooled_mm":
        wanted.append((METRICS[WITH_MISSES], MEAN))
    return [_score(evaluations, *column) for column in wanted]


def _score(evaluations: Sequence[Evaluation], metric: Metric, class_name: str) -> Score:
    summary = describe(seed_means(evaluations, metric.name, class_name))
    if class_name == MEAN:
        note = f"{interval_text(summary['interval'], metric)}, n = {summary['n_patients']}"
    else:
        count, _ = missed(evaluations, class_name)
        lost = f"{count} missed" if count else ""
        note = ", ".join(filter(None, (lost, spurious_text(spurious(evaluations, class_name)))))
    return summary["value"], Entry(number(summary["value"], metric), note=note)


def _marked(
    column: Sequence[Score], metric: Metric, budgets: Sequence[object], failed: Sequence[bool]
) -> list[Entry]:
    """The cells of a column with their ranks; what failed has none."""
    values = [None if bad else value for (value, _), bad in zip(column, failed, strict=True)]
    ranks = ranked(values, metric.higher_is_better, budgets)
    return [replace(entry, rank=rank) for (_, entry), rank in zip(column, ranks, strict=True)]


def _missed_entry(evaluations: Collection[Evaluation]) -> Entry:
    count, present = missed(evaluations)
    return Entry(f"{count} of {present}", note=spurious_text(spurious(evaluations)))


def _note(arm: Arm, metric: Metric) -> str:
    found = "" if metric.higher_is_better else " Structures that were missed have no distance."
    return f"Mean over {arm.runs[0].part} patients; of the mean its 95 % bootstrap interval.{found}"


def _structure(methods: Methods, outcome: Outcome, class_name: str) -> Entry:
    return _difference(methods, (outcome.first, outcome.second), METRICS[outcome.metric], class_name)


def _difference(methods: Methods, pair: Pair, metric: Metric, class_name: str) -> Entry:
    """First minus second of each patient, averaged, with its interval."""
    found = describe(patient_differences(methods[pair[0]], methods[pair[1]], metric.name, class_name))
    if not found["n_patients"]:
        return Entry(NONE)
    interval = interval_text(found["interval"], metric, is_difference=True)
    return Entry(signed(found["value"], metric), note=f"{metric.step}, {interval}")


def _postprocessed(arm: Arm, metric: Metric) -> list[Entry]:
    plain = arm.plain_evaluations
    kept = {seed: evaluation for seed, evaluation in arm.evaluations.items() if seed in plain}
    means = [_score(list(found.values()), metric, MEAN)[1] for found in (plain, kept)]
    return [*means, _difference({"kept": kept, "plain": plain}, ("kept", "plain"), metric, MEAN)]


def _rules(arm: Arm) -> str:
    """Which pieces are kept; by seed where seeds differ, since each has training masks of its own."""
    found = {
        run.record.seed: in_words(run.record.postprocessing.shares)
        for run in arm.runs
        if run.record.postprocessing
    }
    if len(set(found.values())) < 2:
        return next(iter(found.values()), NONE)
    return "; ".join(f"seed {seed}: {rules}" for seed, rules in found.items())


def _seeds(seeds: Mapping[int, Any]) -> str:
    return f"seed {next(iter(seeds))}" if len(seeds) == 1 else f"mean of {len(seeds)} seeds"


def _is_plain(arm: Arm) -> bool:
    """Whether it is nnU-Net that took no scans without masks."""
    return arm.method == BASELINE and not arm.unlabelled


def _baseline(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    if _is_plain(arm):
        return None
    same = [
        other
        for other in arms
        if other.method == BASELINE
        and budget(other) == budget(arm)
        and (not other.unlabelled or (other.unlabelled == arm.unlabelled and arm.method != BASELINE))
    ]
    return min(same, key=lambda other: _unlike(arm, other), default=None)


def _unlike(arm: Arm, other: Arm) -> tuple[bool, bool, int]:
    """How unlike two arms are, what matters most first."""
    ours, theirs = arm.runs[0].conditions, other.runs[0].conditions
    differing = sum(ours.get(name) != theirs.get(name) for name in ours | theirs)
    return arm.unlabelled != other.unlabelled, ours["preset"] != theirs["preset"], differing


def _compared(columns: Sequence[Mapping[str, Any]]) -> list[SettingRow]:
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = []
    for name in names:
        values = tuple(as_set(column[name]) if name in column else NONE for column in columns)
        rows.append(SettingRow(name, values, differs=len(set(values)) > 1))
    return rows
