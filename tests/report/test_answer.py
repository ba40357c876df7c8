import json
import re
from dataclasses import replace

import pytest
import scored

from ccdcseg.report import answer
from ccdcseg.report.answer import doubts, headline, patients_text, verdict
from ccdcseg.report.tables import usual_outcomes
from ccdcseg.runs.finished import load_arms
from ccdcseg.statistics.compare import Comparison
from ccdcseg.statistics.family import Outcome


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def outcome(first, difference, metric="dice", second="nnU-Net", p=0.01, half=0.005, n=30):
    """An outcome whose interval reaches ``half`` to both sides of the difference."""
    values = {f"p{index}": difference for index in range(n)}
    interval = [difference - half, difference + half]
    result = Comparison(metric, "mean", values, difference, interval, None, p, 0.5, {0: difference}, None)
    return Outcome(first, second, result, p)


def outcomes_of(make_run, ours, theirs):
    return usual_outcomes(load_arms([make_run("ccdc", ours), make_run("nnunet", theirs)]))


@pytest.mark.parametrize(("ours", "theirs", "word"), [(0, 3, "better"), (3, 0, "worse")])
def test_what_is_better_is_called_so(make_run, monkeypatch, ours, theirs, word):
    monkeypatch.setattr(answer, "FEWEST_PATIENTS", 5)
    dice, distance = outcomes_of(make_run, [ours] * 10, [theirs] * 10)
    claim = f"On 5 test patients, one network of CCDC has a {word} Dice than one of nnU-Net: mean difference "
    assert verdict(dice).startswith(claim + ("+" if word == "better" else "−"))
    assert f"one network of CCDC has a {word} hd95_pooled_mm" in verdict(distance)
    assert "does not confirm it (Holm-adjusted p = 0.125)" in verdict(dice)


def test_no_difference_is_called_no_difference():
    claim = (
        "no difference in Dice between one network of A and one of nnU-Net is shown: mean difference +0.10"
    )
    assert claim in verdict(outcome("A", 0.001))


def test_fewer_than_six_patients_cannot_tell(runs):
    """Not even those who all agree: the least p of five is 0.0625."""
    assert "has a better" in verdict(outcome("A", 0.0075, half=0.0025, n=6))
    five = outcome("A", 0.0075, half=0.0025, n=5)
    assert verdict(five) == (
        "On 5 test patients, there is no verdict on Dice between A and nnU-Net, since so few patients cannot tell: "
        "mean difference +0.75 points (95 % interval +0.50 to +1.00 over patients)."
    )
    failed = replace(outcome("B", 0.02, n=5), failures={"B": "Dice 6.10 %"})
    assert "since B hardly finds the structures" in verdict(failed)
    more = [outcome(name, 0.02) for name in "CDEF"]
    summary, adjusted, *_ = headline(load_arms(runs), [five, failed, outcome("G", 0.001), *more]).sentences
    assert summary.endswith(
        "F (+2.00 points); no difference for G; no verdict for A, since so few patients cannot tell; "
        "no verdict for B, since structures are hardly found."
    )
    assert adjusted.endswith("4 of these 4.")


@pytest.mark.parametrize(
    ("per_seed", "claim"),
    [
        ({}, "the networks of A have a better Dice than those of nnU-Net:"),
        ({0: 0.01}, "one network of A has a better Dice than one of nnU-Net:"),
        ({0: 0.01, 1: 0.01}, ", A has a better Dice than nnU-Net:"),
    ],
)
def test_one_seed_is_one_network(per_seed, claim):
    item = outcome("A", 0.01)
    item = replace(item, comparison=replace(item.comparison, per_seed=per_seed))
    assert claim in verdict(item)


