"""Pages as a browser finds them."""

from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ccdcseg.report import page
from ccdcseg.report.page import build_report


@pytest.fixture(scope="session", autouse=True)
def no_viewer() -> Iterator[None]:
    """Pages are those of a package that was built without the viewer, whether this one was or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "niivue_script", lambda: None)
        yield


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, texts, and tables as rows of cell texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self._raw = ""
        self._in_cell = False
        self.source = text
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""
        self._in_cell = self._in_cell or tag in ("caption", "td", "th")
        if tag == "table":
            self.tables.append([])
        elif tag == "caption":
            self.tables[-1].append([""])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag in ("span", "br") and ("class", "unseen") not in attrs and self._in_cell:
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""
        self._in_cell = self._in_cell and tag not in ("caption", "td", "th")

    def handle_data(self, data: str) -> None:
        if self._raw:
            return
        self.text += data
        if self._in_cell:
            self.tables[-1][-1][-1] += data.strip()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def table(self, caption: str) -> list[list[str]]:
        """Rows of the table whose caption begins so, without caption."""
        return next(rows[1:] for rows in self.tables if rows[0][0].startswith(caption))


@pytest.fixture(scope="session")
def parse() -> Callable[[str], Page]:
    """What a browser would find in a page."""
    return Page


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Page]:
    """Builds and parses the page of some runs."""

    def build(runs: list[Path], title: str = "A title", **options: Any) -> Page:
        return Page(build_report(runs, tmp_path / "report.html", title, **options).read_text())

    return build


@pytest.fixture
def many(make_run: Callable[..., Path]) -> list[Path]:
    """nnU-Net and four other methods, one seed each: too many for a card and a sentence each."""
    shifts = {"nnunet": 3, "ccdc": 1, "reco": 2, "mcc": 3, "topk": 4}
    return [make_run(method, [shift, 0] * 5) for method, shift in shifts.items()]


@pytest.fixture(scope="session")
def whole(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of ``runs``."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    return Page(build_report(runs, path, "A title", "Trained on a Tuesday.").read_text())
