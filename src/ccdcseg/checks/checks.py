"""What a careful person looks for in an nnU-Net raw folder before training.

Every case is measured on its own (`ccdcseg.checks.measure`), then rules look at the measurements of all. A rule
is a function from a `Survey` to findings; a problem is to be mended before training, a note to be looked at.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import ccdcseg
from ccdcseg.checks.contents import CaseFiles, read_contents
from ccdcseg.checks.findings import CheckSettings, Finding, Severity, Survey, note, problem, short
from ccdcseg.checks.measure import FaultKind, measure_cases
from ccdcseg.checks.outliers import grid_findings, intensity_findings
from ccdcseg.checks.split_checks import split_findings
from ccdcseg.datasets.cases import (
    CASES_FILE,
    EMPTY_MASKS,
    NUMBERING_REMEDY,
    UNLABELLED,
    UNLABELLED_FILE,
    mask_names,
    numbering_fault,
    read_unlabelled_cases,
    unlisted,
)
from ccdcseg.datasets.raw_folder import check_listing
from ccdcseg.datasets.sides import MIRRORED, in_pairs, sides
from ccdcseg.datasets.unicode_names import RENAME, by_case_alone, composed
from ccdcseg.datasets.usable import check_background, check_channel_names, check_reader
from ccdcseg.errors import UserError
from ccdcseg.files import write_json
from ccdcseg.processes import Progress
from ccdcseg.texts import listed

FORMAT = "ccdcseg-check/1"

_EMPTY_REMEDY = (
    "Annotate the scan, or leave it out; if masks may be empty, as those of healthy controls, write "
    f'"{EMPTY_MASKS}": true into dataset.json.'
)
_SAY_PATIENTS = "say whose scan each case is with `ccdcseg patients` (docs/datasets/raw.md)."


@dataclass(frozen=True)
class CheckResult:
    """What was checked and what was found, problems first."""

    survey: Survey
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> list[Finding]:
        """What must be mended."""
        return [finding for finding in self.findings if finding.severity is Severity.PROBLEM]

    @property
    def groups(self) -> list[list[Finding]]:
        """Findings of one rule together, problems first, rules in the order of their first finding."""
        groups: dict[tuple[Severity, str], list[Finding]] = defaultdict(list)
        for finding in self.findings:
            groups[finding.severity, finding.check].append(finding)
        return list(groups.values())


def check_dataset(
    raw_folder: Path,
    cache: Path,
    workers: int = 2,
    progress: Progress | None = None,
    settings: CheckSettings | None = None,
) -> CheckResult:
    """Check an nnU-Net raw folder, made by whomever.

    Args:
        raw_folder: the data set's folder in ``nnUNet_raw``.
        cache: where measurements are kept, so that only new and changed cases are measured.
        workers: processes.
        progress: called with the number of cases measured and to be measured now.
        settings: thresholds of the rules.

    Raises:
        UserError: the folder or its ``dataset.json`` is unusable; a file of a case that is unusable is a finding.
    """
    settings = settings or CheckSettings()
    contents = read_contents(raw_folder)
    facts = measure_cases(contents, cache, settings.speck_fraction, workers, progress)
    survey = Survey(contents, facts, settings)
    found = [finding for rule in RULES for finding in rule(survey)]
    return CheckResult(survey, tuple(sorted(found, key=lambda finding: finding.severity is Severity.NOTE)))


def summary(survey: Survey) -> dict[str, Any]:
    """Numbers about the whole data set.

    Returns:
        JSON-able: ``cases``, ``patients`` (None where nobody knows whose scans they are), ``slices``,
        ``unlabelled`` scans, ``shape`` and ``spacing_mm`` (``smallest``, ``median`` and ``largest`` of each axis,
        in the order z, y, x), ``axes`` (cases by axis codes) and ``classes`` (for each its ``value``, ``voxels``,
        ``volume_ml`` and ``cases``).
    """
    contents = survey.contents
    grids = [facts.grid for facts in survey.facts.values() if facts.grid is not None]
    return {
        "cases": len(contents.files),
        "patients": len(set(contents.patients.values())) if contents.table else None,
        "slices": sum(grid.slices for grid in grids),
        "unlabelled": len(contents.unlabelled),
        "shape": _range([grid.shape for grid in grids]),
        "spacing_mm": _range([grid.spacing_mm for grid in grids]),
        "axes": dict(Counter(grid.axes for grid in grids).most_common()),
        "classes": {name: _class_summary(survey, value) for name, value in contents.labels.items()},
    }


def write_check(result: CheckResult, path: Path) -> None:
    """Write everything as JSON, atomically: findings, summary, measurements, patients and thresholds."""
    survey = result.survey
    content = {
        "format": FORMAT,
        "version": ccdcseg.__version__,
        "dataset": survey.contents.folder.name,
        "findings": [asdict(finding) for finding in result.findings],
        "summary": summary(survey),
        "patients": survey.contents.patients,
        "cases": {case: asdict(facts) for case, facts in survey.facts.items()},
        "settings": asdict(survey.settings),
    }
    write_json(path, content)


def _missing_files(survey: Survey) -> Iterator[Finding]:
    contents, check = survey.contents, "missing file"
    for case, files in contents.files.items():
        if not files.images:
            yield problem(check, [case], "mask without image", "Restore the image, or remove the mask.")
            continue
        if files.mask is None:
            yield problem(
                check, [case], "image without mask", "Annotate it, or move it to imagesTs to predict it only."
            )
        yield from _channels(files, len(contents.channels))
    for files in contents.unlabelled.values():
        yield from _channels(files, len(contents.channels), f" in {UNLABELLED}")
    if contents.gone:
        text = f"{len(contents.gone)} links lead nowhere: {listed(contents.gone)}"
        yield problem(check, [], text, "Bring back what they lead to (is a disk missing?), or remove them.")
    if contents.hidden:
        yield problem(
            "surplus file",
            [],
            f"{len(contents.hidden)} hidden files that nnU-Net takes for cases: {listed(contents.hidden)}",
            "Remove them: macOS leaves them behind where it copies files.",
        )
    if contents.others:
        yield note(
            "surplus file",
            [],
            f"nnU-Net passes over {len(contents.others)} files: {listed(contents.others)}",
            "Name scans CASE_0000 and masks CASE with the file_ending of dataset.json, or remove them.",
        )


def _channels(files: CaseFiles, declared: int, place: str = "") -> Iterator[Finding]:
    """Channels of a case that ``dataset.json`` declares and that are not there, or the other way round."""
    wanted = set(range(declared))
    if absent := sorted(wanted - files.images.keys()):
        text = f"channel {listed(absent)} is missing of {declared}{place}"
        yield problem("missing file", [files.case], text, "Restore the file, or leave the case out.")
    if surplus := sorted(files.images.keys() - wanted):
        text = f"channel {listed(surplus)} is there{place}, but dataset.json declares {declared}"
        yield problem(
            "surplus file", [files.case], text, "Remove it, or declare the channel in dataset.json."
        )


def _description(survey: Survey) -> Iterator[Finding]:
    """``dataset.json`` against what nnU-Net demands and what is there."""
    contents = survey.contents
    there = sum(bool(files.images) for files in contents.files.values())
    if contents.declared_cases != there:
        yield problem(
            "dataset.json",
            [],
            f"numTraining is {contents.declared_cases}, but imagesTr holds {there} cases",
            "Write the number of cases into dataset.json, or restore those that are gone.",
        )
    if fault := numbering_fault(contents.labels, contents.ignore):
        yield problem("dataset.json", [], fault, NUMBERING_REMEDY)
    for check in (check_background, check_channel_names, check_reader, check_listing):
        try:
            check(contents.folder)
        except UserError as error:
            yield problem("dataset.json", [], short(error.problem, survey), error.remedy)


def _names(survey: Survey) -> Iterator[Finding]:
    """Names that look alike and are not, and names that nnU-Net takes for a mask's."""
    for name in mask_names(survey.contents.files):
        text = "nnU-Net keeps the preprocessed mask of another case by this name"
        yield problem("names", [name], text, "Rename the case.")
    ways: dict[str, set[str]] = defaultdict(set)
    for name in (*survey.contents.files, *(case.case for case in survey.contents.table)):
        ways[composed(name)].add(name)
    for name, written in ways.items():
        if len(written) > 1:
            text = f"{name} is written in {len(written)} ways that look alike (Unicode), in files or {CASES_FILE}"
            yield problem("names", sorted(written), text, RENAME)


