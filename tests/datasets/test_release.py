import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from ccdcseg.datasets.cases import Case, read_cases
from ccdcseg.datasets.release import Release, free_folder, patient_folders, read_notes, write_dataset
from ccdcseg.errors import UserError

RELEASE = Release("Ours", "Two scans", "nobody", "CC0", {"thing": 1}, channels=("CT",))


@dataclass(frozen=True)
class Scan:
    case: Case


SCANS = [Scan(Case(name, name[0], "", "")) for name in ("a1", "b1")]


def touch(folder: Path, scan: Scan) -> list[str]:
    (folder / scan.case.case).touch()
    return ["touched", f"as {scan.case.patient}"]


def test_a_dataset_is_written_and_described(tmp_path: Path) -> None:
    target = free_folder(tmp_path, 7, "Ours")
    assert write_dataset(RELEASE, SCANS, touch, target, 2) == tmp_path / "Dataset007_Ours"
    assert read_cases(target) == [scan.case for scan in SCANS]
    assert (target / "a1").exists()
    assert read_notes(target) == {"touched": ["a1", "b1"], "as a": ["a1"], "as b": ["b1"]}
    description = json.loads((target / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"}
    assert description["labels"] == {"background": 0, "thing": 1}
    assert (description["numTraining"], description["synthetic"]) == (2, False)


def die(folder: Path, scan: Scan) -> list[str]:
    (folder / scan.case.case).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def test_a_killed_worker_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"was killed.*fewer --processes \(nnUNet_def_n_proc=1"):
        write_dataset(RELEASE, SCANS, die, tmp_path / "Dataset007_Ours", 2)
    assert list(tmp_path.iterdir()) == []


def test_patients_are_found_in_order(tmp_path: Path) -> None:
    for name in ("one/10", "one/2", "one/notes", "two/3"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "one" / "4").touch()
    places = [tmp_path / name for name in ("one", "two", "nowhere")]
    assert [path.name for path in patient_folders(places, re.compile(r"\d+"), ["scan"])] == ["2", "3", "10"]


def test_a_patient_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "3").mkdir(parents=True)
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "3").symlink_to(tmp_path / "disk" / "3")
    assert [path.name for path in patient_folders([tmp_path / "release"], re.compile(r"\d+"), ["scan"])] == [
        "3"
    ]
    (tmp_path / "release" / "4").symlink_to(tmp_path / "disk" / "4")
    with pytest.raises(UserError, match=r"release/4 is a link to .*disk/4, which is not there"):
        patient_folders([tmp_path / "release"], re.compile(r"\d+"), ["scan"])
