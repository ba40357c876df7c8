"""Two gloo processes against one process on the joined batch."""

from typing import Any

import pytest
import ranks
import torch
from ranks import GLOBAL, WORLD, Batch
from rivals import IGNORED, KINDS, made
from torch import Tensor, multiprocessing

from ccdcseg.losses import StatisticsScope
from ccdcseg.losses.ccdc.core import core_representations

Results = dict[str, Any]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    """What the two ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(ranks.work, (folder,), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.fixture
def joined() -> Batch:
    return ranks.joined()


def head_of(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in found.items() if name.startswith("head.")}


def differ(first: Tensor, second: Tensor) -> bool:
    return not torch.allclose(first, second, rtol=1e-4)


def test_global_statistics_are_those_of_the_joined_batch(results: list[Results], joined: Batch) -> None:
    expected = ranks.statistics_of(joined, StatisticsScope.RANK)
    for rank, found in enumerate(results):
        torch.testing.assert_close(found["statistics"], expected)
        alone = ranks.statistics_of(ranks.half(joined, rank), StatisticsScope.RANK)
        torch.testing.assert_close(found["statistics of the rank"], alone)
        assert differ(alone["matrix"], expected["matrix"])


def test_the_global_core_is_that_of_the_joined_batch(results: list[Results]) -> None:
    (first, sizes), (second, more) = ranks.core_parts(0), ranks.core_parts(1)
    # Each core pixel that the second rank drew stands for three.
    together = [torch.cat((a, b, b, b)) for a, b in zip(first, second, strict=True)]
    counts = [a + b for a, b in zip(sizes, more, strict=True)]
    assert counts == [len(part) for part in together]
    expected = core_representations(together, counts, StatisticsScope.RANK)
    alone = core_representations(first, sizes, StatisticsScope.RANK)
    assert differ(alone[0], expected[0])
    assert not expected[2].any()
    for found in results:
        torch.testing.assert_close(found["cores"], expected)


@pytest.mark.parametrize(
    ("name", "batch"),
    [("step", ranks.joined()), ("step with core on one rank", ranks.core_on_one_rank())],
)
def test_loss_and_gradients_are_those_of_the_joined_batch(
    results: list[Results], name: str, batch: Batch
) -> None:
    expected = ranks.step(ranks.made_loss(GLOBAL), batch)
    losses = [found[name]["loss"] for found in results]
    torch.testing.assert_close(sum(losses) / WORLD, expected["loss"])
    for found in results:
        torch.testing.assert_close(head_of(found[name]), head_of(expected))
    # Each rank's loss is the mean over its own half of the queries.
    both = torch.cat([found[name]["features"] for found in results])
    torch.testing.assert_close(both / WORLD, expected["features"])
    assert differ(losses[0], losses[1])


def test_with_the_statistics_of_each_rank_they_are_not(results: list[Results], joined: Batch) -> None:
    expected = ranks.step(ranks.made_loss(GLOBAL), joined)
    found = [result["step of the rank"] for result in results]
    assert differ(sum(one["loss"] for one in found) / WORLD, expected["loss"])
    for name, gradient in head_of(found[0]).items():
        assert differ(gradient, expected[name])
        torch.testing.assert_close(gradient, found[1][name])


@pytest.mark.parametrize("name", ["step without query class", "step of the rank without query class"])
def test_a_rank_without_query_class_keeps_up(results: list[Results], name: str) -> None:
    """DistributedDataParallel halves the gradient of the one rank that has queries."""
    batch = ranks.uneven()
    expected = ranks.step(ranks.made_loss(GLOBAL), batch)
    busy, idle = (found[name] for found in results)
    assert busy["loss"].item() > 0
    assert idle["loss"].item() == 0
    assert len(idle["features"]) == 0
    torch.testing.assert_close(head_of(idle), head_of(busy))
    if name == "step without query class":
        torch.testing.assert_close(busy["loss"], expected["loss"])
        torch.testing.assert_close({n: 2 * g for n, g in head_of(busy).items()}, head_of(expected))


def test_a_rank_without_core_has_no_queries_by_itself() -> None:
    """What the batch with the core on one rank is there for."""
    criterion = ranks.made_loss(GLOBAL)
    criterion(*ranks.half(ranks.core_on_one_rank(), 1))
    assert not criterion.selection.queries
    assert criterion.diagnostics.confidence[0].item() > 0


def test_an_evaluation_of_one_rank_is_its_own(results: list[Results], joined: Batch) -> None:
    """It waits for no other, and what comes after it is as if it had not been: the other tests."""
    torch.testing.assert_close(results[0]["validated"], ranks.evaluated(ranks.half(joined, 0)))


def test_broken_logits_on_one_rank_are_known_to_both(results: list[Results]) -> None:
    for case in ("broken", "broken features", "broken features without a mask"):
        assert all(found[case].isnan() for found in results)


def test_an_empty_rank_adds_nothing_and_stops_nobody(results: list[Results], joined: Batch) -> None:
    alone = ranks.half(joined, 0)
    correlation, step = ranks.correlation(alone), ranks.step(ranks.made_loss(GLOBAL), alone)
    for found in results:
        torch.testing.assert_close(found["correlation with an empty rank"]["loss"], correlation["loss"])
    first, second = (found["step with an empty rank"] for found in results)
    torch.testing.assert_close(first["loss"], step["loss"])
    assert second["loss"].item() == 0
    for name, gradient in head_of(step).items():
        torch.testing.assert_close(first[name] * WORLD, gradient)


def test_on_these_batches_drawing_makes_no_difference(joined: Batch) -> None:
    for batch in (joined, ranks.core_on_one_rank(), ranks.uneven()):
        first, other = ranks.made_loss(GLOBAL), ranks.made_loss(GLOBAL)
        other.generator.manual_seed(1)
        torch.testing.assert_close(ranks.step(other, batch), ranks.step(first, batch))
        assert first.selection.queries.keys() == {0}
        assert not torch.equal(first.selection.negatives[0].pixels, other.selection.negatives[0].pixels)


def test_matthews_correlation_over_all_ranks_is_that_of_the_joined_batch(
    results: list[Results], joined: Batch
) -> None:
    expected = ranks.correlation(joined)
    alone = ranks.correlation(ranks.half(joined, 0))
    assert differ(alone["loss"], expected["loss"])
    for rank, found in enumerate(results):
        torch.testing.assert_close(found["correlation"]["loss"], expected["loss"])
        averaged = found["correlation"]["gradient"] / WORLD  # as DistributedDataParallel averages gradients
        torch.testing.assert_close(averaged, expected["gradient"][rank : rank + 1])


def test_the_memory_is_that_of_one_process_pushing_for_both(results: list[Results]) -> None:
    """Those of the first rank, then those of the second; uneven, and from one rank none."""
    expected = ranks.pushed(rank=None)
    for found in results:
        torch.testing.assert_close(found["pushed"], expected, rtol=0, atol=0)
    assert expected[-1]["written"].sum() == sum(sum(counts) for counts in ranks.PUSHES)


def alone(name: str, case: str, rank: int, memory: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Two steps of one process, the memory of both ranks put in between."""
    first, second = (ranks.half(batch, rank) for batch in ranks.rival_batches(case))
    criterion = made(name, ignore=IGNORED)
    steps = [ranks.rival_step(criterion, first)]
    criterion.load_state_dict({**criterion.state_dict(), **memory})
    return [*steps, ranks.rival_step(criterion, second)]


