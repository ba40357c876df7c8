"""What several test files need: a small synthetic dataset in nnU-Net's folders, and the command line."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ.setdefault("nnUNet_def_n_proc", "2")

TINY = """
description: a few steps, for the tests
network:
  configuration: 2d
  features_per_stage: [4, 8, 8]
  patch_size: [64, 64]
  spacing_mm: [3.0, 3.0]
  batch_size: 3
training:
  epochs: 2
  iterations_per_epoch: 3
  validation_iterations: 1
  checkpoint_every: 1
  augmentation_processes: 0
prediction:
  mirroring: false
ccdc:
  queries: 32
  negatives: 32
  core_threshold: 0.2
  hidden_channels: 16
  embedding_channels: 8
contrastive_seg:
  start_iteration: 0
  memory_length: 20
"""


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def ccdcseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the command line in this process."""
    from ccdcseg.cli import main

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["ccdcseg", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return Result(int(stop.value.code or 0), captured.out, captured.err)

    return run


@dataclass(frozen=True)
class Workspace:
    """nnU-Net's folders with a small synthetic dataset, split and planned."""

    root: Path
    preset: Path

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / "Dataset901_Phantom"

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / "Dataset901_Phantom"


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Five synthetic patients, two to train on; trainings of the tests share its preprocessed data."""
    from ccdcseg.datasets.acdc import prepare_acdc
    from ccdcseg.datasets.phantom import write_phantom
    from ccdcseg.datasets.splits import split_dataset

    root = tmp_path_factory.mktemp("workspace")
    source = write_phantom(root / "release", 5, 0)
    raw = prepare_acdc(source, root / "nnUNet_raw", 901)
    split_dataset(raw, [0.4], 0)
    preset = root / "tiny.yaml"
    preset.write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            patch.setenv(name, str(root / name))
        yield Workspace(root, preset)
