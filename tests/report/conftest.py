"""Pages as a browser finds them."""

from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccdcseg.datasets.cases import read_cases
from ccdcseg.datasets.volumes import read_mask
from ccdcseg.files import file_hash
from ccdcseg.report import page
from ccdcseg.report.page import build_report
from ccdcseg.report.review_page import build_review_page
from ccdcseg.review.measure import Opinions, measure
from ccdcseg.review.review import Review, Reviewed, rank
from ccdcseg.texts import one_line


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
    return Page(build_report(runs, path, "A title").read_text())


@pytest.fixture(scope="session")
def small_review(pristine_raw_folder: Path) -> Review:
    """Six masks against a network that agrees with all but one, which is turned by half a turn."""
    reviewed = [
        Reviewed(
            case.case, case.patient, ("network",), file_hash(mask_of(pristine_raw_folder, case.case)), found
        )
        for case in read_cases(pristine_raw_folder)
        for found in [measure(opinions_of(pristine_raw_folder, case.case))]
    ]
    return Review(pristine_raw_folder.name, {"RV": 1, "LV": 2}, {"network": "0" * 64}, *rank(reviewed))


def mask_of(raw_folder: Path, case: str) -> Path:
    return raw_folder / "labelsTr" / f"{case}.nii.gz"


def opinions_of(raw_folder: Path, case: str) -> Opinions:
    mask = read_mask(mask_of(raw_folder, case), {"RV": 1, "LV": 2})
    seen = mask.array[:, ::-1, ::-1] if case == "p2_ED" else mask.array
    probabilities = np.where(np.arange(3)[:, None, None, None] == seen, 0.96, 0.02)
    return Opinions.of(mask.array, probabilities, mask.spacing_mm, ("RV", "LV"))


@pytest.fixture(scope="session")
def write_review_page(pristine_raw_folder: Path) -> Callable[[Review, Path], Path]:
    """Write the page of a review of the six masks."""

    def write(result: Review, output: Path) -> Path:
        def scan(case: str) -> tuple[Path, Opinions]:
            case = one_line(case)  # a test may give it a name with invisible characters
            image = pristine_raw_folder / "imagesTr" / f"{case}_0000.nii.gz"
            return image, opinions_of(pristine_raw_folder, case)

        return build_review_page(result, scan, output)

    return write


@pytest.fixture(scope="session")
def review_html(
    small_review: Review,
    write_review_page: Callable[[Review, Path], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The page of a review."""
    return write_review_page(small_review, tmp_path_factory.mktemp("review") / "review.html")
