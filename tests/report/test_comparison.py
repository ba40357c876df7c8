import csv
import json

import pytest
import scored

from ccdcseg.errors import UserError
from ccdcseg.report.answer import doubts
from ccdcseg.report.comparison import SUFFIXES, compare_runs, write_comparison
from ccdcseg.runs.finished import load_arms
from ccdcseg.statistics.family_table import CASE_NOTE

WORSE = [1, 2, 1, 2, 3, 2, 1, 2, 3, 3]
BETTER = [0, 1, 0, 1, 1, 1, 0, 1, 2, 1]
BEST = [0, 0, 0, 0, 1, 0, 0, 1, 1, 1]


@pytest.fixture
def three(make_run):
    return [make_run("nnunet", WORSE), make_run("ccdc", BETTER), make_run("reco", BEST)]


def pairs(comparison):
    return [(o.first, o.second, o.metric) for o in comparison.outcomes]


def test_each_method_is_compared_with_its_nnunet(three):
    found = compare_runs(three, metrics=["dice"])
    assert pairs(found) == [("CCDC", "nnU-Net", "dice"), ("ReCo", "nnU-Net", "dice")]
    assert all(o.comparison.mean_difference > 0 and o.comparison.n == 5 for o in found.outcomes)
    assert found.left_out == ()


def test_one_method_with_all_others(three):
    found = compare_runs(three, of="ccdc")
    assert pairs(found)[:2] == [("CCDC", "nnU-Net", "dice"), ("CCDC", "ReCo", "dice")]
    assert len(found.outcomes) == 4


@pytest.mark.parametrize(
    ("methods", "labels"),
    [
        (("nnunet", "nnunet"), ("nnU-Net (preset second)", "nnU-Net (preset first)")),
        (("ccdc", "ccdc"), ("CCDC (preset second)", "CCDC (preset first)")),
        (("reco", "ccdc"), ("CCDC", "ReCo")),
    ],
)
def test_of_two_without_another_baseline_the_first_is_it(make_run, ccdcseg, methods, labels):
    runs = [
        make_run(method, shifts, place, preset=place)
        for method, shifts, place in zip(methods, (WORSE, BEST), ("first", "second"), strict=True)
    ]
    found = compare_runs(runs, metrics=["dice"])
    assert pairs(found) == [(*labels, "dice")]
    assert found.outcomes[0].comparison.mean_difference > 0
    assert found.left_out == ()
    assert compare_runs(runs, of=methods[1], metrics=["dice"]).outcomes == found.outcomes
    assert ccdcseg("compare", *runs).code == 0


def test_settings_of_one_method_with_each_other_and_with_others(three, make_run):
    runs = [*three, make_run("nnunet", BETTER, "own", preset="own")]
    default = compare_runs(runs, metrics=["dice"])
    assert default.left_out == ("nnU-Net (preset own): `ccdcseg compare` with --of nnunet compares it.",)
    found = compare_runs(runs, of="nnunet", metrics=["dice"])
    first, second = "nnU-Net (preset cpu)", "nnU-Net (preset own)"
    assert [pair[:2] for pair in pairs(found)] == [
        (first, "CCDC"),
        (first, "ReCo"),
        (second, first),
        (second, "CCDC"),
        (second, "ReCo"),
    ]
    assert found.left_out == ()


@pytest.mark.parametrize("baseline_first", [True, False])
def test_two_alone_are_compared_whatever_their_budgets_which_is_said(make_run, baseline_first):
    runs = [make_run("nnunet", WORSE), make_run("ccdc", BETTER, iterations=1900, seconds=480.0)]
    found = compare_runs(runs if baseline_first else runs[::-1], metrics=["dice"])
    assert pairs(found) == [("CCDC", "nnU-Net", "dice")]
    assert found.left_out == ()
    (doubt,) = found.doubts
    assert "CCDC had 2 patients and 1,900 steps in 8 min 00 s" in doubt
    assert "nnU-Net had 2 patients and 2,000 steps in 8 min 32 s" in doubt
    assert pairs(compare_runs(runs, of="nnunet", metrics=["dice"])) == [("nnU-Net", "CCDC", "dice")]


def test_two_settings_of_other_budgets_are_compared_in_their_order(make_run):
    runs = [make_run("ccdc", WORSE), make_run("ccdc", BETTER, "more", fraction=0.2)]
    labels = [arm.label for arm in load_arms(runs)]
    assert pairs(compare_runs(runs, metrics=["dice"])) == [(labels[1], labels[0], "dice")]


def test_more_than_two_methods_are_ranked(three):
    found = compare_runs(three)
    assert [ranks.metric for ranks in found.ranks] == ["dice", "hd95_pooled_mm"]
    assert found.ranks[0].frequencies["ReCo"] == [1, 0, 0]
    assert compare_runs(three[:2]).ranks == ()


