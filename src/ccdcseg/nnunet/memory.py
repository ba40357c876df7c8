"""What to say, and to advise, when a step or a scan does not fit into a device's memory."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from ccdcseg.errors import UserError

Result = TypeVar("Result")


def does_not_fit(
    size: int,
    least: int,
    patch: Sequence[int],
    device: torch.device,
    folder: Path,
    step: Callable[[int], object],
) -> UserError:
    """The error of a batch that is too large; it names the largest that is not, or a smaller patch.

    Args:
        size: of the batch, in patches.
        least: number of patches that the training needs.
        patch: its size in voxels, slowest axis first.
        device: whose memory did not suffice.
        folder: of the training.
        step: tries a step of that many patches; raises as PyTorch does where they do not fit either.
    """
    largest = largest_that_fits(size, step)
    remedy = (
        f"The largest batch that does is {largest}: add --set network.batch_size={largest} "
        "(with nnU-Net's own plans, write batch_size into their file)"
        if largest >= least
        else f"{least} {'patches do' if least > 1 else 'patch does'} not either: give smaller ones, such as "
        f"--set network.patch_size={halved(patch)} (nnU-Net's own plans: make new ones with a smaller "
        "-gpu_memory_target)"
    )
    return UserError(
        f"A batch of {size} does not fit into the memory of {device} ({folder}).",
        f"{remedy}, or take a device with more memory.",
    )


def device_full(what: Path, device: torch.device | str) -> UserError:
    """The error of a scan, a network or a training for which a device has no memory, whatever the batch."""
    return UserError(
        f"{what} does not fit into the memory of {device}.",
        "Give --device cpu, or end other programs that use that device.",
    )


@contextmanager
def within_memory(what: Path, device: torch.device | str) -> Iterator[None]:
    """Say what does not fit into a device's memory, where PyTorch does.

    Raises:
        UserError: as `device_full`.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_full(error):
            raise
        raise device_full(what, device) from error


def if_it_fits(step: Callable[[], Result]) -> Result | None:
    """What a step returns; None where memory did not suffice, and what the step had made of it is let go."""
    try:
        return step()
    except RuntimeError as error:
        if not _is_full(error):
            raise
    return None


def _is_full(error: RuntimeError) -> bool:
    """Of a GPU on which not even a context finds room, and of Apple's, the words of the error alone tell."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def halved(patch: Sequence[int]) -> str:
    """A patch of half the size along its longest axis, as ``--set`` reads it."""
    longest = max(patch)
    where = list(patch).index(longest)
    return f"[{','.join(str(size // 2 if i == where else size) for i, size in enumerate(patch))}]"


def largest_that_fits(size: int, step: Callable[[int], object]) -> int:
    """The largest number of patches below ``size`` with which ``step`` succeeds, by bisection; 0: none."""
    return bisect_left(range(1, size), True, key=lambda patches: not _fits(patches, step))


def _fits(patches: int, step: Callable[[int], object]) -> bool:
    try:
        return if_it_fits(lambda: (step(patches),)) is not None
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
