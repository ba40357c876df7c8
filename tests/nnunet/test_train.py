import json
import os
import shlex
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import scored

from ccdcseg.datasets.cases import Case, read_labels, write_unlabelled_cases
from ccdcseg.datasets.splits import split_dataset
from ccdcseg.errors import UserError
from ccdcseg.files import file_hash, locked, write_json
from ccdcseg.nnunet import plans as plans_module
from ccdcseg.nnunet import runs as runs_module
from ccdcseg.nnunet import train
from ccdcseg.nnunet import trained as trained_module
from ccdcseg.nnunet.checkpoints import FINAL
from ccdcseg.nnunet.outputs import Output
from ccdcseg.nnunet.predict import predict
from ccdcseg.nnunet.runs import Run, resolve_run
from ccdcseg.nnunet.train import LATEST
from ccdcseg.nnunet.trained import changed_since, training_scans
from ccdcseg.runs.record import RunRecord, read_record
from kills import killed_before

PLAN = plans_module._plan
"""Planning itself, in the place of which `own_run` puts its result of before."""


def test_a_log_that_cannot_be_kept_is_named_before_anything_is_written(
    tiny_run, train_run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("nnUNet_wandb_enabled", "yes")
    run = tiny_run()
    with pytest.raises(UserError, match="nnUNet_wandb_enabled"):
        train_run(run)
    assert not run.folder.exists()


@pytest.mark.parametrize("changes", [(), ("training.mirroring=true",)])
def test_a_training_says_that_it_does_not_mirror_organs_of_two_sides(
    tiny_run, train_run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, changes
):
    def stop(*_: Any) -> None:
        raise UserError("Stopped.", "Nothing.")

    labels = {"kidney_L": 1, "kidney_R": 2}
    for module in (runs_module, train):
        monkeypatch.setattr(module, "read_labels", lambda _: labels)
    monkeypatch.setattr(train, "prepare", stop)
    with pytest.raises(UserError, match="Stopped"):
        train_run(tiny_run(changes=changes))
    said = "kidney_L and kidney_R: patches and predictions are not mirrored" in caplog.text
    assert said == (not changes) == ("--set training.mirroring=true" in caplog.text)


@pytest.mark.parametrize(("few", "said"), [(9, True), (1, False)])
def test_a_training_says_that_it_changes_patches_of_few_patients_strongly(
    tiny_run,
    train_run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    few: int,
    said: bool,
):
    def stop(*_: Any) -> None:
        raise UserError("Stopped.", "Nothing.")

    for module in (runs_module, train):
        monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(train, "prepare", stop)
    with pytest.raises(UserError, match="Stopped"):
        train_run(tiny_run(changes=("training.augmentation=null",)))
    assert ("--set training.augmentation=nnunet changes them as usual" in caplog.text) == said


def test_trainings_side_by_side_prepare_one_after_the_other(tiny_run, monkeypatch: pytest.MonkeyPatch):
    """Two that preprocessed the same scans at once would read each other's half-written files."""
    inside, overlaps, met = threading.Lock(), [], threading.Event()

    def count(*_: Any) -> dict[str, Any]:
        overlaps.append(not inside.acquire(blocking=False))
        met.wait(0.2)
        inside.release()
        return {}

    monkeypatch.setattr(train, "_prepare", count)
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(train.prepare, tiny_run(), 1, lambda *_: None) for _ in range(2)]:
            job.result()
    assert overlaps == [False, False]


def test_a_run_that_another_command_holds_is_left_alone(tiny_run, train_run):
    run = tiny_run()
    with locked(run.folder, "train"):
        (run.folder / "history.jsonl").touch()
        with pytest.raises(UserError, match=r"Another process .*works on .*fold_0\. .*then train again"):
            train_run(run)
    assert sorted(path.name for path in run.folder.iterdir()) == ["history.jsonl"]


