"""Commands that make, use, measure and show trained networks."""

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccdcseg import workflow
from ccdcseg.cli.app import RUNS, app
from ccdcseg.cli.completion import presets
from ccdcseg.cli.options import (
    PROCESSES,
    Dataset,
    Device,
    DeviceOption,
    MethodOption,
    Part,
    PartOption,
    Processes,
    Seeds,
    Targets,
    Yes,
)
from ccdcseg.cli.output import chosen_device, confirm_long, say_report, show
from ccdcseg.errors import UserError
from ccdcseg.files import absolute, check_file
from ccdcseg.progress import progress_bars

if TYPE_CHECKING:
    from ccdcseg.nnunet.runs import Run


@app.command(rich_help_panel=RUNS)
def train(
    dataset: Dataset,
    method: MethodOption = "ccdc",
    fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the patients to train on. Default: the one that was drawn; where there are several, the "
            "preset's first, mostly 0.1.",
            show_default=False,
        ),
    ] = None,
    seed: Seeds = [0],  # noqa: B006
    preset: Annotated[
        str,
        typer.Option(
            help="cpu, smoke, paper (for ACDC), paper_chaos, paper_mscmrseg, nnformer_cpu and so on, or a file.",
            autocompletion=presets,
        ),
    ] = "cpu",
    change: Annotated[
        list[str], typer.Option("--set", help="A setting of the preset, such as ccdc.weight=0.1; repeatable.")
    ] = [],  # noqa: B006
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Train on the split's scans without masks too.")
    ] = False,
    self_training: Annotated[
        bool,
        typer.Option(
            "--self-training",
            help="The same, but three other trainings label these scans, which are done first.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted training, or wait for who is at it."),
    ] = False,
    yes: Yes = False,
    device: DeviceOption = Device.AUTO,
    processes: Processes = PROCESSES,
) -> None:
    """Train a model for each seed; planning and preprocessing happen where they are still to be done."""
    from ccdcseg.nnunet.trained import check_trained

    choose = partial(
        workflow.choose,
        dataset,
        method,
        fraction=fraction,
        preset=preset,
        changes=change,
        unlabelled=unlabelled,
        self_training=self_training,
    )
    runs = [choose(seed=one) for one in dict.fromkeys(seed)]
    for run in runs:
        if run.finished:
            check_trained(run)
            typer.echo(f"Trained already: {run.folder}")
    if to_do := [run for run in runs if not run.finished]:
        _train(to_do, chosen_device(device), resume, yes, processes)
        own = all(run.split["test"] for run in to_do)
        others = f"{shlex.quote(str(to_do[0].folder))} --input IMAGES --output FOLDER"
        typer.echo(f"Next: ccdcseg predict {dataset if own else others}")


def _train(runs: "list[Run]", device: str, resume: bool, yes: bool, processes: int) -> None:
    """One training after the other."""
    from ccdcseg.nnunet.duration import cpu_seconds

    if device == "cpu":
        what = "This training" if len(runs) == 1 else f"Training {len(runs)} models"
        confirm_long(cpu_seconds(runs), what, yes)
    for run in runs:
        try:
            with progress_bars() as report:
                folder = workflow.train(run, resume=resume, device=device, workers=processes, progress=report)
        except KeyboardInterrupt as error:
            raise UserError(
                "Interrupted.", "The same command with --resume continues from the last checkpoint."
            ) from error
        typer.echo(f"Run:  {folder}")


