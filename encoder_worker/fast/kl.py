"""AutoencoderKL's decoder (Rombach et al. 2022, arXiv 2112.10752) for one picture size on a recent GPU.

The same function as diffusers' module, differently computed: features as rows of channels (see `kernels`),
nearest-neighbour doubling and the 3×3 convolution after it as four 2×2 convolutions of the small picture
(4/9 of the operations, exactly the same sums), GroupNorm's sums in the tail of the convolution before,
pixels made in the last one's, and the whole of it in one CUDA graph.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from triton.tools.tensor_descriptor import TensorDescriptor

from encoder_worker.fast import kernels
from encoder_worker.fast.rows import (
    ACTIVATION_FACTOR,
    FLOAT8,
    FLOAT8_MAX,
    Features,
    Plane,
    Weights,
    pack,
    pack_doubling,
)
from encoder_worker.fast.tiles import Tile, candidates, fastest
from encoder_worker.fast.ways import WAYS, Way, fastest_recording
from encoder_worker.vae.decoders import Decoder, KLDecoder
from protocol.model.hardware.dtypes import dtype_name

log = logging.getLogger(__name__)

L = TypeVar("L", bound=nn.Module)
NORM_ROWS = 16
LEAST_K = 16  # what a matrix product on the tensor cores takes at least


class FastKL:
    """Decodes `count` frames of latents at a time: `latents` in, `run()`, `pixels` out.

    Args:
        decoder: a KLDecoder that `fits` says yes to, on the CPU or the device.
        count, h, w: frames at once and the latents' size.
        dtype: float16 or bfloat16, of features and weights.
        eight_bit: residual blocks' convolutions in 8-bit floating point: faster, less exact.
        graph: record a CUDA graph. Without, every kernel is launched by itself.
        ways: how to record it; the fastest is kept. Without a graph the first one is taken.
    """

    latents: Tensor
    """(count, C, h, w) float32: unscaled latents to decode."""
    pixels: Tensor
    """(count, H, W, 3) uint8 RGB."""
    bad: Tensor
    """int32: above 0 if what was decoded is not finite."""

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
        graph: bool = True,
        ways: Sequence[Way] = WAYS,
    ) -> None:
        assert isinstance(decoder, KLDecoder)
        self._device, self._dtype, self._eight_bit = device, dtype, eight_bit
        self._size = h, w
        self.way = ways[0]
        self._net: Any = decoder.decoder
        self._packed: dict[int, Weights] = {}
        self._norms: dict[int, tuple[Tensor, Tensor]] = {}
        self._biases: dict[int, Tensor] = {}
        self._first = _first_convolution(decoder).to(device)
        factor = decoder.factor
        self.latents = torch.zeros(count, decoder.channels, h, w, device=device)
        self.pixels = torch.empty(count, h * factor, w * factor, 3, dtype=torch.uint8, device=device)
        self.bad = torch.zeros(1, dtype=torch.int32, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._tiles: dict[tuple[object, ...], Tile] = {}
        self._timing = graph
        if graph:
            with torch.cuda.device(device):
                self._record(ways)

    def __str__(self) -> str:
        arithmetic = dtype_name(self._dtype) + (" and float8" if self._eight_bit else "")
        how = "kernels" if self._graph is None else f"a CUDA graph of {self.way}"
        return f"{arithmetic} in {how}"

    def run(self) -> None:
        """Decode what is in `latents`, on the device's current stream, the device being the current one."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._decode()

    @torch.inference_mode()
    def _record(self, ways: Sequence[Way]) -> None:
        self.latents.normal_()  # zeros would be timed too fast
        kept = fastest_recording(self._recorded, ways, self.pixels)
        self.way, self._graph = kept.way, kept.graph
        del kept
        torch.cuda.empty_cache()  # of the graphs that are not kept

    def _recorded(self, way: Way) -> torch.cuda.CUDAGraph:
        self.way = way
        main, *sides = (torch.cuda.Stream(self._device) for _ in self._lanes())
        main.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(main):
            self._decode()  # compiles the kernels, chooses their tiles, packs the weights
            if sides:
                self._decode(sides)  # cuBLAS takes its workspace for each stream, outside of the graph
        torch.cuda.current_stream(self._device).wait_stream(main)
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=main):
            self._decode(sides)
        return graph

    # ------------------------------------------------------------------ the steps

    def _lanes(self) -> list[slice]:
        """The frames of each lane."""
        count = len(self.latents)
        size = -(-count // self.way.lanes)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    @torch.inference_mode()
    def _decode(self, sides: Sequence[torch.cuda.Stream] = ()) -> None:
        """All lanes: the first in the current stream, the others side by side in `sides` or, without, after
        it. Each has its own memory, since torch gives memory that a stream freed to that stream alone."""
        self.bad.zero_()
        for side in sides:
            side.wait_stream(torch.cuda.current_stream(self._device))
        for number, frames in enumerate(self._lanes()):
            stream = sides[number - 1] if sides and number else None
            with nullcontext() if stream is None else torch.cuda.stream(stream):
                self._decode_lane(self.latents[frames], self.pixels[frames])
        for side in sides:
            torch.cuda.current_stream(self._device).wait_stream(side)

    def _decode_lane(self, latents: Tensor, pixels: Tensor) -> None:
        net = self._net
        x = self._enter(latents)
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
        self._leave(self._normed(x, net.conv_norm_out), net.conv_out, pixels)

    def _enter(self, latents: Tensor) -> Features:
        """The first two convolutions, whose inputs are too narrow for the kernel; float32."""
        made = self._first(latents)
        plane = Plane(len(latents), *self._size)
        rows = torch.zeros(plane.rows, made.shape[1], dtype=self._dtype, device=self._device)
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
        """One head over all positions; scores a frame at a time, since they are the largest tensor here and
        those of one fit in the GPU's cache. Adds to `x` in place, which nothing else holds."""
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
            self._biases[id(layer)] = packed.bias.to(self._dtype)
        return packed.matrix, self._biases[id(layer)]

    def _double(self, x: Features, conv: nn.Conv2d) -> Features:
        if id(conv) not in self._packed:
            self._packed[id(conv)] = pack_doubling(self._here(conv), self._dtype)
        plane = x.plane.doubled
        rows = torch.empty(plane.rows, conv.out_channels, dtype=self._dtype, device=self._device)
        plane.clear_border(rows)
        sums = self._launch(x, self._packed[id(conv)], rows, sums=True, out_plane=plane)
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
        rows = torch.empty(x.plane.rows, weights.outputs, dtype=self._dtype, device=self._device)
        return Features(x.plane, rows, self._launch(x, weights, rows, sums=sums, residual=residual))

    def _leave(self, x: Features, conv: nn.Conv2d, pixels: Tensor) -> None:
        """The last convolution makes pixels; its three outputs are filled up to a tile's columns."""
        if id(conv) not in self._packed:
            wide = nn.Conv2d(conv.in_channels, LEAST_K, 3, padding=1)
            for name, value in wide.named_parameters():
                value.data.zero_()[:3] = conv.get_parameter(name).detach().to(value)
            self._packed[id(conv)] = pack(self._here(wide), self._dtype)
        self._launch(x, self._packed[id(conv)], pixels, sums=False)

    # ------------------------------------------------------------------ launches

    def _launch(
        self,
        x: Features,
        weights: Weights,
        out: Tensor,
        *,
        sums: bool,
        residual: Tensor | None = None,
        out_plane: Plane | None = None,
    ) -> Tensor | None:
        """Runs a convolution into `out`; the sums of its result by group, if they are asked for."""
        key = (x.plane, weights.inputs, weights.outputs, weights.taps, residual is None, out.dtype, sums)
        if key not in self._tiles:
            tiles = candidates(
                weights.inputs, weights.outputs, out.numel(), eight_bit=weights.scale is not None
            )
            self._tiles[key] = tiles[0]
            if self._timing:

                def run(tile: Tile) -> object:
                    return self._launch_as(tile, x, weights, out, sums, residual, out_plane)

                self._tiles[key] = fastest(tiles, run, self._device)
        return self._launch_as(self._tiles[key], x, weights, out, sums, residual, out_plane)

    def _launch_as(
        self,
        tile: Tile,
        x: Features,
        weights: Weights,
        out: Tensor,
        sums: bool,
        residual: Tensor | None,
        out_plane: Plane | None,
    ) -> Tensor | None:
        plane = x.plane
        group = self._group(weights.outputs) if sums else 0
        slots = plane.tiles(tile.rows) * weights.phases
        partial = self._empty_sums(plane.count, slots) if sums else self.bad
        columns = weights.outputs // tile.columns
        a = TensorDescriptor.from_tensor(x.rows, [tile.rows, tile.depth])
        b = TensorDescriptor.from_tensor(weights.matrix, [tile.columns, tile.depth])
        kernels.conv_kernel[(columns * plane.count * slots,)](
            a, b, weights.bias, weights.bias if weights.scale is None else weights.scale,
            out if residual is None else residual, out, partial, self.bad,
            plane.h, plane.w, plane.frame_rows, (out_plane or plane).frame_rows, weights.outputs,
            K_BLOCKS=weights.inputs // tile.depth, TAPS=weights.taps, TAP_W={1: 1, 4: 2, 9: 3}[weights.taps],
            PHASES=weights.phases, GROUP=group, GROUPS=self._groups, RESIDUAL=residual is not None,
            SCALED=weights.scale is not None, PIXELS=out.dtype == torch.uint8,
            BM=tile.rows, BN=tile.columns, BK=tile.depth, N_TILES=columns,
            num_warps=tile.warps, num_stages=tile.stages, **self._options,
        )  # fmt: skip
        return partial if sums else None

    def _normed(
        self, x: Features, norm: nn.GroupNorm, eight_bit: bool = False, *, silu: bool = True
    ) -> Features:
        assert x.sums is not None
        plane, channels = x.plane, x.rows.shape[1]
        gamma, beta = self._norm_of(norm)
        affine = torch.empty(plane.count, 2, channels, device=self._device)
        group = channels // self._groups
        kernels.affine_kernel[(plane.count, self._groups)](
            x.sums, gamma, beta, affine, x.sums.shape[1], float(plane.h * plane.w * group), norm.eps,
            GROUP=group, GROUPS=self._groups, BLOCK=1024, num_warps=4, **self._options,
        )  # fmt: skip
        out = torch.empty_like(x.rows, dtype=FLOAT8 if eight_bit else self._dtype)
        kernels.norm_kernel[(plane.count * plane.tiles(NORM_ROWS),)](
            x.rows, affine, out, plane.h, plane.w, plane.frame_rows, ACTIVATION_FACTOR, FLOAT8_MAX,
            CHANNELS=channels, SILU=silu, SCALED=eight_bit, BM=NORM_ROWS, num_warps=4,
            **self._options,
        )  # fmt: skip
        return Features(plane, out)

    def _sums_of(self, plane: Plane, rows: Tensor) -> Tensor:
        """For features that no convolution of ours made last."""
        slots = plane.tiles(NORM_ROWS)
        sums = self._empty_sums(plane.count, slots)
        kernels.stats_kernel[(plane.count * slots,)](
            rows, sums, plane.frame_rows, CHANNELS=rows.shape[1], GROUP=self._group(rows.shape[1]),
            GROUPS=self._groups, BM=NORM_ROWS, num_warps=4, **self._options,
        )  # fmt: skip
        return sums

    @property
    def _options(self) -> dict[str, bool]:
        """Of every launch; Triton's interpreter knows none of them."""
        return {"PDL": True, "launch_pdl": True} if self.way.pdl else {}

    @property
    def _groups(self) -> int:
        return int(self._net.conv_norm_out.num_groups)

    def _group(self, channels: int) -> int:
        return channels // self._groups

    def _empty_sums(self, count: int, slots: int) -> Tensor:
        return torch.empty(count, slots, self._groups, 2, device=self._device)

    # ------------------------------------------------------------------ weights

    def _weights_of(self, layer: nn.Conv2d | nn.Linear, eight_bit: bool = False) -> Weights:
        if id(layer) not in self._packed:
            self._packed[id(layer)] = pack(self._here(layer), self._dtype, eight_bit=eight_bit)
        return self._packed[id(layer)]

    def _here(self, layer: L) -> L:
        """A copy on the device: packing there takes milliseconds, on a CPU seconds."""
        return copy.deepcopy(layer).to(self._device)

    def _norm_of(self, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        if id(norm) not in self._norms:
            gamma, beta = norm.weight.detach().float(), norm.bias.detach().float()
            self._norms[id(norm)] = gamma.to(self._device), beta.to(self._device)
        return self._norms[id(norm)]


def fits(decoder: Decoder, device: torch.device) -> bool:
    """Whether FastKL can stand in for this decoder on this device: an AutoencoderKL of the usual build, on a
    GPU with a tensor copy engine (compute capability 9.0 and up)."""
    if not isinstance(decoder, KLDecoder) or device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device) >= (9, 0) and is_usual(decoder)


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
        and all(width & (width - 1) == 0 and width >= LEAST_K for width in widths)
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
