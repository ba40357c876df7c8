import base64
import hashlib
import json
import re
import shutil

import pytest
import scored

from ccdcseg.errors import UserError
from ccdcseg.measure.patients import average
from ccdcseg.report.page import build_report, short_name
from ccdcseg.report.pictures import CLASS_COLOURS, choose_cases
from ccdcseg.report.template import check_page
from ccdcseg.runs.evaluation import read_evaluation
from ccdcseg.runs.finished import load_arms
from ccdcseg.statistics.compare import compare

EVIL = "</script><script>alert(1)</script>"


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def evaluations(runs):
    """Seed to evaluation, of CCDC and of nnU-Net."""
    results = [read_evaluation(run / "evaluation.json") for run in runs]
    return dict(enumerate(results[:2])), dict(enumerate(results[2:]))


def test_seed_rows_equal_the_evaluations(runs, whole):
    rows = whole.table("Dice, %, by seed")
    assert rows[0] == ["method", "seed", "mean", "RV", "LV", "missed"]
    assert [row[:2] for row in rows[1:]] == [["CCDC", "0"], ["CCDC", "1"], ["nnU-Net", "0"], ["nnU-Net", "1"]]
    for row, run in zip(rows[1:], runs, strict=True):
        summary = read_evaluation(run / "evaluation.json").summary
        mean = summary["mean"].dice
        low, high = mean.interval
        assert row[2] == f"{100 * mean.value:.2f} {100 * low:.2f} to {100 * high:.2f}, n = 5"
        assert row[3:5] == [f"{100 * summary[name].dice.value:.2f}" for name in ("RV", "LV")]
        assert row[5] == "0 of 20"


def test_method_rows_average_the_seeds_within_patients(runs, whole):
    rows = whole.table("hd95_pooled_mm, mm – lower is better")
    assert [row[0] for row in rows[1:]] == ["CCDC mean of 2 seeds", "nnU-Net mean of 2 seeds"]
    ours, _ = evaluations(runs)
    seeds = [result.values("hd95_pooled_mm") for result in ours.values()]
    values = average(seeds).values()
    assert rows[1][1].startswith(f"{sum(values) / len(values):.2f}, best ")
    assert ", second best " in rows[2][1]


def test_single_seeds_have_no_table_of_their_own(bare_runs, build):
    found = build([bare_runs[0], bare_runs[2]])
    assert found.table("Dice, %")[1][0] == "CCDC seed 0"
    assert "by seed" not in found.text


def test_the_comparison_equals_that_of_the_evaluations(runs, whole):
    result = compare(*evaluations(runs), "dice")
    row = whole.table("Paired comparisons")[1]
    low, high = (f"{100 * end:+.2f}".replace("-", "−") for end in result.interval)
    assert row[:3] == ["CCDC − nnU-Net", "Dice", "5"]
    assert row[3] == f"{100 * result.mean_difference:+.2f} points, {low} to {high}"
    assert row[5].startswith(", ".join(f"{100 * value:+.2f}" for value in result.per_seed.values()))
    assert row[5].endswith(f"SD {100 * result.seed_sd:.2f}")
    assert row[6] == f"{result.p_value:.3f}"
    assert float(row[7]) >= float(row[6])


def test_every_patient_is_listed(runs, whole):
    rows = whole.table("Every patient")
    assert [row[0] for row in rows[1:]] == [f"p{number}" for number in range(5)]
    ours, _ = evaluations(runs)
    values = average([result.values("dice") for result in ours.values()])
    assert [row[1] for row in rows[1:]] == [f"{100 * value:.2f}" for value in values.values()]


def test_every_mark_leads_to_its_patients_row(runs, whole):
    rows = {row["id"]: place for place, row in enumerate(row for row in whole.all("tr") if "id" in row)}
    assert list(rows) == [f"patient-{number}" for number in range(5)]
    marks = [link for link in whole.all("a") if "aria-label" in link and "download" not in link]
    for metric, unit in (("dice", "points"), ("hd95_pooled_mm", "mm")):
        scale = 100 if metric == "dice" else 1
        for patient, value in compare(*evaluations(runs), metric).differences.items():
            label = f"{patient}: {scale * value:+.2f} {unit}".replace("-", "−")
            assert [link["href"] for link in marks if link["aria-label"] == label] == [
                f"#patient-{patient[1:]}"
            ]
    assert len(marks) == 2 * 5


