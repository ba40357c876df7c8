"""Two processes on the CPU, in the place of GPUs."""

import json
from typing import Any

import pytest
from torch import multiprocessing

import trainer_ranks
from trainer_ranks import WORLD


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(trainer_ranks.work, (folder,), nprocs=WORLD)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD)]


def test_ranks_wait_longer_for_labels_than_for_a_step(results: list[dict[str, Any]]):
    assert [found["waited"] for found in results] == [[True, True]] * WORLD


def test_a_batch_that_does_not_fit_names_the_batch_of_all_ranks(results: list[dict[str, Any]]):
    for found in results:
        assert found["memory"].startswith("A batch of 11 does not fit")
        assert "--set network.batch_size=8 " in found["memory"]


def test_the_history_has_the_losses_of_all_ranks(results: list[dict[str, Any]]):
    assert [found["losses"] for found in results] == [[2.0, 2.0, 1.0]] * WORLD
