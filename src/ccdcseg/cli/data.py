"""Commands on a data set before training: whose scans, what is wrong with them, who is trained on."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ccdcseg import workflow
from ccdcseg.cli.app import DATA, app
from ccdcseg.cli.options import PROCESSES, Dataset, Processes, Seeds
from ccdcseg.cli.output import cache_folder, say_next_split
from ccdcseg.errors import UserError
from ccdcseg.files import absolute, check_beside
from ccdcseg.progress import progress_bars
from ccdcseg.texts import LISTED


@app.command(rich_help_panel=DATA)
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
    from ccdcseg.datasets.cases import annotated_cases, dataset_folder
    from ccdcseg.datasets.raw_folder import assign_patients
    from ccdcseg.nnunet.paths import nnunet_folder

    raw = dataset_folder(nnunet_folder("nnUNet_raw"), dataset)
    cases = assign_patients(raw, pattern, table, images)
    scans = Counter(case.patient for case in cases)
    groups = len({case.group for case in cases})
    fewest, most = min(scans.values()), max(scans.values())
    each = f"{fewest} each" if fewest == most else f"{fewest} to {most} each"
    typer.echo(
        f"{len(cases)} cases of {len(scans)} patients, {each}; {groups} group{'s' if groups > 1 else ''}"
    )
    if annotated_cases(raw):
        say_next_split(dataset, raw, images)


@app.command(rich_help_panel=DATA)
def check(
    dataset: Dataset,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The page to write; its JSON lies beside it.")
    ] = Path("check.html"),
    processes: Processes = PROCESSES,
) -> None:
    """What a careful person looks for before training: one HTML page. Exit code 1 where there is a problem."""
    from rich.console import Console

    from ccdcseg.checks.checks import check_dataset, write_check
    from ccdcseg.datasets.cases import dataset_folder
    from ccdcseg.nnunet.paths import nnunet_folder
    from ccdcseg.report.check_page import build_check_page, findings_table, verdict
    from ccdcseg.report.template import check_page

    raw = dataset_folder(nnunet_folder("nnUNet_raw"), dataset)
    check_page(output, "check")
    check_beside(output.with_suffix(".json"), "ccdcseg-check/")
    with (
        cache_folder(nnunet_folder("nnUNet_preprocessed") / raw.name / "ccdcseg_check") as cache,
        progress_bars() as report,
    ):
        result = check_dataset(raw, cache / "measurements", processes, partial(report, "measure"))
        build_check_page(result, output, cache / "pictures", processes, partial(report, "draw"))
        write_check(result, output.with_suffix(".json"))
    if result.findings:
        Console().print(findings_table(result))
    typer.echo(f"{raw.name}: {verdict(result)} Page: {absolute(output)}")
    if result.problems:
        raise typer.Exit(1)


@app.command(rich_help_panel=DATA)
def split(
    dataset: Dataset,
    fraction: Annotated[
        list[float] | None, typer.Option(help="Share of the patients to train on; repeatable.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Draw the shares of a preset instead, such as paper or paper_chaos.")
    ] = None,
    seed: Seeds = [0],  # noqa: B006
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
    if unlabelled == "":
        raise UserError("--unlabelled is empty.", "Give a folder, such as imagesTs, or a number of patients.")
    fractions = fraction or load_preset(str(preset))[1].labelled.fractions
    without_masks = (
        int(unlabelled) if unlabelled and unlabelled.isdecimal() else unlabelled and Path(unlabelled)
    )
    with progress_bars() as report:
        drawn = workflow.split(
            dataset,
            fractions,
            seed,
            test=test,
            unlabelled=without_masks or None,
            redraw=redraw,
            progress=report,
        )
    for entry in drawn:
        _say_split(entry)


def _say_split(entry: dict[str, Any]) -> None:
    from ccdcseg.datasets.splits import SPLITS_FILE

    parts = [
        f"{part} " + ", ".join(f"{number} {name}" for name, number in count.items()).replace("cases", "scans")
        for part, count in entry["counts"].items()
        if count["patients"]
    ]
    drawn = f"fraction {entry['fraction']:g}, seed {entry['seed']}"
    typer.echo(f"{drawn}: {'; '.join(parts)}; hash {entry['hash'][:12]}")
    typer.echo(f"  training patients: {', '.join(entry['patients']['train'])}")
    if scans := entry.get("unlabelled"):
        typer.echo(f"  without masks: {len(scans['cases'])} scans of {scans['images']}")
        measured = {*entry["patients"]["test"], *entry["patients"]["validation"]}
        left_out = scans.get("left_out", {})
        for scan, patient in [*left_out.items()][:LISTED]:
            why = (
                f"patient {patient} is measured" if patient in measured else "it is there with its mask, too"
            )
            typer.echo(f"  left out: {scan}, since {why}")
        if len(left_out) > LISTED:
            typer.echo(f"  left out: {len(left_out) - LISTED} more, see {SPLITS_FILE}")
