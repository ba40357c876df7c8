import csv

import numpy as np
import pytest

from ccdcseg.datasets.volumes import Volume, write_volume
from ccdcseg.errors import UserError
from ccdcseg.measure.metrics import measure
from ccdcseg.runs.evaluation import read_evaluation, write_evaluation
from ccdcseg.runs.scoring import evaluate_folder, summary_grid

LABELS = {"background": 0, "RV": 1, "LV": 2}
SPACING_MM = (8.0, 1.5, 1.25)
PATIENTS = {"p1_ed": "p1", "p1_es": "p1", "p2_ed": "p2", "p2_es": "p2"}


def label_map(shift=0):
    array = np.zeros((3, 20, 24), dtype=np.uint8)
    array[:, 3:9, 3 + shift : 10 + shift] = 1
    array[1:, 12:18, 12 - shift : 20 - shift] = 2
    return array


def write(folder, name, array, spacing_mm=SPACING_MM):
    path = folder / f"{name}.nii.gz"
    path.parent.mkdir(exist_ok=True)
    write_volume(path, Volume(path, array, spacing_mm))


@pytest.fixture
def folders(tmp_path):
    """Two patients with two scans; p2_es lacks the RV in the prediction, p2_ed in the reference."""
    reference, prediction = tmp_path / "labelsTr", tmp_path / "predictions"
    for number, name in enumerate(PATIENTS):
        write(reference, name, label_map())
        write(prediction, name, label_map(number))
    write(reference, "p2_ed", np.where(label_map() == 1, 0, label_map()).astype(np.uint8))
    write(prediction, "p2_es", np.where(label_map(3) == 1, 0, label_map(3)).astype(np.uint8))
    return reference, prediction


def rows_of(result, case):
    return {row.class_name: row for row in result.cases if row.case == case}


def test_rows_hold_the_scores_of_each_case_and_class(folders):
    result = evaluate_folder(*folders, LABELS, PATIENTS)
    assert evaluate_folder(*map(str, folders), LABELS, PATIENTS) == result
    assert result.classes == ("RV", "LV")
    assert [(row.case, row.class_name) for row in result.cases] == [
        (case, name) for case in sorted(PATIENTS) for name in ("RV", "LV")
    ]
    expected = measure(label_map() == 2, label_map(1) == 2, SPACING_MM)
    row = rows_of(result, "p1_es")["LV"]
    assert (row.patient, row.status) == ("p1", "ok")
    assert row.hd95_pooled_mm == pytest.approx(expected.hd95_pooled_mm)
    assert row.dice == expected.dice
    assert row.diagonal_mm == pytest.approx(np.linalg.norm([3 * 8, 20 * 1.5, 24 * 1.25]))


@pytest.mark.parametrize("across", [0, 1, 2])
def test_a_single_slice_has_its_outlines_in_the_slice(tmp_path, across):
    from medpy.metric.binary import assd, hd95

    reference, prediction = np.zeros((2, 40, 40), np.uint8)
    reference[10:30, 10:30] = 1
    prediction[10:30, 10:30] = prediction[18:21, 30:38] = 1
    flat_mm = SPACING_MM[:across] + SPACING_MM[across + 1 :]
    for folder, array in (("r", reference), ("p", prediction)):
        write(tmp_path / folder, "a", np.expand_dims(array, across))
    (row,) = evaluate_folder(tmp_path / "r", tmp_path / "p", {"x": 1}, {"a": "a"}).cases
    assert row.hd95_pooled_mm == pytest.approx(hd95(prediction, reference, flat_mm))
    assert row.hd95_pooled_vox == pytest.approx(hd95(prediction, reference)) != 0
    assert row.assd_mm == pytest.approx(assd(prediction, reference, flat_mm))
    sides_mm = 40 * np.array(SPACING_MM)
    sides_mm[across] /= 40
    assert row.diagonal_mm == pytest.approx(np.linalg.norm(sides_mm))


