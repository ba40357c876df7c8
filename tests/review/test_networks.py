import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ccdcseg.datasets.cases import Case, read_cases, write_cases
from ccdcseg.errors import UserError
from ccdcseg.files import file_hash
from ccdcseg.nnunet.checkpoints import FINAL
from ccdcseg.review import networks
from ccdcseg.review.networks import Network, judges, read_networks, read_probabilities
from ccdcseg.runs.record import Patients, RunRecord

SCANS = {"imagesTr/x_0000.nii.gz": "0" * 64}
CASES = [Case(f"p{number}_{phase}", f"p{number}", "", phase) for number in range(4) for phase in ("ED", "ES")]


def network(*trained: str, name: str = "fold_0") -> Network:
    patients = Patients(train=trained, validation=(), test=())
    record = RunRecord.model_construct(
        patients=patients, dataset="Dataset007_Small", labels={"RV": 1, "LV": 2}
    )
    return Network(Path("model") / name, record, frozenset(trained))


def test_each_case_is_judged_by_all_that_never_saw_its_patient() -> None:
    one, other = network("p0", "p1"), network("p1", "p2", name="fold_1")
    found = judges(CASES, [one, other], [])
    assert {case: [judge.name for judge in unseeing] for case, unseeing in found.items()} == {
        "p0_ED": ["model/fold_1"],
        "p0_ES": ["model/fold_1"],
        "p2_ED": ["model/fold_0"],
        "p2_ES": ["model/fold_0"],
        "p3_ED": ["model/fold_0", "model/fold_1"],
        "p3_ES": ["model/fold_0", "model/fold_1"],
    }


def test_patients_and_cases_limit_a_review() -> None:
    assert [*judges(CASES, [network("p0")], ["p1", "p2_ES"])] == ["p1_ED", "p1_ES", "p2_ES"]


