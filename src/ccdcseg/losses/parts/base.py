"""What every contrastive loss is: a head of its own, checks, and a term computed in float32."""

import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccdcseg.losses.parts.class_statistics import ClassStatistics, class_statistics
from ccdcseg.losses.parts.fallback import COMPLETE, lacking, on_cpu
from ccdcseg.losses.parts.inputs import (
    class_labels,
    ignored_label,
    refuse_labels,
    refuse_others,
    refuse_probabilities,
)
from ccdcseg.losses.parts.pixel_sets import PixelSets
from ccdcseg.losses.parts.projection import ProjectionHead
from ccdcseg.losses.parts.selection import Diagnostics, Selection
from ccdcseg.losses.parts.settings import ContrastiveSettings, StatisticsScope
from ccdcseg.losses.parts.transfer import to_host

S = TypeVar("S", bound=ContrastiveSettings)
P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 200
"""Calls in a row with nothing to contrast, after which a loss says so."""
_ONCE_IN_STATES = ("iteration", "_extra_state", "average.matrix", "average.seen")
"""A count of the calls, the state of a generator, and an average that was never written to where it was off."""


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Leave a function out of ``torch.compile``, since which pixels are drawn depends on the data.

    The compiler is not imported where nothing is compiled.
    """
    outside: Callable[P, R] | None = None

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal outside
        if not torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if outside is None:
            outside = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return outside(*args, **kwargs)

    return call


@dataclass(frozen=True)
class PixelBatch:
    """What a contrastive loss looks at in one call.

    Attributes:
        features: (B, in_channels, *spatial), through which gradient flows.
        probabilities: (B, C, N) float32 softmax probabilities, without gradient.
        labels: (B, N) int64 class labels, -1 where ignored.
        statistics: class confidence and confusion.
        progress: share of the training that is over, 0 where nothing goes by it.
        generator: CPU source of the draws; None: torch's default.
    """

    features: Tensor
    probabilities: Tensor
    labels: Tensor
    statistics: ClassStatistics
    progress: float
    generator: torch.Generator | None

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, *spatial)."""
        return (len(self.features), *self.features.shape[2:])


@dataclass(frozen=True)
class Read:
    """What the host read of a batch, in one piece, and draws by.

    Attributes:
        statistics: class confidence and confusion, on the CPU.
        sets: of pixels, on the device.
        numbers: of their members, by kind.
        more: what the loss asked for besides, on the CPU.
    """

    statistics: ClassStatistics
    sets: PixelSets
    numbers: Mapping[str, Sequence[range]]
    more: Sequence[Tensor]


