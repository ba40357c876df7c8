"""What an experiment ends in: tables, comparisons and figures as files, and its part of the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ccdcseg.errors import UserError
from ccdcseg.experiments.comparison import Family, declared_family
from ccdcseg.experiments.experiment import Experiment
from ccdcseg.experiments.figures import Drawn, draw
from ccdcseg.experiments.jobs import Choice, Job, read_results
from ccdcseg.experiments.measured import measured_rows
from ccdcseg.experiments.table import Table, result_tables, table_grid, table_note, to_csv
from ccdcseg.files import json_text, write_text
from ccdcseg.report.page import build_report
from ccdcseg.report.sections import Section
from ccdcseg.report.viewer import Progress
from ccdcseg.runs.record import RUN_FILE, unlike
from ccdcseg.tabular import Grid, latex_comment, to_latex, to_section
from ccdcseg.tabular import to_csv as grid_to_csv


@dataclass(frozen=True)
class Outputs:
    """Everything about an experiment that is written.

    Attributes:
        setup: data set, preset, patients, and in what the trainings differ beside it.
        family: its comparisons, where there are some.
        figure: its figure, where it has one.
        stem: folder and name of its files.
        problem: why the figure could not be drawn.
    """

    experiment: Experiment
    setup: str
    tables: tuple[Table, ...]
    family: Family | None
    figure: Drawn
    stem: Path
    problem: str = ""

    @cached_property
    def grids(self) -> list[Grid]:
        """Its tables, then the comparisons and ranks."""
        return [*map(table_grid, self.tables), *(self.family.grids() if self.family else [])]

    @property
    def introduction(self) -> str:
        """What was done, and how to read the tables."""
        return f"{self.setup} {table_note(self.experiment)}"

    @property
    def section(self) -> Section:
        """Its part of the page."""
        text = f"{self.introduction} {self.problem}".strip()
        return Section(self.experiment.title, text, self.grids, self.figure.panels, self.figure.keys)

    @cached_property
    def markdown(self) -> str:
        """All tables: best value bold, second best in italics, published numbers in brackets."""
        return "\n".join(
            [f"# {self.experiment.title}\n\n{self.introduction}\n", *map(to_section, self.grids)]
        )

    @cached_property
    def texts(self) -> dict[Path, str]:
        """Its files, but for the figure's."""
        texts = {".md": self.markdown, ".csv": to_csv(self.tables), ".tex": self.latex}
        if self.family:
            grids = self.family.grids(abbreviate=False)
            texts["_comparison.csv"] = "\n".join(map(grid_to_csv, grids))
            texts["_comparison.json"] = json_text(self.family.record)
        return {self.stem.with_name(self.stem.name + suffix): text for suffix, text in texts.items()}

    @property
    def files(self) -> list[Path]:
        """Everything that was written."""
        return [*self.texts, *self.figure.files]

    @property
    def latex(self) -> str:
        """All tables for the package booktabs: best value bold, second best underlined."""
        comment = latex_comment(f"{self.experiment.title}. {self.introduction}")
        return f"{comment}\n" + "\n".join(map(to_latex, self.grids))


def write_outputs(experiment: Experiment, choice: Choice, jobs: Sequence[Job], stem: Path) -> Outputs:
    """Write ``stem``.md, .csv and .tex of the finished jobs, comparisons and figures beside.

    Args:
        experiment: what the jobs belong to.
        choice: what was chosen of it.
        jobs: all of them, finished or not.
        stem: folder and name of the files.
    """
    results = read_results(jobs)
    measured = measured_rows(experiment, results)
    figure, problem = Drawn(), ""
    try:
        figure = draw(experiment, measured, stem)
    except UserError as error:
        problem = f"There is no figure: {error}"
    setup = " ".join(
        [
            f"Data set {choice.dataset}, preset {choice.preset}, {choice.part} patients.",
            *unlike(result.run for result in results.values()),
        ]
    )
    tables = tuple(result_tables(experiment, measured))
    family = declared_family(experiment, measured)
    outputs = Outputs(experiment, setup, tables, family, figure, stem, problem)
    for path, text in outputs.texts.items():
        write_text(path, text)
    return outputs


def write_page(
    outputs: Sequence[Outputs], jobs: Sequence[Job], part: str, store: Path, progress: Progress
) -> Path | None:
    """Write ``report.html`` about the finished trainings that are still there; None where none is.

    Args:
        outputs: each a section of the page.
        jobs: all of them, finished or not.
        part: "test" or "validation", the patients that were measured.
        store: folder of the page.
        progress: called with the number of scans read and to be read.
    """
    folders = dict.fromkeys(job.run for job in jobs if job.finished and (job.run / RUN_FILE).exists())
    if not folders:
        return None
    title = "; ".join(one.experiment.title for one in outputs)
    sections = [one.section for one in outputs]
    page = store / "report.html"
    return build_report(list(folders), page, title, progress=progress, part=part, sections=sections)
