"""How a mask and a network that never saw it contradict each other, and what would mend it.

A voxel's *cost* under a class is minus the logarithm of the network's probability of it, scaled so that a class
that is out of the question costs 1 and a sure one 0. What the label costs more than the cheapest class is the
*contradiction* of a voxel. Divided by the length of the outlines it is a distance: by how many millimetres the
outlines would move, each weighted by how sure the network is. A *mend* is a change of the whole mask by a usual
mistake - two classes swapped, mirrored, shifted, too wide; the share of the contradiction that goes away with it
says how well it explains it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from ccdcseg.datasets.volumes import slice_axis
from ccdcseg.postprocessing import label_pieces

Mask = NDArray[np.bool_]
Costs = NDArray[np.float32]
Kind = Literal["swapped", "mirrored", "shifted", "wide", "narrow"]

WHOLE = ""
"""Name of all classes together: no class is called so."""
OUT_OF_THE_QUESTION = 0.02
"""Probabilities below count as this one, whose cost is 1."""
SHIFT_MM = 10.0
"""How far a mask is shifted at most."""
WIDTHS = (1, 2, 3)
"""By how many voxels an outline is moved inwards or outwards."""
SOFTNESS = 0.1
"""Of the soft minimum: probabilities that lie closer to the smallest count too."""
_IN_PLANE = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)
_FAR = 1e6
"""Distance of neighbouring slices, in voxels, for what is looked for in one slice alone."""
_AXES = ("slices", "rows", "columns")


@dataclass(frozen=True)
class Slices:
    """Slices in which one of the two has a class and the other has not, numbered from 1.

    Attributes:
        numbers: of the slices.
        weight: of the one that weighs most: its contradiction as a share of the class's usual area in a slice.
        heaviest: number of that slice; 0: there is none.
    """

    numbers: tuple[int, ...] = ()
    weight: float = 0.0
    heaviest: int = 0


@dataclass(frozen=True)
class ClassMeasures:
    """A class of one mask against the network.

    Attributes:
        dice: of label and prediction; None where neither has the class.
        contradiction_mm: see this module.
        surface_probability: soft minimum of the class's probability along the label's outline, the best of a voxel
            and its neighbours in the slice; None where the label has none.
        gap: slices without the class between slices with it, where the network sees it.
        early: the same beyond the label's first and last slice: it ends too early.
        late: slices with the class beyond the last that the network sees.
        apart: the largest piece beside the main one that the network sees nothing of, as a share of the class;
            slices that nobody labelled are passed over.
        taken_for: what the network takes the class's voxels for: share of each class, background included.
        worst_slice: in which most of the contradiction lies, or of the class where there is none, from 1.
        apart_slice: in which most of the piece that lies apart is, from 1; 0: there is none.
    """

    dice: float | None
    contradiction_mm: float
    surface_probability: float | None
    gap: Slices
    early: Slices
    late: Slices
    apart: float
    taken_for: Mapping[str, float]
    worst_slice: int
    apart_slice: int


@dataclass(frozen=True)
class Mend:
    """A change of the whole mask.

    Attributes:
        kind: of change.
        classes: that it concerns.
        words: what the mask looks like, such as "mirrored along its columns".
        share: of the contradiction of these classes that goes away.
    """

    kind: Kind
    classes: tuple[str, ...]
    words: str
    share: float


@dataclass(frozen=True)
class Measures:
    """A mask against a network that never saw it.

    Attributes:
        classes: by name, and all together as `WHOLE`.
        mends: the best of each kind for the same classes, what explains most first.
        pixel_mm: side of a square as large as a voxel in the slice.
    """

    classes: Mapping[str, ClassMeasures]
    mends: tuple[Mend, ...]
    pixel_mm: float


@dataclass(frozen=True, eq=False)
class Opinions:
    """What label and network say of each voxel, the first axis across the slices.

    Attributes:
        labels: (Z, Y, X) class values, 0 the background and where nobody labelled.
        known: (Z, Y, X) where somebody labelled.
        predicted: (Z, Y, X) the cheapest class, wherever it is.
        costs: (C, Z, Y, X) of each class, in the order of their values; 0 where nobody labelled, so that nothing
            is contradicted there, and a mend gains nothing.
        spacing_mm: along Z, Y, X.
        names: of the classes from 1 on.
        across: axis of the mask's file, (z, y, x), that is the first here.
    """

    labels: NDArray[np.intp]
    known: Mask
    predicted: NDArray[np.intp]
    costs: Costs
    spacing_mm: tuple[float, ...]
    names: tuple[str, ...]
    across: int

    @classmethod
    def of(
        cls,
        labels: NDArray[Any],
        probabilities: NDArray[Any],
        spacing_mm: Sequence[float],
        names: Sequence[str],
        ignore: int | None = None,
    ) -> "Opinions":
        """Bring label and probabilities into this form.

        Args:
            labels: (z, y, x) class values, in the order of ``names`` from 1 on.
            probabilities: (C, z, y, x) in [0, 1], the background first.
            spacing_mm: along z, y, x.
            names: of the classes.
            ignore: value of voxels that nobody labelled.
        """
        across = slice_axis(labels.shape, spacing_mm)
        bounded = np.clip(probabilities.astype(np.float32), OUT_OF_THE_QUESTION, 1)
        costs = np.moveaxis(np.log(bounded) / np.log(np.float32(OUT_OF_THE_QUESTION)), across + 1, 1)
        given, predicted = np.moveaxis(labels, across, 0).astype(np.intp), costs.argmin(0)
        known = given != ignore
        given[~known] = 0
        costs[:, ~known] = 0
        spacing = (spacing_mm[across], *np.delete(spacing_mm, across).tolist())
        return cls(given, known, predicted, costs, spacing, tuple(names), across)

    @cached_property
    def contradiction(self) -> Costs:
        """What the label costs more than the cheapest class, in [0, 1]."""
        more: Costs = self.cost(self.labels) - self.costs.min(0)
        return more

    @property
    def pixel_mm(self) -> float:
        """Side of a square as large as a voxel in the slice."""
        return float(np.sqrt(self.spacing_mm[1] * self.spacing_mm[2]))

    def cost(self, labels: NDArray[np.intp]) -> Costs:
        """Of each voxel under other labels."""
        cost: Costs = np.take_along_axis(self.costs, labels[None], 0)[0]
        return cost

    def regions(self, value: int) -> tuple[Mask, Mask]:
        """A class, or all together (0), by the label and by the network, where somebody labelled."""
        ours, theirs = (seen == value if value else seen > 0 for seen in (self.labels, self.predicted))
        return ours, theirs & self.known


def measure(opinions: Opinions) -> Measures:
    """Hold a mask against a network that never saw it."""
    return Measures(
        {name: _class_measures(opinions, value) for value, name in enumerate((WHOLE, *opinions.names))},
        tuple(sorted(_mends(opinions), key=lambda mend: -mend.share)),
        opinions.pixel_mm,
    )


def soft_minimum(values: NDArray[Any]) -> float:
    """A minimum that several small values push down further than one does; see `SOFTNESS`."""
    return float(-SOFTNESS * np.log(np.mean(np.exp(-values.astype(np.float64) / SOFTNESS))))


def in_digits(length_mm: float) -> str:
    """A length with one digit after the point, or two that are significant below 0.1 mm."""
    return f"{length_mm:.2g}" if 1e-4 <= length_mm < 0.1 else f"{length_mm:.1f}"


def outline(region: Mask) -> Mask:
    """Voxels of a region with a neighbour outside it in their slice."""
    inside: Mask = ndimage.binary_erosion(region, _IN_PLANE)
    return region & ~inside


def _class_measures(opinions: Opinions, value: int) -> ClassMeasures:
    ours, theirs = opinions.regions(value)
    both, labelled = ours | theirs, opinions.known.any((1, 2))
    by_slice = np.where(both, opinions.contradiction, 0).sum((1, 2))
    weights = by_slice if by_slice.any() else np.count_nonzero(both, axis=(1, 2))
    total = np.count_nonzero(ours) + np.count_nonzero(theirs)
    apart, place = _apart(ours[labelled], theirs[labelled])
    return ClassMeasures(
        dice=float(2 * np.count_nonzero(ours & theirs) / total) if total else None,
        contradiction_mm=_in_mm(opinions, float(by_slice.sum()), (ours, theirs)),
        surface_probability=_surface_probability(opinions, value, ours),
        gap=_slices(opinions, ours, theirs, inside=True),
        early=_slices(opinions, ours, theirs, inside=False),
        late=_slices(opinions, theirs, ours, inside=False),
        apart=apart,
        taken_for=_taken_for(opinions, ours),
        worst_slice=int(np.where(labelled, weights, -1).argmax()) + 1,
        apart_slice=int(np.flatnonzero(labelled)[place]) + 1 if apart else 0,
    )


def _in_mm(opinions: Opinions, contradiction: float, regions: Sequence[Mask]) -> float:
    """A contradiction by the mean length of two outlines."""
    length = sum(np.count_nonzero(outline(region)) for region in regions) / 2
    return float(contradiction / length * opinions.pixel_mm) if length else 0.0


def _surface_probability(opinions: Opinions, value: int, ours: Mask) -> float | None:
    edge = outline(ours)
    if not edge.any():
        return None
    probability = np.power(OUT_OF_THE_QUESTION, opinions.costs[value])
    if not value:
        probability = 1 - probability
    return soft_minimum(ndimage.maximum_filter(probability * opinions.known, size=(1, 3, 3))[edge])


def _slices(opinions: Opinions, one: Mask, other: Mask, *, inside: bool) -> Slices:
    """Slices that the other has and the one has not, within the range of the one's slices or beyond it."""
    present = np.flatnonzero(one.any((1, 2)))
    if not present.size:
        return Slices()
    weights = np.where(other & ~one, opinions.contradiction, 0).sum((1, 2))
    weights = weights / np.median(np.count_nonzero(one[present], axis=(1, 2)))
    numbers = np.arange(len(one))
    within = (present[0] < numbers) & (numbers < present[-1])
    chosen = (within == inside) & ~one.any((1, 2)) & other.any((1, 2))
    if not chosen.any():
        return Slices()
    heaviest = int(np.where(chosen, weights, -1).argmax())
    return Slices(tuple((np.flatnonzero(chosen) + 1).tolist()), float(weights[heaviest]), heaviest + 1)


