"""Removing islands from predictions: which pieces of a class are kept is decided on the training masks alone.

A *piece* is a set of voxels that touch each other, corners included (26 neighbours in a volume). nnU-Net decides by
cross-validation whether to keep the largest piece of a class; ten patients allow none. What training masks say
without one is how their pieces are: if the foreground of every mask is one piece, a prediction of several is wrong
somewhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from ccdcseg.errors import UserError

FOREGROUND = "foreground"
"""Name, in rules, of all classes but the background taken together, see `rule_names`."""
ALL_CLASSES = "all classes"
"""Their name where one of several classes is called `FOREGROUND`."""

Shares = Mapping[str, float]
"""For each of `rule_names`: the smallest share of the whole that a piece must have to be kept. The
piece with the most evidence is kept whatever its share, so that 1 keeps that piece alone, and 0 keeps all."""

PROCEDURE = 2
"""Of `keep_pieces`; in the first the foreground's rule could leave nothing of a class."""
SPECK = 0.1
"""Pieces are dropped below this part of the smallest piece in the training masks. A new patient's smallest piece is
smaller than those of n others once in n + 1 times, and may be a kidney, or a lesion."""
_CLIP = 1e-4


@dataclass(frozen=True)
class PieceCounts:
    """How the pieces of a class, or of the foreground, are in the training masks.

    Attributes:
        masks: in how many of them it is present.
        in_one_piece: in how many of them it is one piece.
        smallest_share: the smallest piece of all as a share of its class in its mask; 1 where every mask has one.
    """

    masks: Annotated[int, Field(ge=0)]
    in_one_piece: Annotated[int, Field(ge=0)]
    smallest_share: Annotated[float, Field(ge=0, le=1)]

    @property
    def least_share(self) -> float:
        """The share that a piece must have to be kept."""
        return 1.0 if self.in_one_piece == self.masks else SPECK * self.smallest_share


@dataclass(frozen=True)
class Postprocessing:
    """What was decided for a run, and on what grounds.

    Attributes:
        shares: see `Shares`.
        counts: of the training masks, for the same names.
        masks: how many were looked at; those with voxels that nobody labelled are not.
    """

    shares: dict[str, Annotated[float, Field(ge=0, le=1)]]
    counts: dict[str, PieceCounts]
    masks: Annotated[int, Field(ge=0)]

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def decide(
    masks: Iterable[NDArray[Any]], labels: Mapping[str, int], ignore: int | None = None
) -> Postprocessing:
    """Decide which pieces of a prediction are kept, from the masks that training may use.

    What is one piece in every mask is kept in one piece. If it is not, the foreground is left alone, and of a class
    those pieces are dropped that are smaller, as a share of their class, than `SPECK` of any piece in a mask.

    Args:
        masks: (Z, Y, X) or (Y, X) integer arrays.
        labels: value of each foreground class by name.
        ignore: value of voxels that nobody labelled; masks with such voxels say nothing about pieces.
    """
    shares: dict[str, list[NDArray[np.float64]]] = {name: [] for name in rule_names(labels)}
    seen = 0
    for mask in masks:
        if ignore is not None and (mask == ignore).any():
            continue
        seen += 1
        for name, box in _boxes(mask, labels).items():
            sizes = _sizes(label_pieces(_region(mask[box], labels, name))[0])
            shares[name].append(sizes / sizes.sum())
    counts = {name: _count(found) for name, found in shares.items() if found}
    kept = {name: count.least_share for name, count in counts.items()}
    whole = _whole(labels)
    if whole in kept.keys() - labels.keys() and kept[whole] < 1:
        kept[whole] = 0.0
    return Postprocessing(kept, counts, seen)


def rule_names(labels: Mapping[str, int]) -> list[str]:
    """What rules are of, in the order in which they are applied: all classes together, then each.

    One class alone that is called `FOREGROUND` is both.
    """
    return list(dict.fromkeys((_whole(labels), *labels)))


def mildest(rules: Sequence[Shares]) -> Shares:
    """Rules of several networks that predict together: of each name the smallest share."""
    return {name: min(shares.get(name, 0.0) for shares in rules) for name in rules[0]}


