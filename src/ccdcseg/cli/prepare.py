"""``ccdcseg prepare``: raw releases and scans of one's own to data sets."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ccdcseg import workflow
from ccdcseg.cli.app import DATA, Commands, app
from ccdcseg.cli.options import PROCESSES, Processes
from ccdcseg.cli.output import say_next_split
from ccdcseg.datasets.sequences import CardiacSequence, ChaosSequence
from ccdcseg.errors import UserError
from ccdcseg.progress import progress_bars
from ccdcseg.texts import listed

prepare_app = Commands(help="Convert a raw release to nnU-Net's raw folder.", no_args_is_help=True)
app.add_typer(prepare_app, name="prepare", rich_help_panel=DATA)

DatasetId = Annotated[int, typer.Option("--dataset", min=1, max=999, help="nnU-Net dataset id to give it.")]


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
    typer.Option(
        "--image",
        help="Where images lie, such as {patient}/{phase}.nii.gz, or {patient}/CT for DICOM; one for each channel.",
    ),
]
MaskPattern = Annotated[
    str | None,
    typer.Option(
        "--mask",
        help="Where masks lie, such as masks/{patient}_{phase}.nii.gz; a file holds all classes of a scan.",
    ),
]
ScanTable = Annotated[
    Path | None,
    typer.Option(
        "--table", help="CSV with the columns image, mask, patient, maybe phase, group, slices, image_1."
    ),
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
    if image and (mask or unlabelled) and table is None:
        found_by = Layout(tuple(image), mask, folders=context.info_name == "dicom")
    elif table is not None and not image and not mask:
        found_by = table
    else:
        raise UserError(
            "Scans are found by --image and --mask, or by --table.",
            "Give the two, or the one; --mask may be left out with --unlabelled, before anything is annotated.",
        )
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
        typer.echo(f"No mask: {listed(scans)}: put into imagesTs, in no split.")


def _say_notes(folder: Path) -> None:
    from ccdcseg.datasets.release import NOTES_FILE, read_notes

    for note, cases in read_notes(folder).items():
        more = f" and {len(cases) - 3} more ({folder / NOTES_FILE})" if len(cases) > 3 else ""
        typer.echo(f"Note:    {note}: {', '.join(cases[:3])}{more}.")


def _prepare(
    convert: Callable[..., Path], source: Path, dataset: int, processes: int, **settings: object
) -> Path:
    from ccdcseg.datasets.cases import UNLABELLED, read_cases
    from ccdcseg.datasets.release import unlabelled_scans

    with progress_bars() as report:
        made = workflow.prepare(convert, source, dataset, workers=processes, progress=report, **settings)
    typer.echo(f"Dataset: {made.folder}" if made.is_new else f"Prepared already: {made.folder}")
    _say_notes(made.folder)
    if made.is_new and (made.folder / "labelsTr").exists():
        cases = read_cases(made.folder)
        typer.echo(f"Scans:   {len(cases)} with masks, of {len({case.patient for case in cases})} patients")
        say_next_split(dataset, made.folder, Path(UNLABELLED) if unlabelled_scans(made.folder) else None)
    elif made.is_new:
        typer.echo(f"Next:    ccdcseg next {dataset}")
    return made.folder
