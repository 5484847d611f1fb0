"""One denoising step over prepared weights: the faithful network's arithmetic in as few passes as it goes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_worker.fast.ops import Image, TorchOps
from gpu_worker.fast.weights import Layer, Level, Motion, Network, Resnet, Spatial, TemporalAttention

KeysValues = tuple[Tensor, Tensor]


@dataclass(slots=True, eq=False)
class Inputs:
    """What all steps of a clip share.

    pose: (frames, positions, channels). audio, reference: keys and values by slot, (frames, tokens, columns)
    and (1, tokens, columns).
    """

    pose: Tensor
    audio: list[KeysValues]
    reference: list[KeysValues]


@dataclass(slots=True, eq=False)
class Positions:
    """Biases with the frames' positions for a temporal attention, (steps, frames, channels)."""

    tables: dict[int, Tensor]

    @classmethod
    def of(cls, network: Network, orders: list[Tensor], dtype: torch.dtype) -> Positions:
        """orders: the frames' positions at each step."""
        tables = {}
        for attention in temporal_attentions(network):
            if attention.positions is not None:
                tables[id(attention)] = torch.stack([attention.positions[o] for o in orders]).to(dtype)
        return cls(tables)

    def at(self, attention: TemporalAttention, step: int) -> Tensor | None:
        table = self.tables.get(id(attention))
        return None if table is None else table[step]


def temporal_attentions(network: Network) -> list[TemporalAttention]:
    layers = [layer for level in (*network.down, *network.up) for layer in level.layers]
    layers += list(network.middle or ())
    motions = [layer.motion for layer in layers if layer.motion is not None]
    return [a for motion in motions for block in motion.blocks for a in block.attentions]


def audio_keys_values(network: Network, tokens: Tensor) -> list[KeysValues]:
    """tokens (frames, count, width) → keys and values by slot, views of one product for all blocks."""
    made = torch.nn.functional.linear(tokens, network.audio.weight, network.audio.bias)
    parts = [made[..., a:b] for a, b in zip(network.audio_columns, network.audio_columns[1:], strict=False)]
    return [(part[..., : part.shape[2] // 2], part[..., part.shape[2] // 2 :]) for part in parts]


class StepRunner:
    """Runs step `index` of a sampler: latents (frames, positions, channels) → prediction, the same shape."""

    def __init__(self, network: Network, ops: TorchOps, positions: Positions) -> None:
        self.network = network
        self.ops = ops
        self.positions = positions

    def run(self, latents: Image, index: int, inputs: Inputs) -> Tensor:
        ops, net = self.ops, self.network
        weight, bias = net.conv_in
        x = ops.add(ops.conv(latents, weight), inputs.pose, bias)
        skips = [x]
        for level in net.down:
            x = self._down(level, x, skips, index, inputs)
        if net.middle is not None:
            for layer in net.middle:
                x = self._layer(layer, x, None, index, inputs)
        for level in net.up:
            x = self._up(level, x, skips, index, inputs)
        weight, bias = net.conv_out
        return ops.conv(ops.group_norm(x, net.norm_out, silu=True), weight).data + bias

    def _down(self, level: Level, x: Image, skips: list[Image], index: int, inputs: Inputs) -> Image:
        for layer in level.layers:
            x = self._layer(layer, x, None, index, inputs)
            skips.append(x)
        if level.conv is not None:
            x = self.ops.add(self.ops.conv(x, level.conv[0], stride=2), None, level.conv[1])
            skips.append(x)
        return x

    def _up(self, level: Level, x: Image, skips: list[Image], index: int, inputs: Inputs) -> Image:
        for layer in level.layers:
            x = self._layer(layer, x, skips.pop(), index, inputs)
        if level.conv is not None:
            x = self.ops.upsample(x, skips[-1].height, skips[-1].width)
            x = self.ops.add(self.ops.conv(x, level.conv[0]), None, level.conv[1])
        return x

    def _layer(self, layer: Layer, x: Image, skip: Image | None, index: int, inputs: Inputs) -> Image:
        x = self._resnet(layer.resnet, x, skip, index)
        if layer.spatial is not None:
            self._spatial(layer.spatial, x, inputs)
        if layer.motion is not None:
            self._motion(layer.motion, x, index)
        return x

    def _resnet(self, resnet: Resnet, x: Image, skip: Image | None, index: int) -> Image:
        ops = self.ops
        hidden = ops.conv(ops.group_norm(x, resnet.norm1, silu=True, second=skip), resnet.conv1)
        hidden = ops.group_norm(hidden, resnet.norm2, silu=True, shift=resnet.shifts[index])
        base = x.data if resnet.shortcut is None else self._shortcut(resnet.shortcut, x, skip)
        return ops.add(ops.conv(hidden, resnet.conv2), base, resnet.tail)

    def _shortcut(self, weight: Tensor, x: Image, skip: Image | None) -> Tensor:
        """A 1×1 convolution of (x ; skip), which need not be put together for it."""
        own = x.data.shape[2]
        made = x.rows @ weight[:, :own].t()
        if skip is not None:
            made.addmm_(skip.rows, weight[:, own:].t())
        return made.view(*x.data.shape[:2], -1)

    def _spatial(self, block: Spatial, image: Image, inputs: Inputs) -> None:
        ops, heads = self.ops, block.heads
        frames, positions, _ = image.data.shape
        x = ops.linear(ops.group_norm(image, block.norm, silu=False).rows, block.proj_in)
        qkv = ops.linear(ops.layer_norm(x, block.norm1), block.qkv).view(frames, positions, -1)
        columns = heads.count * heads.wide
        q, k, v = qkv.split(columns, 2)
        made = ops.attention(q, k, v, heads, inputs.reference[block.slot])
        ops.add_linear(x, made.flatten(0, 1), block.out1)
        q = ops.linear(ops.layer_norm(x, block.norm2), block.audio_q).view(frames, positions, -1)
        made = ops.attention(q, *inputs.audio[block.slot], heads)
        ops.add_linear(x, made.flatten(0, 1), block.out2)
        ops.add_linear(x, ops.geglu(ops.layer_norm(x, block.norm3), block.ff_in), block.ff_out)
        ops.add_linear(image.rows, x, block.proj_out)
        image.sums = None

    def _motion(self, motion: Motion, image: Image, index: int) -> None:
        ops = self.ops
        frames, positions, _ = image.data.shape
        x = ops.linear(ops.group_norm(image, motion.norm, silu=False).rows, motion.proj_in)
        for block in motion.blocks:
            for attention in block.attentions:
                bias = self.positions.at(attention, index)
                normal = ops.layer_norm(x, attention.norm, bias, positions)
                qkv = ops.linear(normal, attention.qkv).view(frames, positions, -1)
                made = ops.temporal(qkv, frames, attention.heads)
                ops.add_linear(x, made.flatten(0, 1), attention.out)
            normal = ops.layer_norm(x, block.ff_norm)
            ops.add_linear(x, ops.geglu(normal, block.ff_in), block.ff_out)
        ops.add_linear(image.rows, x, motion.proj_out)
        image.sums = None
