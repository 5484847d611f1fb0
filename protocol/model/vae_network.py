"""The networks of Stable Diffusion's VAEs: AutoencoderKL's halves and AutoencoderTiny's.

They compute what diffusers' classes compute, with parameters of the same names. diffusers' own are not used
here because their import takes seconds of every start and 200 MB of each worker. Source of the layers:
diffusers 0.38 (`models/autoencoders/vae.py`, `models/unets/unet_2d_blocks.py`). A configuration with other
layers than these raises UnusualVae, and diffusers builds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Config = Mapping[str, Any]

#: Added to the variance by every group norm.
EPSILON = 1e-6


class UnusualVae(ValueError):
    """The configuration asks for layers that only diffusers has."""


class VaeResnet(nn.Module):
    """Two convolutions with group norms before them, beside the input: (N, I, h, w) → (N, O, h, w)."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, EPSILON)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, EPSILON)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nonlinearity = nn.SiLU()
        self.conv_shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(self.nonlinearity(self.norm1(x)))
        hidden = self.conv2(self.nonlinearity(self.norm2(hidden)))
        made: Tensor = (x if self.conv_shortcut is None else self.conv_shortcut(x)) + hidden
        return made


class VaeAttention(nn.Module):
    """One head over all positions, added to the input (N, C, h, w)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, EPSILON)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x.flatten(2)).transpose(1, 2)
        query, key, value = (one(tokens).unsqueeze(1) for one in (self.to_q, self.to_k, self.to_v))
        mixed = F.scaled_dot_product_attention(query, key, value).squeeze(1)
        made: Tensor = self.to_out[0](mixed).transpose(1, 2).reshape(x.shape) + x
        return made


class VaeMiddle(nn.Module):
    """A residual block, an attention, a residual block: (N, C, h, w) → the same shape."""

    def __init__(self, width: int, groups: int, *, attends: bool) -> None:
        super().__init__()
        first = VaeResnet(width, width, groups)
        # diffusers has None in place of an attention that is left out
        attentions: list[Any] = [VaeAttention(width, groups) if attends else None]
        self.attentions = nn.ModuleList(attentions)
        self.resnets = nn.ModuleList([first, VaeResnet(width, width, groups)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        attention: Any = self.attentions[0]
        made: Tensor = self.resnets[1](x if attention is None else attention(x))
        return made


class HalvingConv(nn.Module):
    """(N, C, h, w) → (N, C, h/2, w/2). Zeros are added after the last row and column alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return made


class Upsample2D(nn.Module):
    """(N, C, h, w) → (N, C, 2h, 2w), by nearest neighbour and a convolution."""

    #: Options of diffusers' class of the same name. `encoder_worker.vae.doubling` asks either class for them.
    use_conv = True
    norm = None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return made


class DownEncoderBlock2D(nn.Module):
    """Residual blocks, then half the resolution where `halves`."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, *, halves: bool) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * (layers - 1)
        self.resnets = nn.ModuleList(VaeResnet(width, outputs, groups) for width in widths)
        self.downsamplers = nn.ModuleList([HalvingConv(outputs)]) if halves else None

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *(self.downsamplers or ())):
            x = layer(x)
        return x


class UpDecoderBlock2D(nn.Module):
    """Residual blocks, then twice the resolution where `doubles`."""

    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, *, doubles: bool) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * (layers - 1)
        self.resnets = nn.ModuleList(VaeResnet(width, outputs, groups) for width in widths)
        self.upsamplers = nn.ModuleList([Upsample2D(outputs)]) if doubles else None

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *(self.upsamplers or ())):
            x = layer(x)
        return x


class KLEncoderNetwork(nn.Module):
    """Pictures (N, I, H, W) → (N, O, h, w), each level but the last half as large as the one before.

    Args:
        inputs: channels of the pictures.
        outputs: channels of the result: means and variances, or means alone.
        widths: of the levels.
        layers: residual blocks of a level.
        groups: of the norms.
        attends: whether the middle has an attention.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        layers: int,
        groups: int,
        *,
        attends: bool = True,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            halves = level < len(widths) - 1
            self.down_blocks.append(DownEncoderBlock2D(before, width, layers, groups, halves=halves))
            before = width
        self.mid_block = VaeMiddle(widths[-1], groups, attends=attends)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPSILON)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.conv_in(pictures)
        for block in self.down_blocks:
            x = block(x)
        made: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(self.mid_block(x))))
        return made


