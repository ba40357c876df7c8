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

from ccdcseg.report import page, viewer
from ccdcseg.report.pictures import Choice, choose_cases
from ccdcseg.report.runs import load_arms
from ccdcseg.report.viewer import greys, outlines, packed, viewer_case


def unpacked(volume):
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(volume)))


def naive_outlines(labels):
    found = np.zeros_like(labels)
    depth, height, width = labels.shape
    for z, y, x in np.ndindex(labels.shape):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [
            labels[z, row, column] for row, column in around if 0 <= row < height and 0 <= column < width
        ]
        found[z, y, x] = labels[z, y, x] > 0 and any(other != labels[z, y, x] for other in inside)
    assert depth == len(found)
    return found


@given(st.integers(0, 1000), st.tuples(*[st.integers(1, 5)] * 3))
def test_outlines_are_labelled_voxels_beside_another_label(seed, shape):
    labels = np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
    np.testing.assert_array_equal(outlines(labels), naive_outlines(labels))


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
    choice = choose_cases(arms)[0]
    case = viewer_case(choice, arms)
    assert (case.slices, case.first_slice) == (3, 1)
    assert [layer.label for layer in case.layers] == ["Reference", "CCDC, seed 0", "nnU-Net, seed 0"]
    assert len({layer.colour for layer in case.layers}) == 3
    assert unpacked(case.image).shape == (36, 32, 3)
    for layer in case.layers:
        assert set(np.unique(np.asanyarray(unpacked(layer.volume).dataobj))) == {0, 1}


def test_a_case_that_cannot_be_read_has_no_viewer(bare_runs):
    assert viewer_case(Choice("p0_ed", "p0", ()), load_arms(bare_runs)) is None


def test_the_page_has_the_viewer_where_the_script_is(runs, build, monkeypatch):
    monkeypatch.setattr(page, "niivue_script", lambda: "niivue = {};")
    found = build(runs)
    arms = load_arms(runs)
    shown = [viewer_case(choice, arms) for choice in choose_cases(arms)]
    stored = re.search(r'id="volumes">(.*?)</script>', found.source, re.DOTALL)[1]
    assert json.loads(stored) == json.loads(json.dumps({case.case: asdict(case) for case in shown}))
    assert [e["data-case"] for e in found.all("details") if e.get("class") == "viewer"] == [
        c.case for c in shown
    ]
    assert len(found.all("script")) == 3
    assert "NiiVue" in found.text


def test_without_the_script_there_is_no_viewer(whole):
    assert "niivue" not in whole.source.split("<script>")[0].lower()
    assert not [e for e in whole.all("details") if e.get("class") == "viewer"]


def test_the_script_is_that_of_the_build_or_none(monkeypatch, tmp_path):
    monkeypatch.setattr(viewer.resources, "files", lambda _: tmp_path)
    assert viewer.niivue_script() is None
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "niivue.umd.js").write_text("niivue = 1;")
    assert viewer.niivue_script() == "niivue = 1;"


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<b>"])
def test_names_cannot_break_out_of_the_data(runs, build, monkeypatch, name):
    monkeypatch.setattr(page, "niivue_script", lambda: "niivue = {};")
    monkeypatch.setattr(page, "_volumes", lambda *_: {name: {"case": name}})
    found = build(runs)
    assert name not in found.source
    assert len(found.all("script")) == 3