class ContrastiveLoss(nn.Module, Generic[S]):
    """A contrastive term beside a segmentation loss; a subclass names its settings and says how it is computed.

    The module owns its projection head: give ``criterion.parameters()`` to the optimiser, and wrap it in
    ``DistributedDataParallel`` where the network is. Its value is a function of the arguments of a call and of the
    head, and of the memory where the method has one, to which calls of a training add; nothing goes by the
    number of calls. Weight and start of the term belong to who adds the losses up, see `Schedule`.

    Pixels are drawn at random, on the CPU, so that a generator gives the same ones on every device. In a training
    they are drawn from ``generator``, or from torch's default one; in evaluation mode, or where no gradient is
    recorded, and none is given, from one that begins anew in each call: an evaluation repeats itself and
    disturbs no training.

    Args:
        in_channels: Channels of the decoder features.
        num_classes: C, background among them.
        ignore_index: Pixels with this label take no part; None: all do.
        **settings: Of the method, by keyword.

    Attributes:
        settings_type: Class of the settings.
        settings: What they are, frozen.
        diagnostics: `Diagnostics` of the last call; None before it, and where the loss was not finite.
        selection: `Selection` of the last call, likewise.

    Raises:
        TypeError: There is no such setting.
        ValueError: Fewer than one channel or two classes, an ``ignore_index`` that is no whole number, or a setting
            outside its range.
    """

    settings_type: type[S]
    _idle_because = "the batches held one class only, or no pixels to contrast"
    _saw_logits = False
    _idle_calls = 0
    _tried = COMPLETE
    _lacking: frozenset[str] = frozenset()

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        ignore_index: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 2:
            raise ValueError(
                "in_channels must be at least 1 and num_classes at least 2, background among them; "
                f"not {in_channels} and {num_classes}"
            )
        self.settings = own = self.settings_type(**settings)
        self.num_classes = num_classes
        self.ignore_index = ignored_label(ignore_index)
        self.head = ProjectionHead(in_channels, own.hidden_channels, own.embedding_channels)
        self.diagnostics: Diagnostics | None = None
        self.selection: Selection | None = None
        self._add_modules()

    def _add_modules(self) -> None:
        """What the method keeps beside its head, where it keeps something."""

    @uncompiled
    def forward(
        self,
        features: Tensor,
        logits: Tensor,
        target: Tensor,
        *,
        progress: float | None = None,
        generator: torch.Generator | None = None,
        annotated: int | None = None,
    ) -> Tensor:
        """Compute the term of one batch.

        Args:
            features: (B, in_channels, *spatial) decoder features; gradient flows into them.
            logits: (B, C, *spatial) class logits, before softmax; no gradient flows into them.
            target: (B, *spatial) or (B, 1, *spatial) class labels, of an integer or floating type.
            progress: Share of the training that is over, 0 to 1; a strategy that goes by it needs it.
            generator: CPU source of the draws; None: see the class.
            annotated: Class confidence and confusion are taken from the first ``annotated`` images, where the
                labels of the others are a network's own; None: from all.

        Returns:
            () float32 (float64 from a head in that), connected to features and head whatever the batch holds: zero
            where there is nothing to contrast; NaN, with zero gradients, where the softmax or the features of a
            pixel that takes part are not finite.

        Raises:
            TypeError: what is no tensor.
            ValueError: shapes that do not match, a target of several channels (one-hot or overlapping
                regions), labels outside [0, C) other than ``ignore_index``, a progress that is needed and not given
                or outside its range, more annotated images than there are, and, in the first call, probabilities
                in place of logits.
        """
        self._check_progress(progress)
        _check_shapes(features, logits, target, self.head.hidden.in_features, self.num_classes)
        if annotated is not None and not 0 <= annotated <= len(features):
            raise ValueError(f"annotated must be between 0 and {len(features)}, the images, not {annotated}")
        if self._needs_cpu(features.device):
            options = {"progress": progress, "generator": generator, "annotated": annotated}
            return on_cpu(self, features, logits, target, **options)
        labels, findings = class_labels(target, self.num_classes, self.ignore_index)
        if not self._saw_logits:
            refuse_probabilities(logits)
            self._saw_logits = logits.numel() > 0
        source = self._source(generator)
        with torch.autocast(features.device.type, enabled=False):
            batch = self._batch(features, logits, labels.flatten(1), annotated, progress or 0.0, source)
            read = self._read(batch, findings)
            if not read.statistics.matrix.isfinite().all():
                self._idle(features)
                return self._zero(features) + math.nan
            loss, idle = self._term(batch, read)
        self._notice_idleness(idle)
        return loss

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Load states of version 0.1 too, which had more in them."""
        for name in _ONCE_IN_STATES:
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _check_progress(self, progress: float | None) -> None:
        if progress is None and self._goes_by_progress:
            raise ValueError(
                f"{type(self).__name__} with query_strategy 'easy_to_hard' needs progress, "
                "the share of the training that is over: criterion(..., progress=step / steps)"
            )
        if progress is not None and not 0 <= progress <= 1:
            raise ValueError(f"progress must be between 0 and 1, not {progress}")

    def _source(self, generator: torch.Generator | None) -> torch.Generator | None:
        """The generator, or in an evaluation one that begins anew."""
        return torch.Generator() if generator is None and not self._learning else generator

    @property
    def _learning(self) -> bool:
        """Whether a call is of a training: in training mode, and where gradients are recorded."""
        return self.training and torch.is_grad_enabled()

    @property
    def _goes_by_progress(self) -> bool:
        """Whether a call must say how much of the training is over."""
        return False

    @property
    def _scope(self) -> StatisticsScope:
        """Whose pixels class confidence and confusion are of."""
        return StatisticsScope.RANK

    def _sets(self, batch: PixelBatch) -> dict[str, Tensor]:
        """The sets to draw from, by kind, as `PixelSets` takes them."""
        raise NotImplementedError

    def _ask(self, sets: PixelSets) -> list[Tensor]:
        """What the host must know besides the sizes of the sets and the statistics."""
        del sets
        return []

    def _term(self, batch: PixelBatch, read: Read) -> tuple[Tensor, bool]:
        """Draw and contrast, without any further wait for the device.

        Returns:
            () the term, connected to the features and to every parameter of the head, and whether
            there was nothing to contrast.
        """
        raise NotImplementedError

    def _batch(
        self, features: Tensor, logits: Tensor, labels: Tensor, annotated: int | None, *drawn_by: Any
    ) -> PixelBatch:
        probabilities = _probabilities(features, logits, labels)
        statistics = class_statistics(probabilities, labels, self._scope, annotated)
        return PixelBatch(features, probabilities, labels, statistics, *drawn_by)

    def _read(self, batch: PixelBatch, findings: Tensor) -> Read:
        """Wait for the device, once; refuse labels that are none, and let go of what the last call left."""
        sets, statistics = PixelSets(self._sets(batch)), batch.statistics
        told, matrix, counts, *others = to_host(
            findings, statistics.matrix, statistics.counts, *sets.sizes.values(), *self._ask(sets)
        )
        refuse_labels(told, self.num_classes, self.ignore_index)
        self.selection = self.diagnostics = None
        kinds = len(sets.sizes)
        return Read(ClassStatistics(matrix, counts), sets, sets.numbers(others[:kinds]), others[kinds:])

    def _needs_cpu(self, device: torch.device) -> bool:
        """Whether the device lacks something, which is tried, and said, once."""
        if device.type not in self._tried:
            self._tried |= {device.type}
            if found := lacking(self, device):
                self._lacking |= {device.type}
                warnings.warn(
                    f"{type(self).__name__} is computed on the CPU, since {device.type} lacks something: {found}",
                    stacklevel=4,
                )
        return device.type in self._lacking

    def _idle(self, features: Tensor) -> None:
        """Take part in what all ranks do together, in a call without a term."""

    def _project(self, features: Tensor, pixels: Tensor, *, gradient: bool) -> Tensor:
        """(n, d) unit embeddings of the pixels (n,)."""
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            vectors: Tensor = self.head(features, pixels[:, None])
        return vectors

    def _zero(self, features: Tensor) -> Tensor:
        """Zero, connected to the features and to every parameter of the head."""
        return self._project(features, no_pixels(features), gradient=True).sum()

    def _nothing(self, features: Tensor, embeddings: Tensor) -> Tensor:
        """The same where there was nothing to contrast; NaN where the embeddings seen are not finite."""
        return self._zero(features) + 0 * embeddings.detach().sum()

    def _notice_idleness(self, idle: bool) -> None:
        """Warn once if there was nothing to contrast in `PATIENCE` calls of a training in a row."""
        if not self._learning or self._idle_calls == PATIENCE:
            return
        self._idle_calls = self._idle_calls + 1 if idle else 0
        if self._idle_calls == PATIENCE:
            warnings.warn(
                f"{type(self).__name__} was zero in {PATIENCE} calls in a row: {self._idle_because}",
                stacklevel=3,
            )


def no_pixels(like: Tensor) -> Tensor:
    """(0,) int64 on the device of ``like``."""
    return torch.empty(0, dtype=torch.int64, device=like.device)


def _check_shapes(features: Tensor, logits: Tensor, target: Tensor, channels: int, classes: int) -> None:
    """Say what does not fit."""
    refuse_others(features=features, logits=logits, target=target)
    if features.ndim not in (4, 5) or features.shape[1] != channels:
        raise ValueError(
            f"features must be (B, {channels}, H, W) or (B, {channels}, D, H, W), not {tuple(features.shape)}"
        )
    if logits.ndim != features.ndim or logits.shape[1] != classes:
        raise ValueError(
            f"logits must be (B, {classes}, *spatial), one channel a class before softmax, "
            f"not {tuple(logits.shape)}"
        )
    if logits.shape[2:] != features.shape[2:] or len(logits) != len(features):
        raise ValueError(
            f"features {tuple(features.shape)} and logits {tuple(logits.shape)} differ in batch or resolution; "
            "for a coarser decoder stage pass logits and target through nearest_to(features, logits, target)"
        )
    plain, channel = (len(logits), *logits.shape[2:]), (len(logits), 1, *logits.shape[2:])
    if tuple(target.shape) not in (plain, channel):
        raise ValueError(
            f"target must hold one class label a pixel, shape {plain} or {channel}, not {tuple(target.shape)}; "
            "one-hot targets and overlapping regions are not supported, since the loss needs one class a pixel"
        )


def _probabilities(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """(B, C, N) softmax probabilities: NaN where a pixel's features are not finite, zero where it is ignored."""
    precise = torch.promote_types(features.dtype, torch.float32)
    broken = ~features.detach().flatten(2).sum(1, dtype=precise).isfinite()
    probabilities = logits.detach().float().softmax(1).flatten(2)
    return probabilities.masked_fill_(broken[:, None], math.nan).masked_fill_((labels < 0)[:, None], 0)


def nearest_to(features: Tensor, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Bring logits and target to the resolution of a coarser decoder stage by nearest neighbour.

    Args:
        features: (B, in_channels, *coarse).
        logits: (B, C, *spatial).
        target: (B, *spatial) or (B, 1, *spatial) class labels.

    Returns:
        ``(logits, target)`` at the coarse resolution, (B, C, *coarse) and (B, 1, *coarse).

    Example:
        >>> half, logits, target = torch.randn(2, 8, 4, 4), torch.randn(2, 3, 8, 8), torch.zeros(2, 8, 8)
        >>> [tuple(one.shape) for one in nearest_to(half, logits, target)]
        [(2, 3, 4, 4), (2, 1, 4, 4)]
    """
    size = features.shape[2:]
    labels = target if target.ndim == logits.ndim else target[:, None]
    coarse = F.interpolate(labels.double(), size, mode="nearest-exact").to(target.dtype)
    return F.interpolate(logits.detach(), size, mode="nearest-exact"), coarse
