"""From measures to suspicions: what may be wrong with a mask, how strongly, in one sentence."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

from ccdcseg.review.measure import WHOLE, ClassMeasures, Measures, Slices

CONTRADICTS = "contradicts"
ALL_BOUNDS = {
    "swapped": 0.3,
    "mirrored": 0.3,
    "shifted": 0.1,
    "wide": 0.4,
    "narrow": 0.4,
    "gap": 0.2,
    "early": 4.0,
    "late": 4.0,
    "apart": 0.05,
    CONTRADICTS: 6.0,
}
"""Where a suspicion has the strength 1: share of the contradiction that a mend takes away; weight of slices (see
`Slices`); share of a class that lies apart; contradiction as a multiple of the usual one in the same list."""
_WHOLE_BOUNDS = {"wide": 0.13, "narrow": 0.15, "early": 0.7, "late": 0.7, CONTRADICTS: 3.5}
"""The same where they are others for all classes together, whose outline is surer than that of one."""
LEAST_MM = 0.3
"""A usual contradiction below this counts as this one: in a list of perfect masks a voxel is no suspicion."""
LEAST_PIXELS = 0.5
"""The same in pixels, where that is less: of fine ones 0.3 mm are a structure."""
ELSEWHERE = 0.5
"""Below this Dice of all classes together a mask is said to lie elsewhere."""


@dataclass(frozen=True)
class Suspicion:
    """What may be wrong with a mask.

    Attributes:
        kind: key of `ALL_BOUNDS`.
        classes: that it concerns.
        strength: from 1 on it is worth a look; comparable between kinds.
        sentence: that names it.
        slice: to look at, from 1.
    """

    kind: str
    classes: tuple[str, ...]
    strength: float
    sentence: str
    slice: int


@dataclass(frozen=True)
class Usual:
    """What is usual in a list of masks, by class and as `WHOLE`.

    Attributes:
        contradiction_mm: median of the masks that have the class; 0 where none has. One that lacks what the network
            sees does not count: beside masks that lack it rightly it alone would say what is usual.
        dice: median of those that have one; None where none has.
    """

    contradiction_mm: Mapping[str, float]
    dice: Mapping[str, float | None]


def usual(measures: Iterable[Measures]) -> Usual:
    """Of a list of masks against the same kind of network."""
    measures = list(measures)
    names = list(measures[0].classes)
    dice = {name: [m.classes[name].dice for m in measures] for name in names}
    marked = {name: [one for m in measures if (one := m.classes[name]).taken_for] for name in names}
    return Usual(
        {name: _median([one.contradiction_mm for one in ones]) or 0.0 for name, ones in marked.items()},
        {name: _median([value for value in values if value is not None]) for name, values in dice.items()},
    )


def suspicions(measures: Measures, normal: Usual) -> tuple[Suspicion, ...]:
    """What may be wrong with a mask, what names a mistake before what only says that there is one.

    Args:
        measures: of the mask.
        normal: of the list that it is ranked in.
    """
    found = [*_mended(measures)]
    for name, one in measures.classes.items():
        classes = tuple(measures.classes)[1:] if name == WHOLE else (name,)
        found += [
            *_slices(name, classes, one),
            *_apart(name, one),
            _contradicts(name, classes, measures, normal),
        ]
    return tuple(sorted((s for s in found if s.strength > 0), key=partial(_order, measures)))


def _order(measures: Measures, suspicion: Suspicion) -> tuple[int, float]:
    """Strong before weak; of strong ones those that name a mistake first, unless the mask lies elsewhere."""
    elsewhere = (measures.classes[WHOLE].dice or 0) < ELSEWHERE
    explained = any(mend.share > ELSEWHERE for mend in measures.mends)
    named = (suspicion.kind == CONTRADICTS) == (elsewhere and not explained)
    return (2 if suspicion.strength < 1 else 0 if named else 1), -suspicion.strength


def _mended(measures: Measures) -> Iterator[Suspicion]:
    """The mend of each class, and of all together, that explains most."""
    shown, everything = measures.classes[WHOLE].worst_slice, tuple(measures.classes)[1:]
    best = {mend.classes: mend for mend in reversed(measures.mends)}
    for mend in best.values():
        yield Suspicion(
            mend.kind,
            mend.classes,
            mend.share / _bound(mend.kind, WHOLE if mend.classes == everything else mend.classes[0]),
            f"{mend.words}: without that {mend.share:.0%} of the contradiction would go.",
            shown if len(mend.classes) > 1 else measures.classes[mend.classes[0]].worst_slice,
        )


def _slices(name: str, classes: tuple[str, ...], one: ClassMeasures) -> Iterator[Suspicion]:
    what = "the mask" if name == WHOLE else name
    for kind, slices, words in (
        ("gap", one.gap, "{what} is missing in {numbers}, between slices that have it; the network sees it."),
        ("early", one.early, "{what} ends too early: the network sees it in {numbers} too."),
        ("late", one.late, "{what} goes on too far: the network sees nothing of it in {numbers}."),
    ):
        if slices.numbers:
            text = words.format(what=what, numbers=_numbered(slices))
            bound = _bound(kind, name)
            yield Suspicion(kind, classes, slices.weight / bound, text[0].upper() + text[1:], slices.heaviest)


def _apart(name: str, one: ClassMeasures) -> Iterator[Suspicion]:
    if one.apart and name != WHOLE:
        text = (
            f"A piece of {name}, {one.apart:.1%} of it, lies apart where the network sees nothing of it, most in "
            f"slice {one.apart_slice}."
        )
        yield Suspicion("apart", (name,), one.apart / ALL_BOUNDS["apart"], text, one.apart_slice)


def _contradicts(name: str, classes: tuple[str, ...], measures: Measures, normal: Usual) -> Suspicion:
    one = measures.classes[name]
    least = min(LEAST_MM, LEAST_PIXELS * measures.pixel_mm)
    multiple = one.contradiction_mm / max(normal.contradiction_mm[name], least)
    strength = multiple / _bound(CONTRADICTS, name)
    return Suspicion(CONTRADICTS, classes, strength, _contradiction(name, one, normal), one.worst_slice)


def _contradiction(name: str, one: ClassMeasures, normal: Usual) -> str:
    dice, most = one.dice, normal.dice[name]
    if dice is None or most is None:
        return f"{'The mask' if name == WHOLE else name} is neither in the label nor to the network."
    numbers = f"Dice {dice:.0%}, where {most:.0%} is usual here"
    if name == WHOLE:
        doubt = "is it another scan's?" if dice < ELSEWHERE else f"most in slice {one.worst_slice}."
        return f"Label and network disagree about the whole mask ({numbers}): {doubt}"
    others = {other: share for other, share in one.taken_for.items() if other != name}
    other = max(others, key=lambda key: others[key], default="")
    taken = f"; {others[other]:.0%} of the label is {other} to the network" if other and others[other] else ""
    return f"{name}: {numbers}, most in slice {one.worst_slice}{taken}."


def _bound(kind: str, name: str) -> float:
    return _WHOLE_BOUNDS.get(kind, ALL_BOUNDS[kind]) if name == WHOLE else ALL_BOUNDS[kind]


def _numbered(slices: Slices) -> str:
    numbers = slices.numbers
    return f"slice {numbers[0]}" if len(numbers) == 1 else f"slices {', '.join(map(str, numbers))}"


def _median(values: list[float]) -> float | None:
    return median(values) if values else None
