"""The command line: what a user meets, mistakes above all. Each is one line, exit code 2, nothing half-made."""

import errno
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import nibabel
import numpy as np
import pytest
import scored

from ccdcseg import __version__
from ccdcseg.cli.data import _say_split
from ccdcseg.cli.prepare import _say_unlabelled
from ccdcseg.datasets.splits import split_dataset
from ccdcseg.phantom import write_phantom
from ccdcseg.runs.evaluation import read_evaluation

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("release") / "release", 3, 1)


@pytest.fixture
def release(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raw release that may be damaged, and empty nnU-Net folders."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    shutil.copytree(pristine, tmp_path / "release")
    return tmp_path / "release"


def one_line(err: str) -> str:
    """The message, without the progress lines before it."""
    lines = [line for line in err.splitlines() if line.startswith("ccdcseg: ")]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


def image(release: Path, suffix: str = "") -> Path:
    return next((release / "training" / "patient002").glob(f"*frame01{suffix}.nii.gz"))


def rewrite(path: Path, change) -> None:
    volume = nibabel.load(path)
    array, header = np.asarray(volume.dataobj), volume.header.copy()
    affine = volume.affine
    array, affine = change(array, header, affine)
    nibabel.Nifti1Image(array, affine, header).to_filename(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def another_shape(path: Path) -> None:
    rewrite(path, lambda array, header, affine: (array[:, :-1], affine))


def unknown_label(path: Path) -> None:
    def change(array, header, affine):
        array = array.copy()
        array.flat[0] = 9
        return array, affine

    rewrite(path, change)


def set_spacing(value: float):
    """Patch pixdim[1] in the bytes, where libraries would mend it."""

    def damage(path: Path) -> None:
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[80:84] = np.float32(value).tobytes()
        path.write_bytes(gzip.compress(bytes(content)))

    return damage


@pytest.mark.parametrize(
    ("suffix", "damage", "words"),
    [
        ("", Path.unlink, ["patient002", "frame01"]),
        ("_gt", Path.unlink, ["patient002", "frame01_gt"]),
        ("", truncate, ["patient002_frame01.nii.gz"]),
        ("_gt", another_shape, ["patient002_frame01_gt.nii.gz", "shape"]),
        ("_gt", unknown_label, ["patient002_frame01_gt.nii.gz", "9"]),
        ("", set_spacing(0.0), ["patient002_frame01.nii.gz", "spacing"]),
        ("", set_spacing(float("nan")), ["patient002_frame01.nii.gz", "spacing"]),
    ],
)
def test_damaged_release(release: Path, ccdcseg, suffix, damage, words):
    damage(image(release, suffix))
    result = ccdcseg("prepare", "acdc", release, "--dataset", 902)
    assert result.code == 2
    for word in words:
        assert word in one_line(result.err)
    assert list((release.parent / "nnUNet_raw").iterdir()) == []


def test_patient_without_info(release: Path, ccdcseg):
    (release / "training" / "patient003" / "Info.cfg").unlink()
    result = ccdcseg("prepare", "acdc", release, "--dataset", 902)
    assert result.code == 2
    assert "patient003" in one_line(result.err)


def test_no_release_at_all(release: Path, ccdcseg):
    result = ccdcseg("prepare", "acdc", release.parent / "nnUNet_raw", "--dataset", 902)
    assert result.code == 2
    assert "patient" in one_line(result.err)


@pytest.fixture
def checked(raw_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small clean data set in nnU-Net's folders, and a working folder of its own."""
    monkeypatch.setenv("nnUNet_raw", str(raw_folder.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nnUNet_preprocessed"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return raw_folder


@pytest.mark.parametrize("command", ["check", "next", "report", "review"])
def test_what_somebody_else_wrote_is_not_replaced_by_a_page(checked: Path, ccdcseg, command: str):
    mine, thesis = Path(f"{command}.html").absolute(), Path("thesis.docx")
    mine.write_text("<html>my own</html>")
    thesis.write_text("my own")
    result = ccdcseg(command, 7)
    assert (result.code, f"{mine.name} would be replaced" in one_line(result.err)) == (2, True)
    assert ccdcseg(command, 7, "-o", thesis).code == 2
    assert [mine.read_text(), thesis.read_text()] == ["<html>my own</html>", "my own"]


@pytest.mark.parametrize("command", ["check", "review"])
def test_a_page_named_as_the_file_of_another_replaces_nothing(checked: Path, ccdcseg, command: str):
    description = (checked / "dataset.json").read_bytes()
    result = ccdcseg(command, 7, "-o", checked / "dataset.html", "--processes", 1)
    assert result.code == 2
    assert "dataset.json would be replaced" in one_line(result.err)
    assert (checked / "dataset.json").read_bytes() == description


def test_check_of_a_clean_dataset(checked: Path, ccdcseg):
    result = ccdcseg("check", 7, "--processes", 1)
    assert result.code == 0
    assert result.out == (
        f"Dataset007_Small: no problems and no notes in 6 cases. Page: {Path.cwd() / 'check.html'}\n"
    )
    assert "measure: 6 of 6" in result.err
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["check.html", "check.json"]
    again = ccdcseg("check", "Dataset007_Small", "-o", "sub/page.html", "--processes", 1)
    assert (again.code, again.err) == (0, "")
    assert {path.name for path in Path("sub").iterdir()} == {"page.html", "page.json"}
    assert sorted(path.name for path in checked.iterdir()) == [
        "cases.csv",
        "dataset.json",
        "imagesTr",
        "labelsTr",
    ]


def test_check_with_notes_alone_succeeds(checked: Path, ccdcseg):
    (checked / "cases.csv").unlink()
    result = ccdcseg("check", 7, "--processes", 1)
    assert result.code == 0
    assert "patients unknown" in result.out
    assert "no problems and 1 note in 6 cases." in result.out


def test_check_that_finds_a_problem_fails_and_says_why(checked: Path, ccdcseg):
    (checked / "labelsTr" / "p2_ED.nii.gz").unlink()
    result = ccdcseg("check", 7, "--processes", 1)
    assert result.code == 1
    assert "image without mask" in result.out
    assert "1 problem and no notes in 6 cases." in result.out
    assert "Traceback" not in result.err
    assert "image without mask" in Path("check.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "damage", "words"),
    [
        (["check", "8"], None, "id 8"),
        (["check", "7"], "dataset.json", "dataset.json"),
        (["check", "7", "-o", "check.json"], None, "check.json"),
    ],
)
def test_check_of_what_cannot_be_checked(checked: Path, ccdcseg, arguments, damage, words):
    if damage:
        (checked / damage).write_text("{")
    result = ccdcseg(*arguments)
    assert result.code == 2
    assert words in one_line(result.err)
    assert list(Path.cwd().iterdir()) == []


def test_full_disk_while_preparing(release: Path, ccdcseg, monkeypatch: pytest.MonkeyPatch):
    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ccdcseg.datasets.release.write_json", full)
    result = ccdcseg("prepare", "acdc", release, "--dataset", 902)
    assert result.code == 2
    assert "disk" in one_line(result.err)
    assert list((release.parent / "nnUNet_raw").iterdir()) == []


def test_unset_folders_are_named(release: Path, ccdcseg, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("nnUNet_raw")
    result = ccdcseg("prepare", "acdc", release, "--dataset", 902)
    assert result.code == 2
    assert "nnUNet_raw" in one_line(result.err)


def test_an_empty_word_is_no_choice(release: Path, ccdcseg, tmp_path: Path):
    """As where a variable of the shell is not set."""
    assert ccdcseg("prepare", "acdc", release, "--dataset", 902).code == 0
    result = ccdcseg("split", 902, "--fraction", 0.5, "--unlabelled", "")
    assert result.code == 2
    assert "--unlabelled is empty" in one_line(result.err)
    for name, words in (("", "-o is empty"), (str(tmp_path), "is a folder")):
        result = ccdcseg("compare", 902, "-o", name)
        assert result.code == 2
        assert words in one_line(result.err)


def test_prepare_and_split(release: Path, ccdcseg):
    assert ccdcseg("prepare", "acdc", release, "--dataset", 902).code == 0
    again = ccdcseg("prepare", "acdc", release, "--dataset", 902)
    assert again.code == 0
    assert "Prepared already" in again.out
    (release / "notes.txt").write_text("another release")
    other = ccdcseg("prepare", "acdc", release, "--dataset", 902)
    assert other.code == 2
    assert "902" in one_line(other.err)
    result = ccdcseg("split", 902, "--fraction", 0.34, "--fraction", 0.34, "--seed", 0, "--seed", 0)
    assert result.code == 0
    assert result.out.count("train 1 patients, 2 scans") == 1
    late = ccdcseg("split", 902, "--fraction", 0.99)
    assert late.code == 2
    assert "0.99" in one_line(late.err)
    for shares in ((), ("--fraction", 0.34, "--preset", "paper")):
        result = ccdcseg("split", 902, *shares)
        assert result.code == 2
        assert "--fraction or --preset" in one_line(result.err)
    unknown = ccdcseg("train", 902, "--fraction", 0.5)
    assert unknown.code == 2
    assert "ccdcseg split" in one_line(unknown.err)


def test_an_interrupted_prepare_says_so_and_leaves_nothing(release: Path, ccdcseg, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ccdcseg.datasets.acdc.write_pair", interrupted)
    result = ccdcseg("prepare", "acdc", release, "--dataset", 902, "--processes", 1)
    assert result.code == 2
    assert one_line(result.err) == (
        "ccdcseg: Interrupted. Nothing half-made was left; run the same command again."
    )
    assert list((release.parent / "nnUNet_raw").iterdir()) == []


def test_ctrl_c_while_an_archive_is_converted(release: Path):
    """The signal itself, in a process of its own: the unpacked archive and the half of a data set go."""
    for number in range(4, 40):
        folder = release / "training" / f"patient{number:03d}"
        shutil.copytree(release / "training" / "patient001", folder)
        for path in folder.glob("patient001*"):
            path.rename(folder / path.name.replace("patient001", folder.name))
    archive = shutil.make_archive(str(release.parent / "ACDC"), "zip", release.parent, "release")
    raw = release.parent / "nnUNet_raw"
    program = "from ccdcseg.cli import main; main()"
    command = [sys.executable, "-c", program, "prepare", "acdc", archive, "--dataset", "902"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: process.poll() is not None or list(raw.glob("*/.*.partial/*/labelsTr/*.nii.gz")))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 2, out
    assert one_line(err) == "ccdcseg: Interrupted. Nothing half-made was left; run the same command again."
    assert list(raw.iterdir()) == []


def test_a_release_comes_as_a_zip_archive(release: Path, ccdcseg):
    archive = shutil.make_archive(str(release.parent / "ACDC"), "zip", release.parent, "release")
    assert ccdcseg("prepare", "acdc", archive, "--dataset", 902).code == 0
    assert ccdcseg("prepare", "acdc", release, "--dataset", 903).code == 0
    raw = release.parent / "nnUNet_raw"
    assert sorted(path.name for path in raw.iterdir()) == ["Dataset902_Phantom", "Dataset903_Phantom"]
    for path in (raw / "Dataset903_Phantom").rglob("*.nii.gz"):
        other = raw / "Dataset902_Phantom" / path.relative_to(raw / "Dataset903_Phantom")
        assert other.read_bytes() == path.read_bytes()


def test_a_raw_folder_made_elsewhere_needs_its_patients(release: Path, ccdcseg):
    ccdcseg("prepare", "acdc", release, "--dataset", 902)
    table = release.parent / "nnUNet_raw" / "Dataset902_Phantom" / "cases.csv"
    table.unlink()
    refused = ccdcseg("split", 902, "--fraction", 0.34)
    assert refused.code == 2
    assert "ccdcseg patients" in one_line(refused.err)
    result = ccdcseg("patients", 902, "--pattern", "{patient}_frame{phase}")
    assert result.code == 0
    assert "6 cases of 3 patients, 2 each; 1 group" in result.out
    assert "train 1 patients, 2 scans" in ccdcseg("split", 902, "--fraction", 0.34).out


def test_scans_without_masks_that_are_left_out_are_named(half_annotated: Path, ccdcseg, monkeypatch):
    """One of a measured patient, and one that is there with its mask."""
    monkeypatch.setenv("nnUNet_raw", str(half_annotated.parent))
    for name in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(half_annotated.parent / name))
    shutil.copy(half_annotated / "imagesTr" / "p2_ED_0000.nii.gz", half_annotated / "imagesTs")
    for seed in range(9):
        result = ccdcseg("split", 7, "--fraction", 0.34, "--seed", seed, "--unlabelled", "imagesTs")
        if "training patients: p3" in result.out:
            break
    assert "  without masks: 8 scans of imagesTs\n" in result.out
    assert "  left out: p1_ES, since patient p1 is measured\n" in result.out
    assert "  left out: p2_ED, since it is there with its mask, too\n" in result.out


def test_of_many_scans_without_masks_some_are_named(capsys: pytest.CaptureFixture[str], monkeypatch):
    scans = {f"s{number}": f"p{number}" for number in range(200)}
    unlabelled = {"images": "imagesTs", "cases": ["u"], "left_out": scans}
    patients = {"train": ["p"], "validation": [], "test": [*scans.values()]}
    _say_split(
        {
            "fraction": 0.1,
            "seed": 0,
            "hash": "0" * 64,
            "counts": {},
            "patients": patients,
            "unlabelled": unlabelled,
        }
    )
    said = capsys.readouterr().out.splitlines()
    assert said[3] == "  left out: s0, since patient p0 is measured"
    assert said[7:] == [
        "  left out: s4, since patient p4 is measured",
        "  left out: 195 more, see splits_final.json",
    ]
    monkeypatch.setattr("ccdcseg.datasets.release.unlabelled_scans", lambda _: [*scans])
    _say_unlabelled(Path("folder"))
    assert (
        capsys.readouterr().out
        == "No mask: s0, s1, s2, s3, s4 and 195 more: put into imagesTs, in no split.\n"
    )


def test_fraction_that_leaves_a_split_without_a_class(release: Path, ccdcseg):
    for patient in ("patient001", "patient002", "patient003"):
        if patient != "patient001":
            for mask in (release / "training" / patient).glob("*_gt.nii.gz"):
                rewrite(mask, lambda array, header, affine: (np.where(array == 1, 0, array), affine))
    ccdcseg("prepare", "acdc", release, "--dataset", 902)
    results = [ccdcseg("split", 902, "--fraction", 0.34, "--seed", seed) for seed in range(9)]
    path = release.parent / "nnUNet_raw" / "Dataset902_Phantom" / "splits_final.json"
    assert {result.code for result in results} == {0, 2}
    assert [entry["seed"] for entry in json.loads(path.read_text())] == [
        seed for seed, result in enumerate(results) if result.code == 0
    ]
    for result in results:
        trained = "training patients: patient001\n" in result.out
        said = "no test patient has RV" if trained else "leaves the train patients without the class RV"
        assert (result.code == 0, said in " ".join(result.err.split())) == (trained, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "ccdc.wieght=1"], "ccdc.wieght"),
        (["--set", "ccdc.temperature=-1"], "temperature"),
        (["--seed", "77"], "seed 77"),
        (["--fraction", "0.4"], "--fraction is given twice"),
    ],
)
def test_mistakes_before_training(workspace, ccdcseg, arguments, words):
    before = sorted(workspace.root.rglob("*"))
    result = ccdcseg("train", 901, "--fraction", 0.4, "--preset", "smoke", *arguments)
    assert result.code == 2
    assert words in one_line(result.err)
    assert sorted(workspace.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "words"), [("--preset=fast", "no preset fast"), ("--fraction=0.7", "0.7")]
)
def test_a_preset_or_a_split_that_is_not_there(workspace, ccdcseg, option, words):
    result = ccdcseg("train", 901, "--set", "ccdc.temperature=0.1", option)
    assert result.code == 2
    assert words in one_line(result.err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["prepare", "nifti", "scans", "--mask", "a", "--mask=b"],
            "--mask is given twice. .* all classes of a",
        ),
        (["split", 901, "--unlabelled", "imagesTs", "--unlabelled", "more"], "--unlabelled is given twice"),
        (["check", 901, "-o", "a.html", "--output", "b.html"], "-o is given twice"),
    ],
)
def test_an_option_of_one_value_is_given_once(ccdcseg, arguments, words):
    result = ccdcseg(*arguments)
    assert result.code == 2
    assert re.search(words, one_line(result.err))


