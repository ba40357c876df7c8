from ccdcseg.experiments.experiment import load_experiment
from ccdcseg.experiments.measured import measured_rows, same_fraction


def test_seeds_of_a_row_belong_together(job, result):
    results = {
        job("ccdc"): result(2, RV=0.7),
        job("ccdc", seed=1): result(1, seed=1, RV=0.8),
        job("nnunet"): result(RV=0.9),
    }
    measured = measured_rows(load_experiment("table1"), results)
    assert [*measured] == [("ccdc", 0.1), ("nnunet", 0.1)]
    ccdc, nnunet = measured.values()
    assert (ccdc.label, list(ccdc.evaluations), ccdc.missed, ccdc.patients) == ("CCDC", [0, 1], (3, 4), 2)
    assert [round(value, 6) for value in ccdc.values("dice").values()] == [0.75, 0.65]
    assert round(nnunet.summary("dice", "RV")["value"], 6) == 0.85


def test_labels_tell_fractions_apart_where_there_are_several(job, result):
    results = {job("ccdc", 0.05): result(RV=0.7), job("ccdc", 0.4): result(RV=0.8)}
    measured = measured_rows(load_experiment("figure6"), results)
    assert [arm.label for arm in measured.values()] == ["CCDC, 5 %", "CCDC, 40 %"]
    assert {fraction: len(group) for fraction, group in same_fraction(measured).items()} == {0.05: 1, 0.4: 1}


def test_scans_are_where_the_training_of_today_has_them(job, result):
    """Results name no folder of a machine."""
    found = job("ccdc")
    (arm,) = measured_rows(load_experiment("table1"), {found: result(RV=0.7)}).values()
    (run,) = arm.runs
    assert (run.folder, run.record.images) == (found.run, found.training.raw / "imagesTr")
    assert run.record.reference == found.training.raw / "labelsTr"
