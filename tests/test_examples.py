"""The examples run as they stand."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.filterwarnings("default")
def test_plain_pytorch(capsys: pytest.CaptureFixture[str]):
    names = runpy.run_path(str(ROOT / "examples" / "plain_pytorch.py"))
    losses = [float(value) for value in re.findall(r"step \d+: ([\d.]+)", capsys.readouterr().out)]
    assert len(losses) == 20
    assert all(parameter.grad is not None for parameter in names["criterion"].parameters())
    features = names["body"](names["label"].float())
    segmentation = names["criterion"].segmentation(names["layer"](features), names["label"])
    assert segmentation < losses[0]