def _capitals(survey: Survey) -> Iterator[Finding]:
    """Patients and cases that differ by capitals alone, those of scans without masks among them."""
    contents, rows = survey.contents, [*survey.contents.table]
    try:
        rows += chain(*read_unlabelled_cases(contents.folder).values())
    except UserError as error:
        yield problem(UNLABELLED_FILE, [], short(error.problem, survey), error.remedy)
    owners = [*contents.patients.items(), *((row.case, row.patient) for row in rows)]
    cases, patients = (by_case_alone(names) for names in zip(*owners, strict=True))
    for alike in dict.fromkeys([*patients, *cases]):
        found = [case for case, patient in owners if {composed(case), composed(patient)} & {*alike}]
        text = f"{listed(alike)} differ by capitals alone, and count as several"
        remedy = "Write the name of a patient in one way: else the same patient may be trained on and tested."
        yield problem("names", dict.fromkeys(found), text, remedy)


def _table(survey: Survey) -> Iterator[Finding]:
    """``cases.csv`` against what is there."""
    contents, listed = survey.contents, {case.case for case in survey.contents.table}
    if error := contents.table_error:
        remedy = error.remedy if error.refused else f"Mend it, or move it away and {_SAY_PATIENTS}"
        yield problem(CASES_FILE, [], short(error.problem, survey), remedy)
    elif not listed:
        text = f"there is no {CASES_FILE}, so every case counts as a patient of its own"
        yield note("patients unknown", [], text, f"If a patient has several scans, {_SAY_PATIENTS}")
    elif gone := sorted(listed - contents.files.keys()):
        text = f"names {len(gone)} cases that are not there"
        yield problem(CASES_FILE, gone, text, "Restore the cases, or remove their rows.")
    if listed and (added := unlisted(contents.files, contents.table)):
        text = f"lacks {len(added)} cases that are there"
        yield problem(CASES_FILE, added, text, "Write a row with the patient of each.")


