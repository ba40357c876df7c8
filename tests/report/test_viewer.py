import base64
import gzip
import json
import re
from dataclasses import asdict

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccdcseg.datasets.volumes import Volume, write_volume
from ccdcseg.report import page, viewer
from ccdcseg.report.page import build_report
from ccdcseg.report.pictures import choose_cases, crop_box, scan_dice
from ccdcseg.report.viewer import (
    Gallery,
    Layer,
    ViewerCase,
    focus,
    gallery,
    greys,
    outlines,
    packed,
    surroundings,
    viewer_case,
)
from ccdcseg.runs.finished import load_arms

PATIENTS = {f"p{patient}_{frame}": f"p{patient}" for patient in range(5) for frame in ("ed", "es")}


def unpacked(volume):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(volume)))


def naive_outlines(labels):
    found = np.zeros_like(labels)
    depth, height, width = labels.shape
    for z, y, x in np.ndindex(labels.shape):
        rows, columns = range(max(0, y - 1), min(height, y + 2)), range(max(0, x - 1), min(width, x + 2))
        found[z, y, x] = any(labels[z, row, column] < labels[z, y, x] for row in rows for column in columns)
    assert depth == len(found)
    return found


@given(st.integers(0, 1000), st.tuples(*[st.integers(1, 5)] * 3))
def test_outlines_are_voxels_beside_a_smaller_label(seed, shape):
    labels = np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
    np.testing.assert_array_equal(outlines(labels), naive_outlines(labels))


def test_the_outline_of_a_diagonal_border_has_no_gap():
    labels = np.tril(np.ones((1, 6, 6), dtype=np.uint8))
    first, second = (np.eye(6, k=k, dtype=bool) for k in (0, -1))
    np.testing.assert_array_equal(outlines(labels)[0], first | second)


def test_a_packed_volume_keeps_voxels_spacing_and_rows_from_the_top():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    image = unpacked(packed(array, (8.0, 1.5, 1.25)))
    np.testing.assert_array_equal(np.asanyarray(image.dataobj).T, array)
    assert image.header.get_zooms() == (1.25, 1.5, 8.0)
    assert nibabel.aff2axcodes(image.affine) == ("R", "P", "S")


def test_greys_span_the_percentiles():
    image = np.linspace(-50, 950, 1001)
    found = greys(image)
    assert (found.min(), found.max()) == (0, 255)
    assert found[5] == 0 < found[15]
    assert not greys(np.full((2, 2), 7.0)).any()


def test_a_case_holds_the_scan_the_reference_and_every_method(runs):
    arms = load_arms(runs)
    case = viewer_case("p4_es", "p4", arms)
    assert (case.case, case.patient, case.slices, case.first_slice) == ("p4_es", "p4", 3, 1)
    assert [layer.label for layer in case.layers] == ["Reference", "CCDC, seed 0", "nnU-Net, seed 0"]
    assert len({layer.colour for layer in case.layers}) == 3
    rows = [row for row in arms[1].evaluations[0].cases if row.case == "p4_es"]
    assert case.layers[2].scores == ", ".join(f"{row.class_name} {100 * row.dice:.1f}" for row in rows)
    assert case.layers[0].scores == ""
    assert unpacked(case.image).shape == (36, 32, 3)
    for layer in case.layers:
        assert set(np.unique(np.asanyarray(unpacked(layer.volume).dataobj))) == {0, 1}
    assert case.characters == len(case.image) + sum(len(layer.volume) for layer in case.layers)


def write(folder, name, array):
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / f"{name}.nii.gz", Volume(folder, array, (8.0, 1.5, 1.5)))


def big_scan(root, runs):
    """A copy of both methods' runs on a wide scan; the second method marks a voxel far from the reference."""
    image = np.random.default_rng(0).integers(50, 200, (3, 150, 160)).astype(np.float32)
    reference, stray = np.zeros((2, 3, 150, 160), np.uint8)
    reference[1, 70:90, 60:75] = 1
    stray[1] = reference[1]
    stray[0, 5, 150] = 2
    write(root / "images", "p0_ed_0000", image)
    write(root / "labels", "p0_ed", reference)
    for run, labels in zip(runs, (reference, stray), strict=True):
        write(run / "predictions", "p0_ed", labels)
        record = json.loads((run / "run.json").read_text())
        record |= {"images": str(root / "images"), "reference": str(root / "labels")}
        (run / "run.json").write_text(json.dumps(record))
    return image, reference, stray


