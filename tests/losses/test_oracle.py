"""The oracle itself, against numbers worked out by hand."""

import math
import sys
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import oracle
from oracle import Draw, Vector

PROBABILITIES = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]
LABELS = [0, 0, 1]

HALF = math.sqrt(0.5)
X, Y = [1.0, 0.0], [0.0, 1.0]


def test_softmax_is_proportional_to_the_exponentials() -> None:
    # exp: 1, 2, 5; sum 8.
    assert oracle.softmax([0.0, math.log(2), math.log(5)]) == pytest.approx([0.125, 0.25, 0.625])


def test_softmax_of_large_logits_is_finite() -> None:
    assert oracle.softmax([1000.0, 1000.0]) == [0.5, 0.5]


def test_valid_pixels_leaves_out_the_ignored_and_counts_row_major() -> None:
    # One image of 2x2 with two classes: channel 0 is zero everywhere, channel 1 has log(1, 3, 1, 4).
    logits = [[[[0.0, 0.0], [0.0, 0.0]], [[0.0, math.log(3)], [0.0, math.log(4)]]]]
    target = [[[1, 0], [255, 1]]]
    positions, probabilities, labels = oracle.valid_pixels(logits, target, (1, 2, 2), ignore_label=255)
    assert positions == [(0, 0, 0), (0, 0, 1), (0, 1, 1)]
    assert labels == [1, 0, 1]
    # 1/(1+1), 3/(1+3), 4/(1+4)
    assert [row[1] for row in probabilities] == pytest.approx([0.5, 0.75, 0.8])


def test_confusion_matrix_averages_within_the_labelled_class() -> None:
    matrix = oracle.confusion_matrix(PROBABILITIES, LABELS, n_classes=3)
    assert matrix[0] == pytest.approx([0.7, 0.2, 0.1])  # (0.8 + 0.6)/2, (0.1 + 0.3)/2, (0.1 + 0.1)/2
    assert matrix[1] == pytest.approx([0.2, 0.7, 0.1])
    assert matrix[2] is None


def test_core_pixels_lie_strictly_above_the_high_threshold() -> None:
    probabilities = [[0.97, 0.03], [0.98, 0.02], [0.99, 0.01], [0.01, 0.99]]
    labels = [0, 0, 1, 1]  # the third is sure, and of the other class
    assert oracle.core_pixels(probabilities, labels, 0, 0.97) == [1]
    assert oracle.core_pixels(probabilities, labels, 1, 0.97) == [3]


def test_threshold_of_the_papers_example() -> None:
    assert oracle.threshold(0.3) == pytest.approx(0.7)


def test_split_puts_the_boundary_among_the_hard() -> None:
    probabilities = [[0.75, 0.25], [0.76, 0.24], [0.1, 0.9], [0.9, 0.1]]
    assert oracle.split_easy_hard(probabilities, [0, 0, 0, 1], 0, 0.75) == ([1], [0, 2])


@pytest.mark.parametrize(
    ("strategy", "share"),
    [("dynamic", 0.3), ("fixed", 0.5), ("easy", 0.0), ("hard", 1.0), ("easy_to_hard", 0.9)],
)
def test_hard_share_of_each_strategy(strategy: oracle.QueryStrategy, share: float) -> None:
    assert oracle.hard_share(strategy, confidence=0.3, progress=0.9) == share


@pytest.mark.parametrize(
    ("share", "n", "counts"),
    [
        (0.3, 256, (179, 77)),  # 76.8 -> 77
        (0.5, 5, (2, 3)),  # 2.5 is rounded up
        (0.25, 2, (1, 1)),  # 0.5 is rounded up
        (0.0, 256, (256, 0)),
        (1.0, 256, (0, 256)),
    ],
)
@pytest.mark.parametrize("fill", ["without_replacement_fill", "with_replacement", "short"])
def test_query_counts_with_enough_pixels(
    share: float, n: int, counts: tuple[int, int], fill: oracle.Fill
) -> None:
    assert oracle.query_counts(share, n, 1000, 1000, fill) == counts