@pytest.mark.parametrize(
    ("arguments", "option"),
    [(["predict", 901, "--output", ""], "--output"), (["train", 901, "--set", "a=1", "--set", ""], "--set")],
)
def test_an_option_is_not_empty(ccdcseg, tmp_path, monkeypatch, arguments, option):
    """As of a variable that is not set: a path would be the current folder."""
    monkeypatch.chdir(tmp_path)
    result = ccdcseg(*arguments)
    assert result.code == 2
    assert f"{option} is empty" in one_line(result.err)
    assert not [*tmp_path.iterdir()]


def test_unknown_dataset(workspace, ccdcseg):
    result = ccdcseg("train", 555)
    assert result.code == 2
    assert "555" in one_line(result.err)
    assert "Dataset901_Phantom" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", 901, "--method", "magic"],
        ["train", 901, "--sede", 1],
        ["train", 901, "--seed", "one"],
        ["train", 901, "--seed", -1],
        ["train", 901, "--seed"],
        ["train"],
        ["trian"],
        ["--sede"],
        ["evaluate", 901, "--part", "train"],
        ["prepare", "acdc"],
        ["prepare", "acdc", "release", "--dataset", 1000],
        ["prepare", "acds"],
    ],
)
def test_words_that_are_not_understood_are_one_line(workspace, ccdcseg, arguments):
    result = ccdcseg(*arguments)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert result.out == ""
    one_line(result.err)


