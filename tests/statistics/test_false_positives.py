"""Where there is no difference, a comparison finds one as often as it claims to, if patients are the unit."""

import runpy
from pathlib import Path

SIMULATION = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "false_positives.py"))


def test_patients_keep_the_nominal_rate_and_scans_do_not():
    rates = SIMULATION["false_positives"](SIMULATION["Study"](patients=20), studies=600)
    assert 0.04 <= rates["patient"] <= 0.06
    assert rates["case"] > 0.08
    assert rates["class x case"] > 0.15


def test_without_anything_shared_every_unit_keeps_it():
    study = SIMULATION["Study"](patients=20, patient_sd=0.0, scan_sd=0.0)
    rates = SIMULATION["false_positives"](study, studies=250)
    assert all(0.03 <= rate <= 0.07 for rate in rates.values())
