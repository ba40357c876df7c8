import json

import pytest

from ccdcseg.errors import UserError
from ccdcseg.runs.finished import flattened, load_arms, load_run


def change(folder, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_runs_that_differ_by_seed_and_fold_are_one_arm(bare_runs):
    arms = load_arms(bare_runs)
    assert [arm.label for arm in arms] == ["CCDC", "nnU-Net"]
    assert [list(arm.evaluations) for arm in arms] == [[0, 1], [0, 1]]
    assert arms[0].name_of(arms[0].runs[1]) == "CCDC, seed 1"


def test_the_order_given_is_the_order_of_the_arms_and_seeds_are_sorted(bare_runs):
    arms = load_arms(bare_runs[::-1])
    assert [arm.label for arm in arms] == ["nnU-Net", "CCDC"]
    assert [run.record.seed for run in arms[0].runs] == [0, 1]


def test_a_setting_that_was_taken_out_parts_seeds_only_where_it_changed_something(bare_runs):
    stored = load_run(bare_runs[1]).record.settings
    for held, arms in (({"end_iteration": None, "head_normalisation": "none"}, 2), ({"end_iteration": 9}, 3)):
        change(bare_runs[1], settings=stored | {"ccdc": stored["ccdc"] | held})
        assert len(load_arms(bare_runs)) == arms


@pytest.mark.parametrize(
    ("first", "second", "arms"),
    [
        ({}, {"mirroring": None, "augmentation": None}, 1),
        ({"augmentation": "nnunet", "mirroring": True}, {"augmentation": None}, 1),
        ({"augmentation": "strong"}, {"augmentation": None}, 2),
        ({"mirroring": False}, {"mirroring": None}, 2),
    ],
)
def test_what_is_left_to_the_data_is_as_what_was_decided(bare_runs, first, second, arms):
    """Seeds of one setting stay one arm where an earlier version wrote down what today's leaves open."""
    for folder, training in zip(bare_runs[:2], (first, second), strict=True):
        settings = json.loads((folder / "run.json").read_text())["settings"]
        change(folder, settings={**settings, "training": {"epochs": 3, **training}})
    assert len(load_arms(bare_runs[:2])) == arms


def test_neither_the_words_of_a_preset_nor_its_path_part_seeds(bare_runs):
    for run, preset, words in zip(
        bare_runs, ["my.yaml", "/data/my.yaml"] * 2, ["ours", "reworded"] * 2, strict=True
    ):
        change(run, preset=preset, settings=load_run(run).record.settings | {"description": words})
    assert [arm.label for arm in load_arms(bare_runs)] == ["CCDC", "nnU-Net"]


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"settings": {"ccdc": {"weight": 0.1}, "network": {"features": [8, 16]}}}, "CCDC (ccdc.weight 0.1)"),
        ({"fraction": 0.2}, "CCDC (fraction 0.2)"),
        ({"settings": {"network": {"features": [8, 16]}}}, "CCDC (ccdc.weight unset)"),
    ],
)
def test_other_conditions_make_another_arm_named_by_what_differs(bare_runs, changes, label):
    change(bare_runs[1], **changes)
    arms = load_arms(bare_runs)
    assert len(arms) == 3
    assert arms[1].label == label
    assert arms[2].label == "nnU-Net"


def test_an_unknown_method_keeps_its_name(bare_runs):
    change(bare_runs[0], method="magic")
    assert load_arms(bare_runs[:1])[0].label == "magic"


def test_flattened_names_are_dotted():
    assert flattened({"a": {"b": {"c": 1}, "d": [2]}, "e": {}}) == {"a.b.c": 1, "a.d": [2], "e": {}}


def test_no_runs_are_refused():
    with pytest.raises(UserError, match="no run to report"):
        load_arms([])


def test_a_run_given_twice_is_refused(bare_runs):
    with pytest.raises(UserError, match="the same training with seed 0"):
        load_arms([bare_runs[0], bare_runs[0]])


def test_folds_of_one_split_are_told_from_a_run_given_twice(bare_runs):
    for number in (0, 1):
        fold = {"split": "1" * 64, "number": number + 1, "folds": 2}
        change(bare_runs[number], method="nnunet", seed=0, fold_of=fold)
    with pytest.raises(UserError, match=r"are folds of one split, with other patients each\. Give one fold"):
        load_arms(bare_runs[:2])


@pytest.mark.parametrize("changes", [{"dataset": "Dataset028_Other"}, {"labels": {"RV": 1}}])
def test_other_data_sets_or_classes_are_refused(bare_runs, changes):
    (bare_runs[1] / "evaluation.json").unlink()
    change(bare_runs[1], **changes)
    with pytest.raises(UserError, match="Make one report for each data set"):
        load_arms(bare_runs)


def test_a_folder_without_run_json_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"is no run folder: it has no run\.json"):
        load_run(tmp_path)


@pytest.mark.parametrize(("changes", "words"), [({"seed": "x"}, "seed is"), ({"labels": None}, "labels is")])
def test_a_wrong_entry_of_run_json_is_named(bare_runs, changes, words):
    change(bare_runs[0], **changes)
    with pytest.raises(UserError, match=rf"run\.json: {words}"):
        load_run(bare_runs[0])


def test_a_history_of_other_classes_is_refused(runs, bare_runs):
    text = (runs[2] / "history.jsonl").read_text().replace('"RV"', '"liver"')
    (bare_runs[2] / "history.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"history\.jsonl has pseudo Dice of liver"):
        load_run(bare_runs[2])


def test_an_evaluation_of_other_classes_is_refused(bare_runs):
    change(bare_runs[0], labels={"LV": 1, "RV": 2})
    with pytest.raises(UserError, match=r"evaluation\.json is out of date: run\.json has other classes"):
        load_run(bare_runs[0])


def test_labels_say_how_scans_without_masks_took_part(make_run):
    folders = []
    for method, use in (("nnunet", {}), ("ccdc", {"use": True}), ("ccdc_both", {"use": True})):
        folders.append(make_run(method, [0] * 10, settings={"unlabelled": use}))
    taught = make_run("reco", [0] * 10, settings={"unlabelled": {"use": True, "teachers": 3}})
    labels = [arm.label for arm in load_arms([*folders, taught])]
    assert labels == ["nnU-Net", "CCDC + scans without masks", "CCDC on all scans", "ReCo + self-training"]
