"""The answer of the page in sentences, and what makes it doubtful."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from ccdcseg.measure.display import METRICS, interval_text, number, p_text, signed
from ccdcseg.measure.patients import describe, mean
from ccdcseg.report.tables import budget, duration_text, usual_pairs
from ccdcseg.runs.finished import BASELINE, Arm, FinishedRun, runs_of
from ccdcseg.runs.record import RunRecord, unlike
from ccdcseg.statistics.family import Outcome
from ccdcseg.statistics.family_table import ONE_SEED_NOTE

MOST_SENTENCES = 6
"""Where there would be more, the page opens with a summary."""
FEWEST_PATIENTS = 6
"""Of fewer, not even those who all agree give the signed-rank test p < 0.05, and intervals are far too narrow."""


@dataclass(frozen=True)
class Answer:
    """What the page opens with.

    Attributes:
        sentences: always shown.
        details: one sentence for each of many methods or comparisons, shown on demand.
        details_title: what these are of.
    """

    sentences: tuple[str, ...]
    details: tuple[str, ...] = ()
    details_title: str = ""


def headline(evaluated: Sequence[Arm], outcomes: Sequence[Outcome], part: str = "test") -> Answer:
    """Better, worse or not shown, for each comparison or in a summary of many, then what limits it."""
    if not evaluated:
        option = "" if part == "test" else f" --part {part}"
        return Answer((f"Nothing has been evaluated yet: run `ccdcseg evaluate{option}` on the runs first.",))
    if not outcomes:
        return _levels(evaluated, part)
    sentences = tuple(verdict(outcome, part) for outcome in outcomes)
    limit: tuple[str, ...] = ()
    if any(len(outcome.comparison.per_seed) < 2 for outcome in outcomes):
        limit = (ONE_SEED_NOTE,)
    if len(sentences) <= MOST_SENTENCES:
        return Answer((*sentences, *limit))
    return Answer((*_summaries(outcomes, part), *_adjusted(outcomes), *limit), sentences, "Each comparison")


def verdict(outcome: Outcome, part: str = "test") -> str:
    """Better, worse or not shown, with difference, interval and number of patients.

    The interval over seeds and patients decides where there are several seeds, that over patients otherwise.
    """
    result, metric = outcome.comparison, METRICS[outcome.metric]
    interval = _interval(outcome)
    over = "over patients and seeds" if result.interval_seeds else "over patients"
    bounds = interval_text(interval, metric, is_difference=True)
    uncertainty = f"95 % interval {bounds} {over}" if interval else bounds
    return (
        f"On {patients_text([result.n], part)}, {_claim(outcome)}: mean difference {_difference(outcome)} "
        f"({uncertainty}).{_disagreement(outcome)}"
    )


def _claim(outcome: Outcome) -> str:
    """What is shown; of one seed each, two networks are spoken of, not two methods."""
    title, shown = METRICS[outcome.metric].title, _shown(outcome)
    first, second = outcome.first, outcome.second
    if hindrance := _hindrance(outcome):
        reasons = " and ".join(
            f"{name} hardly finds the structures ({text})" for name, text in outcome.failures.items()
        )
        return f"there is no verdict on {title} between {first} and {second}, since {reasons or hindrance}"
    seeds = len(outcome.comparison.per_seed)
    if seeds < 2:
        one, other = ("one network of", "one of") if seeds else ("the networks of", "those of")
        first, second = f"{one} {first}", f"{other} {second}"
    if not shown:
        return f"no difference in {title} between {first} and {second} is shown"
    return f"{first} {'have' if not seeds else 'has'} a {_word(shown)} {title} than {second}"


def doubts(arms: Sequence[Arm]) -> list[str]:
    """What makes a comparison doubtful: other data or budgets, patients seen in training, other scans or seeds."""
    found = [text for arm, run in runs_of(arms) if (text := _leak(arm, run))]
    found += _other_data(arms)
    evaluated = [arm for arm in arms if arm.evaluations]
    tested = [
        frozenset(chain(*(item.patient_of.items() for item in arm.evaluations.values()))) for arm in evaluated
    ]
    if len(set(tested)) > 1:
        common = len({patient for _, patient in frozenset.intersection(*tested)})
        found.append(f"The methods were not tested on the same scans; {common} patients are common to all.")
    if len({tuple(arm.evaluations) for arm in evaluated}) > 1:
        found.append("The methods were not trained with the same seeds.")
    if len(evaluated) == 2 and len({budget(arm) for arm in evaluated}) > 1:
        found.append(f"Budgets differ: {', '.join(map(_budget_text, evaluated))}.")
    found += unlike(run.record for _, run in runs_of(arms))
    return found


def patients_text(counts: Sequence[int], part: str) -> str:
    """How many patients of which part of the split; a range where the counts differ."""
    low, high = min(counts), max(counts)
    number_text = str(low) if low == high else f"{low} to {high}"
    return f"{number_text} {part} patient{'s' if high != 1 else ''}"


def _interval(outcome: Outcome) -> list[float] | None:
    return outcome.comparison.interval_seeds or outcome.comparison.interval


def _hindrance(outcome: Outcome) -> str:
    """Why there is no verdict, briefly; empty where there is one."""
    if outcome.failures:
        return "structures are hardly found"
    return "so few patients cannot tell" if outcome.comparison.n < FEWEST_PATIENTS else ""


def _shown(outcome: Outcome) -> int:
    """1 where the first method is shown to be better, -1 to be worse, 0 where neither is shown."""
    interval = _interval(outcome)
    if _hindrance(outcome) or interval is None or interval[0] <= 0 <= interval[1]:
        return 0
    return 1 if _improvement(outcome) > 0 else -1


def _improvement(outcome: Outcome) -> float:
    """The mean difference, positive where the first method is better."""
    difference = outcome.comparison.mean_difference
    return difference if METRICS[outcome.metric].higher_is_better else -difference


def _word(shown: int) -> str:
    return "better" if shown > 0 else "worse"


def _difference(outcome: Outcome) -> str:
    metric = METRICS[outcome.metric]
    return f"{signed(outcome.comparison.mean_difference, metric)} {metric.step}"


def _summaries(outcomes: Sequence[Outcome], part: str) -> list[str]:
    """A sentence for each metric and baseline."""
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.metric, outcome.second].append(outcome)
    return [_summary(group, part) for group in groups.values()]


def _summary(group: Sequence[Outcome], part: str) -> str:
    metric, baseline, count = METRICS[group[0].metric], group[0].second, len(group)
    patients = patients_text([outcome.comparison.n for outcome in group], part)
    clauses: list[str] = []
    for sign in (1, -1):
        found = sorted((o for o in group if _shown(o) == sign), key=_improvement, reverse=sign > 0)
        if found:
            names = ", ".join(f"{outcome.first} ({_difference(outcome)})" for outcome in found)
            clauses.append(f"{_word(sign)} {'' if clauses else 'is shown '}for {names}")
    hindered: dict[str, list[str]] = defaultdict(list)
    for outcome in group:
        if not _shown(outcome):
            hindered[_hindrance(outcome)].append(outcome.first)
    others = hindered.pop("", [])
    if others and clauses:
        rest = others[0] if len(others) == 1 else f"the other {len(others)}"
        clauses.append(f"no difference for {rest}")
    elif others:
        clauses.append("no difference is shown")
    clauses += [f"no verdict for {', '.join(names)}, since {why}" for why, names in hindered.items()]
    is_one = any(len(outcome.comparison.per_seed) < 2 for outcome in group)
    noun = "network" if is_one else "method"
    return (
        f"{metric.title}, {count} {noun}{'s' if count != 1 else ''} against {baseline} on {patients}: "
        f"{'; '.join(clauses)}."
    )


def _adjusted(outcomes: Sequence[Outcome]) -> list[str]:
    """What is left of the differences where the number of comparisons is taken into account."""
    shown = [outcome for outcome in outcomes if _shown(outcome)]
    if not shown:
        return []
    kept = sum(outcome.p_adjusted < 0.05 for outcome in shown)
    return [
        "Shown: the 95 % interval of the mean difference excludes zero. The signed-rank test, adjusted for all "
        f"{len(outcomes)} comparisons, has p < 0.05 for {kept} of these {len(shown)}."
    ]


def _disagreement(outcome: Outcome) -> str:
    """What to say where the signed-rank test and the interval of the mean do not agree."""
    if _hindrance(outcome):
        return ""
    shown, is_significant = _shown(outcome), outcome.p_adjusted < 0.05
    equals = "" if outcome.p_adjusted < 0.001 else "= "
    p_value = f"Holm-adjusted p {equals}{p_text(outcome.p_adjusted)}"
    if is_significant and not shown:
        is_better = (outcome.comparison.rank_biserial > 0) == METRICS[outcome.metric].higher_is_better
        favoured = outcome.first if is_better else outcome.second
        return f" The signed-rank test over patients, which knows no seeds, favours {favoured} ({p_value})."
    if shown and not is_significant:
        return f" The signed-rank test over patients does not confirm it ({p_value})."
    return ""


def _levels(evaluated: Sequence[Arm], part: str) -> Answer:
    sentences = tuple(_level(arm, part) for arm in evaluated)
    limit = f"There is no comparison: {_no_comparison(evaluated)}."
    if len(sentences) <= MOST_SENTENCES:
        return Answer((*sentences, limit))
    return Answer((_range(evaluated, part), limit), sentences, "Each method")


def _no_comparison(evaluated: Sequence[Arm]) -> str:
    """Why there is none."""
    if usual_pairs(evaluated):
        return "no patient has a value with both of two that are compared"
    if all(arm.method == BASELINE for arm in evaluated):
        return "nothing but nnU-Net was evaluated"
    return "no nnU-Net of as many labels and steps was evaluated"


def _level(arm: Arm, part: str) -> str:
    dice, metric = describe(arm.values("dice")), METRICS["dice"]
    bounds = interval_text(dice["interval"], metric)
    return (
        f"{arm.label}: Dice {number(dice['value'], metric)} % ({'95 % interval ' if dice['interval'] else ''}"
        f"{bounds}) on {patients_text([dice['n_patients']], part)}."
    )


def _range(evaluated: Sequence[Arm], part: str) -> str:
    """The lowest and the highest Dice."""
    dice = [describe(arm.values("dice")) for arm in evaluated]
    patients = patients_text([found["n_patients"] for found in dice], part)
    means = [found["value"] for found in dice if found["value"] is not None]
    low, high = (number(pick(means, default=None), METRICS["dice"]) for pick in (min, max))
    return f"Dice of {len(evaluated)} methods on {patients}: {low} to {high} %."


def _other_data(arms: Sequence[Arm]) -> Iterator[str]:
    """Files that changed between trainings, of whatever seed; then what hashes of everything alone can tell."""
    if changed := _changed_scans([run.record for _, run in runs_of(arms)]):
        more = f" and {len(changed) - 1} more of these files" if len(changed) > 1 else ""
        yield f"The runs were not trained on the same data: {changed[0]}{more} changed between the trainings."
    alike: dict[tuple[float, int, bool], list[RunRecord]] = defaultdict(list)
    for arm, run in runs_of(arms):  # the hash is of all scans that were trained on, those without masks too
        alike[run.record.fraction, run.record.seed, bool(arm.unlabelled)].append(run.record)
    for (fraction, seed, _), records in alike.items():
        if len({record.data_hash for record in records}) > 1 and not _changed_scans(records):
            yield f"Runs of fraction {fraction:g} and seed {seed} were not trained on the same data (hashes)."


def _changed_scans(records: Iterable[RunRecord]) -> list[str]:
    """Those that not all trainings found alike, by folder and name."""
    states: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for name, digest in (record.scans or {}).items():
            states[name].add(digest)
    return sorted(name for name, digests in states.items() if len(digests) > 1)


def _budget_text(arm: Arm) -> str:
    """What an arm was trained on, and for how long."""
    patients = max(len(run.record.patients.train) for run in arm.runs)
    seconds = mean([run.record.seconds for run in arm.runs])
    steps = f"{arm.runs[0].record.iterations:,} steps in {duration_text(seconds)}"
    return f"{arm.label} had {patients} patient{'s' if patients > 1 else ''} and {steps}"


def _leak(arm: Arm, run: FinishedRun) -> str:
    """Patients that were tested although the training, or the choice of settings, had seen them."""
    parts = ("train", "validation") if run.part == "test" else ("train",)
    seen = {patient for part in parts for patient in getattr(run.record.patients, part)}
    tested = set(run.evaluation.patients) if run.evaluation else set()
    both = sorted(seen & tested)
    if not both:
        return ""
    names = "training or validation" if run.part == "test" else "training"
    return f"{arm.name_of(run)} was tested on {len(both)} of its {names} patients ({both[0]}, ...)."
