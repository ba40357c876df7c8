"""What the CCDC term costs: a training step of nnU-Net with and without it, in one process.

    python benchmarks/loss_overhead.py [--json]

The network is nnU-Net's 2-D plan for ACDC (6 stages, 20 million parameters, 256x224, batch 4) with deep
supervision, cross-entropy and Dice. Logits for the term are those of a half-trained model (planted, since an
untrained one has no core): of every class most pixels are sure, some are not. Steps with and without the term
alternate; the table shows medians. The term's own time is that of a step through a 1x1 segmentation layer with
it less that of the step before without it, at the image size above and at four times its pixels.
"""

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ccdcseg.losses import CCDCLoss
from ccdcseg.nnunet.features import tap_decoder

CLASSES, BATCH, SIZE, THREADS = 4, 4, (256, 224), 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the ratios as JSON on the last line")
    parser.add_argument("--steps", type=int, default=7, help="counted steps of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    times, peaks = network_steps(arguments.steps)
    own = {scale: own_seconds(scale, 4 * arguments.steps) for scale in (1, 2)}
    result = {
        "step_ratio": round(times[True] / times[False], 3),
        "memory_ratio": round(peaks[True] / peaks[False], 3),
        "growth_ratio": round(own[2] / own[1], 3),
    }
    table = Table("", "without", "with CCDC", "ratio", title=f"{THREADS} threads, batch {BATCH}, {SIZE}")
    table.add_row(
        "step, s", f"{times[False]:.3f}", f"{times[True]:.3f}", f"{result['step_ratio']:.3f} (at most 1.05)"
    )
    table.add_row(
        "peak, MiB",
        f"{peaks[False]:.0f}",
        f"{peaks[True]:.0f}",
        f"{result['memory_ratio']:.3f} (at most 1.05)",
    )
    Console().print(table)
    table = Table("", "pixels x1", "pixels x4", "ratio")
    table.add_row(
        "term alone, s", f"{own[1]:.4f}", f"{own[2]:.4f}", f"{result['growth_ratio']:.3f} (the pixels': 4)"
    )
    Console().print(table)
    if arguments.json:
        print(json.dumps(result))


def network_steps(steps: int) -> tuple[dict[bool, float], dict[bool, float]]:
    """Median seconds and MiB of training steps without and with the term."""
    network = plan_network()
    criterion, draws = CCDCLoss(32, CLASSES), torch.Generator().manual_seed(0)
    parameters = [*network.parameters(), *criterion.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    segmentation = deep_supervision(cross_entropy_and_dice())
    data, target, planted = scene(SIZE)
    targets = [target[..., :: 2**i, :: 2**i].float() for i in range(5)]

    def step(with_term: bool) -> None:
        optimizer.zero_grad(set_to_none=True)
        outputs, features = network(data)
        loss = segmentation(outputs, targets)
        if with_term:
            loss = loss + criterion(features, planted, target, generator=draws)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()

    seconds: dict[bool, list[float]] = {False: [], True: []}
    mebibytes: dict[bool, list[float]] = {False: [], True: []}
    for number in range(steps + 1):
        for with_term in (False, True):
            reset_peak()
            passed = timed(lambda: step(with_term))  # noqa: B023 - called at once
            if number:
                seconds[with_term].append(passed)
                mebibytes[with_term].append(peak_mebibytes())
    return (
        {key: statistics.median(values) for key, values in seconds.items()},
        {key: statistics.median(values) for key, values in mebibytes.items()},
    )


def own_seconds(scale: int, steps: int) -> float:
    """Median seconds that the term adds, forward and backward, to a step through a segmentation layer."""
    size = (SIZE[0] * scale, SIZE[1] * scale)
    features = torch.randn(BATCH, 32, *size, requires_grad=True)
    layer = nn.Conv2d(32, CLASSES, 1)
    criterion, draws = CCDCLoss(32, CLASSES), torch.Generator().manual_seed(0)
    _, target, planted = scene(size)

    def step(with_term: bool) -> None:
        features.grad = None
        read = features * 1
        loss = layer(read).mean()
        if with_term:
            loss = loss + criterion(read, planted, target, generator=draws)
        loss.backward()

    added = []
    for number in range(steps + 2):
        without = timed(lambda: step(False))
        with_it = timed(lambda: step(True))
        if number >= 2:
            added.append(with_it - without)
    return statistics.median(added)


def cross_entropy_and_dice() -> nn.Module:
    """nnU-Net's loss."""
    loss: nn.Module = DC_and_CE_loss(
        {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False},
        {},
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    return loss


def deep_supervision(loss: nn.Module, resolutions: int = 5) -> nn.Module:
    """The loss at several resolutions, with nnU-Net's weights."""
    weights = [1 / 2**i for i in range(resolutions - 1)] + [0]
    wrapped: nn.Module = DeepSupervisionWrapper(loss, [w / sum(weights) for w in weights])
    return wrapped


FEATURES = (32, 64, 128, 256, 512, 512)
"""Channels of the stages of nnU-Net's 2-D plan for ACDC."""


def plan_network(features: tuple[int, ...] = FEATURES) -> nn.Module:
    """nnU-Net's network with these channels, whose decoder hands out features."""
    network = PlainConvUNet(
        1,
        len(features),
        features,
        nn.Conv2d,
        3,
        (1, *[2] * (len(features) - 1)),
        2,
        CLASSES,
        2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    return tap_decoder(network, 0).train()


def scene(size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Image, labels and logits: a ring and its pool beside another pool, as in a short-axis slice."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    radius = (y**2 + x**2).sqrt()
    labels = torch.zeros(size, dtype=torch.int64)
    labels[((y**2 + (x + 0.3) ** 2) < 0.08)] = 1
    labels[radius < 0.34] = 2
    labels[radius < 0.24] = 3
    one_hot = nn.functional.one_hot(labels, CLASSES).permute(2, 0, 1).float()
    logits = torch.randn(BATCH, CLASSES, *size) + 5 * one_hot
    image = one_hot.mul(torch.arange(CLASSES)[:, None, None]).sum(0) + torch.randn(BATCH, 1, *size)
    return image, labels.expand(BATCH, 1, *size).contiguous(), logits


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def reset_peak() -> None:
    """Hand freed memory back to Linux, and begin anew the peak that it keeps of this process's resident memory."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_mebibytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
