import math
import re
from importlib import resources
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from ccdcseg.report.figures import (
    PRINT_COLOURS,
    Dot,
    Line,
    Look,
    Shares,
    arm_look,
    class_look,
    difference_panel,
    line_panel,
    role_look,
    shares_panel,
    write_shares,
)


def lines(*values):
    return [Line(range(len(y)), y, class_look(index)) for index, y in enumerate(values)]


def dots(*values):
    return [Dot(value, f"patient {place}: {value}", f"patient-{place}") for place, value in enumerate(values)]


@pytest.fixture
def panel():
    return line_panel("a-name", lines([0.1, math.nan, 0.4], [0.2, 0.3, 0.1]), 'Dice & "loss" <b>', "loss")


def test_a_figure_is_one_well_formed_svg_with_its_text(panel):
    root = ElementTree.fromstring(str(panel))
    assert root.tag == "svg"
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'Dice & "loss" <b>'
    assert "loss" in [element.text for element in root.iter("text")]


def test_a_figure_is_the_same_whatever_else_changed_matplotlibs_settings(panel):
    with mpl.rc_context({"font.size": 40, "axes.labelsize": 60, "axes.facecolor": "red"}):
        again = line_panel(
            "a-name", lines([0.1, math.nan, 0.4], [0.2, 0.3, 0.1]), 'Dice & "loss" <b>', "loss"
        )
    assert again == panel


def test_a_mark_is_a_line_of_its_look(panel):
    drawn = lines([0.1, math.nan, 0.4], [0.2, 0.3, 0.1])
    marked = line_panel("a-name", drawn, 'Dice & "loss" <b>', "loss", marks=[(5, drawn[1].look)])
    assert marked.count("var(--class-1)") == panel.count("var(--class-1)") + 1


def test_colours_are_the_pages_variables(panel):
    assert "var(--class-0)" in panel
    assert "var(--class-1)" in panel
    assert "var(--ink)" in panel
    assert set(re.findall(r"#[0-9a-f]{6}\b", panel)) <= {"#000000", "#ffffff"}


def test_ids_carry_the_name_of_the_figure(panel):
    ids = re.findall(r'\bid="([^"]+)"', panel)
    assert ids
    assert all(name.startswith("a-name-") for name in ids)
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', panel)
    assert {first or second for first, second in used} <= set(ids)


def test_figures_are_repeatable_and_name_no_address(panel):
    again = line_panel("a-name", lines([0.1, math.nan, 0.4], [0.2, 0.3, 0.1]), 'Dice & "loss" <b>', "loss")
    assert panel == again
    assert "http" not in panel


def test_labels_are_texts_not_formulas_nor_markup():
    panel = line_panel("x", lines([1.0, 2.0]), "alt", "$\\frac$ <script>")
    texts = [element.text for element in ElementTree.fromstring(str(panel)).iter("text")]
    assert "$\\frac$ <script>" in texts


def test_counts_are_written_out():
    panel = line_panel("x", lines([0.0, 5.0, 12000.0]), "alt", "pixels", counts=True)
    texts = [element.text for element in ElementTree.fromstring(str(panel)).iter("text")]
    assert {"0", "10", "10,000"} <= set(texts)


@pytest.mark.parametrize("better_up", [True, False])
def test_better_and_worse_patients_have_other_colours_and_marks(better_up):
    panel = difference_panel("d", dots(2.0, -1.0, 0.0), [-1.0, 1.5], "alt", "points", better_up)
    ElementTree.fromstring(str(panel))
    stems = [panel.count(f"stroke: var(--{name}); stroke-opacity: 0.6") for name in ("good", "bad")]
    assert stems == [1, 2]


def test_better_is_to_the_right_whatever_the_sign():
    def colours(better_up):
        panel = difference_panel("d", dots(3.0, -1.0, -2.0), None, "alt", "mm", better_up)
        marks = re.findall(r"<a .*?(?: x=\"| d=\"M )([\d.]+).*?fill: var\(--(\w+)\).*?</a>", panel, re.DOTALL)
        return [name for _, name in sorted((float(x), name) for x, name in marks)]

    assert colours(better_up=True) == ["bad", "bad", "good"]
    assert colours(better_up=False) == ["bad", "good", "good"]


