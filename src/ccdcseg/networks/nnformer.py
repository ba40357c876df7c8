"""nnFormer: a U-shaped transformer for volumes, with convolutions between its attention blocks.

Maps are (B, S, H, W, C) between the convolutions, with the channels last; S is the slowest axis. Every size, stride
and window is given in the order S, H, W.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccdcseg.errors import UserError
from ccdcseg.losses.parts.settings import plain

Size = tuple[int, int, int]

AXES = ("first", "second", "third")


@dataclass(frozen=True, kw_only=True)
class NNFormerSettings:
    """Settings of `NNFormer`; the defaults are those of the paper and the released code for ACDC.

    Attributes:
        embedding_channels: channels of the first stage; each further stage doubles them.
        embedding_stride: of the convolutional embedding and of the final expansion; 1, 2 or 4 along each axis.
        strides: between one stage and the next, 1 or 2 along each axis; their number plus one is the number of
            stages, at least three.
        windows: local volume of each stage, in tokens; null for attention over the whole map.
        depths: transformer layers of each stage, in the encoder and again in the decoder.
        heads: attention heads of each stage; they divide its channels.
        mlp_ratio: hidden channels of the two-layer perceptrons, in multiples of the stage's.
        drop_path: highest probability of leaving out a layer for a sample while training (stochastic depth); it
            grows linearly from 0 along the encoder, and again along the decoder.

    Raises:
        ValueError: a value outside its range, or lists that do not fit each other.
    """

    embedding_channels: int = 96
    embedding_stride: Size = (1, 4, 4)
    strides: tuple[Size, ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    windows: tuple[Size | None, ...] = ((3, 5, 5), (3, 5, 5), None, None)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    mlp_ratio: int = 4
    drop_path: float = 0.2

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Coerce lists to tuples, and numbers to Python's, and check everything."""
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        for name in ("embedding_stride", "strides", "windows", "depths", "heads"):
            self._require(name, isinstance(getattr(self, name), tuple), "a list")
        self._check_sizes()
        self._check_stages()
        for name in ("embedding_channels", "mlp_ratio"):
            self._require(name, _is_count(getattr(self, name)), "a whole number, at least 1")
        rate = self.drop_path
        self._require("drop_path", _is_number(rate) and 0 <= rate < 1, "at least 0 and below 1")
        self._require("embedding_channels", self.embedding_channels % 2 == 0, "even")
        for heads, channels in zip(self.heads, self.channels, strict=True):
            self._require("heads", channels % heads == 0, f"divisors of the stages' channels {self.channels}")

    def _check_sizes(self) -> None:
        self._require("embedding_stride", _is_size(self.embedding_stride, (1, 2, 4)), "three of 1, 2 and 4")
        wanted = "of three strides of 1 or 2 a stage but the first"
        self._require("strides", all(_is_size(s, (1, 2)) for s in self.strides), wanted)
        sizes = all(w is None or _is_size(w) for w in self.windows)
        self._require("windows", sizes, "of three whole numbers, or null, a stage")

    def _check_stages(self) -> None:
        self._require("strides", len(self.strides) >= 2, "at least two, for three stages")
        for name in ("windows", "depths", "heads"):
            wanted = f"one a stage ({len(self.strides) + 1}, one more than strides)"
            self._require(name, len(getattr(self, name)) == len(self.strides) + 1, wanted)
        for name in ("depths", "heads"):
            self._require(name, all(map(_is_count, getattr(self, name))), "whole numbers, at least 1")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {what}, not {getattr(self, name)!r}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.embedding_channels * 2**stage for stage in range(len(self.depths)))

    @property
    def total_strides(self) -> tuple[Size, ...]:
        """Voxels a token of each stage spans."""
        return tuple(accumulate(self.strides, _product, initial=self.embedding_stride))

    @property
    def output_strides(self) -> tuple[Size, ...]:
        """Voxels a pixel of each output spans, the highest resolution first; one output less than stages."""
        return tuple(accumulate(self.strides[:-1], _product, initial=(1, 1, 1)))

    def map_sizes(self, patch_size: Sequence[int]) -> tuple[Size, ...]:
        """Tokens of each stage's map.

        Raises:
            ValueError: the patch has not three axes, or an axis that the strides do not divide.
        """
        if len(patch_size) != 3:
            raise ValueError(f"nnFormer is for volumes; the patch {list(patch_size)} has not three axes")
        for axis, size, stride in zip(AXES, patch_size, self.total_strides[-1], strict=True):
            if size < 1 or size % stride:
                raise ValueError(
                    f"the {axis} axis of the patch has {size} voxels; "
                    f"the strides of nnFormer need a multiple of {stride}"
                )
        return tuple(_quotient(patch_size, stride) for stride in self.total_strides)


