from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ccdcseg.review.measure import (
    WHOLE,
    Measures,
    Mend,
    Opinions,
    in_digits,
    measure,
    soft_minimum,
)

NAMES = ("RV", "LV")
SPACING = (8.0, 1.5, 1.5)


def heart() -> np.ndarray:
    """Two unlike boxes, without any symmetry, in slices 2 to 6 of 8."""
    labels = np.zeros((8, 40, 48), np.int16)
    labels[1:6, 8:20, 6:20] = 1
    labels[1:5, 12:30, 22:36] = 2
    return labels


def sure(labels: np.ndarray, sureness: float = 0.97) -> np.ndarray:
    """Probabilities of a network that sees these labels."""
    rest = (1 - sureness) / len(NAMES)
    return np.where(np.arange(len(NAMES) + 1)[:, None, None, None] == labels, sureness, rest)


def best_mend(labels: np.ndarray, seen: np.ndarray, kind: str) -> Mend:
    mends = measure(Opinions.of(labels, sure(seen), SPACING, NAMES)).mends
    return next(mend for mend in mends if mend.kind == kind)


def test_a_mask_that_the_network_agrees_with_contradicts_it_nowhere():
    found = measure(Opinions.of(heart(), sure(heart()), SPACING, NAMES))
    assert found.mends == ()
    for one in found.classes.values():
        assert one.dice == 1
        assert one.contradiction_mm == 0
        assert one.surface_probability == pytest.approx(0.97, abs=0.02)
        assert one.gap.numbers == one.early.numbers == one.late.numbers == ()
        assert (one.apart, one.apart_slice) == (0, 0)
        assert one.worst_slice == 2  # the first that has something to see


@given(
    arrays(np.int16, (3, 4, 5), elements=st.integers(0, 2)),
    arrays(np.float32, (3, 3, 4, 5), elements=st.floats(0.015625, 1, width=32)),
)
def test_the_contradiction_is_what_a_voxel_by_voxel_loop_finds(labels: np.ndarray, raw: np.ndarray) -> None:
    probabilities = raw / raw.sum(0)
    opinions = Opinions.of(labels, probabilities, SPACING, NAMES)
    for place in product(*map(range, labels.shape)):
        costs = [np.log(max(float(p), 0.02)) / np.log(0.02) for p in probabilities[:, *place]]
        assert opinions.contradiction[place] == pytest.approx(costs[labels[place]] - min(costs), abs=1e-5)


def test_swapped_classes_are_named():
    labels = heart()
    swapped = np.array([0, 2, 1])[labels]
    mend = best_mend(swapped, labels, "swapped")
    assert mend.classes == NAMES
    assert mend.share == pytest.approx(1)
    taken = measure(Opinions.of(swapped, sure(labels), SPACING, NAMES)).classes["RV"].taken_for
    assert taken == {"background": 0, "RV": 0, "LV": 1}


@pytest.mark.parametrize(("axes", "words"), [((1,), "rows"), ((2,), "columns"), ((0,), "slices")])
def test_a_mirrored_mask_is_named(axes: tuple[int, ...], words: str) -> None:
    mend = best_mend(np.flip(heart(), axes), heart(), "mirrored")
    assert words in mend.words
    assert mend.share == pytest.approx(1)


def test_a_shifted_mask_is_named_with_where_it_went():
    mend = best_mend(np.roll(heart(), (2, -3), (1, 2)), heart(), "shifted")
    assert "5.4 mm (-3 columns, +2 rows)" in mend.words
    assert mend.share == pytest.approx(1)


@pytest.mark.parametrize(("kind", "grown"), [("wide", True), ("narrow", False)])
def test_an_outline_that_is_too_wide_or_too_narrow_is_named(kind: str, grown: bool) -> None:
    small = np.zeros((6, 40, 40), np.int16)
    large = small.copy()
    small[1:5, 14:26, 14:26] = large[1:5, 12:28, 12:28] = 1
    mask, seen = (large, small) if grown else (small, large)
    mend = best_mend(mask, seen, kind)
    assert mend.share > 0.8
    assert f"3.0 mm too {kind}" in mend.words


