import math
from dataclasses import fields

import numpy as np
import torch

from ccdcseg.losses import CCDCLoss, Diagnostics
from ccdcseg.nnunet.history import finite, mean_diagnostics
from ccdcseg.runs.history import Telemetry


def test_finite():
    given = {"a": math.nan, "b": [1.0, math.inf], "c": np.float32(2), "d": torch.tensor([math.nan, 3.0])}
    assert finite(given) == {"a": None, "b": [1.0, None], "c": 2.0, "d": [None, 3.0]}


def test_mean_leaves_out_steps_without_the_class():
    criterion = CCDCLoss(2, 3)
    steps = []
    for labels in ([0, 1], [0, 0]):
        logits = torch.zeros(1, 3, 1, 2)
        logits[:, 0] = 2.0 * len(steps)
        criterion(torch.randn(1, 2, 1, 2), logits, torch.tensor([[labels]]))
        steps.append(criterion.diagnostics)
    mean = mean_diagnostics(steps, ["background", "a", "b"])
    assert mean is not None
    sure = math.exp(2) / (math.exp(2) + 2)
    assert np.allclose(mean["confidence"][:2], [(1 / 3 + sure) / 2, 1 / 3])
    assert mean["confidence"][2] is None
    assert mean["classes"] == ["background", "a", "b"]
    assert mean_diagnostics([], ["a"]) is None


def test_the_history_has_a_field_for_every_diagnostic():
    assert {field.name for field in fields(Diagnostics)} == set(Telemetry.model_fields) - {"classes"}