@pytest.mark.parametrize(
    ("case", "patient", "name"),
    [("p1_ed", "p1", "ed"), ("p1-2", "p1", "2"), ("scan7", "p1", "scan7"), ("p1", "p1", "p1")],
)
def test_a_scan_is_named_by_what_its_patient_does_not_tell(case, patient, name):
    assert short_name(case, patient) == name


def test_missed_structures_are_counted_in_the_tables(make_run, build):
    run = make_run("nnunet", [0] * 10)
    first = read_evaluation(run / "evaluation.json").cases[:3]
    scored.change_rows(run / "evaluation.json", lambda row: scored.MISSED if row in first else {})
    rows = build([run]).table("hd95_pooled_mm, mm")
    assert "best" not in " ".join(cell for row in rows for cell in row)
    assert rows[1][-1] == "3 of 20"
    assert "2 missed" in rows[1][2]
    assert "1 missed" in rows[1][3]
    assert float(rows[1][4].split()[0]) > float(rows[1][1].split()[0]) == 0


def test_what_is_marked_where_there_is_none_is_counted_compared_and_shown(make_run, build):
    marked, other = make_run("ccdc", [0] * 10), make_run("nnunet", [0] * 10)
    for run, fields in ((marked, scored.SPURIOUS), (other, scored.ABSENT)):
        scored.change_rows(
            run / "evaluation.json", lambda row, new=fields: new if row.patient == "p0" else {}
        )
    found = build([marked, other])
    assert "On 5 test patients, there is no verdict on Dice" in found.text
    assert [row[-1] for row in found.table("Dice, %")[1:]] == ["0 of 16 4 spurious", "0 of 16"]
    assert "2 spurious" in found.table("Dice, %")[1][2]
    assert found.text.count("structures marked where there is none") == 1
    assert found.text.count("test patients5") == 2


def test_without_a_baseline_there_is_no_comparison(bare_runs, build):
    found = build(bare_runs[:2])
    assert "There is no comparison: no nnU-Net" in found.text
    assert "Nothing to compare" in found.text
    assert found.table("Dice, %")[1][0] == "CCDC mean of 2 seeds"


def test_synthetic_data_are_announced_loudly(make_run, build):
    found = build([make_run("ccdc", [0] * 10, synthetic=True)])
    loud = [attributes for _, attributes in found.elements if "loud" in (attributes.get("class") or "")]
    assert len(loud) == 2
    assert "Synthetic images: CCDC" in found.text
    assert found.text.startswith("[synthetic] A title")
    assert "These numbers say nothing about patients." in found.text
    assert "images and names of patients" not in found.text


def test_real_data_are_not_called_synthetic_but_patients(whole):
    assert "ynthetic" not in whole.text
    assert "This page holds images and names of patients: share it as you would" in whole.text


def test_colours_of_classes_are_those_of_their_values(bare_runs, build):
    """``dataset.json`` need not list them in that order; outlines are drawn by value."""
    change(bare_runs[0] / "run.json", labels={"background": 0, "RV": 2, "LV": 1})
    legend = re.findall(r'height="4" fill="(#\w+)"/></svg>\s*(RV|LV)<', build(bare_runs[:1]).source)
    assert legend == [(CLASS_COLOURS[0], "LV"), (CLASS_COLOURS[1], "RV")]


def test_the_page_says_that_it_has_no_viewer(whole):
    assert "There is no slice viewer: ccdcseg was installed without it" in whole.text


def test_the_page_needs_nothing_else(whole):
    assert not re.search(r"https?:", whole.source)
    assert "@import" not in whole.source
    assert "url(" not in whole.source.replace("url(#", "")
    loading = ("src", "href", "xlink:href", "srcset", "data", "action")
    addresses = [
        value for _, attributes in whole.elements for name, value in attributes.items() if name in loading
    ]
    assert len(addresses) > 10
    data = ("#", "data:image/webp;base64,", "data:text/csv;", "data:application/x-tex;")
    assert all(value.startswith(data) for value in addresses)
    assert whole.all("link") == []