def _faults(survey: Survey) -> Iterator[Finding]:
    for kind in FaultKind:
        for case, facts in survey.facts.items():
            for fault in facts.faults:
                if fault.kind is kind:
                    yield problem(str(kind), [case], short(fault.problem, survey), fault.remedy)


def _classes(survey: Survey) -> Iterator[Finding]:
    """Empty masks, and classes that a case or every case lacks."""
    masks, present = survey.masks, survey.present_values(survey.facts)
    nowhere = [name for name, value in survey.contents.labels.items() if value not in present]
    if masks and nowhere:
        text = f"no mask holds {', '.join(nowhere)}"
        yield problem("class missing everywhere", [], text, "Annotate it, or remove it from dataset.json.")
    for case, mask in masks.items():
        if not mask.voxels:
            text = f"no voxel of any class, {mask.ignored:,} voxels to be ignored"
            if survey.contents.empty_masks:
                yield note("empty mask", [case], text, "See whether this is a healthy control.")
            else:
                yield problem("empty mask", [case], text, _EMPTY_REMEDY)
    for case, mask in masks.items():
        absent = [name for name, value in survey.contents.labels.items() if value not in mask.voxels]
        if mask.voxels and not mask.ignored and (here := [name for name in absent if name not in nowhere]):
            yield note(
                "class missing in a case",
                [case],
                f"no voxel of {', '.join(here)}",
                "See whether the structure is not in the scan or was forgotten.",
            )


def _two_sides(survey: Survey) -> Iterator[Finding]:
    """Organs that are alike when mirrored."""
    if pairs := sides(survey.contents.labels):
        remedy = f"nnUNetv2_train does: give it -tr nnUNetTrainerNoMirroring. {MIRRORED}"
        yield note("two sides", [], f"{in_pairs(pairs)}: `ccdcseg train` does not mirror them", remedy)


def _annotated_in_part(survey: Survey) -> Iterator[Finding]:
    """Masks with voxels that nobody has labelled."""
    masks = {case: mask for case, mask in survey.masks.items() if mask.ignored}
    if masks:
        annotated, slices = (
            sum(counts)
            for counts in zip(
                *((mask.annotated_slices, mask.grid.slices) for mask in masks.values()), strict=True
            )
        )
        yield note(
            "annotated in part",
            sorted(masks),
            f"{len(masks)} of {len(survey.masks)} masks have voxels to be ignored; {annotated:,} of their "
            f"{slices:,} slices are annotated",
            "Train on these patients, and test on others: nobody can measure where nobody has drawn.",
        )


