"""A declared experiment: which trainings make up a table. YAML files in ``declared/``, or one of one's own."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ccdcseg.errors import UserError
from ccdcseg.measure.patients import SUMMARY_METRICS
from ccdcseg.methods import METHODS
from ccdcseg.nnunet.preset import Section, read_yaml
from ccdcseg.statistics.family import FAMILY

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0)]


def _check_metrics(names: Sequence[str]) -> None:
    for name in names:
        if name not in SUMMARY_METRICS:
            raise ValueError(f"{name} is none of {', '.join(SUMMARY_METRICS)}")


class Metric(Section):
    """What is shown of each row.

    Attributes:
        name: one of :data:`ccdcseg.measure.patients.SUMMARY_METRICS`.
        minus: a row whose mean at the same fraction is subtracted; None: the value itself.
        published: the metric's name in the published numbers; None: none are shown.
    """

    name: str
    minus: str | None = None
    published: str | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        _check_metrics([self.name])
        return self


class Compare(Section):
    """Which row is tested against every other; all pairs and metrics are one family (Holm).

    Attributes:
        row: its name; the others are those of the same fraction.
        metrics: of :data:`ccdcseg.measure.patients.SUMMARY_METRICS`, in their mean over the classes.
    """

    row: str
    metrics: tuple[str, ...] = Field(FAMILY, min_length=1)

    @model_validator(mode="after")
    def _known(self) -> Self:
        _check_metrics(self.metrics)
        for name in self.metrics:
            if self.metrics.count(name) > 1:
                raise ValueError(f"{name} is named twice")
        return self


class Row(Section):
    """One line of a table: a method with its changes to the preset.

    Attributes:
        name: by which ``--only`` and ``minus`` call it.
        title: in the table; default: the method's, or the name where several rows of the method have no title.
        method: key of :data:`ccdcseg.methods.METHODS`.
        changes: to the preset, ``key=value``.
        presets: what ``--preset`` stands for in this row, which then trains with these alone. Paths start as in
            `Published`.
        seeds: of this row; None: the experiment's.
        published: its variant, or its method, in the published numbers; ``{percent}`` is the fraction.
    """

    name: Name
    title: str = ""
    method: str = "ccdc"
    changes: tuple[str, ...] = ()
    presets: dict[str, str] | None = None
    seeds: tuple[Seed, ...] | None = Field(None, min_length=1)
    published: str | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.method not in METHODS:
            raise ValueError(f"there is no method {self.method}; there are {', '.join(METHODS)}")
        return self


class Published(Section):
    """Which published numbers stand beside ours.

    Attributes:
        source: printed with the table.
        table: in the file.
        structures: the data set's class to the structure's name in the file. The published mean is of these, and
            stands beside that of the same classes alone.
        file: columns table, dataset, method, variant, metric, structure, value; default: the paper's numbers. A
            relative path starts at the experiment's own folder.
    """

    source: str
    table: str
    structures: dict[str, str]
    file: str = ""


class Experiment(Section):
    """A grid of trainings: rows, each with the fractions and seeds.

    Attributes:
        title: above the table.
        rows: see :class:`Row`.
        fractions: shares of the patients to train on.
        seeds: unless the command names others.
        presets: what ``--preset`` stands for here, where it is another one. Paths start as in `Published`.
        metrics: a table each.
        compare: see :class:`Compare`; None: nothing is tested.
        figure: "fractions" (each metric without ``minus`` over the share of labelled patients), "cases" (outlined
            predictions of cases that a rule chose, see :func:`ccdcseg.report.pictures.choose_cases`), or None.
        published: see :class:`Published`.
    """

    title: str
    rows: tuple[Row, ...] = Field(min_length=1)
    fractions: tuple[Fraction, ...] = Field((0.1,), min_length=1)
    seeds: tuple[Seed, ...] = Field((0,), min_length=1)
    presets: dict[str, str] = Field({})
    metrics: tuple[Metric, ...] = Field((Metric(name="dice"), Metric(name="hd95_pooled_mm")), min_length=1)
    compare: Compare | None = None
    figure: Literal["fractions", "cases"] | None = None
    published: Published | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [row.name for row in self.rows]
        for calls in (names, [self.label(row) for row in self.rows]):
            for call in calls:
                if calls.count(call) > 1:
                    raise ValueError(f"two rows are called {call}")
        referred = [metric.minus for metric in self.metrics if metric.minus]
        for name in [*referred, *([self.compare.row] if self.compare else [])]:
            if name not in names:
                raise ValueError(f"there is no row {name}")
        if self.figure == "fractions" and all(metric.minus for metric in self.metrics):
            raise ValueError("figure: fractions draws metrics without minus, and there is none")
        return self

    def label(self, row: Row) -> str:
        """A row's name in tables."""
        untitled = [other.method for other in self.rows if not other.title]
        return row.title or (METHODS[row.method].title if untitled.count(row.method) == 1 else row.name)

    def row(self, name: str) -> Row:
        """The row of a name.

        Raises:
            UserError: there is no such row.
        """
        there = {row.name: row for row in self.rows}
        if name not in there:
            raise UserError(f"There is no row {name}.", f"Choose among {', '.join(there)}.")
        return there[name]

    def only(self, names: Sequence[str]) -> tuple[Row, ...]:
        """The rows of these names, in the experiment's order; all where none is given.

        Raises:
            UserError: there is no such row.
        """
        chosen = [self.row(name) for name in names]
        return tuple(row for row in self.rows if not names or row in chosen)

    def preset(self, row: Row, name: str) -> str:
        """The preset, or file, that ``--preset name`` stands for in a row.

        Raises:
            UserError: the row has presets of its own, but none for ``name``.
        """
        if row.presets is None:
            return self.presets.get(name, name)
        if name not in row.presets:
            known = ", ".join(row.presets)
            raise UserError(
                f"The row {row.name} has no preset for --preset {name}, only for {known}.",
                "Name the other rows with --only, or copy the table's file and add the preset.",
            )
        return row.presets[name]


