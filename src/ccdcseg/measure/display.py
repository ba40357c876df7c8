"""How metrics, differences, intervals and p values are written."""

from collections.abc import Sequence
from dataclasses import dataclass

from ccdcseg.measure.patients import WITH_MISSES

NONE = "–"


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        scale: what the value is multiplied with.
        unit: of the value shown.
        step: unit of a difference.
    """

    name: str
    title: str
    unit: str
    step: str
    scale: float = 1.0
    higher_is_better: bool = False


METRICS = {
    metric.name: metric
    for metric in (
        Metric("dice", "Dice", "%", "points", 100.0, higher_is_better=True),
        Metric("hd95_pooled_mm", "hd95_pooled_mm", "mm", "mm"),
        Metric("hd95_pooled_vox", "hd95_pooled_vox", "voxels", "voxels"),
        Metric("hd95_max_mm", "hd95_max_mm", "mm", "mm"),
        Metric("assd_mm", "assd_mm", "mm", "mm"),
        Metric("hd_mm", "hd_mm", "mm", "mm"),
        Metric(WITH_MISSES, "hd95_pooled_mm, missed = diagonal", "mm", "mm"),
    )
}


def number(value: float | None, metric: Metric) -> str:
    """A value in the metric's unit, two decimals."""
    return NONE if value is None else f"{metric.scale * value:.2f}"


def signed(value: float, metric: Metric) -> str:
    """A difference in the metric's unit with its sign."""
    text = f"{metric.scale * value:+z.2f}"
    return text.replace("-", "−")


def interval_text(interval: Sequence[float] | None, metric: Metric, is_difference: bool = False) -> str:
    """Both ends of an interval."""
    if interval is None:
        return "no interval below two patients"
    low, high = (signed(end, metric) if is_difference else number(end, metric) for end in interval)
    return f"{low} to {high}"


def spurious_text(count: int) -> str:
    """How many structures were marked where there is none; empty where none was."""
    return f"{count} spurious" if count else ""


def p_text(p_value: float) -> str:
    """A p value as printed in papers."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