def test_greys_are_kept_around_the_reference_and_near_strays(tmp_path, bare_runs):
    pair = [bare_runs[0], bare_runs[2]]
    image, reference, stray = big_scan(tmp_path, pair)
    case = viewer_case("p0_ed", "p0", load_arms(pair))
    shown, expected, theirs = (
        np.asanyarray(unpacked(text).dataobj).T
        for text in (case.image, case.layers[0].volume, case.layers[2].volume)
    )
    rows, columns = crop_box([reference[1]], (1.5, 1.5))
    margin = 4  # voxels of 1.5 mm that 5 mm reach into
    top, right = 5 - margin, 150 + margin + 1
    assert shown.shape == (3, rows.stop - top, right - columns.start)
    near = np.zeros(image.shape, bool)
    near[:, rows, columns] = True
    near[0, top : 5 + margin + 1, 150 - margin : right] = True
    box = np.s_[:, top : rows.stop, columns.start : right]
    np.testing.assert_array_equal(shown, np.where(near, greys(image), 0)[box])
    np.testing.assert_array_equal(expected, outlines(reference)[box])
    np.testing.assert_array_equal(theirs, outlines(stray)[box])
    height, width = shown.shape[1:]
    left, upper, inner_right, lower = case.focus
    assert (left, lower) == (0, 1)
    assert upper * height == pytest.approx(rows.start - top)
    assert inner_right * width == pytest.approx(columns.stop - columns.start)


def test_without_a_reference_the_whole_scan_is_kept():
    empty = np.zeros((2, 9, 7), np.uint8)
    near, centre = surroundings([empty, empty], (8.0, 1.5, 1.5))
    assert near.all()
    assert focus(centre, np.s_[0:9, 0:7]) == (0, 0, 1, 1)


def test_a_case_that_cannot_be_read_has_no_viewer(bare_runs):
    assert viewer_case("p0_ed", "p0", load_arms(bare_runs)) is None


def test_a_page_tells_of_progress_as_the_steps_do(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "niivue_script", lambda: "niivue = {};")
    told = []
    build_report(runs, tmp_path / "report.html", "A title", progress=lambda *words: told.append(words))
    assert told[-1] == ("scans", len(told), len(told))


def test_the_gallery_has_every_scan_by_patient_and_tells_of_progress(runs):
    seen = []
    found = gallery(load_arms(runs), [], progress=lambda *counts: seen.append(counts))
    assert [(shown.patient, shown.case) for shown in found.cases] == sorted(
        (patient, case) for case, patient in PATIENTS.items()
    )
    assert (found.unread, found.left_out) == (0, 0)
    assert seen == [(done, 10) for done in range(1, 11)]
    assert found.of_patient("p1") == {"p1_ed": 2, "p1_es": 3}
    assert found.of_patient("nobody") == {}


def test_scans_that_cannot_be_read_are_counted(make_run):
    run = make_run("ccdc", [0] * 10)
    (run / "predictions" / "p2_es.nii.gz").unlink()
    (run / "predictions" / "p3_ed.nii.gz").write_bytes(b"no scan")
    found = gallery(load_arms([run]), [])
    assert (len(found.cases), found.unread) == (8, 2)
    assert set(found.of_patient("p2")) == {"p2_ed"}


def test_what_does_not_fit_is_left_out_but_not_the_chosen_scans(runs):
    arms = load_arms(runs)
    whole = gallery(arms, [])
    sizes = {shown.case: shown.characters for shown in whole.cases}
    found = gallery(arms, ["p3_es"], most=sizes["p3_es"] + sizes["p0_ed"])
    assert [shown.case for shown in found.cases] == ["p0_ed", "p3_es"]
    assert (found.unread, found.left_out) == (0, 8)


def test_a_scan_without_room_hides_no_other_and_no_more_are_packed_where_there_is_none(runs, monkeypatch):
    packed_cases = []

    def pack(case, patient, _):
        packed_cases.append(case)
        return ViewerCase(case, patient, 1, 0, (0, 0, 1, 1), "x" * (100 if case == "p4_es" else 3), ())

    monkeypatch.setattr(viewer, "viewer_case", pack)
    found = gallery(load_arms(runs), ["p4_es"], most=50)
    assert ([shown.case for shown in found.cases], found.left_out) == (sorted(PATIENTS)[:-1], 1)
    packed_cases.clear()
    found = gallery(load_arms(runs), ["p4_es"], most=10)
    assert ([shown.case for shown in found.cases], found.left_out) == (["p0_ed", "p0_es", "p1_ed"], 7)
    assert sorted(packed_cases) == ["p0_ed", "p0_es", "p1_ed", "p1_es", "p2_ed", "p2_es", "p3_ed", "p4_es"]