@pytest.mark.parametrize(
    ("trained", "named", "problem"),
    [
        (["p0"], ["p9"], "p9 is no patient or case among those"),
        (["p0"], ["p1", "p0"], "p0_ED was trained on by"),
        (["p0", "p1", "p2", "p3"], [], "was trained on every annotated patient"),
    ],
)
def test_whom_no_network_can_judge_is_refused(trained: list[str], named: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        judges(CASES, [network(*trained)], named)


@pytest.mark.parametrize("named", [[], ["p0"]])
@pytest.mark.parametrize(("patients", "advice"), [(1, "annotate a second patient"), (4, "leave --run out")])
def test_where_other_networks_come_from(named: list[str], patients: int, advice: str) -> None:
    cases = CASES[: 2 * patients]
    with pytest.raises(UserError, match=f"Name a run that never saw .*, or {advice}"):
        judges(cases, [network(*{case.patient for case in cases})], named)


@pytest.fixture
def finished(raw_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes the folder of a finished run in that of a model, whose ``dataset.json`` may be another."""

    def make(record: RunRecord, place: str = "model/fold_0", **changes: object) -> Path:
        monkeypatch.setattr(networks, "read_record", lambda _: record)
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / FINAL).touch()
        (folder.parent / "plans.json").write_text('{"configurations": {}}')
        content = json.loads((raw_folder / "dataset.json").read_text()) | changes
        (folder.parent / "dataset.json").write_text(json.dumps(content))
        return folder

    return make


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"labels": {"background": 0, "liver": 1}},
            r"fold_0 was trained on the classes liver, not on RV, LV",
        ),
        ({"channel_names": {"0": "T1"}}, r"fold_0 was trained on the channels T1, not on MRI"),
    ],
)
def test_runs_of_other_classes_or_channels_are_refused(
    raw_folder: Path, finished: Callable[..., Path], changes: dict[str, object], problem: str
) -> None:
    """Of another data set, or since ``dataset.json`` was changed."""
    run = finished(network("p0").record, **changes)
    with pytest.raises(UserError, match=problem):
        read_networks(raw_folder, [run])


@pytest.fixture
def elsewhere(finished: Callable[..., Path]) -> Callable[..., Path]:
    """A finished run of another data set."""

    def make(scans: dict[str, str] | None, **changes: object) -> Path:
        record = network("somebody").record.model_copy(
            update={"dataset": "Dataset008_Before", "scans": scans}
        )
        return finished(record, **changes)

    return make


def test_a_run_of_another_data_set_saw_whom_it_names_and_whose_images_it_saw(
    raw_folder: Path, elsewhere: Callable[..., Path]
) -> None:
    """The scan of "p1" was somebody's there, "p2" had the case of that name, and "p3" had no mask yet."""
    image, mask = (file_hash(raw_folder / "imagesTr" / f"{case}_0000.nii.gz") for case in ("p1_ED", "p3_ED"))
    scans = {"imagesTr/x_0000.nii.gz": image, "labelsTr/p2_ES.nii.gz": "0" * 64}
    run = elsewhere(scans | {"unlabelled/y_0000.nii.gz": mask})
    (found,) = read_networks(raw_folder, [run])
    assert found.patients == {"somebody", "p1", "p2"}
    assert [*judges(read_cases(raw_folder), [found], [])] == ["p3_ED", "p3_ES"]
    with pytest.raises(UserError, match="p1_ED was trained on by"):
        judges(read_cases(raw_folder), [found], ["p1", "p3"])


@pytest.mark.parametrize(
    ("scans", "changes", "problem"),
    [
        (None, {}, r"was trained on Dataset008_Before, and its record does not say on which images"),
        ({}, {}, r"was trained on Dataset008_Before, and its record does not say on which images"),
        (SCANS, {"channel_names": {"0": "CT"}}, r"was trained on the channels CT, not on MRI"),
        (
            SCANS,
            {"labels": {"background": 0, "liver": 1}},
            r"was trained on the classes liver, not on RV, LV",
        ),
    ],
)
def test_a_run_of_another_data_set_that_cannot_judge_is_refused(
    raw_folder: Path,
    elsewhere: Callable[..., Path],
    scans: dict[str, str] | None,
    changes: dict[str, object],
    problem: str,
) -> None:
    run = elsewhere(scans, **changes)
    with pytest.raises(UserError, match=problem):
        read_networks(raw_folder, [run])


def test_two_runs_of_one_name_are_refused(raw_folder: Path, finished: Callable[..., Path]) -> None:
    places = ("model/fold_3", "here/model/fold_0", "there/model/fold_0")
    runs = [finished(network("p0").record, place) for place in places]
    with pytest.raises(UserError, match="Two of the runs are called model/fold_0"):
        read_networks(raw_folder, runs)


def test_whose_masks_were_trained_on_is_asked_of_todays_table(
    raw_folder: Path, finished: Callable[..., Path]
) -> None:
    """Each scan counted as a patient when it was trained; cases.csv was mended since."""
    write_cases(raw_folder, [*read_cases(raw_folder), Case("p1.v2_ED", "p9", "", "ED")])
    names = (
        "labelsTr/p2_ED.nii.gz",
        "labelsTr/p1.v2_ED.nii.gz",
        "labelsTr/gone.nii.gz",
        "imagesTr/p1_ED_0000.nii.gz",
    )
    record = network("p2_ED").record.model_copy(update={"scans": dict.fromkeys(names, "0" * 64)})
    (found,) = read_networks(raw_folder, [finished(record)])
    assert found.patients == {"p2_ED", "p2", "p9"}
    unseen = [case.case for case in read_cases(raw_folder) if not found.saw(case)]
    assert unseen == ["p1_ED", "p1_ES", "p3_ED", "p3_ES"]


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_a_run_of_the_data_set_whose_reader_turned_its_scans_is_refused(
    raw_folder: Path, finished: Callable[..., Path], reader: str
) -> None:
    """As earlier versions trained them; masks would be compared with probabilities in other axes."""
    run = finished(network("p0").record)
    (run.parent / "plans.json").write_text(json.dumps({"configurations": {}, "image_reader_writer": reader}))
    with pytest.raises(UserError, match=rf"fold_0 was trained with {reader}, which turns scans.*Name a run"):
        read_networks(raw_folder, [run])


def test_several_networks_judge_by_the_mean_of_their_probabilities(tmp_path: Path) -> None:
    files = []
    for number, level in enumerate((0, 255)):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, probabilities=np.full((2, 1, 3, 3), level, np.uint8))
        files.append(tmp_path / f"{number}.npz")
        files[-1].write_bytes(buffer.getvalue())
    assert np.allclose(read_probabilities(files), 0.5)
