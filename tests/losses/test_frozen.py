"""A seed gives what it gave when ``frozen.json`` was written: a training can be repeated with later versions."""

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from rivals import CONTRASTIVE, IGNORED, double_batch, made

FILE = Path(__file__).with_name("frozen.json")
CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    **{f"{name} {len(size)}-D": (name, size, {}) for name in CONTRASTIVE for size in ((12, 13), (3, 4, 9))},
    "ccdc whole core": ("ccdc", (12, 13), {"core_pixels": None, "core_gradient": True}),
    "ccdc with replacement": ("ccdc", (12, 13), {"shortage": "replace", "queries": 60}),
    "ccdc left short": ("ccdc", (12, 13), {"shortage": "short", "queries": 60, "threshold": "fixed"}),
    "ccdc no core queries": ("ccdc", (12, 13), {"core_as_queries": False, "negative_strategy": "random"}),
    "ccdc class mean": ("ccdc", (12, 13), {"denominator": "class_mean", "query_reduction": "hardest"}),
    "reco whole classes": ("reco", (12, 13), {"class_pixels": None}),
    "reco few pixels": ("reco", (12, 13), {"class_pixels": 7, "hard_threshold": 0.6}),
    "memory few keys": ("memory", (12, 13), {"positives": 3, "negatives": 4, "region_pixels": 6}),
    "region few pixels": ("region", (12, 13), {"region_pixels": 5}),
}  # fmt: skip


def drawn(criterion: Any) -> list[int]:
    """All that a call drew; of the centres of regions, nothing is kept."""
    if criterion.selection is None:
        return []
    queries, negatives = criterion.selection.queries.values(), criterion.selection.negatives.values()
    parts = [
        *criterion.selection.core.values(),
        *(part for query in queries for part in (query.easy, query.hard)),
        *(part for negative in negatives for part in (negative.pixels, negative.columns)),
    ]
    return [number for part in parts for number in part.flatten().tolist()]


def calls(name: str) -> dict[str, list[float]]:
    """Losses, norms of the gradients and checksums of the draws of three calls."""
    kind, spatial, changes = CASES[name]
    criterion, found = made(kind, ignore=IGNORED, **changes), {"loss": [], "gradient": [], "drawn": []}
    for call in range(3):
        batch = double_batch(spatial, seed=call, ignored=8)
        loss = criterion(*batch)
        gradients = torch.autograd.grad(loss, [batch.features, *criterion.parameters()])
        found["loss"].append(loss.item())
        found["gradient"].append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
        found["drawn"].append(zlib.crc32(json.dumps(drawn(criterion)).encode()))
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_seed_gives_what_it_gave(name: str) -> None:
    found, expected = calls(name), json.loads(FILE.read_text())[name]
    assert found["drawn"] == expected["drawn"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert found["gradient"] == pytest.approx(expected["gradient"], rel=1e-6)
