import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import scored
from matplotlib import rc_context
from matplotlib.image import imread

from ccdcseg.datasets.volumes import Volume, read_image, write_volume
from ccdcseg.report.pictures import (
    CLASS_COLOURS,
    case_pictures,
    case_slice,
    choose_cases,
    crop_box,
    grey_window,
    largest_slice,
    outlined,
    painted_roles,
    selection_pictures,
)
from ccdcseg.report.thumbnails import outlined_pixels
from ccdcseg.report.viewer import greys, viewer_case
from ccdcseg.runs.finished import load_arms, load_run


def pixels(uri):
    prefix = "data:image/webp;base64,"
    assert uri.startswith(prefix)
    return imread(io.BytesIO(base64.b64decode(uri.removeprefix(prefix))), format="webp")[..., :3] / 255


def count_of(image, colour, tolerance=0.02):
    wanted = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    return int((np.abs(image - wanted).max(axis=-1) < tolerance).sum())


def test_cases_are_chosen_by_rule(runs):
    arms = load_arms(runs)
    first, second = (arm.values("dice") for arm in arms)
    ranked = sorted(first, key=first.get)
    farthest = max(first, key=lambda patient: abs(first[patient] - second[patient]))
    reasons = {}
    for choice in choose_cases(arms):
        assert choice.case.startswith(choice.patient + "_")
        reasons |= dict.fromkeys(choice.reasons, choice.patient)
    assert reasons == {
        "lowest Dice with CCDC": ranked[0],
        "median Dice with CCDC": ranked[2],
        "highest Dice with CCDC": ranked[-1],
        "largest difference between CCDC and nnU-Net": farthest,
    }


def test_of_a_patient_the_scan_with_the_lowest_dice_is_shown(make_run):
    arms = load_arms([make_run("nnunet", [0, 1, 2, 0, 0, 3, 4, 3, 5, 6])])
    assert [choice.case for choice in choose_cases(arms)] == ["p4_es", "p2_es", "p0_es"]


def test_a_patient_whom_one_method_alone_marks_has_the_largest_difference(make_run):
    runs = [make_run(method, [0] * 10) for method in ("ccdc", "nnunet")]
    for run, fields in zip(runs, (scored.ABSENT, scored.SPURIOUS), strict=True):
        scored.change_rows(
            run / "evaluation.json", lambda row, new=fields: new if row.patient == "p3" else {}
        )
    *_, last = choose_cases(load_arms(runs))
    assert (last.case, last.reasons) == ("p3_ed", ("largest difference between CCDC and nnU-Net",))


def test_one_method_has_no_largest_difference(make_run):
    choices = choose_cases(load_arms([make_run("nnunet", [0] * 10)]))
    assert not any("difference" in reason for choice in choices for reason in choice.reasons)


def test_a_case_shows_reference_and_every_method(runs):
    arms = load_arms(runs)
    choice = choose_cases(arms)[0]
    shown = case_pictures(choice, arms)
    assert shown.problem == ""
    assert (shown.slice_number, shown.number_of_slices) == (2, 3)
    rows = {row.class_name: 100 * row.dice for row in arms[0].evaluations[0].cases if row.case == choice.case}
    assert [picture.caption.split(":")[0] for picture in shown.pictures] == [
        "Reference",
        "CCDC, seed 0",
        "nnU-Net, seed 0",
    ]
    assert shown.pictures[1].caption == f"CCDC, seed 0: RV {rows['RV']:.1f}, LV {rows['LV']:.1f}"
    assert all(choice.case in picture.alt for picture in shown.pictures)


def test_slices_lie_across_the_thickest_axis_and_not_the_first(make_run, tmp_path):
    """A scan that was turned, so that its slices are those of the last axis, is shown as it was before."""
    run = make_run("nnunet", [1] * 10)
    (arm,) = load_arms([run])
    choice = choose_cases([arm])[0]
    straight, volume = case_slice(choice, [arm]), viewer_case(choice.case, choice.patient, [arm])
    record = json.loads((run / "run.json").read_text())
    folders = {"images": "_0000", "reference": ""}
    turn_last(run / "predictions" / f"{choice.case}.nii.gz")
    for field, ending in folders.items():
        copy = tmp_path / field / f"{choice.case}{ending}.nii.gz"
        copy.parent.mkdir()
        shutil.copy(Path(record[field]) / copy.name, copy)
        turn_last(copy)
        record[field] = str(copy.parent)
    (run / "run.json").write_text(json.dumps(record))
    (arm,) = load_arms([run])
    turned = case_slice(choice, [arm])
    assert (turned.number, turned.number_of_slices, turned.aspect) == (2, 3, 1.0)
    for name in ("image", "reference"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(straight, name))
    np.testing.assert_array_equal(turned.predictions, straight.predictions)
    assert viewer_case(choice.case, choice.patient, [arm]) == volume


