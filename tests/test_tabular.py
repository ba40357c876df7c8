import csv
import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ccdcseg.tabular import Entry, Grid, ranked, to_csv, to_latex, to_markdown, to_screen

GRID = Grid(
    "Dice & Co",
    ("method", "Dice, %", "missed"),
    (
        (Entry("my_method"), Entry("81.50", 1, "80.00 to 82.00"), Entry("0")),
        (Entry("a|b"), Entry("−1.20", 2), Entry("< 3")),
    ),
    "How to\nread it.",
)


def test_best_and_second_best_of_a_column():
    assert ranked([0.8, None, 0.9, 0.7], higher_is_better=True) == [2, 0, 1, 0]
    assert ranked([0.8, None, 0.9, 0.7], higher_is_better=False) == [2, 0, 0, 1]
    assert ranked([0.8, 0.8, 0.7], higher_is_better=True) == [1, 1, 2]
    assert ranked([0.1 + 0.2, 0.3, 0.2 - 1e-16, 0.2], higher_is_better=True) == [1, 1, 2, 2]
    assert ranked([0.1 + 0.2, 0.3, 0.4], higher_is_better=False) == [1, 1, 2]
    assert ranked([None], higher_is_better=True) == [0]
    assert ranked([0.0, 0.0, 0.4, 1e-5], higher_is_better=True) == [0, 0, 1, 0]
    assert ranked([0.0, 2.0], higher_is_better=False) == [1, 2]


STEPS = st.integers(-10_000, 10_000).map(lambda step: step / 1000)
NOISY = st.floats(-4e-13, 4e-13)


@given(st.lists(st.one_of(st.none(), st.tuples(STEPS, NOISY))), st.booleans())
def test_the_best_are_all_those_that_none_beats_by_more_than_noise(noisy, higher):
    sign = 1 if higher else -1
    values = [pair and pair[0] for pair in noisy]
    there = [sign * value for value in values if value is not None]
    for value, rank in zip(values, ranked([pair and sum(pair) for pair in noisy], higher), strict=True):
        marked = value is not None and not (higher and value < 5e-5)
        better = {other for other in there if other > sign * value} if marked else None
        assert rank == (0 if better is None or len(better) > 1 or len(values) == 1 else len(better) + 1)


def test_the_best_are_marked_within_groups_and_one_alone_is_not():
    assert ranked([1, 2, 3, 9], higher_is_better=True, groups=["a", "a", "a", "b"]) == [0, 2, 1, 0]
    assert ranked([], higher_is_better=True) == []


def test_markdown_marks_the_number_alone_and_escapes_bars():
    assert to_markdown(GRID).splitlines() == [
        "| method | Dice, % | missed |",
        "| --- | --- | --- |",
        "| my_method | **81.50** 80.00 to 82.00 | 0 |",
        "| a\\|b | *−1.20* | < 3 |",
    ]


def test_latex_is_escaped_everywhere_but_in_its_comments():
    assert to_latex(GRID).splitlines() == [
        "% Dice & Co",
        "% How to read it.",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"method & Dice, \% & missed \\",
        r"\midrule",
        r"my\_method & \textbf{81.50} 80.00 to 82.00 & 0 \\",
        r"a|b & \underline{$-$1.20} & $<$ 3 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_csv_has_notes_in_columns_of_their_own_and_plain_minus_signs():
    assert list(csv.reader(io.StringIO(to_csv(GRID)))) == [
        ["method", "Dice, %", "Dice, %, note", "missed"],
        ["my_method", "81.50", "80.00 to 82.00", "0"],
        ["a|b", "-1.20", "", "< 3"],
    ]


def screen(grid: Grid, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(to_screen(grid, width))
    return console.export_text()


def test_the_screen_shows_every_word_whole_however_narrow():
    metric = "hd95_pooled_mm"
    grid = Grid(
        "Dice & Co",
        ("method", metric, "patients", "r"),
        (
            (
                Entry("[1] − [2]"),
                Entry("−1.20", 1, "points, −12.08 to +6.77"),
                Entry("30"),
                Entry("+0.35, −0.10"),
            ),
        ),
        "Read it so.",
    )
    words = "Dice & Co hd95_pooled_mm patients [1] −1.20 points, −12.08 to +6.77 30 +0.35, −0.10 so."
    for width in range(20, 101, 4):
        shown = screen(grid, width)
        assert not {*words.split()} - {word.rstrip(":") for word in shown.split()}, (width, shown)
        assert max(map(len, shown.splitlines())) <= width
    assert "┃" in screen(grid, 80)
    assert "patients: 30" in screen(grid, 30)


def test_a_long_name_does_not_take_the_place_of_a_table():
    shown = screen(Grid("t", ("method", "n"), ((Entry("x" * 60), Entry("7")),)), 50)
    assert "┃" in shown
    assert shown.count("x") == 60


def test_csv_cells_are_no_formulas():
    texts = ["=1+1", "+A1", "-cmd", "@SUM(A1)", " =1", "\t=1", "a;=1", "a\n=1", "\uff1d1"]
    grid = Grid("t", ("=name",), tuple((Entry(text),) for text in texts))
    assert to_csv(grid).splitlines() == [
        *("'=name", "'=1+1", "'+A1", "'-cmd", "'@SUM(A1)", "'=1", "'=1", "a;'=1", "a =1", "'\uff1d1")
    ]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_stay_numbers_in_csv(value):
    text = f"{value:+.2f}"
    cells = [text, f"{text}, {text}", f"{text} to {text}"]
    grid = Grid("t", ("n",), tuple((Entry(cell),) for cell in cells))
    assert [cell for (cell,) in csv.reader(io.StringIO(to_csv(grid)))] == ["n", *cells]


def test_brackets_that_begin_a_row_are_no_option_of_the_command_before_it():
    """As the names do that stand for long ones: ``\\midrule`` would read [1] as the thickness of its line."""
    rows = to_latex(Grid("t", ("*", "b"), ((Entry("[1]"), Entry("x")),))).splitlines()
    assert [rows[3], rows[5]] == [r"{}* & b \\", r"{}[1] & x \\"]


def test_latex_has_one_line_a_row_and_composed_letters():
    rows = to_latex(Grid("a\n\\input{b}", ("h",), ((Entry("e\u0301\n\n\x07x\u202e"),),))).splitlines()
    assert (rows[0], rows[5], len(rows)) == (r"% a \input{b}", "\u00e9 x \\\\", 8)


def test_markdown_cells_hold_no_markup_of_their_own():
    rows = to_markdown(Grid("t", ("h\n",), ((Entry("a\\|b\n<b>c</b> [d](e) `f` < 3"),),))).splitlines()
    assert rows[::2] == ["| h |", r"| a\\\|b \<b>c\</b> [d]\(e) \`f\` < 3 |"]


def test_the_screen_takes_names_as_they_are():
    shown = screen(Grid("[bold]t[/x]", ("[red]",), ((Entry("[i]\x1b[31m"),),), "[/]"), 100)
    assert all(text in shown for text in ("[bold]t[/x]", "[red]", "[i] [31m", "[/]"))
