import pytest
import torch
from batches import repeatable, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ccdcseg.losses import CCDCLoss, FocalLoss, MCCLoss, nearest_to
from ccdcseg.losses.parts.inputs import class_labels, refuse_labels, refuse_probabilities


def labels_of(target: Tensor, classes: int, ignored: int | None) -> Tensor:
    labels, findings = class_labels(target, classes, ignored)
    assert labels.numel() == 0 or -1 <= int(labels.min()) <= int(labels.max()) < classes
    refuse_labels(findings, classes, ignored)
    return labels


@given(
    st.lists(st.integers(-2, 6), max_size=6),
    st.sampled_from([torch.int64, torch.int16, torch.int8, torch.float32, torch.float16, torch.bfloat16]),
    st.sampled_from([None, -1, 0, 4, 6]),
)
@repeatable
def test_labels_are_whole_and_in_range_or_ignored(
    values: list[int], dtype: torch.dtype, ignored: int | None
) -> None:
    target = torch.tensor(values).to(dtype)
    if all(value == ignored or 0 <= value < 4 for value in values):
        expected = [-1 if value == ignored else value for value in values]
        found = labels_of(target, 4, ignored)
        assert (found.dtype, found.tolist()) == (torch.int64, expected)
    else:
        with pytest.raises(ValueError, match=rf"outside 0 to 3; .*ignore_index .* is {ignored}$"):
            labels_of(target, 4, ignored)


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf"), -0.1])
def test_fractions_are_no_labels(value: float) -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        labels_of(torch.tensor([1.0, value]), 4, None)


def test_unsigned_labels_with_the_usual_ignore_index() -> None:
    assert labels_of(torch.tensor([[0, 255]], dtype=torch.uint8), 2, 255).tolist() == [[0, -1]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 5, 40])
def test_probabilities_are_refused_and_logits_are_not(dtype: torch.dtype, classes: int) -> None:
    logits = 3 * torch.randn(2, classes, 8, 8, generator=seeded())
    with pytest.raises(ValueError, match="before softmax"):
        refuse_probabilities(logits.softmax(1).to(dtype))
    one_pixel_off = logits.softmax(1)
    one_pixel_off[1, :, 3, 3] *= 1.1
    one_hot = torch.nn.functional.one_hot(logits.argmax(1), classes).movedim(-1, 1)
    for fine in (logits, logits.log_softmax(1), 0 * logits, one_hot, one_pixel_off, one_pixel_off[:0]):
        refuse_probabilities(fine.to(dtype))


@pytest.mark.parametrize("kind", [torch.bool, torch.complex64])
def test_what_is_no_number_of_a_class_is_refused(kind: torch.dtype) -> None:
    logits, target = torch.randn(2, 3, 4, 4), torch.ones(2, 4, 4, dtype=kind)
    for criterion in (FocalLoss(), MCCLoss()):
        with pytest.raises(ValueError, match=r"target must hold class labels, not (boo|com)"):
            criterion(logits, target)
    with pytest.raises(ValueError, match=r"target must hold class labels, not (boo|com)"):
        CCDCLoss(2, 3)(torch.randn(2, 2, 4, 4), logits, target)


@pytest.mark.parametrize("label", [True, 255.5, "255", float("nan")])
def test_an_ignored_label_is_a_whole_number(label: object) -> None:
    """True for a switch would leave class 1 out."""
    for make in (FocalLoss, lambda **own: CCDCLoss(2, 3, **own)):
        with pytest.raises(ValueError, match="ignore_index must be a whole number or None"):
            make(ignore_index=label)


def test_an_ignored_label_may_be_large() -> None:
    """Labels that float32 does not hold, at a coarser stage, too."""
    label = 2**31 - 1
    target = torch.full((1, 4, 4), label, dtype=torch.int32)
    _, coarse = nearest_to(torch.randn(1, 2, 2, 2), torch.randn(1, 3, 4, 4), target)
    assert (coarse == label).all()


def test_outputs_of_several_resolutions_are_refused() -> None:
    """As nnU-Net's network gives them while it is trained; NumPy's arrays, too."""
    features, logits, target = torch.randn(2, 2, 4, 4), torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 4)
    for give in (lambda one: FocalLoss()(one, target), lambda one: CCDCLoss(2, 3)(features, one, target)):
        with pytest.raises(
            TypeError, match=r"logits must be a tensor, not list\. Of several resolutions pass one"
        ):
            give([logits, logits])
    with pytest.raises(TypeError, match=r"target must be a tensor, not ndarray\.$"):
        FocalLoss()(logits, target.numpy())