def _apart(ours: Mask, theirs: Mask) -> tuple[float, int]:
    """Share of the largest piece that the other has nothing of, and the slice with most of it, from 0."""
    pieces, count = label_pieces(ours)
    if count < 2:
        return 0.0, 0
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    seen = np.bincount(pieces[theirs], minlength=count + 1)[1:]
    unseen = np.where(seen == 0, sizes, 0)
    unseen[sizes.argmax()] = 0
    in_slices = np.count_nonzero(pieces == unseen.argmax() + 1, axis=(1, 2))
    return float(unseen.max() / sizes.sum()), int(in_slices.argmax())


def _taken_for(opinions: Opinions, ours: Mask) -> dict[str, float]:
    """The row of the confusion matrix; empty where the label lacks the class."""
    counts = np.bincount(opinions.predicted[ours], minlength=len(opinions.names) + 1)
    names = ("background", *opinions.names)
    return dict(zip(names, (counts / counts.sum()).tolist(), strict=True)) if counts.any() else {}


def _mends(opinions: Opinions) -> Iterator[Mend]:
    """The best mend of each kind for the same classes, of those that make it better."""
    if not opinions.labels.any():
        return
    found = [*_swapped(opinions), *_mirrored(opinions), *_shifted(opinions), *_resized(opinions)]
    best = {(mend.kind, mend.classes): mend for mend in sorted(found, key=lambda mend: mend.share)}
    yield from (mend for mend in best.values() if mend.share > 0)


