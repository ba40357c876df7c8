"""Settings that earlier versions had: passed over where they change nothing, refused where they do."""

from collections.abc import Mapping
from typing import Any

from ccdcseg.errors import UserError

LAST_VERSION = "0.1.0 at commit 93084b9"
"""The last one that trains with what was taken out."""

_TERMS = ("ccdc", "reco", "contrastive_seg", "region_contrast")
_SETTINGS: dict[tuple[str, str], Any] = {
    **{(term, "warmup_iterations"): 0 for term in _TERMS},
    **{(term, "end_iteration"): None for term in _TERMS},
    **{(term, "head_normalisation"): "none" for term in _TERMS},
    ("ccdc", "negative_sharing"): "per_class",
    ("ccdc", "statistics_momentum"): None,
    ("ccdc", "total_iterations"): None,
}
"""By section and name, the value at which a training is as one without the setting."""
USUAL = {"mirroring": True, "augmentation": "nnunet"}
"""What a training does whose section ``training`` leaves these to the data, or is of a time without them."""
_VALUES = {("ccdc", "region"): "cube", ("ccdc", "denominator"): "class_max"}
"""Values that were taken out of settings that are still there."""


def without_removed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's settings without those that are no longer there and changed nothing."""
    return {
        section: {name: value for name, value in held.items() if not _idle(settings, section, name, value)}
        if isinstance(held, Mapping)
        else held
        for section, held in settings.items()
    }


def refuse_removed(settings: Mapping[str, Any], place: str) -> None:
    """Refuse settings that are no longer there.

    Args:
        settings: of a preset, from `without_removed`.
        place: where they are from, for the message.

    Raises:
        UserError: there is one.
    """
    for section, name in (*_SETTINGS, *_VALUES):
        held = settings.get(section)
        if not isinstance(held, Mapping) or name not in held:
            continue
        if (section, name) in _SETTINGS or held[name] == _VALUES[section, name]:
            raise UserError(
                f"{place}: {section}.{name}={held[name]} was taken out of ccdcseg.",
                f"Leave it out, or use the last version that has it: {LAST_VERSION}.",
            )


def _idle(settings: Mapping[str, Any], section: str, name: str, value: Any) -> bool:
    """Whether a setting was taken out and changed nothing."""
    if (section, name) not in _SETTINGS:
        return False
    return bool(
        value == _SETTINGS[section, name] or (name == "total_iterations" and value == _steps(settings))
    )


def _steps(settings: Mapping[str, Any]) -> int | None:
    """Steps of the training, which "easy_to_hard" goes by without being told."""
    training = settings.get("training", {})
    if not isinstance(training, Mapping):
        return None
    numbers = [training.get("epochs", 1000), training.get("iterations_per_epoch", 250)]
    return numbers[0] * numbers[1] if all(type(number) is int for number in numbers) else None
