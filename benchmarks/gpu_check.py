"""Whether a GPU trains as a CPU does, and what the paper's set-up takes on it: under eight minutes, one JSON.

    python benchmarks/gpu_check.py                          # gpu_check.json: the first CUDA GPU
    python benchmarks/gpu_check.py --device cpu --small     # tiny, in seconds: that the script runs

In the order of its sections, each of which is left out where the time is over or memory does not suffice:

- draws: every contrastive loss on this device and on the CPU from one seed: the same pixels, the same value
- training: nnU-Net and CCDC from one seed on the same batches, 56 of 256x224 in float16 with a gradient scaler
- methods: step and peak memory of every loss against nnU-Net's, and the hours of the paper's 250,000 steps
- dense: the same for CCDC with the head on the whole map rather than on the pixels drawn
- compile: steps with the network under torch.compile and without
- processes: two with DistributedDataParallel, where there are two GPUs

Network, losses and planted logits are those of loss_overhead.py and methods.py; images are made up.
"""

import argparse
import contextlib
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

import ccdcseg
from ccdcseg.losses import CCDCLoss
from ccdcseg.nnunet.logits_trainers import SummedLoss
from loss_overhead import (
    CLASSES,
    FEATURES,
    cross_entropy_and_dice,
    deep_supervision,
    peak_mebibytes,
    plan_network,
    reset_peak,
    scene,
)
from methods import contrastive_terms, logits_losses

FORMAT = "ccdcseg-gpu-check/1"
PAPER_STEPS = 250_000
GOAL = 1.02
"""What step and memory with the term may be of those without."""

Section = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is computed.

    Attributes:
        batch: images of a step.
        size: of an image.
        features: channels of the network's stages.
        steps: of the two trainings.
        timed: steps of each method that are timed.
        seconds: after which no section is begun.
        compiler: of torch.compile.
    """

    batch: int = 56
    size: tuple[int, int] = (256, 224)
    features: tuple[int, ...] = FEATURES
    steps: int = 200
    timed: int = 12
    seconds: float = 420
    compiler: str = "inductor"


SMALL = Scale(2, (64, 48), (8, 16, 16), steps=4, timed=1, compiler="eager")


@dataclass(frozen=True)
class Batch:
    """Images, labels and planted logits."""

    images: Tensor
    labels: Tensor
    planted: Tensor


class Model:
    """A network with a loss, its optimiser and, on CUDA, float16 with a gradient scaler."""

    def __init__(
        self, scale: Scale, device: torch.device, loss: nn.Module | None = None, term: nn.Module | None = None
    ) -> None:
        torch.manual_seed(0)
        self.device, self.term, self.draws = device, term, seeded()
        self.network: Any = plan_network(scale.features).to(device)
        plain = cross_entropy_and_dice()
        parts = len(scale.features) - 1
        self.loss = deep_supervision(plain if loss is None else SummedLoss(plain, loss), parts)
        self.parameters = [*self.network.parameters(), *(term.to(device).parameters() if term else [])]
        self.optimizer = torch.optim.SGD(self.parameters, 0.01, momentum=0.99, nesterov=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")

    def step(self, batch: Batch, logits: Tensor | None = None) -> Tensor:
        """One of the training; its loss stays on the device. The term takes these logits, or the network's."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.float16, enabled=self.scaler.is_enabled()):
            outputs, features = self.network(batch.images)
            outputs = [output.float() for output in outputs]
            targets = [batch.labels[..., :: 2**i, :: 2**i].float() for i in range(len(outputs))]
            loss: Tensor = self.loss(outputs, targets)
            if self.term is not None:
                seen = outputs[0] if logits is None else logits
                loss = loss + self.term(features, seen, batch.labels, generator=self.draws)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters, 12)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny images and networks")
    parser.add_argument(
        "--processes", type=int, help="of the last section; as many as there are GPUs, at most 2"
    )
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"))
    chosen = parser.parse_args(arguments)
    device, scale = torch.device(chosen.device), SMALL if chosen.small else Scale()
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    result = check(device, scale, min(2, gpus) if chosen.processes is None else chosen.processes)
    chosen.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Written: {chosen.output}")


