"""The page of a check: findings, numbers, every case and pictures of patients in one HTML file."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ccdcseg.checks.checks import CheckResult, summary
from ccdcseg.checks.findings import Finding, Severity
from ccdcseg.checks.measure import CaseFacts
from ccdcseg.files import write_text
from ccdcseg.processes import Progress
from ccdcseg.report.pictures import class_colour
from ccdcseg.report.template import PATIENTS, SYNTHETIC, render
from ccdcseg.report.thumbnails import Thumbnail, thumbnails
from ccdcseg.report.viewer import MOST_CHARACTERS, within
from ccdcseg.texts import one_line, significant

_SHOWN = {Severity.PROBLEM: 5, Severity.NOTE: 1}


@dataclass(frozen=True)
class Group:
    """The findings of one rule.

    Args:
        severity: of all of them.
        check: the rule.
        findings: at least one.
    """

    severity: Severity
    check: str
    findings: Sequence[Finding]

    @property
    def remedies(self) -> list[str]:
        """What to do, each once."""
        return list(dict.fromkeys(finding.remedy for finding in self.findings))

    @property
    def cases(self) -> int:
        """How many different cases are concerned."""
        return len({case for finding in self.findings for case in finding.cases})


@dataclass(frozen=True)
class PatientPicture:
    """One scan of a patient.

    Args:
        patient: whose.
        case: which of the patient's scans, the one with most foreground.
        picture: its slice.
        problem: why there is no picture or no outline.
        problems: findings on the patient's cases.
        notes: the same.
    """

    patient: str
    case: str
    picture: Thumbnail
    problem: str
    problems: Sequence[str]
    notes: Sequence[str]


def build_check_page(
    result: CheckResult, output: Path, cache: Path, workers: int = 2, progress: Progress | None = None
) -> Path:
    """Write a self-contained page about a data set, with the pictures that find room, those with findings first.

    Args:
        result: of the check.
        output: the HTML file, replaced if it exists.
        cache: where pictures are kept, so that only those of new and changed cases are drawn.
        workers: processes.
        progress: called with the number of pictures drawn and to be drawn now.

    Returns:
        ``output``.
    """
    chosen = chosen_cases(result)
    pictures = thumbnails(result.survey.contents, [*chosen.values()], cache, workers, progress)
    checks = _checks_by_patient(result)
    shown = [
        PatientPicture(
            patient,
            case,
            pictures[case],
            pictures[case].problem.replace(f"{result.survey.contents.folder}/", ""),
            [*checks[patient, Severity.PROBLEM]],
            [*checks[patient, Severity.NOTE]],
        )
        for patient, case in chosen.items()
    ]
    first = sorted(shown, key=lambda one: (not one.problems, not one.notes))
    kept = within(first, lambda one: len(one.picture.uri), MOST_CHARACTERS)
    kept.sort(key=lambda one: one.patient)
    write_text(output, render("check.html.j2", _context(result, kept, len(shown) - len(kept))))
    return output


def chosen_cases(result: CheckResult) -> dict[str, str]:
    """The case with most foreground of each patient, patients sorted by name."""
    chosen: dict[str, str] = {}
    facts, patients = result.survey.facts, result.survey.contents.patients
    for case in sorted(facts, key=lambda case: (patients[case], -_foreground(facts[case]), case)):
        chosen.setdefault(patients[case], case)
    return chosen


def verdict(result: CheckResult) -> str:
    """What was found, in one sentence."""
    problems, notes = len(result.problems), len(result.findings) - len(result.problems)
    cases = _counted(len(result.survey.contents.files), "case")
    return f"{_counted(problems, 'problem')} and {_counted(notes, 'note')} in {cases}."


def groups(result: CheckResult) -> list[Group]:
    """The findings by rule, problems first."""
    return [Group(found[0].severity, found[0].check, found) for found in result.groups]


def findings_table(result: CheckResult) -> Table:
    """A table for the screen: a row a rule, with its first findings."""
    table = Table()
    for heading in ("", "check", "cases", "found"):
        table.add_column(heading, overflow="fold")
    for group in groups(result):
        most = _SHOWN[group.severity]
        lines = [_line(finding) for finding in group.findings[:most]]
        if len(group.findings) > most:
            lines.append(f"and {len(group.findings) - most} more")
        if group.severity is Severity.PROBLEM:
            lines += [f"→ {remedy}" for remedy in group.remedies]
        style = "bold" if group.severity is Severity.PROBLEM else ""
        table.add_row(
            Text(group.severity, style),
            Text(group.check, style),
            str(group.cases or ""),
            Text("\n".join(lines)),
        )
    return table


def _line(finding: Finding) -> str:
    names = ", ".join(finding.cases[:3]) + (", ..." if len(finding.cases) > 3 else "")
    return one_line(f"{names}: {finding.text}" if names else finding.text)


def _foreground(facts: CaseFacts) -> int:
    return sum(facts.mask.voxels.values()) if facts.mask else 0


def _checks_by_patient(result: CheckResult) -> dict[tuple[str, Severity], dict[str, None]]:
    """Rules that found something in a patient's cases, in their order."""
    patients = result.survey.contents.patients
    found: dict[tuple[str, Severity], dict[str, None]] = defaultdict(dict)
    for finding in result.findings:
        for case in finding.cases:
            found[patients.get(case, ""), finding.severity][finding.check] = None
    return found


