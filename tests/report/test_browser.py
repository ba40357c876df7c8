"""The page in a real browser, where there is one."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccdcseg.report import page
from ccdcseg.report.page import build_report
from ccdcseg.report.viewer import niivue_script

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

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=SWITCHES)
        yield started
        started.close()


@pytest.fixture
def shown(browser: Any, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page, opened from disk; whatever the browser complains of fails the test."""
    monkeypatch.setattr(page, "niivue_script", niivue_script)
    path = build_report(runs, tmp_path / "report.html", "A title")
    tab = browser.new_page(viewport={"width": 1000, "height": 800})
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: complaints.append(request.url) if "http" in request.url[:5] else None)
    tab.goto(path.as_uri())
    yield tab
    tab.close()
    assert complaints == []


def test_a_table_is_sorted_by_keyboard(shown: Any) -> None:
    shown.locator("summary", has_text="Every patient").click()
    table = shown.locator("table.sortable")
    heading = table.locator("thead button").nth(1)
    heading.focus()
    for sign, order in ((1, "ascending"), (-1, "descending")):
        shown.keyboard.press("Enter")
        cells = table.locator("tbody tr td:nth-child(2)").all()
        values = [float(cell.get_attribute("data-value")) for cell in cells]
        assert values == sorted(values, key=lambda value: sign * value)
        assert table.locator("thead th").nth(1).get_attribute("aria-sort") == order


@pytest.mark.skipif(niivue_script() is None, reason="the package was built without NiiVue")
def test_slices_are_scrolled_and_outlines_switched(shown: Any) -> None:
    viewer = shown.locator("details.viewer").first
    viewer.locator("summary").click()
    canvas, slider = viewer.locator("canvas"), viewer.locator("input[type=range]")
    shown.wait_for_selector("details.viewer[data-ready=yes]")
    assert viewer.locator("output").inner_text() == "2"
    pictures = [canvas.screenshot()]
    slider.focus()
    shown.keyboard.press("ArrowLeft")
    assert viewer.locator("output").inner_text() == "1"
    pictures.append(canvas.screenshot())
    for box in viewer.locator("input[type=checkbox]").all()[:2]:
        box.uncheck()
        pictures.append(canvas.screenshot())
    assert len(set(pictures)) == len(pictures)
    assert not viewer.locator(".warning").is_visible()


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_is_wider_than_the_window(shown: Any, width: int) -> None:
    shown.set_viewport_size({"width": width, "height": 800})
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
