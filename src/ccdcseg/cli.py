"""The command ``ccdcseg``: parse, call, print. Everything slow is imported by the command that needs it."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ccdcseg import __version__, workflow
from ccdcseg.cores import usable_cores
from ccdcseg.datasets.sequences import CardiacSequence, ChaosSequence
from ccdcseg.errors import UserError, system_error
from ccdcseg.files import absolute, check_file, check_name, check_writable, locked
from ccdcseg.methods import METHODS
from ccdcseg.processes import terminated_as_interrupted
from ccdcseg.progress import progress_bars
from ccdcseg.streams import settle_streams

if TYPE_CHECKING:
    from ccdcseg.experiments.runner import Runner
    from ccdcseg.experiments.slurm import SlurmRunner
    from ccdcseg.tabular import Grid


class _Commands(TyperGroup):
    """All commands. An interrupt is told in our words; left to typer it would end without one."""

    def invoke(self, ctx: Any) -> Any:
        """As typer does, but for an interrupt."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise UserError(
                "Interrupted.", "Nothing half-made was left; run the same command again."
            ) from error


app = typer.Typer(
    cls=_Commands,
    help="Segmentation with few labels: CCDC in nnU-Net, from raw scans to measured results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
prepare_app = typer.Typer(help="Convert a raw release to nnU-Net's raw folder.", no_args_is_help=True)
app.add_typer(prepare_app, name="prepare")


class Device(StrEnum):
    """Where it can be trained."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Part(StrEnum):
    """Patients of a split that can be predicted and measured."""

    TEST = "test"
    VALIDATION = "validation"


class Launcher(StrEnum):
    """What runs trainings side by side."""

    LOCAL = "local"
    SLURM = "slurm"


class DemoData(StrEnum):
    """On what the demonstration runs."""

    PHANTOM = "phantom"
    ACDC = "acdc"


DatasetId = Annotated[int, typer.Option("--dataset", min=1, max=999, help="nnU-Net dataset id to give it.")]
Dataset = Annotated[str, typer.Argument(help="Id or name of the dataset in $nnUNet_raw, such as 27.")]
Targets = Annotated[
    list[str], typer.Argument(help="Run folders, or a dataset's id or name for all its finished runs.")
]
Processes = Annotated[int, typer.Option(min=1, envvar="nnUNet_def_n_proc", help="Worker processes.")]
PartOption = Annotated[
    Part, typer.Option(help="Patients of the split: those for testing, or those for choosing settings.")
]
DeviceOption = Annotated[
    Device, typer.Option(help="Where to compute; auto: on a CUDA GPU where there is one, else on the CPU.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Train on a CPU though it takes longer than twelve hours.")]


PROCESSES = usable_cores()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ccdcseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


@prepare_app.command("acdc")
def prepare_acdc_command(
    source: Annotated[
        Path, typer.Argument(help="The release with its patientNNN folders, or its zip archive.")
    ],
    dataset: DatasetId,
    processes: Processes = PROCESSES,
) -> None:
    """ACDC (cine cardiac MRI, 100 or 150 patients) as it is distributed."""
    from ccdcseg.datasets.acdc import prepare_acdc

    _prepare(prepare_acdc, source, dataset, processes)


@prepare_app.command("chaos")
def prepare_chaos_command(
    source: Annotated[
        Path, typer.Argument(help="The release or its zip archive, its folder MR, or one patient's.")
    ],
    dataset: DatasetId,
    sequence: Annotated[
        list[ChaosSequence],
        typer.Option(help="Images to take, each a case of its own; repeatable. Default: all three."),
    ] = list(ChaosSequence),  # noqa: B006
    processes: Processes = PROCESSES,
) -> None:
    """CHAOS, MR part (abdominal T1-DUAL and T2-SPIR, four organs): DICOM slices with PNG masks."""
    from ccdcseg.datasets.chaos import prepare_chaos_mr

    _prepare(prepare_chaos_mr, source, dataset, processes, sequences=sequence)


@prepare_app.command("chaos-ct")
def prepare_chaos_ct_command(
    source: Annotated[
        Path, typer.Argument(help="The release or its zip archive, its folder CT, or one patient's.")
    ],
    dataset: DatasetId,
    processes: Processes = PROCESSES,
) -> None:
    """CHAOS, CT part (abdominal CT, the liver): DICOM slices with PNG masks."""
    from ccdcseg.datasets.chaos import prepare_chaos_ct

    _prepare(prepare_chaos_ct, source, dataset, processes)


@prepare_app.command("mscmrseg")
def prepare_mscmrseg_command(
    source: Annotated[
        Path, typer.Argument(help="The release or its zip archive, images and masks in any folders.")
    ],
    dataset: DatasetId,
    sequence: Annotated[CardiacSequence, typer.Option(help="Images to take.")] = CardiacSequence.LGE,
    processes: Processes = PROCESSES,
) -> None:
    """MS-CMRSeg (cardiac MRI: LGE, T2 or bSSFP), the challenge's release or the later one."""
    from ccdcseg.datasets.mscmrseg import prepare_mscmrseg

    _say_unlabelled(_prepare(prepare_mscmrseg, source, dataset, processes, sequence=sequence))


SourceFolder = Annotated[
    Path, typer.Argument(help="Folder below which images and masks lie, or a zip archive of it.")
]
Name = Annotated[str, typer.Option(help="Name of the data set.")]
Label = Annotated[
    list[str], typer.Option(help="Class and its value in the masks, such as liver=1; repeatable.")
]
Channel = Annotated[
    list[str],
    typer.Option(help="MRI, CT or another word of nnU-Net, by which it normalises; one for each image."),
]
ImagePattern = Annotated[
    list[str] | None,
    typer.Option("--image", help="Where images lie, such as {patient}/{phase}.nii.gz; one for each channel."),
]
MaskPattern = Annotated[
    str | None, typer.Option("--mask", help="Where masks lie, such as masks/{patient}_{phase}.nii.gz.")
]
ScanTable = Annotated[
    Path | None,
    typer.Option("--table", help="CSV with the columns image, mask, patient, maybe phase, group, image_1."),
]
EmptyMasks = Annotated[
    bool, typer.Option("--empty-masks", help="Masks may be empty, as those of healthy controls.")
]
Unlabelled = Annotated[bool, typer.Option("--unlabelled", help="Images without a mask go to imagesTs.")]


@prepare_app.command(
    "dicom", help="Your own folders of DICOM slices, with masks as DICOM segmentations or NIfTI."
)
@prepare_app.command("nifti", help="Your own NIfTI images and masks, found by patterns or listed in a table.")
def prepare_own_command(
    context: typer.Context,
    source: SourceFolder,
    dataset: DatasetId,
    name: Name,
    label: Label,
    channel: Channel,
    image: ImagePattern = None,
    mask: MaskPattern = None,
    table: ScanTable = None,
    unlabelled: Unlabelled = False,
    empty_masks: EmptyMasks = False,
    processes: Processes = PROCESSES,
) -> None:
    """Scans of one's own; the command's name says whether a pattern of images finds files or folders."""
    from ccdcseg.datasets.own import Layout, OwnData, prepare_own

    found_by: Layout | Path
    if image and mask and table is None:
        found_by = Layout(tuple(image), mask, folders=context.info_name == "dicom")
    elif table is not None and not image and not mask:
        found_by = table
    else:
        raise UserError("Scans are found by --image and --mask, or by --table.", "Give the two, or the one.")
    data = OwnData(name, _labels(label), channel, unlabelled, empty_masks)
    _say_unlabelled(_prepare(prepare_own, source, dataset, processes, data=data, found_by=found_by))


def _labels(texts: list[str]) -> dict[str, int]:
    labels = dict(_label(text) for text in texts)
    if len(labels) < len(texts):
        raise UserError("A --label is given twice.", "Give each class one value.")
    return labels


def _label(text: str) -> tuple[str, int]:
    name, equals, value = text.rpartition("=")
    if not (equals and name and value.removeprefix("-").isdecimal()):
        raise UserError(f"--label {text} is not of the form NAME=VALUE.", "Write for instance liver=1.")
    return name, int(value)


def _say_unlabelled(folder: Path) -> None:
    from ccdcseg.datasets.release import unlabelled_scans

    if scans := unlabelled_scans(folder):
        typer.echo(f"No mask: {', '.join(scans)}: put into imagesTs, in no split.")


def _say_notes(folder: Path) -> None:
    from ccdcseg.datasets.release import NOTES_FILE, read_notes

    for note, cases in read_notes(folder).items():
        more = f" and {len(cases) - 3} more ({folder / NOTES_FILE})" if len(cases) > 3 else ""
        typer.echo(f"Note:    {note}: {', '.join(cases[:3])}{more}.")


def _prepare(
    convert: Callable[..., Path], source: Path, dataset: int, processes: int, **settings: object
) -> Path:
    with progress_bars() as report:
        made = workflow.prepare(convert, source, dataset, workers=processes, progress=report, **settings)
    typer.echo(f"Dataset: {made.folder}" if made.is_new else f"Prepared already: {made.folder}")
    _say_notes(made.folder)
    if made.is_new:
        typer.echo(f"Next:    ccdcseg split {dataset} --fraction 0.1 --seed 0")
    return made.folder


@app.command()
def patients(
    dataset: Dataset,
    pattern: Annotated[
        str | None,
        typer.Option(help="How cases are named: {patient}, {phase}, {group}, {} for what does not matter."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="CSV with the columns case and patient, maybe group and phase.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of scans without masks, such as imagesTs, instead of the annotated cases."),
    ] = None,
) -> None:
    """Say whose scans the cases of an existing nnU-Net raw folder are, before `split`."""
    from ccdcseg.datasets.cases import dataset_folder
    from ccdcseg.datasets.raw_folder import assign_patients
    from ccdcseg.nnunet.paths import nnunet_folder

    cases = assign_patients(dataset_folder(nnunet_folder("nnUNet_raw"), dataset), pattern, table, images)
    scans = Counter(case.patient for case in cases)
    groups = len({case.group for case in cases})
    fewest, most = min(scans.values()), max(scans.values())
    each = f"{fewest} each" if fewest == most else f"{fewest} to {most} each"
    typer.echo(
        f"{len(cases)} cases of {len(scans)} patients, {each}; {groups} group{'s' if groups > 1 else ''}"
    )
    typer.echo(f"Next:    ccdcseg split {dataset} --fraction 0.1 --seed 0")


@app.command()
def check(
    dataset: Dataset,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The page to write; check.json lies beside it.")
    ] = Path("check.html"),
    processes: Processes = PROCESSES,
) -> None:
    """What a careful person looks for before training: one HTML page. Exit code 1 where there is a problem."""
    from rich.console import Console

    from ccdcseg.datasets.cases import dataset_folder
    from ccdcseg.datasets.checks import check_dataset, write_check
    from ccdcseg.nnunet.paths import nnunet_folder
    from ccdcseg.report.check_page import build_check_page, findings_table, verdict

    raw = dataset_folder(nnunet_folder("nnUNet_raw"), dataset)
    check_file(output)
    if output.suffix == ".json":
        raise UserError(f"The page {output} would be overwritten by its own JSON.", "Name it check.html.")
    with (
        _cache(nnunet_folder("nnUNet_preprocessed") / raw.name / "ccdcseg_check") as cache,
        progress_bars() as report,
    ):
        result = check_dataset(
            raw, cache / "measurements", processes, lambda done, total: report("measure", done, total)
        )
        build_check_page(
            result, output, cache / "pictures", processes, lambda done, total: report("draw", done, total)
        )
        write_check(result, output.with_suffix(".json"))
    if result.findings:
        Console().print(findings_table(result))
    typer.echo(f"{raw.name}: {verdict(result)} Page: {absolute(output)}")
    if result.problems:
        raise typer.Exit(1)


