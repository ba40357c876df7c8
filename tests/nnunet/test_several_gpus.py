"""Two processes on the CPU, in the place of GPUs."""

import json
from pathlib import Path

from torch import multiprocessing

import trainer_ranks
from trainer_ranks import WORLD


def test_two_ranks_train_as_one(tmp_path: Path):
    """In one test: to start the two takes longer than all that they do."""
    multiprocessing.spawn(trainer_ranks.work, (tmp_path,), nprocs=WORLD)
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(WORLD)]
    for found in results:
        assert found["waited"] == [True, True]  # for labels, longer than for a step
        assert found["memory"].startswith("A batch of 11 does not fit")
        assert "--set network.batch_size=8 " in found["memory"]  # of both
        assert found["losses"] == [2.0, 2.0, 1.0]  # means over both
