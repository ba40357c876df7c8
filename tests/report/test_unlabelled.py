import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from ccdcseg.datasets.cases import Case
from ccdcseg.datasets.splits import Split, split_entry
from ccdcseg.datasets.unlabelled import UnlabelledFolder
from ccdcseg.datasets.volumes import Volume, read_image, write_volume
from ccdcseg.report.pictures import CLASS_COLOURS
from ccdcseg.report.unlabelled import writings
from ccdcseg.runs.finished import load_arms

WRITTEN = {
    "scans": 2,
    "confident": {"background": 0.9, "RV": 0.8},
    "share": {"RV": 0.2, "LV": 0.1},
    "annotated": {"RV": 0.1, "LV": 0.1},
    "changed": None,
    "removed_most": [{"scan": "u1", "removed": 0.25}],
    "implausible": [],
}


@pytest.fixture
def run(make_run, scans, tmp_path):
    """A run that wrote labels twice, with the raw folder that it was trained from."""
    raw = tmp_path / "raw"
    shutil.copytree(scans / "imagesTr", raw / "imagesTr")
    shutil.copytree(scans / "imagesTr", raw / "imagesTs")
    (raw / "imagesTs" / "p0_ed_0000.nii.gz").rename(raw / "imagesTs" / "u1_0000.nii.gz")
    labels = {"RV": 1, "LV": 2}
    description = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(description))
    split, others = Split(1.0, 0, ("p0",), (), ()), UnlabelledFolder("imagesTs", {"u1": None})
    entry = split_entry(split, [Case("p0_ed", "p0", "", "ED")], {}, others)
    (raw / "splits_final.json").write_text(json.dumps([entry]))
    changes = {"images": str(raw / "imagesTr"), "labels": labels, "split_hash": entry["hash"]}
    return make_run("nnunet", [0] * 10, **changes)


def write_labels(folder, *changes):
    """Say in the history what labels were like, in its first epochs."""
    path = folder / "history.jsonl"
    epochs = [json.loads(line) for line in path.read_text().splitlines()]
    for epoch, change in zip(epochs, changes, strict=False):
        epoch["labels_written"] = WRITTEN | change
    path.write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))


def test_runs_that_wrote_none_have_no_section(runs, whole):
    assert writings(load_arms(runs)) == []
    assert "Scans without masks" not in whole.text


def test_how_sure_the_network_was_and_how_large_structures_were(run, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "ccdcseg.report.unlabelled.line_panel", lambda name, lines, *_, **__: drawn.setdefault(name, lines)
    )
    write_labels(run, {}, {"changed": 0.3})
    (found,) = writings(load_arms([run]))
    assert found.sentences == ("Labels were written 2 times, the last time for 2 scans.",)
    assert [list(line.y) for line in drawn["labels-0-sure"]] == [[0.9, 0.9], [0.8, 0.8]]
    assert [list(line.y) for line in drawn["labels-0-size"]] == [[2, 2], [1, 1]]
    (changed,) = drawn["labels-0-changed"]
    assert np.isnan(changed.y[0])
    assert changed.y[1] == 0.3
    assert list(changed.x) == [50, 100]


def test_labels_written_once_have_not_changed(run):
    write_labels(run, {})
    (found,) = writings(load_arms([run]))
    assert [panel.title for panel in found.group.panels] == [
        "Learnt from",
        "Size, to that in the annotated scans",
    ]


def test_labels_that_were_not_used_are_said_to_be_that(run):
    write_labels(run, {"implausible": ["RV"]}, {})
    (found,) = writings(load_arms([run]))
    assert "up to iteration 50 were not used: RV" in found.sentences[1]


def test_scans_on_which_teachers_did_not_agree_are_named(run):
    write_labels(run, {"agreement": 0.875, "left_out": [{"scan": "u2", "agreement": 0.5}]})
    (found,) = writings(load_arms([run]))
    assert "agreed by 87.5 Dice points on average" in found.sentences[1]
    assert found.sentences[1].endswith("u2 (50.0).")


def test_the_scans_to_look_at_are_shown_with_their_labels(run, scans, build):
    place = run / "unlabelled" / "epoch_0001"
    place.mkdir(parents=True)
    shutil.copy(scans / "labelsTr" / "p0_ed.nii.gz", place / "u1.nii.gz")
    write_labels(run, {}, {})
    page = build([run])
    assert page.table("Scans of which post-processing removed most")[1] == ["u1", "25 %"]
    assert [image["alt"] for image in page.all("img") if "u1" in image["alt"]] == [
        "Labels written for u1, slice 2 of 3."
    ]
    section = page.source.split('<section id="unlabelled">')[1].split("</section>")[0]
    assert re.findall(r'height="4" fill="(#\w+)"/></svg>\s*(RV|LV)<', section) == [
        (CLASS_COLOURS[0], "RV"),
        (CLASS_COLOURS[1], "LV"),
    ]


def test_pictures_lie_across_the_slices_as_those_of_check(run, scans):
    """The thickest axis is the file's last one."""
    raw = Path(json.loads((run / "run.json").read_text())["images"]).parent
    image = read_image(raw / "imagesTs" / "u1_0000.nii.gz")
    mask = read_image(scans / "labelsTr" / "p0_ed.nii.gz")
    place = run / "unlabelled" / "epoch_0001"
    for path, volume in (
        (raw / "imagesTs" / "u1_0000.nii.gz", image),
        (place / "u1.nii.gz", mask),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        turned = volume.array.transpose(1, 2, 0)
        write_volume(path, Volume(path, turned, (*volume.spacing_mm[1:], volume.spacing_mm[0])))
    write_labels(run, {}, {})
    (found,) = writings(load_arms([run]))
    assert [picture.caption for picture in found.pictures] == ["u1, slice 2 of 3"]


def test_labels_that_are_gone_are_said_to_be_missing(run, build):
    write_labels(run, {})
    assert "No pictures: " in build([run]).text


def test_where_nothing_was_removed_the_page_says_so(run, build):
    write_labels(run, {"removed_most": []})
    assert "Post-processing removed nothing" in build([run]).text
