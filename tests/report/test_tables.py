import json
from dataclasses import replace

import pytest
import scored

from ccdcseg.measure.display import METRICS, interval_text, signed
from ccdcseg.report.tables import (
    baseline_pairs,
    duration_text,
    missed,
    postprocessing_grid,
    result_grid,
    seed_grid,
    setting_rows,
    structure_grid,
    usual_outcomes,
    version_rows,
)
from ccdcseg.runs.finished import load_arms
from ccdcseg.statistics.compare import compare

RULES = {"shares": {"foreground": 1.0, "RV": 0.2, "LV": 0.0}, "counts": {}, "masks": 2}


def change(folder, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59.6, "1 min 00 s"), (512.3, "8 min 32 s"), (7380, "2 h 03 min")],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_ccdc_is_compared_with_nnunet_in_both_metrics_as_one_family(runs):
    found = usual_outcomes(load_arms(runs))
    assert [(item.first, item.second, item.metric) for item in found] == [
        ("CCDC", "nnU-Net", "dice"),
        ("CCDC", "nnU-Net", "hd95_pooled_mm"),
    ]
    smallest = min(found, key=lambda item: item.comparison.p_value)
    assert smallest.p_adjusted == pytest.approx(min(1, 2 * smallest.comparison.p_value))


def test_scans_without_masks_are_compared_with_a_training_without_them(runs):
    arms = load_arms(runs)
    plain = next(arm for arm in arms if arm.method == "nnunet")
    more, taught = (unlabelled(arm) for arm in arms[::-1])
    labels = [arm.label for arm in load_arms([run.folder for run in plain.runs])]
    assert labels == ["nnU-Net"]
    pairs = baseline_pairs([more, plain, taught])
    assert pairs == [(more.label, plain.label), (taught.label, more.label)]
    assert baseline_pairs([plain, taught]) == [(taught.label, plain.label)]
    assert baseline_pairs([more]) == []


def test_of_several_baselines_the_one_with_the_most_equal_settings_counts(runs):
    def changed(arm, **settings):
        settings = {**arm.runs[0].record.settings, **settings}
        changed = [
            replace(run, record=run.record.model_copy(update={"settings": settings})) for run in arm.runs
        ]
        return replace(arm, label=f"{arm.label}, {settings}", runs=tuple(changed))

    ccdc, plain = load_arms(runs)
    assert (ccdc.method, plain.method) == ("ccdc", "nnunet")
    sgd, weighted = changed(plain, optimizer="sgd"), changed(ccdc, optimizer="sgd", weight=2)
    pairs = baseline_pairs([plain, ccdc, sgd, weighted])
    assert pairs == [(ccdc.label, plain.label), (weighted.label, sgd.label)]


def unlabelled(arm):
    """The arm as if its runs had taken scans without masks."""
    settings = {**arm.runs[0].record.settings, "unlabelled": {"use": True}}
    runs = [replace(run, record=run.record.model_copy(update={"settings": settings})) for run in arm.runs]
    return replace(arm, label=f"{arm.label}, more scans", runs=tuple(runs))


def test_runs_on_more_labels_are_compared_where_they_are_two_alone(make_run):
    runs = [make_run(method, [1] * 10, fraction=share) for method, share in (("nnunet", 0.1), ("ccdc", 0.2))]
    assert {(found.first, found.second) for found in usual_outcomes(load_arms(runs))} == {("CCDC", "nnU-Net")}
    runs.append(make_run("reco", [1] * 10, fraction=0.3))
    assert usual_outcomes(load_arms(runs)) == []


def ranks(grid):
    return [[entry.rank for entry in row] for row in grid.rows]


def test_the_best_of_each_column_is_marked_in_the_direction_of_the_metric(runs):
    arms = load_arms(runs)  # CCDC, then nnU-Net, which is worse in everything
    assert ranks(result_grid(arms, "dice")) == [[0, 1, 1, 1, 0], [0, 2, 2, 2, 0]]
    assert ranks(result_grid(arms, "hd95_pooled_mm")) == [[0, 1, 1, 1, 1, 0], [0, 2, 2, 2, 2, 0]]
    assert ranks(result_grid(arms[::-1], "assd_mm")) == [[0, 2, 2, 2, 0], [0, 1, 1, 1, 0]]


def test_one_arm_alone_is_not_the_best(runs):
    grid = result_grid(load_arms(runs[:2]), "dice")
    assert ranks(grid) == [[0, 0, 0, 0, 0]]
    assert grid.rows[0][0].note == "mean of 2 seeds"
    assert grid.note.startswith("Mean over test patients;")


def test_a_longer_training_is_not_the_best_of_shorter_ones(make_run):
    arms = load_arms([make_run("nnunet", [0] * 10, iterations=8000), make_run("ccdc", [1] * 10)])
    assert ranks(result_grid(arms, "dice")) == [[0] * 5] * 2