@pytest.mark.parametrize(
    ("easy", "hard", "filled", "replaced", "short"),
    [  # 10 queries, share 0.3: 7 easy and 3 hard are wanted
        (4, 20, (4, 6), (7, 3), (4, 3)),
        (20, 1, (9, 1), (7, 3), (7, 1)),
        (4, 2, (4, 2), (7, 3), (4, 2)),
        (8, 1, (8, 1), (7, 3), (7, 1)),
        (0, 20, (0, 10), (0, 10), (0, 3)),
        (20, 0, (10, 0), (10, 0), (7, 0)),
        (0, 2, (0, 2), (0, 10), (0, 2)),
        (0, 0, (0, 0), (0, 0), (0, 0)),
    ],
)
def test_query_counts_with_too_few_pixels(
    easy: int, hard: int, filled: tuple[int, int], replaced: tuple[int, int], short: tuple[int, int]
) -> None:
    assert oracle.query_counts(0.3, 10, easy, hard, "without_replacement_fill") == filled
    assert oracle.query_counts(0.3, 10, easy, hard, "with_replacement") == replaced
    assert oracle.query_counts(0.3, 10, easy, hard, "short") == short


def test_negative_weights_of_each_strategy() -> None:
    matrix: list[Vector | None] = [[0.5, 0.2, 0.1, 0.2], [0.3, 0.4, 0.3, 0.0], None, [0.1, 0.1, 0.1, 0.7]]
    sizes = [50, 30, 0, 20]
    assert oracle.negative_weights("dynamic", 0, matrix, sizes) == [None, 0.2, None, 0.2]
    assert oracle.negative_weights("uniform", 0, matrix, sizes) == [None, 1.0, None, 1.0]
    assert oracle.negative_weights("random", 1, matrix, sizes) == [50.0, None, None, 20.0]


@pytest.mark.parametrize(
    ("weights", "n", "counts"),
    [
        # The paper's Figure 4: 153.6, 64, 38.4 -> floors 153, 64, 38 leave one, to the remainder 0.6.
        ([0.6, 0.25, 0.15], 256, [154, 64, 38]),
        # The same when the weights do not sum to one, as a row without its own class does not.
        ([None, 0.3, 0.125, 0.075], 256, [0, 154, 64, 38]),
        # The second is absent: 0.6/0.75 * 256 = 204.8, 0.15/0.75 * 256 = 51.2.
        ([0.6, None, 0.15], 256, [205, 0, 51]),
        ([1.0, 1.0, 1.0], 4, [2, 1, 1]),  # 1.33 each, one left, to the lowest index
        ([1.0, 1.0, 1.0], 5, [2, 2, 1]),
        ([0.25, 0.25, 0.5], 2, [1, 0, 1]),  # 0.5, 0.5, 1.0: one left, to the lower of the equals
        ([0.0, 1.0], 7, [0, 7]),
        ([0.0, None, 0.0], 5, [3, 0, 2]),  # no confusion at all: all present classes the same
        ([None, None], 5, [0, 0]),
    ],
)
def test_negative_counts_by_largest_remainder(weights: list[float | None], n: int, counts: list[int]) -> None:
    assert oracle.negative_counts(weights, n) == counts


@pytest.mark.parametrize(
    ("pixels", "stride", "ndim", "offsets"),
    [
        (1, 1, 2, [(0, 0)]),
        (2, 1, 2, [(0, 0), (0, 1)]),
        (4, 2, 2, [(0, 0), (0, 2), (2, 0), (2, 2)]),
        (2, 2, 3, [(0, 0, 0), (0, 0, 2)]),
        (4, 1, 3, [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]),
        (
            8,
            1,
            3,
            [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)],
        ),
    ],
)
def test_region_offsets(
    pixels: Literal[1, 2, 4, 8], stride: int, ndim: int, offsets: list[tuple[int, ...]]
) -> None:
    assert oracle.region_offsets(pixels, stride, ndim) == offsets


def test_a_cube_has_no_place_in_two_dimensions() -> None:
    with pytest.raises(ValueError, match="8 pixels in 2"):
        oracle.region_offsets(8, 1, 2)


def test_a_region_is_clamped_at_the_border_of_its_own_image() -> None:
    block = oracle.region_offsets(4, 2, 2)
    # Rows 0..3, columns 0..4; from (2, 4): column 6 -> 4, row 4 -> 3.
    assert oracle.region((1, 2, 4), block, (3, 4, 5)) == [(1, 2, 4), (1, 2, 4), (1, 3, 4), (1, 3, 4)]
    assert oracle.region((1, 1, 1), block, (3, 4, 5)) == [(1, 1, 1), (1, 1, 3), (1, 3, 1), (1, 3, 3)]


def test_a_region_holds_its_pixel_where_a_neighbour_is_ignored() -> None:
    pair = oracle.region_offsets(2, 1, 2)
    assert oracle.region((0, 0, 0), pair, (1, 1, 3), {(0, 0, 1)}) == [(0, 0, 0), (0, 0, 0)]


