"""A training that begins at another one's checkpoint ends as one that does not."""

import runpy
from pathlib import Path

import pytest
import torch

from ccdcseg.nnunet.checkpoints import load_checkpoint

SHARED = runpy.run_path(str(Path(__file__).parents[2] / "study" / "shared_start.py"))
FROM_HALF = "ccdc.start_iteration=3"


def test_what_differs_after_the_start_alone_is_trained_from_it(tiny_run, train_run):
    """Without the term it is plain nnU-Net."""
    steps = []
    without, strong = (FROM_HALF, "ccdc.weight=0.0"), (FROM_HALF, "ccdc.weight=0.7")
    with SHARED["shared_starts"]():
        first = final(train_run(tiny_run(changes=without)))
        shared = final(
            train_run(tiny_run(changes=strong), progress=lambda name, *n: steps.append((name, *n)))
        )
    assert [done for name, done, _ in steps if name == "train"] == [4, 5, 6]
    whole = final(train_run(tiny_run(changes=strong, results="whole")))
    assert same_weights(shared, whole)
    assert shared["init_args"]["plans"] == whole["init_args"]["plans"]
    assert not same_weights(shared, first)
    assert same_weights(first, final(train_run(tiny_run("nnunet"))))


def final(folder):
    return load_checkpoint(folder / "checkpoint_final.pth")


def same_weights(first, second):
    first, second = first["network_weights"], second["network_weights"]
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "change", ["ccdc.hidden_channels=8", "training.initial_learning_rate=0.1", "ccdc.start_iteration=0"]
)
def test_what_differs_before_the_start_shares_nothing(tiny_run, change):
    runs = [tiny_run(changes=(FROM_HALF, *more)) for more in ((), (change,))]
    first, other = (SHARED["key"](run.preset, run.fold) for run in runs)
    assert first != other


def test_of_two_that_pass_the_start_at_once_the_first_one_is_kept(tmp_path):
    kept = tmp_path / "shared_start" / "key"
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        for file in SHARED["FILES"]:
            (folder / file).write_text(name)
        SHARED["keep"](folder, kept)
        assert sorted(path.name for path in folder.iterdir()) == sorted(SHARED["FILES"])
    assert [(kept / file).read_text() for file in SHARED["FILES"]] == ["first", "first"]
