import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ccdcseg.datasets.cases import write_cases
from ccdcseg.errors import UserError
from ccdcseg.proposals.proposals import COLUMNS, Proposals, Wanted, propose, write_list


@pytest.fixture
def make(half_annotated: Path, tmp_path: Path) -> Callable[..., Proposals]:
    def run(
        scans: int = 3, images: Path = Path("imagesTs"), runs: tuple[Path, ...] = (), seed: int = 0
    ) -> Proposals:
        wanted = Wanted(scans, 3, seed)
        return propose(half_annotated, images, wanted, runs, tmp_path / "cache", 1, "cpu", lambda *_: None)

    return run


def test_patients_with_a_mask_are_passed_over(make: Callable[..., Proposals]) -> None:
    found = make(scans=9)
    assert (found.scans, found.unknown, found.annotated, found.passed_over) == (10, 0, 6, 2)
    assert [*found.draws] == ["random", "covering"]
    for chosen in found.draws.values():
        assert sorted(one.scan.case.patient for one in chosen) == ["q1", "q2", "q3", "q4"]
        assert {one.slices for one in chosen} == {(2, 5, 7)}


def test_nothing_is_annotated_yet(make: Callable[..., Proposals], half_annotated: Path) -> None:
    shutil.rmtree(half_annotated / "labelsTr")
    shutil.rmtree(half_annotated / "imagesTr")
    write_cases(half_annotated, [])
    found = make(scans=9)
    assert (found.annotated, found.passed_over) == (0, 0)
    assert all(len(chosen) == 5 for chosen in found.draws.values())


def test_whose_scans_they_are_is_not_known(make: Callable[..., Proposals], half_annotated: Path) -> None:
    """Then each is a patient's of its own, unless it looks like another one."""
    (half_annotated / "unlabelled.csv").unlink()
    shutil.copy(
        half_annotated / "imagesTs" / "q1_ED_0000.nii.gz", half_annotated / "imagesTs" / "copy_0000.nii.gz"
    )
    found = make(scans=99)
    assert found.unknown == 11
    names = [one.scan.case.case for one in found.draws["random"]]
    assert len(names) == 10
    assert len({"copy", "q1_ED"} & {*names}) == 1


def test_the_list(make: Callable[..., Proposals], tmp_path: Path) -> None:
    found = make(scans=2)
    write_list(found, tmp_path / "next.csv")
    rows = [*csv.DictReader((tmp_path / "next.csv").read_text().splitlines())]
    assert tuple(rows[0]) == COLUMNS
    assert [(row["draw"], row["rank"]) for row in rows] == [
        ("random", "1"), ("random", "2"), ("covering", "1"), ("covering", "2"),
    ]  # fmt: skip
    for row in rows:
        assert Path(row["image"]).exists()
        assert row["slices"] == "2 5 7"
    assert re.fullmatch(r"nearest to \d+ of 10 scans, group [ab]", rows[2]["why"])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda raw: shutil.rmtree(raw / "imagesTs"), r"imagesTs is no folder"),
        (lambda raw: [path.unlink() for path in (raw / "imagesTs").glob("q*")], r"Each of the 2 scans in imagesTs"),
        (lambda raw: (raw / "imagesTs" / "q1_ED_0000.nii.gz").write_bytes(b"x"), r"q1_ED_0000\.nii\.gz is no "),
        (lambda raw: (raw / "unlabelled.csv").write_text("case\nq1\n"), r"unlabelled\.csv has the columns case"),
    ],
)  # fmt: skip
def test_what_cannot_be_used(
    make: Callable[..., Proposals], half_annotated: Path, break_it: Callable[[Path], object], message: str
) -> None:
    break_it(half_annotated)
    with pytest.raises(UserError, match=message):
        make()


def test_runs_that_cannot_be_asked(make: Callable[..., Proposals], tmp_path: Path) -> None:
    run = tmp_path / "model" / "fold_0"
    run.mkdir(parents=True)
    with pytest.raises(UserError, match=r"fold_0 is no finished training"):
        make(runs=(run,))
    (run / "checkpoint_final.pth").write_bytes(b"")
    (run.parent / "plans.json").write_text('{"configurations": {}}')
    theirs = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "liver": 1},
        "file_ending": ".nii.gz",
    }
    (run.parent / "dataset.json").write_text(json.dumps(theirs))
    with pytest.raises(UserError, match=r"fold_0 was trained on the classes liver, not on RV, LV"):
        make(runs=(run,))
    theirs["labels"] = {"background": 0, "RV": 1, "LV": 2}
    (run.parent / "dataset.json").write_text(json.dumps(theirs))
    with pytest.raises(UserError, match=r"fold_0 was trained on the channels T1, T2, not on MRI"):
        make(runs=(run,))