def test_project_is_linear_relu_linear() -> None:
    # Hidden: 2, -3 + 1 = -2 -> 0. Output: 1*2 + 5*0 + 1 = 3; 2*2 + 5*0 - 1 = 3; -1*2 + 0 + 0 = -2 (no ReLU).
    z = oracle.project(
        [2.0, 3.0],
        [[1.0, 0.0], [0.0, -1.0]],
        [0.0, 1.0],
        [[1.0, 5.0], [2.0, 5.0], [-1.0, 5.0]],
        [1.0, -1.0, 0.0],
    )
    assert z == [3.0, 3.0, -2.0]


def test_normalise_leaves_a_zero_vector_zero() -> None:
    assert oracle.normalise([3.0, -4.0]) == pytest.approx([0.6, -0.8])
    assert oracle.normalise([0.0, 0.0]) == [0.0, 0.0]


# One image of 1x3: features (1, 0), (0, 3), (0, 0), as nested lists [batch][channel][row][column].
ROW_OF_THREE = [[[[1.0, 0.0, 0.0]], [[0.0, 3.0, 0.0]]]]
IDENTITY = partial(oracle.project, w1=[X, Y], b1=[0.0, 0.0], w2=[X, Y], b2=[0.0, 0.0])


def test_represent_averages_the_projections_before_it_normalises() -> None:
    # (1, 0) and (0, 3): mean (0.5, 1.5), norm sqrt(2.5). Normalising first would give equal entries.
    z = oracle.represent(
        (0, 0, 0),
        partial(oracle.channels_at, ROW_OF_THREE),
        IDENTITY,
        oracle.region_offsets(2, 1, 2),
        (1, 1, 3),
        "mean",
    )
    assert z == pytest.approx([0.5 / math.sqrt(2.5), 1.5 / math.sqrt(2.5)])


def test_represent_concatenates_in_the_order_of_the_offsets() -> None:
    z = oracle.represent(
        (0, 0, 0),
        partial(oracle.channels_at, ROW_OF_THREE),
        IDENTITY,
        oracle.region_offsets(2, 1, 2),
        (1, 1, 3),
        "concatenate",
    )
    assert z == pytest.approx([1 / math.sqrt(10), 0.0, 0.0, 3 / math.sqrt(10)])


def test_represent_projects_each_pixel_before_it_averages() -> None:
    # Hidden layer x - 2: (1, 0) -> (-1, -2) -> (0, 0); (0, 3) -> (-2, 1) -> (0, 1). Mean (0, 0.5) -> (0, 1).
    # Averaging the features first would give (0.5, 1.5) - 2 -> (0, 0).
    head = partial(oracle.project, w1=[X, Y], b1=[-2.0, -2.0], w2=[X, Y], b2=[0.0, 0.0])
    z = oracle.represent(
        (0, 0, 0),
        partial(oracle.channels_at, ROW_OF_THREE),
        head,
        oracle.region_offsets(2, 1, 2),
        (1, 1, 3),
        "mean",
    )
    assert z == [0.0, 1.0]


def test_core_representation_is_a_unit_vector() -> None:
    # Mean (0.5, 0.5) of length sqrt(0.5).
    assert oracle.core_representation([X, Y]) == pytest.approx([HALF, HALF])


NEGATIVES = {1: [Y, [-1.0, 0.0]], 2: [Y]}


@pytest.mark.parametrize(
    ("denominator", "loss"),
    [
        # q = k = (1, 0), tau = 0.5: similarities over tau are 2 (core); 0, -2 (class 1); 0 (class 2).
        # e^2 + 1 + e^-2 + 1 = 7.389056 + 2.135335 = 9.524391; its log 2.253856.
        ("pixel", 0.253856),
        # e^2 + e^((0 - 2)/2) + e^0 = 7.389056 + 0.367879 + 1 = 8.756935; its log 2.169846.
        ("class_mean", 0.169846),
    ],
)
def test_query_loss_of_each_denominator(denominator: oracle.Denominator, loss: float) -> None:
    assert oracle.query_loss(X, X, NEGATIVES, 0.5, denominator) == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("denominator", ["pixel", "class_mean"])
def test_a_class_without_drawn_pixels_adds_nothing(denominator: oracle.Denominator) -> None:
    with_empty = oracle.query_loss(X, X, {**NEGATIVES, 3: []}, 0.5, denominator)
    assert with_empty == oracle.query_loss(X, X, NEGATIVES, 0.5, denominator)
    assert oracle.query_loss(X, X, {}, 0.5, denominator) == 0.0


