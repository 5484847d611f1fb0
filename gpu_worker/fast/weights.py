"""The denoiser's weights as the fast path computes from them. `build` makes them."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace

from torch import Tensor


@dataclass(slots=True)
class Norm:
    """weight, bias (channels,), for group norms also their number of groups.

    shift: a constant that the stored input lacks. correction: one that it has too much. Each (channels,) or
    None.
    """

    weight: Tensor
    bias: Tensor
    eps: float
    groups: int = 0
    shift: Tensor | None = None
    correction: Tensor | None = None


@dataclass(slots=True, eq=False)
class Float8:
    """A layer in float8 (e4m3): weight (out, in) and the factors that both operands were multiplied by."""

    weight: Tensor
    weight_scale: float
    input_scale: float
    inverse: tuple[Tensor, Tensor]  # of the input's and the weight's scale, float32, on the device


@dataclass(slots=True, eq=False)
class Linear:
    """weight (out, in), bias (out,) or None where it is added elsewhere. float8: where a tier uses it."""

    weight: Tensor
    bias: Tensor | None = None
    float8: Float8 | None = None


@dataclass(slots=True)
class Heads:
    """How attention heads lie in a row: `count` heads of `size`, each stored in sum(split) columns."""

    count: int
    size: int
    split: tuple[int, int]

    @property
    def wide(self) -> int:
        return sum(self.split)


@dataclass(slots=True, eq=False)
class Resnet:
    norm1: Norm
    conv1: Tensor
    shifts: Tensor  # (steps, channels): the first convolution's bias and the step's time embedding
    norm2: Norm
    conv2: Tensor
    shortcut: Tensor | None  # (out, in)
    tail: Tensor  # (channels,): every bias up to the end of the layer


@dataclass(slots=True, eq=False)
class Spatial:
    norm: Norm
    proj_in: Linear
    norm1: Norm
    qkv: Linear
    out1: Linear
    norm2: Norm
    audio_q: Linear
    out2: Linear
    norm3: Norm
    ff_in: Linear
    ff_out: Linear
    proj_out: Linear
    folded: Linear | None  # as `Motion` has it
    heads: Heads
    slot: int
    level: int  # how often the image was halved before
    bias: Tensor  # the sum of the block's biases, as it reaches the image


@dataclass(slots=True, eq=False)
class TemporalWeights:
    norm: Norm
    positions: Tensor | None  # (max frames, channels)
    qkv: Linear
    out: Linear
    heads: int


@dataclass(slots=True, eq=False)
class TemporalBlock:
    attentions: list[TemporalWeights]
    ff_norm: Norm
    ff_in: Linear
    ff_out: Linear


@dataclass(slots=True, eq=False)
class Motion:
    """folded: (out, width + inner), proj_out and its product with the last ff_out side by side, or None."""

    norm: Norm
    proj_in: Linear
    blocks: list[TemporalBlock]
    proj_out: Linear
    folded: Linear | None
    bias: Tensor


@dataclass(slots=True, eq=False)
class Layer:
    resnet: Resnet
    spatial: Spatial | None
    motion: Motion | None


@dataclass(slots=True, eq=False)
class Level:
    """Layers of a level and the convolution after them, with its bias, or None.

    phases: (4·out, in, 2, 2), the convolution after doubling the sides, as four on the smaller image.
    """

    layers: list[Layer]
    conv: tuple[Tensor, Tensor] | None
    phases: Tensor | None


@dataclass(slots=True, eq=False)
class Network:
    conv_in: tuple[Tensor, Tensor]
    down: list[Level]
    middle: tuple[Layer, Layer] | None
    up: list[Level]
    norm_out: Norm
    conv_out: tuple[Tensor, Tensor]
    audio: Linear  # keys and values of all blocks at once
    audio_columns: list[int]  # where each block's begin, and the end
    heads: list[Heads]  # by slot

    def spatials(self) -> list[Spatial]:
        """By slot."""
        layers = [layer for level in (*self.down, *self.up) for layer in level.layers] + list(
            self.middle or ()
        )
        return sorted((x.spatial for x in layers if x.spatial is not None), key=lambda x: x.slot)


def storages(network: Network) -> set[int]:
    """Addresses of the memory that the fast path reads: all of its weights but those that are folded."""
    found: set[int] = set()

    def take(part: object) -> None:
        if isinstance(part, Tensor):
            found.add(part.untyped_storage().data_ptr())
        elif isinstance(part, list | tuple):
            for one in part:
                take(one)
        elif is_dataclass(part) and not isinstance(part, Heads):
            for field in fields(part):
                value = getattr(part, field.name)
                if isinstance(part, Motion | Spatial) and part.folded is not None:
                    if field.name in ("proj_out", "ff_out"):
                        continue
                    if field.name == "blocks":
                        value = [*value[:-1], replace(value[-1], ff_out=part.folded)]
                take(value)

    take(network)
    return found


class SplitRule:
    """How a head of `size` is stored. Plain torch takes it as it is."""

    def __call__(self, size: int) -> tuple[int, int]:
        return size, 0


class SpareColumn(SplitRule):
    """One column more a head, which merged keys need (`tiers`), where plain torch computes."""

    def __call__(self, size: int) -> tuple[int, int]:
        return size, 1
