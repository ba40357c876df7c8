import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from ccdcseg.datasets.cases import Case
from ccdcseg.datasets.splits import draw_splits
from ccdcseg.errors import UserError
from ccdcseg.nnunet.preset import (
    Preset,
    Training,
    load_preset,
    preset_names,
    preset_of_plans,
    settings_hash,
    stored_form,
)
from ccdcseg.nnunet.terms import CCDCTerm

STORED = Path(__file__).parents[1] / "runs" / "stored" / "run.json"


def test_shipped_presets_are_valid_and_described():
    names = [
        "cpu",
        "cpu_long",
        "cpu_paper",
        "cpu_sgd",
        "demo",
        "gpu",
        "nnformer_cpu",
        "nnformer_paper",
        "paper",
        "paper_chaos",
        "paper_mscmrseg",
        "smoke",
    ]
    assert preset_names() == names
    for name in preset_names():
        label, preset = load_preset(name)
        assert label == name
        assert preset.description


def test_paper_preset_is_the_papers_set_up():
    _, preset = load_preset("paper")
    assert (preset.network.batch_size, preset.network.patch_size) == (56, (256, 224))
    assert preset.ccdc == CCDCTerm(weight=1, queries=256, negatives=256, temperature=0.5, core_threshold=0.97)
    assert preset.training.epochs * preset.training.iterations_per_epoch == 250_000


@pytest.mark.parametrize(
    ("name", "batch_size", "patch_size"),
    [("paper_chaos", 44, (224, 320)), ("paper_mscmrseg", 12, (512, 512))],
)
def test_the_papers_set_ups_differ_in_batch_and_patch(
    name: str, batch_size: int, patch_size: tuple[int, int]
):
    _, acdc = load_preset("paper")
    _, preset = load_preset(name)
    network = acdc.network.model_copy(update={"batch_size": batch_size, "patch_size": patch_size})
    same = acdc.model_copy(
        update={"network": network, "description": preset.description, "labelled": preset.labelled}
    )
    assert preset == same


@pytest.mark.parametrize(
    ("name", "patients", "trained"),
    [("paper", 100, [10, 5, 20, 40]), ("paper_mscmrseg", 45, [5]), ("paper_chaos", 20, [2])],
)
def test_the_papers_set_ups_know_their_training_patients(name: str, patients: int, trained: list[int]):
    cases = [Case(f"c{number}", f"p{number}", "", "") for number in range(patients)]
    splits = draw_splits(cases, load_preset(name)[1].labelled.fractions, seed=0)
    assert [len(split.train) for split in splits] == trained


def test_the_labelled_share_does_not_name_a_run():
    plain, preset = load_preset("cpu")
    other, changed = load_preset("cpu", ["labelled.fractions=[0.2]"])
    assert changed.labelled.fractions == (0.2,) != preset.labelled.fractions
    assert other == plain


def test_no_preset_trains_as_nnunet_does():
    preset = preset_of_plans({})
    assert preset == Preset()
    training = preset.training
    assert (training.epochs, training.iterations_per_epoch, training.validation_iterations) == (1000, 250, 50)
    assert (training.initial_learning_rate, training.foreground_oversampling) == (0.01, 0.33)


def test_an_empty_section_is_one_without_settings(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("description: mine\ntraining:\n")
    assert load_preset(str(path))[1].training == Training()
    assert load_preset(str(path), ["training.epochs=2"])[1].training == Training(epochs=2)


def test_changes_are_applied_and_named():
    plain, _ = load_preset("cpu")
    label, preset = load_preset("cpu", ["ccdc.weight=0.1", "training.epochs=3", "ccdc.core_pixels=null"])
    assert (preset.ccdc.weight, preset.training.epochs, preset.ccdc.core_pixels) == (0.1, 3, None)
    assert label.startswith("cpu_")
    assert label != plain
    assert label == load_preset("cpu", ["training.epochs=3", "ccdc.core_pixels=null", "ccdc.weight=0.1"])[0]
    assert label != load_preset("cpu", ["training.epochs=4"])[0]


def test_a_change_to_the_presets_own_value_is_no_change():
    assert load_preset("cpu", ["training.initial_learning_rate=0.002"])[0] == "cpu"


def test_own_file_gets_a_name_by_its_settings(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("network: {batch_size: 3}\n")
    label, preset = load_preset(str(file))
    assert label.startswith("mine_")
    assert preset.network.batch_size == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "training: {epochs: 9}\nccdc: {weight: 1}\ntraining: {seed: 1}\n",
            "training stands twice, again in line 3",
        ),
        ("training: {epochs: 9, seed: 1, epochs: 10}\n", "epochs stands twice, again in line 1"),
        ("ccdc:\n  weight: 1\n  'weight': 2\n", "weight stands twice, again in line 3"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, content: str, words: str):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=rf"mine\.yaml is not valid YAML \({words}\)"):
        load_preset(str(file))


