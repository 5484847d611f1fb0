"""The faithful denoiser's weights as the fast path wants them, made once from the loaded modules.

All changes are exact in real numbers:

- Query, key and value projections are one matrix each. Heads are padded to columns that suit the attention
  kernel (`kernels.attention`). The softmax's scale is folded into the queries.
- Time embeddings are constants of the sampler's steps, so each resnet keeps one channel vector a step.
- The gain of the audio attention is folded into its output projection.
- Without float8, a transformer's last feed-forward and its projection back to the image are one product,
  since nothing but an addition lies between them.
- Branches are added to the residual stream in place, by the matrix product itself, and their biases wait.
  Each norm adds those that its input still lacks (`shift`), and a transformer's last projection carries
  them through. A transformer's own biases are added to the image before it begins, by the resnet that ends
  just before, and its norm takes it off again (`correction`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpu_worker.denoiser.model import DenoisingUNet3D
from gpu_worker.denoiser.model.attention import Attention
from gpu_worker.denoiser.model.blocks import UpBlock
from gpu_worker.denoiser.model.transformer import AUDIO_GAIN
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
    SplitRule,
    TemporalBlock,
    TemporalWeights,
)

# Modules are Any below: torch knows a submodule as Tensor or Module, whatever it is.


def build(
    denoiser: DenoisingUNet3D, timesteps: Sequence[int], split: SplitRule, fold: bool = True
) -> Network:
    """The network of a denoiser for the timesteps of a sampler.

    split(size) says how heads are stored. fold: whether a transformer's last feed-forward and its projection
    back become one product, which float8 cannot have.
    """
    with torch.inference_mode():
        return _Builder(denoiser, timesteps, split, fold).network()


class _Builder:
    def __init__(
        self, denoiser: DenoisingUNet3D, timesteps: Sequence[int], split: SplitRule, fold: bool
    ) -> None:
        self.denoiser = denoiser
        self.split = split
        self.fold = fold
        self.dtype = denoiser.conv_in.weight.dtype
        device = denoiser.conv_in.weight.device
        steps = torch.tensor(list(timesteps), device=device)
        self.time = F.silu(denoiser.time_embedding(steps))

    def network(self) -> Network:
        d = self.denoiser
        blocks = list(d.transformer_blocks.values())
        heads = [self.heads_of(block.attn1) for block in blocks]
        parts = [self.audio(block, h) for block, h in zip(blocks, heads, strict=True)]
        columns = [0]
        for weight, _ in parts:
            columns.append(columns[-1] + len(weight))
        return Network(
            conv_in=_conv(d.conv_in),
            down=[self.level(block, block.downsamplers) for block in d.down_blocks],
            middle=None if d.mid_block is None else self.middle(d.mid_block),
            up=[self.level(block, block.upsamplers) for block in d.up_blocks],
            norm_out=_norm(d.conv_norm_out),
            conv_out=_conv(d.conv_out),
            audio=Linear(torch.cat([w for w, _ in parts]), torch.cat([b for _, b in parts])),
            audio_columns=columns,
            heads=heads,
        )

    def level(self, block: Any, samplers: Any) -> Level:
        layers = []
        for index, resnet in enumerate(block.resnets):
            attention = block.attentions[index] if block.has_attention else None
            motion = block.motion_modules[index] if block.has_motion else None
            layers.append(self.layer(resnet, attention, motion))
        conv = None if samplers is None else _conv(samplers[0].conv)
        up = conv is not None and isinstance(block, UpBlock)
        return Level(layers, conv, upsampling_phases(conv[0]) if up and conv is not None else None)

    def middle(self, block: Any) -> tuple[Layer, Layer]:
        motion = block.motion_modules[0] if block.has_motion else None
        first = self.layer(block.resnets[0], block.attentions[0], motion)
        return first, self.layer(block.resnets[1], None, None)

    def layer(self, resnet: Any, attention: Any, motion: Any) -> Layer:
        spatial_made = None if attention is None else self.spatial(attention)
        motion_made = None if motion is None else self.motion(motion)
        later = torch.zeros_like(resnet.conv2.bias, dtype=torch.float32)
        if motion_made is not None:
            later = later + motion_made.bias.float()
            motion_made.norm.correction = later.to(self.dtype)
        if spatial_made is not None:
            later = later + spatial_made.bias.float()
            spatial_made.norm.correction = later.to(self.dtype)
        return Layer(self.resnet(resnet, later), spatial_made, motion_made)

    def resnet(self, block: Any, later: Tensor) -> Resnet:
        tail = later + block.conv2.bias.float()
        shortcut = None
        if block.conv_shortcut is not None:
            shortcut = block.conv_shortcut.weight.flatten(1)
            tail = tail + block.conv_shortcut.bias.float()
        shifts = block.time_emb_proj(self.time).float() + block.conv1.bias.float()
        return Resnet(
            norm1=_norm(block.norm1),
            conv1=_kernel(block.conv1),
            shifts=shifts.to(self.dtype),
            norm2=_norm(block.norm2),
            conv2=_kernel(block.conv2),
            shortcut=shortcut,
            tail=tail.to(self.dtype),
        )

    def spatial(self, module: Any) -> Spatial:
        block = module.transformer_blocks[0]
        heads = self.heads_of(block.attn1)
        norm1, norm2, norm3 = _norm(block.norm1), _norm(block.norm2), _norm(block.norm3)
        proj_in, pending = self.first(module.proj_in)
        if self.fold:
            norm1.shift = pending.to(self.dtype)
        pending = pending + block.attn1.to_out[0].bias.float()
        norm2.shift = pending.to(self.dtype)
        pending = pending + AUDIO_GAIN * block.attn2.to_out[0].bias.float()
        norm3.shift = pending.to(self.dtype)
        ff_in, ff_out, ff_bias = _feed_forward(block.ff)
        pending = pending + ff_bias
        proj_out, bias = self.last(module.proj_out.weight.flatten(1), module.proj_out.bias, pending)
        return Spatial(
            norm=_norm(module.norm),
            proj_in=proj_in,
            norm1=norm1,
            qkv=self.padded_qkv(block.attn1, heads),
            out1=Linear(block.attn1.to_out[0].weight),
            norm2=norm2,
            audio_q=Linear(self.pad(self.scaled_q(block.attn2, heads), heads)[0]),
            out2=Linear((AUDIO_GAIN * block.attn2.to_out[0].weight.float()).to(self.dtype)),
            norm3=norm3,
            ff_in=ff_in,
            ff_out=ff_out,
            proj_out=proj_out,
            folded=self.folded(proj_out, ff_out),
            heads=heads,
            slot=block.slot,
            level=self.level_of(block),
            bias=bias,
        )

    def motion(self, module: Any) -> Motion:
        transformer = module.temporal_transformer
        proj_in, pending = self.first(transformer.proj_in)
        blocks: list[TemporalBlock] = []
        for block in transformer.transformer_blocks:
            made, pending = self.temporal_block(block, pending)
            blocks.append(made)
        proj_out, bias = self.last(transformer.proj_out.weight, transformer.proj_out.bias, pending)
        return Motion(
            norm=_norm(transformer.norm),
            proj_in=proj_in,
            blocks=blocks,
            proj_out=proj_out,
            folded=self.folded(proj_out, blocks[-1].ff_out),
            bias=bias,
        )

    def temporal_block(self, block: Any, pending: Tensor) -> tuple[TemporalBlock, Tensor]:
        attentions = []
        for attention, layer_norm in zip(block.attention_blocks, block.norms, strict=True):
            norm = _norm(layer_norm)
            norm.shift = pending.to(self.dtype)
            encoder = attention.pos_encoder
            weight = _joined(attention.to_q, attention.to_k, attention.to_v)
            attentions.append(
                TemporalWeights(
                    norm=norm,
                    positions=None if encoder is None else encoder.pe[0].float() + norm.bias.float(),
                    qkv=Linear(weight),
                    out=Linear(attention.to_out[0].weight),
                    heads=attention.heads,
                )
            )
            pending = pending + attention.to_out[0].bias.float()
        ff_norm = _norm(block.ff_norm)
        ff_norm.shift = pending.to(self.dtype)
        ff_in, ff_out, ff_bias = _feed_forward(block.ff)
        return TemporalBlock(attentions, ff_norm, ff_in, ff_out), pending + ff_bias

    def first(self, projection: Any) -> tuple[Linear, Tensor]:
        """The projection from the image and the bias that waits, float32: its own where folding leaves no
        product of one piece to add it."""
        weight, bias = projection.weight.flatten(1), projection.bias
        if self.fold:
            return Linear(weight), bias.float()
        return Linear(weight, bias), torch.zeros_like(bias, dtype=torch.float32)

    def folded(self, proj_out: Linear, ff_out: Linear) -> Linear | None:
        """As `Motion.folded`."""
        if not self.fold:
            return None
        through = proj_out.weight.float() @ ff_out.weight.float()
        return Linear(torch.cat([proj_out.weight, through.to(self.dtype)], 1))

    def last(self, weight: Tensor, bias: Tensor, pending: Tensor) -> tuple[Linear, Tensor]:
        """The projection back to the image, and the sum of its input's missing biases and its own."""
        return Linear(weight), (weight.float() @ pending + bias.float()).to(self.dtype)

    def heads_of(self, attention: Attention) -> Heads:
        size = attention.to_q.out_features // attention.heads
        return Heads(attention.heads, size, self.split(size))

    def level_of(self, block: Any) -> int:
        part, index = block.name.split(".")[:2]
        last = self.denoiser.config.levels - 1
        return {"down_blocks": int(index), "up_blocks": last - int(index)}[part] if index.isdigit() else last

    def scaled_q(self, attention: Attention, heads: Heads) -> Tensor:
        """Query weights with the softmax's scale, to the base 2 that the hardware's exponential has."""
        return (attention.to_q.weight.float() * (math.log2(math.e) / math.sqrt(heads.size))).to(self.dtype)

    def pad(self, weight: Tensor, heads: Heads, ones: bool = False) -> tuple[Tensor, Tensor]:
        """Weight (count·size, in) → heads of `wide` rows, and a bias, `ones` 1 for the first extra column."""
        extra = heads.wide - heads.size
        bias = weight.new_zeros(heads.count, heads.wide)
        if ones and extra:
            bias[:, heads.size] = 1
        rows = F.pad(weight.unflatten(0, (heads.count, heads.size)), (0, 0, 0, extra))
        return rows.flatten(0, 1), bias.flatten()

    def padded_qkv(self, attention: Attention, heads: Heads) -> Linear:
        parts = [
            self.pad(self.scaled_q(attention, heads), heads),
            self.pad(attention.to_k.weight, heads, ones=True),
            self.pad(attention.to_v.weight, heads, ones=True),
        ]
        bias = torch.cat([b for _, b in parts])
        return Linear(torch.cat([w for w, _ in parts]), bias if heads.wide > heads.size else None)

    def audio(self, block: Any, heads: Heads) -> tuple[Tensor, Tensor]:
        """Weights and bias of a block's audio keys and values, side by side."""
        parts = [
            self.pad(block.attn2.to_k.weight, heads, ones=True),
            self.pad(block.attn2.to_v.weight, heads, ones=True),
        ]
        return torch.cat([w for w, _ in parts]), torch.cat([b for _, b in parts])