@pytest.mark.parametrize(("name", "case"), ranks.RIVALS)
def test_both_ranks_of_a_rival_hold_the_same(results: list[Results], name: str, case: str) -> None:
    first, second = (found["rivals"][name, case] for found in results)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one["gradients"], other["gradients"], rtol=0, atol=0)
        torch.testing.assert_close(one["banks"], other["banks"], rtol=0, atol=0)
    assert all(gradient.isfinite().all() for gradient in first[1]["gradients"].values())
    assert any(gradient.any() for gradient in first[1]["gradients"].values())


@pytest.mark.parametrize(("name", "case"), ranks.RIVALS)
def test_losses_and_gradients_of_a_rival_are_those_of_both_ranks(
    results: list[Results], name: str, case: str
) -> None:
    """A rank without anchors, or with broken logits, adds nothing and keeps up."""
    found = [result["rivals"][name, case] for result in results]
    expected = [alone(name, case, rank, found[rank][0]["banks"]) for rank in range(WORLD)]
    for step in range(2):
        for rank in range(WORLD):
            torch.testing.assert_close(
                found[rank][step]["loss"], expected[rank][step]["loss"], equal_nan=True
            )
        for parameter, gradient in found[0][step]["gradients"].items():
            mean = sum(one[step]["gradients"][parameter] for one in expected) / WORLD
            torch.testing.assert_close(gradient, mean)
    assert found[0][1]["loss"].item() > 0
    second = found[1][1]["loss"]
    assert {"both": second > 0, "idle": second == 0, "broken": second.isnan()}[case].item()


@pytest.mark.parametrize("case", ["both", "idle", "broken"])
@pytest.mark.parametrize(
    ("name", "bank"), [("region", "memory"), ("memory", "pixels"), ("memory", "regions")]
)
def test_the_memory_of_a_rival_takes_the_keys_of_both_ranks(
    results: list[Results], name: str, bank: str, case: str
) -> None:
    found = results[0]["rivals"][name, case][0]["banks"]
    parts = [alone(name, case, rank, found)[0]["banks"] for rank in range(WORLD)]
    for c in range(4):
        own = [part[f"{bank}.keys"][c, : int(part[f"{bank}.written"][c])] for part in parts]
        together, written = torch.cat(own), int(found[f"{bank}.written"][c])
        assert written == len(together)
        torch.testing.assert_close(found[f"{bank}.keys"][c, :written], together)
        assert len(own[0]) > 0
        assert (len(own[1]) > 0) is (case == "both" and c < 3)


def test_the_centres_of_both_ranks_are_those_of_the_joined_batch(results: list[Results]) -> None:
    criterion = made("region", ignore=IGNORED)
    for step, batch in enumerate(ranks.rival_batches("both")):
        expected = ranks.rival_step(criterion, batch)["banks"]
        torch.testing.assert_close(results[0]["rivals"]["region", "both"][step]["banks"], expected)


def test_rivals_with_and_without_memory_are_tried() -> None:
    assert {name for name, _ in ranks.RIVALS} == set(KINDS)
