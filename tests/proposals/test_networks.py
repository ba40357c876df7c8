import numpy as np
import pytest

from ccdcseg.proposals.networks import Doubt, doubt_of

LABELS = {"RV": 1, "LV": 2}


@pytest.mark.parametrize("across", [0, 1, 2])
def test_confidence_and_confusion_of_predicted_classes(across: int) -> None:
    scores = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    scores[0, 1] += 9  # nothing is predicted there
    probabilities = np.exp(scores) / np.exp(scores).sum(0)
    found = doubt_of(np.moveaxis(probabilities, 1, across + 1), LABELS, across)
    rows: dict[int, list[np.ndarray]] = {1: [], 2: []}
    slices: list[list[float]] = [[] for _ in range(4)]
    for place in np.ndindex(4, 5, 6):
        voxel = probabilities[(slice(None), *place)]
        if voxel.argmax():
            rows[int(voxel.argmax())].append(voxel)
            slices[place[0]].append(float(voxel.max()))
    means = {value: np.mean(voxels, axis=0) for value, voxels in rows.items()}
    names = ["background", "RV", "LV"]
    for name, value in LABELS.items():
        assert np.isclose(found.confidence[name], means[value][value], atol=1e-5)
        other = max({0, 1, 2} - {value}, key=lambda number: means[value][number])
        assert found.confused[name][0] == names[other]
        assert np.isclose(found.confused[name][1], means[value][other], atol=1e-5)
    assert np.isclose(found.sure, np.mean([means[1][1], means[2][2]]), atol=1e-5)
    expected = [np.mean(values) if values else None for values in slices]
    assert expected[1] is None
    assert found.slices == tuple(None if one is None else pytest.approx(one, abs=1e-5) for one in expected)


def test_nothing_is_predicted() -> None:
    probabilities = np.zeros((3, 2, 3, 4), np.float32)
    probabilities[0] = 1
    found = doubt_of(probabilities, LABELS, 0)
    assert found == Doubt({}, {}, (None, None))
    assert (found.sure, found.words) == (0.0, "the network finds no structure")


def test_one_class_is_predicted() -> None:
    probabilities = np.zeros((3, 1, 1, 2), np.float32)
    probabilities[:, 0, 0] = np.array([[0.25, 0.6, 0.15], [0.9, 0.1, 0]]).T
    assert doubt_of(probabilities, LABELS, 0).words == "class confidence 0.60: RV 0.60 (0.25 on background)"
