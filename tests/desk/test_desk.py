"""A hostile desk: forbidden folders, low limits, two commands at once, links, odd names, old terminals."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from conditions import Result, run, start, supported

from ccdcseg.datasets.acdc import prepare_acdc
from ccdcseg.datasets.splits import split_dataset
from ccdcseg.nnunet.checkpoints import load_checkpoint
from ccdcseg.phantom import write_phantom

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces of Linux")

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
RUN, OTHER = "run", "other"
"""Links to two runs. Commands are given them, and are to say where they lead."""
TRAIN = ("train", "901", "--method", "nnunet", "--fraction", "0.4", "--preset", "tiny.yaml")
SHORT = ("--set", "training.epochs=1")
IMAGES = "nnUNet_raw/Dataset901_Phantom/imagesTr"
COMMANDS = {
    "prepare": ("prepare", "acdc", "release", "--dataset", "902"),
    "patients": ("patients", "903", "--pattern", "{patient}_frame{phase}"),
    "split": ("split", "901", "--fraction", "0.4", "--seed", "1"),
    "split --unlabelled": ("split", "901", "--fraction", "0.4", "--seed", "1", "--unlabelled", "1"),
    "check": ("check", "901"),
    "train": (*TRAIN, *SHORT),
    "train --unlabelled": (*TRAIN, *SHORT, "--seed", "2", "--unlabelled"),
    "train --self-training": (*TRAIN, *SHORT, "--seed", "2", "--self-training"),
    "predict": ("predict", RUN),
    "predict --output": ("predict", RUN, "--input", IMAGES, "--output", "place", "--no-postprocessing"),
    "evaluate": ("evaluate", OTHER),
    "evaluate --output": ("evaluate", OTHER, "--output", "place"),
    "compare": ("compare", RUN, OTHER, "-o", "compared"),
    "report": ("report", OTHER),
    "reproduce": ("reproduce", "901", "mine.yaml", "--preset", "tiny.yaml"),
    "demo": ("demo",),
}


@pytest.fixture(scope="module")
def template(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release, data sets and two runs, one of them without predictions."""
    root = tmp_path_factory.mktemp("desk") / "template"
    release = write_phantom(root / "release", 5, 0, 90.0)
    raw = prepare_acdc(release, root / "nnUNet_raw", 901)
    split_dataset(raw, [0.4], 0)
    split_dataset(raw, [0.4], 2, unlabelled=1)
    shutil.copytree(raw, raw.with_name("Dataset903_Foreign"), ignore=shutil.ignore_patterns("cases.csv"))
    (root / "tiny.yaml").write_text(tiny)
    (root / "mine.yaml").write_text("title: mine\nfractions: [0.4]\nrows: [{name: nnunet, method: nnunet}]\n")
    for arguments in (TRAIN, ("predict", "901"), ("evaluate", "901")):
        result = run(arguments, root, folders(root))
        assert result.code == 0, result.err
    (trained,) = root.glob("nnUNet_results/*/*/fold_0")
    other = Path(str(trained).replace("nnUNetTrainerPreset", "nnUNetTrainerCCDC"))
    shutil.copytree(trained.parent, other.parent)
    record = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(record | {"method": "ccdc", "trainer": "nnUNetTrainerCCDC"}))
    shutil.rmtree(trained / "predictions")
    for name, folder in ((RUN, trained), (OTHER, other)):
        (root / name).symlink_to(folder.relative_to(root))
    return root


def folders(root: Path) -> dict[str, str]:
    return {name: str(root / name) for name in FOLDERS} | {"nnUNet_def_n_proc": "1"}


@pytest.fixture
def desk(template: Path, tmp_path: Path) -> Path:
    """A copy of the template that may be used up; its runs point to its own data."""
    root = shutil.copytree(template, tmp_path / "desk", symlinks=True)
    for path in root.glob("nnUNet_results/*/*/fold_0/run.json"):
        path.write_text(path.read_text().replace(str(template), str(root)))
    return root


