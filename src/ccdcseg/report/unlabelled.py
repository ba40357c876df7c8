"""Scans without masks: what the labels were like that the network wrote for them, and which to look at first."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccdcseg.datasets.splits import SPLITS_FILE, unlabelled_images
from ccdcseg.datasets.volumes import check_pair, read_image, read_mask, slices_first
from ccdcseg.errors import UserError
from ccdcseg.report.curves import Key, Panel, PanelGroup
from ccdcseg.report.figures import Line, Look, class_look, line_panel
from ccdcseg.report.pictures import Picture, crop_box, largest_slice, outlined
from ccdcseg.runs.finished import Arm, FinishedRun, runs_of
from ccdcseg.runs.history import LabelsWritten, LeftOut, labels_folder
from ccdcseg.tabular import Entry, Grid

MOST_PICTURES = 4

Times = Mapping[int, LabelsWritten]
"""What was written, by iteration."""


@dataclass(frozen=True)
class Writings:
    """The labels that one training wrote.

    Attributes:
        label: of the run.
        sentences: what was written, and what of it was not used.
        group: how sure the network was, how large structures were and how much changed, over the training.
        first: the scans of which post-processing removed most; None: nothing was removed anywhere.
        pictures: of these, with the labels written last.
        problem: why they cannot be shown.
    """

    label: str
    sentences: tuple[str, ...]
    group: PanelGroup
    first: Grid | None
    pictures: tuple[Picture, ...]
    problem: str


def writings(arms: Sequence[Arm]) -> list[Writings]:
    """Of every run that wrote labels."""
    found = enumerate(runs_of(arms))
    written = [_writings(arm.name_of(run), run, f"labels-{index}") for index, (arm, run) in found]
    return [labels for labels in written if labels is not None]


def _writings(label: str, run: FinishedRun, name: str) -> Writings | None:
    times = {epoch.iteration: epoch.labels_written for epoch in run.history if epoch.labels_written}
    if not times:
        return None
    last = [*times.values()][-1]
    epoch = max(epoch.epoch for epoch in run.history if epoch.labels_written)
    pictures, problem = _pictures(run, labels_folder(run.folder, epoch), last)
    return Writings(
        label, tuple(_sentences(times)), _group(name, run.classes, times), _first(last), pictures, problem
    )


def _sentences(times: Times) -> Iterable[str]:
    count = f"{len(times)} times" if len(times) > 1 else "once"
    yield f"Labels were written {count}, the last time for {[*times.values()][-1].scans} scans."
    for iteration, written in times.items():
        if written.agreement is not None:
            yield (
                f"Other trainings labelled them together, and agreed by {100 * written.agreement:.1f} Dice points "
                f"on average. Left out, since they agreed least: {_names(written.left_out)}."
            )
        if written.implausible:
            yield (
                f"Those of the epoch up to iteration {iteration} were not used: "
                f"{', '.join(written.implausible)} was more than three times as large or as small as in the "
                "annotated scans."
            )


def _names(left_out: Sequence[LeftOut]) -> str:
    return ", ".join(f"{found.scan} ({100 * found.agreement:.1f})" for found in left_out) or "no scan"


def _group(name: str, classes: Sequence[str], times: Times) -> PanelGroup:
    looks = {label: class_look(index) for index, label in enumerate(("background", *classes))}
    sure = {iteration: written.confident for iteration, written in times.items()}
    size = {iteration: _relative_size(written) for iteration, written in times.items()}
    changed = [math.nan if written.changed is None else written.changed for written in times.values()]
    found = [
        ("Learnt from", "sure", _lines(sure, looks), "share of the class"),
        ("Size, to that in the annotated scans", "size", _lines(size, looks), "ratio"),
    ]
    if any(map(math.isfinite, changed)):
        line = Line([*times], changed, class_look(0))
        found.append(("Changed since", "changed", [line], "share of the foreground"))
    panels = tuple(
        Panel(title, line_panel(f"{name}-{place}", lines, f"{title}, over the training.", unit, (0, None)))
        for title, place, lines, unit in found
    )
    keys = tuple(Key(label, look) for label, look in looks.items())
    return PanelGroup(
        "",
        "Learnt from: voxels of which the network is sure. Changed since labels were written the time before.",
        keys,
        panels,
    )


def _relative_size(written: LabelsWritten) -> dict[str, float]:
    return {label: written.share[label] / share for label, share in written.annotated.items() if share > 0}


def _lines(values: Mapping[int, Mapping[str, float]], looks: Mapping[str, Look]) -> list[Line]:
    """A line for each class that has values."""
    return [
        Line([*values], [found.get(label, math.nan) for found in values.values()], look)
        for label, look in looks.items()
        if any(label in found for found in values.values())
    ]


def _first(last: LabelsWritten) -> Grid | None:
    rows = tuple((Entry(found.scan), Entry(f"{100 * found.removed:.0f} %")) for found in last.removed_most)
    note = "Share of the predicted foreground, the last time that labels were written. Look at these first."
    return (
        Grid("Scans of which post-processing removed most", ("scan", "removed"), rows, note) if rows else None
    )


def _pictures(run: FinishedRun, labels: Path, last: LabelsWritten) -> tuple[tuple[Picture, ...], str]:
    """The scans of which post-processing removed most, with their labels; or why they cannot be shown."""
    scans = [found.scan for found in last.removed_most[:MOST_PICTURES]]
    try:
        raw = run.record.local("images", run.folder).parent
        images = unlabelled_images(raw, raw / SPLITS_FILE, run.record.fold)
        return tuple(_picture(run, scan, images[scan][0], labels) for scan in scans if scan in images), ""
    except UserError as error:
        return (), str(error)


def _picture(run: FinishedRun, scan: str, path: Path, folder: Path) -> Picture:
    """The slice with most foreground; dotted: voxels that are not learnt from."""
    ignore = max(run.record.labels.values()) + 1
    image, labels = read_image(path), read_mask(folder / f"{scan}.nii.gz", run.record.foreground, ignore)
    check_pair(image, labels)
    spacing_mm, (grey, written) = slices_first(image.spacing_mm, image.array, labels.array)
    unsure = written == ignore
    known = written * ~unsure
    index = largest_slice(known)
    box = crop_box([written[index]], spacing_mm[1:])
    aspect = spacing_mm[1] / spacing_mm[2]
    uri = outlined(grey[index][box], known[index][box], aspect, unsure[index][box].astype(known.dtype))
    where = f"{scan}, slice {index + 1} of {len(known)}"
    return Picture(uri, f"Labels written for {where}.", where)