def test_nothing_is_better_than_what_hardly_finds_the_structures(runs):
    failed = {"A": "Dice 6.10 %, 40 of 60 structures missed"}
    item = replace(outcome("A", 0.01), failures=failed)
    assert verdict(item) == (
        "On 30 test patients, there is no verdict on Dice between A and nnU-Net, since A hardly finds the "
        "structures (Dice 6.10 %, 40 of 60 structures missed): mean difference +1.00 points (95 % interval +0.50 "
        "to +1.50 over patients)."
    )
    many = [item, *(outcome(name, -0.02) for name in "BCDEFG")]
    sentences = headline(load_arms(runs), many).sentences
    assert "; no verdict for A, since structures are hardly found." in sentences[0]
    assert "better" not in sentences[0]
    assert "6 of these 6" in sentences[1]
    alone = headline(load_arms(runs), [item] * 7).sentences[0]
    assert alone.endswith(
        "on 30 test patients: no verdict for A, A, A, A, A, A, A, since structures are hardly found."
    )


def test_the_part_of_the_split_is_named():
    assert verdict(outcome("A", 0.01), "validation").startswith(
        "On 30 validation patients, one network of A has a better"
    )


def test_the_answer_names_its_interval_and_one_seed_its_limit(runs):
    def sentences(folders):
        arms = load_arms(folders)
        return " ".join(headline(arms, usual_outcomes(arms)).sentences)

    assert "over patients and seeds" in sentences(runs)
    assert "compares trained networks" not in sentences(runs)
    assert "over patients)" in sentences([runs[0], runs[2]])
    assert "compares trained networks, not methods" in sentences([runs[0], runs[2]])


def test_few_comparisons_have_a_sentence_each(runs):
    arms = load_arms(runs)
    found = headline(arms, [outcome(name, 0.01) for name in "ABCDEF"])
    assert len(found.sentences) == 6 + 1
    assert found.details == ()


def test_many_comparisons_are_summed_up_by_metric_and_told_on_demand(runs):
    dice = [("A", 0.012), ("B", -0.021), ("C", 0.03), ("D", 0.001), ("E", -0.001)]
    distance = [("A", 2.0), ("B", -3.0), ("C", 0.001), ("D", 0.0), ("E", 0.0)]
    outcomes = [outcome(*pair, p=0.2 if pair[0] == "A" else 0.01) for pair in dice]
    outcomes += [outcome(*pair, "hd95_pooled_mm", n=28 + (pair[0] == "E")) for pair in distance]
    found = headline(load_arms(runs), outcomes, "validation")
    assert found.sentences == (
        "Dice, 5 networks against nnU-Net on 30 validation patients: better is shown for C (+3.00 points), "
        "A (+1.20 points); worse for B (−2.10 points); no difference for the other 2.",
        "hd95_pooled_mm, 5 networks against nnU-Net on 28 to 29 validation patients: better is shown for "
        "B (−3.00 mm); worse for A (+2.00 mm); no difference for the other 3.",
        "Shown: the 95 % interval of the mean difference excludes zero. The signed-rank test, adjusted for all "
        "10 comparisons, has p < 0.05 for 4 of these 5.",
        "With fewer than two seeds in common this compares trained networks, not methods.",
    )
    assert found.details == tuple(verdict(item, "validation") for item in outcomes)
    assert found.details_title == "Each comparison"


def test_methods_with_other_baselines_are_summed_up_apart(runs):
    outcomes = [outcome(name, -0.02) for name in "ABC"]
    outcomes += [outcome(name, 0.001, second="nnU-Net (long)") for name in "DEF"]
    outcomes += [outcome("G", 0.001, second="nnU-Net (short)"), outcome("H", 0.02, second="nnU-Net (short)")]
    first, second, third, *_ = headline(load_arms(runs), outcomes).sentences
    assert first == (
        "Dice, 3 networks against nnU-Net on 30 test patients: worse is shown for A (−2.00 points), "
        "B (−2.00 points), C (−2.00 points)."
    )
    assert second == ("Dice, 3 networks against nnU-Net (long) on 30 test patients: no difference is shown.")
    assert third == (
        "Dice, 2 networks against nnU-Net (short) on 30 test patients: better is shown for H (+2.00 points); "
        "no difference for G."
    )


def test_the_seed_interval_decides_in_the_summary_too(runs):
    item = outcome("A", 0.02)
    undecided = Comparison(**{**vars(item.comparison), "interval_seeds": [-0.01, 0.05]})
    outcomes = [Outcome("A", "nnU-Net", undecided, 0.01)] * 7
    sentences = headline(load_arms(runs), outcomes).sentences
    assert "no difference is shown." in sentences[0]
    assert len(sentences) == 2


