"""The page of what to annotate next: each way to choose beside the others, with the slices to annotate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ccdcseg.datasets.volumes import read_image, slices_first
from ccdcseg.files import write_text
from ccdcseg.processes import Progress, pool_map
from ccdcseg.proposals.features import ScanFiles
from ccdcseg.proposals.proposals import COVERING, RANDOM, UNSURE, Proposal, Proposals
from ccdcseg.report.template import PATIENTS, SYNTHETIC, render
from ccdcseg.report.thumbnails import jpeg, outlined_pixels

ADVICE = (
    "Without a reason of your own take those drawn at random: on ACDC, from 5 to 10 patients, scans chosen by "
    "coverage or by confidence gave no better network (-0.2 and -0.5 Dice points), and the literature finds no way "
    "that reliably does."
)
_HEADINGS = {
    RANDOM: ("Drawn at random", "Patients drawn by chance, each group in its share."),
    COVERING: (
        "To cover the scans",
        "Chosen so that every scan has a near one among these and the annotated: by spacing, extent, intensities.",
    ),
    UNSURE: (
        "Where the networks are least sure",
        "Of the scans with the lowest class confidence (mean probability of the predicted class), those that cover "
        "all scans best. Slices: in each part of the predicted structure the least sure one.",
    ),
}


@dataclass(frozen=True)
class Shown:
    """A proposal on the page: its slices as pictures (number, data URI)."""

    proposal: Proposal
    pictures: Sequence[tuple[int, str]]


def build_next_page(
    proposals: Proposals,
    listed: Path,
    output: Path,
    workers: int,
    progress: Progress | None = None,
    *,
    synthetic: bool = False,
) -> Path:
    """Write a self-contained page of proposals.

    Args:
        proposals: to be shown.
        listed: the CSV file with them.
        output: the HTML file, replaced if it exists.
        workers: processes.
        progress: called with the number of scans drawn and to be drawn.
        synthetic: no scan of a real person.

    Returns:
        ``output``.

    Raises:
        UserError: an image cannot be used.
    """
    everything = [proposal for chosen in proposals.draws.values() for proposal in chosen]
    pictures = iter(pool_map(_pictures, everything, workers, progress))
    sections = [
        (name, *_HEADINGS[name], [Shown(proposal, next(pictures)) for proposal in chosen])
        for name, chosen in proposals.draws.items()
    ]
    context = {
        "proposals": proposals,
        "sections": sections,
        "listed": listed.name,
        "advice": ADVICE,
        "synthetic": SYNTHETIC if synthetic else "",
        "patients_note": PATIENTS,
    }
    write_text(output, render("next.html.j2", context))
    return output


def _pictures(proposal: Proposal) -> list[tuple[int, str]]:
    scan: ScanFiles = proposal.scan
    image = read_image(scan.images[0])
    (_, rows_mm, columns_mm), (stack,) = slices_first(image.spacing_mm, image.array)
    nothing = np.zeros(stack.shape[1:], np.int16)
    return [
        (number, jpeg(outlined_pixels(stack[number - 1], nothing, rows_mm / columns_mm)))
        for number in proposal.slices
    ]
