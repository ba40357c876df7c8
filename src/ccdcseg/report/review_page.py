"""The page of a review: masks that contradict networks, the worst first, to be answered by keys."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ccdcseg.datasets.volumes import axis_in_words, read_image
from ccdcseg.files import json_hash, write_text
from ccdcseg.processes import Progress
from ccdcseg.report.pictures import class_colour, crop_box
from ccdcseg.report.template import PATIENTS, SYNTHETIC, render
from ccdcseg.report.thumbnails import jpeg, outlined_pixels
from ccdcseg.review.answers import ANSWERS, COLUMNS
from ccdcseg.review.measure import WHOLE, Opinions, in_digits
from ccdcseg.review.review import Review, Reviewed

MOST_CARDS = 200
"""Masks that a page shows; the tables beside it hold all."""
SENTENCES = 3
"""Of a mask, those that are strong; always the first."""


@dataclass(frozen=True)
class Card:
    """A mask on the page.

    Attributes:
        reviewed: the mask.
        label: picture of the slice with the label outlined.
        network: the same with what the networks say.
        slice_number: from 1.
        number_of_slices: of the scan.
        axis: along which they are counted, in words.
        sentences: what may be wrong.
        strong: whether the suspicion has a strength of 1 or more.
    """

    reviewed: Reviewed
    label: str
    network: str
    slice_number: int
    number_of_slices: int
    axis: str
    sentences: tuple[str, ...]
    strong: bool


def build_review_page(
    result: Review,
    scan: Callable[[str], tuple[Path, Opinions]],
    output: Path,
    synthetic: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a self-contained page.

    Args:
        result: of the review.
        scan: gives the image and the opinions of a case.
        output: the HTML file, replaced if it exists.
        synthetic: whether the scans are of no real person.
        progress: called with the number of cards drawn and to be drawn.

    Returns:
        ``output``.
    """
    shown, cards = result.cases[:MOST_CARDS], []
    for done, reviewed in enumerate(shown, 1):
        cards.append(card(reviewed, *scan(reviewed.case)))
        if progress:
            progress(done, len(shown))
    script = resources.files("ccdcseg.report").joinpath("review.js").read_text(encoding="utf-8")
    write_text(output, render("review.html.j2", _context(result, cards, synthetic), script))
    return output


def card(reviewed: Reviewed, image: Path, opinions: Opinions) -> Card:
    """Draw the slice that the suspicion names, around the structures.

    Raises:
        UserError: the image cannot be read.
    """
    volume = read_image(image)
    whole = reviewed.measures.classes[WHOLE]
    number = reviewed.suspicions[0].slice if reviewed.suspicions else whole.worst_slice
    grey = np.take(volume.array, number - 1, opinions.across)
    maps = opinions.labels[number - 1], opinions.predicted[number - 1]
    around = [opinions.labels.max(0), *(maps if maps[1].any() else ())]
    box = crop_box(around, opinions.spacing_mm[1:])
    aspect = opinions.spacing_mm[1] / opinions.spacing_mm[2]
    label, network = (jpeg(outlined_pixels(grey[box], labels[box], aspect)) for labels in maps)
    strong = [one.sentence for one in reviewed.suspicions if one.strength >= 1]
    first = [one.sentence for one in reviewed.suspicions[:1]]
    sentences = tuple(dict.fromkeys(first + strong))[:SENTENCES]
    axis = axis_in_words(volume, opinions.across)
    return Card(reviewed, label, network, number, len(opinions.labels), axis, sentences, reviewed.score >= 1)


def verdict(result: Review) -> str:
    """What was found, in one sentence."""
    found, total = result.suspicious, len(result.cases)
    return f"{found or 'None'} of {total} masks {'is' if found in (0, 1) else 'are'} worth a second look."


def _context(result: Review, cards: Sequence[Card], synthetic: bool) -> dict[str, Any]:
    return {
        "dataset": result.dataset,
        "synthetic": SYNTHETIC if synthetic else "",
        "patients_note": PATIENTS,
        "verdict": verdict(result),
        "labels": result.labels,
        "colours": {name: class_colour(value) for name, value in result.labels.items()},
        "cards": cards,
        "cases": result.cases,
        "networks": result.networks,
        "in_digits": in_digits,
        "answers": ANSWERS,
        "columns": COLUMNS,
        "store": f"ccdcseg-answers-{json_hash([result.dataset])[:16]}",
        "file": (file := f"answers_{result.dataset}_"),
        "keeping": shlex.join(["ccdcseg", "review", result.dataset, "--answers", file]),
    }
