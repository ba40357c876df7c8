import json
from dataclasses import replace

import pytest

from ccdcseg.report.runs import load_arms
from ccdcseg.report.tables import (
    class_differences,
    contests,
    duration_text,
    missed,
    setting_rows,
    version_rows,
)


def change(folder, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "not recorded"), (59.6, "1 min 00 s"), (512.3, "8 min 32 s"), (7380, "2 h 03 min")],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_ccdc_is_compared_with_nnunet_in_both_metrics_as_one_family(runs):
    found = contests(load_arms(runs))
    assert [(item.arm.label, item.baseline.label, item.metric.name) for item in found] == [
        ("CCDC", "nnU-Net", "dice"),
        ("CCDC", "nnU-Net", "hd95_pooled_mm"),
    ]
    smallest = min(found, key=lambda item: item.comparison.p_value)
    assert smallest.p_adjusted == pytest.approx(min(1, 2 * smallest.comparison.p_value))


def test_runs_on_more_labels_are_not_compared(bare_runs):
    for run in bare_runs[:2]:
        change(run, fraction=0.2)
    assert contests(load_arms(bare_runs)) == []


def test_differences_by_structure_average_to_the_whole(runs):
    contest = contests(load_arms(runs))[0]
    values = [float(cell.text.replace("−", "-")) for _, cell in class_differences(contest)]
    assert [name for name, _ in class_differences(contest)] == ["RV", "LV"]
    assert sum(values) / 2 == pytest.approx(100 * contest.comparison.mean_difference, abs=0.01)


def test_a_structure_that_one_method_always_misses_has_no_distance_to_compare(bare_runs):
    for run in bare_runs[:2]:
        path = run / "evaluation.json"
        result = json.loads(path.read_text())
        for row in result["cases"]:
            if row["class"] == "RV":
                row.update(status="missed", hd95_pooled_mm=None)
        path.write_text(json.dumps(result))
    arms = load_arms(bare_runs)
    cells = dict(class_differences(contests(arms)[1]))
    assert cells["RV"].text == "–"
    assert cells["LV"].text != "–"
    assert missed(list(arms[0].evaluations.values())) == (20, 40)
    assert missed(list(arms[0].evaluations.values()), "LV") == (0, 20)


def test_settings_that_differ_are_marked(bare_runs):
    change(bare_runs[0], settings={"network": {"features": [8, 16]}, "ccdc": {"weight": 0.5}, "new": True})
    rows = {row.name: row for row in setting_rows(load_arms([bare_runs[0], bare_runs[2]]))}
    assert rows["network.features"].values == ("[8, 16]", "[8, 16]")
    assert not rows["network.features"].differs
    assert rows["ccdc.weight"].values == ("0.5", "1.0")
    assert rows["ccdc.weight"].differs
    assert rows["new"].values == ("True", "–")
    assert rows["method"].differs


def test_versions_that_differ_are_marked(runs):
    first, second = load_arms(runs[:2])[0].runs
    other = replace(second, record=second.record.model_copy(update={"versions": {"torch": "2.11.0"}}))
    assert [row.differs for row in version_rows([first, second])] == [False]
    assert version_rows([first, other])[0].values == ("2.10.0", "2.11.0")
    assert version_rows([first, other])[0].differs
