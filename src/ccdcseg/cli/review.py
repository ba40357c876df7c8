"""The command that says which masks to look at again."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccdcseg import workflow
from ccdcseg.cli.app import DATA, app
from ccdcseg.cli.completion import presets
from ccdcseg.cli.options import PROCESSES, Dataset, Device, DeviceOption, MethodOption, Processes, Yes
from ccdcseg.cli.output import cache_folder, chosen_device, confirm_long
from ccdcseg.errors import UserError
from ccdcseg.files import absolute, check_beside, check_table_beside, file_hash
from ccdcseg.progress import progress_bars
from ccdcseg.texts import one_line

if TYPE_CHECKING:
    from ccdcseg.nnunet.runs import Run
    from ccdcseg.review.answers import Answer
    from ccdcseg.review.review import Review

_OF_FOLDS = ("folds", "method", "fraction", "seed", "preset", "change")
"""Parameters that say what is trained."""


@app.command(rich_help_panel=DATA)
def review(
    context: typer.Context,
    dataset: Dataset,
    folds: Annotated[
        int,
        typer.Option(
            min=2, help="Trainings, each on all labelled patients but its share; at most one a patient."
        ),
    ] = 5,
    method: MethodOption = "nnunet",
    fraction: Annotated[
        float | None,
        typer.Option(
            help="Of the split whose training patients are reviewed. Default: as of `ccdcseg train`.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of that split and of the trainings.")] = 0,
    preset: Annotated[str, typer.Option(help="As of `ccdcseg train`.", autocompletion=presets)] = "cpu",
    change: Annotated[
        list[str], typer.Option("--set", help="A setting of the preset, such as ccdc.weight=0.1; repeatable.")
    ] = [],  # noqa: B006
    run: Annotated[
        list[Path],
        typer.Option(
            help="Folder of a finished run to take instead: masks of patients are reviewed that it was not trained "
            "on; repeatable."
        ),
    ] = [],  # noqa: B006
    patient: Annotated[
        list[str], typer.Option(help="Patient, or case, to which the review is limited; repeatable.")
    ] = [],  # noqa: B006
    answers: Annotated[
        Path | None,
        typer.Option(help="Do nothing but keep the answers that the page saved, beside the data."),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The page to write; its JSON and ranking lie beside it."),
    ] = Path("review.html"),
    yes: Yes = False,
    device: DeviceOption = Device.AUTO,
    processes: Processes = PROCESSES,
) -> None:
    """Which masks to look at again: those first that contradict networks which never saw them."""
    from ccdcseg.nnunet.runs import find_runs
    from ccdcseg.report.template import check_page
    from ccdcseg.review.review import RANKING_COLUMNS, ranking_file

    if answers:
        _keep(dataset, answers)
        return
    check_page(output, "review")
    check_beside(listed := output.with_suffix(".json"), "ccdcseg-review/")
    check_table_beside(ranking_file(listed), RANKING_COLUMNS)
    given = [name for name in _OF_FOLDS if context.get_parameter_source(name).name == "COMMANDLINE"]  # type: ignore[union-attr]
    if run and given:
        raise UserError(
            f"--run and --{'set' if given[0] == 'change' else given[0]} exclude each other.",
            "Trained runs need no training: leave one of them out.",
        )
    if run:
        folders = [folder for one in run for folder in find_runs(str(one))]
        _review(dataset, folders, None, patient, output, chosen_device(device))
        return
    trainings = _folds(dataset, method, fraction, seed, preset, change, folds)
    chosen = chosen_device(device)
    folders = _train(trainings, chosen, yes, processes)
    cases = sorted(case for training in trainings for case in training.split["test"])
    _review(dataset, folders, cases, patient, output, chosen)


def _keep(dataset: str, path: Path) -> None:
    """Keep answers beside the data."""
    from ccdcseg.datasets.cases import dataset_folder, read_cases
    from ccdcseg.nnunet.paths import nnunet_folder
    from ccdcseg.review.answers import ANSWERS_FILE, may_be_on, read_answers, take_answers
    from ccdcseg.review.review import mask_files

    raw = dataset_folder(nnunet_folder("nnUNet_raw"), dataset)
    answers = read_answers(path)
    asked = [case for case in read_cases(raw) if any(may_be_on(answer, case.case) for answer in answers)]
    masks = mask_files(raw, asked)
    hashes = {case: file_hash(mask) for case, mask in masks.items()}
    taken, kept = take_answers(raw, path, hashes)
    typer.echo(f"Answers: {raw / ANSWERS_FILE} ({_counts(taken)})")
    changed = [answer for answer in taken if kept.get(answer.case, answer).answer != answer.answer]
    if changed:
        typer.echo(f"Changed: {len(changed)} kept before, to {_counts(changed)}")
    for answer in changed[:10]:
        was = kept[answer.case].answer
        typer.echo(f"         {one_line(answer.case)}: {answer.answer}, was {was}")


def _counts(answers: "Sequence[Answer]") -> str:
    """How many of each."""
    said = sorted(answer.answer for answer in answers)
    return ", ".join(f"{said.count(answer)} {answer}" for answer in dict.fromkeys(said))


def _folds(
    dataset: str, method: str, fraction: float | None, seed: int, preset: str, changes: list[str], folds: int
) -> "list[Run]":
    """The trainings that are to be done or done already."""
    from ccdcseg.nnunet.runs import folds_of

    run = workflow.choose(dataset, method, fraction=fraction, seed=seed, preset=preset, changes=changes)
    trainings = folds_of(run, folds)
    if len(trainings) < folds:
        typer.echo(f"Folds:  {len(trainings)}, one for each labelled patient", err=True)
    return trainings


def _train(trainings: "list[Run]", device: str, yes: bool, processes: int) -> list[Path]:
    """Train what is not trained; what was interrupted goes on."""
    from ccdcseg.nnunet.duration import cpu_seconds

    to_do = [training for training in trainings if not training.finished]
    if device == "cpu" and to_do:
        confirm_long(cpu_seconds(to_do), f"Training {len(to_do)} models", yes)
    folders = []
    for number, training in enumerate(trainings, 1):
        name = f"fold {number} of {len(trainings)}"
        with progress_bars() as report:
            folder = workflow.train(
                training,
                resume=True,
                device=device,
                workers=processes,
                progress=lambda stage, *rest, name=name, report=report: report(f"{name}: {stage}", *rest),
            )
        folders.append(folder)
    return folders


def _review(
    dataset: str, runs: list[Path], cases: list[str] | None, named: list[str], output: Path, device: str
) -> None:
    from ccdcseg.datasets.cases import dataset_folder
    from ccdcseg.nnunet.paths import nnunet_folder

    raw = dataset_folder(nnunet_folder("nnUNet_raw"), dataset)
    folder = nnunet_folder("nnUNet_preprocessed") / raw.name / "ccdcseg_review"
    with cache_folder(folder) as cache, progress_bars() as report:
        result = workflow.review(
            dataset,
            runs,
            output,
            cache=cache,
            cases=cases,
            named=named,
            device=device,
            progress=report,
        )
    _say(result, absolute(output))


def _say(result: "Review", page: Path) -> None:
    """The suspicions that are strong, at most ten, and where everything is."""
    from ccdcseg.report.review_page import verdict
    from ccdcseg.review.review import ranking_file

    for reviewed in result.cases[: min(result.suspicious, 10)]:
        typer.echo(
            f"{reviewed.score:5.1f}  {one_line(f'{reviewed.case}: {reviewed.suspicions[0].sentence}')}"
        )
    typer.echo(f"{result.dataset}: {verdict(result)}")
    if result.measured:
        typer.echo(
            f"Note:    {result.measured} of them are of validation or test patients: masks that are changed where "
            "this network disagrees are measured more kindly with it."
        )
    typer.echo(f"Page:    {page}")
    typer.echo(f"Ranking: {ranking_file(page.with_suffix('.json'))}")
