from pathlib import Path

import pytest

from ccdcseg.datasets.cases import Case
from ccdcseg.datasets.splits import draw_splits
from ccdcseg.errors import UserError
from ccdcseg.experiments.experiment import Experiment, experiment_names, load_experiment, load_experiments
from ccdcseg.experiments.published import published_values
from ccdcseg.measure.patients import MEAN
from ccdcseg.nnunet.preset import load_preset

ROWS = [(name, row.name) for name in experiment_names() for row in load_experiment(name).rows]


def test_the_papers_tables_are_there():
    assert experiment_names() == ["figure6", "figure7", *(f"table{n}" for n in range(1, 9))]


@pytest.mark.parametrize(("name", "row"), ROWS)
@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_every_change_is_a_valid_setting_and_is_applied(name: str, row: str, preset: str):
    experiment = load_experiment(name)
    (found,) = experiment.only([row])
    own = experiment.preset(found, preset)
    changes = found.changes
    settings = load_preset(own, changes)[1].model_dump(mode="json")
    for change in changes:
        key, value = change.split("=")
        section, field = key.split(".")
        assert str(settings[section][field]).rstrip("0") == value.rstrip("0")


PATIENTS = {"table2": (45, [5]), "table3": (20, [2]), "figure6": (100, [5, 10, 20, 40])}
"""Of a data set, and those that train (Sect. 4.1); (100, [10]) where none are named."""


@pytest.mark.parametrize("name", experiment_names())
def test_a_table_names_splits_that_its_preset_draws(name: str):
    """``ccdcseg split --preset`` of the paper's preset is enough for every row, and trains the paper's patients."""
    experiment = load_experiment(name)
    patients, trained = PATIENTS.get(name, (100, [10]))
    cases = [Case(f"c{number}", f"p{number}", "", "") for number in range(patients)]
    for row in experiment.rows:
        if row.presets is None:
            _, preset = load_preset(experiment.preset(row, "paper"))
            drawn = {split.fraction: split for split in draw_splits(cases, preset.labelled.fractions, seed=0)}
            assert [len(drawn[fraction].train) for fraction in experiment.fractions] == trained


@pytest.mark.parametrize("name", [f"table{n}" for n in range(4, 9)])
def test_the_row_that_is_compared_is_the_method_of_the_paper(name: str):
    """The published numbers' best row, and nothing else than the preset's own settings."""
    experiment = load_experiment(name)
    (row,) = experiment.only([experiment.compare.row])
    for preset in ("paper", "cpu_paper"):
        assert load_preset(preset, row.changes)[1].ccdc == load_preset(preset)[1].ccdc
    published = published_values(experiment.published)
    means = {
        variant: value
        for (variant, metric, part), value in published.items()
        if (metric, part) == ("DSC", MEAN)
    }
    assert means[row.published] == max(means.values())


def test_a_preset_is_the_data_sets_own():
    chaos = load_experiment("table3")
    rows = {row.name: row for row in chaos.rows}
    assert chaos.preset(rows["ccdc"], "paper") == "paper_chaos"
    assert chaos.preset(rows["nnformer"], "cpu") == "nnformer_cpu"
    with pytest.raises(UserError, match="--only"):
        chaos.preset(rows["nnformer"], "smoke")


def test_files_that_a_table_names_start_at_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for folder, epochs in (("tables", 48), ("elsewhere", 7)):
        (tmp_path / folder).mkdir()
        for name in ("mine.yaml", "row.yml"):
            (tmp_path / folder / name).write_text(f"training: {{epochs: {epochs}}}\n")
    (tmp_path / "tables" / "table.yaml").write_text(
        "title: mine\n"
        "presets: {paper: mine.yaml, cpu: cpu_long}\n"
        "published: {source: s, table: t, structures: {}, file: doe.csv}\n"
        "rows: [{name: a}, {name: b, presets: {paper: row.yml}}]\n"
    )
    for current, given in (("elsewhere", "../tables/table.yaml"), ("tables", "table.yaml")):
        monkeypatch.chdir(tmp_path / current)
        for name in (given, str(tmp_path / "tables" / "table.yaml")):
            experiment = load_experiment(name)
            presets = [experiment.preset(row, "paper") for row in experiment.rows]
            assert [load_preset(preset)[1].training.epochs for preset in presets] == [48, 48]
            assert experiment.preset(experiment.rows[0], "cpu") == "cpu_long"
            assert Path(experiment.published.file).resolve() == tmp_path.resolve() / "tables" / "doe.csv"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_preset(experiment.preset(experiment.rows[0], "mine.yaml"))[1].training.epochs == 7


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("title: mine\nrows: [{name: a, method: magic}]", "no method magic"),
        ("title: mine\nrows: [{name: a}, {name: a}]", "two rows"),
        ("title: mine\nrows: [{name: a, settings: 3}]", "rows.0.settings"),
        ("title: mine\nrows: []", "rows"),
        ("title: mine\nrows: [{name: a}]\nmetrics: [{name: hd95}]", "hd95_pooled_mm"),
        ("title: mine\nrows: [{name: a}]\nmetrics: [{name: dice, minus: b}]", "no row b"),
        ("title: mine\nrows: [{name: a, title: A}, {name: b, title: A}]", "two rows are called A"),
        ("title: mine\nrows: [{name: a}]\ncompare: {row: b}", "no row b"),
        ("title: mine\nrows: [{name: a}]\ncompare: {row: a, metrics: [dsc]}", "dsc is none of dice"),
        ("title: mine\nrows: [{name: a}]\ncompare: {row: a, metrics: [dice, dice]}", "dice is named twice"),
        ("title: mine\nrows: [{name: a}]\nfigure: pie", "figure"),
        (
            "title: mine\nrows: [{name: a}]\nmetrics: [{name: dice, minus: a}]\nfigure: fractions",
            "fractions draws metrics without minus",
        ),
        ("title: [", "not valid YAML"),
        (
            "title: mine\nrows:\n- name: a\n  changes: [a=1]\n  changes: [b=1]",
            "changes stands twice, again in line 5",
        ),
        ("title: Ü\nrows: []", "not valid YAML.*as UTF-8"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: str, words: str):
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="cp1252")
    with pytest.raises(UserError, match=words):
        load_experiment(str(path))


def test_unknown_names():
    with pytest.raises(UserError, match="table8"):
        load_experiment("table9")
    with pytest.raises(UserError, match="nnunet"):
        load_experiment("table1").only(["nnunett"])


def test_several_experiments_are_called_by_their_files(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text("title: mine\nrows: [{name: a}]")
    first, second = (str(tmp_path / folder / "mine.yaml") for folder in ("a", "b"))
    assert list(load_experiments(["table6", first, "table6", first])) == ["table6", "mine"]
    with pytest.raises(UserError, match=r"Two experiments are called mine.*each with an --output of its own"):
        load_experiments([first, second])


def test_every_table_says_what_is_tested():
    for name in experiment_names():
        experiment = load_experiment(name)
        assert experiment.compare is not None
        assert len(experiment.rows) > 1


def test_rows_without_titles_are_told_apart():
    rows = [{"name": "a"}, {"name": "b"}, {"name": "c", "title": "C"}, {"name": "base", "method": "nnunet"}]
    experiment = Experiment.model_validate({"title": "mine", "rows": rows})
    assert [experiment.label(row) for row in experiment.rows] == ["a", "b", "C", "nnU-Net"]