@contextmanager
def _cache(folder: Path) -> Iterator[Path]:
    """A folder for what is measured; where it cannot be written to, one that goes again."""
    try:
        check_writable(folder)
    except OSError as error:
        typer.echo(f"Nothing is kept for the next time: {system_error(error).problem}", err=True)
        with TemporaryDirectory() as other:
            yield Path(other)
    else:
        yield folder


@app.command()
def split(
    dataset: Dataset,
    fraction: Annotated[
        list[float] | None, typer.Option(help="Share of the patients to train on; repeatable.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Draw the shares of a preset instead, such as paper or paper_chaos.")
    ] = None,
    seed: Annotated[list[int], typer.Option(min=0, help="Seed of the draw; repeatable.")] = [0],  # noqa: B006
    test: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Patients set aside for testing, the same for every seed; all others that are not trained on "
            "are then for choosing settings. Default: test on everybody else.",
            show_default=False,
        ),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            help="Scans that take part without masks: a folder, such as imagesTs, or a number of annotated "
            "patients whose masks are then never read.",
            show_default=False,
        ),
    ] = None,
    redraw: Annotated[
        bool,
        typer.Option(
            "--redraw",
            help="Replace splits of these fractions and seeds that were drawn otherwise, such as before cases.csv "
            "was corrected. What was trained on them is kept and no longer used.",
        ),
    ] = False,
) -> None:
    """Draw few-label splits: patient-wise, stratified, nested and seeded."""
    from ccdcseg.nnunet.preset import load_preset

    if (fraction is None) == (preset is None):
        raise UserError("A split has either --fraction or --preset.", "Give one of them.")
    fractions = fraction or load_preset(str(preset))[1].labelled.fractions
    without_masks = (
        int(unlabelled) if unlabelled and unlabelled.isdecimal() else unlabelled and Path(unlabelled)
    )
    for one in seed:
        for entry in workflow.split(
            dataset, fractions, [one], test=test, unlabelled=without_masks or None, redraw=redraw
        ):
            _say_split(entry)