@pytest.fixture(scope="module")
def viewed(runs, parse, tmp_path_factory):
    """The page with a viewer, without NiiVue itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "niivue_script", lambda: "niivue = {};")
        path = build_report(runs, tmp_path_factory.mktemp("viewer") / "report.html", "A title")
    return parse(path.read_text())


def test_each_scan_is_stored_once_and_can_be_chosen(runs, viewed):
    shown = gallery(load_arms(runs), []).cases
    stored = re.findall(r'id="scan-(\d+)">(.*?)</script>', viewed.source, re.DOTALL)
    assert [int(place) for place, _ in stored] == list(range(10))
    assert [json.loads(text) for _, text in stored] == json.loads(
        json.dumps([asdict(case) for case in shown])
    )
    assert [group["label"] for group in viewed.all("optgroup")] == [f"p{number}" for number in range(5)]
    options = viewed.all("option")
    assert [int(option["value"]) for option in options] == list(range(10))
    ids = {attributes.get("id") for _, attributes in viewed.elements}
    assert {option["data-row"][1:] for option in options} <= ids
    assert len([box for box in viewed.all("input") if box["type"] == "checkbox"]) == 1 + 3
    assert len([box for box in viewed.all("details") if box.get("class") == "viewer"]) == 1
    assert "There is no slice viewer" not in viewed.text
    assert len(viewed.all("script")) == 10 + 2
    assert "NiiVue" in viewed.text


def test_only_our_script_and_niivue_may_run(viewed):
    policy = next(meta["content"] for meta in viewed.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; ")
    assert re.search(r"script-src( 'sha256-[^']{44}'){2}$", policy)


def test_slices_and_rows_lead_to_scans_in_the_viewer(runs, viewed):
    cases = [shown.case for shown in gallery(load_arms(runs), []).cases]
    links = [link for link in viewed.all("a") if "data-scan" in link]
    assert all(0 <= int(link["data-scan"]) < len(cases) for link in links)
    assert viewed.text.count("Scroll through all 3 slices") == len(choose_cases(load_arms(runs)))
    for choice in choose_cases(load_arms(runs)):
        link = f'<a href="#viewer" data-scan="{cases.index(choice.case)}">Scroll through all 3 slices</a>'
        assert link in viewed.source
    rows = [link for link in links if link.get("class") == "scan"]
    assert [int(link["data-scan"]) for link in rows] == list(range(10))
    assert rows[1]["aria-label"] == "es of p0 in the viewer"


def test_a_mark_leads_to_the_row_and_the_scan_with_the_lowest_dice(runs, viewed):
    arms = load_arms(runs)
    cases = [shown.case for shown in gallery(arms, []).cases]
    marks = [link for link in viewed.all("a") if "data-scan" in link and link["href"] != "#viewer"]
    assert len(marks) == 2 * 5
    for mark in marks:
        patient = mark["aria-label"].split(":")[0]
        dice = scan_dice(arms[0])[patient]
        assert dice[cases[int(mark["data-scan"])]] == min(dice.values())
        assert mark["href"] == f"#patient-{patient[1:]}"


def test_the_dice_of_all_marks_is_read_once_a_method(runs, build, monkeypatch):
    read = []
    monkeypatch.setattr(page, "niivue_script", lambda: "niivue = {};")
    monkeypatch.setattr(page, "scan_dice", lambda arm, *rest: read.append(arm.label) or scan_dice(arm, *rest))
    marks = [link for link in build(runs).all("a") if "data-scan" in link and link["href"] != "#viewer"]
    assert marks
    assert read == [arm.label for arm in load_arms(runs)]


def test_scans_missing_in_the_viewer_are_told(make_run, build, monkeypatch):
    monkeypatch.setattr(page, "niivue_script", lambda: "niivue = {};")
    run = make_run("ccdc", [0] * 10)
    (run / "predictions" / "p2_es.nii.gz").unlink()
    assert "Without 1 evaluated scan of which" in build([run]).text


def test_where_no_scan_can_be_read_there_is_no_viewer(bare_runs, build, monkeypatch):
    monkeypatch.setattr(page, "niivue_script", lambda: "niivue = {};")
    found = build(bare_runs)
    assert "viewer" not in {attributes.get("id") for _, attributes in found.elements}
    assert not [link for link in found.all("a") if "data-scan" in link]
    assert len(found.all("script")) == 1


def test_without_the_script_there_is_no_viewer(whole):
    assert "niivue" not in whole.source.split("<script>")[0].lower()
    assert not [e for e in whole.all("details") if e.get("class") == "viewer"]
    assert not [link for link in whole.all("a") if "data-scan" in link]


def test_the_script_is_that_of_the_build_or_none(monkeypatch, tmp_path):
    monkeypatch.setattr(viewer.resources, "files", lambda _: tmp_path)
    assert viewer.niivue_script() is None
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "niivue.umd.js").write_text("niivue = 1;")
    assert viewer.niivue_script() == "niivue = 1;"


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<b>"])
def test_names_cannot_break_out_of_the_data(runs, build, monkeypatch, name):
    evil = ViewerCase(name, name, 1, 0, (0, 0, 1, 1), "", (Layer(name, "#ffffff", name, ""),))
    monkeypatch.setattr(page, "niivue_script", lambda: "niivue = {};")
    monkeypatch.setattr(page, "gallery", lambda *_, **__: Gallery((evil,)))
    found = build(runs)
    assert name not in found.source
    assert len(found.all("script")) == 3