def test_a_training_killed_while_it_wrote_its_first_file_begins_anew(
    tiny_run, train_run, monkeypatch: pytest.MonkeyPatch
):
    run, begun = tiny_run(), []
    run.folder.mkdir(parents=True)
    killed_before(3, lambda: write_json(run.folder / "begun.json", {}), run.folder)
    assert [path.suffix for path in run.folder.iterdir()] == [".partial"]
    monkeypatch.setattr(train, "_train", lambda *_: begun.extend(run.folder.iterdir()))
    monkeypatch.setattr(train, "_finish", lambda _: None)
    monkeypatch.setattr(train, "check_trained", lambda _: None)
    train_run(run, resume=True)
    assert [path.name for path in begun] == [".lock"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("default")
def test_a_training_that_lacks_only_its_record_is_completed(finished_run: Run, train_run):
    run, folder = finished_run, finished_run.folder
    before = contents(folder)
    (folder / "run.json").unlink()
    (folder / LATEST).touch()  # killed before nnU-Net removed it
    assert train_run(run) == folder
    assert contents(folder) == before


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("finished", [True, False])
def test_a_training_of_nnunets_own_command_is_left_alone(finished_run: Run, train_run, finished: bool):
    run, folder = finished_run, finished_run.folder
    as_if_by_nnunet(folder, "None")
    if not finished:
        (folder / FINAL).rename(folder / LATEST)
    before = contents(folder)
    with pytest.raises(
        UserError, match=r"did not begin, such as a training by nnUNetv2_train\. Move that folder"
    ):
        train_run(run, resume=True)
    assert contents(folder) == before


@pytest.mark.filterwarnings("default")
def test_a_training_of_an_earlier_version_is_completed(
    finished_run: Run, train_run, caplog: pytest.LogCaptureFixture
):
    run, folder = finished_run, finished_run.folder
    record = json.loads((folder / "run.json").read_text())
    as_if_by_nnunet(folder, "0")
    train_run(run)
    assert "begun by an earlier version" in caplog.text
    assert json.loads((folder / "run.json").read_text()) == record | {"started": ANY}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("threads", [None, 64])
def test_a_training_that_goes_on_with_other_threads_says_so(
    finished_run: Run, train_run, caplog: pytest.LogCaptureFixture, threads: int | None
):
    folder = finished_run.folder
    (folder / FINAL).rename(folder / LATEST)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").unlink()
    if threads:
        begun = json.loads((folder / "begun.json").read_text())
        begun["machine"] = f"x86_64, 64 cores, {threads} threads"
        (folder / "begun.json").write_text(json.dumps(begun))
    train_run(finished_run, resume=True)
    assert ("was begun with 64 threads" in caplog.text) == (threads is not None)
    assert json.loads((folder / "run.json").read_text())["machine"] == record["machine"]


@pytest.mark.parametrize("record", ["run.json", "begun.json"])
def test_nnunets_own_command_trains_over_no_run(finished_run: Run, make_trainer, record: str):
    """``nnUNetv2_train -tr nnUNetTrainerPreset`` with the plans of the run works in its folder."""
    trainer = make_trainer(finished_run, "nnUNetTrainerPreset")
    assert Path(trainer.output_folder) == finished_run.folder
    for other in {"run.json", "begun.json"} - {record}:
        (finished_run.folder / other).unlink()
    before = (finished_run.folder / FINAL).read_bytes()
    with pytest.raises(
        UserError, match=r"fold_0 holds a training of `ccdcseg train`.* Move that folder away"
    ):
        trainer.run_training()
    assert (finished_run.folder / FINAL).read_bytes() == before


def as_if_by_nnunet(folder: Path, seed: str) -> None:
    """Take away what only ``ccdcseg train`` writes; nnU-Net notes the trainer's seed."""
    for name in ("run.json", "begun.json"):
        (folder / name).unlink()
    notes = json.loads((folder / "debug.json").read_text())
    (folder / "debug.json").write_text(json.dumps(notes | {"seed": seed}))


def test_nothing_that_somebody_else_put_there_is_removed(tiny_run, train_run):
    run = tiny_run()
    (run.folder / "validation").mkdir(parents=True)
    (run.folder / "notes.txt").touch()
    with pytest.raises(UserError, match="did not begin"):
        train_run(run)
    assert (run.folder / "notes.txt").exists()
    assert (run.folder / "validation").exists()


@pytest.mark.filterwarnings("default")
def test_a_data_set_that_was_copied_with_its_preprocessed_folder_has_results_of_its_own(
    own_run: Run, trained: Path, train_run, workspace: Any
):
    """Plans of nnU-Net and ours, which lie in that folder, name the data set that they were made for."""
    shutil.copytree(trained, own_run.model)
    before = contents(own_run.results)
    for folder in (own_run.raw, own_run.preprocessed):
        shutil.copytree(folder, folder.with_name("Dataset902_Copy"))
    copy = resolve_run("902", "nnunet", 0.4, 0, str(workspace.preset))
    train_run(copy)
    assert contents(own_run.results) == before
    assert read_record(copy.folder).dataset == "Dataset902_Copy"
    assert json.loads((copy.model / "plans.json").read_text())["dataset_name"] == "Dataset902_Copy"


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
def test_a_folder_of_nnunet_that_was_changed_since_the_run_was_resolved(
    own_run: Run, train_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.setenv(variable, str(tmp_path / "other"))
    with pytest.raises(UserError, match=rf"{variable} was changed since .* in {tmp_path}/other/Dataset901"):
        train_run(own_run)
    assert not (tmp_path / "other").exists()
    assert not (own_run.folder / "begun.json").exists()


def preprocessed(run: Run) -> dict[str, int]:
    """Voxels of the last class in the preprocessed masks of the training cases."""
    import blosc2

    folder = min(run.preprocessed.glob("ccdcseg_2d_*"))
    masks = {case: blosc2.open(str(folder / f"{case}_seg.b2nd"), mode="r") for case in run.split["train"]}
    return {case: int((mask[:] == 3).sum()) for case, mask in masks.items()}


@pytest.mark.filterwarnings("default")
def test_a_corrected_mask_reaches_the_training(own_run: Run, change_volume):
    before, done = preprocessed(own_run), []
    case, other = own_run.split["train"][:2]
    folder = min(own_run.preprocessed.glob("ccdcseg_2d_*"))
    kept = (folder / f"{other}.pkl").stat().st_mtime_ns
    for file in folder.glob(f"{case}*"):
        file.chmod(0o660)  # of a group
    erase(own_run, case, change_volume)
    train.prepare(own_run, 1, lambda stage, n, of: done.append((n, of)) if stage == "preprocess" else None)
    after = preprocessed(own_run)
    assert before[case] > 0 == after[case]
    assert after[other] == before[other] > 0
    assert done == [(1, 1)]
    assert (folder / f"{other}.pkl").stat().st_mtime_ns == kept
    assert {file.stat().st_mode & 0o777 for file in folder.glob(f"{case}*")} == {0o660}
    mask = f"{case}.nii.gz"
    corrected = (own_run.raw / "labelsTr" / mask).read_bytes()
    assert (own_run.preprocessed / "gt_segmentations" / mask).read_bytes() == corrected


@pytest.mark.filterwarnings("default")
def test_preprocessed_scans_that_were_cut_short_are_made_again(own_run: Run):
    whole, case = preprocessed(own_run), own_run.split["train"][0]
    for ending, share in ((".pkl", 0.99), (".b2nd", 0.5), ("_seg.b2nd", 0)):
        done = []
        file = next(own_run.preprocessed.glob(f"ccdcseg_2d_*/{case}{ending}"))
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])
        train.prepare(
            own_run, 1, lambda what, *n, done=done: done.append(n) if what == "preprocess" else None
        )
        assert done == [(1, 1)]
        assert file.stat().st_size == len(content)
        assert preprocessed(own_run) == whole


