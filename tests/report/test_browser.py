"""The page in a real browser, where there is one."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ccdcseg.report import page
from ccdcseg.report.page import build_report
from ccdcseg.report.tables import usual_outcomes
from ccdcseg.report.viewer import niivue_script
from ccdcseg.review.answers import read_answers
from ccdcseg.runs.finished import load_arms
from ccdcseg.statistics.family_table import comparison_grid
from ccdcseg.tabular import to_csv, to_latex

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

needs_niivue = pytest.mark.skipif(niivue_script() is None, reason="the package was built without NiiVue")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=SWITCHES)
        yield started
        started.close()


@pytest.fixture(scope="module")
def built(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with the viewer that the package was built with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "niivue_script", niivue_script)
        return build_report(runs, tmp_path_factory.mktemp("browser") / "report.html", "A title")


@pytest.fixture
def shown(browser: Any, built: Path) -> Iterator[Any]:
    """The page, opened from disk; whatever the browser complains of fails the test."""
    tab = browser.new_page(viewport={"width": 1000, "height": 800})
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: complaints.append(request.url) if "http" in request.url[:5] else None)
    tab.goto(built.as_uri())
    yield tab
    tab.close()
    assert complaints == []


def test_a_table_is_sorted_by_keyboard(shown: Any) -> None:
    shown.locator("summary", has_text="Every patient").click()
    table = shown.locator("table.patients")
    heading = table.locator("thead button").nth(1)
    heading.focus()
    for sign, order in ((1, "ascending"), (-1, "descending")):
        shown.keyboard.press("Enter")
        cells = table.locator("tbody tr td:nth-child(2)").all()
        values = [float(cell.get_attribute("data-value")) for cell in cells]
        assert values == sorted(values, key=lambda value: sign * value)
        assert table.locator("thead th").nth(1).get_attribute("aria-sort") == order


def cells_of(table: Any, column: int) -> list[str]:
    return [str(cell.inner_text()).split()[0] for cell in table.locator(f"tr > :nth-child({column})").all()][
        1:
    ]


def test_a_grid_is_sorted_by_its_numbers(shown: Any) -> None:
    table = shown.locator("#comparison table.grid").first
    before = cells_of(table, 4)
    table.locator("thead button").nth(3).click()
    assert cells_of(table, 4) == sorted(before, key=lambda text: float(text.replace("−", "-")))
    assert cells_of(table, 4) != before


@pytest.mark.parametrize(
    ("label", "name"), [("CSV", "paired-comparisons.csv"), ("LaTeX", "paired-comparisons.tex")]
)
def test_a_table_is_downloaded(shown: Any, tmp_path: Path, runs: list[Path], label: str, name: str) -> None:
    with shown.expect_download() as started:
        shown.get_by_role("link", name=f"Paired comparisons as {label}").click()
    assert started.value.suggested_filename == name
    started.value.save_as(tmp_path / name)
    outcomes = usual_outcomes(load_arms(runs))
    written = {"CSV": to_csv, "LaTeX": to_latex}[label](comparison_grid(outcomes, abbreviate=False))
    assert (tmp_path / name).read_text(encoding="utf-8") == written


def test_marks_are_seen_and_said(shown: Any) -> None:
    row = shown.locator("#results table.grid tbody tr").first
    assert row.locator("strong").count() == 3
    assert (
        row.locator("td").first.locator("strong").evaluate("cell => getComputedStyle(cell).fontWeight")
        == "700"
    )
    box = row.locator(".unseen").first.bounding_box()
    assert box["width"] <= 1
    assert "best" in shown.locator("#results table.grid").first.aria_snapshot()


def patient_of(mark: Any) -> str:
    return str(mark.get_attribute("aria-label")).split(":")[0]


def opened(shown: Any, place: int) -> Any:
    """The viewer, once it shows the scan at a place."""
    shown.wait_for_selector(f"details.viewer[data-shown='{place}']")
    return shown.locator("details.viewer")


@needs_niivue
def test_slices_are_scrolled_and_outlines_switched(shown: Any) -> None:
    shown.locator(".viewer summary").click()
    viewer = opened(shown, 0)
    canvas, slider = viewer.locator("canvas"), viewer.locator("input[type=range]")
    assert viewer.locator("output").inner_text() == "2 of 3"
    pictures = [canvas.screenshot()]
    slider.focus()
    shown.keyboard.press("ArrowLeft")
    assert viewer.locator("output").inner_text() == "1 of 3"
    pictures.append(canvas.screenshot())
    for box in reversed(viewer.locator("fieldset input").all()[:2]):
        box.focus()
        shown.keyboard.press("Space")
        pictures.append(canvas.screenshot())
    assert len(set(pictures)) == len(pictures)
    assert not viewer.locator(".warning").is_visible()


@needs_niivue
def test_a_scan_is_chosen_by_keyboard_and_buttons(shown: Any) -> None:
    shown.locator(".viewer summary").click()
    viewer = opened(shown, 0)
    canvas, choice = viewer.locator("canvas"), viewer.locator("select")
    pictures = [canvas.screenshot()]
    choice.focus()
    shown.keyboard.press("ArrowDown")
    opened(shown, 1)
    pictures.append(canvas.screenshot())
    assert canvas.get_attribute("aria-label") == "Slices of p0_es with outlines"
    viewer.locator("fieldset input").nth(1).uncheck()
    for name, place in (("previous", 0), ("previous", 9), ("next", 0), ("next", 1)):
        viewer.get_by_role("button", name=name).click()
        opened(shown, place)
        assert choice.input_value() == str(place)
    pictures.append(canvas.screenshot())
    assert len(set(pictures)) == 3  # another scan; the same without the outline that was switched off before
    assert viewer.locator(".choice a").inner_text() == "scores of p0"
    assert viewer.locator("fieldset .small").nth(1).inner_text().startswith("RV ")


@needs_niivue
def test_a_mark_opens_the_row_and_the_scan(shown: Any) -> None:
    mark = shown.locator("figure svg a").nth(2)
    mark.click()
    viewer = opened(shown, int(mark.get_attribute("data-scan")))
    row = shown.locator(mark.get_attribute("href"))
    assert row.is_visible()
    assert row.locator("th").inner_text().startswith(patient_of(mark))
    assert viewer.locator("select").evaluate("choice => choice.value") == mark.get_attribute("data-scan")
    assert shown.evaluate("document.activeElement.tagName") == "SELECT"
    row.locator("a.scan").first.click()
    opened(shown, 2 * int(patient_of(mark)[1:]))


@needs_niivue
def test_a_picture_leads_to_its_scan(shown: Any) -> None:
    link = shown.locator("#slices a", has_text="Scroll through all 3 slices").last
    link.press("Enter")
    opened(shown, int(link.get_attribute("data-scan")))


def test_marks_are_walked_through_with_the_arrow_keys(shown: Any) -> None:
    marks = shown.locator("figure svg").filter(has=shown.locator("a")).first.locator("a")
    assert [mark.get_attribute("tabindex") for mark in marks.all()] == ["0", "-1", "-1", "-1", "-1"]
    marks.first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        shown.keyboard.press(key)
    focused = shown.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == marks.nth(1).get_attribute("aria-label")
    shown.keyboard.press("Enter")
    assert shown.locator(marks.nth(1).get_attribute("href")).is_visible()


def test_an_address_with_a_row_shows_it(shown: Any, built: Path) -> None:
    shown.goto("about:blank")
    shown.goto(f"{built.as_uri()}#patient-3")
    shown.wait_for_function(
        "() => { const box = document.getElementById('patient-3').getBoundingClientRect();"
        " return box.height && box.top >= 0 && box.bottom <= innerHeight; }"
    )


@pytest.mark.parametrize("script", [False, True])
def test_without_the_viewer_a_mark_leads_to_its_row(
    browser: Any, whole: Any, tmp_path: Path, script: bool
) -> None:
    path = tmp_path / "report.html"
    path.write_text(whole.source, encoding="utf-8")
    context = browser.new_context(java_script_enabled=script)
    tab = context.new_page()
    tab.goto(path.as_uri())
    mark = tab.locator("figure svg a").nth(1)
    mark.click()
    tab.wait_for_url(f"**{mark.get_attribute('href')}")
    row = tab.locator(mark.get_attribute("href"))
    assert row.locator("th").inner_text().startswith(patient_of(mark))
    assert row.is_visible()
    context.close()


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_is_wider_than_the_window(shown: Any, width: int) -> None:
    shown.set_viewport_size({"width": width, "height": 800})
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


def test_long_names_leave_room_for_the_numbers(shown: Any) -> None:
    """Names without a place to break, such as UIDs, stand in a column that stays in view."""
    shown.evaluate("for (const box of document.querySelectorAll('details')) box.open = true")
    box = shown.locator(".scroll[aria-label='Every patient']")
    box.evaluate(
        "(box) => { for (const name of box.querySelectorAll('tbody th')) name.textContent = '1.3.6.1'.repeat(9); }"
    )
    for width in (640, 360):
        shown.set_viewport_size({"width": width, "height": 700})
        free = box.evaluate(
            "(box) => box.getBoundingClientRect().right"
            " - box.querySelector('tbody th').getBoundingClientRect().right"
        )
        assert free > width / 3


@pytest.mark.parametrize("media", ["screen", "print"])
def test_many_methods_fit_on_a_phone_and_on_paper(
    browser: Any, make_run: Any, tmp_path: Path, media: str
) -> None:
    runs = [make_run("nnunet", [3, 0] * 5)]
    for place, method in enumerate(("ccdc", "reco", "mcc", "topk", "gdl", "focal")):
        settings = {"a_setting_with_a_long_name": place, "of_a_network": {"that_has_another": "long" * 9}}
        runs.append(make_run(method, [place, 1] * 5, settings=settings))
    width = {"screen": 390, "print": 720}[media]
    tab = browser.new_page(viewport={"width": width, "height": 800})
    tab.emulate_media(media=media)
    tab.goto(build_report(runs, tmp_path / "report.html", "A title").as_uri())
    tab.evaluate("for (const box of document.querySelectorAll('details')) box.open = true")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.close()


def test_a_review_is_answered_by_keys_kept_and_saved(
    browser: Any, small_review: Any, review_html: Path, tmp_path: Path
) -> None:
    context = browser.new_context(accept_downloads=True)
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(review_html.as_uri())
    for key in ("w", "r", "k", "u", "3", "j", "1"):
        tab.keyboard.press(key)
    tab.reload()
    assert tab.locator("#answered").inner_text() == "4 of 6 answered"
    assert tab.locator("#kept").inner_text() == "Answers are kept in this browser."
    names = []
    for _ in range(2):
        with tab.expect_download() as saving:
            tab.locator("#save").click()
        names.append(saving.value.suggested_filename)
    assert all(re.fullmatch(r"answers_Dataset007_Small_[\d-]{10}_[\d-]{8}\.csv", name) for name in names)
    assert names == sorted({*names})  # two names, the newer one the last
    assert tab.locator("#keeping").inner_text().endswith(f" --answers {names[1]}")
    saving.value.save_as(tmp_path / "answers.csv")
    context.close()
    said = {answer.case: answer for answer in read_answers(tmp_path / "answers.csv")}
    cases = small_review.cases
    assert [said[one.case].answer for one in (*cases[:3], cases[4])] == ["wrong", "unsure", "unsure", "right"]
    assert all(said[one.case].mask == one.mask for one in cases if one.case in said)
    assert complaints == []


def answers_on(tab: Any) -> list[str]:
    found: list[str] = tab.evaluate(
        "[...document.querySelectorAll('article')].map((card) => card.dataset.answer)"
    )
    return found


def test_open_pages_keep_the_answers_of_each_other(
    browser: Any, small_review: Any, write_review_page: Callable[..., Path], tmp_path: Path
) -> None:
    """Each case has its own answer, though all masks are the same to the byte."""
    alike = replace(small_review, cases=tuple(replace(one, mask="a" * 64) for one in small_review.cases))
    context, place = browser.new_context(), write_review_page(alike, tmp_path / "page.html").as_uri()
    tabs = [context.new_page() for _ in range(2)]
    for tab in tabs:
        tab.goto(place)
    for tab, keys in zip(tabs, ("w", "jjr"), strict=True):  # before the browser has told one of the other
        for key in keys:
            tab.keyboard.press(key)
    for tab in tabs:
        tab.get_by_text("2 of 6 answered").wait_for()
        tab.reload()
        assert answers_on(tab) == ["wrong", "right", "", "", "", ""]
    context.close()


def test_answers_that_a_page_of_before_kept_are_taken_over(
    browser: Any, small_review: Any, review_html: Path
) -> None:
    """It kept all in one place; what was answered since stands."""
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(review_html.as_uri())
    tab.keyboard.press("j")
    tab.keyboard.press("r")
    before = {
        f"{one.case} {one.mask}": {"answer": "unsure", "insteadOf": ""} for one in small_review.cases[:2]
    }
    place = tab.locator("[data-store]").get_attribute("data-store")
    tab.evaluate("([place, all]) => localStorage.setItem(place, JSON.stringify(all))", [place, before])
    for _ in range(2):
        tab.reload()
        assert answers_on(tab) == ["right", "unsure", "", "", "", ""]
        assert tab.evaluate("(place) => localStorage.getItem(place)", place) is None
    context.close()


def test_what_a_full_browser_refused_is_kept_with_the_next_answer(browser: Any, review_html: Path) -> None:
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(review_html.as_uri())
    tab.evaluate(
        "() => { const own = Storage.prototype; own.kept = own.setItem; own.setItem = () => { throw Error() } }"
    )
    tab.keyboard.press("j")
    tab.keyboard.press("w")
    assert "keeps no answers" in tab.locator("#kept").inner_text()
    tab.evaluate("() => { Storage.prototype.setItem = Storage.prototype.kept }")
    tab.keyboard.press("r")
    assert "Answers are kept" in tab.locator("#kept").inner_text()
    tab.reload()
    assert answers_on(tab) == ["wrong", "right", "", "", "", ""]
    context.close()


def test_a_newer_answer_beside_the_data_stands(
    browser: Any, small_review: Any, write_review_page: Callable[..., Path], tmp_path: Path
) -> None:
    """A colleague says the opposite; it can be changed again, and what was taken up or overruled is past."""
    first, *others = small_review.cases
    written = [
        replace(small_review, cases=(replace(first, answer=said), *others)) for said in ("", "wrong", "right")
    ]
    pages = [write_review_page(one, tmp_path / f"{n}.html").as_uri() for n, one in enumerate(written)]
    context = browser.new_context()
    tab = context.new_page()
    said = ["", "wrong", "right", "right", "wrong", "right", "wrong", "right", "wrong"]
    for page_number, shown, key in zip([0, 1, 1, 2, 1, 2, 1, 2, 1], said, "rrjwrjujj", strict=True):
        tab.goto(pages[page_number])
        assert answers_on(tab)[0] == shown
        tab.keyboard.press(key)
        tab.wait_for_timeout(
            200
        )  # the next page may be another process's, which learns of what is stored later
    context.close()


def test_keys_answer_what_is_seen_once(browser: Any, review_html: Path) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": 300})
    tab = context.new_page()
    tab.goto(review_html.as_uri())
    tab.keyboard.press("w")  # no mask is seen yet: the first one is shown
    assert not any(answers_on(tab))
    for _ in range(4):
        tab.keyboard.down("r")
    assert answers_on(tab) == ["right", "", "", "", "", ""]
    tab.keyboard.up("r")
    tab.evaluate("document.querySelectorAll('article')[4].scrollIntoView({ behavior: 'instant' })")
    tab.keyboard.press("w")
    assert answers_on(tab) == ["right", "", "", "", "wrong", ""]
    context.close()


@pytest.mark.parametrize("size", [(1280, 800), (320, 300)])
def test_keys_answer_the_mask_of_which_most_is_seen(
    browser: Any, review_html: Path, size: tuple[int, int]
) -> None:
    """After the wheel: not the one that has the focus, nor what the bar covers, which is high on narrow screens."""
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height})
    tab = context.new_page()
    tab.goto(review_html.as_uri())
    for key in "jw":
        tab.keyboard.press(key)
    below_bar = (
        "(side) => document.activeElement.getBoundingClientRect()[side]"
        " - document.querySelector('.bar').getBoundingClientRect().bottom"
    )
    assert 0 <= tab.evaluate(below_bar, "top") < 20
    tab.mouse.move(width / 2, height - 5)
    tab.mouse.wheel(0, tab.evaluate(below_bar, "bottom") - 12)
    for _ in range(200):  # the page has no rights for a function that waits
        if tab.evaluate(below_bar, "bottom") < 20:
            break
        tab.wait_for_timeout(50)
    assert tab.evaluate(below_bar, "bottom") < 20
    tab.keyboard.press("r")
    assert answers_on(tab) == ["wrong", "", "right", "", "", ""]
    tab.locator("article input[value=wrong]").nth(3).check()  # one that is clicked on is the current one
    tab.keyboard.press("u")
    assert answers_on(tab) == ["wrong", "", "right", "unsure", "", ""]
    context.close()


def test_where_no_answer_is_kept_the_page_says_so_and_asks_before_it_goes(
    browser: Any, review_html: Path
) -> None:
    context, asked = browser.new_context(), []
    tab = context.new_page()
    tab.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error(); } })")
    tab.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    tab.goto(review_html.as_uri())
    assert "keeps no answers: save them" in tab.locator("#kept").inner_text()
    for keys, questions in (("j", 0), ("jw", 1), ("jws", 1)):
        for key in keys.replace("s", ""):
            tab.keyboard.press(key)
        if "s" in keys:
            tab.locator("#save").click()
        tab.reload()
        assert asked == ["beforeunload"] * questions
    context.close()
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(review_html.as_uri())
    assert tab.locator("noscript").inner_text().startswith("Without JavaScript no answer is kept or saved")
    context.close()
