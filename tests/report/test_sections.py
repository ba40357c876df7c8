from ccdcseg.report.curves import Key, Panel
from ccdcseg.report.figures import Line, arm_look, line_panel
from ccdcseg.report.sections import Section
from ccdcseg.tabular import Entry, Grid


def test_sections_stand_between_the_answer_and_the_results(bare_runs, build):
    grid = Grid("Dice <1>, %", ("method", "ours"), ((Entry("A"), Entry("−1.20", 1, "n = 3")),), "A note.")
    panel = Panel("By share", line_panel("table-1", [Line([1, 2], [3, 4], arm_look(0))], "alt", "Dice"))
    sections = [
        Section("Table 1", "What it shows.", [grid], [panel], [Key("A method", arm_look(0))]),
        Section("Table 2", "", [grid, grid]),
    ]
    found = build(bare_runs, sections=sections)
    assert found.table("Dice <1>, %")[1] == ["A", "−1.20, best n = 3"]
    ids = [section["id"] for section in found.all("section") if "id" in section]
    assert ids[:3] == ["table-1", "table-2", "results"]
    assert [link["href"] for link in found.all("a")][:3] == ["#table-1", "#table-2", "#results"]
    parts = found.source.split("<section ")
    assert parts[2].count("<table") == 1
    assert parts[3].count("<table") == 2
    words = ("What it shows.", "A method", "By share", "Dice &lt;1&gt;", "A note.")
    assert sorted(words, key=parts[2].index) == list(words)
