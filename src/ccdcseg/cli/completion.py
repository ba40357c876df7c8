"""What a shell offers for a word that is begun: data sets, methods, presets."""

import os
from pathlib import Path

from ccdcseg.methods import METHODS

_PRESETS = Path(__file__).parents[1] / "presets"


def datasets(begun: str) -> list[str]:
    """Names of the data sets in ``$nnUNet_raw``."""
    raw = Path(os.environ.get("nnUNet_raw") or os.devnull)  # noqa: SIM112
    return [folder.name for folder in sorted(raw.glob("Dataset*")) if folder.name.startswith(begun)]


def methods(begun: str) -> list[str]:
    """Names of the methods."""
    return [name for name in METHODS if name.startswith(begun)]


def presets(begun: str) -> list[str]:
    """Names of the presets that come with the package."""
    return [path.stem for path in sorted(_PRESETS.glob("*.yaml")) if path.stem.startswith(begun)]
