import pytest
import torch

from ccdcseg.losses.parts.transfer import to_device, to_host

TENSORS = [
    torch.tensor(True),
    torch.tensor([[1.5, float("nan")], [-0.0, 2.0]]).T,
    torch.arange(7)[1::2],
    torch.tensor([], dtype=torch.float64),
    torch.tensor([0.1], dtype=torch.float64),
    torch.tensor([1.0], dtype=torch.bfloat16),
    torch.tensor(-3, dtype=torch.int64),
    torch.tensor([7], dtype=torch.uint8),
]


def test_tensors_of_all_types_and_shapes_arrive_as_they_are() -> None:
    for found, sent in zip(to_host(*TENSORS), TENSORS, strict=True):
        torch.testing.assert_close(found, sent, rtol=0, atol=0, equal_nan=True)


def test_what_arrived_does_not_change_with_what_was_sent() -> None:
    value = torch.ones(3)
    (copy,) = to_host(value)
    value.zero_()
    assert copy.tolist() == [1, 1, 1]


@pytest.mark.parametrize("count", [1, 3])
def test_numbers_keep_their_shapes(count: int) -> None:
    given = [torch.arange(6).view(2, 3), torch.tensor(5), torch.empty(0, 2, dtype=torch.int64)][:count]
    for found, sent in zip(to_device(given, torch.device("cpu")), given, strict=True):
        assert torch.equal(found, sent)