def state(root: Path) -> dict[str, Any]:
    """Every file; rglob follows no link."""
    return {str(path.relative_to(root)): content(path) for path in root.rglob("*") if path.is_file()}


def content(path: Path) -> Any:
    """What a file holds, but for the states of files, which are noted anew in a copy such as this desk."""
    if path.parent.name != "made_from" or path.name.startswith("."):
        return path.read_bytes()
    written = json.loads(path.read_text())
    sources = {name: source["content"] for name, source in (written["sources"] or {}).items()}
    return sources, written["made"]


def refused(err: str) -> str:
    """The one line, after the progress before it."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("ccdcseg: ")]
    assert len(lines) == 1, err
    return lines[0]


def worked(err: str) -> bool:
    """Whether there is progress, or anything else than where would be computed and the one line."""
    return [line for line in err.splitlines() if not line.startswith("Device: ")] != [refused(err)]


REFUSED = {"read-only": "read-only file", "forbidden": "forbidden", "files of 200 bytes": "limit for a file"}
"""What the line says under conditions without another way."""
WAYS = ("32 descriptors", "no shared memory", "ASCII")
"""Conditions under which results are the usual ones."""
LONG = ("train --self-training", "reproduce", "demo")
"""Commands that take longer than a test may, unless they are refused before the work."""
BEFORE = ("read-only", "forbidden")
"""Conditions that are noticed before the work."""
TABLE = [(c, name) for c in (*REFUSED, *WAYS) for name in COMMANDS if c in BEFORE or name not in LONG]


@pytest.mark.parametrize(("condition", "command"), TABLE)
def test_commands_under_conditions(desk: Path, condition: str, command: str):
    """Refused in one line, with nothing left and nothing lost, or done."""
    needs(condition)
    if condition in ("32 descriptors", "no shared memory") and command == "train":
        shutil.rmtree(desk / "nnUNet_preprocessed")  # else there is nothing for several processes to do
    before = state(desk)
    processes = {"nnUNet_def_n_proc": "2" if condition == "no shared memory" else "1"}
    result = run(COMMANDS[command], desk, folders(desk) | processes, condition)
    assert "Traceback" not in result.err
    after = state(desk)
    assert hidden(after) == hidden(before)
    if condition in REFUSED:
        check_refused(desk, result, condition)
        kept = after if condition in BEFORE else {name: after.get(name) for name in before}
        assert kept == before
    else:
        assert result.code == 0, result.err
        assert before.keys() <= after.keys()
        assert result.out.isascii() or condition != "ASCII"
        said = "One process does the work: no shared memory" in result.err
        assert said == (
            condition == "no shared memory" and command == "train"
        )  # whose plans nnU-Net's pool makes


@pytest.mark.parametrize("size", ["200", "20000"])
def test_a_library_that_cannot_write_a_preprocessed_scan(desk: Path, size: str):
    """What compresses scans says only that it failed."""
    shutil.rmtree(desk / "nnUNet_preprocessed")
    condition = f"files of {size} bytes"
    result = run(COMMANDS["train"], desk, folders(desk), condition)
    assert result.code == 2
    assert str(desk / "nnUNet_preprocessed") in refused(result.err)
    assert "limit for a file" in refused(result.err)
    assert not hidden(state(desk))


@pytest.mark.parametrize("ending", [".pkl", ".b2nd", "_seg.b2nd"])
def test_a_preprocessed_scan_that_lacks_a_file_is_made_again(desk: Path, ending: str):
    for file in desk.glob(f"nnUNet_preprocessed/*/ccdcseg_2d_*/*{ending}"):
        file.unlink()
    result = run(COMMANDS["train"], desk, folders(desk))
    assert result.code == 0, result.err


def check_refused(desk: Path, result: Result, condition: str) -> None:
    assert result.code == 2
    assert str(desk) in refused(result.err)
    assert REFUSED[condition] in refused(result.err)
    assert condition not in BEFORE or not worked(result.err)


@pytest.mark.parametrize("command", ["prepare", "check", "train", "predict", "evaluate", "compare"])
def test_a_disk_with_little_room(desk: Path, command: str):
    """The work fits, or is refused in one line with nothing lost; with more room the same command goes on."""
    needs("small disk")
    before = state(desk)
    result = run(COMMANDS[command], desk, folders(desk), "small disk")
    after = state(desk)
    assert hidden(after) == hidden(before)
    assert result.code in (0, 2)
    assert result.code == 0 or "The disk of " in refused(result.err)
    assert result.code == 2 or command in ("evaluate", "compare")
    assert {name: after.get(name) for name in before} == before or command == "evaluate"
    for path in map(desk.joinpath, after.keys() - before.keys()):
        read_whole(path)
    resume = ("--resume",) if command == "train" else ()
    again = run((*COMMANDS[command], *resume), desk, folders(desk))
    assert again.code == 0, again.err


def read_whole(path: Path) -> None:
    """Files that are left are what their names say."""
    if path.suffix == ".json" and "ccdcseg_check" not in path.parts:  # measurements that check themselves
        json.loads(path.read_text())
    if path.suffixes[-2:] == [".nii", ".gz"]:
        gzip.decompress(path.read_bytes())
    if path.suffix == ".pth":
        load_checkpoint(path)
    assert path.stat().st_size > 0 or path.suffix == ".txt"  # nnU-Net's log


ALONE = ("prepare", "split", "check", "evaluate --output", "report")
"""Commands whose work one process does, as nnU-Net's training and prediction do not let it."""


