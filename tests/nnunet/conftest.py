"""Small trainings, in this process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ccdcseg.files import write_bytes
from ccdcseg.nnunet import plans
from ccdcseg.nnunet import predict as module
from ccdcseg.nnunet.checkpoints import FINAL, load_checkpoint
from ccdcseg.nnunet.images import folder_images
from ccdcseg.nnunet.outputs import Output
from ccdcseg.nnunet.predict import predict
from ccdcseg.nnunet.runs import Run, resolve_run
from ccdcseg.nnunet.train import prepare, train
from ccdcseg.processes import pool_map


@pytest.fixture
def tiny_run(workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """A run of the tiny preset, with results of its own."""

    def make(method: str = "ccdc", changes: tuple[str, ...] = (), results: str = "results") -> Run:
        monkeypatch.setenv("nnUNet_results", str(tmp_path / results))
        return resolve_run("901", method, 0.4, 0, str(workspace.preset), changes)

    return make


@pytest.fixture
def train_run() -> Callable[..., Path]:
    """Train a run to its end."""

    def go(run: Run, **options: Any) -> Path:
        settings = {"resume": False, "device": "cpu", "processes": 1, "progress": lambda *_: None}
        return train(run, **(settings | options))

    return go


@pytest.fixture(scope="session")
def trained(workspace: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of a finished training of plain nnU-Net, to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(tmp_path_factory.mktemp("trained")))
        run = resolve_run("901", "nnunet", 0.4, 0, str(workspace.preset))
        return train(run, resume=False, device="cpu", processes=1, progress=lambda *_: None).parent


@pytest.fixture
def finished_run(trained: Path, tiny_run: Callable[..., Run]) -> Run:
    """A finished run of plain nnU-Net, to be damaged."""
    run = tiny_run("nnunet")
    shutil.copytree(trained, run.model)
    return run


@pytest.fixture
def own_run(
    tiny_run: Callable[..., Run], workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """A run on scans of its own, prepared in this process; planning gives what it gave before."""
    prepare(tiny_run("nnunet"), 2, lambda *_: None)
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(workspace.root / name, tmp_path / name)
        monkeypatch.setenv(name, str(tmp_path / name))
    run = tiny_run("nnunet")
    stored = run.preprocessed / "nnUNetPlans.json"
    content = stored.read_bytes()
    monkeypatch.setattr(
        plans, "pool_map", lambda function, items, _, progress: pool_map(function, items, 1, progress)
    )
    monkeypatch.setattr(plans, "_plan", lambda *_: write_bytes(stored, content))
    return run


@pytest.fixture
def interrupt_run(train_run: Callable[..., Path]) -> Callable[..., None]:
    """Train a run and interrupt it after a number of steps."""

    def go(run: Run, step: int, **options: Any) -> None:
        def interrupt(stage: str, done: int, *_: object) -> None:
            if stage == "train" and done == step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_run(run, progress=interrupt, **options)

    return go


@pytest.fixture
def make_trainer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """An initialised trainer of a run, not trained."""

    def make(run: Run, name: str, dataset: dict[str, Any] | None = None) -> Any:
        import torch

        from ccdcseg.nnunet.discovery import ccdcseg_trainers

        monkeypatch.setenv("CCDCSEG_SEED", "0")
        plans = prepare(run, 2, lambda *_: None)
        description = dataset or json.loads((run.preprocessed / "dataset.json").read_text())
        trainer = getattr(ccdcseg_trainers, name)(
            {**plans, "continue_training": False},
            run.preset.network.configuration,
            run.fold,
            description,
            torch.device("cpu"),
        )
        trainer.initialize()
        return trainer

    return make


@pytest.fixture
def two_runs(finished_run: Run, tmp_path: Path) -> list[Path]:
    """A run, and another of the same settings whose weights lie beside its own."""
    other = shutil.copytree(finished_run.model, tmp_path / "other") / finished_run.folder.name
    checkpoint = load_checkpoint(other / FINAL)
    generator = torch.Generator().manual_seed(0)
    for weights in checkpoint["network_weights"].values():
        weights.mul_(1 + 0.2 * torch.randn(weights.shape, generator=generator))
    torch.save(checkpoint, other / FINAL)
    return [finished_run.folder, other]


@pytest.fixture
def predictions(finished_run: Run, workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Predict one case of a folder of images of its own; how often that was done so far."""
    folder, images = finished_run.folder, tmp_path / "images"
    images.mkdir()
    shutil.copy(next((workspace.raw / "imagesTr").glob("*.nii.gz")), images / "a_0000.nii.gz")
    done = []
    plain = module.segment

    def counted(*arguments, **options):
        done.append(arguments)
        return plain(*arguments, **options)

    monkeypatch.setattr(module, "segment", counted)

    def go(place: Path, model: Path = folder, **shares: float) -> int:
        output = Output(place, shares, place / "plain" if shares else None)
        predict([model], folder_images(images, model.parent), output, "cpu", lambda *_: None)
        return len(done)

    return SimpleNamespace(go=go, folder=folder, image=images / "a_0000.nii.gz")