def check(device: torch.device, scale: Scale, processes: int) -> Section:
    """All sections, by name."""
    begun = time.monotonic()
    sections: dict[str, Callable[[], Section]] = {
        "draws": lambda: draws(device, scale),
        "training": lambda: training(device, scale),
        "methods": lambda: methods(device, scale),
        "dense": lambda: dense(device, scale),
        "compile": lambda: compiled(device, scale),
        "processes": lambda: several(device, scale, processes),
    }
    result: Section = {"format": FORMAT, "environment": environment(device), "scale": asdict(scale)}
    for name, section in sections.items():
        left = scale.seconds - (time.monotonic() - begun)
        result[name] = attempted(section) if left > 0 else {"not_measured": "the time was over"}
        print(f"{name}: {json.dumps(result[name])}", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return {**result, "seconds": round(time.monotonic() - begun, 1)}


def attempted(section: Callable[[], Section]) -> Section:
    try:
        return section()
    except torch.OutOfMemoryError as error:
        return {"not_measured": f"memory did not suffice: {str(error).splitlines()[0]}"}


def environment(device: torch.device) -> Section:
    cuda = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if cuda else None
    return {
        "device": properties.name if properties else f"cpu, {torch.get_num_threads()} threads",
        "memory_mebibytes": properties.total_memory // 2**20 if properties else None,
        "precision": "float16" if cuda else "float32",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "python": platform.python_version(),
        "ccdcseg": ccdcseg.__version__,
    }


def batches(scale: Scale, device: torch.device) -> Iterator[Batch]:
    """Without end, and the same each time; made on the CPU."""
    generator = torch.Generator().manual_seed(0)
    labels = scene(scale.size)[1][0, 0]
    while True:
        moves = torch.randint(-8, 9, (scale.batch, 2), generator=generator).tolist()
        target = torch.stack([labels.roll(move, (0, 1)) for move in moves])
        one_hot = F.one_hot(target, CLASSES).movedim(-1, 1).float()
        noise = torch.randn(scale.batch, CLASSES + 1, *scale.size, generator=generator)
        yield Batch(
            (target[:, None] + noise[:, :1]).to(device),
            target[:, None].to(device),
            (noise[:, 1:] + 5 * one_hot).to(device),
        )


def draws(device: torch.device, scale: Scale) -> Section:
    """Of every contrastive loss: are the pixels the CPU's, and how far is the value from it."""
    batch = next(batches(scale, torch.device("cpu")))
    features = torch.randn(
        scale.batch, scale.features[0], *scale.size, generator=torch.Generator().manual_seed(1)
    )
    found = {}
    for name in contrastive_terms():
        places = (torch.device("cpu"), device)
        values, pixels = zip(*(drawn(name, features, batch, place) for place in places), strict=True)
        found[name] = {
            "same_pixels": pixels[0] == pixels[1],
            "relative_difference": abs(values[1] - values[0]) / abs(values[0]),
        }
    return found


def drawn(name: str, features: Tensor, batch: Batch, device: torch.device) -> tuple[float, list[list[int]]]:
    """Value and queries of a loss."""
    torch.manual_seed(0)
    term = contrastive_terms(features.shape[1])[name].to(device)
    given = (part.to(device) for part in (features, batch.planted, batch.labels))
    value = term(*given, generator=seeded()).item()
    queries = term.selection.queries.values() if term.selection else []
    return value, [query.pixels.tolist() for query in queries]


def training(device: torch.device, scale: Scale) -> Section:
    """nnU-Net and CCDC on the same batches."""
    found: Section = {}
    for name in ("nnunet", "ccdc"):
        term = CCDCLoss(scale.features[0], CLASSES, core_threshold=0)  # a core from the first step on
        model, losses, sums = Model(scale, device, term=term if name == "ccdc" else None), [], []
        begun = time.monotonic()
        for batch in islice(cycle(islice(batches(scale, device), 4)), scale.steps):
            losses.append(model.step(batch))
            sums.append(batch.images.double().sum())
        values, checks = torch.stack(losses).tolist(), torch.stack(sums).tolist()
        found[name] = {
            "finite": all(abs(value) < float("inf") for value in values),
            "first_loss": values[0],
            "last_loss": statistics.fmean(values[-10:]),
            "scale": model.scaler.get_scale() if model.scaler.is_enabled() else None,
            "seconds": round(time.monotonic() - begun, 2),
            "batches": checks[:: max(1, len(checks) // 4)],
        }
    equal = found["nnunet"]["batches"] == found["ccdc"]["batches"]
    return {**found, "equal_batches": equal}


def methods(device: torch.device, scale: Scale) -> Section:
    """Step, peak memory and the paper's hours of every loss."""
    terms, losses = contrastive_terms(scale.features[0]), logits_losses()
    batch = next(batches(scale, device))
    found: dict[str, Section] = {}
    for name in ["nnunet", *losses, *terms, "nnunet again"]:
        model = Model(scale, device, losses.get(name), terms.get(name))
        found[name] = measured(partial(model.step, batch, batch.planted), device, scale.timed)
    return {name: {**one, **ratios(one, found["nnunet"])} for name, one in found.items()}


def dense(device: torch.device, scale: Scale) -> Section:
    """CCDC that projects the whole map."""
    batch, found = next(batches(scale, device)), {}
    for name in ("drawn", "whole_map"):
        term = CCDCLoss(scale.features[0], CLASSES)
        if name == "whole_map":
            term.head.forward = WholeMap(term.head)  # type: ignore[method-assign]
        model = Model(scale, device, term=term)
        found[name] = measured(partial(model.step, batch, batch.planted), device, scale.timed)
    return {**found, **ratios(found["whole_map"], found["drawn"])}


class WholeMap:
    """A head that projects every pixel, once for each map of features, and then reads those drawn."""

    def __init__(self, head: Any) -> None:
        self.head = head
        self.seen = self.found = torch.empty(0)

    def __call__(self, features: Tensor, pixels: Tensor, *, concatenate: bool = False) -> Tensor:
        assert not concatenate
        if self.seen is not features:
            with torch.enable_grad():
                vectors = features.movedim(1, -1).flatten(0, -2)
                self.found = self.head._output(self.head._hidden(vectors))
            self.seen = features
        found = self.found if torch.is_grad_enabled() else self.found.detach()
        return F.normalize(found[pixels].mean(1), dim=1)


def compiled(device: torch.device, scale: Scale) -> Section:
    """nnU-Net with CCDC, its network compiled and not."""
    batch, found = next(batches(scale, device)), {}
    for name in ("off", "on"):
        model = Model(scale, device, term=CCDCLoss(scale.features[0], CLASSES))
        if name == "on":
            model.network = torch.compile(model.network, backend=scale.compiler, fullgraph=True)
        begun = time.monotonic()
        model.step(batch, batch.planted).item()
        first = round(time.monotonic() - begun, 2)
        own = measured(partial(model.step, batch, batch.planted), device, scale.timed)
        found[name] = {"first_step_seconds": first, **own}
    return {**found, **ratios(found["on"], found["off"])}


def several(device: torch.device, scale: Scale, processes: int) -> Section:
    """Processes that train together: are their weights equal, and how long does a step take."""
    if processes < 2:
        return {"not_measured": "there are no two GPUs"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        arguments = (processes, device.type, scale, result)
        spawn(one_of_several, arguments, processes)  # type: ignore[no-untyped-call]
        found: Section = json.loads(result.read_text())
    return found


def one_of_several(rank: int, processes: int, kind: str, scale: Scale, result: Path) -> None:
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    backend, place = ("nccl" if kind == "cuda" else "gloo"), f"file://{result.parent}/meeting"
    dist.init_process_group(backend, init_method=place, rank=rank, world_size=processes)
    ids = [rank] if kind == "cuda" else None
    term = CCDCLoss(scale.features[0], CLASSES).to(device)
    model = Model(scale, device, term=DistributedDataParallel(term, ids, broadcast_buffers=False))
    model.draws = seeded(rank)
    # The coarsest output has weight 0 in nnU-Net's deep supervision.
    model.network = DistributedDataParallel(model.network, ids, find_unused_parameters=True)
    batch = next(batches(scale, device))
    found = measured(partial(model.step, batch, batch.planted), device, scale.timed)
    weights = torch.cat([p.detach().flatten() for p in model.parameters])
    highest, lowest = weights.clone(), weights.clone()
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    dist.all_reduce(lowest, dist.ReduceOp.MIN)
    if rank == 0:
        equal = bool((highest == lowest).all())
        result.write_text(json.dumps({"processes": processes, "equal_weights": equal, **found}))
    dist.destroy_process_group()


def measured(step: Callable[[], Tensor], device: torch.device, number: int) -> Section:
    """Median seconds and peak MiB of a step; the first two are not counted."""
    seconds, peaks = [], []
    for turn in range(number + 2):
        with contextlib.suppress(OSError):  # Linux alone tells the peak of a process
            torch.cuda.reset_peak_memory_stats(device) if device.type == "cuda" else reset_peak()
        begun = time.perf_counter()
        step().item()  # waits for the step
        if turn >= 2:
            seconds.append(time.perf_counter() - begun)
            peaks.append(peak_of(device))
    known = [peak for peak in peaks if peak is not None]
    return {
        "step_seconds": statistics.median(seconds),
        "peak_mebibytes": round(statistics.median(known), 1) if known else None,
        "hours_of_250000_steps": round(statistics.median(seconds) * PAPER_STEPS / 3600, 2),
    }


def peak_of(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_mebibytes() if Path("/proc/self/status").exists() else None


def ratios(one: Section, other: Section) -> Section:
    """Step and memory of one against another's, and whether both are within the goal."""
    step = one["step_seconds"] / other["step_seconds"]
    memory = one["peak_mebibytes"] / other["peak_mebibytes"] if other["peak_mebibytes"] else None
    within = step <= GOAL and (memory is None or memory <= GOAL)
    return {"step_ratio": round(step, 3), "memory_ratio": memory and round(memory, 3), "within_goal": within}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
