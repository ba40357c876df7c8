"""Rules of post-processing beside a run: ours, and as nnU-Net's own command reads them."""

import pickle
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ccdcseg.errors import UserError
from ccdcseg.files import read_json, write_bytes, write_json
from ccdcseg.postprocessing import Postprocessing, rule_names
from ccdcseg.runs.record import RUN_FILE, read_record

RULES = "postprocessing.json"
NNUNET_RULES = "postprocessing.pkl"
_REMEDY = (
    "Restore it, move the run's folder away and train again, or predict images with --no-postprocessing."
)


def write_rules(rules: Postprocessing, labels: Mapping[str, int], folder: Path) -> None:
    """Write ``postprocessing.json`` and, for ``nnUNetv2_apply_postprocessing``, ``postprocessing.pkl``.

    nnU-Net knows the largest piece alone: its file has the foreground and the classes of which one piece is kept,
    the largest instead of the one with the most evidence, and leaves out classes with pieces of a smallest share.

    Args:
        rules: what was decided.
        labels: value of each foreground class by name.
        folder: of the run.
    """
    from nnunetv2.postprocessing.remove_connected_components import (  # noqa: PLC0415 - slow
        remove_all_but_largest_component_from_segmentation as keep_largest,
    )

    write_json(folder / RULES, rules.record())
    one_piece = [name for name in rule_names(labels) if rules.shares.get(name) == 1]
    values = [labels.get(name, [*labels.values()]) for name in one_piece]
    steps = [keep_largest] * len(values), [{"labels_or_regions": value} for value in values]
    write_bytes(folder / NNUNET_RULES, pickle.dumps(steps))


def decided_rules(folder: Path) -> Postprocessing | None:
    """Rules that `write_rules` wrote to the end; None: it did not. Errors as `read_rules`."""
    return read_rules(folder) if all((folder / name).exists() for name in (RULES, NNUNET_RULES)) else None


def read_rules(folder: Path) -> Postprocessing | None:
    """Rules of a run; None: it was trained before there were any, or its labels are regions.

    Of a finished run without the file, such as a copy of a part of it, they are those of its record.

    Args:
        folder: of the run.

    Raises:
        UserError: the file is damaged; or as `read_record`.
    """
    path = folder / RULES
    if not path.exists():
        return read_record(folder).postprocessing if (folder / RUN_FILE).exists() else None
    try:
        found = TypeAdapter(Postprocessing).validate_python(read_json(path, _REMEDY))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} is damaged at {place}: {first['msg']}.", _REMEDY) from error
    if unknown := found.shares.keys() - found.counts.keys():
        raise UserError(
            f"{path} is damaged: it has a share for {min(unknown)}, whose pieces nobody counted.", _REMEDY
        )
    return found
