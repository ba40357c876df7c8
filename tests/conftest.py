"""What several test files need: a small synthetic dataset in nnU-Net's folders, and the command line."""

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings

from hurried import hurry

pytest_plugins = ["run_folders", "warm_commands"]

settings.register_profile("untimed", deadline=None, max_examples=50)  # a busy machine is no failure
settings.load_profile("untimed")

os.environ.setdefault("nnUNet_def_n_proc", "1")

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
  augmentation: nnunet
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
        monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as the program does, and undone afterwards
        monkeypatch.setenv("MPLBACKEND", "agg")
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
def real_data() -> Path:
    """The folder of real scans."""
    place = os.environ.get("CCDCSEG_DATA")
    if place is None:
        pytest.skip("CCDCSEG_DATA is not set: no real scans")
    return Path(place)


@pytest.fixture
def close() -> Iterator[Callable[[Path], None]]:
    """Close a file or folder to this user; root loses until the end what lets it pass over rights."""
    if os.name == "nt":
        pytest.skip("there rights are others")
    closed: list[Path] = []

    def act(path: Path) -> None:
        path.chmod(0)
        closed.append(path)

    with bound_by_rights():
        yield act
        for path in reversed(closed):
            path.chmod(0o700)


@contextmanager
def bound_by_rights() -> Iterator[None]:
    if os.geteuid() != 0 or sys.platform != "linux":
        yield
        return
    system, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    system.capget(header, sets)
    before = sets[0]
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, of those in effect
    assert system.capset(header, sets) == 0
    yield
    sets[0] = before
    assert system.capset(header, sets) == 0


@pytest.fixture(scope="session")
def tiny() -> str:
    """A preset of a few steps."""
    return TINY


@pytest.fixture(scope="session")
def hurried() -> None:
    """nnU-Net without what takes longer than a tiny training."""
    hurry()


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, hurried: None) -> Iterator[Workspace]:
    """Five synthetic patients, two to train on; trainings of the tests share its preprocessed data."""
    from ccdcseg.datasets.acdc import prepare_acdc
    from ccdcseg.datasets.splits import split_dataset
    from ccdcseg.phantom import write_phantom

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


@pytest.fixture
def raw_folder(pristine_raw_folder: Path, tmp_path: Path) -> Path:
    """Six small clean cases of three patients as an nnU-Net raw folder, to be damaged."""
    return shutil.copytree(pristine_raw_folder, tmp_path / "nnUNet_raw" / pristine_raw_folder.name)


@pytest.fixture
def half_annotated(raw_folder: Path) -> Path:
    """``raw_folder``, and ten scans without masks: two each of one of its three patients and of four others."""
    import numpy as np

    from ccdcseg.datasets.cases import Case, write_unlabelled_cases
    from ccdcseg.datasets.volumes import Volume, write_volume

    cases = [
        Case(f"{patient}_{phase}", patient, group, phase)
        for patient, group in (("p1", ""), ("q1", "a"), ("q2", "a"), ("q3", "b"), ("q4", "b"))
        for phase in ("ED", "ES")
    ]
    for seed, case in enumerate(cases):
        path = raw_folder / "imagesTs" / f"{case.case}_0000.nii.gz"
        coarse = np.random.default_rng(seed).integers(0, 900, (8, 5, 6)).repeat(4, 1).repeat(4, 2)
        write_volume(path, Volume(path, coarse.astype(np.int16), (8.0, 1.5, 1.25)))
    write_unlabelled_cases(raw_folder, {"imagesTs": cases})
    return raw_folder


@pytest.fixture
def lying(half_annotated: Path) -> Path:
    """``half_annotated``, but of "q1" a scan whose slices lie along the second axis of its file, and no other."""
    import numpy as np

    from ccdcseg.datasets.volumes import Volume, read_image, write_volume

    (half_annotated / "imagesTs" / "q1_ES_0000.nii.gz").unlink()
    path = half_annotated / "imagesTs" / "q1_ED_0000.nii.gz"
    stack = np.moveaxis(read_image(path).array, 0, 1)
    write_volume(path, Volume(path, stack, (1.5, 8.0, 1.25)))
    return half_annotated


@pytest.fixture(scope="session")
def pristine_raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``raw_folder`` copies: images of noise, two boxes as structures. Nothing is to be found in it."""
    import json

    import numpy as np

    from ccdcseg.datasets.cases import Case, write_cases
    from ccdcseg.datasets.volumes import Volume, write_volume

    folder = tmp_path_factory.mktemp("pristine") / "Dataset007_Small"
    cases = [
        Case(f"p{number}_{phase}", f"p{number}", "", phase) for number in "123" for phase in ("ED", "ES")
    ]
    for index, case in enumerate(cases):
        generator = np.random.default_rng(index)
        mask = np.zeros((4, 20, 24), np.uint8)
        mask[1:3, 4:14, 4 + index : 12 + index], mask[1:3, 6:10, 6 + index : 10 + index] = 1, 2
        image = generator.integers(0, 3000, mask.shape).astype(np.int16)
        for name, array in ((f"imagesTr/{case.case}_0000", image), (f"labelsTr/{case.case}", mask)):
            path = folder / f"{name}.nii.gz"
            write_volume(path, Volume(path, array, (8.0, 1.5, 1.4)))
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "RV": 1, "LV": 2},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    write_cases(folder, cases)
    return folder


@pytest.fixture
def change_volume() -> Callable[..., None]:
    """Rewrite a volume: its array through a function, other fields by name."""
    from dataclasses import replace

    from ccdcseg.datasets.volumes import read_image, write_volume

    def change(path: Path, function: Callable[..., object] | None = None, **fields: object) -> None:
        volume = read_image(path)
        array = volume.array.copy()
        result = function(array) if function else None
        write_volume(path, replace(volume, array=array if result is None else result, **fields))

    return change


@pytest.fixture
def scan_again() -> Callable[[Path, str], str]:
    """Give the patient of a case a further scan, and draw the split of `workspace` anew; name of the scan."""
    from ccdcseg.datasets.cases import read_cases, write_cases
    from ccdcseg.datasets.splits import split_dataset

    def again(raw: Path, case: str) -> str:
        cases = read_cases(raw)
        for file in (*raw.glob(f"labelsTr/{case}.nii.gz"), *raw.glob(f"imagesTr/{case}_0000.nii.gz")):
            shutil.copy(file, file.with_name(file.name.replace(case, f"{case}_again")))
        write_cases(raw, [*cases, *(replace(row, case=f"{case}_again") for row in cases if row.case == case)])
        split_dataset(raw, [0.4], 0, redraw=True)
        return f"{case}_again"

    return again


@pytest.fixture
def describe_dataset() -> Callable[..., None]:
    """Change entries of ``dataset.json``."""
    import json

    def describe(folder: Path, **entries: object) -> None:
        path = folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return describe
