"""Networks are pretended: each says what its checkpoint file holds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ccdcseg.files import write_bytes
from ccdcseg.nnunet import ensemble
from ccdcseg.nnunet.ensemble import Ensemble
from ccdcseg.provenance import Source, origin_file


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "a_0000.nii.gz"
    path.write_text("3")
    return path


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two; their probabilities are the scan's number times their own."""
    folders = [tmp_path / f"fold_{number}" for number in range(2)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "weights").write_text(str(number + 1))
    monkeypatch.setattr(ensemble, "check_scan", lambda _: None)
    monkeypatch.setattr(ensemble, "usable_device", lambda name: name)
    monkeypatch.setattr(
        ensemble, "build_predictor", lambda folder, _: float((folder / "weights").read_text())
    )
    monkeypatch.setattr(
        ensemble,
        "scan_probabilities",
        lambda own, images: np.full((2, 1, 1, 1), np.mean(own) * float(images[0].read_text()), np.float32),
    )
    monkeypatch.setattr(
        ensemble,
        "prediction_sources",
        lambda folders, images, _: {
            "images": Source(tuple(images)),
            "model": Source(
                tuple(folder / "weights" for folder in folders), [folder.name for folder in folders]
            ),
        },
    )
    return folders


Ask = Callable[[list[Path]], tuple[float, bool]]


@pytest.fixture
def ask(scan: Path, tmp_path: Path) -> Ask:
    """What networks say of the scan, and whether they were asked anew."""
    target = tmp_path / "kept" / "a"

    def asked(folders: list[Path]) -> tuple[float, bool]:
        made: list[float] = []

        def content(probabilities: NDArray[np.float32]) -> bytes:
            made.append(float(probabilities.mean()))
            return str(made[-1]).encode()

        told = Ensemble(folders, "cpu").keep([scan], target, content)
        assert target.read_bytes() == told
        return float(told), bool(made)

    return asked


def test_several_speak_by_their_mean_and_are_asked_once(networks: list[Path], ask: Ask) -> None:
    assert ask(networks) == (4.5, True)
    assert ask(networks) == (4.5, False)
    assert ask(networks[::-1]) == (4.5, False)


def test_one_network_more_or_less_is_asked_anew(networks: list[Path], ask: Ask) -> None:
    found = [ask(networks[:1]), ask(networks), ask(networks[1:]), ask(networks[:1])]
    assert found == [(3, True), (4.5, True), (6, True), (3, True)]


def test_another_scan_or_checkpoint_is_asked_anew(networks: list[Path], ask: Ask, scan: Path) -> None:
    ask(networks)
    scan.write_text("5")
    assert ask(networks) == (7.5, True)
    (networks[1] / "weights").write_text("3")
    assert ask(networks) == (10, True)


def test_what_was_changed_or_is_of_unknown_origin_is_made_anew(
    networks: list[Path], ask: Ask, tmp_path: Path
) -> None:
    kept = tmp_path / "kept" / "a"
    ask(networks)
    kept.write_text("9")
    assert ask(networks) == (4.5, True)
    origin_file(kept).unlink()
    assert ask(networks) == (4.5, True)


@pytest.mark.parametrize("closed", [lambda kept: kept, origin_file])
def test_what_another_user_closed_is_made_anew(
    networks: list[Path],
    ask: Ask,
    scan: Path,
    tmp_path: Path,
    close: Callable[[Path], None],
    closed: Callable[[Path], Path],
) -> None:
    kept = tmp_path / "kept" / "a"
    ask(networks)
    close(closed(kept))
    assert Ensemble(networks, "cpu").keep([scan], kept, lambda _: b"anew") == b"anew"
    kept.chmod(0o600)
    assert kept.read_bytes() == b"anew"


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_an_interrupted_making_leaves_is_not_taken(
    networks: list[Path], ask: Ask, tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file is there without its origin until the new one is written."""
    ask(networks)
    scan.write_text("5")
    with monkeypatch.context() as broken:
        broken.setattr(ensemble, "scan_probabilities", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask(networks)
    scan.write_text("3")
    assert not origin_file(tmp_path / "kept" / "a").exists()
    assert ask(networks) == (4.5, True)


def test_networks_asked_at_the_same_time_do_not_answer_for_each_other(
    networks: list[Path], ask: Ask, tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second ones write their answer right after the first one's."""

    def told(folders: list[Path]) -> float:
        kept = tmp_path / "kept" / "a"
        return float(Ensemble(folders, "cpu").keep([scan], kept, lambda found: str(found.mean()).encode()))

    with monkeypatch.context() as overtaken:

        def write(path: Path, content: bytes) -> None:
            write_bytes(path, content)
            overtaken.undo()
            assert told(networks[1:]) == 6

        overtaken.setattr(ensemble, "write_bytes", write)
        assert told(networks[:1]) == 3
    assert ask(networks[:1]) == (3, True)
