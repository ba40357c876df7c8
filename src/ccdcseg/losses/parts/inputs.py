"""What every loss asks of its logits and its target."""

from numbers import Integral

import torch
from torch import Tensor


def refuse_others(**given: object) -> None:
    """Refuse arguments that are no tensors.

    Raises:
        TypeError: one is none, such as nnU-Net's list of the outputs of deep supervision.
    """
    for name, value in given.items():
        if not isinstance(value, Tensor):
            several = " Of several resolutions pass one." if isinstance(value, list | tuple) else ""
            raise TypeError(f"{name} must be a tensor, not {type(value).__name__}.{several}")


def ignored_label(ignore_index: int | None) -> int | None:
    """The label of pixels that take no part.

    Raises:
        ValueError: it is no whole number, such as True, which would be class 1.
    """
    if ignore_index is not None and (
        isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral)
    ):
        raise ValueError(f"ignore_index must be a whole number or None, not {ignore_index!r}")
    return ignore_index


def class_labels(target: Tensor, classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Labels of every pixel, and what `refuse_labels` must know of them.

    Args:
        target: class labels of any shape and type.
        classes: C.
        ignore_index: None: every pixel takes part.

    Returns:
        int64 labels in the shape of the target, -1 where ignored and none above C - 1; and (3,) int64 findings:
        whether there are fractions, and the lowest and the highest label that is not ignored.

    Raises:
        ValueError: booleans or complex numbers, which are no labels.
    """
    if target.dtype == torch.bool or target.is_complex():
        kind = "complex numbers" if target.is_complex() else "booleans (a mask of one region)"
        raise ValueError(f"target must hold class labels, not {kind}")
    labels = target.long()
    ignored = torch.zeros_like(labels, dtype=torch.bool) if ignore_index is None else labels == ignore_index
    counted = labels.masked_fill(ignored, 0)
    fractions = (target != labels).any().long() if target.is_floating_point() else labels.new_zeros(())
    lowest, highest = counted.aminmax() if labels.numel() else (fractions, fractions)
    return labels.masked_fill(ignored, -1).clamp(-1, classes - 1), torch.stack((fractions, lowest, highest))


def refuse_labels(findings: Tensor, classes: int, ignore_index: int | None) -> None:
    """Refuse what is no label.

    Args:
        findings: (3,) of `class_labels`; on the CPU, or reading them waits for the device.
        classes: C.
        ignore_index: None: every pixel takes part.

    Raises:
        ValueError: a label that is no whole number, or outside [0, C) and not ``ignore_index``.
    """
    fractions, lowest, highest = findings.tolist()
    if fractions:
        raise ValueError("target must hold whole numbers, the class labels")
    if lowest < 0 or highest >= classes:
        raise ValueError(
            f"target holds labels from {lowest} to {highest}, outside 0 to {classes - 1}; "
            f"pixels to be left out must carry the ignore_index of the loss, which is {ignore_index}"
        )


def refuse_probabilities(logits: Tensor) -> None:
    """Refuse "logits" that went through softmax already; a second one leaves no pixel confident.

    Args:
        logits: (B, C, *spatial).

    Raises:
        ValueError: every value lies between 0 and 1, every pixel's sum up to 1, and they are not one-hot.
    """
    values = logits.detach().float()
    if not values.numel() or values.min() < 0 or values.max() > 1:
        return
    if ((values.sum(1) - 1).abs() < 0.01).all() and (values != values.round()).any():
        raise ValueError(
            "logits hold probabilities: at every pixel they lie between 0 and 1 and sum to 1; "
            "pass the network's output before softmax, or the logarithm of the probabilities"
        )
