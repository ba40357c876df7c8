"""What each of two processes does in the tests of a training on several GPUs."""

import json
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch.distributed as dist

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


def work(rank: int, folder: Path) -> None:
    """Everything one process does; its results go into a file."""
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=LONG)
    results = {"waited": waited(rank, folder)}
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()
