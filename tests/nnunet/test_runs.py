import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import scored

from ccdcseg.datasets.splits import split_dataset
from ccdcseg.errors import UserError
from ccdcseg.nnunet import runs
from ccdcseg.nnunet.preset import STRONG, identity, load_preset
from ccdcseg.nnunet.runs import find_runs, folds_of, resolve_run


def test_a_term_that_would_never_act_is_refused(tiny_run, workspace):
    training = load_preset(str(workspace.preset))[1].training
    steps = training.epochs * training.iterations_per_epoch
    tiny_run(changes=(f"ccdc.start_iteration={steps - 1}",))
    with pytest.raises(UserError, match=rf"(?s){steps} steps.*ccdc.start_iteration={steps // 2}"):
        tiny_run(changes=(f"ccdc.start_iteration={steps}",))


def test_a_variant_has_the_settings_of_its_method(tiny_run):
    with pytest.raises(UserError, match=r"ccdc\.start_iteration is 6,.*--set ccdc\.start_iteration=3"):
        tiny_run("ccdc_both", changes=("ccdc.start_iteration=6",))


@pytest.mark.parametrize(
    ("method", "remedy"),
    [("ccdc_both", r"Take another --method\.$"), ("ccdc", r"Give --set unlabelled\.use=false\.$")],
)
def test_folds_have_no_scans_without_masks(tiny_run, method: str, remedy: str):
    preset = load_preset("cpu", ["unlabelled.use=true"])[1]
    with pytest.raises(UserError, match=remedy):
        folds_of(replace(tiny_run(), method=method, preset=preset), 2)


def test_the_start_of_another_method_does_not_matter(tiny_run):
    tiny_run("nnunet", changes=("ccdc.start_iteration=10000",))
    tiny_run("reco", changes=("ccdc.start_iteration=10000",))


def test_without_a_fraction_the_only_one_is_taken_else_that_of_the_preset(raw_folder: Path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(raw_folder.parents[1] / name))
    for fraction, wanted in ((0.6, 0.6), (0.3, None), (0.1, 0.1)):
        split_dataset(raw_folder, [fraction], 0)
        if wanted:
            assert resolve_run("7", "nnunet", None, 0, "cpu").split["fraction"] == wanted
        else:
            with pytest.raises(UserError, match=r"no split of fraction 0\.1 \(seed 0\), only 0\.6"):
                resolve_run("7", "nnunet", None, 0, "cpu")


USUAL = "training.augmentation=nnunet"
MIRRORED, UNMIRRORED = "training.mirroring=true", "training.mirroring=false"


@pytest.mark.parametrize(
    ("names", "preset", "changes", "same_as"),
    [
        (("LV", "RV"), "cpu", (), ("cpu", ())),
        (("left_kidney", "right_kidney"), "cpu", (), ("cpu", (UNMIRRORED,))),
        (("left_kidney", "right_kidney"), "cpu", (MIRRORED,), ("cpu", ())),
        (("left_kidney", "right_kidney"), "paper_chaos", (), ("paper_chaos", ())),
    ],
)
def test_organs_of_two_sides_are_not_mirrored_unless_the_preset_says_so(
    raw_folder: Path,
    describe_dataset: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, str],
    preset: str,
    changes: tuple[str, ...],
    same_as: tuple[str, tuple[str, ...]],
):
    """Self-training too: its teachers have the changes of the run."""
    monkeypatch.setattr(runs, "FEW", 0)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(raw_folder.parents[1] / name))
    describe_dataset(raw_folder, labels={"background": 0, names[0]: 1, names[1]: 2})
    split_dataset(raw_folder, [0.6], 0)
    run = resolve_run("7", "nnunet", 0.6, 0, preset, changes)
    label, settings = load_preset(*same_as)
    assert run.plans_name == f"ccdcseg_{label}"
    assert identity(run.preset) == identity(settings)
    assert (run.preset.training.mirroring is False) == (UNMIRRORED in run.changes) == bool(same_as[1])


