"""Which slices of a scan to annotate."""

from collections.abc import Sequence

import numpy as np


def even_slices(size: int, count: int) -> tuple[int, ...]:
    """The middle slice of each of ``count`` parts of a stack, counted from 1; all where there are no more."""
    if size <= count:
        return tuple(range(1, size + 1))
    return tuple(int((part + 0.5) * size / count) + 1 for part in range(count))


def unsure_slices(sure: Sequence[float | None], count: int) -> tuple[int, ...]:
    """The least sure slice of each of ``count`` parts of the predicted structure, counted from 1.

    The structure reaches from one slice before the first with a predicted class to one after the last, since a
    network errs where it ends.

    Args:
        sure: mean class confidence of each slice; None: nothing is predicted there.
        count: how many slices; fewer where the structure has fewer.
    """
    found = [number for number, value in enumerate(sure) if value is not None]
    if not found:
        return even_slices(len(sure), count)
    first, last = max(found[0] - 1, 0), min(found[-1] + 1, len(sure) - 1)
    parts = np.array_split(np.arange(first, last + 1), min(count, last + 1 - first))
    return tuple(int(min(part, key=lambda number: _value(sure[number]))) + 1 for part in parts)


def _value(sure: float | None) -> float:
    return 1.0 if sure is None else sure
