"""What every loss asks of its logits and its target."""

import torch
from torch import Tensor


def class_labels(target: Tensor, classes: int, ignore_label: int | None) -> Tensor:
    """Labels of every pixel, in the shape of the target.

    Args:
        target: class labels of any shape and type.
        classes: C.
        ignore_label: None: every pixel takes part.

    Returns:
        int64 labels, -1 where ignored.

    Raises:
        ValueError: a label that is no whole number, or outside [0, C) and not the ignore label.
    """
    labels = target.long()
    if target.is_floating_point() and (target != labels).any():
        raise ValueError("target must hold whole numbers, the class labels")
    ignored = torch.zeros_like(labels, dtype=torch.bool) if ignore_label is None else labels == ignore_label
    counted = labels.masked_fill(ignored, 0)
    lowest, highest = (int(value) for value in counted.aminmax()) if labels.numel() else (0, 0)
    if lowest < 0 or highest >= classes:
        raise ValueError(
            f"target holds labels from {lowest} to {highest}, outside 0 to {classes - 1}; "
            f"pixels to be left out must carry the ignore_label of the loss, which is {ignore_label}"
        )
    return labels.masked_fill(ignored, -1)


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
