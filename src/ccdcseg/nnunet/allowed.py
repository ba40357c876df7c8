"""Which classes and functions plans and ``dataset.json`` may name: nnU-Net imports whatever they do."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ccdcseg.datasets.usable import READER_KEY
from ccdcseg.errors import UserError

ARCHITECTURES = "dynamic_network_architectures.architectures"
BLOCKS = "dynamic_network_architectures.building_blocks.residual"
_LAYERS = (
    *(nn.Conv2d, nn.Conv3d, nn.Dropout, nn.Dropout2d, nn.Dropout3d),
    *(nn.InstanceNorm2d, nn.InstanceNorm3d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.LeakyReLU, nn.ReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish),
)
NETWORKS = frozenset(
    f"{ARCHITECTURES}.{name}"
    for name in (
        "unet.PlainConvUNet",
        "unet.ResidualEncoderUNet",
        "unet.ResidualUNet",
        "residual_unet.ResidualEncoderUNet",  # where it was before 2024
    )
)
LAYERS = frozenset(
    [f"{BLOCKS}.{name}" for name in ("BasicBlockD", "BottleneckD")]
    + [f"{place}.{layer.__name__}" for layer in _LAYERS for place in ("torch.nn", layer.__module__)]
)
FIRST_NETWORKS = frozenset({"PlainConvUNet", "ResidualEncoderUNet"})
"""As plans of nnU-Net's first versions name them."""
PREPROCESSORS = frozenset({"DefaultPreprocessor"})
NORMALISATIONS = frozenset(
    f"{name}Normalization" for name in ("ZScore", "CT", "No", "RescaleTo01", "RGBTo01")
)
RESAMPLINGS = frozenset(
    {
        "resample_data_or_seg_to_shape",
        "resample_data_or_seg_to_spacing",
        "resample_torch_simple",
        "resample_torch_fornnunet",
        "no_resampling_hack",
    }
)
READERS = frozenset(
    {
        "SimpleITKIO",
        "SimpleITKIOWithReorient",
        "NibabelIO",
        "NibabelIOWithReorient",
        "NaturalImage2DIO",
        "Tiff3DIO",
    }
)
TURNING = frozenset({"SimpleITKIOWithReorient", "NibabelIOWithReorient"})
"""Those of them that turn a scan to the axes of the body, and turn back masks alone."""
LABEL_MANAGERS = frozenset({"LabelManager"})

Named = tuple[str, Any, Collection[str]]
"""Key in a file, what it names, and what it may name."""


def check_plans(plans: Mapping[str, Any], place: Path) -> None:
    """See that plans name nothing but classes and functions of nnU-Net.

    The planner that made them is not looked at: nothing here imports it.

    Args:
        plans: of nnU-Net.
        place: where they are from, for the message.

    Raises:
        UserError: they name another.
    """
    try:
        _check(_named_in_plans(plans), place)
    except (AttributeError, TypeError, KeyError) as error:
        raise UserError(f"{place} is no file of plans ({error}).", "Restore it.") from error


def check_dataset(dataset: Any, place: Path) -> None:
    """See that a model's ``dataset.json`` says what it takes and tells apart, and names no reader but nnU-Net's.

    Args:
        dataset: its content.
        place: where it is from, for the message.

    Raises:
        UserError: it lacks an entry, or names another reader of images.
    """
    content = dataset if isinstance(dataset, Mapping) else {}
    for key, kind in (("channel_names", Mapping), ("labels", Mapping), ("file_ending", str)):
        if not isinstance(content.get(key), kind):
            raise UserError(f'{place} has no "{key}".', "Write it as nnU-Net's documentation asks.")
    _check([(READER_KEY, dataset.get(READER_KEY), READERS | {"None"})], place)


def _check(named: Collection[Named] | Iterator[Named], place: Path) -> None:
    for key, name, allowed in named:
        if name is not None and not (isinstance(name, str) and name in allowed):
            raise UserError(
                f"{place} names {str(name)[:100]} as {key}: code that nnU-Net does not come with is not run.",
                "If you trust it, use nnU-Net's own commands, which run whatever is named.",
            )


def _named_in_plans(plans: Mapping[str, Any]) -> Iterator[Named]:
    yield "image_reader_writer", plans.get("image_reader_writer"), READERS
    yield "label_manager", plans.get("label_manager"), LABEL_MANAGERS
    for configuration in plans["configurations"].values():
        yield "preprocessor_name", configuration.get("preprocessor_name"), PREPROCESSORS
        for scheme in configuration.get("normalization_schemes", ()):
            yield "normalization_schemes", scheme, NORMALISATIONS
        for part in ("data", "seg", "probabilities"):
            yield f"resampling_fn_{part}", configuration.get(f"resampling_fn_{part}"), RESAMPLINGS
        yield "UNet_class_name", configuration.get("UNet_class_name"), FIRST_NETWORKS
        yield from _named_in_architecture(configuration.get("architecture", {}))


def _named_in_architecture(architecture: Mapping[str, Any]) -> Iterator[Named]:
    yield "network_class_name", architecture.get("network_class_name"), NETWORKS
    arguments = architecture.get("arch_kwargs", {})
    for key in architecture.get("_kw_requires_import", ()):
        yield key, arguments[key], LAYERS
