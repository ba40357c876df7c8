"""Frozen, validated settings: what those of all losses have in common."""

import math
from dataclasses import dataclass, fields
from enum import StrEnum
from numbers import Integral, Real
from typing import Any, ClassVar


class StatisticsScope(StrEnum):
    """Over which pixels class confidence, confusion and core are taken in distributed training."""

    RANK = "rank"
    """Those of this process."""
    GLOBAL = "global"
    """Summed over all ranks of the default process group; in an evaluation, which may be of one rank, as `RANK`."""


def plain(value: Any) -> Any:
    """A number of another library's type, such as NumPy's, as Python's own; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings whose types and ranges are checked when they are made.

    A class names its own numbers of limited range in ``_at_least_one``, ``_at_least_zero`` and ``_shares``; a
    subclass adds to those of its bases.

    Raises:
        ValueError: a value of another type, outside its range, or not among an enum's.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    _at_least_one: ClassVar[tuple[str, ...]] = ()
    _at_least_zero: ClassVar[tuple[str, ...]] = ()
    _shares: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Coerce enum values given as strings and check every type and range."""
        for field in fields(self):
            self._check_type(field.name, field.type)
        for name in self._limited("_at_least_one"):
            self._require(name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1")
        for name in self._limited("_at_least_zero"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in self._limited("_shares"):
            self._require(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")

    @classmethod
    def part_of(cls, settings: "Settings") -> dict[str, Any]:
        """The values that settings have for the names of this class, to be given as keywords."""
        return {field.name: getattr(settings, field.name) for field in fields(cls)}

    @classmethod
    def _limited(cls, limit: str) -> list[str]:
        """Names of all classes that this one is made of."""
        return [name for part in cls.__mro__ for name in vars(part).get(limit, ())]

    def _check_type(self, name: str, annotation: Any) -> None:
        value = plain(getattr(self, name))
        object.__setattr__(self, name, value)
        if isinstance(annotation, type) and issubclass(annotation, StrEnum):
            known = [member.value for member in annotation]
            self._require(name, value in known, f"one of {', '.join(known)}")
            object.__setattr__(self, name, annotation(value))
        elif value is None and "None" in str(annotation):
            return
        elif annotation is bool:
            self._require(name, isinstance(value, bool), "true or false")
        elif "int" in str(annotation):
            self._require(name, type(value) is int, "a whole number")
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            self._require(name, number and math.isfinite(value), "a finite number")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {what}, not {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings(Settings):
    """What the settings of all contrastive losses have in common.

    Attributes:
        temperature: tau.
        hidden_channels: width of the projection head.
        embedding_channels: length of a pixel's embedding.
    """

    temperature: float = 0.5
    hidden_channels: int = 256
    embedding_channels: int = 256

    _at_least_one: ClassVar[tuple[str, ...]] = ("hidden_channels", "embedding_channels")

    def __post_init__(self) -> None:
        """As the base, and a temperature above 0."""
        super().__post_init__()
        self._require("temperature", self.temperature > 0, "above 0")
