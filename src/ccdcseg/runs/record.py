"""What was trained, on what, with which settings: ``run.json`` in a run's folder."""

import datetime
import logging
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ccdcseg.datasets.cases import read_labels
from ccdcseg.datasets.splits import SPLITS_FILE, stored_hash
from ccdcseg.errors import UserError
from ccdcseg.files import absolute, file_hash, real, write_json
from ccdcseg.measure.patients import MEAN
from ccdcseg.postprocessing import Postprocessing
from ccdcseg.runs.stored import Count, Digest, Name, NotNegative, Stored, check_finite

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
PREDICTIONS = "predictions"
PLAIN_PREDICTIONS = "predictions_plain"
"""Folder of what the network predicts, with every piece, beside `PREDICTIONS` that post-processing made of it."""
BEGUN_FILE = "begun.json"
"""What ``run.json`` will say, as far as it is known when a training begins: the mark of what was begun here."""
_REMEDY = "Restore it from a copy, or move the folder away and train again."


def _is_time(text: str) -> str:
    datetime.datetime.fromisoformat(text)
    return text


def _is_named(folder: Path) -> Path:
    if folder == Path():
        raise ValueError("it is no folder's name")
    return folder


Folder = Annotated[Path, AfterValidator(_is_named)]
ScanFolder = Literal["images", "reference"]
"""Of those that a record names."""


class Patients(Stored):
    """Whose scans were for what.

    Attributes:
        train: patients that were trained on.
        validation: patients to choose settings by; perhaps none.
        test: patients that nothing was chosen by.
    """

    train: tuple[Name, ...]
    validation: tuple[Name, ...]
    test: tuple[Name, ...]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        counts = Counter((*self.train, *self.validation, *self.test))
        for patient, count in counts.items():
            if count > 1:
                raise ValueError(f"the patient {patient} is listed {count} times")
        return self


class FoldOf(Stored):
    """Of which split's training patients a run left out a part, which it is tested on.

    Attributes:
        split: SHA-256 of that split.
        number: of the part, from 1 on.
        folds: how many parts there are.
    """

    split: Digest
    number: Annotated[int, Field(ge=1)]
    folds: Annotated[int, Field(ge=2)]


