"""How the contrastive term pulls at the network while it trains: one training, watched and not changed.

    python study/gradients.py 27 OUTPUT.jsonl [--method ccdc] [--seed 0] [--every 25] [--set ccdc.weight=0.1]

Every few steps a line is written: the norms of the gradients of the segmentation loss and of the weighted term
with respect to the network's weights and to the decoder features that the term reads, the cosine between the two,
and by class the share of queries that lie within two pixels (in the slice) of another class. The gradients are
taken beside the training's own backward pass, which sees neither them nor other random numbers: the training is
the one that `ccdcseg train` with the same options makes, and nothing of it is kept.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.ndimage import maximum_filter, minimum_filter
from torch import Tensor

from ccdcseg.nnunet.runs import resolve_run
from ccdcseg.nnunet.stock import stock_nnunet
from ccdcseg.nnunet.train import _report_steps, _trainer, prepare
from ccdcseg.progress import progress_bars

BOUNDARY_PIXELS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("output", type=Path)
    parser.add_argument("--method", default="ccdc", help="one with a contrastive loss")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=25, help="steps between two lines")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="a setting of the preset")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as results, progress_bars() as report:
        os.environ["nnUNet_results"] = results  # noqa: SIM112 - nnU-Net's spelling
        chosen = (options.dataset, options.method, None, options.seed, options.preset, options.changes)
        run = resolve_run(*chosen)
        run.folder.mkdir(parents=True)
        trainer = _trainer(run, prepare(run, 1, report), "cpu")
        with stock_nnunet():
            trainer.initialize()
            watch(trainer, options.output, options.every)
            _report_steps(trainer, report)
            trainer.run_training()


def watch(trainer: Any, output: Path, every: int) -> None:
    """Let a trainer append what it is asked for to ``output``."""
    compute, calls = trainer.compute_losses, 0

    def watched(out: Any, target: Any, data: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        losses: dict[str, Tensor] = compute(out, target, data)
        if calls % every == 0 and losses["contrastive_loss"].item():
            line = {"iteration": calls, **gradients(trainer, out[1], losses), **at_boundary(trainer)}
            with output.open("a") as file:
                file.write(json.dumps(line) + "\n")
        calls += 1
        return losses

    trainer.compute_losses = watched


def gradients(trainer: Any, features: Tensor, losses: dict[str, Tensor]) -> dict[str, float]:
    """Norms, and the cosine, of both losses' gradients at the weights that both reach and at the features."""
    weights = [weight for weight in trainer.network.parameters() if weight.requires_grad]
    segmentation = flat_gradient(losses["segmentation_loss"], weights)
    contrastive = flat_gradient(losses["contrastive_loss"], weights)
    shared = (segmentation != 0) & (contrastive != 0)
    (at_features,) = torch.autograd.grad(losses["contrastive_loss"], [features], retain_graph=True)
    dense = at_features.to_dense() if at_features.is_sparse else at_features
    cosine = torch.nn.functional.cosine_similarity(segmentation[shared], contrastive[shared], dim=0)
    return {
        "segmentation_norm": float(segmentation.norm()),
        "contrastive_norm": float(contrastive.norm()),
        "cosine": float(cosine),
        "contrastive_norm_at_features": float(dense.norm()),
    }


def flat_gradient(loss: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Gradient at all weights in one vector, zero where the loss does not reach."""
    found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(weight) if gradient is None else gradient).flatten()
            for weight, gradient in zip(weights, found, strict=True)
        ]
    )


def at_boundary(trainer: Any) -> dict[str, dict[int, float]]:
    """By class the share of easy and of hard queries, and of all pixels, near another class."""
    selection, (_, labels) = trainer._criterion.selection, trainer.last_batch
    plane = labels[:, 0].numpy()
    size = (*[1] * (plane.ndim - 2), 2 * BOUNDARY_PIXELS + 1, 2 * BOUNDARY_PIXELS + 1)
    near = torch.from_numpy(maximum_filter(plane, size) != minimum_filter(plane, size)).flatten()
    classes = torch.from_numpy(plane).flatten()
    shares: dict[str, dict[int, float]] = {"easy": {}, "hard": {}, "all": {}}
    for c, queries in selection.queries.items():
        for name, pixels in (("easy", queries.easy), ("hard", queries.hard), ("all", classes == c)):
            if len(near[pixels]):
                shares[name][c] = float(near[pixels].float().mean())
    return {f"near_boundary_{name}": values for name, values in shares.items()}


if __name__ == "__main__":
    main()
