"""How many things of a kind are held in memory at once."""

import gc
import weakref
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Alive:
    """Told of each thing as it is made.

    Attributes:
        most: of them that were in use at the same time.
    """

    most: int = 0
    _seen: list["weakref.ref[Any]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        gc.collect()
        gc.freeze()  # what was there before is not looked through at each thing, which takes a second

    def watch(self, thing: Any) -> Any:
        """Count a thing with those before it that somebody still holds, and give it back."""
        gc.collect()
        self._seen.append(weakref.ref(thing))
        self.most = max(self.most, sum(seen() is not None for seen in self._seen))
        return thing
