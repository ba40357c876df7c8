"""A training that begins at another one's checkpoint ends as one that does not."""

import runpy
from pathlib import Path

import pytest
import torch

from ccdcseg.nnunet.checkpoints import load_checkpoint

SHARED = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "shared_start.py"))
FROM_HALF = "ccdc.start_iteration=3"


def test_what_differs_after_the_start_alone_is_trained_from_it(tiny_run, train_run):
    steps = []
    weak, strong = (FROM_HALF, "ccdc.weight=0.1"), (FROM_HALF, "ccdc.weight=0.7")
    with SHARED["shared_starts"]():
        train_run(tiny_run(changes=weak))
        shared = train_run(tiny_run(changes=strong), progress=lambda name, *n: steps.append((name, *n)))
    assert [done for name, done, _ in steps if name == "train"] == [4, 5, 6]
    whole = train_run(tiny_run(changes=strong, results="whole"))
    ours, theirs = (load_checkpoint(folder / "checkpoint_final.pth") for folder in (shared, whole))
    for name, weight in theirs["network_weights"].items():
        assert torch.equal(ours["network_weights"][name], weight), name
    assert ours["init_args"]["plans"] == theirs["init_args"]["plans"]


def test_without_the_term_it_is_plain_nnunet(tiny_run, train_run):
    with SHARED["shared_starts"]():
        train_run(tiny_run(changes=(FROM_HALF,)))
        shared = train_run(tiny_run(changes=(FROM_HALF, "ccdc.weight=0.0")))
    plain = train_run(tiny_run("nnunet"))
    ours, theirs = (load_checkpoint(f / "checkpoint_final.pth")["network_weights"] for f in (shared, plain))
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


@pytest.mark.parametrize(
    "change", ["ccdc.hidden_channels=8", "training.initial_learning_rate=0.1", "ccdc.start_iteration=0"]
)
def test_what_differs_before_the_start_shares_nothing(tiny_run, change):
    runs = [tiny_run(changes=(FROM_HALF, *more)) for more in ((), (change,))]
    first, other = (SHARED["key"](run.preset, run.fold) for run in runs)
    assert first != other
