"""Whether predictions that are there are of the networks, scans and rules of today."""

import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ccdcseg.datasets.release import MASK_SUFFIX
from ccdcseg.datasets.splits import part_folder
from ccdcseg.errors import UserError
from ccdcseg.files import read_json, real
from ccdcseg.nnunet.checkpoints import FINAL
from ccdcseg.nnunet.images import channel_files
from ccdcseg.nnunet.outputs import Output
from ccdcseg.nnunet.plans import plans_hash
from ccdcseg.nnunet.preset import preset_of_plans
from ccdcseg.nnunet.rules import read_rules
from ccdcseg.postprocessing import Shares, rules_of
from ccdcseg.provenance import Origin, Source, Sources, origin_file, read_origin, write_origin
from ccdcseg.runs.record import PREDICTIONS, read_record

logger = logging.getLogger(__name__)


def prediction_sources(folders: Sequence[Path], images: Sequence[Path], shares: Shares) -> Sources:
    """What a prediction is made from: the images, the models with their settings of prediction, and rules.

    Args:
        folders: ``fold_N`` of trained models.
        images: of the case, one a channel.
        shares: rules of post-processing.
    """
    settings = [_prediction_settings(folder) for folder in folders]
    files = tuple(folder / FINAL for folder in folders)
    return {
        "images": Source(tuple(images)),
        "model": Source(files, settings[0] if len(settings) == 1 else settings),
        "rules": Source(settings=rules_of(shares)),
    }


def _prediction_settings(folder: Path) -> list[Any]:
    plans, dataset = (read_json(folder.parent / name) for name in ("plans.json", "dataset.json"))
    return [
        plans_hash(plans),
        preset_of_plans(plans).prediction.model_dump(mode="json"),
        dataset["labels"],
    ]


def check_predictions(folder: Path, place: Path, cases: Iterable[str]) -> None:
    """See that predictions of a run's own cases are what it would predict today.

    Those of which nothing is known, such as an earlier version's, are taken as they are, and so are those whose
    images, model or rules are gone.

    Args:
        folder: ``fold_N`` of a trained model.
        place: `PREDICTIONS` or `PLAIN_PREDICTIONS` of a part of its split.
        cases: which; one without a prediction is passed over.

    Raises:
        UserError: one was changed, or its images, the model or the rules were since it was predicted; or as
            `RunRecord.here`.
    """
    targets = {case: place / f"{case}{MASK_SUFFIX}" for case in cases}
    known = {
        case: target for case, target in targets.items() if target.exists() and origin_file(target).exists()
    }
    images = read_record(folder).here("images", folder)
    if not known or images is None or not (folder.parent / "plans.json").exists():
        return
    dataset = read_json(folder.parent / "dataset.json")
    rules = read_rules(folder) if place.name == PREDICTIONS else None
    for case, target in known.items():
        files = channel_files(images, case, dataset)
        origin = read_origin(target, prediction_sources([folder], files, rules.shares if rules else {}))
        if origin and not origin.current:
            raise _stale(target, origin, folder)


def _stale(target: Path, origin: Origin, run: Path) -> UserError:
    if origin.changed:
        changed = f"its {origin.changed[0]} changed since it was predicted"
        part = ["--part", "validation"] if part_folder(run, "validation") in target.parents else []
        again = shlex.join(["ccdcseg", "predict", str(run), *part])
        return UserError(f"{target} is out of date: {changed}.", f"Predict again: {again}")
    return UserError(f"{target} {_problem(origin, ours=True)}.", "Move it away, then predict again.")


def outdated_predictions(
    folders: Sequence[Path], images: Mapping[str, Sequence[Path]], output: Output
) -> dict[str, dict[Path, Sources]]:
    """What is to be predicted of which cases, with what it is made from: what is not there, or of other images."""
    ending = read_json(folders[0].parent / "dataset.json")["file_ending"]
    outdated: dict[str, dict[Path, Sources]] = {}
    for place in output.folders:
        targets = {case: place / f"{case}{ending}" for case in images}
        ours = run_of(place, folders) is not None
        if ours:
            _adopt(targets.values())
        shares = {} if place == output.plain else output.shares
        for case, target in targets.items():
            sources = prediction_sources(folders, images[case], shares)
            if _is_outdated(target, sources, ours=ours):
                outdated.setdefault(case, {})[target] = sources
    return outdated


def run_of(path: Path, folders: Sequence[Path]) -> Path | None:
    """The run that a folder is part of, where nobody else puts files, be it by a link."""
    return next((f for f in folders if path.is_relative_to(f) or real(path).is_relative_to(real(f))), None)


def _is_outdated(target: Path, sources: Sources, *, ours: bool) -> bool:
    """Whether a prediction is to be made, maybe again.

    Raises:
        UserError: there is a file that this model did not predict by these rules.
    """
    if not target.exists():
        return True
    origin = read_origin(target, sources)
    if (problem := _problem(origin, ours)) or origin is None:
        remedy = "Move it away, then predict again." if ours else "Move it away, or give another --output."
        raise UserError(f"{target} {problem}.", remedy)
    return bool(origin.changed)


def _problem(origin: Origin | None, ours: bool) -> str:
    """Why a prediction that is there can neither be kept nor be made again."""
    if origin is None:
        return "is there already, and nothing says what made it"
    if not origin.intact:
        return "was changed since it was predicted"
    if "model" in origin.changed and not ours:
        return "is another model's prediction"
    return "was cleaned by other rules" if "rules" in origin.changed and not ours else ""


def _adopt(targets: Iterable[Path]) -> None:
    """Keep predictions of an earlier version, of which nothing is known, and say so once."""
    unknown = [target for target in targets if target.exists() and not origin_file(target).exists()]
    for target in unknown:
        write_origin(target, None, target)
    if unknown:
        logger.warning(
            "%s holds %d predictions of an earlier version, which are kept: whether this model made them from the "
            "images of today is not known. Move them away to predict again.",
            unknown[0].parent,
            len(unknown),
        )
