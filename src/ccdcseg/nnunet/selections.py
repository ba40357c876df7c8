"""Pictures of what the loss drew, kept while it trains."""

import io
from pathlib import Path

import numpy as np
from torch import Tensor

from ccdcseg.files import write_bytes


def save_selection(path: Path, data: Tensor, labels: Tensor, roles: Tensor) -> None:
    """Store the image of a batch with the most foreground, with labels and roles of its pixels.

    Volumes: the slice with the most foreground.

    Args:
        path: of an npz file with ``image`` (H, W) float32, ``label`` and ``role`` (H, W) uint8.
        data: (B, channels, \\*spatial) input; the first channel is shown.
        labels: (B, 1, \\*spatial), perhaps coarser than the input.
        roles: (B, \\*spatial) as the labels, from `selection_map`.
    """
    label = labels[:, 0].cpu().clamp(min=0)
    most = int((label > 0).flatten(1).sum(1).argmax())
    image, label, role = data[most, 0].float().cpu(), label[most], roles[most]
    if label.ndim == 3:
        deepest = int((label > 0).flatten(1).sum(1).argmax())
        image = image[deepest * image.shape[0] // label.shape[0]]
        label, role = label[deepest], role[deepest]
    content = io.BytesIO()
    np.savez_compressed(content, image=image.numpy(), label=label.numpy().astype(np.uint8), role=role.numpy())
    write_bytes(path, content.getvalue())
