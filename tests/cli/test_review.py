"""``ccdcseg review`` on a phantom, with trainings of a few steps."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccdcseg.datasets.cases import read_cases, write_cases
from ccdcseg.datasets.splits import SPLITS_FILE
from ccdcseg.datasets.volumes import read_image
from ccdcseg.files import file_hash
from ccdcseg.nnunet import ensemble, plans
from ccdcseg.review import networks

HEADING = "case,patient,class,score,suspicion,sentence,dice,contradiction_mm,surface_probability,answer"


@pytest.fixture(scope="module")
def reviewed(workspace: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nnU-Net's folders of a data set that was reviewed by two folds."""
    root = tmp_path_factory.mktemp("reviewed")
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):  # what other tests planned is not planned again
        if (workspace.root / name).exists():
            shutil.copytree(workspace.root / name, root / name)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            patch.setenv(name, str(root / name))
        assert run_review(patch, root, workspace, "-o", root / "review.html") == 0
    return root


def run_review(patch: pytest.MonkeyPatch, root: Path, workspace: Any, *arguments: object) -> int:
    from ccdcseg.cli import main

    words = [
        "review",
        "901",
        "--fraction",
        "0.4",
        "--preset",
        workspace.preset,
        "--device",
        "cpu",
        *arguments,
    ]
    patch.setattr("sys.argv", ["ccdcseg", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture
def place(reviewed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work on."""
    shutil.copytree(reviewed, tmp_path / "copy")
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / "copy" / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "copy"


def raw_of(root: Path) -> Path:
    return root / "nnUNet_raw" / "Dataset901_Phantom"


def runs_of(root: Path) -> list[Path]:
    return sorted((root / "nnUNet_results").glob("*/*/fold_*"))


def test_each_labelled_scan_is_held_against_the_fold_that_never_saw_it(reviewed: Path) -> None:
    content = json.loads((reviewed / "review.json").read_text())
    split, *folds = json.loads((raw_of(reviewed) / SPLITS_FILE).read_text())
    assert {case["case"] for case in content["cases"]} == {*split["train"]}
    tested = {case: f"fold_{number}" for number, fold in enumerate(folds, 1) for case in fold["test"]}
    assert len(content["networks"]) == len(folds) == 2
    for case in content["cases"]:
        assert [Path(name).name for name in case["networks"]] == [tested[case["case"]]]
    scores = [case["score"] for case in content["cases"]]
    assert scores == sorted(scores, reverse=True)
    for run in runs_of(reviewed):
        record = json.loads((run / "run.json").read_text())
        held = {case["patient"] for case in content["cases"] if tested[case["case"]] == run.name}
        assert held.isdisjoint(record["patients"]["train"])
        assert record["fold_of"]["split"] == split["hash"]


def test_the_probabilities_are_those_of_the_network(reviewed: Path) -> None:
    case = json.loads((reviewed / "review.json").read_text())["cases"][0]
    cache = reviewed / "nnUNet_preprocessed" / "Dataset901_Phantom" / "ccdcseg_review"
    probabilities = networks.read_probabilities([cache / case["networks"][0] / f"{case['case']}.npz"])
    mask = read_image(raw_of(reviewed) / "labelsTr" / f"{case['case']}.nii.gz")
    assert probabilities.shape[1:] == mask.array.shape
    assert np.abs(probabilities.sum(0) - 1).max() < 0.02


def test_a_second_review_trains_and_predicts_nothing_anew_and_shows_answers(
    place: Path, workspace: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ensemble, "build_predictor", lambda *_: pytest.fail("it predicts again"))
    monkeypatch.setattr(plans, "_plan", lambda *_: pytest.fail("it plans again"))
    case = json.loads((place / "review.json").read_text())["cases"][0]
    table = f"dataset,case,mask,answer\nDataset901_Phantom,{case['case']},{case['mask']},wrong\n"
    Path("answers.csv").write_text(table)
    assert run_review(monkeypatch, place, workspace, "--answers", "answers.csv") == 0
    assert "1 wrong" in capsys.readouterr().out
    assert (raw_of(place) / "review.csv").read_text() == table
    assert run_review(monkeypatch, place, workspace) == 0
    answers = {one["case"]: one["answer"] for one in json.loads(Path("review.json").read_text())["cases"]}
    assert {name for name, answer in answers.items() if answer} == {case["case"]}
    assert Path("review.html").read_text().count('value="wrong" checked') == 1


def test_a_mask_that_is_changed_is_ranked_anew_and_its_answer_no_longer_holds(
    place: Path,
    workspace: Any,
    monkeypatch: pytest.MonkeyPatch,
    change_volume: Callable[..., None],
    ccdcseg: Callable[..., Any],
) -> None:
    cases = json.loads((place / "review.json").read_text())["cases"]
    name, run = cases[0]["case"], place / "nnUNet_results" / "Dataset901_Phantom" / cases[0]["networks"][0]
    table = f"dataset,case,mask,answer\nDataset901_Phantom,{name},{cases[0]['mask']},right\n"
    (raw_of(place) / "review.csv").write_text(table)
    change_volume(raw_of(place) / "labelsTr" / f"{name}.nii.gz", lambda array: array[:, ::-1])
    result = ccdcseg("review", "901", "--run", run, "--patient", name, "--device", "cpu")
    assert result.code == 0, result.err
    (one,) = json.loads(Path("review.json").read_text())["cases"]
    assert one["mask"] != cases[0]["mask"]
    assert one["answer"] == ""
    (raw_of(place) / "review.csv").unlink()
    Path("answers.csv").write_text(table)
    result = ccdcseg("review", "901", "--answers", "answers.csv")
    assert result.code == 2
    assert f"the mask of {name} was changed since" in result.err
    assert not (raw_of(place) / "review.csv").exists()


def test_a_run_reviews_whom_it_never_saw_and_refuses_by_name_whom_it_saw(
    place: Path, ccdcseg: Callable[..., Any]
) -> None:
    run = runs_of(place)[0]
    trained = json.loads((run / "run.json").read_text())["patients"]["train"]
    result = ccdcseg("review", "901", "--run", run, "--patient", trained[0], "--device", "cpu")
    assert result.code == 2
    assert f"{trained[0]}_" in result.err
    assert "was trained on by" in result.err
    result = ccdcseg("review", "901", "--run", run, "--device", "cpu")
    assert result.code == 0, result.err
    cases = json.loads(Path("review.json").read_text())["cases"]
    assert len({case["patient"] for case in cases}) == 4
    assert not {case["patient"] for case in cases} & {*trained}


def test_the_run_of_the_round_before_reviews_whom_it_never_saw(
    place: Path, ccdcseg: Callable[..., Any]
) -> None:
    """In the next data set, where one of those that it saw has another name."""
    run, raw = runs_of(place)[0], place / "nnUNet_raw" / "Dataset902_Next"
    shutil.copytree(raw_of(place), raw, ignore=shutil.ignore_patterns(SPLITS_FILE))
    trained, cases = json.loads((run / "run.json").read_text())["patients"]["train"], read_cases(raw)
    renamed = [replace(case, patient=case.patient.replace(trained[0], "new")) for case in cases]
    write_cases(raw, renamed)
    result = ccdcseg("review", "902", "--run", run, "--patient", "new", "--device", "cpu")
    assert result.code == 2
    assert f"{trained[0]}_" in result.err
    assert "was trained on by" in result.err
    result = ccdcseg("review", "902", "--run", run, "--device", "cpu")
    assert result.code == 0, result.err
    content = json.loads(Path("review.json").read_text())
    assert content["dataset"] == "Dataset902_Next"
    reviewed = {case["patient"] for case in content["cases"]}
    assert reviewed == {case.patient for case in renamed} - {*trained, "new"}


def test_folds_are_no_runs_of_the_data_set(place: Path, ccdcseg: Callable[..., Any]) -> None:
    result = ccdcseg("evaluate", "901")
    assert result.code == 2
    assert "holds no finished training" in result.err


def test_answers_that_a_spreadsheet_saved_are_taken(
    raw_folder: Path, ccdcseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(raw_folder.parent))
    (raw_folder / "cases.csv").write_text("case,patient,group,phase\n001,001,,\n002,002,,\n")
    for number, mask in enumerate(sorted((raw_folder / "labelsTr").iterdir())[:2], 1):
        mask.rename(mask.with_name(f"00{number}.nii.gz"))
    masks = {case: file_hash(raw_folder / "labelsTr" / f"{case}.nii.gz") for case in ("001", "002")}
    rows = [f"{raw_folder.name};{int(case)};{mask};wrong" for case, mask in masks.items()]
    table = raw_folder.parent / "answers.csv"
    table.write_text("\r\n".join(["dataset;case;mask;answer", *rows]), encoding="utf-8-sig")
    result = ccdcseg("review", "7", "--answers", table)
    assert result.code == 0, result.err
    kept = (raw_folder / "review.csv").read_text().splitlines()
    assert kept[1:] == [f"{raw_folder.name},{case},{mask},wrong" for case, mask in masks.items()]
    assert "Changed" not in result.out
    table.write_text(table.read_text(encoding="utf-8-sig").replace("wrong", "right", 1))
    result = ccdcseg("review", "7", "--answers", table)
    assert (
        "(1 right, 1 wrong)\nChanged: 1 kept before, to 1 right\n         001: right, was wrong\n"
        in result.out
    )


@pytest.mark.parametrize(
    "remains", ["patient,said\np1,redraw slice 3\n", f"{HEADING},drawn anew\n", f"drawn anew,{HEADING}\n"]
)
def test_a_ranking_of_somebody_elses_or_with_columns_added_is_not_replaced(
    workspace: Any, tmp_path: Path, ccdcseg: Callable[..., Any], remains: str
) -> None:
    mine = tmp_path / "cohort_ranking.csv"
    mine.write_text(remains)
    result = ccdcseg("review", "901", "--run", tmp_path / "nowhere", "-o", tmp_path / "cohort.html")
    assert result.code == 2
    assert f"{mine} would be replaced" in result.err
    assert mine.read_text() == remains


def test_a_ranking_of_our_own_is_replaced(
    workspace: Any, tmp_path: Path, ccdcseg: Callable[..., Any]
) -> None:
    (tmp_path / "cohort_ranking.csv").write_text(f"{HEADING}\n")
    result = ccdcseg("review", "901", "--run", tmp_path / "nowhere", "-o", tmp_path / "cohort.html")
    assert "would be replaced" not in result.err
    assert "nowhere" in result.err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--patient", "nobody"], "nobody is no patient or case among those that are reviewed"),
        (["-o", "page.json"], "page page.json does not end in .html"),
        (["--fraction", "0.9"], "no split of fraction 0.9"),
        (["--answers", "none.csv"], "none.csv does not exist"),
        (["--folds", "2", "--run", "nowhere"], "--run and --folds exclude each other"),
        (["--run", "nowhere"], "There is no data set nowhere"),
        (["--run", "."], "is no run folder: it has no run.json"),
        (["--method", "ccdc_both"], "names no scans without masks"),
    ],
)
def test_bad_input_is_one_line(
    place: Path, workspace: Any, ccdcseg: Callable[..., Any], words: list[str], problem: str
) -> None:
    given = ["review", "901", "--preset", workspace.preset, "--device", "cpu"]
    fraction = [] if "--fraction" in words else ["--fraction", "0.4"]
    result = ccdcseg(*(given[:2] if "--run" in words else [*given, *fraction]), *words)
    assert result.code == 2
    assert problem in result.err
    assert len([line for line in result.err.splitlines() if line.startswith("ccdcseg:")]) == 1


def test_a_missing_mask_is_named(place: Path, ccdcseg: Callable[..., Any]) -> None:
    run = runs_of(place)[0]
    held = json.loads((run / "run.json").read_text())["patients"]["test"][0]
    mask = next((raw_of(place) / "labelsTr").glob(f"{held}_*"))
    mask.unlink()
    result = ccdcseg("review", "901", "--run", run, "--device", "cpu")
    assert result.code == 2
    assert f"{mask} does not exist" in result.err
    assert not Path("review.json").exists()
