"""Launches of the fast decoder's convolutions, each in the tile that is fastest for its shape."""

from __future__ import annotations

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from encoder_worker.fast import kernels
from encoder_worker.fast.layout import Features, Plane, Weights
from encoder_worker.fast.tiles import ConvTile, candidates, fastest

KERNEL_WIDTH = {1: 1, 4: 2, 9: 3}
"""Taps of a convolution → taps in a line of it."""


class Convolutions:
    """Runs convolutions on one device.

    Args:
        groups: of the GroupNorms whose sums the convolutions leave.
        timing: choose each shape's tile by time, when it comes first. Otherwise the first candidate is taken.
    """

    bad: Tensor
    """int32: the number of tiles with pixels that are not finite."""

    def __init__(self, device: torch.device, groups: int, *, timing: bool) -> None:
        self.device, self.groups = device, groups
        self.timing = timing
        self.tiles: dict[tuple[object, ...], ConvTile] = {}
        self.bad = torch.zeros(1, dtype=torch.int32, device=device)

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
            out_plane: where the result lies; None for x's own plane.
        """
        key = (x.plane, weights.inputs, weights.outputs, weights.taps, residual is None, out.dtype, sums)
        if key not in self.tiles:
            tiles = candidates(
                weights.inputs, weights.outputs, out.numel(), eight_bit=weights.scale is not None
            )
            self.tiles[key] = tiles[0]
            if self.timing:

                def run(tile: ConvTile) -> object:
                    return self.launch(tile, x, weights, out, sums, residual, out_plane)

                self.tiles[key] = fastest(tiles, run, self.device)
        return self.launch(self.tiles[key], x, weights, out, sums, residual, out_plane)

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
        a = TensorDescriptor.from_tensor(x.rows, [tile.rows, tile.depth])
        b = TensorDescriptor.from_tensor(weights.matrix, [tile.columns, tile.depth])
        kernels.conv_kernel[(columns * plane.count * slots,)](
            a, b, weights.bias, weights.bias if weights.scale is None else weights.scale,
            out if residual is None else residual, out, partial, self.bad,
            plane.h, plane.w, plane.frame_rows, (out_plane or plane).frame_rows, weights.outputs,
            K_BLOCKS=weights.inputs // tile.depth, TAPS=weights.taps, TAP_W=KERNEL_WIDTH[weights.taps],
            PHASES=weights.phases, GROUP=group, GROUPS=self.groups, RESIDUAL=residual is not None,
            SCALED=weights.scale is not None, PIXELS=out.dtype == torch.uint8,
            BM=tile.rows, BN=tile.columns, BK=tile.depth, N_TILES=columns,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        return partial if sums else None

    def empty_sums(self, count: int, slots: int) -> Tensor:
        """Room for the sums of `count` frames, (count, slots, groups, 2) float32."""
        return torch.empty(count, slots, self.groups, 2, device=self.device)
