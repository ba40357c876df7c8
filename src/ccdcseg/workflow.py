"""The steps from scans to scores, for programs; the commands of the same names call them.

nnU-Net's three folders are those that its environment variables name: ``nnUNet_raw``, ``nnUNet_preprocessed`` and
``nnUNet_results``. Everything slow is imported by the step that needs it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccdcseg.cores import worker_count
from ccdcseg.errors import UserError

if TYPE_CHECKING:
    from ccdcseg.nnunet.outputs import Output
    from ccdcseg.nnunet.runs import Run
    from ccdcseg.review.review import Review
    from ccdcseg.runs.evaluation import Evaluation

Progress = Callable[..., None]
"""Called with a stage's name, what is done, what is to be done and, in a training, how it goes."""


def quiet(*_: object) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Prepared:
    """A data set in ``nnUNet_raw``.

    Attributes:
        folder: of the data set.
        is_new: whether it was made now; the same call finds it made.
    """

    folder: Path
    is_new: bool


def prepare(
    convert: Callable[..., Path],
    source: str | Path,
    dataset: int,
    *,
    workers: int | None = None,
    progress: Progress = quiet,
    **settings: object,
) -> Prepared:
    """Convert a raw release, or scans of one's own, to a data set in ``nnUNet_raw``.

    Args:
        convert: `prepare_own`, `prepare_acdc`, `prepare_chaos_mr`, `prepare_chaos_ct` or `prepare_mscmrseg` of
            `ccdcseg.datasets`.
        source: a folder or a zip archive.
        dataset: nnU-Net's number for it, from 1 to 999.
        workers: processes; None: see `worker_count`.
        progress: see `Progress`.
        settings: further arguments of ``convert``, such as ``data`` and ``found_by`` of `prepare_own`.

    Raises:
        UserError: as ``convert``; the number is taken.
    """
    from ccdcseg.archives import unpacked
    from ccdcseg.datasets.own import files_used, holds_scans, prepare_own
    from ccdcseg.datasets.prepared import fingerprint, prepare_once
    from ccdcseg.nnunet.paths import folders_set, nnunet_folder

    source = Path(source)
    if isinstance(table := settings.get("found_by"), str):
        settings["found_by"] = Path(table)

    def fits(folder: Path) -> bool:
        return convert is prepare_own and holds_scans(folder, settings["found_by"])  # type: ignore[arg-type]

    def make(place: Path) -> Path:
        with unpacked(source, place, partial(progress, "unpack"), fits) as release:
            return convert(
                release,
                raw_root=place,
                dataset_id=dataset,
                progress=partial(progress, "convert"),
                workers=workers or worker_count(),
                **settings,
            )

    table = settings.get("found_by") if source.is_dir() else None  # alone may name files that lie elsewhere
    used = files_used(source, table) if isinstance(table, Path) else []
    mark = fingerprint(source, convert.__name__, settings, used, folders_set())
    return Prepared(*prepare_once(nnunet_folder("nnUNet_raw"), dataset, mark, make))


def split(
    dataset: int | str,
    fractions: Iterable[float],
    seeds: Iterable[int] = (0,),
    *,
    test: int | None = None,
    unlabelled: int | str | Path | None = None,
    redraw: bool = False,
    progress: Progress = quiet,
) -> list[dict[str, Any]]:
    """Draw few-label splits: patient-wise, stratified, nested and seeded.

    Where nnU-Net has a copy of them already, it gets that of today.

    Args:
        dataset: its id or name.
        fractions: shares of the patients to train on.
        seeds: of the draws.
        test: patients set aside for testing, the same for every seed; None: everybody else is tested.
        unlabelled: what takes part without masks, a folder or a number of patients.
        redraw: replace splits of the same fractions and seeds.
        progress: see `Progress`.

    Returns:
        The stored entry of each split, once, in the order of seeds and fractions; see
        `ccdcseg.datasets.splits.add_splits`.

    Raises:
        UserError: as `ccdcseg.datasets.splits.split_dataset`.
    """
    from ccdcseg.datasets.cases import dataset_folder
    from ccdcseg.datasets.splits import MaskFacts, split_dataset
    from ccdcseg.files import check_writable
    from ccdcseg.nnunet.paths import nnunet_folder
    from ccdcseg.nnunet.splits_copy import renew_copy

    raw = dataset_folder(nnunet_folder("nnUNet_raw"), str(dataset))
    check_writable(raw)
    shares, drawn, masks = [*dict.fromkeys(fractions)], list[dict[str, Any]](), dict[str, MaskFacts]()
    for seed in dict.fromkeys(seeds):
        told = partial(progress, f"masks, seed {seed}")
        drawn += split_dataset(raw, shares, seed, test, unlabelled, redraw=redraw, masks=masks, progress=told)
        renew_copy(raw)
    return drawn