def test_many_methods_without_a_baseline_are_summed_up(runs):
    arms = load_arms(runs)
    few = headline(arms, [])
    assert len(few.sentences) == 3
    assert few.sentences[0].startswith("CCDC: Dice ")
    found = headline(arms * 4, [])
    ours, theirs = (float(sentence.split("Dice ")[1].split(" %")[0]) for sentence in few.sentences[:2])
    assert found.sentences[0] == f"Dice of 8 methods on 5 test patients: {theirs:.2f} to {ours:.2f} %."
    assert found.sentences[1] == few.sentences[2]
    assert found.details == few.sentences[:2] * 4


def alone(folders):
    arms = load_arms(folders)
    return headline(arms, usual_outcomes(arms)).sentences


@pytest.mark.parametrize("method", ["nnunet", "ccdc"])
def test_of_two_settings_of_a_method_the_second_is_compared_with_the_first(make_run, method):
    first = make_run(method, [3] * 10)
    second = make_run(method, [1, 0] * 5, "own", preset="own")
    labels = [arm.label for arm in load_arms([first, second])]
    assert len(set(labels)) == 2
    sentence = alone([first, second])[0]
    assert f"between {labels[1]} and {labels[0]}" in sentence
    assert "mean difference +" in sentence


def test_why_there_is_no_comparison(make_run):
    baseline, ours = make_run("nnunet", [0] * 10), make_run("ccdc", [1] * 10)
    longer = make_run("reco", [1] * 10, iterations=9)
    shorter = make_run("mcc", [1] * 10, iterations=8)
    setting = make_run("nnunet", [1] * 10, "own", preset="own")
    other = make_run("nnunet", [1] * 10, "other", preset="other")
    for folders in ([baseline], [baseline, setting, other]):
        assert alone(folders)[-1] == "There is no comparison: nothing but nnU-Net was evaluated."
    for folders in ([ours], [baseline, longer, shorter]):
        assert alone(folders)[-1] == (
            "There is no comparison: no nnU-Net of as many labels and steps was evaluated."
        )
    scored.change_rows(ours / "evaluation.json", lambda row: {"patient": f"{row.patient}x"})
    assert alone([baseline, ours])[-1] == (
        "There is no comparison: no patient has a value with both of two that are compared."
    )


def test_one_patient_has_no_interval(make_run):
    run = make_run("ccdc", [1] * 10)
    scored.change_rows(run / "evaluation.json", lambda row: {} if row.patient == "p0" else None)
    assert re.fullmatch(
        r"CCDC: Dice \d\d\.\d\d % \(no interval below two patients\) on 1 test patient\.", alone([run])[0]
    )


@pytest.mark.parametrize(
    ("part", "command"), [("test", "evaluate"), ("validation", "evaluate --part validation")]
)
def test_the_headline_without_evaluation_says_what_to_do(part, command):
    assert headline([], [], part).sentences == (
        f"Nothing has been evaluated yet: run `ccdcseg {command}` on the runs first.",
    )


@pytest.mark.parametrize(
    ("counts", "words"),
    [([1], "1 test patient"), ([30], "30 test patients"), ([1, 2], "1 to 2 test patients")],
)
def test_counts_of_patients(counts, words):
    assert patients_text(counts, "test") == words


def test_a_sound_comparison_raises_no_doubts(runs):
    assert doubts(load_arms(runs)) == []


def test_doubts_name_leaks_other_data_other_patients_and_other_seeds(bare_runs):
    patients = {"train": ["p1"], "validation": [], "test": []}
    change(bare_runs[0] / "run.json", data_hash="f" * 64, patients=patients)
    for path in bare_runs[:2]:
        scored.change_rows(path / "evaluation.json", lambda row: None if row.patient == "p0" else {})
    found = " ".join(doubts(load_arms(bare_runs[:3])))
    assert "CCDC, seed 0 was tested on 1 of its training or validation patients (p1" in found
    assert "seed 0 were not trained on the same data" in found
    assert "not tested on the same scans; 4 patients are common to all" in found
    assert "not trained with the same seeds" in found