def check_patch(patch: Sequence[int], settings: NNFormerSettings) -> None:
    """See that nnFormer takes patches of this size.

    Raises:
        UserError: it does not.
    """
    if len(patch) != 3:
        raise UserError(
            "nnFormer is for volumes, and this configuration is 2-D.",
            "Train 3d_fullres (network.configuration), or take the preset nnformer_cpu or nnformer_paper.",
        )
    try:
        settings.map_sizes(patch)
    except ValueError as error:
        raise UserError(
            f"nnFormer does not fit a patch of {list(patch)}: {error}.",
            "Change network.patch_size (with nnU-Net's own plans, patch_size in their file), or "
            "nnformer.strides and nnformer.embedding_stride.",
        ) from error


class Embedding(nn.Module):
    """Image to tokens, by four convolutions of kernel 3 (Fig. 2b).

    A stride of 4 is taken in two steps, by the first and the third. GELU and layer normalisation follow each
    convolution but the last, which is only normalised.

    Shape: (B, channels in, S, H, W) to (B, S/s, H/s, W/s, C).
    """

    def __init__(self, in_channels: int, channels: int, stride: Size) -> None:
        super().__init__()
        first, second = _two_steps(stride)
        half = channels // 2
        one = (1, 1, 1)
        plan = (
            (in_channels, half, first),
            (half, half, one),
            (half, channels, second),
            (channels, channels, one),
        )
        self.convolutions = nn.ModuleList(nn.Conv3d(a, b, 3, s, padding=1) for a, b, s in plan)
        self.norms = nn.ModuleList(nn.LayerNorm(b) for _, b, _ in plan)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        last = len(self.norms) - 1
        for step, (convolve, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = _channels_last(convolve(x))
            x = _channels_first(norm(x if step == last else F.gelu(x)))
        return _channels_last(x)


class Windows(nn.Module):
    """A map divided into windows, and which tokens of a window may see each other.

    A window larger than the map shrinks to it. A shifted division starts half a window later, along the axes on
    which there is more than one window, and rolls the map round; a map that windows do not divide is padded at its
    end. Tokens that only the roll made neighbours do not see each other, and none sees the padding.

    Args:
        size: of the map, in tokens.
        window: of a window; None for one window over all.
        shifted: whether windows start half a window later.
    """

    allowed: Tensor | None

    def __init__(self, size: Size, window: Size | None, shifted: bool = False) -> None:
        super().__init__()
        self.size = size
        self.window = _triple(min(w, s) for w, s in zip(window or size, size, strict=True))
        self.count = _triple(math.ceil(s / w) for s, w in zip(size, self.window, strict=True))
        self.padded = _product(self.count, self.window)
        self.shift = _triple(
            w // 2 if shifted and n > 1 else 0 for w, n in zip(self.window, self.count, strict=True)
        )
        self.register_buffer("allowed", self._allowed(), persistent=False)

    def split(self, x: Tensor) -> Tensor:
        """(B, S, H, W, C) to (B, windows, tokens of a window, C)."""
        if self.padded != self.size:
            s, h, w = (p - n for p, n in zip(self.padded, self.size, strict=True))
            x = F.pad(x, (0, 0, 0, w, 0, h, 0, s))
        if any(self.shift):
            x = x.roll([-s for s in self.shift], (1, 2, 3))
        (a, b, c), (i, j, k) = self.count, self.window
        x = x.reshape(-1, a, i, b, j, c, k, x.shape[-1]).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return x.reshape(x.shape[0], a * b * c, i * j * k, x.shape[-1])

    def join(self, x: Tensor) -> Tensor:
        """The inverse of `split`."""
        (a, b, c), (i, j, k) = self.count, self.window
        x = x.reshape(-1, a, b, c, i, j, k, x.shape[-1]).permute(0, 1, 4, 2, 5, 3, 6, 7)
        x = x.reshape(x.shape[0], *self.padded, x.shape[-1])
        if any(self.shift):
            x = x.roll(self.shift, (1, 2, 3))
        s, h, w = self.size
        return x[:, :s, :h, :w]

    def _allowed(self) -> Tensor | None:
        """(windows, tokens, tokens) whether the token of a row may see that of a column; None if all may."""
        if self.padded == self.size and not any(self.shift):
            return None
        regions = [self._regions(axis) for axis in range(3)]
        numbers = 9 * regions[0][:, None, None] + 3 * regions[1][:, None] + regions[2]
        (a, b, c), (i, j, k) = self.count, self.window
        rows = numbers.reshape(a, i, b, j, c, k).permute(0, 2, 4, 1, 3, 5).reshape(a * b * c, i * j * k)
        return rows[:, :, None] == rows[:, None]

    def _regions(self, axis: int) -> Tensor:
        """Along an axis, after the roll: 0 where the map goes on, 1 what came round, 2 padding."""
        size, padded, shift = self.size[axis], self.padded[axis], self.shift[axis]
        position = (torch.arange(padded) + shift) % padded
        return (position < shift).long() + 2 * (position >= size)


class PositionBias(nn.Module):
    """A learned number for each head and each displacement between two tokens of a window (B of Eq. 3)."""

    index: Tensor

    def __init__(self, window: Size, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(math.prod(2 * w - 1 for w in window), heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("index", displacement_index(window), persistent=False)

    def forward(self) -> Tensor:
        """(heads, tokens, tokens) row: query, column: key."""
        return self.table[self.index].permute(2, 0, 1)


def displacement_index(window: Size) -> Tensor:
    """(tokens, tokens) a number for each displacement from column to row, the same for the same displacement."""
    axes = [torch.arange(w) for w in window]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    s, h, w = (places[:, None] - places + torch.tensor(window) - 1).unbind(-1)
    return (s * (2 * window[1] - 1) + h) * (2 * window[2] - 1) + w


class VolumeAttention(nn.Module):
    """Multi-head attention inside each window (Eq. 3 and 6).

        softmax(Q K^T / sqrt(d) + B) V,    d = channels of a head

    Local (LV-MSA, shifted SLV-MSA) or global (GV-MSA) as the windows are. For self-attention query, key and value
    are linear functions of the same map. For skip attention key and value are linear in the encoder's map, and the
    up-sampled map is the query as it is.

    Args:
        channels: of the maps.
        heads: divide the channels.
        windows: see `Windows`.
        projected_query: whether the query is a linear function of its map.
    """

    def __init__(self, channels: int, heads: int, windows: Windows, projected_query: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.windows = windows
        self.bias = PositionBias(windows.window, heads)
        self.query = nn.Linear(channels, channels) if projected_query else nn.Identity()
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """(B, S, H, W, C) what tokens of ``x`` read from ``source``, a map of the same shape, or from ``x``."""
        tokens = self.windows.split(x)
        sources = tokens if source is None else self.windows.split(source)
        query = self._heads(self.query(tokens))
        key, value = map(self._heads, self.key_value(sources).chunk(2, -1))
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + self.bias()
        if self.windows.allowed is not None:
            scores = scores.masked_fill(~self.windows.allowed[:, None], -math.inf)
        read = scores.softmax(-1).to(value.dtype) @ value
        return self.windows.join(self.out(read.transpose(-3, -2).flatten(-2)))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, windows, tokens, C) to (B, windows, heads, tokens, C / heads)."""
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(-3, -2)


class DropPath(nn.Module):
    """While training, leaves out what it gets for a share of the samples and scales up the rest."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; the first axis counts samples."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))


class TransformerLayer(nn.Module):
    """Attention and perceptron, each after layer normalisation and around a shortcut (Eq. 1)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        windows: Windows,
        mlp_ratio: int,
        drop_path: float,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(channels)
        self.attention = VolumeAttention(channels, heads, windows, projected_query=not skip)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, mlp_ratio * channels), nn.GELU(), nn.Linear(mlp_ratio * channels, channels)
        )
        self.drop = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, H, W, C) to the same."""
        return self._finish(x, self.attention(self.norm_attention(x)))

    def _finish(self, shortcut: Tensor, read: Tensor) -> Tensor:
        x = shortcut + self.drop(read)
        result: Tensor = x + self.drop(self.mlp(self.norm_mlp(x)))
        return result


class SkipLayer(TransformerLayer):
    """Skip attention: the up-sampled map reads from the encoder's map (Eq. 5 and 6); the shortcut is their sum."""

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        """(B, S, H, W, C) to the same; both maps of one shape."""
        read = self.attention(self.norm_attention(x), self.norm_attention(skip))
        return self._finish(x + skip, read)


class DownSampling(nn.Module):
    """GELU, layer normalisation and a strided convolution that doubles the channels (Fig. 2c)."""

    def __init__(self, channels: int, stride: Size) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        kernel = _triple(1 if s == 1 else 3 for s in stride)
        padding = _triple(k // 2 for k in kernel)
        self.convolve = nn.Conv3d(channels, 2 * channels, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, H, W, C) to (B, S/s, H/s, W/s, 2C)."""
        return _channels_last(self.convolve(_channels_first(self.norm(F.gelu(x)))))


class UpSampling(nn.Module):
    """Layer normalisation and a transposed convolution that halves the channels (Fig. 2d)."""

    def __init__(self, channels: int, stride: Size) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.convolve = nn.ConvTranspose3d(channels, channels // 2, stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, H, W, C) to (B, S*s, H*s, W*s, C/2)."""
        return _channels_last(self.convolve(_channels_first(self.norm(x))))


class Encoder(nn.Module):
    """Embedding, and stages of transformer layers with down-sampling between them."""

    def __init__(self, in_channels: int, sizes: Sequence[Size], settings: NNFormerSettings) -> None:
        super().__init__()
        channels = settings.channels
        self.embedding = Embedding(in_channels, channels[0], settings.embedding_stride)
        rates = _rates(settings.depths, settings.drop_path)
        self.stages = nn.ModuleList(
            nn.Sequential(*_layers(settings, stage, size, rates[stage])) for stage, size in enumerate(sizes)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self.down = nn.ModuleList(
            DownSampling(c, s) for c, s in zip(channels[:-1], settings.strides, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The normalised map of each stage, the highest resolution first."""
        x = self.embedding(x)
        maps = []
        for stage, (layers, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = layers(x if stage == 0 else self.down[stage - 1](x))
            maps.append(norm(x))
        return maps


class Decoder(nn.Module):
    """Stages of up-sampling, skip attention and transformer layers, each with an expansion to class logits.

    Attributes:
        deep_supervision: whether the logits of every stage are returned; nnU-Net sets it.
    """

    def __init__(self, num_classes: int, sizes: Sequence[Size], settings: NNFormerSettings) -> None:
        super().__init__()
        self.deep_supervision = True
        stages = range(len(sizes) - 2, -1, -1)
        rates = _rates([settings.depths[s] for s in stages], settings.drop_path)
        self.up = nn.ModuleList(UpSampling(settings.channels[s + 1], settings.strides[s]) for s in stages)
        self.skips, self.stages, self.expansions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        stride = settings.embedding_stride
        for stage, rate in zip(stages, rates, strict=True):
            skip, *layers = _layers(settings, stage, sizes[stage], rate, skip_first=True)
            self.skips.append(skip)
            self.stages.append(nn.Sequential(*layers))
            self.expansions.append(nn.ConvTranspose3d(settings.channels[stage], num_classes, stride, stride))

    def forward(self, maps: Sequence[Tensor]) -> Any:
        """Logits of the highest resolution, or of every stage, the highest resolution first."""
        x = maps[-1]
        outputs: list[Tensor] = []
        for step, (up, skip, layers) in enumerate(zip(self.up, self.skips, self.stages, strict=True)):
            x = layers(skip(up(x), maps[-(step + 2)]))
            if self.deep_supervision or step == len(self.up) - 1:
                outputs.insert(0, self.expansions[step](_channels_first(x)))
        return outputs if self.deep_supervision else outputs[0]


class NNFormer(nn.Module):
    """nnFormer, a 3-D transformer for the segmentation of volumes.

    Stages of transformer layers at falling resolution, with attention inside local volumes where maps are large and
    over the whole map where they are small (by default the two lowest resolutions, and their counterpart in the
    decoder: the six global layers of the paper's bottleneck). Convolutions make the tokens and change the
    resolution; the decoder reads the encoder's maps through skip attention; every decoder stage is expanded to
    class logits by a transposed convolution with the embedding's stride.

    Source: Zhou, Guo, Zhang, Han, Yu, Wang, Yu, "nnFormer: volumetric medical image segmentation via a 3D
    transformer", IEEE Transactions on Image Processing 32 (2023) 4036, arXiv:2109.03201. Written from the paper and
    from what the released code (github.com/282857341/nnFormer, MIT) does; no code was taken.

    Deviations from the paper: the strides must divide the patch, so ACDC's crop is 16x160x160 (the paper's Table I:
    14x160x160). Outputs of deep supervision span 1, 2 and 4 voxels in the plane, as the released expansion gives
    them; Eq. 8 names 1, 4 and 8.

    Deviations from the released code: tokens that a shifted window brings together from opposite borders do not see
    each other, and padding is not seen (the code computes no mask); each displacement has a position bias of its
    own (the code's index gives several displacements one); windows shift along the axes that have more than one
    window instead of all or none; every down-sampling convolution pads, where the code leaves it out along the odd
    first axis of its ACDC crop.

    Args:
        in_channels: of the image.
        num_classes: channels of the logits.
        patch_size: voxels of the input, the slowest axis first; the position bias belongs to one size.
        settings: see `NNFormerSettings`.

    Shape: (B, in_channels, *patch_size) to a list of logits (B, num_classes, ...), the highest resolution first, or
    to the first of them alone where ``decoder.deep_supervision`` is False.

    Raises:
        ValueError: the patch does not fit the strides, or the input not the patch.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        patch_size: Sequence[int] = (16, 160, 160),
        settings: NNFormerSettings | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings or NNFormerSettings()
        sizes = self.settings.map_sizes(patch_size)
        self.patch_size = tuple(patch_size)
        self.encoder = Encoder(in_channels, sizes, self.settings)
        self.decoder = Decoder(num_classes, sizes, self.settings)

    def forward(self, x: Tensor) -> Any:
        """See the class."""
        if x.shape[2:] != self.patch_size:
            raise ValueError(
                f"this nnFormer was built for patches of {list(self.patch_size)}, not {list(x.shape[2:])}"
            )
        return self.decoder(self.encoder(x))


def _layers(
    settings: NNFormerSettings, stage: int, size: Size, rates: Sequence[float], skip_first: bool = False
) -> list[nn.Module]:
    """Transformer layers of a stage, every second one with shifted windows."""
    layers: list[nn.Module] = []
    for number, rate in enumerate(rates):
        windows = Windows(size, settings.windows[stage], shifted=number % 2 == 1)
        skip = skip_first and number == 0
        build = SkipLayer if skip else TransformerLayer
        heads, channels = settings.heads[stage], settings.channels[stage]
        layers.append(build(channels, heads, windows, settings.mlp_ratio, rate, skip))
    return layers


def _rates(depths: Sequence[int], highest: float) -> list[list[float]]:
    """A rate for each layer of each stage, growing linearly from 0."""
    steps = max(sum(depths) - 1, 1)
    ends = accumulate(depths)
    return [[highest * n / steps for n in range(e - d, e)] for e, d in zip(ends, depths, strict=True)]


def _channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)


def _channels_first(x: Tensor) -> Tensor:
    return x.movedim(-1, 1)


def _two_steps(stride: Size) -> tuple[Size, Size]:
    """A stride of 1, 2 or 4 along each axis as the product of two."""
    return _triple(min(s, 2) for s in stride), _triple(max(s // 2, 1) for s in stride)


def _triple(values: Any) -> Size:
    a, b, c = values
    return a, b, c


def _product(first: Sequence[int], second: Sequence[int]) -> Size:
    return _triple(a * b for a, b in zip(first, second, strict=True))


def _quotient(first: Sequence[int], second: Sequence[int]) -> Size:
    return _triple(a // b for a, b in zip(first, second, strict=True))


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else plain(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_size(value: Any, choices: Sequence[int] | None = None) -> bool:
    if not isinstance(value, tuple) or len(value) != 3:
        return False
    return all(_is_count(v) and (choices is None or v in choices) for v in value)