@pytest.mark.filterwarnings("default")
def test_preprocessed_scans_with_a_hole_are_made_again(own_run: Run, train_run):
    """Their heads and ends are whole, so that the training begins."""
    names = (f"ccdcseg_2d_????????/{case}.b2nd" for case in sorted(own_run.split["train"]))
    images = [next(own_run.preprocessed.glob(name)) for name in names]
    for image in images:
        content = image.read_bytes()
        third = len(content) // 3
        image.write_bytes(content[:third] + bytes(third) + content[2 * third :])
    with pytest.raises(UserError, match=rf"{images[0]} is damaged \({len(images)} .*--resume"):
        train_run(own_run)
    assert train_run(own_run, resume=True) == own_run.folder
    assert not any(map(plans_module._is_damaged, images))


def erase(run: Run, case: str, change_volume: Any) -> None:
    change_volume(run.raw / "labelsTr" / f"{case}.nii.gz", lambda array: array.__setitem__(array == 3, 2))


@pytest.mark.filterwarnings("default")
def test_a_scan_in_another_unit_is_not_trained_on(own_run: Run, train_run, change_volume):
    """In metres: no voxel of it is left at the spacing of the network."""
    case = own_run.split["train"][0]
    for name in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz"):
        change_volume(own_run.raw / name, spacing_mm=(0.01, 0.0015, 0.0015))
    with pytest.raises(UserError, match=rf"{case}_0000\.nii\.gz has voxels of .*Correct the spacing"):
        train_run(own_run)