def test_what_one_method_alone_marks_is_no_other_patient_but_another_scan_is_another(bare_runs):
    ours, theirs = (bare_runs[place] / "evaluation.json" for place in (0, 2))
    scored.change_rows(ours, lambda row: scored.SPURIOUS if row.patient == "p0" else {})
    scored.change_rows(theirs, lambda row: scored.ABSENT if row.patient == "p0" else {})
    assert doubts(load_arms([ours.parent, theirs.parent])) == []
    scored.change_rows(ours, lambda row: None if row.case == "p1_es" else {})
    assert doubts(load_arms([ours.parent, theirs.parent])) == [
        "The methods were not tested on the same scans; 5 patients are common to all."
    ]


@pytest.mark.parametrize(("others", "doubtful"), [("e" * 64, True), ("f" * 64, False)])
def test_scans_without_masks_are_other_data_by_right(bare_runs, others, doubtful):
    arms = load_arms(bare_runs[:1] + bare_runs[2:3])
    more = {**arms[1].runs[0].record.settings, "unlabelled": {"use": True}}

    def with_scans(arm, data_hash):
        update = {"settings": more, "data_hash": data_hash}
        run = replace(arm.runs[0], record=arm.runs[0].record.model_copy(update=update))
        return replace(arm, label=f"{arm.label}, more scans", runs=(run,))

    found = doubts([*arms, *map(with_scans, arms, ("f" * 64, others))])
    assert ("were not trained on the same data" in " ".join(found)) is doubtful


def trained_on(run, mask, **changes):
    change(
        run / "run.json",
        scans={"labelsTr/t1.nii.gz": mask * 64, "imagesTr/t1_0000.nii.gz": "0" * 64},
        **changes,
    )


def test_a_mask_that_changed_between_trainings_is_named_within_a_seed_and_across_seeds(bare_runs):
    told = ["The runs were not trained on the same data: labelsTr/t1.nii.gz changed between the trainings."]
    for run in bare_runs:
        trained_on(run, "a")
    assert doubts(load_arms(bare_runs)) == []
    for run in (bare_runs[0], bare_runs[2]):  # seed 0 of both
        trained_on(run, "b", data_hash="f" * 64)
    assert doubts(load_arms(bare_runs)) == told
    trained_on(bare_runs[2], "a", data_hash="0" * 64)
    assert doubts(load_arms(bare_runs)) == told
    assert doubts(load_arms(bare_runs[1:])) == ["The methods were not trained with the same seeds."]
    change(
        bare_runs[0] / "run.json", scans={"labelsTr/t1.nii.gz": "b" * 64, "imagesTr/t1_0000.nii.gz": "c" * 64}
    )
    assert "imagesTr/t1_0000.nii.gz and 1 more of these files changed" in doubts(load_arms(bare_runs))[0]


def test_validation_patients_may_be_tested_where_they_are_asked_for(bare_runs):
    run = bare_runs[0]
    (run / "validation_patients").mkdir()
    (run / "evaluation.json").rename(run / "validation_patients" / "evaluation.json")
    change(run / "run.json", patients={"train": [], "validation": ["p1", "p2"], "test": []})
    assert doubts(load_arms([run], "validation")) == []
    change(run / "run.json", patients={"train": ["p2"], "validation": ["p1"], "test": []})
    assert doubts(load_arms([run], "validation")) == [
        "CCDC, seed 0 was tested on 1 of its training patients (p2, ...)."
    ]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_other_precision_and_other_threads_are_doubts(make_run, device: str):
    shifts = [0] * 10
    folders = [
        make_run("ccdc", shifts, device=device, precision="float32", machine="x86_64, 8 cores, 8 threads"),
        make_run("nnunet", shifts, device=device, precision="bfloat16", machine="x86_64, 2 cores, 2 threads"),
    ]
    found = [text for text in doubts(load_arms(folders)) if "differ in" in text]
    assert found[0].startswith("The trainings differ in precision (bfloat16, float32), which")
    assert len(found) == (2 if device == "cpu" else 1)  # threads are of no matter on a GPU
    assert found[-1] == found[0] or found[1].startswith("The trainings differ in threads (2, 8), which")
    assert not [text for text in doubts(load_arms(folders[:1])) if "differ in" in text]