class Known(Stored):
    """What is known of a run when its training begins.

    A new field is added here, or in `RunRecord` where the end of the training has to be known, with a default that
    means "not recorded"; `ccdcseg.nnunet.train` sets it.

    Attributes:
        format: name and number of this form.
        method: key of `METHODS`.
        trainer: nnU-Net trainer class.
        dataset: its folder's name in ``nnUNet_raw``.
        synthetic: whether its images are made up.
        preset: as it was given.
        changes: to the preset, ``key=value``.
        plans: name of nnU-Net's plans.
        fraction: share of the patients that was trained on.
        seed: of the split and the training.
        fold: number of the split.
        settings: the resolved preset.
        patients: see `Patients`.
        split_hash: SHA-256 of the split.
        labels: value of each class by name, the smallest first; in earlier versions as in ``dataset.json``.
        data_hash: SHA-256 of the files that were trained on.
        scans: SHA-256 of each of them, by folder and name, those without masks as ``unlabelled/NAME`` (earlier
            versions: by folder too); None in records of version 0.1.0.
        plans_hash: a hash of what the plans say of network and input; None in records of version 0.1.0.
        axes: where the axes of the images that were trained on point, such as "LPS" (see
            `ccdcseg.datasets.volumes.axis_codes`); empty: not recorded.
        versions: of the packages.
        device: "cpu", "cuda" or "mps".
        machine: processor, cores and threads.
        started: when, in ISO 8601.
        images: folder of the images; None in published records, which name no folder of a machine.
        reference: folder of the reference masks; None as for ``images``.
        teachers: SHA-256 of the networks that labelled scans without masks in self-training, by run.
        fold_of: see `FoldOf`; None for a run on a split as it was drawn.
    """

    format: Literal["ccdcseg-run/1"]
    method: Name
    trainer: Name
    dataset: Name
    synthetic: bool
    preset: Name
    changes: tuple[str, ...] = ()
    plans: Name
    fraction: Annotated[float, Field(gt=0, le=1)]
    seed: Count
    fold: Count
    settings: Annotated[dict[str, Any], AfterValidator(check_finite)]
    patients: Patients
    split_hash: Digest
    labels: dict[Name, Count]
    data_hash: Digest
    scans: dict[Name, Digest] | None = None
    plans_hash: Digest | None = None
    axes: tuple[Name, ...] = ()
    versions: dict[Name, Name]
    device: Name
    machine: Name
    started: Annotated[str, AfterValidator(_is_time)]
    images: Folder | None = None
    reference: Folder | None = None
    teachers: dict[Name, Digest] = Field({})
    fold_of: FoldOf | None = None

    @property
    def threads(self) -> int | None:
        """How many computed it, as ``machine`` says; None where it does not."""
        found = re.search(r"(\d+) threads", self.machine)
        return int(found[1]) if found else None

    def changed_since(self, raw: Path, split_hash: str | None) -> str:
        """What of its data set a run is of that is another today; empty where nothing is.

        Args:
            raw: the data set's folder; without ``dataset.json``, labels are not compared.
            split_hash: of the split in the place of the run's; None: there is none.

        Returns:
            Such as "with other labels: .../dataset.json was changed since".
        """
        if split_hash != self.split_hash:
            return f"on another split: {raw / SPLITS_FILE} was drawn anew since"
        description = raw / "dataset.json"
        if description.exists() and read_labels(raw) != self.labels:
            return f"with other labels: {description} was changed since"
        return ""

    @model_validator(mode="after")
    def _usable_labels(self) -> Self:
        if (
            not any(self.labels.values())
            or MEAN in self.labels
            or len(set(self.labels.values())) < len(self.labels)
        ):
            raise ValueError(
                f"labels is {self.labels}: a class needs a value of its own from 1 on and another name than {MEAN}"
            )
        return self


class Begun(Known):
    """The mark of a training that was begun: ``begun.json`` in a run's folder.

    Attributes:
        preprocessed: a hash of what each preprocessed scan was made from, by case, or as ``unlabelled/CASE``.
    """

    preprocessed: dict[Name, Digest] = Field({})

    @property
    def known(self) -> dict[str, Any]:
        """What ``run.json`` takes over, ready for JSON."""
        return {name: held for name, held in self.content.items() if name != "preprocessed"}