@app.command(rich_help_panel=RUNS)
def predict(
    targets: Targets,
    images: Annotated[
        Path | None,
        typer.Option("--input", help="Folder of images to predict, by the mean of the runs named."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Where predictions of --input go; without it a folder in place of the run's own."),
    ] = None,
    part: PartOption = Part.TEST,
    postprocessing: Annotated[
        bool,
        typer.Option(
            "--postprocessing/--no-postprocessing",
            help="Of --input: drop pieces by the rules of the training masks, or keep every piece.",
        ),
    ] = True,
    keep: Annotated[
        list[str],
        typer.Option(
            help="Of --input: another rule for a class or the foreground, such as RV=0 (keep all its pieces), RV=1 "
            "(the one with the most evidence) or RV=0.05 (those with that share of it); repeatable."
        ),
    ] = [],  # noqa: B006
    device: DeviceOption = Device.AUTO,
) -> None:
    """Predict the test cases of runs, or any folder of images with one run or several together."""
    from ccdcseg.nnunet.runs import find_runs

    runs = [run for target in targets for run in find_runs(target, part if images is None else None)]
    if images is not None and len(runs) > len(targets):
        raise UserError(
            f"{len(runs)} runs were found, and nothing says which are to predict together.",
            "Name their folders.",
        )
    jobs = [[run] for run in runs] if images is None else [runs]
    output = in_place_of(jobs, output)
    chosen = chosen_device(device)
    for job in jobs:
        with progress_bars() as report:
            place = workflow.predict(
                job,
                images,
                output,
                part=part,
                postprocessing=postprocessing,
                keep=keep,
                device=chosen,
                progress=report,
            )
        mean = f"mean of {len(job)} networks; " if len(job) > 1 else ""
        typer.echo(f"Predictions: {place.folder} ({mean}{place.description})")


def in_place_of(runs: Sequence[object], output: Path | None) -> Path | None:
    """The folder that stands in for a run's own."""
    if output is not None and len(runs) != 1:
        raise UserError(f"--output is for one run, {len(runs)} were given.", "Name one run's folder.")
    return output and absolute(output)


@app.command(rich_help_panel=RUNS)
def evaluate(
    targets: Targets,
    output: Annotated[
        Path | None, typer.Option(help="Folder in place of the run's own, as `predict --output` fills it.")
    ] = None,
    part: PartOption = Part.TEST,
    processes: Processes = PROCESSES,
) -> None:
    """Dice and HD95 of predicted runs by patient: JSON and CSV beside each run, a table on screen."""
    from ccdcseg.datasets.splits import part_folder
    from ccdcseg.nnunet.evaluate import predictions_folder
    from ccdcseg.nnunet.runs import find_runs
    from ccdcseg.runs.record import PLAIN_PREDICTIONS, read_record
    from ccdcseg.runs.scoring import summary_grid

    results = []
    records = {run: read_record(run) for target in targets for run in find_runs(target, part)}
    several = len({record.dataset for record in records.values()}) > 1
    output = in_place_of([*records], output)
    for run, record in records.items():
        with progress_bars() as report:
            measured = workflow.evaluate(run, part, output=output, workers=processes, progress=report)
        for predictions, result in measured.items():
            plain = ", as predicted" if predictions == PLAIN_PREDICTIONS else ""
            dataset = f"{record.dataset}: " if several else ""
            results.append((f"{dataset}{record.label}{plain}", result))
        if output:
            typer.echo(f"Predictions: {predictions_folder(run, part, output)}")
        typer.echo(f"Evaluation: {part_folder(output or run, part) / 'evaluation.json'}")
    show(summary_grid(results))


@app.command(rich_help_panel=RUNS)
def compare(
    targets: Targets,
    of: Annotated[
        str | None,
        typer.Option(
            help="Method to compare with each other one, and its settings among themselves; default: each method "
            "with its nnU-Net, or two runs with each other."
        ),
    ] = None,
    metric: Annotated[
        list[str], typer.Option(help="May be repeated; all metrics and pairs are one family.")
    ] = ["dice", "hd95_pooled_mm"],  # noqa: B006
    part: PartOption = Part.TEST,
    as_in_the_paper: Annotated[
        bool,
        typer.Option("--as-in-the-paper", help="Count scans as patients, which is wrong (see the docs)."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write OUTPUT.json, .csv, .md and .tex too.")
    ] = None,
) -> None:
    """Is one method better? Paired tests, intervals and ranks over the same patients."""
    from ccdcseg.nnunet.evaluate import check_measured
    from ccdcseg.nnunet.runs import find_runs
    from ccdcseg.report.comparison import SUFFIXES, check_comparison, compare_runs, write_comparison

    if output:
        if output.is_dir():
            raise UserError(f"{output} is a folder.", f"Name the files in it: -o {output / 'comparison'}")
        output = absolute(output.with_suffix("") if output.suffix in SUFFIXES else output)
        check_file(Path(f"{output}.json"))
        check_comparison(output)
    runs = [run for target in targets for run in find_runs(target)]
    for run in runs:
        check_measured(run, part)
    result = compare_runs(runs, part, of, metric, as_in_the_paper)
    for grid in result.grids():
        show(grid)
    for sentence in result.doubts:
        typer.echo(f"Doubtful: {sentence}")
    for sentence in result.left_out:
        typer.echo(f"Not compared: {sentence}")
    for path in write_comparison(result, output) if output else []:
        typer.echo(f"Comparison: {path}")


@app.command("report", rich_help_panel=RUNS)
def report_command(
    targets: Targets,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path("report.html"),
    title: Annotated[
        str, typer.Option(help="Heading of the page.")
    ] = "Few-label segmentation: CCDC and nnU-Net",
    part: PartOption = Part.TEST,
) -> None:
    """One HTML page of evaluated runs: tables, curves, pictures."""
    from ccdcseg.nnunet.runs import find_runs
    from ccdcseg.report.template import check_page

    check_page(output, "report")
    runs = [run for target in targets for run in find_runs(target)]
    with progress_bars() as report:
        workflow.report(runs, output, title, part, progress=report)
    say_report(absolute(output))
