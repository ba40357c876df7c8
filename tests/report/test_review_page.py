import html
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ccdcseg.datasets.volumes import Volume, write_volume
from ccdcseg.report import review_page
from ccdcseg.report.template import check_page
from ccdcseg.review.measure import Opinions, measure
from ccdcseg.review.review import Review


def test_the_worst_comes_first_with_slice_sentence_and_numbers(
    small_review: Review, review_html: Path
) -> None:
    check_page(review_html, "review")
    text = review_html.read_text()
    shown = re.findall(r'data-case="([^"]+)" data-mask="([0-9a-f]{64})"', text)
    assert shown == [(one.case, one.mask) for one in small_review.cases]
    worst = small_review.cases[0]
    assert worst.case == "p2_ED"
    assert worst.suspicions[0].sentence.startswith("The mask looks mirrored along its rows and columns:")
    assert worst.suspicions[0].sentence in text.split("</article>")[0]
    assert "1 of 6 masks is worth a second look." in text
    assert len(re.findall(r"Label, slice \d of 4, along z of the file \(axial\)<", text)) == 6
    assert "drawn as they are stored" in text
    sized = r'<img src="data:image/jpeg;base64,[^"]+" width="\d+" height="\d+"'
    assert len(re.findall(sized, text)) == 12
    assert "http" not in re.sub(r"data:[^\"]+", "", text).replace("http-equiv", "")


def test_of_a_mask_of_some_slices_one_of_these_is_shown(
    small_review: Review, pristine_raw_folder: Path
) -> None:
    labels = np.full((4, 20, 24), 3)
    labels[2] = 0
    empty = np.stack([np.ones(labels.shape), *np.zeros((2, *labels.shape))])
    opinions = Opinions.of(labels, empty, (8.0, 1.5, 1.4), ("RV", "LV"), ignore=3)
    reviewed = replace(small_review.cases[0], measures=measure(opinions), suspicions=())
    image = pristine_raw_folder / "imagesTr" / f"{reviewed.case}_0000.nii.gz"
    assert review_page.card(reviewed, image, opinions).slice_number == 3


def test_the_slice_is_one_of_the_masks_where_its_header_differs_a_little(
    small_review: Review, tmp_path: Path
) -> None:
    """A cube's slices lie across any axis: by 1.0005 mm the mask's are across another than the scan's."""
    image, labels = np.zeros((20, 24, 28), np.int16), np.zeros((20, 24, 28), np.uint8)
    image[:, :, 22:27] = 900
    labels[6:12, 8:14, 22:27] = 1
    write_volume(tmp_path / "scan.nii.gz", Volume(tmp_path, image, (1.0, 1.0, 1.0)))
    empty = np.stack([np.ones(labels.shape), np.zeros(labels.shape)])
    opinions = Opinions.of(labels, empty, (1.0, 1.0, 1.0005), ("heart",))
    reviewed = replace(small_review.cases[0], measures=measure(opinions), suspicions=())
    card = review_page.card(reviewed, tmp_path / "scan.nii.gz", opinions)
    assert (card.slice_number, card.number_of_slices) == (23, 28)
    assert card.axis == "x of the file, not z (sagittal)"


def test_small_contradictions_are_told(
    small_review: Review, write_review_page: object, tmp_path: Path
) -> None:
    first, *others = small_review.cases
    classes = first.measures.classes
    small = replace(classes["RV"], contradiction_mm=0.0321)
    measures = replace(first.measures, classes={**classes, "RV": small})
    shown = replace(small_review, cases=(replace(first, measures=measures), *others))
    text = write_review_page(shown, tmp_path / "page.html").read_text()  # type: ignore[operator]
    assert "<td>0.032</td>" in text


def test_an_answer_that_is_kept_is_shown(
    small_review: Review, write_review_page: object, tmp_path: Path
) -> None:
    first, *others = small_review.cases
    answered = replace(small_review, cases=(replace(first, answer="unsure"), *others))
    text = write_review_page(answered, tmp_path / "page.html").read_text()  # type: ignore[operator]
    assert re.findall(r'name="answer-(\d+)" value="(\w+)" checked', text) == [("0", "unsure")]


def test_names_are_escaped(small_review: Review, write_review_page: object, tmp_path: Path) -> None:
    hostile = replace(small_review, dataset="Dataset007_<script>alert(1)</script>")
    text = write_review_page(hostile, tmp_path / "page.html").read_text()  # type: ignore[operator]
    assert "<script>alert" not in text


def test_invisible_characters_of_names_are_in_what_is_saved_alone(
    small_review: Review, write_review_page: object, tmp_path: Path
) -> None:
    first, *others = small_review.cases
    name, dataset = f"\u200e\u202e{first.case}\u200b", "Dataset007_\u202eSmall\ud800"
    hidden = replace(small_review, dataset=dataset, cases=(replace(first, case=name), *others))
    text = write_review_page(hidden, tmp_path / "page.html").read_text()  # type: ignore[operator]
    exact = f'data-case="{name}"', 'data-dataset="Dataset007_\u202eSmall?"'
    assert [text.count(one) for one in exact] == [1, 1]
    for one in exact:
        text = text.replace(one, "")
    assert not re.search("[\u200b\u200e\u202e]", text)


def test_the_command_takes_a_name_with_spaces(
    small_review: Review, write_review_page: object, tmp_path: Path
) -> None:
    spaced = replace(small_review, dataset="Dataset007_My Heart")
    text = write_review_page(spaced, tmp_path / "page.html").read_text()  # type: ignore[operator]
    (command,) = re.findall("<code.*?>(.*?)</code>", text)
    assert shlex.split(html.unescape(command)) == [
        "ccdcseg", "review", "Dataset007_My Heart", "--answers", "answers_Dataset007_My Heart_DATE_TIME.csv",
    ]  # fmt: skip


def test_a_long_list_ends_with_how_many_are_left_out(
    small_review: Review, write_review_page: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_page, "MOST_CARDS", 2)
    text = write_review_page(small_review, tmp_path / "page.html").read_text()  # type: ignore[operator]
    assert text.count("<article") == 2
    assert "4 more masks with lower scores" in text