@pytest.mark.parametrize(
    ("more", "preset", "changes", "same_as"),
    [
        (0, "cpu", (), ("cpu", (STRONG,))),
        (0, "cpu", (USUAL,), ("cpu", ())),
        (0, "paper", (), ("paper", ())),
        (1, "cpu", (), ("cpu", ())),
        (1, "cpu", (STRONG,), ("cpu", (STRONG,))),
    ],
)
def test_patches_of_few_patients_are_changed_strongly_unless_the_preset_says_so(
    raw_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: int,
    preset: str,
    changes: tuple[str, ...],
    same_as: tuple[str, tuple[str, ...]],
):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(raw_folder.parents[1] / name))
    (entry,) = split_dataset(raw_folder, [0.6], 0)
    monkeypatch.setattr(runs, "FEW", len(entry["patients"]["train"]) - more)
    run = resolve_run("7", "nnunet", 0.6, 0, preset, changes)
    label, settings = load_preset(*same_as)
    assert run.plans_name == f"ccdcseg_{label}"
    assert identity(run.preset) == identity(settings)


@pytest.fixture
def empty_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with nnU-Net's three in it and one data set."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name / "Dataset007_Own").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "nnUNet_results"


@pytest.mark.parametrize("target", ["model", "nowhere/fold_0", "model/fold_0/", "./model", "nnUNet_results"])
def test_a_path_is_no_data_set(empty_results: Path, target: str) -> None:
    Path("model/fold_0").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{Path(target)} is no run folder: it has no run\.json\. .*fold_N"):
        find_runs(target)


def test_a_run_that_is_not_finished_says_so(empty_results: Path) -> None:
    Path("fold_0").mkdir()
    Path("fold_0/begun.json").write_text("{}")
    with pytest.raises(UserError, match=r"The training in \S+fold_0 is not finished.*--resume"):
        find_runs("fold_0")


@pytest.mark.parametrize("target", ["7", "Dataset007_Own"])
def test_a_data_set_is_one_though_a_folder_has_its_name(empty_results: Path, target: str) -> None:
    Path(target).mkdir()
    with pytest.raises(UserError, match=r"Dataset007_Own holds no finished training"):
        find_runs(target)


@pytest.mark.parametrize("target", ["8", "Dataset007_Other", "own"])
def test_a_name_that_is_no_folder_is_a_data_set_s(empty_results: Path, target: str) -> None:
    with pytest.raises(UserError, match=r"There is no data set"):
        find_runs(target)


def finished(folder: Path, **patients: list[str]) -> Path:
    """The folder of a run that was trained on p0, with patients for the other parts."""
    folder.mkdir(parents=True)
    parts = {"train": ["p0"], "validation": [], "test": []} | patients
    (folder / "run.json").write_text(json.dumps(scored.record(patients=parts)))
    return folder


def test_models_that_cannot_be_read_are_left_out_and_named(
    empty_results: Path, caplog: pytest.LogCaptureFixture, close: Callable[[Path], None]
) -> None:
    results = empty_results / "Dataset007_Own"
    theirs = finished(results / "theirs" / "fold_0")
    close(theirs.parent)
    with pytest.raises(UserError, match=rf"{theirs.parent} cannot be read \(Permission denied\)"):
        find_runs("7")
    ours, fold = (finished(results / "ours" / f"fold_{number}") for number in range(2))
    close(fold)
    assert find_runs("7") == [ours]
    assert caplog.messages == [f"Left out, since they cannot be read: {theirs.parent}, {fold}."]


def test_runs_without_patients_for_a_part_are_left_out_and_named(
    empty_results: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = empty_results / "Dataset007_Own"
    all_trained = finished(results / "model" / "fold_0")
    with pytest.raises(UserError, match=rf"no patients for test: {all_trained}\. .*predict RUN --input"):
        find_runs("7", "test")
    tested = finished(results / "model" / "fold_1", test=["p1"])
    assert find_runs("7") == [all_trained, tested]
    assert not caplog.messages
    assert find_runs("7", "test") == [tested]
    assert caplog.messages == [f"Left out, since their splits have no patients for test: {all_trained}."]
    assert find_runs(str(all_trained), "test") == [all_trained]
    for fold in range(2, 8):
        finished(results / "model" / f"fold_{fold}")
    assert find_runs("7", "test") == [tested]
    assert caplog.messages[-1].endswith("fold_5 and 2 more.")
    with pytest.raises(UserError, match=r"no patients for validation.*--test N"):
        find_runs("7", "validation")
