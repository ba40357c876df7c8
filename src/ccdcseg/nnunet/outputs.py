"""Where predictions go, and what is done to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ccdcseg.errors import UserError
from ccdcseg.files import read_json
from ccdcseg.nnunet.models import class_values
from ccdcseg.nnunet.rules import read_rules
from ccdcseg.postprocessing import Shares, in_words, mildest, override
from ccdcseg.runs.record import PLAIN_PREDICTIONS, PREDICTIONS


@dataclass(frozen=True)
class Output:
    """Where predictions go.

    Attributes:
        folder: ``CASE.nii.gz`` with the pieces that the rules keep.
        shares: the rules (see `ccdcseg.postprocessing.Shares`); none: every piece is kept.
        plain: another folder for what the network predicts, every piece kept; None: it is not wanted.
    """

    folder: Path
    shares: Shares = field(default_factory=dict)
    plain: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """All of them."""
        return [self.folder, *([self.plain] if self.plain else [])]

    @property
    def description(self) -> str:
        """What was done to the predictions, for people."""
        rules = in_words(self.shares)
        also = f"; as the network predicts them: {self.plain}" if rules and self.plain else ""
        return f"pieces kept: {rules}{also}" if rules else "every piece as the network predicts it"


def input_output(folders: Sequence[Path], output: Path, postprocessing: bool, keep: Sequence[str]) -> Output:
    """Where predictions of any images go, and what is done to them.

    Args:
        folders: of the run, or of several that predict together.
        output: of the predictions.
        postprocessing: by the rules of the run; of several, a piece is kept that one of them keeps.
        keep: what a user says otherwise, see `ccdcseg.postprocessing.override`.

    Raises:
        UserError: ``keep`` names no class or no share, or is given without post-processing or for regions.
    """
    if not postprocessing:
        if keep:
            raise UserError("--keep and --no-postprocessing exclude each other.", "Leave one of them out.")
        return Output(output)
    rules = [read_rules(folder) for folder in folders]
    labels = class_values(read_json(folders[0].parent / "dataset.json"))
    if keep and not labels:
        raise UserError(
            f"{folders[0]} predicts regions, which may overlap, and drops no piece of them.",
            "Leave --keep out.",
        )
    return Output(output, override(mildest([found.shares if found else {} for found in rules]), keep, labels))


def run_output(folder: Path, place: Path) -> Output:
    """Where predictions of a run's own cases go: into ``predictions`` by its rules, as predicted beside it.

    Args:
        folder: of the run.
        place: the folder in it for a part of the split.
    """
    rules = read_rules(folder)
    if rules is None:
        return Output(place / PREDICTIONS)
    return Output(place / PREDICTIONS, rules.shares, place / PLAIN_PREDICTIONS)
