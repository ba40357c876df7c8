import shutil

import pytest

from ccdcseg.datasets.splits import split_dataset
from ccdcseg.nnunet import duration
from ccdcseg.nnunet.duration import (
    duration_text,
    run_seconds,
    scan_seconds,
    thread_seconds,
    thread_seconds_left,
)
from ccdcseg.nnunet.preset import load_preset
from ccdcseg.nnunet.runs import resolve_run, teachers_of


def test_the_cpu_preset_is_what_was_measured(monkeypatch: pytest.MonkeyPatch):
    """Ten minutes on two threads with bfloat16; 18.5 and 67 s for 50 steps of one thread with and without."""
    preset = load_preset("cpu")[1]
    monkeypatch.setattr(duration, "has_bfloat16", lambda: True)
    assert thread_seconds(preset, "nnunet") / 2 == pytest.approx(600, rel=0.3)
    assert thread_seconds(load_preset("cpu_sgd")[1], "nnunet") / 48 == pytest.approx(18.5, rel=0.5)
    monkeypatch.setattr(duration, "has_bfloat16", lambda: False)
    assert thread_seconds(load_preset("cpu_sgd")[1], "nnunet") / 48 == pytest.approx(67, rel=0.5)


def test_nnformer_is_what_was_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(duration, "has_bfloat16", lambda: True)
    preset = load_preset("nnformer_cpu", ["training.epochs=1", "training.iterations_per_epoch=25"])[1]
    assert thread_seconds(preset, "nnformer") == pytest.approx(9, rel=0.3)


def test_time_grows_with_steps_and_batches_and_where_nnunet_plans_it_is_long():
    one, two = (load_preset("cpu", [f"training.epochs={count}"])[1] for count in (10, 20))
    assert thread_seconds(two, "ccdc") == 2 * thread_seconds(one, "ccdc")
    bigger = load_preset("cpu", ["network.batch_size=16"])[1]
    assert thread_seconds(bigger, "ccdc") == 2 * thread_seconds(load_preset("cpu")[1], "ccdc")
    assert thread_seconds(load_preset("paper")[1], "ccdc") > 100 * 86_400
    planned = load_preset("cpu", ["network.patch_size=null", "network.features_per_stage=null"])[1]
    assert thread_seconds(planned, "ccdc") > 10 * thread_seconds(one, "ccdc")


def test_scans_without_masks_take_as_long_as_was_measured_and_more_of_them_longer():
    """With 100 scans of ACDC 1.05 to 1.09 times as long (docs/unlabelled.md)."""
    plain, preset = load_preset("cpu")[1], load_preset("cpu", ["unlabelled.use=true"])[1]
    alone = thread_seconds(plain, "nnunet")
    assert thread_seconds(preset, "nnunet", 100) / alone == pytest.approx(1.07, abs=0.03)
    assert thread_seconds(preset, "nnunet", 2000) == thread_seconds(
        preset, "nnunet", 100
    )  # at most so many a time
    all_of_them = load_preset("cpu", ["unlabelled.use=true", "unlabelled.scans=null"])[1]
    few, many = (thread_seconds(all_of_them, "nnunet", scans) - alone for scans in (10, 2000))
    assert many == pytest.approx(200 * few)
    teachers = load_preset("cpu", ["unlabelled.use=true", "unlabelled.teachers=3"])[1]
    assert thread_seconds(teachers, "nnunet", 30) - alone == pytest.approx(3 * few)  # by each of three once


@pytest.mark.parametrize("setting", ["prediction.mirroring", "training.mirroring"])
def test_mirrored_scans_take_longer(setting: str):
    plain, mirrored = (load_preset("cpu", [f"{setting}={on}"])[1] for on in ("false", "true"))
    assert scan_seconds(mirrored, "ccdc") == 4 * scan_seconds(plain, "ccdc")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1 min"),
        (600, "10 min"),
        (7000, "117 min"),
        (7200, "2 hours"),
        (90_000, "25 hours"),
        (4e5, "5 days"),
    ],
)
def test_rough_times(seconds: float, text: str):
    assert duration_text(seconds) == text


def test_teachers_that_are_not_trained_take_their_time(workspace, tmp_path, monkeypatch: pytest.MonkeyPatch):
    for name in ("nnUNet_raw", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    raw = shutil.copytree(workspace.raw, tmp_path / "nnUNet_raw" / workspace.raw.name)
    split_dataset(raw, [0.4], 7, unlabelled=2)
    run = resolve_run("901", "nnunet", 0.4, 7, "cpu", self_training=True)
    first, *others = teachers_of(run)
    alone, each = run_seconds(run), run_seconds(first)
    assert alone > each
    assert thread_seconds_left([run]) == pytest.approx(alone + 3 * each)
    assert thread_seconds_left([run, first, run]) == pytest.approx(alone + 3 * each)
    half = first.preset.training.epochs // 2
    for teacher, epochs in ((first, 2 * half), (others[0], half)):
        teacher.folder.mkdir(parents=True)
        (teacher.folder / "history.jsonl").write_text("{}\n" * epochs)
    assert thread_seconds_left([run]) == pytest.approx(alone + 1.5 * each)