def test_keys_that_others_are_merged_with_stand_once(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("focal: &one {weight: 2}\ngdl: {<<: *one, weight: 3}\ntopk: {<<: *one}\n")
    preset = load_preset(str(file))[1]
    assert (preset.focal.weight, preset.gdl.weight, preset.topk.weight) == (2, 3, 2)


def test_plans_carry_the_preset():
    _, preset = load_preset("cpu", ["ccdc.negative_strategy=uniform"])
    for stored in (stored_form(preset), preset.model_dump(mode="json")):  # all of it until version 0.1
        assert preset_of_plans({"ccdcseg": yaml.safe_load(yaml.safe_dump(stored))}) == preset


def test_plans_of_version_0_1_held_everything():
    stored = json.loads(STORED.read_text())["settings"]
    preset = preset_of_plans({"ccdcseg": stored})
    assert preset_of_plans({"ccdcseg": stored_form(preset)}) == preset
    assert preset.model_dump(mode="json", include={"ccdc", "network"}) == {
        "ccdc": {name: stored["ccdc"][name] for name in asdict(preset.ccdc)},
        "network": stored["network"],
    }
    stored["ccdc"]["statistics_momentum"] = 0.9
    with pytest.raises(UserError, match=r"^the plans: ccdc.statistics_momentum=0.9 was taken out"):
        preset_of_plans({"ccdcseg": stored})


def test_plans_hold_what_differs_from_the_defaults():
    assert stored_form(Preset()) == {}
    _, preset = load_preset("cpu")
    assert stored_form(preset)["ccdc"] == {"weight": 0.3, "start_iteration": 1200}


def test_settings_that_were_taken_out_change_no_name_where_they_changed_nothing():
    """Names of earlier runs, among them one that had to be told the length of its training."""
    idle = ["ccdc.warmup_iterations=0", "reco.end_iteration=null", "ccdc.negative_sharing=per_class"]
    assert load_preset("cpu", idle) == load_preset("cpu")
    told = load_preset("cpu_paper", ["ccdc.query_strategy=easy_to_hard", "ccdc.total_iterations=2400"])
    assert told == load_preset("cpu_paper", ["ccdc.query_strategy=easy_to_hard"])
    assert told[0] == "cpu_paper_8b4b6203"


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "fast",
            [],
            [
                "no preset fast",
                "cpu, cpu_long, cpu_paper, cpu_sgd, demo, gpu, nnformer_cpu",
                "paper_chaos, paper_mscmrseg, smoke",
            ],
        ),
        ("missing.yaml", [], ["missing.yaml"]),
        ("cpu", ["ccdc.wieght=0.1"], ["no setting ccdc.wieght", "weight"]),
        ("cpu", ["trainnig.epochs=1"], ["no setting trainnig", "training"]),
        ("cpu", ["training.epoch=1"], ["no setting training.epoch", "epochs"]),
        ("cpu", ["training.epochs=0"], ["training.epochs"]),
        ("cpu", ["training.epochs=many"], ["training.epochs"]),
        ("cpu", ["ccdc.temperature=0"], ["ccdc", "temperature"]),
        ("cpu", ["ccdc.region=hexagon"], ["ccdc", "region", "block"]),
        (
            "cpu",
            ["ccdc.head_normalisation=layer"],
            ["ccdc.head_normalisation=layer was taken out", "93084b9"],
        ),
        ("cpu", ["ccdc.total_iterations=2401"], ["ccdc.total_iterations=2401 was taken out", "93084b9"]),
        ("cpu", ["ccdc.region=cube"], ["ccdc.region=cube was taken out", "93084b9"]),
        ("cpu", ["ccdc.weight"], ["--set ccdc.weight", "key=value"]),
        ("cpu", ["ccdc.weight=[1"], ["--set ccdc.weight", "read"]),
        ("cpu", ["description=2025-13-01"], ["--set description", "read"]),
        ("cpu", ["training={epochs: 1, epochs: 2}"], ["--set training", "read"]),
        ("cpu", ["training.epochs.more=1"], ["training.epochs.more", "not a section"]),
    ],
)
def test_mistakes_name_the_setting_and_what_there_is(name: str, changes: list[str], words: list[str]):
    with pytest.raises(UserError) as error:
        load_preset(name, changes)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_editors(tmp_path: Path, encoding: str):
    file = tmp_path / "heart.yaml"
    file.write_text("description: für das Herz\nnetwork:\n  batch_size: 4\n", encoding=encoding)
    preset = load_preset(str(file))[1]
    assert (preset.description, preset.network.batch_size) == ("für das Herz", 4)


@pytest.mark.parametrize("content", ["[1, 2", "- a\n- b\n", "", "description: für das Herz", "a: 2025-13-01"])
def test_damaged_file(tmp_path: Path, content: str):
    file = tmp_path / "damaged.yaml"
    file.write_text(content, encoding="cp1252")
    with pytest.raises(UserError, match=r"damaged\.yaml"):
        load_preset(str(file))


def test_a_setting_at_its_default_leaves_the_hash_alone():
    label, preset = load_preset("cpu", ["ccdc.weight=0.1"])
    assert load_preset("cpu", ["ccdc.weight=0.1", "ccdc.queries=256"]) == (label, preset)
    assert settings_hash(preset) != settings_hash(preset.model_copy(update={"decoder_stage": 2}))


def test_cpu_sgd_and_cpu_paper_differ_in_ccdc_and_what_it_reads_alone():
    (_, chosen), (_, whole) = load_preset("cpu_sgd"), load_preset("cpu_paper")
    assert whole.ccdc == load_preset("paper")[1].ccdc
    assert chosen.ccdc != whole.ccdc
    same = {"ccdc": whole.ccdc, "decoder_stage": 0, "description": whole.description}
    assert chosen.model_copy(update=same) == whole