def test_what_post_processing_gains_is_shown_for_the_runs_that_have_it(make_run, measure_plain):
    run, bare = make_run("ccdc", [0] * 10, postprocessing=RULES), make_run("nnunet", [1] * 10)
    assert postprocessing_grid(load_arms([bare])) is None
    measure_plain(run, [0, 1] * 5)
    row, distances = postprocessing_grid(load_arms([run, bare])).rows
    evaluations = load_arms([run])[0].plain_evaluations
    plain = evaluations[0].summary["mean"].dice.value
    assert [entry.text for entry in row[2:5]] == [
        f"{100 * plain:.2f}",
        "100.00",
        f"+{100 - 100 * plain:.2f}",
    ]
    assert row[-1].text == "foreground one, RV from 0.2 of it on"
    assert distances[1].text == "hd95_pooled_mm"


def test_seeds_have_rows_without_ranks_only_where_there_are_several(runs):
    grid = seed_grid(load_arms(runs[:3]), "hd95_pooled_mm")
    assert [[entry.text for entry in row[:2]] for row in grid.rows] == [["CCDC", "0"], ["CCDC", "1"]]
    assert grid.header == ("method", "seed", "mean", "RV", "LV", "mean, missed = diagonal", "missed")
    assert not any(rank for row in ranks(grid) for rank in row)
    assert seed_grid(load_arms([runs[0], runs[2]]), "dice") is None


def test_differences_by_structure_average_to_the_whole(runs):
    arms = load_arms(runs)
    outcomes = usual_outcomes(arms)
    grid = structure_grid(outcomes, arms)
    assert grid.header == ("comparison", "metric", "RV", "LV")
    assert [row[1].text for row in grid.rows] == ["Dice", "hd95_pooled_mm"]
    for row, outcome, scale in zip(grid.rows, outcomes, (100, 1), strict=True):
        values = [float(entry.text.replace("−", "-")) for entry in row[2:]]
        assert sum(values) / 2 == pytest.approx(scale * outcome.comparison.mean_difference, abs=0.01)
    assert grid.rows[0][2].note.startswith("points, ")


def test_differences_by_structure_are_not_tested(runs, monkeypatch):
    """Drawing seeds anew and the signed-rank test take minutes where there are many classes, and are not shown."""
    arms = load_arms(runs)
    outcomes = usual_outcomes(arms)
    expected = compare(*(arm.evaluations for arm in arms), "dice", "RV")
    for name in ("hierarchical_interval", "wilcoxon_p"):
        monkeypatch.setattr(f"ccdcseg.statistics.compare.{name}", lambda _: pytest.fail("nobody sees it"))
    entry = structure_grid(outcomes, arms).rows[0][2]
    assert entry.text == signed(expected.mean_difference, METRICS["dice"])
    interval = interval_text(expected.interval, METRICS["dice"], is_difference=True)
    assert entry.note == f"points, {interval}"


def test_a_structure_that_one_method_always_misses_has_no_distance_to_compare(bare_runs):
    for run in bare_runs[:2]:
        scored.change_rows(
            run / "evaluation.json", lambda row: scored.MISSED if row.class_name == "RV" else {}
        )
    arms = load_arms(bare_runs)
    structures = structure_grid(usual_outcomes(arms), arms).rows[1]
    assert structures[2].text == "–"
    assert structures[3].text != "–"
    assert missed(list(arms[0].evaluations.values())) == (20, 40)
    assert missed(list(arms[0].evaluations.values()), "LV") == (0, 20)
    ours, theirs = result_grid(arms, "hd95_pooled_mm").rows
    assert (ours[2].text, ours[2].rank, theirs[2].rank) == ("–", 0, 1)
    assert (ours[4].rank, theirs[4].rank) == (0, 1)  # what misses half of the structures has no rank at all
    assert float(ours[4].text) > float(theirs[4].text)  # with misses as the diagonal nobody wins by them


def test_settings_that_differ_are_marked(bare_runs):
    change(bare_runs[0], settings={"network": {"features": [8, 16]}, "ccdc": {"weight": 0.5}, "new": True})
    rows = {row.name: row for row in setting_rows(load_arms([bare_runs[0], bare_runs[2]]))}
    assert rows["network.features"].values == ("[8, 16]", "[8, 16]")
    assert not rows["network.features"].differs
    assert rows["ccdc.weight"].values == ("0.5", "1.0")
    assert rows["ccdc.weight"].differs
    assert rows["new"].values == ("true", "–")
    assert rows["method"].differs


def test_versions_that_differ_are_marked(runs):
    first, second = load_arms(runs[:2])[0].runs
    other = replace(second, record=second.record.model_copy(update={"versions": {"torch": "2.11.0"}}))
    assert [row.differs for row in version_rows([first, second])] == [False, False]
    assert version_rows([first, other])[0].values == ("2.10.0", "2.11.0")
    assert version_rows([first, other])[0].differs


def test_a_precision_that_differs_is_marked(runs):
    first, second = load_arms(runs[:2])[0].runs
    ours, theirs = (
        replace(run, record=run.record.model_copy(update={"precision": precision}))
        for run, precision in ((first, "bfloat16"), (second, "float32"))
    )
    assert [(row.name, row.differs) for row in version_rows([ours, theirs])] == [
        ("torch", False),
        ("precision", True),
        ("threads", False),
    ]
    assert [row.name for row in version_rows([first, second])] == ["torch", "threads"]