@pytest.mark.filterwarnings("default")
def test_splits_that_were_drawn_since_are_trained_on(
    own_run: Run, scan_again, describe_dataset, workspace: Any, monkeypatch: pytest.MonkeyPatch
):
    """In the place of one, with a further scan; and a further one, with another ``dataset.json``."""
    monkeypatch.setattr(plans_module, "_plan", PLAN)
    new = scan_again(own_run.raw, own_run.split["train"][0])
    for seed in (0, 1):
        split_dataset(own_run.raw, [0.4], seed)
        describe_dataset(own_run.raw, description=f"seed {seed}")
        run = resolve_run("901", "nnunet", 0.4, seed, str(workspace.preset))
        train.prepare(run, 1, lambda *_: None)
        splits = [
            json.loads((place / "splits_final.json").read_text()) for place in (run.raw, run.preprocessed)
        ]
        assert splits[0] == splits[1]
        assert len(splits[0]) == seed + 1
    assert new in splits[0][0]["train"]


@pytest.mark.filterwarnings("default")
def test_a_training_of_scans_that_changed_is_not_taken_for_one_of_today(
    own_run: Run, train_run, interrupt_run, change_volume
):
    interrupt_run(own_run, 4)
    mask = own_run.raw / "labelsTr" / f"{own_run.split['train'][1]}.nii.gz"
    original = mask.read_bytes()
    erase(own_run, own_run.split["train"][1], change_volume)
    with pytest.raises(UserError, match=rf"was begun on other scans: labelsTr/{mask.name} was changed"):
        train_run(own_run, resume=True)
    mask.write_bytes(original)
    folder = train_run(own_run, resume=True)
    assert json.loads((folder / "run.json").read_text())["scans"].keys() >= {f"labelsTr/{mask.name}"}
    train_run(own_run)
    erase(own_run, own_run.split["train"][1], change_volume)
    with pytest.raises(UserError, match=rf"was trained on other scans: labelsTr/{mask.name} was changed"):
        train_run(own_run)


@pytest.mark.filterwarnings("default")
def test_a_training_whose_channels_nnunet_would_normalise_otherwise(
    own_run: Run, trained: Path, train_run, describe_dataset
):
    """As of CT images today; other names of what is treated alike make no other training."""
    shutil.copytree(trained, own_run.model)
    for name in ("T2", "mri"):
        describe_dataset(own_run.raw, channel_names={"0": name})
        assert train_run(own_run) == own_run.folder
    describe_dataset(own_run.raw, channel_names={"0": "CT"})
    with pytest.raises(
        UserError, match=r"was trained with other channels: .*dataset\.json was changed since\. Move"
    ):
        train_run(own_run)


@pytest.mark.filterwarnings("default")
def test_a_training_whose_channels_stood_in_another_order(
    own_run: Run, trained: Path, describe_dataset, monkeypatch: pytest.MonkeyPatch
):
    """Each was normalised as the other, which an earlier version let happen."""
    monkeypatch.setattr(trained_module, "_changed_scan", lambda *_: "")
    shutil.copytree(trained, own_run.model)
    swapped = {"1": "CT", "0": "MRI"}
    for folder in (own_run.model, own_run.raw):
        describe_dataset(folder, channel_names=swapped)
    record = read_record(own_run.folder)
    assert changed_since(own_run, record) == ""
    describe_dataset(own_run.raw, channel_names={"0": "MRI", "1": "CT"})
    assert changed_since(own_run, record).startswith("with other channels: ")


@pytest.mark.filterwarnings("default")
def test_scans_that_are_preprocessed_again_while_it_trains(own_run: Run, train_run, change_volume):
    def meanwhile(stage: str, done: int, *_: object) -> None:
        if (stage, done) == ("train", 3):
            erase(own_run, own_run.split["train"][0], change_volume)
            train.prepare(own_run, 1, lambda *_: None)

    for _ in range(2):
        with pytest.raises(
            UserError, match=rf"{own_run.split['train'][0]} was changed and preprocessed again"
        ):
            train_run(own_run, progress=meanwhile)
    assert not own_run.finished