class RunRecord(Known):
    """What a reader needs to believe, and repeat, a run.

    Attributes:
        precision: of the network.
        seconds: how long it trained.
        iterations: optimiser steps.
        postprocessing: rules by which pieces of its predictions are kept; None where there are none.
    """

    precision: Literal["float32", "bfloat16", "float16"] | None = None
    seconds: NotNegative
    iterations: Annotated[int, Field(ge=1)]
    postprocessing: Postprocessing | None = None

    @property
    def foreground(self) -> dict[str, int]:
        """Label value of each foreground class, the smallest first."""
        by_value = sorted(self.labels.items(), key=lambda label: label[1])
        return {name: value for name, value in by_value if value != 0}

    @property
    def classes(self) -> list[str]:
        """The foreground classes, by value."""
        return list(self.foreground)

    @property
    def environment(self) -> dict[str, str]:
        """Versions, precision and, on a CPU, threads: what moves results, where it was recorded."""
        threads = str(self.threads) if self.device == "cpu" and self.threads else None
        known = {"precision": self.precision, "threads": threads}
        return self.versions | {name: value for name, value in known.items() if value}

    @property
    def label(self) -> str:
        """Method, fraction, seed and fold, with the plans where they are not the preset's own."""
        changed = "" if self.plans == f"ccdcseg_{self.preset}" else f", {self.plans}"
        fold = f", fold {self.fold_of.number} of {self.fold_of.folds}" if self.fold_of else ""
        return f"{self.method} {self.fraction:g}, seed {self.seed}{changed}{fold}"

    @property
    def unlabelled(self) -> str:
        """The option by which scans without masks took part; empty where none did."""
        scans = self.settings.get("unlabelled", {})
        if not scans.get("use"):
            return ""
        return "--self-training" if scans.get("teachers") else "--unlabelled"

    @property
    def command(self) -> str:
        """The command that trains such a run."""
        options = {"method": self.method, "fraction": self.fraction, "seed": self.seed, "preset": self.preset}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        changes = [word for change in self.changes for word in ("--set", change)]
        folds = ["--folds", str(self.fold_of.folds)] if self.fold_of else []
        command = "review" if self.fold_of else "train"
        return shlex.join(
            ["ccdcseg", command, self.dataset, *words, *folds, *self.unlabelled.split(), *changes]
        )

    def here(self, name: ScanFolder, run: Path) -> Path | None:
        """A folder of scans on this machine: in ``nnUNet_raw``, where that is the run's data set; else as recorded.

        It is, whatever became of its split and of some of its scans, where it has an image of the run's data set. A
        run that lies among the results of another data set, such as a copy under a new number, is that one's.

        Args:
            name: which.
            run: folder of the run.

        Returns:
            That of ``nnUNet_raw``, whatever it holds, where only that is there; None where none is recorded.
            Where that of ``nnUNet_raw`` is another data set's, a warning names both.

        Raises:
            UserError: the data set among whose results it lies has no image of the run's.
        """
        recorded = self.images if name == "images" else self.reference
        raw, lies_in = _nnunet_folder("nnUNet_raw"), _results_of(run)
        if recorded is None or raw is None:
            return recorded
        if lies_in not in ("", self.dataset) and (raw / lies_in).is_dir():
            self._check_image(raw / lies_in, recorded.parent, run)
            return raw / lies_in / recorded.name
        today = raw / self.dataset / recorded.name
        if today == recorded or not today.is_dir():
            return recorded
        if not recorded.is_dir() or self._has_image(today.parent, recorded.parent):
            return today
        _warn_of_another(today.parent, recorded.parent)
        return recorded

    def _check_image(self, raw: Path, recorded: Path, run: Path) -> None:
        if not self._has_image(raw, recorded):
            raise UserError(
                f"{run} lies among the results of {raw.name}, which has no image of {self.dataset} that it was "
                "trained on.",
                f"Move that folder to the results of {self.dataset}; images of {raw.name} are for --input.",
            )

    def _has_image(self, raw: Path, recorded: Path) -> bool:
        """Whether a data set's folder has an image that the run was trained on, or one of the recorded folder."""
        trained = {
            name: digest for name, digest in (self.scans or {}).items() if name.startswith("imagesTr/")
        }
        if any(_has_file(raw / name, digest) for name, digest in trained.items()):
            return True
        pairs = ((image, raw / "imagesTr" / image.name) for image in recorded.glob("imagesTr/*"))
        return any(
            image.is_file() and other.is_file() and file_hash(image) == file_hash(other)
            for image, other in pairs
        )

    def local(self, name: ScanFolder, run: Path) -> Path:
        """A folder of scans on this machine, see `here`, of the data set that the run was trained on or its copy.

        Args:
            name: which.
            run: folder of the run.

        Raises:
            UserError: the record names none, or none is there; or as `here` and `check_data`.
        """
        folder = self.here(name, run)
        if folder is None:
            raise UserError(
                f"{run / RUN_FILE} names no {name}: it is the copy of a record without the folders of a machine.",
                f"Write the folder there as {name}, or train the run again.",
            )
        if not folder.is_dir():
            raise UserError(
                f"{run / RUN_FILE} names the folder {folder}, which does not exist, and nnUNet_raw has no "
                f"{self.dataset}/{folder.name}.",
                "Set nnUNet_raw to the folder with that data set.",
            )
        self.check_data(folder.parent, run)
        return folder

    def check_data(self, raw: Path, run: Path) -> None:
        """See that a data set is still what the run was trained on, see `changed_since`.

        Args:
            raw: its folder; what is gone is not compared.
            run: folder of the run, for the message.

        Raises:
            UserError: splits were drawn anew since, so that patients who were trained on may be for testing now; or
                classes have other values or names.
        """
        has_splits = (raw / SPLITS_FILE).exists()
        if changed := self.changed_since(raw, stored_hash(raw, self.fold) if has_splits else self.split_hash):
            raise UserError(
                f"{run} was trained {changed}.",
                "Move that run's folder out of nnUNet_results, or put back what was changed.",
            )

    @property
    def published(self) -> "RunRecord":
        """The record without the folders of this machine."""
        fields = self.model_fields_set - {"images", "reference"}
        return RunRecord.model_validate({name: getattr(self, name) for name in fields})


