"""Where the gradient goes, and that it is the right one."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from batches import Batch, drawing, random_batch, seeded
from torch import Tensor, nn
from torch.func import functional_call

from ccdcseg.losses import CCDCLoss, CCDCSettings
from ccdcseg.losses.ccdc.neighbourhood import neighbour_offsets, with_neighbours

SMALL = CCDCSettings(
    queries=7, negatives=6, core_threshold=0.7, core_pixels=4, hidden_channels=5, embedding_channels=4
)
FLOWING = replace(SMALL, core_gradient=True, negative_gradient=True)


def made_loss(settings: CCDCSettings = SMALL, classes: int = 3, channels: int = 3) -> CCDCLoss:
    torch.manual_seed(0)
    return drawing(CCDCLoss(channels, classes, **asdict(settings))).double()


def double_batch(spatial: tuple[int, ...] = (4, 4), seed: int = 0) -> Batch:
    features, logits, target = random_batch(spatial, images=1, classes=3, seed=seed)
    return Batch(features.double().requires_grad_(), logits, target)


def gradients(loss: Tensor, features: Tensor, criterion: CCDCLoss) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [features, *criterion.head.parameters()], retain_graph=True))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"region": "pixel"},
        {"region_combination": "concatenate", "denominator": "class_mean"},
        {"query_reduction": "hardest", "class_average": "all_classes"},
        {"query_reduction": "set", "denominator": "class_mean"},
        {"statistics_scope": "global", "shortage": "replace"},
    ],
)
def test_finite_differences_agree(changes: dict[str, Any]) -> None:
    batch, criterion = double_batch(), made_loss(replace(FLOWING, **changes))
    names = [name for name, _ in criterion.named_parameters()]

    def loss_of(features: Tensor, *parameters: Tensor) -> Tensor:
        criterion.generator.manual_seed(0)
        values = dict(zip(names, parameters, strict=True))
        return functional_call(criterion, values, (features, batch.logits, batch.target))

    inputs = (batch.features, *criterion.parameters())
    assert loss_of(*inputs).item() > 0
    assert torch.autograd.gradcheck(loss_of, inputs)


def test_finite_differences_agree_on_a_volume() -> None:
    batch, criterion = double_batch((2, 3, 3)), made_loss(FLOWING)

    def loss_of(features: Tensor) -> Tensor:
        criterion.generator.manual_seed(0)
        return criterion(features, batch.logits, batch.target)

    assert loss_of(batch.features).item() > 0
    assert torch.autograd.gradcheck(loss_of, batch.features)


def reference(criterion: CCDCLoss, features: Tensor, *, core: bool, negatives: bool) -> Tensor:
    """The loss on the pixels last drawn, over a map that is projected whole; gradient where asked for."""
    head, drawn = criterion.head, criterion.selection
    rows = features.movedim(1, -1).flatten(0, -2)
    projected = head.output(F.relu(head.hidden(rows)))
    everywhere = torch.arange(len(rows))
    offsets = neighbour_offsets(criterion.settings.region, 1, features.ndim - 2)
    z = F.normalize(
        projected[
            with_neighbours(everywhere, torch.zeros(len(everywhere)), features.shape[2:], offsets)
        ].mean(1),
        dim=1,
    )
    fixed = z.detach()
    losses = []
    for c, queries in drawn.queries.items():
        k = F.normalize((z if core else fixed)[drawn.core[c]].sum(0), dim=0)
        n = (z if negatives else fixed)[drawn.negatives[c].pixels]
        q = z[queries.pixels]
        scores = torch.cat(((q @ k)[:, None], q @ n.T), 1) / criterion.settings.temperature
        losses.append(F.cross_entropy(scores, torch.zeros(len(q), dtype=torch.int64)))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("core", [False, True])
@pytest.mark.parametrize("negatives", [False, True])
@pytest.mark.parametrize("spatial", [(5, 6), (2, 4, 5)])
def test_gradient_flows_where_the_settings_say(core: bool, negatives: bool, spatial: tuple[int, ...]) -> None:
    """By default through the queries alone."""
    batch = double_batch(spatial)
    criterion = made_loss(replace(SMALL, core_gradient=core, negative_gradient=negatives))
    loss = criterion(*batch)
    found = gradients(loss, batch.features, criterion)
    for core_too in (False, True):
        for negatives_too in (False, True):
            expected = reference(criterion, batch.features, core=core_too, negatives=negatives_too)
            torch.testing.assert_close(expected, loss)
            same = all(
                torch.allclose(a, b)
                for a, b in zip(found, gradients(expected, batch.features, criterion), strict=True)
            )
            assert same is ((core_too, negatives_too) == (core, negatives))


def test_by_default_only_the_regions_of_queries_get_gradient() -> None:
    batch, criterion = double_batch((8, 9)), made_loss()
    found, *_ = gradients(criterion(*batch), batch.features, criterion)
    offsets = neighbour_offsets(criterion.settings.region, 1, 2)
    pixels = torch.cat([queries.pixels for queries in criterion.selection.queries.values()])
    touched = torch.zeros(72, dtype=torch.bool)
    touched[with_neighbours(pixels, torch.zeros(len(touched)), (8, 9), offsets).flatten()] = True
    assert torch.equal(found.abs().sum(1).flatten() > 0, touched)
    assert not touched.all()


def test_logits_get_no_gradient() -> None:
    features, logits, target = double_batch()
    logits.requires_grad_()
    criterion = made_loss(FLOWING)
    loss = criterion(features, logits, target)
    assert torch.autograd.grad(loss, logits, allow_unused=True) == (None,)


@pytest.mark.parametrize("negatives", [False, True])
def test_both_losses_add_up_in_a_network(negatives: bool) -> None:
    """Features that a segmentation layer uses too, behind layers that keep their output."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.InstanceNorm2d(3, affine=True), nn.LeakyReLU(inplace=True)
    ).double()
    segmentation = nn.Conv2d(3, 3, 1).double()
    image = torch.randn(1, 1, 8, 9, dtype=torch.float64, generator=seeded())
    target = double_batch((8, 9)).target
    criterion = made_loss(replace(SMALL, core_threshold=0.3, negative_gradient=negatives))
    features = body(image)
    logits = segmentation(features)
    plain = F.cross_entropy(logits, target)
    contrast = criterion(features, logits, target)
    parameters = [*body.parameters(), *segmentation.parameters()]

    def of(loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]

    rebuilt = reference(criterion, features, core=False, negatives=negatives)
    assert contrast.item() > 0
    torch.testing.assert_close(of(plain + contrast), of(plain + rebuilt))
    torch.testing.assert_close(of(contrast), of(rebuilt))