def test_scans_that_have_other_times_since_it_began_are_the_same(own_run: Run, train_run):
    """Their states are written down anew by what looks at them next."""
    noted = []

    def meanwhile(stage: str, done: int, *_: object) -> None:
        if (stage, done) == ("train", 3):
            for path in own_run.raw.glob("*Tr/*.nii.gz"):
                os.utime(path, (1e9, 1e9))
            origins = [*own_run.preprocessed.glob("ccdcseg_2d_*/made_from/*.json")]
            before = [origin.read_bytes() for origin in origins]
            train.prepare(own_run, 1, lambda *_: None)
            noted.extend(origin.read_bytes() != old for origin, old in zip(origins, before, strict=True))

    train_run(own_run, progress=meanwhile)
    assert own_run.finished
    assert all(noted)
    assert noted


@pytest.fixture
def namesakes(own_run: Run, workspace: Any, tmp_path: Path, change_volume: Any) -> list[Run]:
    """Two runs with one annotated scan in common, and one without a mask that has its name, each another."""
    name = f"{own_run.split['train'][0]}_0000.nii.gz"
    case = Case(name.removesuffix("_0000.nii.gz"), "new", "", "")
    folders = [tmp_path / place / "imagesTr" for place in ("one", "other")]
    write_unlabelled_cases(own_run.raw, {str(folder): [case] for folder in folders})
    runs = []
    for seed, (folder, like) in enumerate(zip(folders, own_run.split["train"], strict=False), 10):
        folder.mkdir(parents=True)
        shutil.copy(own_run.raw / "imagesTr" / f"{like}_0000.nii.gz", folder / name)
        change_volume(folder / name, lambda array: array.__iadd__(1))
        split_dataset(own_run.raw, [0.4], seed, None, folder)
        runs.append(resolve_run("901", "nnunet", 0.4, seed, str(workspace.preset), unlabelled=True))
    return runs


@pytest.mark.filterwarnings("default")
def test_another_trainings_scan_of_the_same_name_is_noticed(namesakes: list[Run]):
    run, other = namesakes
    plans = train.prepare(run, 1, lambda *_: None)
    write_json(run.model / "plans.json", plans)
    write_json(
        run.folder / "begun.json", train._record(run, plans, "cpu", train._preprocessed(run, plans)).content
    )
    train.prepare(other, 1, lambda *_: None)
    with pytest.raises(UserError, match=r"The scan unlabelled/patient\w+ was changed and preprocessed again"):
        train._finish(run)


def test_annotated_scans_of_the_same_name_are_watched_too(namesakes: list[Run], change_volume):
    run, name = namesakes[0], namesakes[0].split["train"][0]
    files = training_scans(run)
    assert len(set(files.values())) == len(files) == 2 * len(run.split["train"]) + 1
    hashes = {name: file_hash(file) for name, file in files.items()}
    record = scored.record(split_hash=run.split["hash"], labels=read_labels(run.raw), plans_hash=None)
    known = RunRecord.model_validate(record | {"scans": hashes})
    assert f"unlabelled/{name}_0000.nii.gz" in hashes
    assert changed_since(run, known) == ""
    change_volume(run.raw / "imagesTr" / f"{name}_0000.nii.gz", lambda array: array.__iadd__(1))
    assert f"imagesTr/{name}_0000.nii.gz" in changed_since(run, known)
    before = {f"{file.parent.name}/{file.name}": file_hash(file) for file in files.values()}
    assert changed_since(run, known.model_copy(update={"scans": before})) == ""