@pytest.mark.parametrize("better_up", [True, False])
def test_every_mark_is_a_link_from_worst_to_best(better_up):
    given = [*dots(2.0, -1.0, 0.5), Dot(-4.0, '<b> & "p": −4.0', "patient-9", 7)]
    panel = difference_panel("d", given, None, "alt", "mm", better_up)
    links = list(ElementTree.fromstring(str(panel)).iter("a"))
    ranked = sorted(given, key=lambda dot: dot.value, reverse=not better_up)
    assert [link.attrib["href"] for link in links] == [f"#{dot.row}" for dot in ranked]
    assert [link.attrib["aria-label"] for link in links] == [dot.label for dot in ranked]
    assert [link.find("title").text for link in links] == [dot.label for dot in ranked]
    assert [link.attrib.get("data-scan") for link in links] == [
        None if dot.scan is None else str(dot.scan) for dot in ranked
    ]
    assert all(link.find(".//use") is not None or link.find(".//path") is not None for link in links)
    assert not any("target" in link.attrib for link in links)


def test_links_are_not_hidden_by_the_role_of_a_picture(panel):
    assert 'role="img"' in panel
    assert 'role="group"' in difference_panel("d", dots(1.0), None, "alt", "mm", better_up=True)


def test_one_patient_can_be_drawn():
    assert "<svg" in difference_panel("d", dots(1.0), None, "alt", "mm", better_up=True)


def test_looks_repeat_rather_than_run_out():
    assert arm_look(0) == Look("arm-0")
    assert arm_look(6).colour == "arm-0"
    assert class_look(8).colour == "class-0"
    assert role_look("hard").colour == "role-hard"
    assert len({class_look(index) for index in range(32)}) == 32
    assert len({arm_look(index) for index in range(24)}) == 24


def test_a_value_between_gaps_is_a_point():
    """A line from one value to nowhere is not drawn."""
    gaps, whole = [0.1, 0.2, math.nan, 0.3, math.nan], [0.1, 0.2, 0.2, 0.3, 0.3]
    points = [
        [
            used
            for used in ElementTree.fromstring(str(panel)).iter("use")
            if "class-0" in used.get("style", "")
        ]
        for panel in (line_panel("a", lines(values), "alt", "loss") for values in (gaps, whole, [0.4]))
    ]
    assert [len(found) for found in points] == [1, 0, 1]


SHARES = [
    Shares("nnU-Net", [5, 10], [60.0, 70.0], [[55.0, 64.0], None], arm_look(0)),
    Shares("CCDC", [5, 10], [61.0, 72.0], [[58.0, 66.0], [70.0, 74.0]], arm_look(1)),
]


def test_values_over_the_share_of_labelled_patients():
    panel = shares_panel("shares", SHARES, "CCDC is better.", "Dice, %")
    root = ElementTree.fromstring(str(panel))
    assert root.attrib["aria-label"] == "CCDC is better."
    texts = [element.text for element in root.iter("text")]
    assert {"5 %", "10 %", "labelled patients", "Dice, %"} <= set(texts)
    assert {"var(--arm-0)", "var(--arm-1)"} <= set(re.findall(r"var\(--arm-\d\)", panel))


def test_a_method_without_intervals_is_drawn_without():
    whole, without = (
        shares_panel("s", [Shares("a", [5, 10], [1.0, 2.0], ends, arm_look(0))], "a", "b")
        for ends in ([[0.0, 2.0], [1.0, 3.0]], [None, None])
    )
    assert whole != without


def test_the_files_legend_has_the_methods_of_all_panels(tmp_path):
    svg = write_shares(tmp_path / "figure6", [("mm", SHARES[:1]), ("Dice, %", SHARES[1:])])[0].read_text()
    assert [re.findall(f">{line.label}<", svg) for line in SHARES] == [[">nnU-Net<"], [">CCDC<"]]


def test_the_files_have_the_pages_light_colours_and_a_legend(tmp_path):
    paths = write_shares(tmp_path / "figure6", [("Dice, %", SHARES), ("mm", SHARES[:1])])
    assert [path.name for path in paths] == ["figure6.svg", "figure6.pdf"]
    svg = paths[0].read_text()
    assert PRINT_COLOURS["arm-1"] in svg
    assert "CCDC" in svg
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert write_shares(tmp_path / "again", [("Dice, %", SHARES), ("mm", SHARES[:1])])[0].read_text() == svg
    css = (resources.files("ccdcseg.report") / "page.css").read_text()
    light = css[: css.index("@media")]
    assert all(f"--{name}: {colour};" in light for name, colour in PRINT_COLOURS.items())