def test_a_metric_that_is_named_twice_is_compared_once(three):
    once, twice = (compare_runs(three, metrics=metrics) for metrics in (["dice"], ["dice", "dice"]))
    assert twice.record == once.record
    assert len(twice.ranks) == 1


def test_scans_as_patients(three):
    plain, apart = (compare_runs(three, metrics=["dice"], as_in_the_paper=chosen) for chosen in (False, True))
    assert [o.comparison.n for o in apart.outcomes] == [10, 10]
    assert (apart.record["unit"], apart.record["warning"]) == ("case", CASE_NOTE)
    assert CASE_NOTE in apart.grids()[0].note
    assert plain.record["unit"] == "patient"
    assert "warning" not in plain.record


def test_what_is_not_compared_is_said(make_run):
    runs = [make_run("nnunet", WORSE), make_run("ccdc", BETTER), make_run("reco", BEST, iterations=9)]
    runs.append(make_run("mcc", BEST))
    (runs[-1] / "evaluation.json").unlink()
    assert compare_runs(runs).left_out == (
        "MCC, seed 0: not evaluated.",
        "ReCo: nothing of as many labels and steps to compare it with.",
    )


def test_what_makes_it_doubtful_is_said_as_on_the_page(three, tmp_path, ccdcseg):
    for run, state in zip(three, "aab", strict=True):
        content = json.loads((run / "run.json").read_text())
        content["scans"] = {"labelsTr/t1.nii.gz": state * 64}
        (run / "run.json").write_text(json.dumps(content))
    found, sound = compare_runs(three), compare_runs(three[:2])
    assert (list(found.doubts), sound.doubts) == (doubts(load_arms(three)), ())
    assert "labelsTr/t1.nii.gz changed" in found.doubts[0]
    paths = {path.suffix: path.read_text() for path in write_comparison(found, tmp_path / "found")}
    assert json.loads(paths[".json"])["doubts"] == list(found.doubts)
    for suffix in (".md", ".tex"):
        assert paths[suffix].count("not trained on the same data") == 1
    assert f"Doubtful: {found.doubts[0]}" in ccdcseg("compare", *three).out
    assert "same data" not in write_comparison(sound, tmp_path / "sound")[2].read_text()


def test_other_patients_are_not_compared(three):
    path = three[1] / "evaluation.json"
    scored.change_rows(path, lambda row: {"patient": f"{row.patient}x"})
    found = compare_runs(three, metrics=["dice"])
    assert pairs(found) == [("ReCo", "nnU-Net", "dice")]
    assert found.left_out == ("CCDC − nnU-Net: no patient has dice with both.",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metrics": ["dise"]}, "There is no metric dise"),
        ({"of": "topk"}, "No evaluated run is of the method topk"),
        ({"part": "validation"}, "There is nothing to compare. nnU-Net, seed 0: not evaluated."),
        ({"part": "validation"}, "(ccdcseg evaluate --part validation RUN)"),
    ],
)
def test_mistakes(three, options, words):
    with pytest.raises(UserError, match=words):
        compare_runs(three, **options)


def test_files_for_papers_and_programs(three, tmp_path):
    paths = write_comparison(compare_runs(three, of="ccdc"), tmp_path / "new" / "methods.v1")
    assert [path.name for path in paths] == [f"methods.v1.{end}" for end in ("json", "csv", "md", "tex")]
    record = json.loads(paths[0].read_text())
    assert len(record["comparisons"]) == 4
    assert record["runs"]["CCDC"]["seeds"] == {"0": {"data": "0" * 64}}
    rows = list(csv.reader(paths[1].read_text().splitlines()))
    assert rows[1][:3] == ["CCDC - nnU-Net", "Dice", "5"]
    assert "| CCDC − ReCo | Dice | 5 |" in paths[2].read_text()
    assert paths[3].read_text().count(r"\begin{tabular}") == 3


def test_a_manuscript_of_that_name_is_not_replaced(three, tmp_path, ccdcseg):
    for suffix in SUFFIXES:
        mine = tmp_path / f"paper{suffix}"
        mine.write_text("my own words")
        result = ccdcseg("compare", *three, "-o", tmp_path / "paper")
        assert (result.code, f"{mine} would be replaced" in result.err) == (2, True)
        assert [(path.name, path.read_text()) for path in tmp_path.glob("paper*")] == [
            (mine.name, "my own words")
        ]
        mine.unlink()


@pytest.mark.parametrize("unit", [[], ["--as-in-the-paper"]])
def test_a_comparison_of_before_is_replaced(three, tmp_path, ccdcseg, unit):
    first = ccdcseg("compare", *three, "-o", tmp_path / "paper", *unit)
    again = ccdcseg("compare", *three, "--of", "ccdc", "-o", tmp_path / "paper", *unit)
    assert (first.code, again.code) == (0, 0)
    assert "CCDC − ReCo" in (tmp_path / "paper.md").read_text()