def _structures(survey: Survey) -> Iterator[Finding]:
    """Tiny components and structures that reach the border."""
    names = {value: name for name, value in survey.contents.labels.items()}
    for case, mask in survey.masks.items():
        for value, specks in mask.specks.items():
            yield note(
                "tiny components",
                [case],
                f"{names[value]}: {specks.count} with {specks.voxels:,} voxels together; the largest component "
                f"has {specks.largest:,}",
                "Remove them if they are slips of the brush.",
            )
    for case, mask in survey.masks.items():
        if mask.at_border:
            listed = ", ".join(f"{names[value]} {count:,}" for value, count in mask.at_border.items())
            yield note(
                "mask at the image border",
                [case],
                f"voxels at the border of the slices: {listed}",
                "See whether the structure is cut off or the mask shifted.",
            )


def _duplicates(survey: Survey) -> Iterator[Finding]:
    scans: dict[str, list[str]] = defaultdict(list)
    masks: dict[str, list[str]] = defaultdict(list)
    for case, facts in survey.facts.items():
        for scan in facts.scans:
            scans[scan].append(case)
        if facts.mask and facts.mask.voxels:
            masks[facts.mask.voxels_hash].append(case)
    for check, found in (("duplicate scan", scans), ("duplicate mask", masks)):
        groups = dict.fromkeys(tuple(cases) for cases in found.values() if len(cases) > 1)
        yield from (_duplicate(check, cases, survey) for cases in groups)
    for case, facts in survey.facts.items():
        for numbers in facts.scans.values():
            if len(numbers) > 1:
                text = f"channels {listed(numbers)} hold the same voxels"
                remedy = "See whether a file was copied to the wrong name."
                yield note("duplicate channel", [case], text, remedy)


def _told(survey: Survey) -> Iterator[Finding]:
    for case, facts in survey.facts.items():
        if facts.told:
            held = "holds the voxels of the case's own mask, by the same or other values"
            remedy = "Restore the image: a file was copied to the wrong name, or paired with the wrong one."
            yield problem("mask as image", [case], f"channel {listed(facts.told)} {held}", remedy)


def _duplicate(check: str, cases: Sequence[str], survey: Survey) -> Finding:
    owners = sorted({survey.contents.patients[case] for case in cases})
    if len(owners) == 1:
        text = f"{len(cases)} cases of patient {owners[0]} hold the same voxels"
        return note(check, cases, text, "See whether a file was copied to the wrong name.")
    return problem(
        check,
        cases,
        f"the same voxels in cases of {len(owners)} patients: {listed(owners)}",
        f"Remove all but one, or give them the same patient in {CASES_FILE}: else the same scan may be trained "
        "on and tested.",
    )


RULES: tuple[Callable[[Survey], Iterable[Finding]], ...] = (
    _description,
    _names,
    _capitals,
    _missing_files,
    _table,
    _faults,
    _classes,
    _two_sides,
    _annotated_in_part,
    _duplicates,
    _told,
    split_findings,
    intensity_findings,
    grid_findings,
    _structures,
)
"""All rules, in the order of their findings."""


def _class_summary(survey: Survey, value: int) -> dict[str, Any]:
    found = {case: mask for case, mask in survey.masks.items() if value in mask.voxels}
    volumes_ml = [
        mask.voxels[value] * float(np.prod(mask.grid.spacing_mm)) / 1000
        for mask in found.values()
        if not mask.ignored
    ]
    return {
        "value": value,
        "voxels": sum(mask.voxels[value] for mask in found.values()),
        "volume_ml": _range([[volume] for volume in volumes_ml]),
        "cases": len(found),
    }


def _range(rows: Sequence[Sequence[float]]) -> Mapping[str, list[float]] | None:
    """Smallest, median and largest of each column."""
    if not rows:
        return None
    columns = np.array(rows, dtype=np.float64)
    parts = {
        "smallest": columns.min(axis=0),
        "median": np.median(columns, axis=0),
        "largest": columns.max(axis=0),
    }
    return {name: [round(float(value), 6) for value in values] for name, values in parts.items()}
