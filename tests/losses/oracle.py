"""The CCDC loss in plain Python loops: slow, literal, and independent of `ccdcseg.losses`.

Written from the equations of Chen et al., Pattern Recognition 145 (2024) 109881, Sections 3.1 to 3.6. What is
random (which pixels are drawn) is an argument, what is determined is computed, so the real loss can be
checked number by number on what it drew.

A pixel is known by its index among the valid (not ignored) pixels, counted in row-major order over batch and
space, or by its position `(batch, *space)`; `valid_pixels` gives both. `n_classes` includes the background.
All arithmetic is in double precision.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

Vector = list[float]
Position = tuple[int, ...]
Head = Callable[[Vector], Vector]
FeatureAt = Callable[[Position], Vector]
Fill = Literal["without_replacement_fill", "with_replacement", "short"]
QueryStrategy = Literal["dynamic", "fixed", "easy", "hard", "easy_to_hard"]
NegativeStrategy = Literal["random", "uniform", "dynamic"]
Combination = Literal["mean", "concatenate"]
Denominator = Literal["pixel", "class_mean"]
QueryReduction = Literal["mean", "hardest", "set"]
Average = Literal["query_classes", "all_classes"]


@dataclass(frozen=True)
class Draw:
    """Positions of the pixels drawn for one query class: its core, its queries, its negatives by class."""

    core: Sequence[Position]
    queries: Sequence[Position]
    negatives: Mapping[int, Sequence[Position]]


# Pixels


def at(nested: Any, position: Position) -> Any:
    """The element of nested lists at a position."""
    for index in position:
        nested = nested[index]
    return nested


def channels_at(maps: Any, position: Position) -> Vector:
    """The channel vector at `(batch, *space)` of maps nested as `[batch][channel][*space]`."""
    batch, *space = position
    return [float(at(channel, tuple(space))) for channel in maps[batch]]


def softmax(row: Vector) -> Vector:
    largest = max(row)
    exponentials = [math.exp(value - largest) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def valid_pixels(
    logits: Any, target: Any, shape: Position, ignore_label: int | None = None
) -> tuple[list[Position], list[Vector], list[int]]:
    """Positions, softmax probabilities and labels of the pixels that are not ignored, in row-major order.

    Args:
        logits: Nested lists `[batch][class][*space]`.
        target: Nested lists `[batch][*space]` of labels.
        shape: `(batch, *space)`.
        ignore_label: The label of pixels that take no part.
    """
    positions = [
        position
        for position in product(*(range(size) for size in shape))
        if at(target, position) != ignore_label
    ]
    probabilities = [softmax(channels_at(logits, position)) for position in positions]
    labels = [int(at(target, position)) for position in positions]
    return positions, probabilities, labels


def pixels_of(labels: list[int], label: int) -> list[int]:
    """I_A: the indices of the pixels labelled A."""
    return [index for index, other in enumerate(labels) if other == label]


# Class confidence and confusion (Eq. 1 and 4)


def confusion_matrix(probabilities: list[Vector], labels: list[int], n_classes: int) -> list[Vector | None]:
    """Row A: the mean probability vector of the pixels labelled A; None where no pixel is."""
    matrix: list[Vector | None] = []
    for label in range(n_classes):
        pixels = pixels_of(labels, label)
        if not pixels:
            matrix.append(None)
            continue
        row = []
        for other in range(n_classes):
            total = 0.0
            for pixel in pixels:
                total += probabilities[pixel][other]
            row.append(total / len(pixels))
        matrix.append(row)
    return matrix


# Core (Eq. 2)


def core_pixels(
    probabilities: list[Vector], labels: list[int], label: int, high_threshold: float
) -> list[int]:
    """The indices of the pixels labelled A with p^A strictly above the high threshold t_h."""
    return [pixel for pixel in pixels_of(labels, label) if probabilities[pixel][label] > high_threshold]


# Queries (Eq. 3, Section 3.3)


def threshold(confidence: float) -> float:
    """T_A = 1 - D_A."""
    return 1.0 - confidence


def split_easy_hard(
    probabilities: list[Vector], labels: list[int], label: int, boundary: float
) -> tuple[list[int], list[int]]:
    """The pixels labelled A with p^A strictly above the threshold (easy), and the rest (hard)."""
    easy: list[int] = []
    hard: list[int] = []
    for pixel in pixels_of(labels, label):
        (easy if probabilities[pixel][label] > boundary else hard).append(pixel)
    return easy, hard


def hard_share(strategy: QueryStrategy, confidence: float, progress: float = 0.0) -> float:
    """The share of hard queries: D_A (dynamic), or one of the alternatives of Tables 4 and 5."""
    shares = {"dynamic": confidence, "fixed": 0.5, "easy": 0.0, "hard": 1.0, "easy_to_hard": progress}
    return shares[strategy]


def query_counts(share: float, n_queries: int, n_easy: int, n_hard: int, fill: Fill) -> tuple[int, int]:
    """How many easy and hard queries are drawn.

    Args:
        share: The share of hard queries, D_A in the paper; the product with `n_queries` is rounded half up.
        n_queries: N, the queries wanted.
        n_easy: Easy pixels there are.
        n_hard: Hard pixels there are.
        fill: What happens where a subset is smaller than its share.

    Returns:
        (number of easy queries, number of hard queries).
    """
    want_hard = math.floor(share * n_queries + 0.5)
    want_easy = n_queries - want_hard
    if fill == "with_replacement":
        if n_easy == 0 and n_hard == 0:
            return 0, 0
        if n_easy == 0:
            return 0, n_queries
        if n_hard == 0:
            return n_queries, 0
        return want_easy, want_hard
    easy, hard = min(want_easy, n_easy), min(want_hard, n_hard)
    if fill == "short":
        return easy, hard
    return easy + min(want_hard - hard, n_easy - easy), hard + min(want_easy - easy, n_hard - hard)


# Negatives (Section 3.4, Table 6)


def negative_weights(
    strategy: NegativeStrategy, label: int, matrix: list[Vector | None], class_sizes: list[int]
) -> list[float | None]:
    """The weight of every class among the negatives of A; None for A itself and for absent classes."""
    row = matrix[label]
    if row is None:
        raise ValueError(f"class {label} has no pixel")
    weights: list[float | None] = []
    for other, size in enumerate(class_sizes):
        if other == label or size == 0:
            weights.append(None)
        elif strategy == "random":
            weights.append(float(size))
        elif strategy == "uniform":
            weights.append(1.0)
        else:
            weights.append(row[other])
    return weights


def negative_counts(weights: Sequence[float | None], n_negatives: int) -> list[int]:
    """Negatives per class by largest remainder, ties to the lowest class index.

    A weight of None takes no part, so its share goes to the others in proportion. Where every weight that
    takes part is zero, all of them count the same; where none takes part, all counts are zero.
    """
    counts = [0] * len(weights)
    shares = {index: weight for index, weight in enumerate(weights) if weight is not None}
    if not shares:
        return counts
    if sum(shares.values()) == 0:
        shares = dict.fromkeys(shares, 1.0)
    total = sum(shares.values())
    quotas = {index: share * n_negatives / total for index, share in shares.items()}
    for index, quota in quotas.items():
        counts[index] = math.floor(quota)
    by_remainder = sorted(quotas, key=lambda index: (counts[index] - quotas[index], index))
    for index in by_remainder[: n_negatives - sum(counts)]:
        counts[index] += 1
    return counts


# Representations (Section 3.5, Figure 5, Table 7)


def region_offsets(pixels: Literal[1, 2, 4, 8], stride: int, ndim: int) -> list[Position]:
    """Spatial offsets of a region: the pixel, then horizontal, vertical, diagonal, then the same a slice on.

    1 is the pixel; 2 adds the neighbour on the last axis; 4 is the 2x2 block on the last two axes; 8 is the
    2x2x2 block (3-D only).
    """
    if ndim not in (2, 3) or (pixels == 8 and ndim != 3):
        raise ValueError(f"no region of {pixels} pixels in {ndim} dimensions")
    sides = {1: (1, 1, 1), 2: (1, 1, 2), 4: (1, 2, 2), 8: (2, 2, 2)}[pixels]
    steps = [[step * stride for step in range(side)] for side in sides]
    return [offset[3 - ndim :] for offset in product(*steps)]


def region(
    position: Position, offsets: list[Position], shape: Position, ignored: Collection[Position] = ()
) -> list[Position]:
    """The positions of a region; beyond the border, the nearest pixel inside; for an ignored one, its own pixel."""
    batch, *space = position
    pixels = []
    for offset in offsets:
        moved = [
            min(index + step, size - 1) for index, step, size in zip(space, offset, shape[1:], strict=True)
        ]
        neighbour = (batch, *moved)
        pixels.append(position if neighbour in ignored else neighbour)
    return pixels


def linear(vector: Vector, weight: list[Vector], bias: Vector) -> Vector:
    """weight @ vector + bias, the weight as rows, one per output."""
    outputs = []
    for row, offset in zip(weight, bias, strict=True):
        total = offset
        for value, factor in zip(vector, row, strict=True):
            total += value * factor
        outputs.append(total)
    return outputs


def project(vector: Vector, w1: list[Vector], b1: Vector, w2: list[Vector], b2: Vector) -> Vector:
    """The projection head h -> z: linear, ReLU, linear."""
    hidden = [max(value, 0.0) for value in linear(vector, w1, b1)]
    return linear(hidden, w2, b2)


def dot(first: Vector, second: Vector) -> float:
    total = 0.0
    for left, right in zip(first, second, strict=True):
        total += left * right
    return total


def normalise(vector: Vector) -> Vector:
    """The vector divided by its L2 norm; a zero vector stays zero."""
    norm = math.sqrt(dot(vector, vector))
    return [value / norm for value in vector] if norm > 0 else list(vector)


def mean_vector(vectors: list[Vector]) -> Vector:
    return [sum(values) / len(vectors) for values in zip(*vectors, strict=True)]


def represent(
    position: Position,
    feature_at: FeatureAt,
    head: Head,
    offsets: list[Position],
    shape: Position,
    combination: Combination,
    ignored: Collection[Position] = (),
) -> Vector:
    """The region representation of a pixel: project every pixel of the region, combine, L2-normalise.

    Args:
        position: `(batch, *space)`.
        feature_at: Gives the decoder feature at a position.
        head: The projection head.
        offsets: Spatial offsets of the region.
        shape: `(batch, *space)` of the feature map.
        combination: Mean of the projections, or their concatenation in the order of the offsets.
        ignored: Positions of pixels that take no part.
    """
    projections = [head(feature_at(pixel)) for pixel in region(position, offsets, shape, ignored)]
    if combination == "concatenate":
        return normalise([value for projection in projections for value in projection])
    return normalise(mean_vector(projections))


def core_representation(representations: list[Vector]) -> Vector:
    """Eq. 2: the mean of the normalised representations of the core pixels, L2-normalised."""
    return normalise(mean_vector(representations))


# The loss (Eq. 5 to 7)


def negative_term(query: Vector, negatives: list[Vector], tau: float, denominator: Denominator) -> float:
    """S_c(q): what one class adds to the denominator; a class without a drawn pixel adds nothing."""
    if not negatives:
        return 0.0
    similarities = [dot(query, negative) / tau for negative in negatives]
    if denominator == "class_mean":
        return math.exp(sum(similarities) / len(similarities))
    return sum(math.exp(similarity) for similarity in similarities)


def query_loss(
    query: Vector,
    core: Vector,
    negatives_by_class: Mapping[int, list[Vector]],
    tau: float,
    denominator: Denominator,
) -> float:
    """l(q) = -log(exp(q.k / tau) / (exp(q.k / tau) + sum over c of S_c(q)))."""
    positive = math.exp(dot(query, core) / tau)
    negative = 0.0
    for negatives in negatives_by_class.values():
        negative += negative_term(query, negatives, tau, denominator)
    return -math.log(positive / (positive + negative))


def set_loss(
    queries: list[Vector],
    core: Vector,
    negatives_by_class: Mapping[int, list[Vector]],
    tau: float,
    denominator: Denominator,
) -> float:
    """-log of one softmax a class: the least similarity to the core, the mean one of all queries to a negative."""
    positive = math.exp(min(dot(query, core) for query in queries) / tau)
    negative = 0.0
    for vectors in negatives_by_class.values():
        means = [sum(dot(query, vector) for query in queries) / len(queries) for vector in vectors]
        if denominator == "pixel":
            negative += sum(math.exp(value / tau) for value in means)
        elif means:
            negative += math.exp(sum(means) / len(means) / tau)
    return -math.log(positive / (positive + negative))


def class_loss(
    queries: list[Vector],
    core: Vector,
    negatives_by_class: Mapping[int, list[Vector]],
    tau: float,
    denominator: Denominator,
    query_reduction: QueryReduction,
) -> float:
    """L_A: the mean over the queries, the loss of the (first) query least similar to the core, or of their set."""
    if query_reduction == "set":
        return set_loss(queries, core, negatives_by_class, tau, denominator)
    losses = [query_loss(query, core, negatives_by_class, tau, denominator) for query in queries]
    if query_reduction == "hardest":
        similarities = [dot(query, core) for query in queries]
        return losses[similarities.index(min(similarities))]
    return sum(losses) / len(losses)


def ccdc_loss(
    draws: Mapping[int, Draw],
    n_classes: int,
    representation_at: FeatureAt,
    tau: float,
    denominator: Denominator = "pixel",
    query_reduction: QueryReduction = "mean",
    average: Average = "query_classes",
) -> float:
    """L_CCDC on given draws.

    A class takes part if it has core pixels and queries. Without such a class the loss is zero; a class that
    takes part without any negative adds zero and still counts in the mean.

    Args:
        draws: What was drawn, by class; classes that are left out take no part.
        n_classes: C.
        representation_at: Gives the normalised region representation at a position, see `represent`.
        tau: Temperature.
        denominator: Form of S_c.
        query_reduction: Over the queries of a class.
        average: Divide by the number of classes that take part, or by C.
    """
    losses = []
    for draw in draws.values():
        if not draw.core or not draw.queries:
            continue
        core = core_representation([representation_at(position) for position in draw.core])
        queries = [representation_at(position) for position in draw.queries]
        negatives = {
            label: [representation_at(position) for position in positions]
            for label, positions in draw.negatives.items()
        }
        losses.append(class_loss(queries, core, negatives, tau, denominator, query_reduction))
    if not losses:
        return 0.0
    return sum(losses) / (len(losses) if average == "query_classes" else n_classes)