def choose(
    dataset: int | str,
    method: str = "ccdc",
    *,
    fraction: float | None = None,
    seed: int = 0,
    preset: str | Path = "cpu",
    changes: Sequence[str] = (),
    unlabelled: bool = False,
    self_training: bool = False,
) -> "Run":
    """Say what is to be trained.

    Args:
        dataset: its id or name.
        method: one of `ccdcseg.methods.METHODS`.
        fraction: of a split that was drawn; None: that of all there are, or else the preset's first.
        seed: of that split and of the training.
        preset: name or file.
        changes: to the preset, such as ``ccdc.weight=0.1``.
        unlabelled: train on the split's scans without masks too.
        self_training: the same, with labels by three other trainings.

    Raises:
        UserError: data set, split, method, preset or setting do not exist.
    """
    from ccdcseg.nnunet.runs import resolve_run

    return resolve_run(
        str(dataset),
        method,
        fraction,
        seed,
        str(preset),
        changes,
        unlabelled=unlabelled,
        self_training=self_training,
    )


def train(
    run: "Run",
    *,
    resume: bool = False,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = quiet,
) -> Path:
    """Plan and preprocess what is not there yet, then train; a finished training is found and kept.

    Args:
        run: see `choose`.
        resume: continue an interrupted training; where another process works on it, wait until it has ended.
        device: "cpu", "cuda", "mps" or "auto", a CUDA GPU where there is one.
        workers: processes of planning and preprocessing; None: see `worker_count`.
        progress: see `Progress`.

    Returns:
        The run's folder.

    Raises:
        UserError: as `ccdcseg.nnunet.train.train`.
    """
    from ccdcseg.nnunet.train import train as train_run

    return train_run(
        run, resume=resume, device=device, processes=workers or worker_count(), progress=progress
    )


def predict(
    run: str | Path | Sequence[str | Path],
    images: str | Path | None = None,
    output: str | Path | None = None,
    *,
    part: str = "test",
    postprocessing: bool = True,
    keep: Sequence[str] = (),
    device: str = "auto",
    progress: Progress = quiet,
) -> "Output":
    """Predict the test cases of a run, or any folder of images with it.

    Args:
        run: its folder; for ``images`` those of several, whose probabilities are averaged.
        images: a folder of images; None: those of the split.
        output: where predictions of ``images`` go; without those, a folder in place of the run's own.
        part: "test" or "validation", the patients of the split.
        postprocessing: of ``images``: keep pieces by the rules of the training masks.
        keep: of ``images``: other rules, such as ``RV=0``.
        device: as `train`.
        progress: see `Progress`.

    Returns:
        The folder of the predictions, and what was done to them.

    Raises:
        UserError: as `ccdcseg.nnunet.predict.predict` and `check_alike`; several runs without ``images``, or
            arguments that do not go together.
    """
    from ccdcseg.datasets.splits import part_folder
    from ccdcseg.nnunet.images import folder_images, run_images, warn_of_axes
    from ccdcseg.nnunet.models import check_alike, check_model
    from ccdcseg.nnunet.outputs import input_output, run_output
    from ccdcseg.nnunet.predict import predict as predict_runs

    folders = [Path(folder) for folder in ([run] if isinstance(run, (str, Path)) else run)]
    first, *others = folders
    if images is None:
        if others:
            raise UserError("Test cases are those of one run.", "Give one, or a folder of images.")
        if keep or not postprocessing:
            raise UserError(
                "--keep and --no-postprocessing are for --input, a folder of images.",
                "Test cases are predicted both ways: predictions_plain has every piece.",
            )
        wanted, place = run_images(first, part), run_output(first, part_folder(Path(output or first), part))
    else:
        if output is None:
            raise UserError(
                "--input, a folder of images, needs an --output.", "Give both, or neither for the test cases."
            )
        if part != "test":
            raise UserError(
                "--input, a folder of images, and --part exclude each other.", "Leave one of them out."
            )
        for folder in folders:
            check_model(folder)
        check_alike(folders)
        wanted = folder_images(Path(images), first.parent)
        warn_of_axes(folders, wanted)
        place = input_output(folders, Path(output), postprocessing, keep)
    predict_runs(folders, wanted, place, device, partial(progress, "predict"))
    return place


