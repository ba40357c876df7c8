from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.errors import UserError
from ccdcseg.methods import METHODS
from ccdcseg.nnunet.memory import largest_that_fits


def memory_for(patches: int) -> Callable[[int], None]:
    def step(number: int) -> None:
        assert number > 0
        if number > patches:
            raise torch.OutOfMemoryError

    return step


@given(st.integers(1, 300), st.integers(0, 300))
def test_the_largest_batch_is_found(size: int, patches: int):
    assert largest_that_fits(size, memory_for(patches)) == min(patches, size - 1)


@pytest.mark.parametrize(
    ("method", "patches", "words"),
    [("nnunet", 2, r"batch_size=2"), ("nnunet", 0, r"patch_size"), ("ccdc", 2, r"batch_size=2")],
)
def test_a_training_that_does_not_fit_names_the_batch_that_does(
    tiny_run, make_trainer, monkeypatch: pytest.MonkeyPatch, method: str, patches: int, words: str
):
    trainer = make_trainer(tiny_run(method), METHODS[method].trainer)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    batch, forward = next(trainer.dataloader_train), trainer.network.forward
    assert len(batch["data"]) == 3

    def limited(images: torch.Tensor) -> object:
        memory_for(patches)(len(images))
        return forward(images)

    monkeypatch.setattr(trainer.network, "forward", limited)
    with pytest.raises(UserError, match=rf"A batch of 3 does not fit into the memory of cpu.*{words}"):
        trainer.train_step(batch)


def test_other_failures_of_a_step_are_not_for_want_of_memory():
    def step(_: int) -> None:
        raise RuntimeError("other")

    with pytest.raises(RuntimeError, match="other"):
        largest_that_fits(4, step)