def experiment_names() -> list[str]:
    """Names of the experiments that come with the package."""
    return sorted(p.name.removesuffix(".yaml") for p in _declared().iterdir() if p.name.endswith(".yaml"))


def load_experiment(name: str) -> Experiment:
    """Read an experiment.

    Args:
        name: of a shipped one, or the path of a YAML file.

    Raises:
        UserError: no such experiment, a damaged file, or an unknown or wrong entry.
    """
    own = name.endswith((".yaml", ".yml"))
    path = Path(name) if own else _declared() / f"{name}.yaml"
    if not path.is_file():
        raise UserError(
            f"There is no experiment {name}.",
            f"Choose {', '.join(experiment_names())}, or give the path of a YAML file.",
        )
    try:
        experiment = Experiment.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "content"
        raise UserError(f"{name}: {place}: {first['msg']}.", "See docs/reproduce.md for the form.") from error
    return _with_files_beside(experiment, path.parent) if own else experiment


def load_experiments(names: Sequence[str]) -> dict[str, Experiment]:
    """Read several; what their files are called (a file's name without its suffix) to experiment.

    Raises:
        UserError: as `load_experiment`; two would be called alike.
    """
    found: dict[str, Experiment] = {}
    for name in dict.fromkeys(names):
        label = Path(name).stem if name.endswith((".yaml", ".yml")) else name
        if label in found:
            raise UserError(
                f"Two experiments are called {label}.",
                "Rename a file, or run them one by one, each with an --output of its own.",
            )
        found[label] = load_experiment(name)
    return found


def _with_files_beside(experiment: Experiment, folder: Path) -> Experiment:
    """Of one's own: the files that it names start at its folder, not at the current one."""
    published, rows = experiment.published, experiment.rows
    if published and published.file:
        published = published.model_copy(update={"file": str(folder / published.file)})
    rows = tuple(row.model_copy(update={"presets": _beside(folder, row.presets)}) for row in rows)
    presets = _beside(folder, experiment.presets)
    return experiment.model_copy(update={"published": published, "rows": rows, "presets": presets})


def _beside(folder: Path, presets: dict[str, str] | None) -> dict[str, str] | None:
    return presets and {
        name: str(folder / preset) if preset.endswith((".yaml", ".yml")) else preset
        for name, preset in presets.items()
    }


def _declared() -> Path:
    return Path(str(files("ccdcseg.experiments") / "declared"))
