"""Presets: how a network is built and trained, in a YAML file that one can read, copy and change."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ccdcseg.errors import UserError
from ccdcseg.files import json_hash
from ccdcseg.losses.ccdc.settings import QueryStrategy
from ccdcseg.networks.nnformer import NNFormerSettings
from ccdcseg.nnunet.terms import (
    CCDCTerm,
    ContrastiveSegTerm,
    FocalTerm,
    GDLTerm,
    MCCTerm,
    ReCoTerm,
    RegionContrastTerm,
    TopKTerm,
)
from ccdcseg.runs.removed import USUAL, refuse_removed, without_removed

Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of a YAML file that people write: an entry that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelledShare(Section):
    """With how many labelled patients the set-up is trained.

    Attributes:
        fractions: shares of all patients; ``ccdcseg split --preset`` draws each, ``ccdcseg train`` takes the first
            unless it is told another.
    """

    fractions: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = (0.1,)


class Network(Section):
    """The network and its input. What is null is left to nnU-Net's planner.

    Attributes:
        configuration: of nnU-Net's plans.
        features_per_stage: channels of the stages, the highest resolution first.
        patch_size: in pixels, slowest axis first.
        spacing_mm: to which scans are resampled, slowest axis first.
        batch_size: patches a step.
    """

    configuration: Literal["2d", "3d_fullres"] = "2d"
    features_per_stage: tuple[Positive, ...] | None = None
    patch_size: tuple[Positive, ...] | None = None
    spacing_mm: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    batch_size: Positive | None = None


FEW = 2
"""Annotated patients up to which a training changes patches strongly unless its preset says how (docs/two.md)."""
STRONG = "training.augmentation=strong"
"""How it is changed then."""


class Training(Section):
    """How long and how the network is trained; the defaults are nnU-Net's.

    Attributes:
        epochs: after each, nnU-Net validates and logs.
        iterations_per_epoch: optimiser steps an epoch.
        validation_iterations: batches of the validation after each epoch.
        optimizer: "sgd" is nnU-Net's, with Nesterov momentum 0.99; "adamw" (Loshchilov and Hutter, ICLR 2019) comes
            farther in short trainings.
        initial_learning_rate: decays as nnU-Net's polynomial.
        foreground_oversampling: share of patches centred on foreground.
        mirroring: patches are mirrored at random, and predictions averaged over mirrored copies of the scan, as in
            nnU-Net; false is its ``nnUNetTrainerNoMirroring``. Null: `ccdcseg train` mirrors, unless two classes
            differ by their side alone (`ccdcseg.datasets.sides`).
        augmentation: of patches, nnU-Net's own, or "strong", that of its ``nnUNetTrainerDA5``; where patches are
            not mirrored without quarter turns and transposition, and with rotations up to 30 degrees
            (`ccdcseg.nnunet.augmentation`). Null: `ccdcseg train` takes the stronger one with `FEW` annotated
            patients or fewer.
        checkpoint_every: epochs between checkpoints to continue from.
        cpu_autocast: "bfloat16" runs the network in bfloat16 on CPUs that have instructions for it.
        augmentation_processes: worker processes; 0 augments in the training process, which makes a seeded
            training repeatable bit for bit; null: nnU-Net's twelve, or as many as there are cores for us.
        averaged_weights: decay of an exponential moving average of the weights, which is what predicts; null: the
            last weights do.
        seed: of weights, batches and draws; null: that of the split.
    """

    epochs: Positive = 1000
    iterations_per_epoch: Positive = 250
    validation_iterations: Positive = 50
    optimizer: Literal["sgd", "adamw"] = "sgd"
    initial_learning_rate: Annotated[float, Field(gt=0)] = 0.01
    foreground_oversampling: Annotated[float, Field(ge=0, le=1)] = 0.33
    mirroring: bool | None = None
    augmentation: Literal["nnunet", "strong"] | None = None
    checkpoint_every: Positive = 50
    cpu_autocast: Literal["bfloat16", "none"] = "none"
    augmentation_processes: Annotated[int, Field(ge=0)] | None = None
    averaged_weights: Annotated[float, Field(ge=0, lt=1)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.epochs * self.iterations_per_epoch

    @property
    def mirrors(self) -> bool:
        """Whether patches are mirrored, once classes that differ by their side have had their say."""
        return self.mirroring is not False


class Prediction(Section):
    """How test scans are predicted.

    Attributes:
        mirroring: average over mirrored copies of the input; off is ``--disable_tta`` of ``nnUNetv2_predict``.
        tile_step_size: step of the sliding window, in patches.
    """

    mirroring: bool = True
    tile_step_size: Annotated[float, Field(gt=0, le=1)] = 0.5


class UnlabelledScans(Section):
    """How scans without masks take part: networks label them, and the training learns from these labels too.

    From ``first`` on, ``times`` times, evenly spread over the rest of the training, the network that predicts (the
    averaged one, where there is one) labels every such scan as a whole. Post-processing by the rules of the
    training masks cleans the labels, what it removes becomes background, and voxels of a low confidence are
    ignored.

    In self-training ``teachers`` finished trainings on the annotated scans alone, which differ by their seed, label
    them together, once, before the training begins; the scans on which they agree least are left out (ST++: Yang et
    al., CVPR 2022, who compare one network's checkpoints in place of several networks).

    Attributes:
        use: whether they take part.
        first: share of the training after which labels are written for the first time.
        times: how often they are written.
        scans: how many are labelled each time at most, drawn anew; null: all. Labels cost the time of a prediction.
        confidence: probability below which a voxel is ignored.
        weight: of their loss beside that of annotated scans.
        share: of the patches of a batch that come from them, once they have labels.
        teachers: how many networks label them in self-training; null: the trained network itself does.
        agreed: share of the scans that is kept in self-training, on which the teachers agree most; one at least.
    """

    use: bool = False
    first: Annotated[float, Field(gt=0, lt=1)] = 1 / 3
    times: Positive = 4
    scans: Positive | None = None
    confidence: Annotated[float, Field(ge=0, lt=1)] = 0.8
    weight: Annotated[float, Field(gt=0)] = 0.5
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    teachers: Annotated[int, Field(ge=2)] | None = None
    agreed: Annotated[float, Field(gt=0, le=1)] = 0.8

    def patches(self, batch: int, ranks: int = 1) -> int:
        """How many of the patches of a batch come from them.

        Args:
            batch: patches, of one rank where several GPUs share a batch.
            ranks: how many do.

        Raises:
            UserError: none is left for the annotated scans.
        """
        if batch < self.least_batch:
            part = f" on one of {ranks} GPUs" if ranks > 1 else ""
            raise UserError(
                f"A batch of {batch}{part} has no room for annotated and unlabelled patches "
                f"(unlabelled.share is {self.share:g}).",
                f"Set network.batch_size to {self.least_batch * ranks} or more (with nnU-Net's own plans, "
                "batch_size in their file), or unlabelled.share lower.",
            )
        return max(1, round(batch * self.share))

    @property
    def least_batch(self) -> int:
        """Patches of the smallest batch that holds some of them and some of annotated scans."""
        fewer = max(2, int(0.5 / (1 - self.share)))
        return next(batch for batch in count(fewer) if round(batch * self.share) < batch)


class Preset(Section):
    """One way to train and predict; see the sections.

    Attributes:
        description: what it is for.
        labelled: see `LabelledShare`.
        network: see `Network`.
        training: see `Training`.
        prediction: see `Prediction`.
        unlabelled: see `UnlabelledScans`.
        decoder_stage: which decoder stage feeds the projection head: 0 the last, at full resolution, 1 the one
            before it at half of it, and so on.
        ccdc: settings of CCDC's term.
        focal: settings of the focal loss.
        gdl: settings of the generalised Dice loss.
        topk: settings of the top-k cross-entropy.
        mcc: settings of the Matthews correlation loss.
        reco: settings of ReCo's term.
        contrastive_seg: settings of ContrastiveSeg's term.
        region_contrast: settings of RegionContrast's term.
        nnformer: settings of the nnFormer network.
    """

    description: str = "nnU-Net's own plan and schedule"
    labelled: LabelledShare = LabelledShare()
    network: Network = Network()
    training: Training = Training()
    prediction: Prediction = Prediction()
    unlabelled: UnlabelledScans = UnlabelledScans()
    decoder_stage: Annotated[int, Field(ge=0)] = 0
    ccdc: CCDCTerm = CCDCTerm()
    focal: FocalTerm = FocalTerm()
    gdl: GDLTerm = GDLTerm()
    topk: TopKTerm = TopKTerm()
    mcc: MCCTerm = MCCTerm()
    reco: ReCoTerm = ReCoTerm()
    contrastive_seg: ContrastiveSegTerm = ContrastiveSegTerm()
    region_contrast: RegionContrastTerm = RegionContrastTerm()
    nnformer: NNFormerSettings = NNFormerSettings()


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(p.name.removesuffix(".yaml") for p in _shipped().iterdir() if p.name.endswith(".yaml"))


def load_preset(name: str, changes: Sequence[str] = ()) -> tuple[str, Preset]:
    """Read a preset and apply changes to it.

    Args:
        name: of a shipped preset, or the path of a YAML file.
        changes: ``key=value`` with dotted keys, such as ``ccdc.weight=0.1``; values are read as YAML.

    Returns:
        A name that tells different settings apart (the preset's, with a hash where something was changed) and
        the preset.

    Raises:
        UserError: no such preset, a damaged file, an unknown or invalid setting.
    """
    content, label = _read(name)
    for change in changes:
        _apply(content, change)
    preset = _validate(content, name)
    shipped = label in preset_names() and settings_hash(preset) == settings_hash(
        _validate(_read(label)[0], label)
    )
    return (label if shipped else f"{label}_{settings_hash(preset)}"), preset


def settings_hash(preset: Preset) -> str:
    """Eight hexadecimal digits that two presets share only if every setting is the same."""
    return json_hash(identity(preset))[:8]


def identity(preset: Preset) -> dict[str, Any]:
    """What tells settings apart, in the names of runs.

    Settings at their defaults do not enter, so that a new setting leaves the names of earlier runs as they are;
    mirroring and nnU-Net's own augmentation, as these had them, do not either. Nor do the labelled shares: a run
    has its split. Runs that go from easy to hard pixels have always had the length of the training in their names.
    """
    content = _dumped(preset, exclude={"description", "labelled"})
    if preset.ccdc.query_strategy is QueryStrategy.EASY_TO_HARD:
        content["ccdc"]["total_iterations"] = preset.training.steps
    return content


def stored_form(preset: Preset) -> dict[str, Any]:
    """What plans hold of a preset: what differs from the defaults, so that a setting can be added or taken out."""
    return _dumped(preset)


def _dumped(preset: Preset, exclude: set[str] | None = None) -> dict[str, Any]:
    """What differs from the defaults. A training mirrors or does not, whatever the reason, and so on."""
    training = preset.training
    same = {name: None for name, value in USUAL.items() if getattr(training, name) == value}
    training = training.model_copy(update=same)
    return preset.model_copy(update={"training": training}).model_dump(
        mode="json", exclude=exclude, exclude_defaults=True
    )


def preset_of_plans(plans: Mapping[str, Any]) -> Preset:
    """The preset stored in nnU-Net plans; nnU-Net's own ways where there is none."""
    return _validate(plans.get("ccdcseg", {}), "the plans")


def read_yaml(path: Path) -> Any:
    """Content of a YAML file in UTF-8 or, as some editors write it, UTF-16 with its mark.

    Raises:
        UserError: it is not valid, or a key stands twice in one place.
    """
    try:
        return _Loader(path.read_bytes()).get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that there is not
        raise UserError(
            f"{path} is not valid YAML ({error}).", "Mend the file, and save it as UTF-8."
        ) from error


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one, which takes the last of equal keys; YAML allows none."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if (name := (key.tag, str(key.value))) in seen:
                again = f"{key.value} stands twice, again in line {key.start_mark.line + 1}"
                raise yaml.MarkedYAMLError(problem=again)
            seen.add(name)
        return node


def _shipped() -> Any:
    return files("ccdcseg") / "presets"


def _read(name: str) -> tuple[dict[str, Any], str]:
    """Content and short name of a preset."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else _shipped() / f"{name}.yaml"
    if not path.is_file():
        raise UserError(
            f"There is no preset {name}.",
            f"Choose {', '.join(preset_names())}, or give the path of a YAML file.",
        )
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{name} holds no settings.", "Copy one of the shipped presets and change it.")
    return {key: {} if held is None else held for key, held in content.items()}, Path(name).stem


def _apply(content: dict[str, Any], change: str) -> None:
    """Set one dotted key."""
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise UserError(
            f"--set {change} is not of the form key=value.", "Write for instance ccdc.weight=0.1."
        )
    *sections, last = key.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise UserError(f"The setting {key} does not exist.", f"{section} is a value, not a section.")
    try:
        place[last] = _Loader(value).get_single_data()
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"--set {change} has a value that cannot be read.", "Quote it as YAML.") from error


def _validate(content: Mapping[str, Any], name: str) -> Preset:
    content = without_removed(content)
    refuse_removed(content, name)
    try:
        return Preset.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            raise UserError(f"{name}: there is no setting {key}.", f"{_section_help(key)}") from error
        raise UserError(
            f"{name}: the setting {key} is wrong: {first['msg']}.", "Correct its value."
        ) from error


def _section_help(key: str) -> str:
    """The settings that exist beside a wrong key."""
    *sections, _ = key.split(".")
    field = Preset.model_fields.get(sections[0]) if sections else None
    model: Any = field.annotation if field else Preset
    names = model.model_fields if hasattr(model, "model_fields") else model.__dataclass_fields__
    names = [name for name in names if not name.startswith("_")]
    return f"There are: {', '.join(names)}."
