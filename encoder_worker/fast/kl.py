"""AutoencoderKL's decoder (Rombach et al. 2022, arXiv 2112.10752) for one picture size on a recent GPU.

The same function as diffusers' module, differently computed: features as rows of channels (see `kernels`),
nearest-neighbour doubling and the 3×3 convolution after it as four 2×2 convolutions of the small picture
(4/9 of the operations, exactly the same sums), GroupNorm's sums in the tail of the convolution before,
pixels made in the last one's, and the whole of it in one CUDA graph.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoder_worker.fast import kernels
from encoder_worker.fast.convolutions import Convolutions, CudnnConvolutions
from encoder_worker.fast.fixed_size import FixedSizeDecoder
from encoder_worker.fast.layout import (
    ACTIVATION_FACTOR,
    FLOAT8,
    FLOAT8_MAX,
    Features,
    Plane,
    Weights,
    pack,
    pack_doubling,
)
from encoder_worker.vae.decoders import Decoder, KLDecoder

L = TypeVar("L", bound=nn.Module)
#: Rows of one program of the normalisation kernels.
NORM_ROWS = 16
#: The fewest channels that a matrix product on the tensor cores takes.
LEAST_WIDTH = 16


class FastKL(FixedSizeDecoder):
    """AutoencoderKL's decoder. Arguments as `FixedSizeDecoder`, and:

    Args:
        decoder: a KLDecoder that `is_usual`.
        eight_bit: residual blocks' convolutions in 8-bit floating point: faster, less exact.
        cudnn: convolve by cuDNN instead of the kernels here, but in 8 bits.
        graph: record a CUDA graph. Without, every kernel is launched by itself.
    """

    def __init__(
        self,
        decoder: Decoder,
        device: torch.device,
        dtype: torch.dtype,
        count: int,
        h: int,
        w: int,
        *,
        eight_bit: bool = False,
        cudnn: bool = False,
        graph: bool = True,
    ) -> None:
        super().__init__(decoder, device, dtype, count, h, w)
        assert isinstance(decoder, KLDecoder)
        self._eight_bit, self._cudnn = eight_bit, cudnn
        self._size = h, w
        self._net: Any = decoder.decoder
        self._packed: dict[int, Weights] = {}
        self._norms: dict[int, tuple[Tensor, Tensor]] = {}
        self._biases: dict[int, Tensor] = {}
        self._first = _first_convolution(decoder).to(device)
        self._groups = int(self._net.conv_norm_out.num_groups)
        kind = CudnnConvolutions if cudnn else Convolutions
        #: Runs the convolutions.
        self.convolve = kind(device, self._groups, self.bad, timing=graph)
        if graph:
            self.record()

    def __str__(self) -> str:
        extra = " by cuDNN" * self._cudnn + " and float8" * self._eight_bit
        return f"{super().__str__()}{extra}"

    # ------------------------------------------------------------------ the steps

    def _decode(self) -> None:
        self.bad.zero_()
        with torch.backends.cudnn.flags(enabled=True, benchmark=self._cudnn, allow_tf32=False):
            self._decode_rows()

    def _decode_rows(self) -> None:
        net = self._net
        x = self._enter(self.latents)
        x = self._resnet(x, net.mid_block.resnets[0])
        for attention, resnet in zip(net.mid_block.attentions, net.mid_block.resnets[1:], strict=True):
            x = x if attention is None else self._attend(x, attention)
            x = self._resnet(x, resnet)
        for block in net.up_blocks:
            for number, resnet in enumerate(block.resnets):
                last = number == len(block.resnets) - 1
                x = self._resnet(x, resnet, sums=not (last and block.upsamplers))
            for upsampler in block.upsamplers or ():
                x = self._double(x, upsampler.conv)
        self._leave(self._normed(x, net.conv_norm_out), net.conv_out, self.pixels)

    def _enter(self, latents: Tensor) -> Features:
        """The first two convolutions, whose inputs are too narrow for the kernel. In float32."""
        made = self._first(latents)
        plane = Plane(len(latents), *self._size)
        rows = torch.zeros(plane.rows, made.shape[1], dtype=self.dtype, device=self.device)
        plane.inner(rows).copy_(made.permute(0, 2, 3, 1))
        return Features(plane, rows, self._sums_of(plane, rows))

    def _resnet(self, x: Features, block: Any, *, sums: bool = True) -> Features:
        hidden = self._conv(self._normed(x, block.norm1, self._eight_bit), block.conv1, self._eight_bit)
        shortcut = x.rows
        if block.conv_shortcut is not None:
            shortcut = self._conv(Features(x.plane, x.rows), block.conv_shortcut, sums=False).rows
        hidden = self._normed(hidden, block.norm2, self._eight_bit)
        return self._conv(hidden, block.conv2, self._eight_bit, residual=shortcut, sums=sums)

    def _attend(self, x: Features, attention: Any) -> Features:
        """One head over all positions. Adds to `x` in place, which nothing else holds.

        Scores are made a frame at a time: they are the largest tensor here, and one frame's fit in the GPU's
        cache."""
        plane, width = x.plane, x.rows.shape[1]
        normed = plane.inner(self._normed(x, attention.group_norm, silu=False).rows)
        tokens = normed.reshape(plane.count, plane.h * plane.w, width)
        query, key, value = (
            F.linear(tokens, *self._linear(getattr(attention, name))) for name in ("to_q", "to_k", "to_v")
        )
        mixed = torch.empty_like(value)
        scores = query.new_empty(tokens.shape[1], tokens.shape[1])
        for frame in range(plane.count):
            # scaled before they are rounded
            torch.addmm(scores, query[frame], key[frame].T, beta=0, alpha=width**-0.5, out=scores)
            torch.mm(torch.softmax(scores, dim=-1), value[frame], out=mixed[frame])
        added = F.linear(mixed, *self._linear(attention.to_out[0])).view(normed.shape)
        plane.inner(x.rows).add_(added)
        return Features(plane, x.rows, self._sums_of(plane, x.rows))

    def _linear(self, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        packed = self._weights_of(layer)
        if id(layer) not in self._biases:
            self._biases[id(layer)] = packed.bias.to(self.dtype)
        return packed.matrix, self._biases[id(layer)]

    def _double(self, x: Features, conv: nn.Conv2d) -> Features:
        if id(conv) not in self._packed:
            self._packed[id(conv)] = pack_doubling(self._here(conv), self.dtype)
        plane = x.plane.doubled
        rows = torch.empty(plane.rows, conv.out_channels, dtype=self.dtype, device=self.device)
        plane.clear_border(rows)
        sums = self.convolve(x, self._packed[id(conv)], rows, sums=True, out_plane=plane)
        return Features(plane, rows, sums)

    def _conv(
        self,
        x: Features,
        conv: nn.Conv2d,
        eight_bit: bool = False,
        *,
        residual: Tensor | None = None,
        sums: bool = True,
    ) -> Features:
        weights = self._weights_of(conv, eight_bit)
        rows = torch.empty(x.plane.rows, weights.outputs, dtype=self.dtype, device=self.device)
        return Features(x.plane, rows, self.convolve(x, weights, rows, sums=sums, residual=residual))

    def _leave(self, x: Features, conv: nn.Conv2d, pixels: Tensor) -> None:
        """The last convolution makes pixels. Its three outputs are filled up to a tile's columns."""
        if id(conv) not in self._packed:
            wide = nn.Conv2d(conv.in_channels, LEAST_WIDTH, 3, padding=1)
            for name, value in wide.named_parameters():
                value.data.zero_()[:3] = conv.get_parameter(name).detach().to(value)
            self._packed[id(conv)] = pack(self._here(wide), self.dtype)
        self.convolve(x, self._packed[id(conv)], pixels, sums=False)

    # ------------------------------------------------------------------ norms

    def _normed(
        self, x: Features, norm: nn.GroupNorm, eight_bit: bool = False, *, silu: bool = True
    ) -> Features:
        assert x.sums is not None
        plane, channels = x.plane, x.rows.shape[1]
        gamma, beta = self._norm_of(norm)
        affine = torch.empty(plane.count, 2, channels, device=self.device)
        group = channels // self._groups
        kernels.affine_kernel[(plane.count, self._groups)](
            x.sums, gamma, beta, affine, x.sums.shape[1], float(plane.h * plane.w * group), norm.eps,
            GROUP=group, GROUPS=self._groups, BLOCK=1024, num_warps=4,
        )  # fmt: skip
        out = torch.empty_like(x.rows, dtype=FLOAT8 if eight_bit else self.dtype)
        kernels.norm_kernel[(plane.count * plane.tiles(NORM_ROWS),)](
            x.rows, affine, out, plane.h, plane.w, plane.frame_rows, ACTIVATION_FACTOR, FLOAT8_MAX,
            CHANNELS=channels, SILU=silu, SCALED=eight_bit, BM=NORM_ROWS, num_warps=4,
        )  # fmt: skip
        return Features(plane, out)

    def _sums_of(self, plane: Plane, rows: Tensor) -> Tensor:
        """For features that no convolution of ours made last."""
        slots = plane.tiles(NORM_ROWS)
        sums = self.convolve.empty_sums(plane.count, slots)
        kernels.stats_kernel[(plane.count * slots,)](
            rows, sums, plane.frame_rows, CHANNELS=rows.shape[1], GROUP=rows.shape[1] // self._groups,
            GROUPS=self._groups, BM=NORM_ROWS, num_warps=4,
        )  # fmt: skip
        return sums

    # ------------------------------------------------------------------ weights

    def _weights_of(self, layer: nn.Conv2d | nn.Linear, eight_bit: bool = False) -> Weights:
        if id(layer) not in self._packed:
            self._packed[id(layer)] = pack(self._here(layer), self.dtype, eight_bit=eight_bit)
        return self._packed[id(layer)]

    def _here(self, layer: L) -> L:
        """A copy on the device: packing there takes milliseconds, on a CPU seconds."""
        return copy.deepcopy(layer).to(self.device)

    def _norm_of(self, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        if id(norm) not in self._norms:
            gamma, beta = norm.weight.detach().float(), norm.bias.detach().float()
            self._norms[id(norm)] = gamma.to(self.device), beta.to(self.device)
        return self._norms[id(norm)]


def is_usual(decoder: KLDecoder) -> bool:
    """Whether the network has the parts that FastKL knows, in widths that its tiles divide."""
    net: Any = decoder.decoder
    norms = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    groups = {m.num_groups for m in norms}
    widths = {m.num_channels for m in norms}
    blocks = {type(block).__name__ for block in net.up_blocks}
    acts = {type(m) for m in net.modules() if type(m).__module__ == nn.SiLU.__module__}
    return (
        len(groups) == 1
        and all(width & (width - 1) == 0 and width >= LEAST_WIDTH for width in widths)
        and all(width % groups.copy().pop() == 0 for width in widths)
        and blocks == {"UpDecoderBlock2D"}
        and acts == {nn.SiLU}
        and net.conv_out.out_channels == 3
    )


def _first_convolution(decoder: KLDecoder) -> nn.Module:
    quant = decoder.post_quant_conv
    net: Any = decoder.decoder
    parts = [net.conv_in] if quant is None else [quant, net.conv_in]
    copies = []
    for part in parts:
        copy = nn.Conv2d(part.in_channels, part.out_channels, part.kernel_size, padding=part.padding)
        copy.load_state_dict(part.state_dict())
        copies.append(copy)
    return nn.Sequential(*copies).float().eval().requires_grad_(False)