@pytest.mark.parametrize(
    ("command", "processes", "code"),
    [
        *((command, "1", 0) for command in ALONE),
        *((command, "1", 2) for command in ("train", "predict")),
        *((command, "2", 2) for command in ("prepare", "check", "evaluate --output", "train")),
    ],
)
def test_a_user_who_may_start_no_more_processes(desk: Path, command: str, processes: str, code: int):
    needs("no more processes")
    before = state(desk)
    if command == "train":
        shutil.rmtree(desk / "nnUNet_preprocessed")
    environment = folders(desk) | {"nnUNet_def_n_proc": processes}
    result = run(COMMANDS[command], desk, environment, "no more processes")
    after = state(desk)
    assert hidden(after) == hidden(before)
    assert result.code == code, result.err
    said = "starts no more processes or threads for this user. Give --processes 1"
    assert code == 0 or said in refused(result.err)


def test_signs_that_a_terminal_lacks_are_replaced_by_signs_alike(desk: Path):
    """The locale itself, in a process of its own."""
    plain = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    program = [sys.executable, "-c", "from ccdcseg.cli import main; main()", "methods"]
    result = subprocess.run(program, env={**os.environ, **plain}, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.isascii()
    assert b"CCDC" in result.stdout


def test_a_run_in_a_read_only_folder_is_predicted_and_measured_elsewhere(desk: Path, tmp_path: Path):
    needs("read-only")
    place = tmp_path / "elsewhere"
    for command in ("predict", "evaluate"):
        result = run([command, RUN, "--output", place], desk, folders(desk), "read-only")
        assert result.code == 0, result.err
    assert f"Predictions: {place / 'predictions'}\n" in result.out
    here, there = (json.loads((one / "evaluation.json").read_text()) for one in (desk / OTHER, place))
    assert there["measured"].pop("run").endswith("/fold_0")
    assert here["measured"].pop("run") is None
    assert here == there
    result = run(["evaluate", OTHER, "--output", tmp_path / "third"], desk, folders(desk), "read-only")
    assert f"Predictions: {(desk / OTHER).resolve() / 'predictions'}\n" in result.out
    written = [path for path in (tmp_path / "third").rglob("*") if path.is_file()]
    assert {path.name for path in written} == {"evaluation.csv", "evaluation.json"}


def test_what_is_preprocessed_serves_from_a_read_only_folder(desk: Path):
    needs("read-only")
    words = ["train", "901", "--method", "focal", "--fraction", "0.4", "--preset", desk / "tiny.yaml"]
    result = run(words, desk / "nnUNet_preprocessed", folders(desk), "read-only")
    assert result.code == 0, result.err
    shutil.rmtree(next(desk.glob("nnUNet_preprocessed/*/ccdcseg_2d_*")))
    words[words.index("focal")] = "topk"
    result = run(words, desk / "nnUNet_preprocessed", folders(desk), "read-only")
    assert result.code == 2
    assert "read-only" in refused(result.err)


def test_scans_are_augmented_without_shared_memory(desk: Path):
    needs("no shared memory")
    words = (*TRAIN, *SHORT, "--set", "training.augmentation_processes=1")
    result = run(words, desk, folders(desk), "no shared memory")
    assert result.code == 0, result.err
    assert "One process does the work: no shared memory" in result.err


@pytest.mark.parametrize("words", [("demo", "--folder"), ("report", RUN, "-o"), ("prepare", "acdc")])
def test_a_path_of_a_thousand_folders(desk: Path, words: tuple[str, ...]):
    assert "more than 250 folders" in refused(run((*words, "d/" * 1000), desk, folders(desk)).err)


def test_check_without_a_place_for_what_it_measures(desk: Path, tmp_path: Path):
    needs("read-only")
    result = run(["check", "901", "-o", tmp_path / "check.html"], desk, folders(desk), "read-only")
    assert result.code == 0, result.err
    assert "Nothing is kept for the next time" in result.err
    assert {path.name for path in tmp_path.iterdir()} == {"check.html", "check.json", "desk"}


@pytest.mark.parametrize("attempt", range(10))
@pytest.mark.parametrize("command", ["prepare", "predict"])
def test_of_two_at_once_one_works_and_the_other_says_who(desk: Path, command: str, attempt: int):
    del attempt
    (images := desk / "images").mkdir()
    (place := desk / "place").mkdir()
    shutil.copy(next(desk.glob("nnUNet_raw/Dataset901_Phantom/imagesTr/*")), images)
    for patient in range(3, 6):
        shutil.rmtree(desk / "release" / "training" / f"patient{patient:03d}")
    words = {
        "prepare": COMMANDS["prepare"],
        "predict": ("predict", RUN, "--input", "images", "--output", "place"),
    }[command]
    environment = folders(desk) | {"nnUNet_raw": str(place)} if command == "prepare" else folders(desk)
    before = hidden(state(desk))
    results = [command.finish() for command in [start(words, desk, environment) for _ in range(2)]]
    assert all("Traceback" not in result.err for result in results)
    for result in results:
        check_second(result, place)
    assert min(result.code for result in results) == 0
    assert len([*place.glob("[DpC]*")]) == 1
    assert hidden(state(desk)) == before
    assert run(words, desk, environment).code == 0


@pytest.mark.parametrize("command", ["check", "train", "evaluate", "split"])
def test_others_at_once_end_in_what_one_alone_makes(desk: Path, command: str):
    before = hidden(state(desk))
    results = [one.finish() for one in [start(COMMANDS[command], desk, folders(desk)) for _ in range(2)]]
    assert min(result.code for result in results) == 0
    for result in results:
        assert not result.code or " works on " in refused(result.err)
    assert hidden(state(desk)) == before
    assert run(COMMANDS[command], desk, folders(desk)).code == 0


@pytest.mark.parametrize("command", ["prepare", "check", "train", "predict"])
def test_a_command_that_the_system_ends(desk: Path, command: str):
    """SIGTERM once something is written: one line, nothing half-made, nothing lost; the same command goes on."""
    before = state(desk)
    paths = len([*desk.rglob("*")])
    started = start(COMMANDS[command], desk, folders(desk))
    while started.process.is_alive() and len([*desk.rglob("*")]) == paths:
        time.sleep(0.01)
    os.kill(started.process.pid, signal.SIGTERM)
    result = started.finish()
    assert result.code == 2
    assert refused(result.err).startswith("ccdcseg: Interrupted.")
    after = state(desk)
    assert hidden(after) == hidden(before)
    assert {name: after.get(name) for name in before} == before
    assert (
        run((*COMMANDS[command], *(["--resume"] if command == "train" else [])), desk, folders(desk)).code
        == 0
    )


def check_second(result: Result, place: Path) -> None:
    if result.code:
        line = refused(result.err)
        assert result.code == 2
        assert line.startswith("ccdcseg: Another process")
        assert f" works on {place}" in line
        assert not worked(result.err)


@pytest.mark.parametrize("depth", range(1, 6))
def test_a_run_on_another_disk_behind_a_link(desk: Path, tmp_path: Path, depth: int):
    """The results, those of a data set, a model, a run, its predictions."""
    (model,) = desk.glob("nnUNet_results/*/nnUNetTrainerCCDC__*")
    place = Path(*(model / "fold_0" / "predictions").parts[: len(desk.parts) + depth])
    target = shutil.move(place, tmp_path / "scratch")
    place.symlink_to(target)
    next((model / "fold_0" / "predictions").iterdir()).unlink()
    for command in ("predict", "evaluate"):
        result = run((command, model / "fold_0"), desk, folders(desk))
        assert result.code == 0, result.err
    assert place.is_symlink()


def test_a_training_in_folders_that_are_links_below_the_home(desk: Path, tmp_path: Path):
    """Nobody has expanded the variables; what a link in a run's folder leads to is not touched."""
    (kept := tmp_path / "kept").mkdir()
    (kept / "file").touch()
    for name in FOLDERS[1:]:
        shutil.rmtree(desk / name)
        (tmp_path / name).mkdir()
        (desk / name).symlink_to(tmp_path / name)
    environment = {name: f"~/../desk/{name}" for name in FOLDERS} | {"HOME": str(desk)}
    result = run(TRAIN, desk, folders(desk) | environment)
    assert result.code == 0, result.err
    (folder,) = desk.glob("nnUNet_results/*/*/fold_0")
    assert f"Run:  {tmp_path / folder.relative_to(desk)}\n" in result.out
    for name in ("run.json", "checkpoint_final.pth"):
        (folder / name).unlink()
    (folder / "mine").symlink_to(kept)
    again = run(TRAIN, desk, folders(desk) | environment)
    assert again.code == 0, again.err
    assert (folder / "mine").is_symlink()
    assert (kept / "file").exists()


NAME = os.fsdecode(b"p\xe4tient")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (f"images/{NAME}.nii.gz", ("prepare", "nifti", "images", "--dataset", "5", "--name", "A", "--label",
                                   "a=1", "--channel", "MRI", "--image", "{patient}.nii.gz", "--mask",
                                   "masks/{patient}.nii.gz")),
        (f"images/{NAME}_0000.nii.gz", ("predict", RUN, "--input", "images", "--output", "place")),
        (f"nnUNet_raw/Dataset901_Phantom/imagesTr/{NAME}_0000.nii.gz", TRAIN),
        (f"{NAME}/CASE_0000.nii.gz", ("predict", RUN, "--input", NAME, "--output", "place")),
    ],
)  # fmt: skip
def test_a_name_that_is_not_in_utf8_is_refused_by_name(desk: Path, place: str, words: tuple[str, ...]):
    scan = next(desk.glob("nnUNet_raw/Dataset901_Phantom/labelsTr/*"))
    (desk / place).parent.mkdir(exist_ok=True)
    (desk / "images" / "masks").mkdir(parents=True, exist_ok=True)
    shutil.copy(scan, desk / place)
    shutil.copy(scan, desk / "images" / "masks" / f"{NAME}.nii.gz")
    before = state(desk)
    result = run((*words, "--set", "training.epochs=3") if words == TRAIN else words, desk, folders(desk))
    assert result.code == 2
    assert "p\\xe4tient" in refused(result.err)
    assert "is not in UTF-8" in refused(result.err)
    assert state(desk) == before


def needs(condition: str) -> None:
    if not supported(condition):
        pytest.skip(f"this user may not have it: {condition}")


def hidden(files: Iterable[str]) -> list[str]:
    return [name for name in files if any(part.startswith(".") for part in Path(name).parts)]