def upsampling_phases(weight: Tensor) -> Tensor:
    """A 3×3 convolution after nearest-neighbour doubling, as four 2×2 ones before it: 4/9 of the products.

    Rows 2y and 2y + 1 of the larger image are row y of the smaller. Output row 2y (a = 0) so reads rows y − 1
    and y, with the kernel's first row and the sum of its others. Row 2y + 1 (a = 1) reads y and y + 1.
    weight (out, in, 3, 3) → (4·out, in, 2, 2), phase 2a + b first, channels_last.
    """
    first, middle, last = weight.float().unbind(2)
    rows = (torch.stack([first, middle + last], 2), torch.stack([first + middle, last], 2))
    phases = []
    for row in rows:
        left, centre, right = row.unbind(3)
        phases += [torch.stack([left, centre + right], 3), torch.stack([left + centre, right], 3)]
    return torch.cat(phases).to(weight.dtype).contiguous(memory_format=torch.channels_last)


def _joined(*layers: Any) -> Tensor:
    """The weights (outputs, inputs) of linear layers, one below the other. The layers keep views of it, which
    saves a quarter gigabyte."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    for layer, part in zip(layers, weight.split([len(layer.weight) for layer in layers]), strict=True):
        layer.weight.data = part
    return weight


def _kernel(conv: Any) -> Tensor:
    """A convolution's weight as cuDNN reads it beside rows of channels. Any other is copied at each call."""
    weight: Tensor = conv.weight
    return weight.contiguous(memory_format=torch.channels_last)


def _conv(conv: Any) -> tuple[Tensor, Tensor]:
    return _kernel(conv), conv.bias


def _norm(norm: Any) -> Norm:
    groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else 0
    return Norm(norm.weight, norm.bias, norm.eps, groups)


def _feed_forward(module: Any) -> tuple[Linear, Linear, Tensor]:
    """Both layers, and the second's bias, float32, which waits."""
    first, second = module.net[0].proj, module.net[2]
    return Linear(first.weight, first.bias), Linear(second.weight), second.bias.float()
