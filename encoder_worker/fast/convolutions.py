"""Launches of the fast decoder's convolutions, each in the tile that is fastest for its shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from encoder_worker.fast import kernels
from encoder_worker.fast.layout import Features, Plane, Weights
from encoder_worker.fast.tiles import POINTER_TILES, ConvTile, candidates, fastest

#: Taps of a convolution → taps in a line of it.
KERNEL_WIDTH = {1: 1, 4: 2, 9: 3}
#: Rows of one program of the kernels after cuDNN's convolutions.
FINISH_ROWS, PIXEL_ROWS = 16, 256


class Convolutions:
    """Runs convolutions on one device.

    Args:
        groups: of the GroupNorms whose sums the convolutions leave.
        bad: int32 (1,), which goes up where pixels are not finite.
        timing: choose each shape's tile by time, when it comes first. Otherwise the first candidate is taken.
    """

    #: Whether the tensor copy engine loads.
    copies = True

    def __init__(self, device: torch.device, groups: int, bad: Tensor, *, timing: bool) -> None:
        self.device, self.groups, self.bad = device, groups, bad
        self.timing = timing
        self.tiles: dict[tuple[object, ...], ConvTile] = {}

    def __call__(
        self,
        x: Features,
        weights: Weights,
        out: Tensor,
        *,
        sums: bool,
        residual: Tensor | None = None,
        out_plane: Plane | None = None,
    ) -> Tensor | None:
        """Convolves x into `out`.

        Args:
            x: rows of `weights.inputs` channels.
            out: rows of `weights.outputs` channels of `out_plane`, or (frames, H, W, 3) uint8 pixels.
            sums: whether to return the result's sums by group (frames, slots, groups, 2).
            residual: rows to add to the result.
            out_plane: where the result lies, None for x's own plane.
        """
        key = (x.plane, weights.inputs, weights.outputs, weights.taps, residual is None, out.dtype, sums)

        def run(tile: ConvTile) -> Tensor | None:
            return self.launch(tile, x, weights, out, sums, residual, out_plane)

        return self.in_tiles(key, self.tiles_for(weights, out), run)

    def in_tiles(
        self, key: tuple[object, ...], tiles: list[ConvTile], run: Callable[[ConvTile], Tensor | None]
    ) -> Tensor | None:
        """Runs a convolution in the tile that was chosen when its `key` came first."""
        if key not in self.tiles:
            self.tiles[key] = fastest(tiles, run, self.device) if self.timing else tiles[0]
        return run(self.tiles[key])

    def tiles_for(self, weights: Weights, out: Tensor) -> list[ConvTile]:
        """The tiles in which a result may be made."""
        if not self.copies:
            return [tile.within(weights.inputs, weights.outputs) for tile in POINTER_TILES]
        return candidates(weights.inputs, weights.outputs, out.numel(), eight_bit=weights.scale is not None)

    def launch(
        self,
        tile: ConvTile,
        x: Features,
        weights: Weights,
        out: Tensor,
        sums: bool,
        residual: Tensor | None,
        out_plane: Plane | None,
    ) -> Tensor | None:
        """As the call, in this tile."""
        plane = x.plane
        group = weights.outputs // self.groups if sums else 0
        slots = plane.tiles(tile.rows) * weights.phases
        partial = self.empty_sums(plane.count, slots) if sums else self.bad
        columns = weights.outputs // tile.columns
        a, b = x.rows, weights.matrix
        if self.copies:
            a = TensorDescriptor.from_tensor(a, [tile.rows, tile.depth])
            b = TensorDescriptor.from_tensor(b, [tile.columns, tile.depth])
        kernels.conv_kernel[(columns * plane.count * slots,)](
            a, b, weights.bias, weights.bias if weights.scale is None else weights.scale,
            out if residual is None else residual, out, partial, self.bad,
            plane.h, plane.w, plane.frame_rows, (out_plane or plane).frame_rows, plane.rows, weights.outputs,
            K_BLOCKS=weights.inputs // tile.depth, TAPS=weights.taps, TAP_W=KERNEL_WIDTH[weights.taps],
            PHASES=weights.phases, GROUP=group, GROUPS=self.groups, RESIDUAL=residual is not None,
            SCALED=weights.scale is not None, PIXELS=out.dtype == torch.uint8,
            BM=tile.rows, BN=tile.columns, BK=tile.depth, N_TILES=columns,
            POINTERS=not self.copies,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        return partial if sums else None

    def empty_sums(self, count: int, slots: int) -> Tensor:
        """Room for the sums of `count` frames, (count, slots, groups, 2) float32."""
        return torch.empty(count, slots, self.groups, 2, device=self.device)


class CudnnConvolutions(Convolutions):
    """The same by cuDNN, and one pass for bias, residual, border and sums: for GPUs without the tensor copy
    engine. Only 8-bit convolutions are `kernels.conv_kernel`'s there, since torch has none.

    A frame's rows with their zeros are an image of (h + 1) × (w + 1) in cuDNN's own layout (NHWC). Weights
    lie as cuDNN wants them too. Zeros beyond the last line and column are there, those before the first are
    the convolution's padding.
    """

    copies = False

    def __call__(
        self,
        x: Features,
        weights: Weights,
        out: Tensor,
        *,
        sums: bool,
        residual: Tensor | None = None,
        out_plane: Plane | None = None,
    ) -> Tensor | None:
        """As `Convolutions`."""
        if weights.scale is not None:
            return super().__call__(x, weights, out, sums=sums, residual=residual, out_plane=out_plane)
        if weights.taps == 1 and residual is None and not sums:  # a shortcut, whose border nobody reads
            torch.addmm(weights.bias.to(out.dtype), x.rows, weights.matrix.t(), out=out)
            return None
        made = self._products(x, weights)
        if out.dtype == torch.uint8:
            self._to_pixels(x.plane, made, weights, out)
            return None
        plane = out_plane or x.plane
        slots = plane.tiles(FINISH_ROWS)
        partial = self.empty_sums(plane.count, slots) if sums else self.bad
        kernels.finish_kernel[(plane.count * slots,)](
            made, weights.bias, out if residual is None else residual, out, partial,
            plane.h, plane.w, plane.frame_rows, CHANNELS=weights.outputs,
            GROUP=weights.outputs // self.groups, GROUPS=self.groups, RESIDUAL=residual is not None,
            PHASES=weights.phases, SUMS=sums, BM=FINISH_ROWS, num_warps=4,
        )  # fmt: skip
        return partial if sums else None

    def _products(self, x: Features, weights: Weights) -> Tensor:
        """(frames, H, W, phases · outputs), in memory in this order."""
        side = KERNEL_WIDTH[weights.taps]
        image = x.plane.framed(x.rows).permute(0, 3, 1, 2)
        matrix = weights.matrix.view(len(weights.matrix), side, side, weights.inputs).permute(0, 3, 1, 2)
        made = torch.nn.functional.conv2d(image, matrix, padding=side // 2)
        return made.permute(0, 2, 3, 1).contiguous()

    def _to_pixels(self, plane: Plane, made: Tensor, weights: Weights, out: Tensor) -> None:
        kernels.pixels_kernel[(plane.count * plane.tiles(PIXEL_ROWS),)](
            made, weights.bias, out, self.bad, plane.h, plane.w, plane.frame_rows,
            COLUMNS=weights.outputs, BM=PIXEL_ROWS, num_warps=4,
        )  # fmt: skip