def _say_split(entry: dict[str, Any]) -> None:
    parts = [
        f"{part} {count['patients']} patients, {count['cases']} scans, {count['slices']} slices"
        for part, count in entry["counts"].items()
        if count["patients"]
    ]
    drawn = f"fraction {entry['fraction']:g}, seed {entry['seed']}"
    typer.echo(f"{drawn}: {'; '.join(parts)}; hash {entry['hash'][:12]}")
    typer.echo(f"  training patients: {', '.join(entry['patients']['train'])}")
    if scans := entry.get("unlabelled"):
        typer.echo(f"  without masks: {len(scans['cases'])} scans of {scans['images']}")
        for scan, patient in scans.get("left_out", {}).items():
            typer.echo(f"  left out: {scan}, since patient {patient} is measured")


@app.command()
def train(
    dataset: Dataset,
    method: Annotated[
        str, typer.Option(help=f"One of {', '.join(METHODS)}: see `ccdcseg methods`.")
    ] = "ccdc",
    fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the patients to train on. Default: the preset's first, mostly 0.1.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of split, weights, augmentation and sampling.")] = 0,
    preset: Annotated[
        str,
        typer.Option(
            help="cpu, smoke, paper (for ACDC), paper_chaos, paper_mscmrseg, nnformer_cpu and so on, or a file."
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
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")] = False,
    yes: Yes = False,
    device: DeviceOption = Device.AUTO,
    processes: Processes = PROCESSES,
) -> None:
    """Train one model; planning and preprocessing happen where they are still to be done."""
    from ccdcseg.nnunet.duration import cpu_seconds
    from ccdcseg.nnunet.trained import check_trained

    run = workflow.choose(
        dataset,
        method,
        fraction=fraction,
        seed=seed,
        preset=preset,
        changes=change,
        unlabelled=unlabelled,
        self_training=self_training,
    )
    if run.finished:
        check_trained(run)
        typer.echo(f"Trained already: {run.folder}")
        return
    chosen = _chosen(device)
    if chosen == "cpu":
        _confirm(cpu_seconds(run), "This training", yes)
    try:
        with progress_bars() as report:
            folder = workflow.train(run, resume=resume, device=chosen, workers=processes, progress=report)
    except KeyboardInterrupt as error:
        raise UserError(
            "Interrupted.", "The same command with --resume continues from the last checkpoint."
        ) from error
    typer.echo(f"Run:  {folder}")
    typer.echo(f"Next: ccdcseg predict {dataset}")


def _chosen(device: Device) -> str:
    """The device that computes; what was found is said."""
    from ccdcseg.devices import usable_device

    chosen = usable_device(device.value)
    if device is Device.AUTO:
        typer.echo(f"Device: {chosen}", err=True)
    return chosen


def _confirm(seconds: float, what: str, yes: bool) -> None:
    """Let a long training on a CPU be confirmed, by option or on the terminal."""
    from ccdcseg.nnunet.duration import LONG_SECONDS, duration_text

    if seconds <= LONG_SECONDS:
        return
    warning = f"{what} takes roughly {duration_text(seconds)} on this CPU."
    if yes:
        typer.echo(warning, err=True)
    elif not (sys.stdin.isatty() and typer.confirm(f"{warning} Go on?", err=True)):
        raise UserError(warning, "Confirm it with --yes, take a preset such as cpu, or a machine with a GPU.")


@app.command()
def predict(
    targets: Targets,
    images: Annotated[
        Path | None, typer.Option("--input", help="Folder of images to predict, for one run.")
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
    """Predict the test cases of runs, or any folder of images with one run."""
    from ccdcseg.nnunet.runs import find_runs

    if images is not None and output is None:
        raise UserError("--input needs an --output.", "Give both, or neither for the test cases.")
    if images is not None and part is Part.VALIDATION:
        raise UserError("--input and --part exclude each other.", "Leave one of them out.")
    if images is None and (keep or not postprocessing):
        raise UserError(
            "--keep and --no-postprocessing are for --input.",
            "Test cases are predicted both ways: predictions_plain has every piece.",
        )
    runs = [run for target in targets for run in find_runs(target)]
    output = _in_place_of(runs, output)
    chosen = _chosen(device)
    for run in runs:
        with progress_bars() as report:
            place = workflow.predict(
                run,
                images,
                output,
                part=part,
                postprocessing=postprocessing,
                keep=keep,
                device=chosen,
                progress=report,
            )
        typer.echo(f"Predictions: {place.folder} ({place.description})")


def _in_place_of(runs: list[Path], output: Path | None) -> Path | None:
    """The folder that stands in for a run's own."""
    if output is not None and len(runs) != 1:
        raise UserError(f"--output is for one run, {len(runs)} were given.", "Name one run's folder.")
    return output and absolute(output)


@app.command()
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
    from ccdcseg.evaluation.evaluate import summary_grid
    from ccdcseg.evaluation.runs import predictions_folder
    from ccdcseg.nnunet.runs import find_runs
    from ccdcseg.runs.record import PLAIN_PREDICTIONS, read_record

    results = {}
    runs = [run for target in targets for run in find_runs(target)]
    output = _in_place_of(runs, output)
    for run in runs:
        with progress_bars() as report:
            measured = workflow.evaluate(run, part, output=output, workers=processes, progress=report)
        for predictions, result in measured.items():
            plain = ", as predicted" if predictions == PLAIN_PREDICTIONS else ""
            results[f"{read_record(run).label}{plain}"] = result
        if output:
            typer.echo(f"Predictions: {predictions_folder(run, part, output)}")
        typer.echo(f"Evaluation: {part_folder(output or run, part) / 'evaluation.json'}")
    _show(summary_grid(results))


@app.command()
def compare(
    targets: Targets,
    of: Annotated[
        str | None,
        typer.Option(help="Method to compare with each other one; default: each method with its nnU-Net."),
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
    from ccdcseg.nnunet.runs import find_runs
    from ccdcseg.report.comparison import compare_runs, write_comparison

    if output:
        check_file(Path(f"{absolute(output)}.json"))
    runs = [run for target in targets for run in find_runs(target)]
    result = compare_runs(runs, part, of, metric, "case" if as_in_the_paper else "patient")
    for grid in result.grids():
        _show(grid)
    for sentence in result.left_out:
        typer.echo(f"Not compared: {sentence}")
    for path in write_comparison(result, absolute(output)) if output else []:
        typer.echo(f"Comparison: {path}")


def _show(grid: "Grid") -> None:
    from rich.console import Console

    from ccdcseg.tabular import to_screen

    console = Console()
    console.print(to_screen(grid, console.width))


@app.command()
def reproduce(
    experiments: Annotated[
        list[str],
        typer.Argument(
            help="table1 to table8, figure6, figure7, or a YAML file of your own (docs/reproduce.md)."
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Id or name of the dataset in $nnUNet_raw, such as 27.")],
    preset: Annotated[str, typer.Option(help="cpu, paper, smoke, or a file.")] = "cpu",
    seeds: Annotated[str, typer.Option(help="Such as 0,1,2. Default: those of the experiment.")] = "",
    only: Annotated[str, typer.Option(help="Rows, such as ccdc,nnunet. Default: all.")] = "",
    part: PartOption = Part.TEST,
    workers: Annotated[int, typer.Option(min=1, help="Trainings side by side.")] = 1,
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
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Results, tables, figures and the page report.html.")
    ] = Path("reproduced"),
) -> None:
    """Tables and figures of the paper: train, predict and measure what is not there yet, then write them."""
    from ccdcseg.experiments.experiment import load_experiments
    from ccdcseg.experiments.jobs import Choice, plan_all
    from ccdcseg.experiments.outputs import write_outputs, write_page
    from ccdcseg.experiments.reproduce import distinct, outlook, run_jobs, unfinished
    from ccdcseg.experiments.stale import held_against_today, set_aside
    from ccdcseg.experiments.threads import plan_threads

    declared = load_experiments(experiments)
    chosen = _chosen(device) if launcher is Launcher.LOCAL else device.value  # nodes have other devices
    choice = Choice(dataset, preset, _numbers(seeds), _words(only), part.value, chosen)
    jobs = plan_all(declared, choice, output)
    wanted = held_against_today(distinct(job for planned in jobs.values() for job in planned))
    threads = plan_threads(wanted, workers)

    def look_ahead() -> None:
        typer.echo(outlook(wanted, workers, threads.count), err=True)

    if threads.note:
        typer.echo(f"Note: {threads.note}", err=True)
    if dry_run:
        for job in unfinished(wanted):
            typer.echo(job.line)
        look_ahead()
        return
    if chosen == "cpu":
        longest = max((job.train_seconds for job in unfinished(wanted)), default=0.0)
        _confirm(longest / threads.count, "The longest of these trainings", yes)
    runner = _runner(workers, threads.count, launcher, slurm, chosen, absolute(output))
    try:
        with locked(absolute(output), "reproduce"), progress_bars() as report:
            wanted = set_aside(wanted)
            problems = run_jobs(wanted, runner, report, look_ahead)
            results = [
                write_outputs(e, choice, jobs[name], absolute(output) / name) for name, e in declared.items()
            ]
            page = write_page(results, wanted, part, absolute(output), partial(report, "scans"))
    except KeyboardInterrupt as error:
        raise UserError("Interrupted; trainings were stopped.", "The same command goes on.") from error
    for result in results:
        typer.echo(result.markdown)
        for path in result.files:
            typer.echo(f"Written: {path}")
    if page:
        _say_report(page)
    failures = [f"{job.label}: {problem} ({job.log})" for job, problem in problems.items()]
    failures += [f"{result.experiment.title}: {result.problem}" for result in results if result.problem]
    for failure in failures:
        typer.echo(f"Failed: {failure}", err=True)
    if failures:
        raise typer.Exit(1)


def _runner(
    workers: int, threads: int, launcher: Launcher, slurm: list[str], device: str, output: Path
) -> "Runner | SlurmRunner":
    from ccdcseg.experiments.runner import Runner, visible_gpus
    from ccdcseg.experiments.slurm import SlurmRunner, parse_options

    if launcher is Launcher.SLURM:
        return SlurmRunner(workers, output / "slurm", parse_options(slurm))
    if slurm:
        raise UserError("--slurm is for --launcher slurm.", "Add --launcher slurm, or leave it out.")
    return Runner(workers, threads, visible_gpus() if device == "cuda" else ())


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _numbers(text: str) -> tuple[int, ...]:
    if not all(word.isdecimal() for word in _words(text)):
        raise UserError(f"--seeds {text} is no list of numbers.", "Write for instance --seeds 0,1,2.")
    return tuple(int(word) for word in _words(text))


@app.command("report")
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
    from ccdcseg.report.page import build_report

    check_file(output)
    runs = [run for target in targets for run in find_runs(target)]
    with progress_bars() as report:
        build_report(runs, output, title, progress=partial(report, "scans"), part=part)
    _say_report(absolute(output))


def _say_report(page: Path) -> None:
    from ccdcseg.report.viewer import NO_VIEWER, niivue_script

    typer.echo(f"Report: {page}")
    if niivue_script() is None:
        typer.echo(f"Note:   {NO_VIEWER}")


@app.command()
def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Everything that is known, as JSON.")] = False,
) -> None:
    """What can be trained, and where each method comes from."""
    if as_json:
        typer.echo(json.dumps([asdict(m) | {"settings": m.settings} for m in METHODS.values()], indent=2))
        return
    for method in METHODS.values():
        typer.echo(f"{method.name}: {method.trainer}\n    {method.source}\n    deviation: {method.deviation}")


@app.command()
def trainers() -> None:
    """Folder for nnU-Net's variable nnUNet_extTrainer: export nnUNet_extTrainer="$(ccdcseg trainers)"."""
    typer.echo(Path(__file__).parent / "nnunet" / "discovery")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo"),
    data: Annotated[
        DemoData, typer.Option(help="The synthetic phantom, or real ACDC scans in $CCDCSEG_DATA.")
    ] = DemoData.PHANTOM,
) -> None:
    """The whole path on a synthetic cardiac phantom (or real ACDC scans), from raw release to report."""
    from ccdcseg.demo import run_demo

    with locked(absolute(folder), "demo"), progress_bars() as report:
        page = run_demo(absolute(folder), data, report)
    _say_report(page)


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    os.environ["PYTHONSAFEPATH"] = "1"  # worker processes take no module from the current folder
    settle_streams()
    try:
        for word in sys.argv[1:]:
            check_name(Path(word))
        with terminated_as_interrupted():
            app(standalone_mode=True)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        _fail(str(system_error(error)))


def _fail(message: str) -> None:
    typer.echo(f"ccdcseg: {message}", err=True)
    sys.exit(2)
