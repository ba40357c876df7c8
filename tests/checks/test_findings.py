import pytest

from ccdcseg.checks.findings import CheckSettings, Severity, note, problem
from ccdcseg.errors import UserError


@pytest.mark.parametrize(
    "change",
    [
        {"fewest_cases": 2},
        {"deviations": 0},
        {"size_factor": 0.9},
        {"intensity_factor": 0.5},
        {"intensity_share": 0},
        {"clipped_share": 1},
        {"speck_fraction": -0.1},
        {"speck_fraction": 1.5},
    ],
)
def test_thresholds_out_of_range(change: dict[str, float]) -> None:
    with pytest.raises(UserError, match="out of range"):
        CheckSettings(**change)


def test_severities() -> None:
    assert problem("a", ["x"], "t", "r").severity is Severity.PROBLEM
    assert note("a", ["x", "y"], "t", "r").severity is Severity.NOTE
    assert note("a", iter(["x", "y"]), "t", "r").cases == ("x", "y")
