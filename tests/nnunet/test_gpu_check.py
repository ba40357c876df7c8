"""The GPU check in small, on the CPU: that it runs, and says what it is to say."""

import json
import sys
from pathlib import Path

import pytest

from ccdcseg.methods import METHODS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler itself
def test_the_check_runs_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import gpu_check

    gpu_check.main(["--device", "cpu", "--small", "--output", str(tmp_path / "check.json")])
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["format"] == gpu_check.FORMAT
    for name, drawn in found["draws"].items():
        assert drawn == {"same_pixels": True, "relative_difference": 0}, name
    training = found["training"]
    assert training["equal_batches"]
    assert training["nnunet"]["finite"]
    assert training["ccdc"]["finite"]
    assert training["ccdc"]["first_loss"] > training["nnunet"]["first_loss"]
    methods = found["methods"]
    assert methods.keys() > METHODS.keys() - {"nnformer", "ccdc_both"}
    assert methods["nnunet"]["step_ratio"] == 1
    assert all(
        method["step_seconds"] > 0 and method["hours_of_250000_steps"] > 0 for method in methods.values()
    )
    assert found["dense"]["step_ratio"] > 0
    assert found["compile"]["on"]["step_seconds"] > 0
    assert found["processes"] == {"not_measured": "there are no two GPUs"}


def test_what_cannot_be_measured_says_why(monkeypatch):
    import torch

    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import gpu_check

    def too_large():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried\nmore")

    assert gpu_check.attempted(too_large) == {
        "not_measured": "memory did not suffice: CUDA out of memory. Tried"
    }
    late = gpu_check.Scale(seconds=0)
    sections = gpu_check.check(torch.device("cpu"), late, 0)
    assert sections["methods"] == sections["draws"] == {"not_measured": "the time was over"}