def test_a_scan_without_a_mask_that_is_gone(namesakes: list[Run], workspace: Any):
    """A run that is to be trained needs it, and the command that is advised draws; a finished run does not."""
    run, scans = namesakes[0], training_scans(namesakes[0])
    hashes = {name: file_hash(file) for name, file in scans.items()}
    record = scored.record(split_hash=run.split["hash"], labels=read_labels(run.raw), plans_hash=None)
    (gone,) = (file for name, file in scans.items() if name.startswith("unlabelled/"))
    gone.unlink()

    def resolve() -> Run:
        return resolve_run("901", "nnunet", 0.4, 10, str(workspace.preset), unlabelled=True)

    with pytest.raises(
        UserError, match=r"names a scan that is gone: .* does not exist.*Put it back, or .* --redraw"
    ) as error:
        resolve()
    *_, scan_folder, redraw = shlex.split(str(error.value))
    assert (scan_folder, redraw) == (str(gone.parent), "--redraw")
    write_json(run.folder / "run.json", record | {"scans": hashes})
    assert changed_since(resolve(), read_record(run.folder)) == ""


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("plans.json", lambda plans: plans["configurations"]["2d"].update(patch_size=[32, 32]), "plans"),
        ("dataset.json", lambda dataset: dataset["labels"].update(scar=4), "labels"),
        (
            "dataset.json",
            lambda dataset: dataset["labels"].update(right=dataset["labels"].pop("RV")),
            "labels",
        ),
    ],
)
def test_folds_of_other_plans_or_labels_share_no_folder(
    finished_run: Run, train_run, name: str, change: Callable[[Any], object], what: str
):
    stored = json.loads((finished_run.model / name).read_text())
    change(stored)
    (finished_run.model / name).write_text(json.dumps(stored))
    finished_run.folder.rename(finished_run.model / "fold_1")
    before = contents(finished_run.model)
    with pytest.raises(UserError, match=f"was trained with other {what}"):
        train_run(finished_run)
    assert contents(finished_run.model) == before


def test_a_finished_run_of_another_split(own_run: Run, train_run, monkeypatch: pytest.MonkeyPatch):
    own_run.folder.mkdir(parents=True)
    (own_run.folder / "run.json").write_text(json.dumps(scored.record(split_hash="0" * 64)))
    with pytest.raises(UserError, match=r"was trained on another split: .*splits_final\.json was drawn anew"):
        train_run(own_run)


@pytest.mark.filterwarnings("default")
def test_a_preset_that_is_described_otherwise_is_the_same(finished_run: Run, train_run):
    preset = finished_run.preset.model_copy(update={"description": "in other words"})
    assert train_run(replace(finished_run, preset=preset)) == finished_run.folder


@pytest.mark.parametrize("when", ["_prepare", "_check_plans"])
def test_a_split_that_is_drawn_anew_before_the_training_begins(
    own_run: Run, train_run, monkeypatch: pytest.MonkeyPatch, when: str
):
    """Before it is prepared, while others train; or after that, when another training puts its splits there."""

    def redraw(*arguments: Any) -> Any:
        split_dataset(own_run.raw, [0.4], 0, 2, redraw=True)
        shutil.copy(own_run.raw / "splits_final.json", own_run.preprocessed)
        return step(*arguments)

    step = getattr(train, when)
    monkeypatch.setattr(train, when, redraw)
    with pytest.raises(
        UserError, match=r"splits_final\.json is another split since this command began.*again"
    ):
        train_run(own_run)
    assert not (own_run.folder / LATEST).exists()
    assert not own_run.finished


@pytest.mark.parametrize("content", ['[{"train": ["a"], "val": ["b"]}]', '[{"train":'])
def test_own_splits_in_the_preprocessed_folder_are_left_alone(
    tiny_run, train_run, tmp_path: Path, content: str
):
    run = replace(tiny_run(), preprocessed=tmp_path / "preprocessed")
    run.preprocessed.mkdir()
    (run.preprocessed / "splits_final.json").write_text(content)
    with pytest.raises(UserError, match=r"preprocessed/splits_final\.json (was not made|is not valid)"):
        train_run(run)
    assert (run.preprocessed / "splits_final.json").read_text() == content
    assert not run.folder.exists()


def test_predictions_of_a_run_that_another_command_holds(tiny_run, tmp_path: Path):
    run = tiny_run()
    run.folder.mkdir(parents=True)
    (run.model / "dataset.json").write_text('{"file_ending": ".nii.gz", "labels": {}}')
    (run.model / "plans.json").write_text('{"configurations": {}}')
    with locked(run.folder, "train"):
        with pytest.raises(UserError, match=r"Another process .*works on .*then predict again"):
            predict([run.folder], {"a": []}, Output(run.folder / "predictions"), "cpu", lambda *_: None)
        with pytest.raises(UserError, match=r"checkpoint_final\.pth"):  # elsewhere it is not in the way
            predict([run.folder], {"a": []}, Output(tmp_path / "elsewhere"), "cpu", lambda *_: None)
    assert not (run.folder / "predictions").exists()