@pytest.mark.parametrize("arguments", [[], ["prepare"]])
def test_no_words_at_all_print_the_help(ccdcseg, arguments):
    result = ccdcseg(*arguments)
    assert result.code == 2
    assert "Usage: " in result.out + result.err


def test_a_shell_completes_commands_data_sets_and_methods(workspace):
    def completed(*words: str) -> list[str]:
        line = {"COMP_WORDS": " ".join(["ccdcseg", *words]), "COMP_CWORD": str(len(words))}
        program = [sys.executable, "-m", "ccdcseg"]
        environment = os.environ | line | {"_CCDCSEG_COMPLETE": "complete_bash"}
        return subprocess.run(
            program, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()

    assert set(completed("rep")) == {"report", "reproduce"}
    assert completed("split", "") == ["Dataset901_Phantom"]
    assert completed("train", "901", "--method", "ccdc") == ["ccdc", "ccdc_both"]
    assert "cpu_long" in completed("train", "901", "--preset", "cpu")


def test_full_disk_while_training(workspace, ccdcseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_checkpoint, handle):
        handle.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setattr("torch.save", full)
    result = ccdcseg("train", 901, "--fraction", 0.4, "--preset", workspace.preset)
    assert result.code == 2
    assert "checkpoint_latest.pth is full" in one_line(result.err)
    assert not list(tmp_path.rglob("*.pth"))
    assert not list(tmp_path.rglob("*.partial"))


def test_nothing_trained_yet(workspace, ccdcseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    for command in ("predict", "evaluate", "compare", "report"):
        result = ccdcseg(command, 901)
        assert result.code == 2
        assert "Train first" in one_line(result.err)


@pytest.mark.parametrize(
    ("part", "command"), [("test", "evaluate"), ("validation", "evaluate --part validation")]
)
def test_the_report_is_of_a_part_of_the_split(ccdcseg, tmp_path: Path, part: str, command: str):
    shutil.copy(scored.STORED / "run.json", tmp_path)
    page = tmp_path / "page.html"
    assert ccdcseg("report", tmp_path, "--part", part, "--output", page).code == 0
    assert f"run `ccdcseg {command}` on the runs first" in page.read_text()


def test_every_run_has_its_rows(workspace, ccdcseg, bare_runs: list[Path], monkeypatch: pytest.MonkeyPatch):
    names, runs = ("Dataset027_ACDC", "Dataset061_Hearts"), bare_runs[:2]
    for run, name in zip(runs, names, strict=True):
        record = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(record | {"dataset": name, "seed": 0}))
    monkeypatch.setattr(
        "ccdcseg.workflow.evaluate",
        lambda run, *_, **__: {"predictions": read_evaluation(run / "evaluation.json")},
    )
    table = ccdcseg("evaluate", *runs).out
    assert [table.count(f"{name}:") for name in names] == [1, 1]
    table = ccdcseg("evaluate", runs[0]).out
    assert "ccdc 0.1" in table
    assert names[0] not in table


@pytest.mark.parametrize(
    ("fraction", "words"), [(1.0, r"/fold_0 --input IMAGES --output FOLDER"), (0.7, r"7\n")]
)
def test_a_training_says_what_it_can_predict(
    raw_folder: Path, ccdcseg, monkeypatch: pytest.MonkeyPatch, fraction: float, words: str
):
    monkeypatch.setenv("nnUNet_raw", str(raw_folder.parent))
    for name in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(raw_folder.parent / name))
    monkeypatch.setattr("ccdcseg.cli.runs._train", lambda *_: None)
    split_dataset(raw_folder, [fraction], 0)
    result = ccdcseg("train", 7, "--fraction", fraction, "--device", "cpu")
    assert re.search(rf"Next: ccdcseg predict \S*{words}", result.out)