def test_the_summary_counts_patients_and_empty_structures(folders):
    summary = evaluate_folder(*folders, LABELS, PATIENTS).summary
    assert list(summary) == ["RV", "LV", "mean"]
    right = summary["RV"]
    assert [getattr(right, name) for name in ("n_scans", "n_missing", "n_spurious", "n_absent")] == [
        4,
        1,
        1,
        0,
    ]
    assert summary["mean"].n_missing == 1
    assert right.hd95_pooled_mm.n_patients == 1
    assert right.hd95_pooled_mm_with_misses.n_patients == 2
    assert right.hd95_pooled_mm_with_misses.value > right.hd95_pooled_mm.value


def test_the_mean_is_over_classes_then_patients(folders):
    result = evaluate_folder(*folders, LABELS, PATIENTS)
    dice = {row.case + row.class_name: row.dice for row in result.cases}
    patients = [
        np.mean([dice[f"{patient}_{frame}{name}"] for frame in ("ed", "es") for name in ("RV", "LV")])
        for patient in ("p1", "p2")
    ]
    entry = result.summary["mean"].dice
    assert entry.value == pytest.approx(np.mean(patients))
    assert entry.n_patients == 2
    assert entry.interval == pytest.approx(sorted(patients))


def test_a_perfect_prediction_scores_one(folders):
    reference, _ = folders
    summary = evaluate_folder(reference, reference, LABELS, PATIENTS).summary["mean"]
    assert summary.dice.value == 1
    assert summary.hd95_pooled_mm.value == 0
    assert summary.n_absent == 1


def test_workers_and_the_order_of_cases_change_nothing(folders):
    one = evaluate_folder(*folders, LABELS, PATIENTS, workers=1)
    assert one == evaluate_folder(*folders, LABELS, PATIENTS, cases=list(PATIENTS)[::-1], workers=3)


