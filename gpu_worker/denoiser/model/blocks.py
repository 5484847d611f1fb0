"""Levels of the UNets: resnet, spatial transformer and motion module per layer, then down- or up-sampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gpu_worker.denoiser.model.motion import MotionModule
from gpu_worker.denoiser.model.resnet import Downsample, ResnetBlock, Upsample
from gpu_worker.denoiser.model.transformer import BlockConditions, SpatialTransformer
from gpu_worker.denoiser.unet_config import CROSS_ATTENTION, UNetConfig


class _UNetLevel(nn.Module):
    """The layers of one level. `attentions` and `motion_modules` are there where the level has them.

    Args:
        config: of the UNet.
        level: number of the level, from the highest resolution.
        inputs: channels that each layer takes.
        attention: whether the layers have a spatial transformer.
        motion: whether they have a motion module, if the UNet has any.
    """

    def __init__(
        self, config: UNetConfig, level: int, inputs: list[int], attention: bool, motion: bool
    ) -> None:
        super().__init__()
        width = config.block_out_channels[level]
        groups = config.norm_num_groups
        time_width = 4 * config.block_out_channels[0]
        if attention:
            self.attentions = nn.ModuleList([_transformer(config, level) for _ in inputs])
        self.resnets = nn.ModuleList(
            [ResnetBlock(channels, width, time_width, groups, config.norm_eps) for channels in inputs]
        )
        if motion and config.motion is not None:
            self.motion_modules = nn.ModuleList([MotionModule(width, groups, config.motion) for _ in inputs])
        self.has_attention = attention
        self.has_motion = motion and config.motion is not None

    def layer(self, index: int, x: Tensor, conditions: BlockConditions) -> Tensor:
        """Layer `index`: x (B·frames, its inputs, h, w) → (B·frames, width, h, w)."""
        x = self.resnets[index](x, conditions.time, conditions.frames)
        if self.has_attention:
            x = self.attentions[index](x, conditions)
        if self.has_motion:
            x = self.motion_modules[index](x, conditions.frames, conditions.order)
        return x


class DownBlock(_UNetLevel):
    """A level on the way down: x → (x, skips). The skips are all layers' outputs and the down-sampled one."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        widths = config.block_out_channels
        first = widths[max(level - 1, 0)]
        inputs = [first] + [widths[level]] * (config.layers_per_block - 1)
        motion = config.motion is not None and (
            2**level in config.motion.resolutions and not config.motion.decoder_only
        )
        super().__init__(config, level, inputs, config.down_blocks[level] == CROSS_ATTENTION, motion)
        last = level == config.levels - 1
        self.downsamplers = None if last else nn.ModuleList([Downsample(widths[level])])

    def forward(self, x: Tensor, conditions: BlockConditions) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for index in range(len(self.resnets)):
            x = self.layer(index, x, conditions)
            skips.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x, skips


class UpBlock(_UNetLevel):
    """A level on the way up: (x, skips) → x. It takes its skips from the end of the list.

    `index` counts from the lowest resolution.
    """

    def __init__(self, config: UNetConfig, index: int) -> None:
        widths = config.block_out_channels
        level = config.levels - 1 - index
        width, above = widths[level], widths[min(level + 1, config.levels - 1)]
        below = widths[max(level - 1, 0)]
        layers = config.layers_per_block + 1
        hidden = [above] + [width] * (layers - 1)
        skips = [width] * (layers - 1) + [below]
        inputs = [h + s for h, s in zip(hidden, skips, strict=True)]
        motion = config.motion is not None and 2**level in config.motion.resolutions
        super().__init__(config, level, inputs, config.up_blocks[index] == CROSS_ATTENTION, motion)
        self.upsamplers = nn.ModuleList([Upsample(width)]) if level > 0 else None

    def forward(self, x: Tensor, skips: list[Tensor], conditions: BlockConditions) -> Tensor:
        for index in range(len(self.resnets)):
            x = self.layer(index, torch.cat([x, skips.pop()], dim=1), conditions)
        if self.upsamplers is not None:
            # To the next skip's size. It is not twice x's where a side was odd on the way down.
            x = self.upsamplers[0](x, skips[-1].shape[-2:])
        return x


class MidBlock(nn.Module):
    """resnet → transformer → motion module → resnet at the lowest resolution."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width, groups = config.block_out_channels[-1], config.norm_num_groups
        time_width = 4 * config.block_out_channels[0]
        self.attentions = nn.ModuleList([_transformer(config, config.levels - 1)])
        self.resnets = nn.ModuleList(
            [ResnetBlock(width, width, time_width, groups, config.norm_eps) for _ in range(2)]
        )
        self.has_motion = config.motion is not None and config.motion.mid_block
        if config.motion is not None and config.motion.mid_block:
            self.motion_modules = nn.ModuleList([MotionModule(width, groups, config.motion)])

    def forward(self, x: Tensor, conditions: BlockConditions) -> Tensor:
        x = self.resnets[0](x, conditions.time, conditions.frames)
        x = self.attentions[0](x, conditions)
        if self.has_motion:
            x = self.motion_modules[0](x, conditions.frames, conditions.order)
        out: Tensor = self.resnets[1](x, conditions.time, conditions.frames)
        return out


def _transformer(config: UNetConfig, level: int) -> SpatialTransformer:
    return SpatialTransformer(
        config.block_out_channels[level],
        config.heads[level],
        config.norm_num_groups,
        config.cross_attention_dim,
    )
