"""What each of two processes does in the tests of distributed training, and the batches they do it with."""

from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from batches import Batch, drawing, random_batch, seeded
from rivals import IGNORED, KINDS, banks, made
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ccdcseg.losses import CCDCLoss, CCDCSettings, MemoryBank, StatisticsScope
from ccdcseg.losses.ccdc.core import core_representations
from ccdcseg.losses.logits import MCCLoss
from ccdcseg.losses.parts.class_statistics import class_statistics

WORLD = 2
GLOBAL = CCDCSettings(
    queries=500,
    negatives=40,
    core_threshold=0.8,
    core_pixels=None,
    region="pixel",
    negative_gradient=True,
    statistics_scope="global",
    hidden_channels=6,
    embedding_channels=4,
)
RANK = replace(GLOBAL, statistics_scope="rank")


def half(batch: Batch, rank: int) -> Batch:
    """The image of one rank."""
    return Batch(*(maps[rank : rank + 1] for maps in batch))


def joined(surest: tuple[float, float] = (6, 4)) -> Batch:
    """One image for each rank, on which drawing makes no difference to the loss.

    Class 0 has a feature vector for every pixel, and all of its pixels are queries; classes 1 and 2 have no
    core, and one feature vector each. Confusion differs between the ranks, and so does the share of the core.
    """
    torch.manual_seed(1)
    target = torch.arange(60).remainder(3).view(1, 1, 6, 10).repeat(2, 1, 1, 1)[:, 0]
    features = torch.randn(2, 3, 6, 10)
    for label in (1, 2):
        features.movedim(1, -1)[target == label] = torch.randn(3)
    logits = 0.5 * torch.randn(2, 3, 6, 10)
    is_first = target == 0
    for rank, confused_with in enumerate((1, 2)):
        logits[rank, 0][is_first[rank]] += torch.linspace(0, surest[rank], 20)
        logits[rank, confused_with][is_first[rank]] += 1.5
    return Batch(features.double(), logits, target)


def core_on_one_rank() -> Batch:
    """The same, but the second rank is nowhere sure enough of the query class."""
    return joined((6, 1))


def uneven() -> Batch:
    """The same, but the second rank holds no pixel of the query class."""
    features, logits, target = joined()
    target[1][target[1] == 0] = 1
    features.movedim(1, -1)[target == 1] = features[0, :, 0, 1].clone()
    return Batch(features, logits, target)


def made_loss(settings: CCDCSettings, classes: int = 3) -> CCDCLoss:
    torch.manual_seed(0)
    return drawing(CCDCLoss(3, classes, **asdict(settings))).double()


