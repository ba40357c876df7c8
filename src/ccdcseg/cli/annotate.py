"""Commands about masks: which to draw next."""

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccdcseg.cli.app import DATA, app
from ccdcseg.cli.options import PROCESSES, Dataset, Device, DeviceOption, Processes
from ccdcseg.cli.output import cache_folder
from ccdcseg.files import absolute, check_beside, check_table_beside
from ccdcseg.progress import progress_bars

if TYPE_CHECKING:
    from ccdcseg.proposals.proposals import Proposals


@app.command("next", rich_help_panel=DATA)
def next_command(
    dataset: Dataset,
    scans: Annotated[int, typer.Option(min=1, help="Number of scans of each list.")] = 5,
    slices: Annotated[int, typer.Option(min=1, help="Number of slices of each scan.")] = 3,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a finished training, whose class confidence is then a third way to choose; "
            "several: the mean of their probabilities."
        ),
    ] = None,
    images: Annotated[Path, typer.Option(help="Folder of scans without masks.")] = Path("imagesTs"),
    seed: Annotated[int, typer.Option(min=0, help="Of the random draw.")] = 0,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="The page to write; its list (.csv) and classes (.label) lie beside it."
        ),
    ] = Path("next.html"),
    device: DeviceOption = Device.AUTO,
    processes: Processes = PROCESSES,
) -> None:
    """Which scans to annotate next, and which of their slices: drawn at random and otherwise, on one page."""
    from ccdcseg.datasets.cases import dataset_folder, read_labels
    from ccdcseg.files import read_json
    from ccdcseg.nnunet.paths import nnunet_folder
    from ccdcseg.nnunet.runs import find_runs
    from ccdcseg.proposals.proposals import COLUMNS, Wanted, propose, write_list
    from ccdcseg.report.label_descriptions import LABEL_HEADER, write_label_descriptions
    from ccdcseg.report.next_page import ADVICE, build_next_page
    from ccdcseg.report.template import check_page

    raw, listed = dataset_folder(nnunet_folder("nnUNet_raw"), dataset), output.with_suffix(".csv")
    check_page(output, "next")
    check_table_beside(listed, COLUMNS)
    check_beside(output.with_suffix(".label"), LABEL_HEADER)
    runs = [folder for one in run or [] for folder in find_runs(str(one))]
    with (
        cache_folder(nnunet_folder("nnUNet_preprocessed") / raw.name / "ccdcseg_next") as cache,
        progress_bars() as report,
    ):
        wanted = Wanted(scans, slices, seed)
        proposals = propose(raw, images, wanted, runs, cache, processes, device.value, report)
        synthetic = read_json(raw / "dataset.json").get("synthetic") is True
        build_next_page(proposals, listed, output, processes, partial(report, "draw"), synthetic=synthetic)
        write_list(proposals, listed)
        write_label_descriptions(output.with_suffix(".label"), read_labels(raw))
    _say(
        proposals,
        scans,
        f"ccdcseg patients {dataset} --images {shlex.quote(str(images))} --pattern '{{patient}}_{{phase}}'",
    )
    typer.echo(f"Note:     {ADVICE}")
    typer.echo(f"Page:     {absolute(output)}")
    typer.echo(f"List:     {absolute(listed)}")


def _say(proposals: "Proposals", wanted: int, who: str) -> None:
    for draw, chosen in proposals.draws.items():
        names = (f"{one.scan.case.case} (slices {' '.join(map(str, one.slices))})" for one in chosen)
        typer.echo(f"{draw + ':':<9} {', '.join(names)}")
    for axis, cases in _axes(proposals).items():
        typer.echo(f"Slices:   along {axis}: {', '.join(cases)}")
    if proposals.unknown:
        unknown = f"{proposals.unknown} of {proposals.scans}"
        typer.echo(
            f"Note:     whose scans {unknown} are is not known: two may be of one patient. Say it: {who}"
        )
    if (fewest := min(map(len, proposals.draws.values()))) < wanted:
        others = "all others are of the same patients or look alike"
        why = "there are no more" if fewest == proposals.scans else others
        typer.echo(f"Note:     {fewest} scans, not {wanted}: {why}.")


def _axes(proposals: "Proposals") -> dict[str, list[str]]:
    """The scans that are proposed, each once, by the axis along which their slices are counted."""
    axes: dict[str, list[str]] = {}
    chosen = (one for draw in proposals.draws.values() for one in draw)
    for name, axis in {one.scan.case.case: one.features.axis for one in chosen}.items():
        axes.setdefault(axis, []).append(name)
    return axes