def _share(opinions: Opinions, mended: NDArray[np.intp], where: Mask | None = None) -> float:
    """The part of the contradiction that goes away with other labels."""
    before = opinions.contradiction if where is None else opinions.contradiction[where]
    gain = opinions.cost(opinions.labels) - opinions.cost(mended)
    total = float(before.sum())
    return float(gain.sum()) / total if total else 0.0


def _swapped(opinions: Opinions) -> Iterator[Mend]:
    for one, other in combinations(range(1, len(opinions.names) + 1), 2):
        order = np.arange(len(opinions.names) + 1)
        order[[one, other]] = other, one
        concerned = np.isin(opinions.labels, (one, other)) | np.isin(opinions.predicted, (one, other))
        names = opinions.names[one - 1], opinions.names[other - 1]
        share = _share(opinions, order[opinions.labels], concerned)
        yield Mend("swapped", names, f"{names[0]} and {names[1]} look swapped", share)


def _mirrored(opinions: Opinions) -> Iterator[Mend]:
    for turned in sorted(
        product((False, True), repeat=3), key=sum, reverse=True
    ):  # of equals the last counts
        axes = tuple(axis for axis, flip in enumerate(turned) if flip)
        if axes:
            words = " and ".join(_AXES[axis] for axis in axes)
            known = np.flip(opinions.known, axes)
            share = _share(opinions, np.where(known, np.flip(opinions.labels, axes), opinions.labels))
            yield Mend("mirrored", opinions.names, f"The mask looks mirrored along its {words}", share)