@pytest.mark.parametrize(
    ("which", "change", "numbers"),
    [("gap", 3, (4,)), ("early", 1, (2,)), ("early", 5, (6,))],
)
def test_slices_that_the_network_sees_alone_are_told(
    which: str, change: int, numbers: tuple[int, ...]
) -> None:
    labels = heart()
    labels[change] = 0
    found = measure(Opinions.of(labels, sure(heart()), SPACING, NAMES)).classes["RV"]
    slices = {"gap": found.gap, "early": found.early}
    assert slices.pop(which).numbers == numbers
    assert not any(other.numbers for other in slices.values())


def test_slices_and_pieces_that_the_network_does_not_see_are_told():
    labels = heart()
    labels[6, 8:20, 6:20] = 1
    labels[3, 36:38, 40:44] = 1
    found = measure(Opinions.of(labels, sure(heart()), SPACING, NAMES)).classes["RV"]
    assert found.late.numbers == (7,)
    assert found.late.weight == pytest.approx(1, abs=0.1)
    assert found.apart == pytest.approx(8 / np.count_nonzero(labels == 1))
    assert (found.apart_slice, found.worst_slice) == (4, 7)


def test_slices_may_lie_along_any_axis():
    labels = np.moveaxis(heart(), 0, 2)
    seen = labels.copy()
    labels[:, :, 3] = 0
    found = measure(Opinions.of(labels, sure(seen), (1.5, 1.5, 8.0), NAMES))
    assert found.classes[WHOLE].gap.numbers == (4,)


def long_heart() -> np.ndarray:
    """The same two boxes in slices 2 to 11 of 12."""
    return np.pad(np.repeat(heart()[3:4], 10, 0), ((1, 1), (0, 0), (0, 0)))


def annotated(labels: np.ndarray, seen: np.ndarray, slices: list[int]) -> Measures:
    """Measures of some slices alone."""
    kept = np.isin(np.arange(len(labels)), slices)[:, None, None]
    return measure(Opinions.of(np.where(kept, labels, 3), sure(seen), SPACING, NAMES, ignore=3))


@pytest.mark.parametrize(
    "wrong",
    [
        np.array([0, 2, 1])[long_heart()],
        np.flip(long_heart(), 2),
        np.roll(long_heart(), (3, 3), (1, 2)),
        np.roll(long_heart(), (-9, -9), (1, 2)),
        np.where(long_heart() == 1, 0, long_heart()),
    ],
)
def test_some_slices_say_what_all_of_them_say(wrong: np.ndarray) -> None:
    """Slices like each other, so that shares and distances are the same."""
    whole = measure(Opinions.of(wrong, sure(long_heart()), SPACING, NAMES))
    some = annotated(wrong, long_heart(), [2, 5, 8])
    for name, one in whole.classes.items():
        found = some.classes[name]
        assert found.dice == one.dice
        assert found.contradiction_mm == pytest.approx(one.contradiction_mm)
        assert found.surface_probability == pytest.approx(one.surface_probability)
        assert found.taken_for == pytest.approx(one.taken_for)
        assert found.apart == pytest.approx(one.apart)
        assert found.worst_slice in (3, 6, 9)
    assert [mend.words for mend in some.mends] == [mend.words for mend in whole.mends]
    assert [mend.share for mend in some.mends] == pytest.approx([mend.share for mend in whole.mends])


def test_slices_that_nobody_labelled_are_no_slices_without_a_class():
    labels = long_heart()
    right = annotated(labels, labels, [2, 8]).classes["RV"]
    assert right.gap.numbers == ()
    assert right.worst_slice == 3
    labels[5] = 0
    found = annotated(labels, long_heart(), [2, 5, 8])
    assert found.classes["RV"].gap.numbers == (6,)
    assert found.classes["RV"].gap.weight == pytest.approx(1, abs=0.1)
    assert found.classes[WHOLE].worst_slice == 6
    labels = long_heart()
    labels[8, 36:38, 40:44] = 1
    assert annotated(labels, long_heart(), [2, 5, 8]).classes["RV"].apart_slice == 9


