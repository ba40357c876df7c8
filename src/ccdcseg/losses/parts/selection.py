"""Which pixels the loss drew, and what it saw of them: for diagnostics, pictures and tests."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from ccdcseg.losses.parts.class_statistics import ClassStatistics
from ccdcseg.losses.parts.pixel_sets import PixelSets


@dataclass(frozen=True)
class ClassQueries:
    """The queries of one class.

    Attributes:
        easy: (e,) indices of easy query pixels.
        hard: (h,) indices of hard query pixels.
        easy_available: easy pixels of the class in the batch.
        hard_available: hard pixels of the class in the batch.
        hard_share: share of hard queries that was wanted; a subset that runs short may not give it.
    """

    easy: Tensor
    hard: Tensor
    easy_available: int
    hard_available: int
    hard_share: float

    @property
    def pixels(self) -> Tensor:
        """(e + h,) all query pixels, the easy ones first."""
        return torch.cat((self.easy, self.hard))


@dataclass(frozen=True)
class ClassNegatives:
    """The negatives of one query class.

    Attributes:
        pixels: (m,) indices of the pixels to project.
        columns: (n,) or (Q, n) positions in ``pixels``: the n negatives of all queries, or of each query.
        classes: class of each negative, on the CPU: (n,) where the counts are the same for every query, else
            (Q, n).
    """

    pixels: Tensor
    columns: Tensor
    classes: Tensor


@dataclass(frozen=True)
class ClassResult:
    """What contrasting one class gave: () each.

    Attributes:
        loss: of the class.
        positive_similarity: mean dot product of its queries and what they are pulled to.
        negative_similarity: mean dot product of its queries and what they are pushed from.
    """

    loss: Tensor
    positive_similarity: Tensor
    negative_similarity: Tensor


class Role(IntEnum):
    """What a pixel was drawn as, in `selection_map`."""

    NONE = 0
    CORE = 1
    EASY = 2
    HARD = 3
    NEGATIVE = 4


@dataclass(frozen=True)
class Selection:
    """The pixels drawn in one call. All pixels are indices into the flattened (B, *spatial) batch.

    Attributes:
        shape: (B, *spatial).
        core: core pixels drawn, by class; classes without core are absent.
        core_available: pixels there were whose mean the queries are pulled to, by class.
        queries: by query class.
        negatives: by query class; absent where the negatives are other queries, or keys of a memory.
    """

    shape: tuple[int, ...]
    core: Mapping[int, Tensor]
    core_available: Mapping[int, int]
    queries: Mapping[int, ClassQueries]
    negatives: Mapping[int, ClassNegatives]


@dataclass(frozen=True)
class Diagnostics:
    """What one call saw of each class. All tensors are (C,) float32 but for ``confusion`` (C, C).

    NaN stands where a class has no pixel, or was no query class; ``core`` is then 0. The last three lie on the
    device of the features, since reading them (`tolist`, `cpu`) waits for it; the others on the CPU.

    Attributes:
        confidence: class confidence D_A.
        confusion: row A, column c: mean probability of c over the pixels of A; the diagonal is the confidence.
        threshold: between easy and hard pixels.
        core: core pixels of the class in the batch; all its pixels with ReCo, and NaN with ContrastiveSeg and
            RegionContrast, which have no core.
        easy: easy pixels of the class in the batch.
        hard: hard pixels of the class in the batch.
        queries_easy: easy queries drawn.
        queries_hard: hard queries drawn.
        hard_share_wanted: share of hard queries that the method asks for, such as D_A (Sect. 3.3.2).
        hard_share_drawn: share of hard ones among the queries drawn; less or more where easy or hard pixels run
            short and the others fill the gap.
        positive_similarity: mean dot product of queries and their core.
        negative_similarity: mean dot product of queries and negatives.
        class_loss: loss of the class before averaging.
    """

    confidence: Tensor
    confusion: Tensor
    threshold: Tensor
    core: Tensor
    easy: Tensor
    hard: Tensor
    queries_easy: Tensor
    queries_hard: Tensor
    hard_share_wanted: Tensor
    hard_share_drawn: Tensor
    positive_similarity: Tensor
    negative_similarity: Tensor
    class_loss: Tensor


def located(drawn: Selection, sets: PixelSets) -> Selection:
    """A selection with pixels, on the device of the sets, in place of their numbers."""
    queries, negatives = drawn.queries, drawn.negatives
    numbers = [*drawn.core.values(), *(part for q in queries.values() for part in (q.easy, q.hard))]
    numbers += [negative.pixels for negative in negatives.values()]
    found, columns = sets.find(numbers, [negative.columns for negative in negatives.values()])
    pixels, column = iter(found), iter(columns)
    return replace(
        drawn,
        core={c: next(pixels) for c in drawn.core},
        queries={c: replace(q, easy=next(pixels), hard=next(pixels)) for c, q in queries.items()},
        negatives={c: replace(n, pixels=next(pixels), columns=next(column)) for c, n in negatives.items()},
    )


def selection_map(selection: Selection, query_class: int | None = None) -> Tensor:
    """Map of what each pixel was drawn as, for pictures.

    Args:
        selection: of a call of the loss.
        query_class: core, queries and negatives of this class alone; None: of all classes, where a pixel that
            was several things counts as the first of hard query, easy query, core, negative.

    Returns:
        (B, *spatial) uint8 on the CPU, values of `Role`.

    Example:
        >>> core, none = {0: torch.tensor([1])}, torch.empty(0, dtype=torch.int64)
        >>> queries = {0: ClassQueries(torch.tensor([0]), none, 1, 0, 0.5)}
        >>> selection_map(Selection((1, 2, 2), core, {0: 1}, queries, {})).tolist()
        [[[2, 1], [0, 0]]]
    """
    classes = selection.queries.keys() if query_class is None else {query_class} & selection.queries.keys()
    cores = selection.core.keys() if query_class is None else {query_class} & selection.core.keys()
    roles = torch.zeros(selection.shape, dtype=torch.uint8, device="cpu").flatten()
    for c in selection.negatives.keys() & classes:
        roles[selection.negatives[c].pixels.cpu()] = Role.NEGATIVE
    for c in cores:
        roles[selection.core[c].cpu()] = Role.CORE
    for c in classes:
        roles[selection.queries[c].easy.cpu()] = Role.EASY
    for c in classes:
        roles[selection.queries[c].hard.cpu()] = Role.HARD
    return roles.view(selection.shape)


def diagnose(
    statistics: ClassStatistics,
    selection: Selection,
    results: Mapping[int, ClassResult],
    device: torch.device,
    thresholds: Tensor | None = None,
) -> Diagnostics:
    """Collect what a call saw, without reading what the device computes.

    Args:
        statistics: class confidence and confusion, on the CPU.
        selection: what was drawn.
        results: by query class.
        device: of the results.
        thresholds: (C,) probabilities between easy and hard pixels, on the CPU; None where the method has none.
    """
    absent = statistics.counts == 0
    confusion = statistics.matrix.masked_fill(absent[:, None], math.nan)
    limits = torch.full((len(absent),), math.nan, device="cpu") if thresholds is None else thresholds
    nothing = torch.full((), math.nan, device=device)

    def known(values: Mapping[int, float]) -> Tensor:
        return torch.tensor([float(values.get(c, math.nan)) for c in range(len(absent))], device="cpu")

    def computed(values: Mapping[int, Tensor]) -> Tensor:
        return torch.stack([values.get(c, nothing).detach().float() for c in range(len(absent))])

    queries = selection.queries.items()
    return Diagnostics(
        confidence=confusion.diagonal(),
        confusion=confusion,
        threshold=limits.float().masked_fill(absent, math.nan),
        core=known(selection.core_available),
        easy=known({c: q.easy_available for c, q in queries}),
        hard=known({c: q.hard_available for c, q in queries}),
        queries_easy=known({c: len(q.easy) for c, q in queries}),
        queries_hard=known({c: len(q.hard) for c, q in queries}),
        hard_share_wanted=known({c: q.hard_share for c, q in queries}),
        hard_share_drawn=known({c: len(q.hard) / len(q.pixels) for c, q in queries if len(q.pixels)}),
        positive_similarity=computed({c: r.positive_similarity for c, r in results.items()}),
        negative_similarity=computed({c: r.negative_similarity for c, r in results.items()}),
        class_loss=computed({c: r.loss for c, r in results.items()}),
    )
