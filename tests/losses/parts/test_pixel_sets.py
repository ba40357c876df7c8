import pytest
import torch
from batches import repeatable, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ccdcseg.losses.parts.pixel_sets import PixelSets


def mask(size: int, share: float, seed: int = 0) -> Tensor:
    return torch.rand(size, generator=seeded(seed)) < share


def listed(masks: Tensor) -> list[list[int]]:
    """Members of the sets (I, C, N), image by image: indices into the flattened batch."""
    images, _, size = masks.shape
    return [[image * size + i for i, inside in enumerate(own.tolist()) if inside]
            for image in range(images) for own in masks[image]]  # fmt: skip


def numbers_of(sets: PixelSets) -> dict[str, list[range]]:
    return sets.numbers(list(sets.sizes.values()))


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 700),
    st.sampled_from([0.0, 0.003, 0.1, 0.5, 0.99, 1.0]),
    st.integers(0, 100),
)
@repeatable
def test_members_are_found_by_number(images: int, classes: int, size: int, share: float, seed: int) -> None:
    """All together, which lists them, and a few, which counts in blocks."""
    shape = (2, images, classes, size)
    masks = dict(zip("ab", torch.rand(shape, generator=seeded(seed)) < share, strict=True))
    sets = PixelSets(masks)
    numbers = numbers_of(sets)
    every, few = [], []
    for kind, own in masks.items():
        expected = listed(own)
        assert [len(found) for found in numbers[kind]] == [len(found) for found in expected]
        assert sets.sizes[kind].tolist() == [len(found) for found in expected]
        every += [
            (torch.tensor(n, dtype=torch.int64), e) for n, e in zip(numbers[kind], expected, strict=True)
        ]
        few += [(torch.tensor([n[-1]]), [e[-1]]) for n, e in zip(numbers[kind], expected, strict=True) if n]
    for wanted in (every, few):
        found, _ = sets.find([group for group, _ in wanted])
        assert [pixels.tolist() for pixels in found] == [pixels for _, pixels in wanted]


@pytest.mark.parametrize("size", [1, 127, 128, 129, 255, 256, 257, 128 * 300])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all(size: int, share: float) -> None:
    sets = PixelSets({"only": mask(size, share)[None, None]})
    (own,) = numbers_of(sets)["only"]
    assert own == range(int(size * share))
    assert sets.find([torch.tensor(own, dtype=torch.int64)])[0][0].tolist() == list(own)


def test_numbers_come_in_any_order_and_repeat() -> None:
    chosen = mask(100_000, 0.3)
    sets = PixelSets({"only": chosen[None, None]})
    drawn = torch.randint(int(chosen.sum()), (500,), generator=seeded())
    assert torch.equal(sets.find([drawn])[0][0], chosen.nonzero()[:, 0][drawn])


def test_what_is_sent_along_arrives() -> None:
    sets = PixelSets({"only": mask(9, 1.0)[None, None]})
    others = [torch.arange(6).view(2, 3), torch.empty(0, 4, dtype=torch.int64)]
    groups, sent = sets.find([torch.tensor([3, 1]), torch.tensor([], dtype=torch.int64)], others)
    assert [pixels.tolist() for pixels in groups] == [[3, 1], []]
    assert all(torch.equal(one, other) for one, other in zip(sent, others, strict=True))
    assert sets.find([])[0] == []


def test_parts_of_a_mask() -> None:
    """Masks that do not begin where their memory does."""
    whole = mask(1000, 0.3)
    for start in range(1, 10):
        part = whole[start : start + 256]
        sets = PixelSets({"only": part[None, None]})
        assert sets.find([torch.tensor([0])])[0][0].tolist() == part.nonzero()[0].tolist()
