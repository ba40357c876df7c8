"""The cross-entropy of one positive among negatives, which CCDC and ReCo share."""

import torch
from torch import Tensor


def info_nce(positive: Tensor, negatives: Tensor) -> Tensor:
    """``-log( e^p / (e^p + sum_j e^{n_j}) )`` of scores, which are similarities over the temperature.

    Args:
        positive: (Q,) scores.
        negatives: (Q, n) scores.

    Returns:
        (Q,) losses; zero without negatives.
    """
    attraction = positive[:, None]
    return torch.logsumexp(torch.cat((attraction, negatives), 1), 1) - attraction[:, 0]
