"""The declared comparisons of an experiment: its row against every other of the same fraction, one family."""

from dataclasses import dataclass, replace
from typing import Any

from ccdcseg.experiments.experiment import Experiment
from ccdcseg.experiments.measured import Measured, percent, same_fraction
from ccdcseg.report.tables import evaluations_of
from ccdcseg.statistics.family import Outcome, Pair, Ranks, compare_family, rank_frequencies
from ccdcseg.statistics.family_table import comparison_grid, comparison_record, rank_grid
from ccdcseg.tabular import Grid


@dataclass(frozen=True)
class Family:
    """What was tested together.

    Attributes:
        outcomes: in the order of metrics, then fractions and rows.
        ranks: fraction and ranks, of each metric, where there are more than two rows.
        has_fractions: whether there are several.
    """

    outcomes: tuple[Outcome, ...]
    ranks: tuple[tuple[float, Ranks], ...]
    has_fractions: bool

    def grids(self, abbreviate: bool = True) -> list[Grid]:
        """The comparisons, then the ranks."""
        return [
            comparison_grid(self.outcomes, abbreviate=abbreviate),
            *(self._ranks(*one) for one in self.ranks),
        ]

    @property
    def record(self) -> dict[str, Any]:
        """Everything as JSON, each patient's difference too."""
        return comparison_record(self.outcomes, [ranks for _, ranks in self.ranks], {})

    def _ranks(self, fraction: float, ranks: Ranks) -> Grid:
        grid = rank_grid(ranks)
        return (
            replace(grid, title=f"{percent(fraction)} % labelled. {grid.title}")
            if self.has_fractions
            else grid
        )


def declared_family(experiment: Experiment, measured: Measured) -> Family | None:
    """Compare what the experiment declares; None where it declares nothing, or has no two rows to compare."""
    if experiment.compare is None:
        return None
    groups = same_fraction(measured)
    pairs = [pair for group in groups.values() for pair in _pairs(group, experiment.compare.row)]
    outcomes = compare_family(evaluations_of([*measured.values()]), pairs, experiment.compare.metrics)
    if not outcomes:
        return None
    ranks = [
        (fraction, found)
        for metric in experiment.compare.metrics
        for fraction, group in groups.items()
        if len(group) > 2 and (found := rank_frequencies(evaluations_of([*group.values()]), metric))
    ]
    return Family(tuple(outcomes), tuple(ranks), len(experiment.fractions) > 1)


def _pairs(group: Measured, row: str) -> list[Pair]:
    return [
        (arm.label, other.label)
        for place, arm in group.items()
        if place.row == row
        for other in group.values()
        if other is not arm
    ]
