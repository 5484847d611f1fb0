"""The decoder's kernels compile with the full model's widths; no GPU is needed for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.compile_kernels import run

pytestmark = pytest.mark.slow

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")

# In a process of its own, where Triton compiles instead of interpreting.
PROGRAM = """
import sys
from functools import partial
from encoder_worker.fast import kernels
from encoder_worker.fast.tiles import EIGHT_BIT, HALF, POINTER_TILES
from tests.helpers.compile_kernels import build

capability = int(sys.argv[1])
build = partial(build, pointer="*fp32", whole=False, capability=capability)
for tile in (*HALF, *EIGHT_BIT) if capability == 90 else POINTER_TILES:
    pointers = tile in POINTER_TILES
    kind = "fp8e4nv" if tile in (*EIGHT_BIT, *POINTER_TILES) else "fp16"
    types = {name: f"*{kind}" if pointers else f"tensordesc<{kind}[{width}, {tile.depth}]>"
             for name, width in (("a_desc", tile.rows), ("b_desc", tile.columns))}
    types |= {"out_ptr": "*fp16", "residual_ptr": "*fp16", "bad_ptr": "*i32"}
    conv = dict(K_BLOCKS=256 // tile.depth, TAPS=9, TAP_W=3, PHASES=1, GROUP=8, GROUPS=32, RESIDUAL=True,
                SCALED=kind == "fp8e4nv", PIXELS=False, BM=tile.rows, BN=tile.columns, BK=tile.depth,
                N_TILES=2, POINTERS=pointers)
    build(kernels.conv_kernel, conv, types, tile.warps, tile.stages)
build(kernels.affine_kernel, dict(GROUP=8, GROUPS=32, BLOCK=1024), {"count": "fp32", "eps": "fp32"})
build(kernels.norm_kernel, dict(CHANNELS=256, SILU=True, SCALED=False, BM=16),
      {"x_ptr": "*fp16", "out_ptr": "*fp16", "factor": "fp32", "largest": "fp32"})
build(kernels.stats_kernel, dict(CHANNELS=512, GROUP=16, GROUPS=32, BM=16), {"x_ptr": "*fp16"})
sys.stdout.write("all compiled")
"""


@pytest.mark.parametrize("capability", ["89", "90", "120"])
def test_kernels_compile(tmp_path: Path, capability: str) -> None:
    """Hopper's, and 8-bit convolutions of the cards that have float8 and no tensor copy engine."""
    made = run(PROGRAM, tmp_path, capability)
    assert made.stdout == "all compiled", made.stderr[-3000:]