class KLDecoderNetwork(nn.Module):
    """Latents (N, I, h, w) → pictures (N, O, H, W), each level but the last twice as large as the one before.

    Args:
        inputs: channels of the latents.
        outputs: channels of the pictures.
        widths: of the levels, from the pictures' on.
        layers: residual blocks of a level, less one.
        groups: of the norms.
        attends: whether the middle has an attention.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: Sequence[int],
        layers: int,
        groups: int,
        *,
        attends: bool = True,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, widths[-1], 3, padding=1)
        self.up_blocks = nn.ModuleList()
        self.mid_block = VaeMiddle(widths[-1], groups, attends=attends)
        before = widths[-1]
        for level, width in enumerate(reversed(widths)):
            doubles = level < len(widths) - 1
            self.up_blocks.append(UpDecoderBlock2D(before, width, layers + 1, groups, doubles=doubles))
            before = width
        self.conv_norm_out = nn.GroupNorm(groups, widths[0], EPSILON)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[0], outputs, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        made: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return made


class TinyVaeBlock(nn.Module):
    """Three convolutions beside the input (N, C, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])
        self.fuse = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.fuse(self.conv(x) + x)
        return made


class TinyEncoderNetwork(nn.Module):
    """Pictures (N, I, H, W) in -1..1 → latents (N, O, h, w). Each width begins a level of `blocks` blocks."""

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            halving = nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False)
            layers.append(halving if level else nn.Conv2d(inputs, width, 3, padding=1))
            layers += [TinyVaeBlock(width) for _ in range(count)]
        layers.append(nn.Conv2d(widths[-1], outputs, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, pictures: Tensor) -> Tensor:
        made: Tensor = self.layers(pictures.add(1).div(2))
        return made


class TinyDecoderNetwork(nn.Module):
    """Latents (N, I, h, w) → pictures (N, O, H, W), nominally in -1..1."""

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(inputs, widths[0], 3, padding=1), nn.ReLU()]
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            layers += [TinyVaeBlock(width) for _ in range(count)]
            last = level == len(widths) - 1
            if not last:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            layers.append(nn.Conv2d(width, outputs if last else width, 3, padding=1, bias=last))
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        made: Tensor = self.layers(torch.tanh(latents / 3) * 3)
        return made.mul(2).sub(1)


def kl_encoder(config: Config) -> tuple[nn.Module, nn.Module | None]:
    """AutoencoderKL's encoder, whose result is means and variances, and the convolution after it.

    Raises:
        UnusualVae: it has other layers.
    """
    _check(config, "down_block_types", "DownEncoderBlock2D")
    channels = config.get("latent_channels", 4)
    network = KLEncoderNetwork(config.get("in_channels", 3), 2 * channels, **_kl_sizes(config))
    quant = nn.Conv2d(2 * channels, 2 * channels, 1) if config.get("use_quant_conv", True) else None
    return network, quant


def kl_decoder(config: Config) -> tuple[nn.Module, nn.Module | None]:
    """AutoencoderKL's decoder and the convolution before it.

    Raises:
        UnusualVae: it has other layers.
    """
    _check(config, "up_block_types", "UpDecoderBlock2D")
    channels = config.get("latent_channels", 4)
    network = KLDecoderNetwork(channels, config.get("out_channels", 3), **_kl_sizes(config))
    quant = nn.Conv2d(channels, channels, 1) if config.get("use_post_quant_conv", True) else None
    return network, quant


def tiny_encoder(config: Config) -> nn.Module:
    """AutoencoderTiny's encoder. Raises UnusualVae."""
    widths, blocks = _tiny_sizes(config, "encoder", (1, 3, 3, 3))
    return TinyEncoderNetwork(config.get("in_channels", 3), config.get("latent_channels", 4), widths, blocks)


def tiny_decoder(config: Config) -> nn.Module:
    """AutoencoderTiny's decoder. Raises UnusualVae."""
    widths, blocks = _tiny_sizes(config, "decoder", (3, 3, 3, 1))
    return TinyDecoderNetwork(config.get("latent_channels", 4), config.get("out_channels", 3), widths, blocks)


def _kl_sizes(config: Config) -> dict[str, Any]:
    return {
        "widths": tuple(config.get("block_out_channels", (64,))),
        "layers": config.get("layers_per_block", 1),
        "groups": config.get("norm_num_groups", 32),
        "attends": config.get("mid_block_add_attention", True),
    }


def _check(config: Config, types: str, usual: str) -> None:
    levels = len(config.get("block_out_channels", (64,)))
    if list(config.get(types, (usual,))) != [usual] * levels or config.get("act_fn", "silu") != "silu":
        raise UnusualVae(f"{types} and act_fn are other ones than {usual} and silu")


def _tiny_sizes(
    config: Config, half: str, usual_blocks: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    widths = tuple(config.get(f"{half}_block_out_channels", (64, 64, 64, 64)))
    blocks = tuple(config.get(f"num_{half}_blocks", usual_blocks))
    usual = {"act_fn": "relu", "upsample_fn": "nearest", "upsampling_scaling_factor": 2}
    if len(widths) != len(blocks) or len(set(widths)) > 1:
        raise UnusualVae(f"num_{half}_blocks and {half}_block_out_channels do not belong together")
    for key, value in usual.items():
        if config.get(key, value) != value:
            raise UnusualVae(f"{key} is another one than {value}")
    return widths, blocks
