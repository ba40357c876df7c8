"""Ways to choose scans: at random, by how well they stand for the others, by how unsure a network is of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccdcseg.datasets.cases import Case
from ccdcseg.datasets.splits import stratified_order

SHORTLIST = 3
"""The least sure scans are so many times as many as are chosen from them."""


@dataclass(frozen=True, eq=False)
class Pool:
    """The scans to choose from, and those that are annotated already.

    Args:
        scans: to choose from.
        same: near-duplicates among all scans (those to choose from, then the annotated), shape (n, n).
        distances: between all scans, shape (n, n).
    """

    scans: Sequence[Case]
    same: NDArray[np.bool_]
    distances: NDArray[np.float64]

    @property
    def annotated(self) -> range:
        """Places of the annotated scans."""
        return range(len(self.scans), len(self.same))

    def free(self, taken: Sequence[int]) -> list[int]:
        """Scans that are no near-duplicate of one that is taken or annotated."""
        used = set(np.flatnonzero(self.same[[*taken, *self.annotated]].any(axis=0)).tolist())
        return [place for place in range(len(self.scans)) if place not in used]

    @property
    def groups(self) -> dict[str, str]:
        """The group of each patient who can be chosen."""
        return {self.scans[place].patient: self.scans[place].group for place in self.free([])}


def random_draw(pool: Pool, count: int, seed: int) -> list[int]:
    """Draw scans of different patients, each group in its share, as `ccdcseg split` does."""
    generator = np.random.default_rng([seed, 1])
    taken: list[int] = []
    for patient in stratified_order(pool.groups, seed):
        scans = [place for place in pool.free(taken) if pool.scans[place].patient == patient]
        if scans and len(taken) < count:
            taken.append(int(generator.choice(scans)))
    return taken


def covering_draw(pool: Pool, count: int, seed: int, among: Sequence[int] | None = None) -> list[int]:
    """Choose scans so that every scan has a near one, annotated or chosen: greedy facility location.

    Each choice lowers the mean distance of all scans to the nearest of these the most. Groups take turns as they do
    in the random draw of this seed.

    Args:
        pool: to choose from.
        count: how many.
        seed: of the order of groups.
        among: the scans that may be chosen; None: all.
    """
    apart = pool.distances[: len(pool.scans)]
    nearest = apart[:, pool.annotated].min(axis=1, initial=float(apart.max(initial=0)) + 1)
    taken: list[int] = []
    for group in _turns(pool, count, seed):
        free = [place for place in pool.free(taken) if among is None or place in among]
        of_group = [place for place in free if pool.scans[place].group == group] or free
        if not of_group:
            break
        gains = np.maximum(nearest[:, None] - apart[:, of_group], 0).sum(axis=0)
        taken.append(of_group[int(gains.argmax())])
        nearest = np.minimum(nearest, apart[:, taken[-1]])
    return taken


def unsure_draw(pool: Pool, count: int, seed: int, sure: Sequence[float]) -> list[int]:
    """Of the least sure scans, `SHORTLIST` times as many as wanted, choose those that cover all best.

    Args:
        pool: to choose from.
        count: how many.
        seed: of the order of groups.
        sure: of each scan to choose from; see `ccdcseg.proposals.networks`.
    """
    listed: list[int] = []
    for place in sorted(pool.free([]), key=lambda place: (sure[place], pool.scans[place])):
        if len(listed) < SHORTLIST * count and place in pool.free(listed):
            listed.append(place)
    chosen = covering_draw(pool, count, seed, listed)
    return sorted(chosen, key=lambda place: sure[place])


def stood_for(pool: Pool, chosen: Sequence[int]) -> list[int]:
    """To how many scans each chosen one is nearer than the other chosen and the annotated ones, itself included."""
    centres = [*chosen, *pool.annotated]
    apart = pool.distances[: len(pool.scans), centres].copy()
    apart[chosen, range(len(chosen))] = -1  # each stands for itself, though another be as near
    nearest = apart.argmin(axis=1)
    return [int(np.count_nonzero(nearest == number)) for number in range(len(chosen))]


def _turns(pool: Pool, count: int, seed: int) -> list[str]:
    """The group of each choice."""
    groups = pool.groups
    return [groups[patient] for patient in stratified_order(groups, seed)[:count]]