def test_without_a_reference_the_slice_shows_what_is_marked(make_run, tmp_path):
    run = make_run("nnunet", [1] * 10)
    (arm,) = load_arms([run])
    choice = choose_cases([arm])[0]
    record = json.loads((run / "run.json").read_text())
    for place in (Path(record["reference"]), run / "predictions"):
        volume = read_image(place / f"{choice.case}.nii.gz")
        volume.array[1:] = 0
        volume.array[0] *= place.name == "predictions"
        write_volume(tmp_path / place.name / f"{choice.case}.nii.gz", volume)
    shutil.copy(tmp_path / "predictions" / f"{choice.case}.nii.gz", run / "predictions")
    (run / "run.json").write_text(json.dumps(record | {"reference": str(tmp_path / "labelsTr")}))
    arms = load_arms([run])
    shown = case_slice(choice, arms)
    assert (shown.number, shown.reference.any(), shown.predictions[0].any()) == (1, False, True)
    assert viewer_case(choice.case, choice.patient, arms).first_slice == 0


def turn_last(path):
    """Make the first axis the last one, in place."""
    volume = read_image(path)
    z, y, x = volume.spacing_mm
    write_volume(path, Volume(path, volume.array.transpose(1, 2, 0), (y, x, z)))


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e30, 1e-40])
def test_the_unit_of_an_image_does_not_matter(unit):
    """Susceptibility as a fraction, diffusion in square metres per second."""
    image = np.random.default_rng(0).uniform(-0.05, 0.07, (40, 48))
    none = np.zeros(image.shape, int)
    drawn = pixels(outlined(image * unit, none, 1.0))
    np.testing.assert_allclose(drawn, pixels(outlined(image, none, 1.0)), atol=0.01)
    assert (drawn.min(), drawn.max()) == (0, 1)
    assert painted_roles(image * unit, none, none).max() == 1
    assert outlined_pixels(image * unit, none, 1.0).max() == greys(image * unit).max() == 255


def test_what_stands_out_of_an_even_image_is_seen():
    image = np.full((40, 48), 7.0)
    assert grey_window(image) == (7, 1)
    assert grey_window(image + 1e-9 * np.arange(48)) == (7, 1)  # no more than rounding
    image[3, 4] = 7.5
    assert grey_window(image) == (7, 0.5)
    assert grey_window(np.array([-32768] + [0] * 999 + [32767], np.int16)) == (-32768, 65535)


def test_largest_slice():
    labels = np.zeros((4, 5, 5), dtype=int)
    assert largest_slice(labels) == 2
    labels[1, :2], labels[3, :3] = 1, 2
    assert largest_slice(labels) == 3


def test_the_crop_keeps_all_foreground_a_margin_and_the_image():
    one, other = (np.zeros((200, 100), dtype=int) for _ in range(2))
    one[90:110, 40:80], other[100:130, 50:60] = 1, 2
    rows, columns = crop_box([one, other], (1.0, 1.0))
    assert (rows.start, rows.stop) == (78, 142)
    assert (columns.start, columns.stop) == (28, 92)
    small, _ = crop_box([one], (1.0, 1.0))
    assert small.stop - small.start == 60
    assert crop_box([one * 0], (1.0, 1.0)) == (slice(None), slice(None))
    border = one * 0
    border[:, 95:] = 1
    assert crop_box([border], (1.0, 1.0))[1].stop == 100


def test_outlines_have_the_colours_of_their_classes():
    image = np.full((40, 40), 50.0)
    labels = np.zeros((40, 40), dtype=int)
    labels[5:20, 5:20], labels[22:36, 22:36] = 1, 3
    drawn = pixels(outlined(image, labels, 1.0))
    assert count_of(drawn, CLASS_COLOURS[0]) > 100
    assert count_of(drawn, CLASS_COLOURS[2]) > 100
    assert count_of(drawn, CLASS_COLOURS[1]) == 0


