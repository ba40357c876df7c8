"""Arguments and options that several commands have."""

from enum import StrEnum
from typing import Annotated

import typer

from ccdcseg.cli.completion import datasets, methods
from ccdcseg.cores import usable_cores
from ccdcseg.methods import METHODS


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


Dataset = Annotated[
    str,
    typer.Argument(help="Id or name of the dataset in $nnUNet_raw, such as 27.", autocompletion=datasets),
]
Targets = Annotated[
    list[str],
    typer.Argument(
        help="Run folders, or a dataset's id or name for all its finished runs.", autocompletion=datasets
    ),
]
MethodOption = Annotated[
    str, typer.Option(help=f"One of {', '.join(METHODS)}: see `ccdcseg methods`.", autocompletion=methods)
]
Processes = Annotated[int, typer.Option(min=1, envvar="nnUNet_def_n_proc", help="Worker processes.")]
Seeds = Annotated[
    list[int],
    typer.Option("--seed", min=0, help="Of split, weights, augmentation and sampling; repeatable."),
]
PartOption = Annotated[
    Part, typer.Option(help="Patients of the split: those for testing, or those for choosing settings.")
]
DeviceOption = Annotated[
    Device, typer.Option(help="Where to compute; auto: on a CUDA GPU where there is one, else on the CPU.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Train on a CPU though it takes longer than twelve hours.")]

PROCESSES = usable_cores()