def test_only_our_script_may_run(whole):
    policy = next(meta["content"] for meta in whole.all("meta") if "http-equiv" in meta)
    script = re.search(r"<script>(.*?)</script>", whole.source, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    empty = base64.b64encode(hashlib.sha256(b"").digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert empty not in policy
    assert "default-src 'none'" in policy


def test_before_and_after_post_processing_has_a_table(make_run, measure_plain, build):
    run = make_run("ccdc", [0] * 10)
    assert "as predicted" not in build([run]).text
    measure_plain(run, [1] * 10)
    header, row, _ = build([run]).table("Before and after post-processing")
    assert header[2:4] == ["as predicted", "post-processed"]
    assert row[0].startswith("CCDC")


def test_ids_are_unique_and_links_lead_somewhere(whole):
    ids = [attributes["id"] for _, attributes in whole.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [link["href"] for link in whole.all("a") if "download" not in link]
    assert {link[1:] for link in links} <= set(ids)


def test_every_picture_has_a_text(runs, whole):
    assert len(whole.all("img")) == 2 * 2 + 3 * len(choose_cases(load_arms(runs)))
    assert all(attributes["alt"] for attributes in whole.all("img"))
    for attributes in whole.all("svg"):
        assert attributes.get("aria-hidden") == "true" or attributes["aria-label"]


def test_curves_and_diagnostics_are_drawn(whole):
    labels = [attributes["aria-label"] for attributes in whole.all("svg") if "aria-label" in attributes]
    for words in (
        "Contrastive term, weighted over",
        "confidence of each class",
        "Confusion of RV",
        "Core, easy and hard pixels of LV",
    ):
        assert any(words in label for label in labels), words
    assert "Not every run held patients back for validation" in whole.text


def test_names_and_settings_cannot_become_markup(make_run, build):
    run = make_run("ccdc", [0] * 10, settings={EVIL: EVIL}, versions={EVIL: EVIL}, dataset=EVIL, preset=EVIL)
    scored.change_rows(
        run / "evaluation.json", lambda row: {"patient": row.patient + EVIL, "case": f"<script>{row.case}"}
    )
    found = build([run], title=EVIL)
    assert len(found.all("script")) == found.source.count("<script") == 1
    assert found.text.count("alert(1)") > 10
    assert "<script>p" in found.text


def test_class_names_cannot_become_markup(make_run, build, tmp_path):
    name = f"{EVIL}$\\alpha$"
    run = make_run("ccdc", [0] * 10, labels={"background": 0, name: 1, "LV": 2})
    text = (run / "evaluation.json").read_text().replace('"RV"', json.dumps(name))
    (run / "evaluation.json").write_text(text)
    history = (run / "history.jsonl").read_text().replace('"RV"', json.dumps(name))
    (run / "history.jsonl").write_text(history)
    found = build([run])
    assert len(found.all("script")) == found.source.count("<script") == 1
    assert name in found.text


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("evaluation.json", "Nothing has been evaluated yet"),
        ("history.jsonl", "No history was stored"),
        ("predictions", "No picture: CCDC has no prediction of p4_es"),
        ("selection", "No selection maps were stored."),
    ],
)
def test_a_missing_part_is_said_to_be_missing(make_run, build, part, words):
    run = make_run("ccdc", [0] * 9 + [1])
    target = run / part
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert words in build([run]).text


def test_a_run_json_alone_makes_a_page(make_run, build):
    run = make_run("ccdc", [0] * 10)
    for path in run.iterdir():
        if path.name != "run.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = build([run])
    assert found.all("img") == []
    assert "None of these runs stored diagnostics" in found.text


def test_one_run_of_two_without_evaluation_is_named(bare_runs, build):
    (bare_runs[1] / "evaluation.json").unlink()
    found = build(bare_runs)
    assert "Without an evaluation, so not in these tables: CCDC, seed 1." in found.text
    assert found.table("Dice, %")[1][0] == "CCDC seed 0"


def test_moved_images_are_said_to_be_missing(make_run, build):
    found = build([make_run("ccdc", [0] * 10, images="elsewhere")])
    assert re.search(r"No picture: \S+run\.json names the folder elsewhere, which does not exist", found.text)


def test_a_damaged_selection_map_is_named(make_run, build):
    run = make_run("ccdc", [0] * 10)
    (run / "selection" / "epoch_0010.npz").write_bytes(b"PK\x03\x04 no archive")
    assert "epoch_0010.npz is no selection map" in build([run]).text


def test_the_commands_are_shown(whole):
    assert "ccdcseg train Dataset027_ACDC --method ccdc --fraction 0.1 --seed 1 --preset cpu" in whole.text


def test_nothing_is_written_where_a_run_is_unusable(bare_runs, tmp_path):
    (bare_runs[0] / "run.json").unlink()
    with pytest.raises(UserError, match=r"has no run\.json"):
        build_report([*map(str, bare_runs)], str(tmp_path / "out" / "report.html"), "A title")
    assert not (tmp_path / "out").exists()


def test_every_table_of_numbers_can_be_downloaded(whole):
    grids = [table for table in whole.all("table") if "grid" in table["class"]]
    files = [link["download"] for link in whole.all("a") if "download" in link]
    assert len(grids) == 6 + 6 + 2
    assert len(files) == 2 * (len(grids) + 1)
    assert {"every-patient.csv", "every-patient.tex"} <= set(files)
    assert len(set(files)) == len(files)
    assert {"dice-by-seed.csv", "paired-comparisons.tex"} <= set(files)


def test_cells_carry_plain_numbers_to_sort_by(runs, whole):
    result = compare(*evaluations(runs), "hd95_pooled_mm")
    values = [cell.get("data-value") for cell in whole.all("td")]
    assert result.mean_difference < 0
    assert f"{result.mean_difference:.2f}" in values
    assert not [value for value in values if value and "−" in value]


@pytest.fixture
def validated(make_run):
    """Runs that were evaluated on validation patients alone."""
    runs = [make_run("ccdc", [0] * 10), make_run("nnunet", [2, 3] * 5)]
    for run in runs:
        (run / "validation_patients").mkdir()
        for name in ("evaluation.json", "predictions"):
            shutil.move(run / name, run / "validation_patients" / name)
    return runs


def test_validation_patients_are_called_so_everywhere(validated, build):
    found = build(validated, part="validation")
    assert "On 5 validation patients, there is no verdict on Dice between CCDC and nnU-Net" in found.text
    assert "Mean over validation patients, those on which settings may be chosen;" in found.text
    assert "test patients" not in found.text
    assert len(found.all("img")) == 2 + 3 * 3  # selection maps; reference and both predictions of three scans
    assert "Nothing has been evaluated yet" in build(validated).text


def test_test_patients_are_called_so_everywhere(whole):
    assert "On 5 test patients" in whole.text
    assert "Mean over test patients;" in whole.text
    assert "validation patients" not in whole.text


def test_few_methods_have_cards_and_their_plots_in_the_open(whole):
    assert len([box for box in whole.all("div") if box.get("class") == "card"]) == 2
    assert "difference of each patient</summary>" not in whole.source
    assert "CCDC (2 runs), nnU-Net (2 runs)" in whole.text


def test_many_methods_have_a_summary_and_no_cards(many, build, monkeypatch: pytest.MonkeyPatch):
    assert "no verdict for CCDC, ReCo, MCC, TopK, since so few patients cannot tell." in build(many).text
    monkeypatch.setattr("ccdcseg.report.answer.FEWEST_PATIENTS", 5)
    found = build(many)
    assert [box for box in found.all("div") if "card" in (box.get("class") or "")] == []
    assert "Dice, 4 networks against nnU-Net on 5 test patients: better is shown for CCDC (+" in found.text
    assert "5 methods in 5 runs" in found.text
    each = re.search(r"<summary>Each comparison</summary>(.*?)</details>", found.source, re.DOTALL)[1]
    assert each.count("<li>") == 8
    folded = re.search(
        r"<summary>hd95_pooled_mm, difference of each patient</summary>(.*?)</details>",
        found.source,
        re.DOTALL,
    )[1]
    assert folded.count("<figure") == 4
    assert found.source.count("minus nnU-Net; better for") == 8
    assert found.table("Dice: how often each rank")[0] == ["method", "1", "2", "3", "4", "5"]


def test_what_has_no_baseline_is_said_not_to_be_compared(make_run, build):
    runs = [
        make_run("nnunet", [2] * 10),
        make_run("ccdc", [0] * 10),
        make_run("reco", [1] * 10, iterations=9),
    ]
    assert "ReCo: nothing of as many labels and steps to compare it with." in build(runs).text


def test_a_page_of_ours_is_known_by_its_head(build, bare_runs, tmp_path):
    build(bare_runs)
    check_page(tmp_path / "report.html", "report")
    (tmp_path / "report.html").write_text("<!DOCTYPE html>")
    with pytest.raises(UserError):
        check_page(tmp_path / "report.html", "report")
