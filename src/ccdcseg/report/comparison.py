"""``ccdcseg compare``: methods against each other on the same patients, for the screen and for papers."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ccdcseg import __version__
from ccdcseg.errors import UserError
from ccdcseg.files import check_beside, write_json, write_text
from ccdcseg.report.answer import doubts
from ccdcseg.report.tables import budget, evaluations_of, pairs_of, usual_pairs
from ccdcseg.runs.evaluation import check_metric
from ccdcseg.runs.finished import Arm, load_arms
from ccdcseg.statistics.compare import scans_as_patients
from ccdcseg.statistics.family import (
    FAMILY,
    Outcome,
    Pair,
    Ranks,
    compare_family,
    have_common,
    rank_frequencies,
)
from ccdcseg.statistics.family_table import (
    CASE_NOTE,
    TITLE,
    check_comparison_files,
    comparison_grid,
    comparison_record,
    of_scans,
    rank_grid,
)
from ccdcseg.tabular import Grid, latex_comment, to_csv, to_latex, to_section

SUFFIXES = (".json", ".csv", ".md", ".tex")
"""Of the files that `write_comparison` writes."""


@dataclass(frozen=True)
class RunComparison:
    """What was compared, and what was not.

    Attributes:
        arms: those with an evaluation.
        outcomes: one family; see `compare_family`.
        ranks: for each metric and each group of more than two arms of as many labels and steps.
        as_in_the_paper: each scan was compared as a patient of its own; ranks are of patients.
        left_out: sentences about runs and pairs that are not compared.
        doubts: sentences about what makes it doubtful, as on the page.
    """

    arms: tuple[Arm, ...]
    outcomes: tuple[Outcome, ...]
    ranks: tuple[Ranks, ...]
    as_in_the_paper: bool
    left_out: tuple[str, ...]
    doubts: tuple[str, ...]

    def grids(self, abbreviate: bool = True) -> list[Grid]:
        """The comparisons, then the ranks."""
        compared = comparison_grid(self.outcomes, abbreviate)
        return [of_scans(compared) if self.as_in_the_paper else compared, *map(rank_grid, self.ranks)]

    @property
    def record(self) -> dict[str, Any]:
        """Everything as JSON, with what was trained on what."""
        record = comparison_record(self.outcomes, self.ranks, {a.label: _origin(a) for a in self.arms})
        about = {"unit": "case", "warning": CASE_NOTE} if self.as_in_the_paper else {}
        said = {"doubts": list(self.doubts), "left_out": list(self.left_out)}
        return {**record, **about, **said, "ccdcseg": __version__}


def compare_runs(
    folders: Sequence[Path],
    part: str = "test",
    of: str | None = None,
    metrics: Sequence[str] = FAMILY,
    as_in_the_paper: bool = False,
) -> RunComparison:
    """Compare evaluated runs; those that differ by their seed alone are one method.

    Args:
        folders: of the runs.
        part: "test" or "validation", whose evaluations are read.
        of: a method that is compared with each other one of as many labels and steps, its own settings among them;
            None: each with its nnU-Net, and where there are but two, the second with the first.
        metrics: of `SUMMARY_METRICS`; all of them and all pairs are one family.
        as_in_the_paper: compare scans as if each were a patient; see `scans_as_patients`.

    Raises:
        UserError: as `load_arms`; an unknown metric; no run of ``of``; nothing to compare.
    """
    metrics = _known_metrics(metrics)
    arms = load_arms(folders, part)
    evaluated = [arm for arm in arms if arm.evaluations]
    left_out = [
        f"{arm.name_of(run)}: not evaluated." for arm in arms for run in arm.runs if run.evaluation is None
    ]
    pairs = _pairs(of, evaluated)
    methods = evaluations_of(evaluated)
    if as_in_the_paper:
        methods = {label: scans_as_patients(evaluations) for label, evaluations in methods.items()}
    left_out += [
        f"{first} − {second}: no patient has {metric} with both."
        for metric in metrics
        for first, second in pairs
        if not have_common(methods, (first, second), metric)
    ]
    left_out += unpaired(evaluated, pairs)
    outcomes = compare_family(methods, pairs, metrics)
    if not outcomes:
        measure = f"ccdcseg evaluate{' --part validation' if part == 'validation' else ''} RUN"
        raise UserError(
            " ".join(["There is nothing to compare.", *left_out]),
            f"It takes two methods or settings, evaluated on the same patients ({measure}). Of more, those "
            "of as many labels and steps are compared: with nnU-Net among them, or with --of METHOD.",
        )
    ranks = rankings(evaluated, pairs, metrics)
    return RunComparison(
        tuple(evaluated), tuple(outcomes), tuple(ranks), as_in_the_paper, tuple(left_out), tuple(doubts(arms))
    )


def rankings(arms: Sequence[Arm], pairs: Sequence[Pair], metrics: Sequence[str] = FAMILY) -> list[Ranks]:
    """For each metric, how often each rank, in each group of more than two arms of as many labels and steps.

    Args:
        arms: with an evaluation.
        pairs: that are compared; other arms are not ranked.
        metrics: of `SUMMARY_METRICS`.
    """
    groups = _groups(arms, pairs)
    found = [rank_frequencies(evaluations_of(group), metric) for metric in metrics for group in groups]
    return [ranks for ranks in found if ranks]


def unpaired(arms: Sequence[Arm], pairs: Sequence[Pair]) -> list[str]:
    """A sentence about each arm that is in no pair."""
    paired = {label for pair in pairs for label in pair}
    return [f"{arm.label}: {_why_alone(arm, arms)}" for arm in arms if arm.label not in paired]


def _why_alone(arm: Arm, arms: Sequence[Arm]) -> str:
    if any(other is not arm and budget(other) == budget(arm) for other in arms):
        return f"`ccdcseg compare` with --of {arm.method} compares it."
    return "nothing of as many labels and steps to compare it with."


def check_comparison(stem: Path) -> None:
    """Find out before the work whether `write_comparison` may write its files; see `check_beside`.

    Raises:
        UserError: something else than a comparison lies there.
    """
    record, table, markdown, latex = _paths(stem).values()
    check_comparison_files(table, record)
    check_beside(markdown, f"\n## {TITLE}\n")
    check_beside(latex, f"\n{latex_comment(TITLE)}\n")


def _paths(stem: Path) -> dict[str, Path]:
    return {suffix: Path(f"{stem}{suffix}") for suffix in SUFFIXES}


def write_comparison(comparison: RunComparison, stem: Path) -> list[Path]:
    """Write ``stem``.json, .csv, .md and .tex; their paths. Doubts stand below the first table, and in the JSON."""
    first, *others = comparison.grids()
    grids = [replace(first, note="\n".join((first.note, *comparison.doubts))), *others]
    texts = {
        ".csv": "\n".join(to_csv(grid) for grid in comparison.grids(abbreviate=False)),
        ".md": "\n".join(map(to_section, grids)),
        ".tex": "\n".join(to_latex(grid) for grid in grids),
    }
    paths = _paths(stem)
    write_json(paths[".json"], comparison.record)
    for suffix, text in texts.items():
        write_text(paths[suffix], text)
    return list(paths.values())


def _known_metrics(metrics: Sequence[str]) -> list[str]:
    """Each once."""
    for name in metrics:
        check_metric(name)
    return list(dict.fromkeys(metrics))


def _pairs(of: str | None, arms: Sequence[Arm]) -> list[Pair]:
    """Those that are asked for, or the usual ones."""
    if of is None:
        return usual_pairs(arms)
    if all(arm.method != of for arm in arms):
        known = ", ".join(dict.fromkeys(arm.method for arm in arms)) or "none"
        raise UserError(f"No evaluated run is of the method {of}.", f"There are: {known}.")
    return pairs_of(of, arms)


def _groups(arms: Sequence[Arm], pairs: Sequence[Pair]) -> list[list[Arm]]:
    """Arms of as many labels and steps that are compared, where they are more than two."""
    paired = {label for pair in pairs for label in pair}
    groups: dict[Any, list[Arm]] = defaultdict(list)
    for arm in arms:
        if arm.label in paired:
            groups[budget(arm)].append(arm)
    return [group for group in groups.values() if len(group) > 2]


def _origin(arm: Arm) -> dict[str, Any]:
    record = arm.runs[0].record
    return {
        "method": record.method,
        "preset": record.preset,
        "fraction": record.fraction,
        "iterations": record.iterations,
        "changes": record.changes,
        "versions": record.versions,
        "seeds": {str(run.record.seed): {"data": run.record.data_hash} for run in arm.runs},
    }
