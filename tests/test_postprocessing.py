"""Pieces of predictions: rules from masks, what is kept, against a naive search and nnU-Net's own command."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ccdcseg import postprocessing
from ccdcseg.errors import UserError
from ccdcseg.postprocessing import (
    FOREGROUND,
    PROCEDURE,
    SPECK,
    PieceCounts,
    decide,
    keep_pieces,
    label_pieces,
    mildest,
    override,
    removed_shares,
    rules_of,
)

LABELS = {"rv": 1, "lv": 2}


def pieces_of(region: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Pieces by a flood fill over all neighbours, corners included."""
    left = {tuple(map(int, place)) for place in np.argwhere(region)}
    found = []
    while left:
        piece, border = set(), {min(left)}
        while border:
            place = border.pop()
            piece.add(place)
            left.discard(place)
            steps = itertools.product((-1, 0, 1), repeat=region.ndim)
            border |= {tuple(p + s for p, s in zip(place, step, strict=True)) for step in steps} & left
        found.append(piece)
    return found


def naive(segmentation, probabilities, shares):
    result = segmentation.copy()
    for name, values in ((FOREGROUND, [1, 2]), ("rv", [1]), ("lv", [2])):
        share = shares.get(name, 0)
        pieces = pieces_of(np.isin(result, values))
        if share == 1 and not pieces:
            pieces = pieces_of(np.isin(segmentation, values))
            for place in set().union(*pieces):
                result[place] = values[0]
        if share == 0 or not pieces:
            continue

        def evidence(piece, values=values):
            if probabilities is None:
                return len(piece)
            total = 0.0
            for place in piece:
                of_others = [float(probabilities[(value, *place)]) for value in {0, 1, 2} - {*values}]
                q = of_others[0] if len(values) == 2 else max(of_others)
                p = 1 - q if len(values) == 2 else float(probabilities[(values[0], *place)])
                p, q = (min(max(value, 1e-4), 1 - 1e-4) for value in (p, q))
                total += max(0.0, np.log(p / q))
            return total, len(piece)

        best = max(pieces, key=evidence)
        whole = sum(map(len, pieces))
        for piece in pieces:
            if piece is not best and len(piece) / whole < share:
                for place in piece:
                    result[place] = 0
    return result


segmentations = arrays.arrays(
    np.int16, st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 2)
)
shares = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from([0, 0.1, 0.4, 1]) for name in (FOREGROUND, *LABELS)}
)


@given(segmentations, shares, st.integers(0, 2**32 - 1))
def test_against_a_naive_search(segmentation, shares, seed):
    noise = np.random.default_rng(seed).gumbel(size=(3, *segmentation.shape))
    probabilities = np.exp(noise) / np.exp(noise).sum(0)
    found = keep_pieces(segmentation, probabilities, LABELS, shares)
    np.testing.assert_array_equal(found, naive(segmentation, probabilities, shares))


def whole_scan_counts(masks, values):
    """Of one class, or of all, with the pieces of whole scans."""
    pieces = [label_pieces(np.isin(mask, values))[0] for mask in masks]
    sizes = [np.bincount(found.ravel())[1:].astype(float) for found in pieces if found.any()]
    smallest = [(found / found.sum()).min() for found in sizes]
    return PieceCounts(len(sizes), sum(len(s) == 1 for s in sizes), float(min(smallest))) if sizes else None


def margin(probabilities, values):
    """Of each voxel of a scan: log of p of the class, or of all, over p of what it would be instead."""
    others = [value for value in range(3) if value not in values]
    other = probabilities[others].max(0)
    mine = 1 - other if len(values) == 2 else probabilities[values[0]]
    ours, theirs = (np.log(np.clip(p.astype(np.float32), 1e-4, 1 - 1e-4)) for p in (mine, other))
    return np.maximum(ours - theirs, 0)


def whole_scan_kept(segmentation, probabilities, shares):
    result = segmentation.copy()
    for name, values in ((FOREGROUND, [1, 2]), ("rv", [1]), ("lv", [2])):
        share = shares.get(name, 0)
        if share == 1 and not np.isin(result, values).any():
            result = np.where(np.isin(segmentation, values), segmentation, result)
        pieces, count = label_pieces(np.isin(result, values))
        if count and share > 0:
            sizes = np.bincount(pieces.ravel())[1:].astype(float)
            weights = sizes
            if probabilities is not None:
                weights = np.bincount(pieces.ravel(), margin(probabilities, values).ravel())[1:]
            kept = sizes / sizes.sum() >= share
            kept[max(range(count), key=lambda index: (weights[index], sizes[index]))] = True
            result[(pieces > 0) & ~np.concatenate([[False], kept])[pieces]] = 0
    return result


