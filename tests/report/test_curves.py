import json
import math
import shutil
from types import SimpleNamespace

import pytest

from ccdcseg.report import curves
from ccdcseg.report.curves import diagnostics, learning_curves
from ccdcseg.runs.finished import load_arms, load_run


@pytest.fixture
def drawn(monkeypatch):
    """Lines of every panel, by the panel's name, in place of pictures."""
    panels = {}
    monkeypatch.setattr(curves, "line_panel", lambda name, lines, *_, **__: panels.setdefault(name, lines))
    return panels


def test_each_run_has_its_line_in_the_colour_of_its_method(runs, drawn):
    group = learning_curves(load_arms(runs))
    assert [panel.title for panel in group.panels] == [
        "Training loss without the contrastive term",
        "Contrastive term, weighted",
        "Validation loss",
        "Pseudo Dice",
    ]
    assert [line.look.colour for line in drawn["curve-segmentation-loss"]] == [
        "arm-0",
        "arm-0",
        "arm-1",
        "arm-1",
    ]
    assert [line.look.colour for line in drawn["curve-contrastive-loss"]] == ["arm-0", "arm-0"]
    line = drawn["curve-pseudo-dice"][0]
    assert list(line.x) == [50, 100, 150]
    assert list(line.y) == pytest.approx([0.3, 0.4, 0.5])


def test_where_a_term_joins_the_loss_is_marked(make_run, monkeypatch):
    marked = {}
    monkeypatch.setattr(curves, "line_panel", lambda name, *_, marks=(), **__: marked.setdefault(name, marks))
    settings = {"ccdc": {"weight": 0.3, "start_iteration": 1200}}
    arms = load_arms([make_run("ccdc", [0] * 10, settings=settings), make_run("nnunet", [0] * 10)])
    group = learning_curves(arms)
    assert marked["curve-segmentation-loss"] == [(1200, curves.arm_look(0))]
    assert "a term joins the loss, at which the curves may jump (CCDC at step 1200)." in group.text
    both = learning_curves(load_arms([make_run("ccdc_both", [0] * 10, settings=settings)]))
    assert "(CCDC on all scans at step 1200)" in both.text
    plain = make_run(
        "mcc", [0] * 10, settings={"ccdc": {"start_iteration": 1200}, "mcc": {"start_iteration": 0}}
    )
    assert "joins the loss" not in learning_curves(load_arms([plain])).text


def test_validation_on_training_patients_is_said_to_be_that(make_run, drawn):
    run = make_run("ccdc", [0] * 10)
    assert "training patients" in learning_curves(load_arms([run])).text
    run = make_run("nnunet", [0] * 10, patients={"train": ["t1"], "validation": ["v1"], "test": ["p1"]})
    assert "training patients" not in learning_curves(load_arms([run])).text


def test_diagnostics_are_read_by_class(runs, drawn):
    groups = diagnostics(load_run(runs[0]), "r")
    assert [group.title for group in groups] == [
        "Class confidence and sampling",
        "Class confusion",
        "Core, easy and hard pixels",
    ]
    assert list(drawn["r-confidence"][1].y) == pytest.approx([0.2, 0.3, 0.4])
    assert [line.look.colour for line in drawn["r-confusion-1"]] == ["class-0", "class-2"]
    assert list(drawn["r-confusion-1"][1].y) == pytest.approx([0.3, 0.2, 0.1])
    assert list(drawn["r-counts-1"][0].y) == [0, 40, 40]
    assert [line.look.colour for line in drawn["r-counts-2"]] == ["role-core", "role-easy"]
    assert list(drawn["r-hard"][0].y) == pytest.approx([246 / 256] * 3)


def trained(classes, epochs):
    """A run in which every class was taken for a class the more the later that comes."""
    seen = {
        "classes": [f"c{index}" for index in range(classes)],
        "confidence": [0.5] * classes,
        "confusion": [[column / 100 for column in range(classes)]] * classes,
    }
    history = [
        SimpleNamespace(iteration=place, diagnostics=SimpleNamespace(**seen)) for place in range(epochs)
    ]
    history[0].diagnostics = SimpleNamespace(**seen | {"confusion": None})
    return SimpleNamespace(history=history)


def test_of_many_classes_the_largest_confusions_and_some_epochs_are_drawn(drawn):
    seen, confused, _ = diagnostics(trained(classes=20, epochs=450), "r")
    looks = [line.look for line in drawn["r-confusion-15"]]
    assert looks == [curves.class_look(column) for column in (11, 12, 13, 14, 16, 17, 18, 19)]
    assert all(list(line.x) == [*range(2, 450, 3)] for lines in drawn.values() for line in lines)
    assert len(drawn["r-confidence"]) == 20
    assert seen.text.endswith("Of 3 epochs one is drawn, here and below.")
    assert confused.text.endswith("Drawn are the 8 classes that it was taken for most.")


def test_of_few_classes_all_is_drawn(drawn):
    seen, confused, _ = diagnostics(trained(classes=9, epochs=450), "r")
    assert [len(drawn[f"r-confusion-{row}"]) for row in range(9)] == [8] * 9
    assert all(len(line.x) == 450 for lines in drawn.values() for line in lines)
    assert "drawn" not in seen.text
    assert "most" not in confused.text


def test_null_leaves_a_gap_and_no_queries_no_share(runs, drawn):
    diagnostics(load_run(runs[0]), "r")
    first, *rest = drawn["r-pos"][1].y
    assert math.isnan(first)
    assert rest == [0.4, 0.4]
    assert len(drawn["r-hard"]) == 2


def test_a_loss_without_queries_has_no_panel_of_their_share(runs, drawn, tmp_path):
    folder = shutil.copytree(runs[0], tmp_path / "copy")
    path = folder / "history.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in entries:
        for role in ("queries_easy", "queries_hard"):
            entry["diagnostics"][role] = [0] * len(entry["diagnostics"]["classes"])
    path.write_text("\n".join(json.dumps(entry) for entry in entries))
    titles = [panel.title for panel in diagnostics(load_run(folder), "r")[0].panels]
    assert titles == ["Class confidence", "Similarity to positives", "Similarity to negatives"]


def test_a_whole_entry_may_be_null(runs, drawn, tmp_path):
    folder = shutil.copytree(runs[0], tmp_path / "copy")
    path = folder / "history.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    entries[0]["diagnostics"] = None
    entries[1]["diagnostics"]["confusion"] = None
    entries[1]["pseudo_dice"] = {}
    path.write_text("\n".join(json.dumps(entry) for entry in entries))
    diagnostics(load_run(folder), "r")
    assert list(drawn["r-confidence"][0].x) == [100, 150]
    assert math.isnan(drawn["r-confusion-1"][0].y[0])


def test_nnunet_has_no_diagnostics(runs):
    assert diagnostics(load_run(runs[2]), "r") == []