def test_which_runs_predict_together_is_said(workspace, ccdcseg, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    folders = [tmp_path / workspace.raw.name / name / "fold_0" for name in ("one", "two")]
    for folder in folders:
        folder.mkdir(parents=True)
        shutil.copy(scored.STORED / "run.json", folder)
    result = ccdcseg("predict", 901, "--input", tmp_path, "--output", tmp_path / "out")
    assert result.code == 2
    assert "2 runs were found" in one_line(result.err)
    assert "Name their folders" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("Unable to allocate 3 GiB"), "There is not enough memory"),
        (RuntimeError("can't start new thread"), "starts no more processes or threads"),
    ],
)
def test_what_the_system_has_no_more_of_is_said(ccdcseg, monkeypatch, error: Exception, words: str):
    def short(_: object) -> None:
        raise error

    monkeypatch.setattr("ccdcseg.cli.program.absolute", short)
    result = ccdcseg("demo")
    assert result.code == 2
    assert words in one_line(result.err)


def test_version_and_help(ccdcseg):
    assert ccdcseg("--version").out.strip() == f"ccdcseg {__version__}"
    result = ccdcseg("--help")
    assert result.code == 0
    for command in (
        "prepare",
        "check",
        "split",
        "train",
        "predict",
        "evaluate",
        "compare",
        "report",
        "trainers",
        "demo",
    ):
        assert command in result.out


