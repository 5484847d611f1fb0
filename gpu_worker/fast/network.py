"""One denoising step over prepared weights: the faithful network's arithmetic in as few passes as it goes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_worker.denoiser.model.transformer import KeysValues
from gpu_worker.fast.exchange import TeamExchange
from gpu_worker.fast.ops import Image, TorchOps, positions_of_part
from gpu_worker.fast.tiers import Tier
from gpu_worker.fast.weights import (
    Heads,
    Layer,
    Level,
    Linear,
    Motion,
    Network,
    Norm,
    Resnet,
    Spatial,
    TemporalWeights,
)


@dataclass(slots=True, eq=False)
class StepInputs:
    """The inputs that all steps of a clip share.

    pose: (frames, positions, channels). audio: keys and values by slot, (frames, tokens, columns) each.
    reference: by slot, keys and values side by side, (1, tokens, 2 · columns), or, for the slots in `joined`,
    (frames, positions + tokens, 2 · columns) with space for the frame's own before them.
    """

    pose: Tensor
    audio: list[KeysValues]
    reference: list[Tensor]
    joined: frozenset[int] = frozenset()


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

    def at(self, attention: TemporalWeights, step: int) -> Tensor | None:
        table = self.tables.get(id(attention))
        return None if table is None else table[step]


def temporal_attentions(network: Network) -> list[TemporalWeights]:
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
    """Runs step `index` of a sampler: latents (frames, positions, channels) → prediction, the same shape.

    Steps run in turn from the first: a tier may use results of a step before.
    exchange: with the other members, where a team shares the clip. `frames` are then this member's own, but
    `positions` are those of all frames of the clip.
    """

    def __init__(
        self,
        network: Network,
        ops: TorchOps,
        positions: Positions,
        tier: Tier,
        exchange: TeamExchange | None = None,
    ) -> None:
        self.network = network
        self.ops = ops
        self.positions = positions
        self.tier = tier
        self.exchange = exchange
        self._attention: dict[int, Tensor] = {}
        self._deep: Image | None = None

    def begin(self) -> None:
        """Before a clip's first step: nothing of another clip is used again."""
        self._attention.clear()
        self._deep = None

    def run(self, latents: Image, index: int, inputs: StepInputs) -> Tensor:
        ops, net = self.ops, self.network
        weight, bias = net.conv_in
        x = ops.add(ops.conv(latents, weight), inputs.pose, bias)
        skips = [x]
        if index in self.tier.shallow and self._deep is not None:
            self._down(net.down[0], x, skips, index, inputs, sample=False)
            x = self._deep
        else:
            for level in net.down:
                x = self._down(level, x, skips, index, inputs)
            if net.middle is not None:
                for layer in net.middle:
                    x = self._layer(layer, x, None, index, inputs)
            for level in net.up[:-1]:
                x = self._up(level, x, skips, index, inputs)
            self._deep = x if self.tier.shallow else None
        x = self._up(net.up[-1], x, skips, index, inputs)
        weight, bias = net.conv_out
        return ops.conv(ops.group_norm(x, net.norm_out, silu=True), weight).data + bias

    def _down(
        self, level: Level, x: Image, skips: list[Image], index: int, inputs: StepInputs, sample: bool = True
    ) -> Image:
        for layer in level.layers:
            x = self._layer(layer, x, None, index, inputs)
            skips.append(x)
        if level.conv is not None and sample:
            x = self.ops.add(self.ops.conv(x, level.conv[0], stride=2), None, level.conv[1])
            skips.append(x)
        return x

    def _up(self, level: Level, x: Image, skips: list[Image], index: int, inputs: StepInputs) -> Image:
        for layer in level.layers:
            x = self._layer(layer, x, skips.pop(), index, inputs)
        if level.conv is None:
            return x
        height, width = skips[-1].height, skips[-1].width
        if level.phases is not None and (height, width) == (2 * x.height, 2 * x.width):
            return self.ops.double(x, level.phases, level.conv[1])
        x = self.ops.upsample(x, height, width)
        return self.ops.add(self.ops.conv(x, level.conv[0]), None, level.conv[1])

    def _layer(self, layer: Layer, x: Image, skip: Image | None, index: int, inputs: StepInputs) -> Image:
        x = self._resnet(layer.resnet, x, skip, index)
        if layer.spatial is not None:
            self._spatial(layer.spatial, x, index, inputs)
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

    def _spatial(self, block: Spatial, image: Image, index: int, inputs: StepInputs) -> None:
        ops, heads = self.ops, block.heads
        frames, positions, _ = image.data.shape
        x, wide = self._stream(ops.group_norm(image, block.norm, silu=False).rows, block)
        made = self._self_attention(block, x, image, index, inputs)
        ops.add_linear(x, made.flatten(0, 1), block.out1)
        q = ops.norm_linear(x, block.norm2, block.audio_q).view(frames, positions, -1)
        made = ops.attention(q, *inputs.audio[block.slot], heads)
        ops.add_linear(x, made.flatten(0, 1), block.out2)
        self._feed_forward(x, wide, block.norm3, block.ff_in, block.ff_out)
        self._add_to_image(image, x, wide, block)

    def _stream(self, rows: Tensor, block: Spatial | Motion) -> tuple[Tensor, Tensor | None]:
        """A transformer's residual stream, (rows, width), and the wide rows that it is part of.

        Where the transformer's end is folded, the stream is the left part of the wide rows, (rows, width +
        inner). Their right part takes the last feed-forward's inner values. Elsewhere there are none.
        """
        if block.folded is None:
            return self.ops.linear(rows, block.proj_in), None
        wide = rows.new_empty(len(rows), block.folded.weight.shape[1])
        x = wide[:, : len(block.folded.weight)]
        self.ops.project(x, rows, block.proj_in.weight)
        return x, wide

    def _feed_forward(
        self, x: Tensor, wide: Tensor | None, norm: Norm, first: Linear, second: Linear
    ) -> None:
        """Added to x. With wide rows it is left there half done, for `_add_to_image`."""
        if wide is None:
            self.ops.feed_forward(x, norm, first, second)
        else:
            self.ops.geglu_into(wide[:, x.shape[1] :], self.ops.layer_norm(x, norm), first)

    def _add_to_image(self, image: Image, x: Tensor, wide: Tensor | None, block: Spatial | Motion) -> None:
        """Adds a transformer's result to the image."""
        if wide is None or block.folded is None:
            self.ops.add_linear(image.rows, x, block.proj_out)
        else:
            self.ops.add_linear(image.rows, wide, block.folded)
        image.sums = None

    def _self_attention(
        self, block: Spatial, x: Tensor, image: Image, index: int, inputs: StepInputs
    ) -> Tensor:
        ops, tier, heads = self.ops, self.tier, block.heads
        if block.level == 0 and index in tier.reuse_attention and block.slot in self._attention:
            return self._attention[block.slot]
        # with float8 the three are one product, also while the largest values that enter it are looked for
        apart = block.level > 0 and not tier.fp8 and block.qkv.bias is None
        if apart and block.slot in inputs.joined:
            return self._attend_in_place(block, x, image, inputs.reference[block.slot])
        qkv = ops.norm_linear(x, block.norm1, block.qkv).view(*image.data.shape[:2], -1)
        columns = heads.count * heads.wide
        q, own = qkv[..., :columns], qkv[..., columns:]
        if tier.merge_frame and mergeable(block.level, heads, image.height, image.width):
            own = ops.merge(own, image.height, image.width)
        reference = inputs.reference[block.slot]
        if block.slot in inputs.joined:
            reference[:, : own.shape[1]] = own
            k, v = reference.chunk(2, 2)
            made = ops.attention(q, k, v, heads)
        else:
            (k, v), (ref_k, ref_v) = own.chunk(2, 2), reference.chunk(2, 2)
            made = ops.attention(q, k, v, heads, (ref_k, ref_v))
        if block.level == 0 and tier.reuse_attention:
            self._attention[block.slot] = made
        return made

    def _attend_in_place(self, block: Spatial, x: Tensor, image: Image, joined: Tensor) -> Tensor:
        """joined (frames, positions + tokens, 2 · columns) in `StepInputs`. The frame's own go there."""
        ops, columns = self.ops, joined.shape[2] // 2
        frames, positions = image.data.shape[:2]
        normed = ops.layer_norm(x, block.norm1)
        weight = block.qkv.weight
        q = ops.linear(normed, Linear(weight[:columns])).view(frames, positions, -1)
        ops.linear_into(joined[:, :positions], normed, weight[columns:])
        k, v = joined.chunk(2, 2)
        return ops.attention(q, k, v, block.heads)

    def _motion(self, motion: Motion, image: Image, index: int) -> None:
        if self.exchange is not None:
            self._motion_by_positions(motion, image, index, self.exchange)
            return
        rows = self.ops.group_norm(image, motion.norm, silu=False).rows
        x, wide = self._attend_over_frames(motion, rows, len(image.data), index)
        self._add_to_image(image, x, wide, motion)

    def _motion_by_positions(self, motion: Motion, image: Image, index: int, exchange: TeamExchange) -> None:
        """A motion module whose positions the members share: (own frames, all) → (all, own) and back."""
        ops = self.ops
        frames, positions, channels = image.data.shape
        share = positions_of_part(positions, exchange.size)
        way = exchange.crossing(frames, share, channels, image.data)
        ops.group_norm_parts(image, motion.norm, way.targets)
        way.cross()
        x, wide = self._attend_over_frames(motion, way.arrived.flatten(0, 1), len(way.arrived), index)
        if wide is None or motion.folded is None:
            ops.project(way.made.flatten(0, 1), x, motion.proj_out.weight)
        else:
            ops.project(way.made.flatten(0, 1), wide, motion.folded.weight)
        way.back()
        ops.add_parts(image, way.sources)

    def _attend_over_frames(
        self, motion: Motion, rows: Tensor, frames: int, index: int
    ) -> tuple[Tensor, Tensor | None]:
        """rows (frames · positions, channels), normalised → as `_stream`, before the projection back."""
        ops, positions = self.ops, len(rows) // frames
        x, wide = self._stream(rows, motion)
        for block in motion.blocks:
            for attention in block.attentions:
                bias = self.positions.at(attention, index)
                qkv = ops.norm_linear(x, attention.norm, attention.qkv, bias, positions)
                qkv = qkv.view(frames, positions, -1)
                made = ops.temporal(qkv, frames, attention.heads)
                ops.add_linear(x, made.flatten(0, 1), attention.out)
            last = block is motion.blocks[-1]
            self._feed_forward(x, wide if last else None, block.ff_norm, block.ff_in, block.ff_out)
        return x, wide


def mergeable(level: int, heads: Heads, height: int, width: int) -> bool:
    """Whether a tier's merging applies to a block's keys and values."""
    return level == 0 and heads.wide > heads.size and height % 2 == 0 and width % 2 == 0
