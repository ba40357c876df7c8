import pytest

from ccdcseg.measure.display import METRICS, interval_text, number, p_text, signed


def test_numbers_are_shown_in_the_metrics_unit():
    assert number(0.87456, METRICS["dice"]) == "87.46"
    assert number(2.345, METRICS["hd_mm"]) == "2.35"
    assert number(None, METRICS["hd_mm"]) == "–"


def test_differences_carry_a_sign():
    assert signed(0.0123, METRICS["dice"]) == "+1.23"
    assert signed(-1.5, METRICS["hd_mm"]) == "−1.50"
    assert signed(-1e-5, METRICS["hd_mm"]) == signed(-0.0, METRICS["hd_mm"]) == "+0.00"
    assert interval_text([-0.01, 0.02], METRICS["dice"], is_difference=True) == "−1.00 to +2.00"
    assert interval_text(None, METRICS["dice"]) == "no interval below two patients"


@pytest.mark.parametrize(
    ("p_value", "text"), [(0.0004, "< 0.001"), (0.001, "0.001"), (0.0456, "0.046"), (1, "1.000")]
)
def test_p_values(p_value, text):
    assert p_text(p_value) == text
