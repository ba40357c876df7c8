"""Comparisons and ranks as tables for the screen, for papers and for other programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ccdcseg.files import check_beside
from ccdcseg.measure.display import METRICS, NONE, interval_text, number, p_text, signed
from ccdcseg.statistics.family import Outcome, Ranks
from ccdcseg.tabular import Entry, Grid

FORMAT = "ccdcseg-comparison/1"
TITLE = "Paired comparisons"
FIRST_COLUMNS = ("comparison", "metric")
LONGEST_NAME = 20
METHOD_NOTE = (
    "Mean over structures; distances, except with 'missed = diagonal', are of those that none of the methods "
    "missed. Difference: first minus second of each patient, averaged, with its 95 % bootstrap "
    "interval over patients. With several seeds also the interval with seeds and patients drawn crosswise. p: "
    "two-sided Wilcoxon signed-rank test over patients; Holm: adjusted over all rows. r: matched-pairs "
    "rank-biserial correlation, positive where the first has the larger values."
)
CASE_NOTE = (
    "AS IN THE PAPER: each scan counts as a patient of its own. This ignores that scans of a patient are alike, "
    "so p values are too small and intervals too narrow."
)
ONE_SEED_NOTE = "With fewer than two seeds in common this compares trained networks, not methods."


def comparison_grid(outcomes: Sequence[Outcome], abbreviate: bool = True) -> Grid:
    """A row for each comparison; columns about seeds where a comparison has several.

    Args:
        outcomes: of one family.
        abbreviate: whether numbers stand for long names, explained in the note.
    """
    names = _names(outcomes, abbreviate)
    has_seeds = any(len(outcome.comparison.per_seed) > 1 for outcome in outcomes)
    of_seeds = ("95 %, patients and seeds", "by seed") if has_seeds else ()
    header = (*FIRST_COLUMNS, "patients", "difference", *of_seeds, "p", "p, Holm", "r")
    rows = tuple(_comparison_row(outcome, names, has_seeds) for outcome in outcomes)
    has_one_seed = any(len(outcome.comparison.per_seed) < 2 for outcome in outcomes)
    legend = [f"{short}: {name}." for name, short in names.items() if short != name]
    note = " ".join(
        [
            METHOD_NOTE,
            *([ONE_SEED_NOTE] if has_one_seed else []),
            *failed(outcomes),
            *marked(outcomes),
            *legend,
        ]
    )
    return Grid(TITLE, header, rows, note)


def check_comparison_files(table: Path, record: Path) -> None:
    """Find out before the work whether the CSV and the JSON of a family may be written; see `check_beside`.

    Raises:
        UserError: something else lies there.
    """
    check_beside(table, f"\n{','.join(FIRST_COLUMNS)},")
    check_beside(record, f'"format": "{FORMAT.partition("/")[0]}/')


def failed(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence about each method that hardly found the structures."""
    failures = {name: text for outcome in outcomes for name, text in outcome.failures.items()}
    return [
        f"{name} hardly finds the structures ({text}): which of two methods is better means nothing then."
        for name, text in failures.items()
    ]


def marked(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence about structures that are not there and were marked, where there are some."""
    counts = {name: count for outcome in outcomes for name, count in outcome.spurious.items()}
    found = ", ".join(f"{name} {count}" for name, count in counts.items())
    meaning = "Their Dice is 0; where only the other method or seed marks them, it is 1."
    return [f"Marked where there is none, over all scans and seeds: {found}. {meaning}"] if found else []


def of_scans(grid: Grid) -> Grid:
    """The table of comparisons in which each scan was a patient, which it says; see `scans_as_patients`."""
    header = tuple(heading.replace("patients", "scans") for heading in grid.header)
    return replace(grid, header=header, note=f"{CASE_NOTE} {grid.note}")


def rank_grid(ranks: Ranks) -> Grid:
    """A row for each method: how often it was first, second and so on, in %."""
    drawn = f"{ranks.patients} patients" + (f" and {ranks.seeds} seeds" if ranks.seeds > 1 else "")
    title = f"{METRICS[ranks.metric].title}: how often each rank, in %, when {drawn} are drawn again"
    header = ("method", *(str(place + 1) for place in range(len(ranks.frequencies))))
    rows = tuple(
        (Entry(name), *(Entry(f"{100 * share:.1f}") for share in shares))
        for name, shares in ranks.frequencies.items()
    )
    return Grid(title, header, rows)


def comparison_record(
    outcomes: Sequence[Outcome], ranks: Sequence[Ranks], runs: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything as JSON: differences of each patient too, in the metrics' own units (Dice from 0 to 1)."""
    return {
        "format": FORMAT,
        "unit": "patient",
        "method": METHOD_NOTE,
        "comparisons": [_record(outcome) for outcome in outcomes],
        "ranks": [asdict(rank) for rank in ranks],
        "runs": dict(runs),
    }


def _record(outcome: Outcome) -> dict[str, Any]:
    record = asdict(outcome)
    return {**record, "comparison": {**record["comparison"], "n": outcome.comparison.n}}


def _names(outcomes: Sequence[Outcome], abbreviate: bool) -> dict[str, str]:
    names = list(dict.fromkeys(name for outcome in outcomes for name in (outcome.first, outcome.second)))
    if not abbreviate or all(len(name) <= LONGEST_NAME for name in names):
        return {name: name for name in names}
    return {name: f"[{place}]" for place, name in enumerate(names, 1)}


def _comparison_row(outcome: Outcome, names: Mapping[str, str], has_seeds: bool) -> tuple[Entry, ...]:
    result, metric = outcome.comparison, METRICS[outcome.metric]
    interval = interval_text(result.interval, metric, True)
    return (
        Entry(f"{names[outcome.first]} − {names[outcome.second]}"),
        Entry(metric.title),
        Entry(str(result.n)),
        Entry(signed(result.mean_difference, metric), note=f"{metric.step}, {interval}"),
        *(_of_seeds(outcome) if has_seeds else ()),
        Entry(p_text(result.p_value)),
        Entry(p_text(outcome.p_adjusted)),
        Entry(f"{result.rank_biserial:+z.2f}".replace("-", "−")),
    )


def _of_seeds(outcome: Outcome) -> tuple[Entry, Entry]:
    result, metric = outcome.comparison, METRICS[outcome.metric]
    by_seed = ", ".join(signed(value, metric) for value in result.per_seed.values())
    none = "one seed" if by_seed else "no seed in common"
    return (
        Entry(interval_text(result.interval_seeds, metric, True) if len(result.per_seed) > 1 else none),
        Entry(by_seed or NONE, note="" if result.seed_sd is None else f"SD {number(result.seed_sd, metric)}"),
    )