def _context(result: CheckResult, shown: Sequence[PatientPicture], left_out: int) -> dict[str, Any]:
    contents = result.survey.contents
    places = {picture.patient: f"patient-{number}" for number, picture in enumerate(shown)}
    return {
        "dataset": contents.folder.name,
        "synthetic": SYNTHETIC if contents.synthetic else "",
        "patients_note": PATIENTS,
        "verdict": verdict(result),
        "problems": [group for group in groups(result) if group.severity is Severity.PROBLEM],
        "groups": groups(result),
        "summary": summary(result.survey),
        "channels": contents.channels,
        "labels": contents.labels,
        "colours": {name: class_colour(value) for name, value in contents.labels.items()},
        "pictures": shown,
        "left_out": left_out,
        "places": {case: places[patient] for case, patient in contents.patients.items() if patient in places},
        "rows": _case_rows(result),
        "range_text": range_text,
    }


def range_text(values: Mapping[str, Sequence[float]] | None, axis: int = 0) -> str:
    """Smallest to largest of one axis, and the median."""
    if values is None:
        return "–"
    low, median, high = (significant(values[part][axis], 4) for part in ("smallest", "median", "largest"))
    return low if low == high else f"{low} to {high}, median {median}"


def _case_rows(result: CheckResult) -> list[dict[str, Any]]:
    """What the table shows of each case."""
    contents, rows = result.survey.contents, []
    phases = {case.case: " ".join(filter(None, (case.group, case.phase))) for case in contents.table}
    counts = Counter((case, finding.severity) for finding in result.findings for case in finding.cases)
    for case, facts in result.survey.facts.items():
        rows.append(
            {
                "case": case,
                "patient": contents.patients[case],
                "phase": phases.get(case, ""),
                "grid": facts.grid,
                "channels": [facts.channels.get(number) for number in range(len(contents.channels))],
                "volumes_ml": [_volume_ml(facts, value) for value in contents.labels.values()],
                "problems": counts[case, Severity.PROBLEM],
                "notes": counts[case, Severity.NOTE],
            }
        )
    return rows


def _volume_ml(facts: CaseFacts, value: int) -> float | None:
    if facts.mask is None or facts.mask.ignored:
        return None
    z_mm, y_mm, x_mm = facts.mask.grid.spacing_mm
    return facts.mask.voxels.get(value, 0) * z_mm * y_mm * x_mm / 1000


def _counted(count: int, word: str) -> str:
    return f"{count or 'no'} {word}{'s' if count != 1 else ''}"
