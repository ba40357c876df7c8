"""Methods that hardly found anything: which of two such is better means nothing."""

from collections.abc import Iterable

from ccdcseg.measure.display import METRICS, number
from ccdcseg.measure.patients import average, describe
from ccdcseg.runs.evaluation import Evaluation, missed

MANY_MISSED = 0.25
"""A share of all structures from which on there is no verdict: with three classes, most of one."""
LITTLE_DICE = 0.2


def failure(evaluations: Iterable[Evaluation]) -> str:
    """What a method that hardly found what there is came to, in words; empty where it did find it.

    Args:
        evaluations: of the method, one for each seed.
    """
    evaluations = list(evaluations)
    count, present = missed(evaluations)
    found = average([one.values("dice", without=one.spurious) for one in evaluations])
    dice = describe(found)["value"]
    if dice is None or (dice >= LITTLE_DICE and count < MANY_MISSED * present):
        return ""
    return f"Dice {number(dice, METRICS['dice'])} %, {count} of {present} structures missed"