def test_voxels_that_nobody_labelled_say_nothing():
    labels = heart()
    labels[2:4, 10:30, 10:30] = 3
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), labels.shape).transpose(3, 0, 1, 2)
    others = np.where(labels == 3, np.roll(probabilities, 1, 0), probabilities)
    one, other = (
        measure(Opinions.of(labels, said, SPACING, NAMES, ignore=3)) for said in (probabilities, others)
    )
    assert one == other
    assert measure(Opinions.of(np.full_like(labels, 3), others, SPACING, NAMES, ignore=3)).mends == ()


def test_a_structure_does_not_end_where_labels_do():
    """Drawn two voxels too wide; then where the network sees nothing."""
    labels = np.zeros((4, 36, 40), np.int16)
    labels[1:3, 10:26, 10:30] = 1
    seen = np.zeros_like(labels)
    seen[1:3, 12:24, 12:30] = 1
    labels[:, :, 24:] = 3
    found = measure(Opinions.of(labels, sure(seen), SPACING, NAMES, ignore=3))
    assert found.mends[0].words.endswith("looks drawn about 3.0 mm too wide")
    assert found.mends[0].share == pytest.approx(1)
    found = measure(Opinions.of(labels, sure(np.zeros_like(seen)), SPACING, NAMES, ignore=3))
    assert found.classes["RV"].surface_probability == pytest.approx(0.02)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_does_not_shift_onto_what_nobody_labelled(axis: int) -> None:
    """Slices of any axis of an isotropic scan, drawn far too wide."""
    z, y, x = np.ogrid[-12:12, -12:12, -12:12]
    from_middle = np.sqrt(z**2 + y**2 + x**2)
    wide, seen = (from_middle < 8).astype(np.int16), (from_middle < 5).astype(np.int16)
    labels = np.full_like(wide, 3)
    slices = (*[slice(None)] * axis, slice(9, 16, 3))
    labels[slices] = wide[slices]
    mends = measure(Opinions.of(labels, sure(seen), (1, 1, 1), NAMES, ignore=3)).mends
    assert mends[0].kind == "wide"
    assert "shifted" not in [mend.kind for mend in mends]


def test_where_nobody_labelled_nothing_is_drawn_but_what_the_network_says():
    labels = heart()
    labels[3] = 3
    opinions = Opinions.of(labels, sure(heart()), SPACING, NAMES, ignore=3)
    assert not opinions.labels[3].any()
    assert np.array_equal(opinions.predicted, heart())


@settings(max_examples=40)
@given(
    arrays(np.int16, (2, 5, 6), elements=st.integers(0, 3)),
    arrays(np.float32, (3, 2, 5, 6), elements=st.floats(0.015625, 1, width=32)),
)
def test_no_mend_takes_away_more_than_there_is(labels: np.ndarray, raw: np.ndarray) -> None:
    found = measure(Opinions.of(labels, raw / raw.sum(0), SPACING, NAMES, ignore=3))
    assert all(0 < mend.share <= 1 + 1e-6 for mend in found.mends)


def test_a_class_beside_one_that_was_forgotten_is_not_too_narrow():
    """The network prefers either of the two to the background where the outer one is not drawn."""
    y, x = np.mgrid[:64, :64]
    seen = np.zeros((4, 64, 64), np.int16)
    seen[1:3] = np.select([np.hypot(y - 32, x - 32) < 9, np.hypot(y - 32, x - 32) < 14], [2, 1])
    probabilities = np.where(seen == 1, np.array([0.05, 0.75, 0.2])[:, None, None, None], sure(seen))
    labels = np.where(seen == 1, 0, seen)
    labels[1, 32, 41] = 2
    mends = measure(Opinions.of(labels, probabilities, SPACING, NAMES)).mends
    assert ("LV",) not in [mend.classes for mend in mends]


