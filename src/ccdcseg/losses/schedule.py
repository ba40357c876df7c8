"""When a term takes part in the sum of losses, and with which weight (Eq. 8)."""

from dataclasses import dataclass
from typing import ClassVar

from ccdcseg.losses.parts.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Schedule(Settings):
    """Weight of a term in the sum with the segmentation loss, at each step of a training.

    ``L = L_CE + L_Dice + weight(step) L_CCDC`` (Eq. 8; the paper has a weight of 1 throughout).

    Attributes:
        weight: Factor of the term, at least 0.
        start_iteration: Steps of the training before the term sets in (0: it is there from the first).

    Raises:
        ValueError: A value outside its range.

    Example:
        >>> schedule = Schedule(weight=0.3, start_iteration=1200)
        >>> schedule(1199), schedule(1200)
        (0.0, 0.3)
    """

    weight: float = 1.0
    start_iteration: int = 0

    _at_least_zero: ClassVar[tuple[str, ...]] = ("weight", "start_iteration")

    def __call__(self, iteration: int) -> float:
        """Weight at a step of the training, counted from 0; zero where the term need not be computed."""
        return self.weight if iteration >= self.start_iteration else 0.0
