"""Every wrong voxel has one kind, and the kind that its definition says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import errors

VOLUMES = arrays(np.int64, (3, 9, 9), elements=st.integers(0, 2))


@given(VOLUMES, VOLUMES)
def test_every_wrong_voxel_has_one_kind(reference, prediction):
    ours, theirs = reference == 1, prediction == 1
    kinds = errors.wrong_voxels(ours, theirs, errors.within(reference > 0, 3))
    assert list(kinds) == list(errors.KINDS)
    assert (sum(mask.astype(int) for mask in kinds.values()) == (ours ^ theirs)).all()


def test_kinds_of_a_structure_that_is_known():
    reference, prediction = np.zeros((2, 4, 40, 40), int)
    reference[1:3, 5:20, 5:20] = 1
    prediction[1, 5:20, 5:20] = 1
    prediction[0, 10:15, 10:15] = 1  # above the structure's end, attached
    prediction[1, 8:12, 20] = 1  # at the outline
    prediction[1, 9:11, 21:27] = 1  # farther out, attached: four of six columns are beyond two pixels
    prediction[1, 10, 10] = 0  # a hole deep inside
    prediction[1, 30:35, 30:35] = 1  # an island
    kinds = errors.wrong_voxels(reference == 1, prediction == 1, errors.within(reference > 0, 3))
    counts = {kind: np.count_nonzero(mask) for kind, mask in kinds.items()}
    assert counts == {
        "island": 25,
        "beyond": 25,
        "missed slice": 225,
        "outline": 4 + 2 * 1,
        "inside": 1,
        "outside": 2 * 5,
    }


def test_the_base_is_the_end_with_more_heart():
    heart = np.zeros((7, 5, 5), bool)
    for plane, width in enumerate((0, 1, 2, 3, 4, 5)):
        heart[plane, :width, :width] = True
    assert {name: part.tolist() for name, part in errors.thirds(heart).items()} == {
        "base": [5, 4], "middle": [3, 2], "apex": [1],
    }  # fmt: skip


def test_scores_of_a_scan_without_errors():
    labels = {"RV": 1, "Myo": 2}
    reference = np.zeros((6, 8, 8), int)
    reference[:, 2:5, 2:5] = 1
    scores = errors.scan_scores(reference, reference, labels)
    assert {key[0] for key in scores} == {"RV"}
    assert all(value == (100 if what == "dice" else 0) for (_, what, _), value in scores.items())