def test_help_imports_nothing_slow():
    program = (
        "import sys, ccdcseg.cli\n"
        "slow = {'torch', 'nnunetv2', 'numpy', 'SimpleITK', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(slow)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("anew", [False, True])
def test_a_current_folder_that_is_gone_is_named(ccdcseg, tmp_path: Path, monkeypatch, anew: bool):
    """MKL ends a process there, and names a library of PyTorch's."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    if anew:
        folder.mkdir()
    result = ccdcseg("--version")
    assert result.code == 2
    assert one_line(result.err).startswith("ccdcseg: The current folder does not exist any more")


def test_figures_go_into_files_whatever_jupyter_draws_with(monkeypatch: pytest.MonkeyPatch):
    """What a notebook starts inherits its backend, of which matplotlib cannot be imported where it is missing."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    program = (
        "import contextlib, sys, ccdcseg.cli\n"
        "sys.argv[1:] = ['--version']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    ccdcseg.cli.main()\n"
        "import matplotlib\n"
        "print(matplotlib.get_backend())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.stdout.splitlines()[1:], result.stderr) == (["agg"], "")


@pytest.mark.slow
@pytest.mark.usefixtures("hurried")
def test_the_whole_path_by_commands(pristine: Path, ccdcseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Raw release to page, as a user would, with one training, as a program, stopped by Ctrl-C and continued."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def run(*arguments: object) -> str:
        result = ccdcseg(*arguments)
        assert result.code == 0, result.err
        return result.out

    short = ("--set", "training.epochs=4", "--set", "training.iterations_per_epoch=8")
    smoke = ("--preset", "smoke", "--fraction", 0.34, *short)
    run("prepare", "acdc", pristine, "--dataset", 902)
    run("split", 902, "--fraction", 0.34, "--seed", 0)
    run("train", 902, "--method", "nnunet", *smoke)

    script = Path(sys.executable).parent / "ccdcseg"
    ccdc = ("train", 902, "--method", "ccdc", *smoke)
    with subprocess.Popen([script, *map(str, ccdc)], stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: list(tmp_path.rglob("nnUNetTrainerCCDC__*/fold_0/checkpoint_latest.pth")))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        messages = process.stderr.read()
    assert process.returncode == 2
    assert one_line(messages) == (
        "ccdcseg: Interrupted. The same command with --resume continues from the last checkpoint."
    )
    refused = ccdcseg(*ccdc)
    assert refused.code == 2
    assert "--resume" in one_line(refused.err)
    run(*ccdc, "--resume")

    run("predict", 902)
    table = run("evaluate", 902)
    assert "nnunet" in table
    assert "ccdc" in table
    compared = run("compare", 902, "--as-in-the-paper", "--output", tmp_path / "compared.csv")
    assert "AS IN THE PAPER" in " ".join(compared.split())
    assert json.loads((tmp_path / "compared.json").read_text())["unit"] == "case"
    page = tmp_path / "report.html"
    run("report", 902, "--output", page)
    assert "Dataset902_Phantom" in page.read_text()
    assert list(tmp_path.rglob("*.partial")) == []


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


LONG = ["--preset", "smoke", "--set", "training.epochs=1000000"]


@pytest.mark.parametrize("command", ["train", "predict", "reproduce"])
def test_a_device_that_is_not_there_is_named_before_anything_is_done(
    workspace, ccdcseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = {
        "train": ["train", 901, "--fraction", 0.4],
        "predict": ["predict", scored.STORED],
        "reproduce": ["reproduce", 901, "table1", "-o", tmp_path / "out"],
    }
    result = ccdcseg(*arguments[command], "--device", "cuda")
    assert result.code == 2
    assert "There is no CUDA GPU that PyTorch can use" in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


def test_a_long_training_on_a_cpu_wants_to_be_confirmed(
    workspace, ccdcseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    command = ["train", 901, "--fraction", 0.4, "--device", "cpu", *LONG]
    refused = ccdcseg(*command)
    assert refused.code == 2
    assert re.search(r"This training takes roughly \d+ days on this CPU\. Confirm it with --yes", refused.err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("answer", "yes", "goes_on"),
    [("y", False, True), ("n", False, False), ("", False, False), ("", True, True)],
)
def test_who_sits_at_the_terminal_is_asked(
    monkeypatch: pytest.MonkeyPatch, answer: str, yes: bool, goes_on: bool
):
    from ccdcseg.cli.output import confirm_long
    from ccdcseg.errors import UserError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: answer == "y")
    confirm_long(3600, "This training", False)
    with nullcontext() if goes_on else pytest.raises(UserError, match="takes roughly 14 hours"):
        confirm_long(50_000, "This training", yes)


def test_splits_are_drawn_again_after_the_patients_were_corrected(release: Path, ccdcseg, tmp_path: Path):
    assert ccdcseg("prepare", "acdc", release, "--dataset", 27, "--processes", 1).code == 0
    (table,) = (tmp_path / "nnUNet_raw").glob("*/cases.csv")
    assert ccdcseg("split", 27, "--fraction", 0.4).code == 0
    table.write_text(table.read_text().replace(",patient001", ",patient101"))
    stale = ccdcseg("split", 27, "--fraction", 0.4)
    assert stale.code == 2
    assert "--redraw" in one_line(stale.err)
    assert "patient101" in ccdcseg("split", 27, "--fraction", 0.4, "--redraw").out + table.read_text()
    assert ccdcseg("split", 27, "--fraction", 0.4).code == 0


def test_report_says_where_there_is_no_viewer(ccdcseg, monkeypatch: pytest.MonkeyPatch, capsys):
    from ccdcseg.cli.output import say_report
    from ccdcseg.report import viewer

    for script, words in ((None, "Note:   There is no slice viewer"), ("niivue", "")):
        monkeypatch.setattr(viewer, "niivue_script", lambda script=script: script)
        say_report(Path("report.html"))
        assert capsys.readouterr().out.partition("\n")[2].startswith(words)
