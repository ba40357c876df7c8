"""What an experiment ends in: tables, comparisons and figures as files, and its part of the page."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ccdcseg.datasets.cases import id_in_name
from ccdcseg.errors import UserError
from ccdcseg.experiments.comparison import Family, declared_family
from ccdcseg.experiments.experiment import Experiment
from ccdcseg.experiments.figures import SUFFIXES, Drawn, draw
from ccdcseg.experiments.jobs import Choice, Job, read_results
from ccdcseg.experiments.measured import measured_rows
from ccdcseg.experiments.table import COLUMNS, Table, result_tables, table_grid, table_note, to_csv
from ccdcseg.files import check_beside, check_table_beside, json_text, move_aside, write_text
from ccdcseg.report.page import build_report
from ccdcseg.report.sections import Section
from ccdcseg.report.template import check_page
from ccdcseg.runs.record import RUN_FILE, unlike
from ccdcseg.statistics.family_table import check_comparison_files
from ccdcseg.tabular import Grid, latex_comment, to_latex, to_section
from ccdcseg.tabular import to_csv as grid_to_csv

logger = logging.getLogger(__name__)

COMPARISON = ("_comparison.csv", "_comparison.json")
PAGE = "report.html"


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
        """Its tables, then the comparisons and ranks, where numbers stand for long names."""
        return self._grids(abbreviate=True)

    def _grids(self, abbreviate: bool) -> list[Grid]:
        return [*map(table_grid, self.tables), *(self.family.grids(abbreviate) if self.family else [])]

    @property
    def introduction(self) -> str:
        """What was done, and how to read the tables."""
        return f"{self.setup} {table_note(self.experiment)}"

    @property
    def section(self) -> Section:
        """Its part of the page."""
        text = f"{self.introduction} {self.problem}".strip()
        grids = self._grids(abbreviate=False)
        return Section(self.experiment.title, text, grids, self.figure.panels, self.figure.keys)

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
            grids = "\n".join(map(grid_to_csv, self.family.grids(abbreviate=False)))
            texts |= dict(zip(COMPARISON, (grids, json_text(self.family.record)), strict=True))
        return {self.path(ending): text for ending, text in texts.items()}

    def path(self, ending: str) -> Path:
        """One of its files, such as that which ends in ".md"."""
        return _path(self.stem, ending)

    @property
    def files(self) -> list[Path]:
        """Everything that was written."""
        return [*self.texts, *self.figure.files]

    @property
    def latex(self) -> str:
        """All tables for the package booktabs: best value bold, second best underlined."""
        comment = latex_comment(f"{self.experiment.title}. {self.introduction}")
        return f"{comment}\n" + "\n".join(map(to_latex, self.grids))


def check_outputs(experiment: Experiment, choice: Choice, stem: Path) -> None:
    """Find out before the work whether `write_outputs` and `write_page` may write their files; see `check_beside`.

    The page is of the last command and may be of other experiments.

    Args:
        experiment, choice, stem: see `write_outputs`.

    Raises:
        UserError: something else lies there, such as tables of another title, data set, preset or part.
    """
    by_id = replace(choice, dataset=f"{id_in_name(choice.dataset)}")  # as tables of before name the data set
    known = [_chosen(choice), _chosen(by_id)]
    markdown, marks = _path(stem, ".md"), [f"\n# {experiment.title}\n\n{chosen}" for chosen in known]
    check_beside(markdown, *marks)
    latex = [f"\n{latex_comment(f'{experiment.title}. {chosen}')}" for chosen in known]
    check_beside(_path(stem, ".tex"), *latex)
    check_table_beside(_path(stem, ".csv"), COLUMNS)
    check_comparison_files(*(_path(stem, ending) for ending in COMPARISON))
    for ending in SUFFIXES.get(experiment.figure or "", ()):
        check_beside(_path(stem, ending), *marks, marked=markdown)
    check_page(stem.with_name(PAGE), "report")


def _path(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _chosen(choice: Choice) -> str:
    return f"Data set {choice.dataset}, preset {choice.preset}, {choice.part} patients."


def write_outputs(experiment: Experiment, choice: Choice, jobs: Sequence[Job], stem: Path) -> Outputs:
    """Write ``stem``.md, .csv and .tex of the finished jobs, comparisons and figures beside.

    Comparisons and figures of before, where there are none now, are moved aside: they would pass for those of these
    tables.

    Args:
        experiment: what the jobs belong to.
        choice: what was chosen of it.
        jobs: all of them, one finished at least.
        stem: folder and name of the files.
    """
    results = read_results(jobs)
    measured = measured_rows(experiment, results)
    figure, problem = Drawn(), ""
    try:
        figure = draw(experiment, measured, stem)
    except UserError as error:
        problem = f"There is no figure: {error}"
    setup = " ".join([_chosen(choice), *unlike(result.run for result in results.values())])
    tables = tuple(result_tables(experiment, measured))
    family = declared_family(experiment, measured)
    outputs = Outputs(experiment, setup, tables, family, figure, stem, problem)
    for path, text in outputs.texts.items():
        write_text(path, text)
    endings = (*COMPARISON, *SUFFIXES.get(experiment.figure or "", ()))
    _outdate(path for ending in endings if (path := outputs.path(ending)) not in outputs.files)
    return outputs


def _outdate(files: Iterable[Path]) -> None:
    for path in files:
        if path.exists():
            logger.warning("%s is of before: it is kept as %s.", path, move_aside(path).name)


def write_page(
    outputs: Sequence[Outputs], jobs: Sequence[Job], part: str, store: Path, progress: Callable[..., None]
) -> Path | None:
    """Write ``report.html`` about the finished trainings that are still there; None where none is.

    Args:
        outputs: each a section of the page.
        jobs: all of them, finished or not.
        part: "test" or "validation", the patients that were measured.
        store: folder of the page.
        progress: see `build_report`.
    """
    folders = dict.fromkeys(job.run for job in jobs if job.finished and (job.run / RUN_FILE).exists())
    page = store / PAGE
    if not folders:
        _outdate([page] if outputs else [])
        return None
    title = "; ".join(one.experiment.title for one in outputs)
    sections = [one.section for one in outputs]
    return build_report(list(folders), page, title, progress=progress, part=part, sections=sections)
