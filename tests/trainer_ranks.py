"""What each of two processes does in the tests of a training on several GPUs."""

import contextlib
import json
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from ccdcseg.errors import UserError
from ccdcseg.nnunet.trainers import nnUNetTrainerPreset
from ccdcseg.nnunet.unlabelled import UnlabelledTraining

WORLD = 2
SHORT, LONG = timedelta(seconds=1), timedelta(minutes=5)


def waited(rank: int, folder: Path) -> list[bool]:
    """Whether what the first rank writes is there, when it took longer than the ranks wait for a step."""
    part = UnlabelledTraining.__new__(UnlabelledTraining)
    part._trainer = SimpleNamespace(local_rank=rank, is_ddp=True)

    def write(name: str) -> None:
        time.sleep(2 * SHORT.total_seconds())
        (folder / name).touch()

    found = []
    dist.distributed_c10d._set_pg_timeout(SHORT)
    for name in ("prepared", "labelled"):
        part._on_one_rank(lambda name=name: write(name))
        found.append((folder / name).exists())
    dist.distributed_c10d._set_pg_timeout(LONG)
    return found


class Crowded(torch.autograd.Function):
    """A layer in whose backward pass memory ends where a rank has more than four patches."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if len(gradient) > 4:
            raise torch.OutOfMemoryError
        return gradient


class CrowdedNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(Crowded.apply(self.first(images)))


class Entropy(nn.Module):
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(output, target[:, 0].long())


def trainer_of(rank: int, **attributes: Any) -> nnUNetTrainerPreset:
    """A trainer that has only what it is given."""
    trainer = nnUNetTrainerPreset.__new__(nnUNetTrainerPreset)
    vars(trainer).update(is_ddp=True, local_rank=rank, device=torch.device("cpu"), **attributes)
    return trainer


def told_of_memory(rank: int) -> str:
    """What a step says of a batch of 11, of which the ranks have 6 and 5, and 4 fit."""
    network = DistributedDataParallel(CrowdedNetwork())
    trainer = trainer_of(
        rank,
        network=network,
        loss=Entropy(),
        _build_loss=Entropy,
        optimizer=torch.optim.SGD(network.parameters(), 0.01),
        configuration_manager=SimpleNamespace(patch_size=[8, 8], batch_size=11),
        autocast=contextlib.nullcontext,
        output_folder="run",
        **dict.fromkeys(("grad_scaler", "averaged", "unlabelled")),
    )
    images = torch.randn(6 - rank, 1, 8, 8)
    try:
        trainer.train_step({"data": images, "target": (images > 0).float()})
    except UserError as error:
        return str(error)
    return ""


def mean_losses(rank: int) -> list[float]:
    """Losses in nnU-Net's log and in ours of an epoch with 1 on the first rank and 3 on the second."""
    logged: list[float] = []
    logger = SimpleNamespace(log=lambda name, value, epoch: logged.append(float(value)))
    trainer = trainer_of(rank, current_epoch=0, logger=logger)
    mine = torch.tensor(1.0 + 2 * rank)
    trainer.on_train_epoch_end([{"loss": mine, "segmentation_loss": mine / 2}] * 3)
    return [*logged, *trainer.epoch_losses.values()]


def work(rank: int, folder: Path) -> None:
    """Everything one process does; its results go into a file."""
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=LONG)
    results = {
        "waited": waited(rank, folder),
        "losses": mean_losses(rank),
        "memory": told_of_memory(rank),  # last, since it breaks a step off
    }
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()