def override(shares: Shares, changes: Sequence[str], labels: Mapping[str, int]) -> Shares:
    """What a user says otherwise.

    Args:
        shares: as decided.
        changes: such as ``RV=0``, ``foreground=1`` or ``RV=0.05``; see `Shares`.
        labels: the foreground classes.

    Raises:
        UserError: an unknown class, one that is named twice, or a share that is not between 0 and 1.
    """
    found = [_change(text, labels) for text in changes]
    names = [name for name, _ in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--keep names {twice[0]} twice.", "Give one share for each.")
    return {**shares, **dict(found)}


def keep_pieces(
    segmentation: NDArray[Any],
    probabilities: NDArray[np.floating[Any]] | None,
    labels: Mapping[str, int],
    shares: Shares,
) -> NDArray[Any]:
    """A copy of a segmentation in which dropped pieces are background.

    First the foreground as a whole, then each class in what is left of it. Of a class of which one piece is kept
    (share 1) there always is one: where the foreground's rule left none, the one with the most evidence of all the
    segmentation. nnU-Net's own, the largest piece of the foreground, may throw a structure away.

    Args:
        segmentation: (Z, Y, X) or (Y, X) class values, background 0.
        probabilities: (C, Z, Y, X), of the classes in the order of their values. A piece's evidence is the sum of
            log(p / q) over its voxels, with p of its class, q of the likeliest other one (of all classes together:
            of the background), and 0 where p < q; of as much, the larger has more. With two classes these are the
            log-odds. None: none are known, then the size of a piece is its evidence.
        labels: value of each foreground class by name.
        shares: see `Shares`.
    """
    result = segmentation.copy()
    boxes = _boxes(segmentation, labels)
    for name in rule_names(labels):
        share = shares.get(name, 0.0)
        if share > 0 and name in boxes:
            part, inside = result[boxes[name]], (slice(None), *boxes[name])
            if share == 1 and name in labels and not (part == labels[name]).any():
                part[segmentation[boxes[name]] == labels[name]] = labels[name]
            known = None if probabilities is None else probabilities[inside]
            part[_dropped(part, known, labels, name, share)] = 0
    return result


def rules_of(shares: Shares) -> dict[str, float]:
    """What tells these rules, and their procedure where it matters, from those of another prediction."""
    classes = [share for name, share in shares.items() if name not in {FOREGROUND, ALL_CLASSES}]
    matters = 1 in classes and max(shares.get(FOREGROUND, 0), shares.get(ALL_CLASSES, 0)) > 0
    return {**shares, "procedure": PROCEDURE} if matters else dict(shares)


def removed_shares(before: NDArray[Any], after: NDArray[Any], labels: Mapping[str, int]) -> dict[str, float]:
    """Which share of each class `keep_pieces` removed, of those of which it removed something."""
    gone = before[before != after]
    removed = {name: np.count_nonzero(gone == value) for name, value in labels.items()}
    return {
        name: count / np.count_nonzero(before == labels[name]) for name, count in removed.items() if count
    }


def in_words(shares: Shares) -> str:
    """Which pieces are kept, for people: "foreground one, RV from 0.0002 of it on"; empty where all are."""
    return ", ".join(
        f"{name} {'one' if share == 1 else f'from {share:.2g} of it on'}"
        for name, share in shares.items()
        if share > 0
    )


def label_pieces(region: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """The pieces of a region, numbered from 1 on, and how many there are."""
    pieces, count = ndimage.label(region, np.ones((3,) * region.ndim))
    return pieces, count


def _dropped(
    segmentation: NDArray[Any],
    probabilities: NDArray[np.floating[Any]] | None,
    labels: Mapping[str, int],
    name: str,
    share: float,
) -> NDArray[np.bool_]:
    """The voxels of the pieces that are not kept."""
    region = _region(segmentation, labels, name)
    pieces, count = label_pieces(region)
    if count < 2:
        return np.zeros_like(region)
    evidence = sizes = _sizes(pieces)
    if probabilities is not None:
        voxels = _evidence(probabilities[:, region], labels, name)
        evidence = np.asarray(np.bincount(pieces[region], voxels)[1:], float)
    dropped = sizes / sizes.sum() < share
    dropped[np.lexsort((-sizes, -evidence))[0]] = False
    drop: NDArray[np.bool_] = np.concatenate([[False], dropped])[pieces]
    return drop


def _evidence(
    probabilities: NDArray[np.floating[Any]], labels: Mapping[str, int], name: str
) -> NDArray[np.float32]:
    """(N,) of voxels whose class probabilities are (C, N)."""
    if name == _whole(labels):
        mine, other = 1 - probabilities[0], probabilities[0]
    else:
        mine = probabilities[labels[name]]
        other = np.delete(probabilities, labels[name], axis=0).max(0)
    evidence: NDArray[np.float32] = np.maximum(_log(mine) - _log(other), 0)
    return evidence


def _log(probability: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """In float32, of p bounded to [1e-4, 1 - 1e-4]; in float16 the bound would vanish."""
    logarithm: NDArray[np.float32] = np.log(np.clip(probability.astype(np.float32), _CLIP, 1 - _CLIP))
    return logarithm


def _sizes(pieces: NDArray[np.int32]) -> NDArray[np.float64]:
    return np.bincount(pieces.ravel())[1:].astype(float)


def _count(shares: Sequence[NDArray[np.float64]]) -> PieceCounts:
    return PieceCounts(
        masks=len(shares),
        in_one_piece=sum(len(pieces) == 1 for pieces in shares),
        smallest_share=float(min(pieces.min() for pieces in shares)),
    )


def _boxes(mask: NDArray[Any], labels: Mapping[str, int]) -> dict[str, tuple[slice, ...]]:
    """The smallest box around each class that is there, and around all of them.

    Pieces are looked for in their box alone: to number those of a whole scan takes a second, for each class.
    """
    found = dict(enumerate(ndimage.find_objects(mask), 1))
    boxes = {name: box for name, value in labels.items() if (box := found.get(value))}
    if boxes:
        axes = zip(*boxes.values(), strict=True)
        boxes[_whole(labels)] = tuple(
            slice(min(side.start for side in axis), max(side.stop for side in axis)) for axis in axes
        )
    return boxes


def _whole(labels: Mapping[str, int]) -> str:
    """The name of all classes together."""
    return ALL_CLASSES if FOREGROUND in labels and len(labels) > 1 else FOREGROUND


def _region(mask: NDArray[Any], labels: Mapping[str, int], name: str) -> NDArray[np.bool_]:
    region: NDArray[np.bool_] = (
        np.isin(mask, [*labels.values()]) if name == _whole(labels) else mask == labels[name]
    )
    return region


def _change(text: str, labels: Mapping[str, int]) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    if name not in rule_names(labels):
        raise UserError(
            f"--keep {text}: there is no class {name or text}.",
            f"Write NAME=SHARE, with one of {', '.join(rule_names(labels))} and a number from 0 to 1.",
        )
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UserError(
            f"--keep {text}: {value} is no share.",
            "Give a number from 0 (keep all pieces) to 1 (keep the piece with the most evidence alone).",
        )
    return name, share