def test_identical_representations_give_the_log_of_the_number_of_terms() -> None:
    # The core and 5 negatives are all the query itself: six equal terms.
    negatives = {1: [X, X, X], 2: [X, X]}
    assert oracle.query_loss(X, X, negatives, 0.07, "pixel") == pytest.approx(math.log(6))
    assert oracle.query_loss(X, X, negatives, 0.07, "class_mean") == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("reduction", "loss"),
    [
        # tau = 1, one negative (0, 1). q = (1, 0): log(1 + e^(0 - 1)) = log 1.367879 = 0.313262.
        # q = (0, 1), the less similar to the core: log(1 + e^(1 - 0)) = log 3.718282 = 1.313262.
        ("mean", 0.813262),
        ("hardest", 1.313262),
        # The least similarity to the core is 0, the mean one to the negative 1/2: log(1 + e^0.5) = 0.974077.
        ("set", 0.974077),
    ],
)
def test_class_loss_of_each_reduction(reduction: oracle.QueryReduction, loss: float) -> None:
    assert oracle.class_loss([X, Y], X, {1: [Y]}, 1.0, "pixel", reduction) == pytest.approx(loss, abs=1e-6)


def test_the_hardest_query_is_the_least_similar_not_the_one_of_the_greatest_loss() -> None:
    # Core (1, 0), negative (0, 1), tau = 1. q = (0, -1): similarity 0, loss log(1 + e^-1) = 0.313262.
    # q = (1, 1)/sqrt 2: similarity 0.707, loss log(1 + e^0) = 0.693147.
    loss = oracle.class_loss([[HALF, HALF], [0.0, -1.0]], X, {1: [Y]}, 1.0, "pixel", "hardest")
    assert loss == pytest.approx(0.313262, abs=1e-6)


# Three pixels of one row: class 0 at (1, 0), class 1 at (0, 1), class 0 at (0, 1).
REPRESENTATIONS: dict[tuple[int, ...], Vector] = {(0, 0, 0): X, (0, 0, 1): Y, (0, 0, 2): Y}


def test_ccdc_loss_averages_over_query_classes_or_all_classes() -> None:
    # tau = 1. Class 0: core (1, 0), queries (1, 0) and (0, 1), negative (0, 1): 0.813262, as above.
    # Class 1: core (0, 1), query (0, 1), negatives (1, 0) and (0, 1): log(1 + e^-1 + e^0) = 0.861995.
    # Class 2 has queries and no core, class 3 a core and no queries: they take no part.
    draws = {
        0: Draw([(0, 0, 0)], [(0, 0, 0), (0, 0, 2)], {1: [(0, 0, 1)]}),
        1: Draw([(0, 0, 1)], [(0, 0, 1)], {0: [(0, 0, 0), (0, 0, 2)]}),
        2: Draw([], [(0, 0, 0)], {1: [(0, 0, 1)]}),
        3: Draw([(0, 0, 0)], [], {1: [(0, 0, 1)]}),
    }
    total = 0.813262 + 0.861995
    loss = partial(oracle.ccdc_loss, draws, 4, REPRESENTATIONS.__getitem__, 1.0)
    assert loss() == pytest.approx(total / 2, abs=1e-6)
    assert loss(average="all_classes") == pytest.approx(total / 4, abs=1e-6)


def test_ccdc_loss_without_a_query_class_is_zero() -> None:
    assert oracle.ccdc_loss({}, 4, REPRESENTATIONS.__getitem__, 0.5) == 0.0
    assert oracle.ccdc_loss({0: Draw([], [(0, 0, 0)], {})}, 4, REPRESENTATIONS.__getitem__, 0.5) == 0.0


def test_a_query_class_without_negatives_adds_zero_and_counts() -> None:
    alone = Draw([(0, 0, 0)], [(0, 0, 2)], {})
    assert oracle.ccdc_loss({0: alone}, 2, REPRESENTATIONS.__getitem__, 0.5) == 0.0
    both = {0: alone, 1: Draw([(0, 0, 1)], [(0, 0, 1)], {0: [(0, 0, 0), (0, 0, 2)]})}
    assert oracle.ccdc_loss(both, 2, REPRESENTATIONS.__getitem__, 1.0) == pytest.approx(
        0.861995 / 2, abs=1e-6
    )