@given(st.lists(segmentations, max_size=3))
@settings(max_examples=50)
def test_rules_are_those_of_whole_scans(masks):
    counts = decide(masks, LABELS).counts
    for name, values in ((FOREGROUND, [1, 2]), ("rv", [1]), ("lv", [2])):
        assert counts.get(name) == whole_scan_counts(masks, values)


@given(
    segmentations, shares, st.sampled_from([None, np.float16, np.float32]), st.booleans(), st.integers(0, 99)
)
@settings(max_examples=50)
def test_voxels_removed_are_those_of_whole_scans(segmentation, shares, kind, turned, seed):
    """Bit for bit; many pieces are equally large here, and the first of them is kept."""
    noise = np.random.default_rng(seed).random((3, *segmentation.shape))
    probabilities = None if kind is None else (noise / noise.sum(0)).astype(kind)
    if turned:
        segmentation = np.asfortranarray(segmentation)
    found = keep_pieces(segmentation, probabilities, LABELS, shares)
    np.testing.assert_array_equal(found, whole_scan_kept(segmentation, probabilities, shares))


def test_pieces_are_looked_for_around_their_class_alone(monkeypatch: pytest.MonkeyPatch):
    """On whole scans of a hundred classes that takes minutes for each."""
    shapes = []
    monkeypatch.setattr(
        postprocessing, "label_pieces", lambda region: shapes.append(region.shape) or label_pieces(region)
    )
    mask = np.zeros((9, 40, 50), np.uint8)
    mask[2:4, 10:13, 5:9], mask[5, 20, 30] = 1, 2
    rules = decide([mask], LABELS)
    keep_pieces(mask, None, LABELS, dict.fromkeys(rules.shares, 1))
    assert sorted(shapes) == sorted(2 * [(2, 3, 4), (1, 1, 1), (4, 11, 26)])


@given(segmentations, shares)
def test_nothing_is_added_and_doing_it_again_changes_nothing(segmentation, shares):
    before = segmentation.copy()
    once = keep_pieces(segmentation, None, LABELS, shares)
    np.testing.assert_array_equal(segmentation, before)
    assert ((once == segmentation) | (once == 0)).all()
    assert (once > 0).any() == (segmentation > 0).any()
    ruled = {name for name, share in shares.items() if share}
    if (
        set(shares.values()) <= {0, 1} and not {FOREGROUND} < ruled
    ):  # a class's piece may hold the others together
        np.testing.assert_array_equal(keep_pieces(once, None, LABELS, shares), once)


@given(segmentations)
@settings(max_examples=50)
def test_masks_obey_their_own_rules(mask):
    """What was decided from a mask removes nothing of it."""
    rules = decide([mask], LABELS)
    np.testing.assert_array_equal(keep_pieces(mask, None, LABELS, rules.shares), mask)


def test_shares_that_cannot_be_written_exactly():
    """7 / 25 of 25 is more than 7 to a computer: the smallest piece of a mask stays all the same."""
    mask = np.repeat([1, 0, 1], [7, 1, 18])[None]
    rules = decide([mask], {"organ": 1})
    np.testing.assert_array_equal(keep_pieces(mask, None, {"organ": 1}, rules.shares), mask)


def test_a_class_called_foreground_has_a_share_of_its_own():
    mask = np.repeat([1, 0, 1], [2, 1, 8])[None]
    shares = {name: decide([mask], {name: 1}).shares[name] for name in ("organ", FOREGROUND)}
    assert shares == {"organ": SPECK * 0.2, FOREGROUND: SPECK * 0.2}


def test_a_class_called_foreground_beside_others_is_a_class_as_any_other():
    """An island of the organ is dropped, and the lesion, a piece apart from the organ in all masks, is not."""
    mask = np.array([[1, 1, 1, 1, 0, 2, 0, 0, 0]])
    predicted = np.array([[1, 1, 1, 1, 0, 2, 0, 1, 1]])
    for organ, whole in (("organ", FOREGROUND), (FOREGROUND, "all classes")):
        labels = {organ: 1, "lesion": 2}
        rules = decide([mask], labels)
        assert rules.shares == {whole: 0, organ: 1, "lesion": 1}
        assert keep_pieces(predicted, None, labels, rules.shares).tolist() == mask.tolist()
        assert override(rules.shares, [f"{organ}=0", f"{whole}=0.5"], labels) == {
            whole: 0.5,
            organ: 0,
            "lesion": 1,
        }


def test_all_classes_together_have_a_rule_beside_a_class_called_foreground():
    labels = {FOREGROUND: 1, "lesion": 2}
    rules = decide([np.array([[1, 2, 1, 1, 0, 0]])], labels)
    assert rules.shares == {"all classes": 1, FOREGROUND: SPECK * (1 / 3), "lesion": 1}
    predicted = np.array([[1, 2, 1, 0, 1, 1]])
    probabilities = np.stack([np.full((1, 6), 0.2), np.full((1, 6), 0.6), np.full((1, 6), 0.2)])
    assert keep_pieces(predicted, probabilities, labels, rules.shares).tolist() == [[1, 2, 1, 0, 0, 0]]


