import json
import shutil
from pathlib import Path

import pytest
import untrained

from ccdcseg.datasets.splits import split_dataset
from ccdcseg.errors import UserError
from ccdcseg.experiments.gpu import read_check
from ccdcseg.nnunet.runs import resolve_run


def check_of(path: Path, device: str = "NVIDIA Test", **changes: object) -> Path:
    content = {
        "format": "ccdcseg-gpu-check/1",
        "environment": {"device": device, "torch": "2.10"},
        "scale": {"batch": 56, "size": [256, 224], "steps": 200},
        "methods": {
            name: {"step_seconds": seconds, "peak_mebibytes": 20480.0, "step_ratio": 1.0}
            for name, seconds in (("nnunet", 0.5), ("ccdc", 0.75), ("nnunet again", 0.5))
        },
        **changes,
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def dry_run(workspace, ccdcseg, tmp_path: Path):
    table = tmp_path / "mine.yaml"
    table.write_text(
        "title: mine\nfractions: [0.4]\nrows:\n"
        "- {name: nnunet, method: nnunet}\n- {name: ccdc, method: ccdc}\n- {name: reco, method: reco}\n"
    )
    preset = tmp_path / "mine_preset.yaml"
    preset.write_text(
        "description: as the paper's, but half the batch and 1,000 steps\n"
        "network: {patch_size: [256, 224], batch_size: 28}\ntraining: {epochs: 10, iterations_per_epoch: 100}\n"
    )
    words = ("reproduce", 901, table, "--preset", preset, "--dry-run", "-o", tmp_path / "out")
    return lambda *more: ccdcseg(*words, *more)


def test_commands_tell_what_they_take_on_the_gpu_that_was_measured(dry_run, tmp_path: Path):
    result = dry_run("--launcher", "slurm", "--gpu-check", check_of(tmp_path / "check.json"))
    assert result.code == 0, result.err
    comments = [line.partition("  # ")[2] for line in result.out.splitlines()]
    assert comments == ["0.0694 hours, 10 GB", "0.104 hours, 10 GB", "not measured"]  # 1,000 steps of 0.25 s
    assert "On NVIDIA Test: 0.174 hours for 2 trainings, 1 not known, without loading" in result.err


def test_without_a_measurement_nothing_is_said_but_that(dry_run):
    result = dry_run("--launcher", "slurm")
    assert result.code == 0
    assert "  # " not in result.out
    assert "not known, none was measured" in result.err
    assert "none was measured" not in dry_run("--device", "cpu").err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "cpu, 2 threads"}, "measured on a CPU"),
        ({"format": "other"}, "format"),
        ({"methods": {"not_measured": "the time was over"}}, "methods.not_measured"),
        ({"scale": {"batch": 0, "size": [256, 224]}}, "scale.batch"),
    ],
)
def test_other_files_are_refused(dry_run, tmp_path: Path, changes, words):
    path = check_of(tmp_path / "check.json", **changes)
    with pytest.raises(UserError, match=words):
        read_check(path)
    result = dry_run("--gpu-check", path)
    assert result.code == 2
    assert str(path) in result.err


def test_a_file_that_is_not_there(dry_run, tmp_path: Path):
    assert "none.json" in dry_run("--gpu-check", tmp_path / "none.json").err


def test_teachers_count_once_and_until_they_are_trained(workspace, ccdcseg, tmp_path: Path, monkeypatch):
    """The first is the baseline; labels of two scans take next to nothing."""
    for name in ("nnUNet_raw", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    raw = shutil.copytree(workspace.raw, tmp_path / "nnUNet_raw" / workspace.raw.name)
    split_dataset(raw, [0.4], 7, unlabelled=2)
    table = tmp_path / "mine.yaml"
    table.write_text(
        "title: mine\nfractions: [0.4]\nseeds: [7]\nrows:\n- {name: nnunet, method: nnunet}\n"
        "- {name: self, method: nnunet, changes: [unlabelled.use=true, unlabelled.teachers=2]}\n"
    )
    preset = tmp_path / "mine_preset.yaml"
    preset.write_text("network: {patch_size: [256, 224], batch_size: 56}\ntraining: {epochs: 72}\n")
    words = ("reproduce", 901, table, "--preset", preset, "--dry-run", "-o", tmp_path / "out")
    on_gpu = ("--launcher", "slurm", "--gpu-check", check_of(tmp_path / "check.json"))
    result = ccdcseg(*words, *on_gpu)
    assert [line.partition("  # ")[2].split()[0] for line in result.out.splitlines()] == ["2.5", "7.5"]
    assert ": 7.5 hours for 3 trainings," in result.err
    untrained.train(resolve_run("901", "nnunet", 0.4, 7, str(preset)))
    assert ": 5 hours for 2 trainings," in ccdcseg(*words, "--only", "self", *on_gpu).err