def evaluate(
    run: str | Path,
    part: str = "test",
    *,
    output: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = quiet,
) -> "dict[str, Evaluation]":
    """Measure the predictions of a run by patient; JSON and CSV lie beside them.

    Args:
        run: its folder.
        part: "test" or "validation", the patients of the split.
        output: folder in place of the run's own, as `predict` fills it.
        workers: threads; None: see `worker_count`.
        progress: see `Progress`.

    Returns:
        Evaluation of "predictions" and, where post-processing made these, of "predictions_plain".

    Raises:
        UserError: as `ccdcseg.nnunet.evaluate.evaluate_run`.
    """
    from ccdcseg.nnunet.evaluate import evaluate_run

    place = Path(output) if output else None
    return evaluate_run(Path(run), part, workers or worker_count(), partial(progress, "evaluate"), place)


def report(
    runs: Sequence[str | Path],
    output: str | Path,
    title: str,
    part: str = "test",
    *,
    progress: Progress = quiet,
) -> Path:
    """Write one page of evaluated runs, whose predictions must be what was measured.

    Args:
        runs: their folders.
        output: the HTML file, replaced if it exists.
        title: heading of the page.
        part: "test" or "validation", the patients of the split.
        progress: see `Progress`.

    Raises:
        UserError: as `ccdcseg.nnunet.evaluate.check_measured` and `ccdcseg.report.page.build_report`.
    """
    from ccdcseg.nnunet.evaluate import check_measured
    from ccdcseg.report.page import build_report

    for run in runs:
        check_measured(Path(run), part)
    return build_report(runs, output, title, progress=progress, part=part)


def review(
    dataset: int | str,
    runs: Sequence[str | Path],
    output: str | Path,
    *,
    cache: str | Path,
    cases: Iterable[str] | None = None,
    named: Sequence[str] = (),
    device: str = "auto",
    progress: Progress = quiet,
) -> "Review":
    """Rank masks by how much they contradict networks that never saw them; a page, JSON and CSV are written.

    Args:
        dataset: its id or name.
        runs: folders of finished runs; each mask is held against those that were not trained on its patient.
        output: the page; the JSON and the ranking lie beside it.
        cache: folder for the networks' probabilities.
        cases: that are reviewed; None: all that a run never saw.
        named: patients or cases among them to which the review is limited.
        device: as `train`.
        progress: see `Progress`.

    Raises:
        UserError: as `ccdcseg.review.networks.read_networks` and `judges`; a mask is missing or damaged.
    """
    from ccdcseg.datasets.cases import dataset_folder, image_files, read_cases, read_file_ending
    from ccdcseg.devices import usable_device
    from ccdcseg.files import read_json
    from ccdcseg.nnunet.paths import nnunet_folder
    from ccdcseg.report.review_page import build_review_page
    from ccdcseg.review.answers import stored_answers
    from ccdcseg.review.networks import judges, predict_all, read_networks
    from ccdcseg.review.review import check_labels, mask_files, read_opinions, write_review
    from ccdcseg.review.review import review as review_masks

    raw = dataset_folder(nnunet_folder("nnUNet_raw"), str(dataset))
    check_labels(raw)
    chosen = None if cases is None else {*cases}
    all_cases = [case for case in read_cases(raw) if chosen is None or case.case in chosen]
    wanted = judges(all_cases, read_networks(raw, map(Path, runs)), named)
    answers = stored_answers(raw)
    masks = mask_files(raw, [case for case in all_cases if case.case in wanted])
    files = predict_all(raw, wanted, Path(cache), usable_device(device), partial(progress, "predict"))
    result = review_masks(raw, all_cases, wanted, files, answers, partial(progress, "measure"))
    page = Path(output)
    write_review(result, page.with_suffix(".json"))
    build_review_page(
        result,
        lambda case: (
            image_files(raw / "imagesTr", case, read_file_ending(raw), 1)[0],
            read_opinions(raw, masks[case], files[case]),
        ),
        page,
        bool(read_json(raw / "dataset.json").get("synthetic", False)),
        partial(progress, "draw"),
    )
    return result