def test_a_structure_that_lies_apart_from_the_rest_stays():
    """The heart of a weak network: of the right ventricle, one piece in all masks, there are two, both apart."""
    segmentation = np.array([[2, 2, 2, 2, 0, 1, 1, 0, 1]])
    both = {FOREGROUND: 1.0, "rv": 1.0, "lv": 1.0}
    assert keep_pieces(segmentation, None, LABELS, both).tolist() == [[2, 2, 2, 2, 0, 1, 1, 0, 0]]
    probabilities = np.full((3, 1, 9), 0.02)
    probabilities[2, 0, :4], probabilities[1, 0, 5:7], probabilities[1, 0, 8] = 0.96, 0.1, 0.96
    assert keep_pieces(segmentation, probabilities, LABELS, both).tolist() == [[2, 2, 2, 2, 0, 0, 0, 0, 1]]


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_class_of_several_pieces_lies_in_the_foreground_or_is_dropped(share):
    """Such as scars: the foreground's rule says that they lie within the heart."""
    segmentation = np.array([[2, 2, 2, 2, 0, 1, 1, 0, 1]])
    kept = keep_pieces(segmentation, None, LABELS, {FOREGROUND: 1.0, "rv": share, "lv": 1.0})
    assert kept.tolist() == [[2, 2, 2, 2, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("shares", "matters"),
    [
        ({FOREGROUND: 1.0, "rv": 1.0}, True),
        ({"all classes": 1.0, FOREGROUND: 0.0, "rv": 1.0}, True),
        ({FOREGROUND: 1.0, "rv": 0.1}, False),
        ({FOREGROUND: 0.0, "rv": 1.0}, False),
        ({}, False),
    ],
)
def test_predictions_by_the_procedure_of_before_are_told_from_those_of_today(shares, matters):
    """Where it could make a difference alone: others need not be predicted again."""
    assert rules_of(shares) == (shares | {"procedure": PROCEDURE} if matters else shares)


def test_evidence_not_size_decides():
    """A large, unsure piece loses to a small, sure one."""
    segmentation = np.array([[1, 1, 1, 0, 1, 1]])
    probability = np.array([[0.6, 0.6, 0.6, 0.1, 0.99, 0.99]])
    probabilities = np.stack([1 - probability, probability])
    organ = {"organ": 1}
    assert keep_pieces(segmentation, probabilities, organ, {FOREGROUND: 1}).tolist() == [[0, 0, 0, 0, 1, 1]]
    assert keep_pieces(segmentation, None, organ, {FOREGROUND: 1}).tolist() == [[1, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize("stray", [0.47, 0.51])
def test_a_stray_voxel_does_not_win_where_the_structure_has_less_than_half_the_probability(stray):
    """As where networks are weak or disagree: log-odds are negative there, and one voxel has the largest sum."""
    segmentation = np.array([[1, 0, 1, 1, 1]])
    rv = np.array([stray, 0.1, 0.46, 0.46, 0.46])
    probabilities = np.stack([(1 - rv) / 2, rv, (1 - rv) / 2])[:, None]
    assert keep_pieces(segmentation, probabilities, LABELS, {"rv": 1}).tolist() == [[0, 0, 1, 1, 1]]


def test_unsure_voxels_do_not_speak_against_their_own_piece():
    segmentation = np.array([[1, 1, 1, 0, 1]])
    rv = np.array([0.3, 0.9, 0.3, 0.1, 0.8])
    probabilities = np.stack([(1 - rv) / 2, rv, (1 - rv) / 2])[:, None]
    assert keep_pieces(segmentation, probabilities, LABELS, {"rv": 1}).tolist() == [[1, 1, 1, 0, 0]]


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_evidence_of_certain_voxels_is_bounded(kind):
    """So that one voxel of p = 1 weighs no more than two of 0.999."""
    segmentation = np.array([[1, 0, 1, 1]])
    organ = np.array([[1, 0, 0.999, 0.999]], kind)
    kept = keep_pieces(segmentation, np.stack([1 - organ, organ]), {"organ": 1}, {FOREGROUND: 1})
    assert kept.tolist() == [[0, 0, 1, 1]]


@given(arrays.arrays(np.int16, (2, 5, 5), elements=st.integers(0, 1)), st.integers(0, 99))
@settings(max_examples=50)
def test_with_two_classes_evidence_is_the_log_odds(segmentation, seed):
    p = np.random.default_rng(seed).uniform(0.5001, 0.999, segmentation.shape)
    p = np.where(segmentation == 1, p, 1 - p)
    pieces, count = label_pieces(segmentation == 1)
    sums = [np.log(p / (1 - p))[pieces == number].sum() for number in range(1, count + 1)]
    expected = np.where(pieces == np.argmax([0, *sums]), segmentation, 0)
    found = keep_pieces(segmentation, np.stack([1 - p, p]), {"organ": 1}, {"organ": 1, FOREGROUND: 0})
    np.testing.assert_array_equal(found, expected)


def kidneys(generator):
    """Two of 500 voxels or a tenth more or less."""
    mask = np.zeros(1100, np.int16)
    for first in (0, 550):
        mask[first : first + int(generator.normal(500, 20))] = 1
    return mask[None]


def lesions(count):
    return np.tile([1, 1, 0], count)[None]


@pytest.mark.parametrize("patients", [1, 2, 5, 10])
def test_the_smaller_of_a_pair_of_organs_stays(patients):
    """The smaller kidney of one in so many and one is smaller than those of all others."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        shares = decide([kidneys(generator) for _ in range(patients)], {"kidney": 1}).shares
        scan = kidneys(generator)
        np.testing.assert_array_equal(keep_pieces(scan, None, {"kidney": 1}, shares), scan)


def test_a_patient_with_more_lesions_than_others_keeps_them():
    shares = decide([lesions(count) for count in (2, 3, 4)], {"lesion": 1}).shares
    scan = np.concatenate([lesions(12), [[0] * 9]], 1)
    speck = np.concatenate([np.repeat(lesions(12), 20, 1), [[0, 1, 0]]], 1)
    np.testing.assert_array_equal(keep_pieces(scan, None, {"lesion": 1}, shares), scan)
    assert (keep_pieces(speck, None, {"lesion": 1}, shares) != speck).sum() == 1


def test_shares_of_what_was_removed():
    before, after = np.array([[1, 1, 1, 0, 1, 2, 2]]), np.array([[1, 1, 1, 0, 0, 2, 2]])
    assert removed_shares(before, after, LABELS) == {"rv": 0.25}
    assert removed_shares(before, np.zeros_like(before), LABELS) == {"rv": 1, "lv": 1}
    assert removed_shares(before, before, LABELS) == {}


def test_rules_of_masks():
    first = np.array([[1, 1, 2, 2, 0, 0, 0]])
    second = np.array([[1, 1, 1, 2, 1, 0, 2]])
    rules = decide([first, second], LABELS)
    assert rules.shares == {FOREGROUND: 0.0, "rv": SPECK * 0.25, "lv": SPECK * 0.5}
    assert rules.counts[FOREGROUND].in_one_piece == 1
    assert rules.counts["rv"].masks == 2
    assert decide([first], LABELS).shares == {FOREGROUND: 1.0, "rv": 1.0, "lv": 1.0}


def test_absent_classes_empty_masks_and_unlabelled_voxels_say_nothing():
    empty, organ = np.zeros((1, 4), int), np.array([[1, 0, 0, 0]])
    assert decide([empty, organ], LABELS).shares == {FOREGROUND: 1.0, "rv": 1.0}
    assert decide([empty], LABELS).shares == {}
    sparse = decide([np.array([[1, 3, 0, 1]]), organ], LABELS, ignore=3)
    assert (sparse.masks, sparse.shares["rv"]) == (1, 1.0)


def test_corners_connect():
    diagonal = np.zeros((2, 2, 2), int)
    diagonal[0, 0, 0] = diagonal[1, 1, 1] = 1
    assert decide([diagonal], {"organ": 1}).shares[FOREGROUND] == 1


def test_a_user_says_otherwise():
    shares = override(decide([np.array([[1, 2]])], LABELS).shares, ["rv=0", "foreground=0.25"], LABELS)
    assert shares == {FOREGROUND: 0.25, "rv": 0.0, "lv": 1.0}


def test_several_networks_keep_what_one_of_them_keeps():
    assert mildest([{FOREGROUND: 1.0, "rv": 0.1}, {FOREGROUND: 0.0, "rv": 0.2}]) == {
        FOREGROUND: 0.0,
        "rv": 0.1,
    }
    assert mildest([{FOREGROUND: 1.0, "rv": 0.1}, {FOREGROUND: 1.0}]) == {FOREGROUND: 1.0, "rv": 0.0}
    assert mildest([{}, {FOREGROUND: 1.0}]) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spleen=1", "there is no class spleen.*foreground, rv, lv"),
        ("rv", "there is no class rv"),
        ("rv=2", "2 is no share"),
        ("rv=nan", "nan is no share"),
        ("rv=all", "all is no share"),
        ("rv=0 rv=1", "names rv twice"),
    ],
)
def test_what_cannot_be_said(text, message):
    with pytest.raises(UserError, match=message):
        override({}, text.split(), LABELS)