def step(criterion: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Loss and gradients of one call: of the parameters, and of the features of the query class."""
    features = batch.features.clone().requires_grad_()
    loss = criterion(features, batch.logits, batch.target)
    loss.backward()
    found = {name.removeprefix("module."): p.grad.clone() for name, p in criterion.named_parameters()}
    of_queries = features.grad.movedim(1, -1)[batch.target == 0]
    return {"loss": loss.detach(), "features": of_queries, **found}


def statistics_of(batch: Batch, scope: StatisticsScope) -> dict[str, Tensor]:
    found = class_statistics(batch.logits.softmax(1).flatten(2), batch.target.flatten(1), scope)
    return {"matrix": found.matrix, "counts": found.counts}


def core_parts(rank: int) -> tuple[list[Tensor], list[int]]:
    """Core representations of three classes, and how many core pixels each was drawn from.

    The second rank drew a third of its core; it has none of the second class, and nobody has of the third.
    """
    sizes, of_all = (((5, 3, 0), 1), ((2, 0, 0), 3))[rank]
    units = torch.nn.functional.normalize(torch.randn(2, 3, 5, 4, generator=seeded()), dim=-1)[rank]
    return [part[:size] for part, size in zip(units, sizes, strict=True)], [of_all * size for size in sizes]


def correlation(batch: Batch) -> dict[str, Tensor]:
    """Matthews' correlation loss over all ranks, and its gradient at this rank's logits."""
    logits = batch.logits.double().requires_grad_()
    loss = MCCLoss(scope="global")(logits, batch.target)
    loss.backward()
    return {"loss": loss.detach(), "gradient": logits.grad}


def broken(batch: Batch) -> Batch:
    batch.logits[1] = torch.nan
    return batch


def with_an_empty_rank(batch: Batch, rank: int) -> Batch:
    """The image of the first rank; none for the second."""
    return half(batch, rank) if rank == 0 else Batch(*(maps[:0] for maps in batch))


def broken_features(batch: Batch) -> Batch:
    batch.features[1, 0, 0, 0] = torch.nan
    return batch


PUSHES = ((5, 2), (0, 4), (3, 0), (0, 0), (9, 1))
"""How many keys either rank pushes, time after time."""


def keys_to_push(time: int, rank: int) -> tuple[Tensor, Tensor]:
    """Keys and classes, all different."""
    generator, count = seeded(10 * time + rank), PUSHES[time][rank]
    return torch.randn(count, 3, generator=generator), torch.randint(4, (count,), generator=generator)


def pushed(rank: int | None) -> list[dict[str, Tensor]]:
    """The memory after every push; None: of one process that pushes for both."""
    bank, found = MemoryBank(4, 3, 3), []
    for time in range(len(PUSHES)):
        parts = [keys_to_push(time, r) for r in (range(WORLD) if rank is None else [rank])]
        bank.push(*(torch.cat(part) for part in zip(*parts, strict=True)))
        found.append(banks(bank))
    return found


def evaluated(batch: Batch) -> dict[str, Tensor]:
    """Values of an evaluation, as where one rank validates while the others train."""
    with torch.no_grad():
        values = {
            "ccdc": made_loss(GLOBAL)(*batch),
            "mcc": MCCLoss(scope="global")(batch.logits, batch.target),
        }
    return values | {"eval": made_loss(GLOBAL).eval()(*batch)}


def rival_batches(case: str) -> list[Batch]:
    """For two steps, of an image for each rank; the second rank never sees the last class."""
    found = []
    for seed in (1, 2):
        features, logits, target = random_batch((8, 9), seed=seed)
        target[1][target[1] == 3] = 0
        if case == "idle":
            target[1] = IGNORED
        if case == "broken":
            logits[1] = torch.nan
        found.append(Batch(features.double(), logits, target))
    return found


def rival_step(criterion: torch.nn.Module, batch: Batch) -> dict[str, Any]:
    """Loss, gradients of the head, and the memory afterwards."""
    criterion.zero_grad()
    loss = criterion(batch.features.clone().requires_grad_(), batch.logits, batch.target)
    loss.backward()
    inner = getattr(criterion, "module", criterion)
    gradients = {name: p.grad.clone() for name, p in inner.named_parameters()}
    return {"loss": loss.detach(), "gradients": gradients, "banks": banks(inner)}


def rival_steps(name: str, case: str, rank: int) -> list[dict[str, Any]]:
    criterion = DistributedDataParallel(made(name, ignore=IGNORED))
    return [rival_step(criterion, half(batch, rank)) for batch in rival_batches(case)]


RIVALS = [(name, case) for name in KINDS for case in ("both", "idle", "broken")]


def work(rank: int, folder: Path) -> None:
    """Everything one process does; its results go into a file."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    mine, unsure, lonely = (half(batch(), rank) for batch in (joined, core_on_one_rank, uneven))
    parts, sizes = core_parts(rank)
    validated = evaluated(mine) if rank == 0 else {}
    results: dict[str, Any] = {
        "validated": validated,
        "statistics": statistics_of(mine, StatisticsScope.GLOBAL),
        "statistics of the rank": statistics_of(mine, StatisticsScope.RANK),
        "cores": core_representations(parts, sizes, StatisticsScope.GLOBAL),
        "step": step(DistributedDataParallel(made_loss(GLOBAL)), mine),
        "step with core on one rank": step(DistributedDataParallel(made_loss(GLOBAL)), unsure),
        "step of the rank": step(DistributedDataParallel(made_loss(RANK)), mine),
        "step without query class": step(DistributedDataParallel(made_loss(GLOBAL)), lonely),
        "step of the rank without query class": step(DistributedDataParallel(made_loss(RANK)), lonely),
        "correlation": correlation(mine),
        "correlation with an empty rank": correlation(with_an_empty_rank(joined(), rank)),
        "step with an empty rank": step(
            DistributedDataParallel(made_loss(GLOBAL)), with_an_empty_rank(joined(), rank)
        ),
        "broken": made_loss(GLOBAL)(*half(broken(joined()), rank)),
        "broken features": made_loss(GLOBAL)(*half(broken_features(joined()), rank)),
        "broken features without a mask": made_loss(GLOBAL)(
            *half(broken_features(joined()), rank), annotated=1 - rank
        ),
        "pushed": pushed(rank),
        "rivals": {pair: rival_steps(*pair, rank) for pair in RIVALS},
    }
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()
