from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ccdcseg.datasets.cases import Case
from ccdcseg.proposals.draws import SHORTLIST, Pool, covering_draw, random_draw, stood_for, unsure_draw


def made_up(patients: list[tuple[str, int]], annotated: int, seed: int) -> Pool:
    """Patients by group and number of scans; the last scans are annotated."""
    cases = [
        Case(f"{number}-{scan}", str(number), group, str(scan))
        for number, (group, scans) in enumerate(patients)
        for scan in range(scans)
    ]
    points = np.random.default_rng(seed).random((len(cases), 2))
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    same = np.array([[one.patient == other.patient for other in cases] for one in cases])
    return Pool(cases[: len(cases) - annotated], same, distances)


@st.composite
def pools(draw: Any) -> Pool:
    patients = draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), min_size=1, max_size=9))
    scans = sum(count for _, count in patients)
    return made_up(patients, draw(st.integers(0, scans - 1)), draw(st.integers(0, 99)))


@given(pools(), st.integers(1, 12), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_no_two_are_of_one_patient_and_none_of_an_annotated_one(pool: Pool, count: int, seed: int) -> None:
    annotated = {place for place in range(len(pool.same)) if place >= len(pool.scans)}
    known = {int(other) for place in annotated for other in np.flatnonzero(pool.same[place])}
    free = {case.patient for place, case in enumerate(pool.scans) if place not in known}
    sure = np.random.default_rng(seed).random(len(pool.scans)).tolist()
    for drawn in (
        random_draw(pool, count, seed),
        covering_draw(pool, count, seed),
        unsure_draw(pool, count, seed, sure),
    ):
        patients = [pool.scans[place].patient for place in drawn]
        assert len({*patients}) == len(patients) == min(count, len(free))
        assert {*patients} <= free


def test_groups_have_their_share() -> None:
    pool = made_up([("a", 1)] * 20 + [("b", 2)] * 10, 0, 0)
    for draw in (random_draw, covering_draw):
        groups = [pool.scans[place].group for place in draw(pool, 6, 3)]
        assert (groups.count("a"), groups.count("b")) == (4, 2)


def test_groups_have_their_share_of_those_who_can_be_drawn() -> None:
    """Five patients of each group have a mask, on another scan; four of the others are drawn."""
    cases = [Case(f"{number}", f"{number}", "ab"[number % 2], "") for number in range(20)]
    same = np.eye(21, dtype=bool)
    same[20, :10] = same[:10, 20] = True
    pool = Pool(cases, same, np.random.default_rng(0).random((21, 21)))
    for seed in range(9):
        for draw in (random_draw, covering_draw):
            assert sorted(cases[place].group for place in draw(pool, 4, seed)) == [*"aabb"]


def test_chance_is_seeded() -> None:
    pool = made_up([("a", 2)] * 20, 0, 0)
    draws = [tuple(random_draw(pool, 5, seed)) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len({*draws}) == 3
    assert {pool.scans[place].phase for seed in range(9) for place in random_draw(pool, 5, seed)} == {
        "0",
        "1",
    }


@given(pools(), st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_each_choice_brings_all_scans_nearest(pool: Pool, seed: int) -> None:
    """Without groups: no other choice lowers the mean distance to the nearest centre more."""
    plain = Pool([Case(c.case, c.patient, "", c.phase) for c in pool.scans], pool.same, pool.distances)
    taken: list[int] = []
    far = float(pool.distances[: len(pool.scans), : len(pool.scans)].max()) + 1

    def cost(centres: list[int]) -> float:
        known = [*centres, *pool.annotated]
        return sum(min([far, *(pool.distances[place, c] for c in known)]) for place in range(len(pool.scans)))

    for place in covering_draw(plain, 4, seed):
        best = min(cost([*taken, other]) for other in plain.free(taken))
        taken.append(place)
        assert np.isclose(cost(taken), best)


def test_scans_that_a_choice_stands_for() -> None:
    places = np.array([0.0, 0.1, 0.2, 5.0, 5.1, 9.0])
    pool = Pool(
        [Case(str(n), str(n), "", "") for n in range(5)],
        np.eye(6, dtype=bool),
        np.abs(places[:, None] - places),
    )
    assert covering_draw(pool, 2, 0) == [1, 3] or covering_draw(pool, 2, 0) == [1, 4]
    assert stood_for(pool, [1, 3]) == [3, 2]


def test_of_scans_that_are_alike_each_stands_for_itself() -> None:
    cases = [Case(str(n), str(n), "", "") for n in range(3)]
    assert stood_for(Pool(cases, np.eye(3, dtype=bool), np.zeros((3, 3))), [0, 1]) == [2, 1]


def test_the_least_sure_are_on_the_shortlist() -> None:
    pool = made_up([("a", 2)] * 30, 0, 5)
    sure = np.random.default_rng(1).random(60).tolist()
    drawn = unsure_draw(pool, 4, 0, sure)
    least = sorted(min(sure[2 * patient], sure[2 * patient + 1]) for patient in range(30))[: SHORTLIST * 4]
    assert [sure[place] for place in drawn] == sorted(sure[place] for place in drawn)
    assert {sure[place] for place in drawn} <= {*least}
