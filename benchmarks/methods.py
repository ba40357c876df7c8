"""What each method costs: its training step against plain nnU-Net's, in one process at one shape.

    python benchmarks/methods.py [--json] [--steps 5]

Network, planted logits and the handing over of features are those of loss_overhead.py (nnU-Net's 2-D plan for
ACDC, batch 4, 256x224, 4 classes, two threads); memories are full from the start. Steps of the methods
alternate, each turn beginning with the next method; the table shows medians as ratios to plain nnU-Net.
nnFormer is three-dimensional: it gets the same number of voxels as one volume, and is not bound by the limit.
The term of ReCo is also timed alone, forward, at 2x256x64x64 features with 256 queries and 256 negatives of 4
classes.
"""

import argparse
import json
import statistics
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ccdcseg.losses import (
    CCDCLoss,
    ContrastiveSegLoss,
    FocalLoss,
    GDLLoss,
    MCCLoss,
    MemoryBank,
    ReCoLoss,
    RegionContrastLoss,
    TopKLoss,
)
from ccdcseg.losses.parts.base import ContrastiveLoss
from ccdcseg.networks.nnformer import NNFormer
from ccdcseg.nnunet.logits_trainers import SummedLoss
from loss_overhead import (
    BATCH,
    CLASSES,
    SIZE,
    THREADS,
    cross_entropy_and_dice,
    deep_supervision,
    peak_mebibytes,
    plan_network,
    reset_peak,
    scene,
    timed,
)

LIMIT, RECO_LIMIT_S = 1.3, 0.1
VOLUME = (8, 128, 224)
"""As many voxels as the batch has pixels."""

Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the ratios as JSON on the last line")
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each method")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    seconds, peaks = measure(steps_of_methods(), arguments.steps)
    reco = reco_seconds(4 * arguments.steps)
    result = {
        "methods": {
            name: {
                "step_ratio": round(seconds[name] / seconds["nnunet"], 3),
                "memory_ratio": round(peaks[name] / peaks["nnunet"], 3),
            }
            for name in seconds
        },
        "reco_term_seconds": round(reco, 4),
    }
    table = Table(
        "method", "step, s", "ratio", "peak, MiB", "ratio", title=f"{THREADS} threads, {BATCH}x{SIZE}"
    )
    for name, ratios in result["methods"].items():  # type: ignore[attr-defined]
        table.add_row(
            name,
            f"{seconds[name]:.3f}",
            f"{ratios['step_ratio']:.3f}",
            f"{peaks[name]:.0f}",
            f"{ratios['memory_ratio']:.3f}",
        )
    Console().print(table)
    print(f"at most {LIMIT}, except nnFormer; ReCo's term {reco:.4f} s (at most {RECO_LIMIT_S})")
    if arguments.json:
        print(json.dumps(result))


def steps_of_methods() -> dict[str, Step]:
    """A training step of each method, from one network."""
    network, plain = plan_network(), cross_entropy_and_dice()
    data, target, planted = scene(SIZE)
    targets = [target[..., :: 2**i, :: 2**i].float() for i in range(5)]

    def step(loss: nn.Module, term: ContrastiveLoss | None) -> Step:  # type: ignore[type-arg]
        parameters = [*network.parameters(), *(term.parameters() if term else [])]
        optimizer = torch.optim.SGD(parameters, 0.001)
        segmentation = deep_supervision(loss)

        def once() -> None:
            optimizer.zero_grad(set_to_none=True)
            outputs, features = network(data)
            total = segmentation(outputs, targets)
            if term is not None:
                total = total + term(features, planted, target)
            total.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimizer.step()

        return once

    return {
        "nnunet": step(plain, None),
        **{name: step(SummedLoss(plain, loss), None) for name, loss in logits_losses().items()},
        **{name: step(plain, term) for name, term in contrastive_terms().items()},
        "nnformer": nnformer_step(plain),
    }


def logits_losses() -> dict[str, nn.Module]:
    """Every loss on the logits alone, at its defaults."""
    return {"focal": FocalLoss(), "gdl": GDLLoss(), "topk": TopKLoss(), "mcc": MCCLoss()}


def contrastive_terms(channels: int = 32) -> dict[str, ContrastiveLoss]:  # type: ignore[type-arg]
    """Every contrastive loss at its defaults, its memory full."""
    terms: dict[str, ContrastiveLoss] = {  # type: ignore[type-arg]
        "ccdc": CCDCLoss(channels, CLASSES),
        "reco": ReCoLoss(channels, CLASSES),
        "contrastive_seg": ContrastiveSegLoss(channels, CLASSES),
        "contrastive_seg, in batch": ContrastiveSegLoss(channels, CLASSES, memory_length=None),
        "region_contrast": RegionContrastLoss(channels, CLASSES),
    }
    for term in terms.values():
        for bank in term.modules():
            if isinstance(bank, MemoryBank):
                bank.keys.normal_()
                bank.written.fill_(bank.keys.shape[1])
    return terms


def nnformer_step(loss: nn.Module) -> Step:
    """A step of nnFormer at its full size."""
    network = NNFormer(1, CLASSES, VOLUME).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.001)
    data, target = torch.randn(1, 1, *VOLUME), torch.randint(CLASSES, (1, 1, *VOLUME)).float()

    def once() -> None:
        optimizer.zero_grad(set_to_none=True)
        outputs: list[Tensor] = network(data)
        sizes = [output.shape[2:] for output in outputs]
        targets = [nn.functional.interpolate(target, size, mode="nearest-exact") for size in sizes]
        parts: list[Tensor] = [loss(one, other) for one, other in zip(outputs, targets, strict=True)]
        torch.stack(parts).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return once


def measure(steps: dict[str, Step], number: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and MiB of each; the first step of each is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    peaks: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    for turn in range(number + 1):
        for name in [*order[turn % len(order) :], *order[: turn % len(order)]]:
            step = steps[name]
            reset_peak()
            passed = timed(step)
            if turn:
                seconds[name].append(passed)
                peaks[name].append(peak_mebibytes())
    return (
        {name: statistics.median(values) for name, values in seconds.items()},
        {name: statistics.median(values) for name, values in peaks.items()},
    )


def reco_seconds(number: int) -> float:
    """Median forward time of ReCo's term."""
    features = torch.randn(2, 256, 64, 64, requires_grad=True)
    logits, target = torch.randn(2, CLASSES, 64, 64), torch.randint(CLASSES, (2, 1, 64, 64))
    term = ReCoLoss(256, CLASSES)
    times = [timed(lambda: term(features, logits, target)) for _ in range(number + 2)]
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