def _shifted(opinions: Opinions) -> Iterator[Mend]:
    """The best shift in the plane of the slices; a voxel that leaves the image, or what is labelled, costs 1."""
    sides = zip(opinions.labels.shape[1:], opinions.spacing_mm[1:], strict=True)
    reach = [min(int(SHIFT_MM // step), side - 1) for side, step in sides]
    gains = _gains(opinions, reach)
    best = np.unravel_index(gains.argmax(), gains.shape)
    down, right = (int(place) - most for place, most in zip(best, reach, strict=True))
    far = float(np.hypot(down * opinions.spacing_mm[1], right * opinions.spacing_mm[2]))
    words = f"The mask looks shifted by {in_digits(far)} mm ({-right:+d} columns, {-down:+d} rows)"
    total = float(opinions.contradiction.sum())
    yield Mend("shifted", opinions.names, words, float(gains[best]) / total if total else 0.0)


def _gains(opinions: Opinions, reach: Sequence[int]) -> NDArray[np.float64]:
    """What the foreground saves by each shift, over none: correlations, summed over slices and classes.

    Returns:
        (2 rows + 1, 2 columns + 1) of a reach of so many rows and columns, from the furthest back to the furthest
        forth, to six digits after the point.
    """
    gains = np.zeros([2 * most + 1 for most in reach])
    for value, box in enumerate(ndimage.find_objects(opinions.labels), 1):
        if box is None:
            continue
        depth, *sides = box
        within = tuple(
            slice(side.start, side.stop + 2 * most) for side, most in zip(sides, reach, strict=True)
        )
        for z in range(depth.start, depth.stop):
            saved = (opinions.costs[0, z] - opinions.costs[value, z]).astype(np.float64)
            saved[~opinions.known[z]] = -1
            around = np.pad(saved, [(most, most) for most in reach], constant_values=-1)[within]
            drawn = (opinions.labels[z, *sides] == value).astype(float)
            gains += signal.fftconvolve(around, drawn[::-1, ::-1], mode="valid")
    over: NDArray[np.float64] = np.round(gains - gains[*reach], 6)
    return over


def _resized(opinions: Opinions) -> Iterator[Mend]:
    """Each outline moved inwards and outwards, within the slices; on what is another class's it can only lose."""
    near = _surroundings(opinions.labels > 0, max(WIDTHS))
    part = replace(
        opinions,
        labels=opinions.labels[near],
        known=opinions.known[near],
        predicted=opinions.predicted[near],
        costs=opinions.costs[:, *near],
    )
    given, least = part.cost(part.labels), part.costs.min(0)
    for value, name in enumerate(("The whole mask", *opinions.names)):
        total = float(opinions.contradiction[np.logical_or(*opinions.regions(value))].sum())
        concerned = np.logical_or(*part.regions(value))
        for kind, width, mended in _other_widths(part, value):
            before = np.where(concerned | (mended == part.labels), given, least)
            gain = float((before - part.cost(mended)).sum())
            yield Mend(
                kind,
                (name,) if value else opinions.names,
                f"{name} looks drawn about {in_digits(width * opinions.pixel_mm)} mm too {kind}",
                gain / total if total else 0.0,
            )


def _other_widths(opinions: Opinions, value: int) -> Iterator[tuple[Kind, int, NDArray[np.intp]]]:
    """A class, or all together (0), eroded where it looks too wide and dilated where it looks too narrow."""
    labels, (ours, _) = opinions.labels, opinions.regions(value)
    if not ours.any():
        return
    inside, beyond = _nearest(ours | ~opinions.known, labels)
    outside, within = _nearest(~ours, labels)
    for width in reversed(WIDTHS):
        yield "wide", width, np.where(ours & (inside <= width), beyond, labels)
        yield "narrow", width, np.where(~ours & (outside <= width), within, labels)


def _nearest(region: Mask, labels: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Of each voxel of a region the nearest one outside it in its slice: how far, in voxels, and its label."""
    distance, place = ndimage.distance_transform_edt(region, sampling=(_FAR, 1, 1), return_indices=True)
    return distance, labels[tuple(place)]


def _surroundings(region: Mask, margin: int) -> tuple[slice, ...]:
    """The box around a region that holds something, with a margin in the slices."""
    box = ndimage.find_objects(region.astype(np.uint8))[0]
    return (box[0], *(slice(max(0, side.start - margin), side.stop + margin) for side in box[1:]))
