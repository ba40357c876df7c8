"""Rules for splits in the raw folder: cases that are gone, torn patients, leaking scans, absent classes."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from ccdcseg.checks.contents import Contents
from ccdcseg.checks.findings import Finding, Survey, note, problem, short
from ccdcseg.datasets.splits import FOLD_OF, SPLITS_FILE
from ccdcseg.datasets.unlabelled import cases_in
from ccdcseg.errors import UserError
from ccdcseg.files import read_json

CHECK = "split"

Parts = Mapping[str, list[str]]


def split_findings(survey: Survey) -> Iterator[Finding]:
    """What is wrong with ``splits_final.json``, ours or nnU-Net's; nothing where there is none.

    Folds of a split (`ccdcseg.datasets.folds`) are passed over: they may test without a class.
    """
    path = survey.contents.folder / SPLITS_FILE
    if not path.exists():
        return
    try:
        entries = {number: entry for number, entry in enumerate(read_json(path)) if FOLD_OF not in entry}
        folds = {number: _parts(entry) for number, entry in entries.items()}
    except (UserError, TypeError, KeyError, AttributeError) as error:
        yield _unread(error, survey)
        return
    try:
        owners = {
            number: _owners(entry.get("unlabelled"), survey.contents) for number, entry in entries.items()
        }
    except UserError:  # unlabelled.csv is unusable, which is a finding of its own
        owners = {}
    except (TypeError, KeyError, AttributeError) as error:
        yield _unread(error, survey)
        return
    for number, parts in folds.items():
        yield from _gone(number, parts, survey)
        yield from _torn(number, parts, survey.contents.patients, owners.get(number, {}))
        yield from _leaking(number, parts, survey)
        yield from _absent(number, parts, survey)


def _unread(error: Exception, survey: Survey) -> Finding:
    if isinstance(error, UserError) and error.refused:
        return problem(CHECK, [], short(error.problem, survey), error.remedy)
    text = f"{SPLITS_FILE} is no list of splits with train and val"
    return problem(CHECK, [], text, "Move it away and draw splits with `ccdcseg split`.")


def _parts(entry: Any) -> Parts:
    """Cases of each part. A ``val`` that repeats ``train`` stands for none: nnU-Net demands one.

    Raises:
        TypeError, KeyError, AttributeError: it is no split, or a case has no name.
    """
    parts = {name: [*entry[name]] for name in ("train", "val")} | {"test": [*entry.get("test", [])]}
    if not all(isinstance(case, str) for cases in parts.values() for case in cases):
        raise TypeError("a case has no name")
    if parts["val"] == parts["train"]:
        del parts["val"]
    return {name: cases for name, cases in parts.items() if cases}


def _gone(number: int, parts: Parts, survey: Survey) -> Iterator[Finding]:
    gone = sorted({case for cases in parts.values() for case in cases} - survey.contents.files.keys())
    if gone:
        yield problem(
            CHECK,
            gone,
            f"fold {number} names {len(gone)} cases that are not there",
            "Restore the cases, or draw the splits anew.",
        )


def _owners(scans: Mapping[str, Any] | None, contents: Contents) -> Mapping[str, str]:
    """The patients of a split's scans without masks, as far as they are known, each with a scan."""
    if scans is None:
        return {}
    folder = contents.folder / scans["images"]
    known = {case.case: case.patient for case in cases_in(contents.folder, folder)}
    patients = contents.patients if scans["images"] == "imagesTr" else known
    return {patients[scan]: scan for scan in scans["cases"] if scan in patients}


def _torn(
    number: int, parts: Parts, patients: Mapping[str, str], without_masks: Mapping[str, str]
) -> Iterator[Finding]:
    """Patients of two parts; further scans, without masks, of a patient who is trained on are welcome."""
    members: dict[str, Mapping[str, str]] = {
        name: {patients[case]: case for case in cases if case in patients} for name, cases in parts.items()
    }
    pairs = [*combinations(members, 2), *((name, "unlabelled") for name in members if name != "train")]
    members["unlabelled"] = without_masks
    for first, second in pairs:
        for patient in sorted(members[first].keys() & members[second].keys()):
            cases = {members[part][patient]: None for part in (first, second)}
            yield problem(
                CHECK,
                cases,
                f"fold {number} has patient {patient} both in {first} and in {second}",
                "Draw the splits by patient: `ccdcseg split`.",
            )


def _leaking(number: int, parts: Parts, survey: Survey) -> Iterator[Finding]:
    """The same scan in two parts under the names of two patients."""
    scans = {
        name: {scan: case for case in cases if case in survey.facts for scan in survey.facts[case].scans}
        for name, cases in parts.items()
    }
    patients = survey.contents.patients
    for first, second in combinations(scans, 2):
        common = scans[first].keys() & scans[second].keys()
        for cases in sorted({(scans[first][scan], scans[second][scan]) for scan in common}):
            if patients[cases[0]] != patients[cases[1]]:
                text = f"fold {number} has the same scan in {first} and in {second}"
                yield problem(CHECK, cases, text, "Mend the duplicate scan, then draw the splits anew.")


def _absent(number: int, parts: Parts, survey: Survey) -> Iterator[Finding]:
    """Classes that a part lacks: a network has to see each, and what nobody has cannot be measured."""
    everywhere = survey.present_values(survey.facts)
    for part, cases in parts.items():
        lacking = everywhere - survey.present_values(cases)
        absent = [name for name, value in survey.contents.labels.items() if value in lacking]
        if absent:
            text = f"fold {number} has no voxel of {', '.join(absent)} in its {part} cases ({len(cases)})"
            if part == "train":
                yield problem(CHECK, [], text, "Draw another split: a larger fraction or another seed.")
            else:
                yield note(CHECK, [], text, "Nothing can be measured on it there; another seed may differ.")