def _nnunet_folder(variable: str) -> Path | None:
    """That of nnU-Net's variable, whatever is wrong with it; None where it is not set."""
    value = os.environ.get(variable)
    return Path(os.path.expandvars(os.path.expanduser(value))) if value else None  # noqa: PTH111 - raises nothing


def _results_of(run: Path) -> str:
    """The data set among whose results a run lies; empty where it lies elsewhere."""
    dataset = absolute(run).parent.parent
    results = _nnunet_folder("nnUNet_results")
    return dataset.name if results is not None and real(dataset.parent) == real(results) else ""


def _has_file(path: Path, digest: str) -> bool:
    return path.is_file() and file_hash(path) == digest


@cache
def _warn_of_another(today: Path, recorded: Path) -> None:
    """Once a process, since every scan is looked for."""
    logger.warning(
        "%s has no image of the data set that was trained on: %s counts, where the training found it.",
        today,
        recorded,
    )


def read_record(folder: Path) -> RunRecord:
    """Read ``run.json`` of a run's folder.

    Raises:
        UserError: it is missing, or a field of it is missing or wrong.
    """
    path = folder / RUN_FILE
    if not path.exists():
        raise no_run(folder)
    return RunRecord.read(path, _REMEDY)


def no_run(folder: Path) -> UserError:
    """What is wrong with a folder without a ``run.json``."""
    if (folder / BEGUN_FILE).exists():
        return UserError(
            f"The training in {folder} is not finished: it has no {RUN_FILE}.",
            "Repeat its command with --resume.",
        )
    return UserError(
        f"{folder} is no run folder: it has no {RUN_FILE}.",
        "Name a folder that `ccdcseg train` made, fold_N.",
    )


def read_begun(folder: Path) -> Begun:
    """Read ``begun.json`` of a run's folder.

    Raises:
        UserError: it is missing, or a field of it is missing or wrong.
    """
    return Begun.read(folder / BEGUN_FILE, _REMEDY)


def read_known(folder: Path) -> Known | None:
    """What is known of a training that was begun or finished; None where there is none.

    Raises:
        UserError: a field of its record is missing or wrong.
    """
    if (folder / BEGUN_FILE).exists():
        return read_begun(folder)
    return read_record(folder) if (folder / RUN_FILE).exists() else None


def unlike(records: Iterable[RunRecord]) -> list[str]:
    """A sentence for what moves results and differs between trainings that are compared: precision, threads."""
    records = list(records)
    found = []
    for name in ("precision", "threads"):
        values = sorted({value for record in records if (value := record.environment.get(name))})
        if len(values) > 1:
            found.append(
                f"The trainings differ in {name} ({', '.join(values)}), which alone has moved a result by a point "
                "of Dice and more."
            )
    return found


def write_record(folder: Path, record: RunRecord) -> None:
    """Write ``run.json`` into a run's folder, atomically."""
    write_json(folder / RUN_FILE, record.content)
