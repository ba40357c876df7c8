from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccdcseg.datasets.cases import Case
from ccdcseg.errors import UserError
from ccdcseg.files import write_json
from ccdcseg.nnunet import ensemble
from ccdcseg.proposals.features import ScanFiles
from ccdcseg.proposals.networks import Doubt, doubt_of, doubts
from ccdcseg.provenance import Source

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


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs that are pretended: their checkpoint is the number of their network."""
    folders = [tmp_path / "model" / f"fold_{number}" for number in range(2)]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "checkpoint_final.pth").write_text(str(number))
    labels = {"background": 0, **LABELS, "ignore": 3}
    described = {"labels": labels, "channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"}
    write_json(tmp_path / "model" / "dataset.json", described)
    write_json(tmp_path / "model" / "plans.json", {"configurations": {}})
    return folders


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_a_run_whose_reader_turns_scans_is_refused(
    half_annotated: Path, tmp_path: Path, runs: list[Path], reader: str
) -> None:
    content = {"configurations": {}, "image_reader_writer": reader}
    write_json(tmp_path / "model" / "plans.json", content)
    with pytest.raises(UserError, match=rf"fold_0 was trained with {reader}, which turns scans.*Name a run"):
        doubts(runs, [], half_annotated, "cpu", tmp_path / "cache", lambda *_: None)
    write_json(tmp_path / "model" / "plans.json", content | {"image_reader_writer": "NibabelIO"})
    assert doubts(runs, [], half_annotated, "cpu", tmp_path / "cache", lambda *_: None) == []


def test_several_networks_speak_by_their_mean(
    half_annotated: Path, tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they said of a scan is kept until scan or networks are others."""
    names = ["q1_ED", "q1_ES"]
    files = [(half_annotated / "imagesTs" / f"{name}_0000.nii.gz",) for name in names]
    scans = [ScanFiles(Case(name, name, "", ""), paths) for name, paths in zip(names, files, strict=True)]
    votes = np.random.default_rng(0).dirichlet(np.ones(3), (2, 2, 8, 20, 24)).astype(np.float32)
    votes = np.moveaxis(votes, -1, 2)
    asked: list[tuple[int, int]] = []

    def say(networks: list[int], images: tuple[Path, ...]) -> Any:
        scan = files.index(images)
        asked.extend((network, scan) for network in networks)
        return votes[networks, scan].mean(0)

    monkeypatch.setattr(ensemble, "build_predictor", lambda folder, _: int(folder.name[-1]))
    monkeypatch.setattr(ensemble, "scan_probabilities", say)
    monkeypatch.setattr(
        ensemble,
        "prediction_sources",
        lambda folders, images, _: {
            "images": Source(tuple(images)),
            "model": Source(tuple(folder / "checkpoint_final.pth" for folder in folders)),
        },
    )

    def ask(folders: list[Path]) -> list[Doubt]:
        return doubts(folders, scans, half_annotated, "cpu", tmp_path / "cache", lambda *_: None)

    expected = [doubt_of(votes[:, scan].mean(0), LABELS, 0) for scan in range(2)]
    assert ask(runs) == expected == ask(runs)
    assert sorted(asked) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert ask(runs[:1]) == [doubt_of(votes[0, scan], LABELS, 0) for scan in range(2)]
    assert len(asked) == 6