def test_progress_reaches_the_end(folders):
    calls = []
    evaluate_folder(*folders, LABELS, PATIENTS, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_hidden_files_are_no_cases(folders):
    """macOS leaves them on other systems' disks."""
    result = evaluate_folder(*folders, LABELS, PATIENTS)
    (folders[0] / "._p1_ed.nii.gz").write_bytes(b"x")
    assert evaluate_folder(*folders, LABELS, PATIENTS) == result


def test_only_the_named_cases_are_scored(folders):
    result = evaluate_folder(*folders, LABELS, PATIENTS, cases=["p1_ed"])
    assert {row.case for row in result.cases} == {"p1_ed"}
    assert result.summary["mean"].dice.interval is None


def test_a_missing_prediction_is_named(folders):
    (folders[1] / "p1_es.nii.gz").unlink()
    with pytest.raises(UserError, match=r"predictions lacks p1_es\.nii\.gz\. Predict"):
        evaluate_folder(*folders, LABELS, PATIENTS)


def test_a_missing_reference_is_named(folders):
    with pytest.raises(UserError, match=r"labelsTr lacks a\.nii\.gz and 1 more.*withdrew, remove the row"):
        evaluate_folder(*folders, LABELS, PATIENTS, cases=["a", "b"])


@pytest.mark.parametrize("cases", [[], None])
def test_nothing_to_score_is_refused(tmp_path, cases):
    with pytest.raises(UserError, match="no cases to score"):
        evaluate_folder(tmp_path, tmp_path, LABELS, {}, cases=cases)


def test_a_case_without_a_patient_is_refused(folders):
    with pytest.raises(UserError, match=r"No patient is known for p2_es\.nii\.gz"):
        evaluate_folder(*folders, LABELS, dict.fromkeys(list(PATIENTS)[:3], "p1"))


@pytest.mark.parametrize(
    ("array", "spacing_mm", "message"),
    [
        (label_map()[:, :-1], SPACING_MM, "another shape"),
        (label_map(), (8.0, 1.5, 1.5), "another geometry"),
        (label_map() * 3, SPACING_MM, "no known label"),
        (label_map() * 0.5, SPACING_MM, "no known label"),
    ],
)
def test_a_wrong_prediction_is_refused_by_name(folders, array, spacing_mm, message):
    write(folders[1], "p1_es", array, spacing_mm)
    with pytest.raises(UserError, match=f"p1_es.nii.gz.*{message}"):
        evaluate_folder(*folders, LABELS, PATIENTS)


def test_a_truncated_prediction_is_refused_by_name(folders):
    path = folders[1] / "p1_es.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"p1_es\.nii\.gz is truncated"):
        evaluate_folder(*folders, LABELS, PATIENTS)


def test_a_reference_that_is_annotated_in_part(folders):
    assert evaluate_folder(*folders, LABELS, PATIENTS, ignore=3) == evaluate_folder(
        *folders, LABELS, PATIENTS
    )
    array = label_map()
    array[0, :2] = 3
    write(folders[0], "p2_ed", array)
    with pytest.raises(
        UserError, match=r"p2_ed\.nii\.gz has 48 voxels with the ignore label 3: .*Annotate .* in full"
    ):
        evaluate_folder(*folders, LABELS, PATIENTS, ignore=3)
    write(folders[0], "p2_ed", label_map())
    write(folders[1], "p2_ed", array)
    with pytest.raises(UserError, match=r"predictions/p2_ed\.nii\.gz holds 3, no known label"):
        evaluate_folder(*folders, LABELS, PATIENTS, ignore=3)


def test_what_nobody_has_labelled_is_no_class(folders):
    """The labels of ``dataset.json`` name it as nnU-Net does."""
    labels = {**LABELS, "ignore": 3}
    assert evaluate_folder(*folders, labels, PATIENTS) == evaluate_folder(*folders, LABELS, PATIENTS)
    write(folders[0], "p2_ed", np.where(label_map() == 0, 3, label_map()).astype(np.uint8))
    with pytest.raises(UserError, match=r"p2_ed\.nii\.gz has .* voxels with the ignore label 3"):
        evaluate_folder(*folders, labels, PATIENTS)


def test_regions_are_refused(folders):
    with pytest.raises(UserError, match=r"label of heart is \[1, 2\]: overlapping regions are not supported"):
        evaluate_folder(*folders, {"background": 0, "heart": [1, 2], "LV": 2}, PATIENTS)


@pytest.mark.parametrize("labels", [{}, {"background": 0}, {"mean": 1}, {"ignore": 1}])
def test_labels_without_a_usable_class_are_refused(folders, labels):
    with pytest.raises(UserError, match="foreground class"):
        evaluate_folder(*folders, labels, PATIENTS)


def test_what_is_written_is_what_was_measured(folders, tmp_path):
    result = evaluate_folder(*folders, LABELS, PATIENTS)
    write_evaluation(result, tmp_path / "run")
    assert read_evaluation(tmp_path / "run" / "evaluation.json") == result
    with (tmp_path / "run" / "evaluation.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 8
    for row, expected in zip(rows, result.cases, strict=True):
        assert row["case"] == expected.case
        assert row["hd_mm"] == ("" if expected.hd_mm is None else str(expected.hd_mm))


def test_the_table_shows_runs_with_their_misses(folders):
    result = evaluate_folder(*folders, LABELS, PATIENTS)
    perfect = evaluate_folder(folders[0], folders[0], LABELS, PATIENTS)
    grid = summary_grid([("nnunet", result), ("ccdc", perfect)])
    rows = [[entry.text for entry in row] for row in grid.rows]
    assert [row[-1].note for row in grid.rows] == ["1 spurious", "", "1 spurious", "", "", ""]
    summary = result.summary["mean"]
    dice, distance = f"{100 * summary.dice.value:.2f}", f"{summary.hd95_pooled_mm.value:.2f}"
    assert [row[0] for row in rows] == ["nnunet", "", "", "ccdc", "", ""]
    assert rows[2] == ["", "mean", dice, distance, "1"]
    assert rows[5] == ["", "mean", "100.00", "0.00", "0"]