def test_the_reference_is_dotted_in_white_over_a_prediction():
    image, nothing = np.zeros((40, 40)), np.zeros((40, 40), dtype=int)
    reference = nothing.copy()
    reference[10:30, 10:30] = 1
    without, over = (pixels(outlined(image, nothing, 1.0, extra)) for extra in (None, reference))
    assert without.max() == 0
    ring = over[100:360, 100:360]
    assert (ring.max(axis=-1) > 0.4).sum() > 200
    assert np.ptp(over, axis=-1).max() == 0


@pytest.mark.parametrize("aspect", [0.5, 1.0, 2.0])
def test_pictures_keep_the_proportions_of_the_body(aspect):
    drawn = pixels(
        outlined(np.random.default_rng(0).normal(size=(30, 60)), np.zeros((30, 60), dtype=int), aspect)
    )
    assert drawn.shape[0] / drawn.shape[1] == pytest.approx(0.5 * aspect, abs=0.01)


def test_a_selection_map_tints_the_core_and_paints_what_was_drawn():
    image, label = np.zeros((4, 512)), np.zeros((4, 512), dtype=int)
    image[0, 0] = 1
    role = np.zeros((4, 512), dtype=int)
    role[1, :5] = [0, 1, 2, 3, 4]
    rgb = painted_roles(image, label, role)
    plain, core, easy, hard, negative = rgb[1, :5]
    assert plain.tolist() == [0, 0, 0]
    assert 0 < core.max() < 0.3
    assert core.argmax() == 1
    assert easy.argmax() == 2
    assert hard.argmax() == 0
    assert negative[:2].min() > 0.8


def test_a_selection_map_draws_borders_between_labels():
    label = np.zeros((4, 512), dtype=int)
    label[:, 256:] = 1
    rgb = painted_roles(np.zeros((4, 512)), label, label * 0)
    assert np.flatnonzero((rgb == 1).all(axis=(0, 2))).tolist() == [256]


def test_a_coarser_selection_is_laid_over_the_whole_image():
    role = np.array([[0, 2], [3, 0]])
    rgb = painted_roles(np.zeros((512, 512)), role * 0, role)
    assert rgb.shape == (512, 512, 3)
    assert (rgb[:256, 256:].argmax(axis=-1) == 2).all()
    assert (rgb[256:, :256].argmax(axis=-1) == 0).all()
    assert not rgb[256:, 256:].any()


def test_selections_are_shown_by_epoch_with_their_counts(runs):
    shown = selection_pictures(load_run(runs[0]))
    assert [picture.caption.split(":")[0] for picture in shown] == ["Epoch 0", "Epoch 10"]
    assert "64 core, 64 easy, 64 hard, 64 negative" in shown[0].caption


def test_selections_stand_upright_whatever_the_settings_of_matplotlib(runs):
    run = load_run(runs[0])
    usual = selection_pictures(run)
    with rc_context({"image.origin": "lower"}):
        assert selection_pictures(run) == usual


def test_many_selections_are_thinned_to_first_last_and_between(runs, tmp_path):
    folder = tmp_path / "run"
    (folder / "selection").mkdir(parents=True)
    content = (runs[0] / "selection" / "epoch_0000.npz").read_bytes()
    for epoch in range(0, 100, 5):
        (folder / "selection" / f"epoch_{epoch:04d}.npz").write_bytes(content)
    (folder / "run.json").write_bytes((runs[0] / "run.json").read_bytes())
    shown = selection_pictures(load_run(folder), most=3)
    assert [picture.caption.split(":")[0] for picture in shown] == ["Epoch 0", "Epoch 50", "Epoch 95"]


def test_a_copy_among_the_selections_is_passed_over(runs, tmp_path):
    folder = shutil.copytree(runs[0], tmp_path / "run")
    shown = selection_pictures(load_run(folder))
    shutil.copy(folder / "selection" / "epoch_0000.npz", folder / "selection" / "epoch_0000 (1).npz")
    assert selection_pictures(load_run(folder)) == shown