def test_features_in_low_precision_get_their_gradient_in_low_precision() -> None:
    features, logits, target = random_batch((8, 9), classes=3)
    rounded = features.bfloat16()
    criterion = made_loss().float()
    found = []
    for given in (rounded.clone().requires_grad_(), rounded.float().requires_grad_()):
        criterion.generator.manual_seed(0)
        criterion(given, logits, target).backward()
        found.append(given.grad)
    assert found[0].dtype == torch.bfloat16
    torch.testing.assert_close(found[0].float(), found[1], rtol=0.02, atol=1e-4)
    assert found[1].any()


def test_training_pulls_queries_to_their_core() -> None:
    """Steps on the features themselves raise the similarity with the core above that with negatives."""
    batch, criterion = double_batch((8, 9)), made_loss(replace(SMALL, queries=64, region="pixel"))
    optimizer = torch.optim.Adam([batch.features, *criterion.parameters()], 0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = criterion(*batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seen = criterion.diagnostics
    assert losses[-1] < 0.6 * losses[0]
    assert (seen.positive_similarity > seen.negative_similarity + 0.5).all()


class Tapped(nn.Module):
    """A small network that gives its features beside its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.LeakyReLU())
        self.segmentation = nn.Conv2d(4, 3, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(image)
        return features, self.segmentation(features)


@pytest.mark.slow
def test_a_compiled_network_gets_the_same_gradient() -> None:
    image = torch.randn(2, 1, 8, 9, generator=seeded())
    target = torch.randint(3, (2, 8, 9), generator=seeded())
    torch.manual_seed(0)
    network = Tapped()
    found = []
    for run in (network, torch.compile(network, backend="aot_eager")):
        criterion = made_loss(replace(SMALL, core_threshold=0.3), channels=4).float()
        network.zero_grad()
        features, logits = run(image)
        loss = F.cross_entropy(logits, target) + criterion(features, logits, target)
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in network.parameters())])
        assert criterion.selection.queries
    torch.testing.assert_close(*found)