def test_a_structure_that_the_border_cuts_off_is_no_more_shifted_than_another():
    for left in (0, 16):
        seen = np.zeros((4, 40, 48), np.int16)
        seen[1:3, 8:30, left : left + 14] = 1
        wide = seen.copy()
        wide[1:3, 8:30, left + 14 : left + 18] = 1
        mends = measure(Opinions.of(wide, sure(seen), SPACING, NAMES)).mends
        assert "shifted" not in [mend.kind for mend in mends]


@settings(max_examples=40)
@given(
    arrays(np.int16, (2, 5, 6), elements=st.integers(0, 3)),
    arrays(np.float32, (3, 2, 5, 6), elements=st.floats(0.015625, 1, width=32)),
)
def test_of_all_shifts_the_best_is_found(labels: np.ndarray, raw: np.ndarray) -> None:
    opinions = Opinions.of(labels, raw / raw.sum(0), (8, 4, 3), NAMES, ignore=3)
    gain = max(shift_gain(opinions, down, right) for down in range(-2, 3) for right in range(-3, 4))
    shares = [mend.share for mend in measure(opinions).mends if mend.kind == "shifted"]
    assert sum(shares) * opinions.contradiction.sum() == pytest.approx(gain, abs=1e-4)


def shift_gain(opinions: Opinions, down: int, right: int) -> float:
    """Voxel by voxel."""
    gain = 0.0
    for z, y, x in zip(*np.nonzero(opinions.labels), strict=True):
        value = opinions.labels[z, y, x]
        for place, sign in (((z, y + down, x + right), 1), ((z, y, x), -1)):
            inside = 0 <= place[1] < 5 and 0 <= place[2] < 6
            known = inside and opinions.known[place]
            gain += sign * (opinions.costs[0][place] - opinions.costs[value][place] if known else -1)
    return gain


def test_on_fine_pixels_shifts_are_found() -> None:
    labels = np.zeros((1, 150, 200), np.int16)
    labels[:, 50:75, 60:130] = 1
    labels[:, 65:90, 120:150] = 2
    moved = np.roll(labels, (-23, 31), (1, 2))
    found = measure(Opinions.of(moved, sure(labels), (1, 0.01, 0.02), NAMES))
    mend = next(mend for mend in found.mends if mend.kind == "shifted")
    assert "(+31 columns, -23 rows)" in mend.words


@pytest.mark.parametrize("down", [9, 12, 30, 53, -86])
def test_a_thin_layer_is_found_wherever_it_went(down: int) -> None:
    labels = np.zeros((1, 300, 300), np.int16)
    labels[:, 150:156] = 1
    opinions = Opinions.of(np.roll(labels, down, 1), sure(labels), (1, 0.004, 0.012), NAMES)
    mend = measure(opinions).mends[0]
    assert f"shifted by {in_digits(abs(down) * 0.004)} mm (+0 columns, {down:+d} rows)" in mend.words
    assert mend.share == pytest.approx(1)


@pytest.mark.parametrize(
    ("length_mm", "digits"),
    [(12.34, "12.3"), (0.1, "0.1"), (0.036, "0.036"), (0.00123, "0.0012"), (1e-5, "0.0"), (0, "0.0")],
)
def test_short_lengths_keep_their_digits(length_mm: float, digits: str) -> None:
    assert in_digits(length_mm) == digits


@pytest.mark.parametrize("labels", [np.zeros((4, 9, 9), np.int16), np.ones((4, 9, 9), np.int16)])
def test_masks_of_nothing_and_of_everything_are_measured(labels: np.ndarray) -> None:
    for seen in (labels, 1 - labels):
        found = measure(Opinions.of(labels, sure(seen), SPACING, NAMES))
        assert found.classes["RV"].contradiction_mm >= 0
        assert found.classes["LV"].dice is None
        assert found.classes["LV"].surface_probability is None


@given(st.lists(st.floats(0, 1), min_size=1))
def test_the_soft_minimum_lies_between_minimum_and_mean(values: list[float]) -> None:
    assert min(values) - 1e-9 <= soft_minimum(np.array(values)) <= np.mean(values) + 1e-9
