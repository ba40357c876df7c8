"""``ccdcseg reproduce``: tables and figures of the paper, and those that users declare."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccdcseg.cli.app import EXPERIMENTS, app
from ccdcseg.cli.completion import presets
from ccdcseg.cli.options import Dataset, Device, DeviceOption, Part, PartOption, Yes
from ccdcseg.cli.output import chosen_device, confirm_long, say_report
from ccdcseg.errors import UserError
from ccdcseg.files import absolute, locked
from ccdcseg.progress import progress_bars

if TYPE_CHECKING:
    from ccdcseg.experiments.jobs import Job
    from ccdcseg.experiments.runner import Runner
    from ccdcseg.experiments.slurm import SlurmRunner


class Launcher(StrEnum):
    """What runs trainings side by side."""

    LOCAL = "local"
    SLURM = "slurm"


@app.command(rich_help_panel=EXPERIMENTS)
def reproduce(
    dataset: Dataset,
    experiments: Annotated[
        list[str],
        typer.Argument(
            help="table1 to table8, figure6, figure7, or a YAML file of your own (docs/reproduce.md)."
        ),
    ],
    preset: Annotated[
        str, typer.Option(help="cpu, paper, smoke, or a file.", autocompletion=presets)
    ] = "cpu",
    seed: Annotated[
        list[int],
        typer.Option(min=0, help="Repeatable. Default: those of the experiment.", show_default=False),
    ] = [],  # noqa: B006
    only: Annotated[
        list[str],
        typer.Option(help="Row of a table, such as ccdc; repeatable. Default: all.", show_default=False),
    ] = [],  # noqa: B006
    part: PartOption = Part.TEST,
    processes: Annotated[int, typer.Option(min=1, help="Trainings side by side.")] = 1,
    launcher: Annotated[
        Launcher, typer.Option(help="Processes here, or a SLURM job array.")
    ] = Launcher.LOCAL,
    slurm: Annotated[
        list[str],
        typer.Option(help="submitit's option, such as slurm_partition=gpu or timeout_min=600; repeatable."),
    ] = [],  # noqa: B006
    device: DeviceOption = Device.AUTO,
    yes: Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print a command line for each run to do, nothing else.")
    ] = False,
    gpu_check: Annotated[
        Path | None,
        typer.Option(help="What benchmarks/gpu_check.py wrote: --dry-run tells hours and memory by it."),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Results, tables, figures and the page report.html.")
    ] = Path("reproduced"),
) -> None:
    """Tables and figures of the paper: train, predict and measure what is not there yet, then write them."""
    from ccdcseg.datasets.cases import dataset_folder
    from ccdcseg.experiments.experiment import load_experiments
    from ccdcseg.experiments.jobs import Choice, plan_all
    from ccdcseg.experiments.outputs import check_outputs, write_outputs, write_page
    from ccdcseg.experiments.reproduce import distinct, outlook, run_jobs, unfinished
    from ccdcseg.experiments.stale import held_against_today, set_aside
    from ccdcseg.experiments.threads import plan_threads
    from ccdcseg.nnunet.duration import thread_seconds_left
    from ccdcseg.nnunet.paths import nnunet_folder

    declared = load_experiments(experiments)
    chosen = chosen_device(device) if launcher is Launcher.LOCAL else device.value  # nodes have other devices
    raw = dataset_folder(nnunet_folder("nnUNet_raw"), dataset)
    choice = Choice(raw.name, preset, tuple(dict.fromkeys(seed)), tuple(only), part.value, chosen)
    jobs = plan_all(declared, choice, output)
    wanted = held_against_today(distinct(job for planned in jobs.values() for job in planned))
    nodes = _node_options(launcher, slurm)
    threads = plan_threads(wanted, processes, nodes)

    def look_ahead() -> None:
        typer.echo(outlook(wanted, processes, threads.count), err=True)

    if threads.note:
        typer.echo(f"Note: {threads.note}", err=True)
    if dry_run:
        _look_ahead(unfinished(wanted), gpu_check, chosen)
        look_ahead()
        return
    if gpu_check:
        raise UserError("--gpu-check is for --dry-run.", "Add --dry-run, or leave it out.")
    for name, experiment in declared.items():
        check_outputs(experiment, choice, absolute(output) / name)
    if chosen == "cpu" and threads.count:
        todo = [thread_seconds_left([job.training]) for job in unfinished(wanted)]
        longest = max(todo, default=0.0)
        confirm_long(longest / threads.count, "The longest of these trainings", yes)
    runner = _runner(processes, threads.count, nodes, chosen, absolute(output))
    try:
        with locked(absolute(output), "reproduce"), progress_bars() as report:
            wanted = set_aside(wanted)
            problems = run_jobs(wanted, runner, report, look_ahead)
            results = [
                write_outputs(e, choice, jobs[name], absolute(output) / name)
                for name, e in declared.items()
                if any(job.finished for job in jobs[name])
            ]
            page = write_page(results, wanted, part, absolute(output), report)
    except KeyboardInterrupt as error:
        raise UserError("Interrupted; trainings were stopped.", "The same command goes on.") from error
    for result in results:
        typer.echo(result.markdown)
        for path in result.files:
            typer.echo(f"Written: {path}")
    if page:
        say_report(page)
    failures = [_failure(job, problem) for job, problem in problems.items()]
    failures += [f"{result.experiment.title}: {result.problem}" for result in results if result.problem]
    for failure in failures:
        typer.echo(f"Failed: {failure}", err=True)
    if failures:
        raise typer.Exit(1)


def _failure(job: "Job", problem: str) -> str:
    """What went wrong; a task of SLURM that never began has no log."""
    return f"{job.label}: {problem}" + f" ({job.log})" * job.log.exists()


def _look_ahead(jobs: "list[Job]", gpu_check: Path | None, device: str) -> None:
    """A command line for each job, with what it takes on a GPU."""
    from ccdcseg.experiments.gpu import UNKNOWN, forecast, needs, read_check

    check = read_check(gpu_check) if gpu_check else None
    for job in jobs:
        typer.echo(f"{job.line}  # {needs(job, check) or 'not measured'}" if check else job.line)
    if check:
        typer.echo(forecast(jobs, check), err=True)
    elif device != "cpu":
        typer.echo(UNKNOWN, err=True)


def _node_options(launcher: Launcher, slurm: list[str]) -> dict[str, Any] | None:
    """Submitit's options; None where this machine computes."""
    from ccdcseg.experiments.slurm import parse_options

    if launcher is Launcher.SLURM:
        return parse_options(slurm)
    if slurm:
        raise UserError("--slurm is for --launcher slurm.", "Add --launcher slurm, or leave it out.")
    return None


def _runner(
    processes: int, threads: int | None, nodes: dict[str, Any] | None, device: str, output: Path
) -> "Runner | SlurmRunner":
    from ccdcseg.experiments.runner import Runner, visible_gpus
    from ccdcseg.experiments.slurm import SlurmRunner

    if nodes is not None:
        return SlurmRunner(processes, output / "slurm", nodes, threads)
    return Runner(processes, threads, visible_gpus() if device == "cuda" else ())
